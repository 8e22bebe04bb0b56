/* Elements of a tensor, whatever its type and strides -> f32 in C order. */
#ifndef CONVERT_TENSOR_READ_H
#define CONVERT_TENSOR_READ_H

#include "source_tensor.h"

/* checkpoint_read for a tensor of `file`; needs at most 256 KB of memory of its own. */
mvlm_status tensor_read(const struct source_file *file, const struct source_tensor *tensor,
                        int64_t first, int64_t n_rows, float *out, mvlm_error *error);

#endif
