/* What the readers of single files share: element types, shapes, the list that they fill. */
#ifndef CONVERT_SOURCE_TENSOR_H
#define CONVERT_SOURCE_TENSOR_H

#include "checkpoint.h"
#include "source_file.h"

struct tensor_list {
    struct source_tensor *items;
    size_t n, capacity;
};

/* Appends a tensor of that name, its other fields zero, for the caller to fill in; *out lives until
 * the next call. Refuses names that are empty, longer than 255 bytes or hold control characters. */
mvlm_status tensor_list_add(struct tensor_list *list, const struct source_file *file,
                            const void *name, size_t name_length, struct source_tensor **out,
                            mvlm_error *error);
void tensor_list_free(struct tensor_list *list);

/* The type of a safetensors name ("BF16") or of a torch class ("BFloat16Storage"); false: unknown.
 */
bool dtype_from_name(const char *name, size_t length, enum dtype *dtype);
bool dtype_from_storage(const char *name, size_t length, enum dtype *dtype);

/* Strides of C order, in elements, and the number of elements; false when a product overflows.
 * The dimensions must not be negative. */
bool shape_strides(const int64_t *shape, int n_dims, int64_t *stride, int64_t *count);

/* The number of elements of a tensor that has been checked. */
int64_t source_tensor_count(const struct source_tensor *tensor);

#endif
