/* Element types and the list of tensors. */
#include "source_tensor.h"

#include <stdlib.h>
#include <string.h>

#include "status.h"

enum { MAX_NAME = 255 };

static const struct {
    const char *name;    /* in safetensors */
    const char *storage; /* class in torch */
    size_t size;
} dtypes[] = {
    [DTYPE_F32] = {"F32", "FloatStorage", 4},      [DTYPE_F16] = {"F16", "HalfStorage", 2},
    [DTYPE_BF16] = {"BF16", "BFloat16Storage", 2}, [DTYPE_F64] = {"F64", "DoubleStorage", 8},
    [DTYPE_I64] = {"I64", "LongStorage", 8},       [DTYPE_I32] = {"I32", "IntStorage", 4},
    [DTYPE_I16] = {"I16", "ShortStorage", 2},      [DTYPE_I8] = {"I8", "CharStorage", 1},
    [DTYPE_U8] = {"U8", "ByteStorage", 1},         [DTYPE_BOOL] = {"BOOL", "BoolStorage", 1},
};

enum { N_DTYPES = sizeof dtypes / sizeof *dtypes };

const char *dtype_name(enum dtype dtype)
{
    return dtypes[dtype].name;
}

size_t dtype_size(enum dtype dtype)
{
    return dtypes[dtype].size;
}

static bool same(const char *known, const char *name, size_t length)
{
    return strlen(known) == length && memcmp(known, name, length) == 0;
}

bool dtype_from_name(const char *name, size_t length, enum dtype *dtype)
{
    for (int i = 0; i < N_DTYPES; i++)
        if (same(dtypes[i].name, name, length)) {
            *dtype = (enum dtype)i;
            return true;
        }
    return false;
}

bool dtype_from_storage(const char *name, size_t length, enum dtype *dtype)
{
    for (int i = 0; i < N_DTYPES; i++)
        if (same(dtypes[i].storage, name, length)) {
            *dtype = (enum dtype)i;
            return true;
        }
    return false;
}

bool shape_strides(const int64_t *shape, int n_dims, int64_t *stride, int64_t *count)
{
    *count = 1;
    for (int d = n_dims - 1; d >= 0; d--) {
        stride[d] = *count;
        if (__builtin_mul_overflow(*count, shape[d], count))
            return false;
    }
    return true;
}

int64_t source_tensor_count(const struct source_tensor *tensor)
{
    int64_t count = 1;
    /* In the order of shape_strides: what did not overflow there does not overflow here. */
    for (int d = tensor->n_dims - 1; d >= 0; d--)
        count *= tensor->shape[d];
    return count;
}

static mvlm_status check_name(const struct source_file *file, const char *name, size_t length,
                              mvlm_error *error)
{
    char text[QUOTE_SIZE];
    if (length == 0 || length > MAX_NAME)
        return source_file_fail(file, error, "tensor '%s': name of %zu bytes, expected 1 to %d",
                                quote(text, name, length), length, MAX_NAME);
    for (size_t i = 0; i < length; i++)
        if ((unsigned char)name[i] < ' ' || name[i] == 0x7f)
            return source_file_fail(file, error, "tensor '%s': name with a control character",
                                    quote(text, name, length));
    return MVLM_OK;
}

mvlm_status tensor_list_add(struct tensor_list *list, const struct source_file *file,
                            const void *name, size_t name_length, struct source_tensor **out,
                            mvlm_error *error)
{
    TRY(check_name(file, name, name_length, error));
    if (list->n == list->capacity) {
        const size_t capacity = list->capacity ? 2 * list->capacity : 256;
        struct source_tensor *const items = reallocarray(list->items, capacity, sizeof *items);
        if (!items)
            return fail_no_memory(error, "the list of tensors", capacity * sizeof *items);
        list->items = items;
        list->capacity = capacity;
    }
    char *const copy = strndup(name, name_length);
    if (!copy)
        return fail_no_memory(error, "a tensor's name", name_length + 1);
    *out = &list->items[list->n++];
    **out = (struct source_tensor){.name = copy};
    return MVLM_OK;
}

void tensor_list_free(struct tensor_list *list)
{
    for (size_t i = 0; i < list->n; i++)
        free(list->items[i].name);
    free(list->items);
    *list = (struct tensor_list){0};
}
