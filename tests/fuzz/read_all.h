/* Opens a file of the fuzz folder as a checkpoint and reads all of its tensors that hold numbers. */
#ifndef FUZZ_READ_ALL_H
#define FUZZ_READ_ALL_H

#include <stdlib.h>

#include "checkpoint.h"
#include "fuzz.h"

enum { MOST_VALUES = 1 << 14 };

static inline void read_tensor(const struct checkpoint *checkpoint,
                               const struct source_tensor *tensor)
{
    mvlm_error error = {0};
    int64_t n_rows = tensor->n_dims ? tensor->shape[0] : 1, n = 1;
    for (int i = 0; i < tensor->n_dims; i++)
        if (__builtin_mul_overflow(n, tensor->shape[i], &n))
            return;
    if (n < 1 || n > MOST_VALUES)
        return;
    float *values = malloc((size_t)n * sizeof *values);
    fuzz_check(values != NULL);
    fuzz_outcome(checkpoint_read(checkpoint, tensor, 0, n_rows, values, &error), &error);
    if (n_rows > 1)
        fuzz_outcome(checkpoint_read(checkpoint, tensor, n_rows - 1, 1, values, &error), &error);
    free(values);
}

static inline void read_checkpoint(const char *name)
{
    struct checkpoint *checkpoint;
    mvlm_error error = {0};
    if (!fuzz_outcome(checkpoint_open_file(fuzz_folder(), name, &checkpoint, &error), &error)) {
        fuzz_check(!checkpoint);
        return;
    }
    for (size_t i = 0; i < checkpoint_count(checkpoint); i++)
        read_tensor(checkpoint, checkpoint_tensor(checkpoint, i));
    checkpoint_bytes(checkpoint);
    checkpoint_close(checkpoint);
}

#endif
