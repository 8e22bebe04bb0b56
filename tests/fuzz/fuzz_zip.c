/* A file of torch.save as it is: archive, pickle and storages. */
#include "fuzz.h"
#include "read_all.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    fuzz_file("pytorch_model.bin", bytes, n);
    read_checkpoint("pytorch_model.bin");
    return 0;
}
