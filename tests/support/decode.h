/* The tests' own reading of a tensor of model.bin, whatever its type: models/FORMAT.md in few
 * lines, sharing no code with the packers or the kernels. */
#ifndef SUPPORT_DECODE_H
#define SUPPORT_DECODE_H

#include <stddef.h>
#include <stdint.h>

#include "format.h"

/* The directory's entry of that name in a whole file; NULL when there is none. */
const struct format_tensor *entry_of(const uint8_t *file, const char *name);

/* The values in new memory, [n_rows][n_cols]. */
float *decode_entry(const uint8_t *file, const struct format_tensor *entry);

/* sqrt(sum of (a - b)^2 / sum of b^2) over n values; 0 where b is all zeros. */
double relative_error(const float *a, const float *b, size_t n);

#endif
