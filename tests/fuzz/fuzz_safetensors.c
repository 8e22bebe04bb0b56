/* A safetensors file, whole, or (first byte not 0) a header before as many zeros as the next two bytes say in units of
 * 64; all that it holds is read. */
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "read_all.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    if (n < 1)
        return 0;
    if (*bytes == 0) {
        fuzz_file("model.safetensors", bytes + 1, n - 1);
        read_checkpoint("model.safetensors");
        return 0;
    }
    if (n < 3)
        return 0;
    const size_t n_header = n - 3, n_data = 64 * ((size_t)bytes[1] | (size_t)bytes[2] << 8);
    uint8_t *file = calloc(1, 8 + n_header + n_data);
    fuzz_check(file != NULL);
    for (int i = 0; i < 8; i++)
        file[i] = (uint8_t)((uint64_t)n_header >> 8 * i);
    memcpy(file + 8, bytes + 3, n_header);
    fuzz_file("model.safetensors", file, 8 + n_header + n_data);
    free(file);
    read_checkpoint("model.safetensors");
    return 0;
}
