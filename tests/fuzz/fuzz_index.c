/* The list of a checkpoint's shards: its JSON, beside a shard of one tensor. */
#include <string.h>

#include "checkpoint.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    static const char shard[] = "\x38\0\0\0\0\0\0\0{\"a\":{\"dtype\":\"F32\",\"shape\":[2],"
                                "\"data_offsets\":[0,8]}}    \0\0\0\0\0\0\0";
    struct checkpoint *checkpoint;
    mvlm_error error = {0};
    fuzz_file("a.safetensors", shard, sizeof shard);
    fuzz_file("model.safetensors.index.json", bytes, n);
    if (fuzz_outcome(checkpoint_open(fuzz_folder(), &checkpoint, &error), &error))
        checkpoint_close(checkpoint);
    else
        fuzz_check(!checkpoint);
    return 0;
}
