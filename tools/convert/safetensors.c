/* u64 length N -> N bytes of JSON {name: {dtype, shape, data_offsets}} -> tensors; data follows. */
#include "safetensors.h"

#include <stdlib.h>
#include <string.h>

#include "json_file.h"
#include "status.h"

/* The limit of the format's own library. */
enum { LENGTH_SIZE = 8, MAX_HEADER = 100000000 };

static mvlm_status load_header(const struct source_file *file, uint64_t *data, json_t **out,
                               mvlm_error *error)
{
    uint8_t length[LENGTH_SIZE], *text;
    if (file->n_bytes < sizeof length)
        return source_file_fail(file, error,
                                "%llu bytes, too short for a safetensors file: truncated?",
                                (unsigned long long)file->n_bytes);
    TRY(source_file_read(file, 0, length, sizeof length, error));
    const uint64_t n_bytes = load_u64(length);
    TRY(source_file_load(file, sizeof length, n_bytes, MAX_HEADER, "header", &text, error));
    *data = sizeof length + n_bytes;
    json_error_t reason;
    char near[QUOTE_SIZE];
    bool no_memory = false;
    *out = NULL;
    if (text[0] == '{')
        *out = json_read((const char *)text, (size_t)n_bytes,
                         JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &reason, &no_memory);
    const bool begins = text[0] == '{';
    free(text);
    if (!begins)
        return source_file_fail(file, error, "header does not begin with '{': not safetensors?");
    if (no_memory)
        return fail_no_memory(error, "a header", (size_t)n_bytes);
    if (!*out)
        return source_file_fail(file, error, "header is not JSON: %s (byte %d)",
                                quote(near, reason.text, strlen(reason.text)), reason.position);
    return MVLM_OK;
}

static mvlm_status check_metadata(const struct source_file *file, json_t *metadata,
                                  mvlm_error *error)
{
    const char *key;
    json_t *value;
    if (!json_is_object(metadata))
        return source_file_fail(file, error, "__metadata__ is not an object");
    json_object_foreach(metadata, key, value)
    {
        char text[QUOTE_SIZE];
        if (!json_is_string(value))
            return source_file_fail(file, error, "__metadata__: '%s' is not a string",
                                    quote(text, key, strlen(key)));
    }
    return MVLM_OK;
}

/* Reads n integers that are not negative. */
static mvlm_status read_integers(const struct source_file *file, const char *name,
                                 const char *field, const json_t *array, int64_t *out,
                                 mvlm_error *error)
{
    for (size_t i = 0; i < json_array_size(array); i++) {
        const json_t *const value = json_array_get(array, i);
        if (!json_is_integer(value) || json_integer_value(value) < 0)
            return source_file_fail(
                file, error, "tensor '%s': %s[%zu] is not an integer of 0 or more", name, field, i);
        out[i] = json_integer_value(value);
    }
    return MVLM_OK;
}

static mvlm_status read_shape(const struct source_file *file, const json_t *entry,
                              struct source_tensor *tensor, mvlm_error *error)
{
    const char *const name = tensor->name;
    const json_t *const dtype = json_object_get(entry, "dtype");
    const json_t *const shape = json_object_get(entry, "shape");
    char text[QUOTE_SIZE];
    if (!json_is_string(dtype))
        return source_file_fail(file, error, "tensor '%s': dtype is not a string", name);
    const char *const type = json_string_value(dtype);
    if (!dtype_from_name(type, json_string_length(dtype), &tensor->dtype))
        return source_file_fail(file, error, "tensor '%s': unknown dtype '%s'", name,
                                quote(text, type, json_string_length(dtype)));
    if (!json_is_array(shape))
        return source_file_fail(file, error, "tensor '%s': shape is not an array", name);
    if (json_array_size(shape) > MAX_DIMS)
        return source_file_fail(file, error, "tensor '%s': %zu dimensions, at most %d", name,
                                json_array_size(shape), MAX_DIMS);
    tensor->n_dims = (int)json_array_size(shape);
    return read_integers(file, name, "shape", shape, tensor->shape, error);
}

static mvlm_status read_entry(const struct source_file *file, uint64_t data, const json_t *entry,
                              struct source_tensor *tensor, mvlm_error *error)
{
    const char *const name = tensor->name;
    if (!json_is_object(entry))
        return source_file_fail(file, error, "tensor '%s': entry is not an object", name);
    TRY(read_shape(file, entry, tensor, error));
    const json_t *const range = json_object_get(entry, "data_offsets");
    int64_t offsets[2] = {0}, count, n_bytes;
    if (!json_is_array(range) || json_array_size(range) != 2)
        return source_file_fail(file, error, "tensor '%s': data_offsets is not a pair", name);
    TRY(read_integers(file, name, "data_offsets", range, offsets, error));
    if (offsets[0] > offsets[1] || (uint64_t)offsets[1] > file->n_bytes - data)
        return source_file_fail(
            file, error, "tensor '%s': data_offsets %lld to %lld, file has %llu bytes of data",
            name, (long long)offsets[0], (long long)offsets[1],
            (unsigned long long)(file->n_bytes - data));
    if (!shape_strides(tensor->shape, tensor->n_dims, tensor->stride, &count) ||
        __builtin_mul_overflow(count, (int64_t)dtype_size(tensor->dtype), &n_bytes))
        return source_file_fail(file, error, "tensor '%s': shape too large", name);
    if (n_bytes != offsets[1] - offsets[0])
        return source_file_fail(file, error,
                                "tensor '%s': %lld bytes in the file, shape and dtype need %lld",
                                name, (long long)(offsets[1] - offsets[0]), (long long)n_bytes);
    tensor->offset = data + (uint64_t)offsets[0];
    return MVLM_OK;
}

static uint64_t end_of(const struct source_tensor *tensor)
{
    return tensor->offset + (uint64_t)source_tensor_count(tensor) * dtype_size(tensor->dtype);
}

static int by_range(const void *left, const void *right)
{
    const struct source_tensor *const a = *(const struct source_tensor *const *)left;
    const struct source_tensor *const b = *(const struct source_tensor *const *)right;
    if (a->offset != b->offset)
        return a->offset < b->offset ? -1 : 1;
    return (end_of(a) > end_of(b)) - (end_of(a) < end_of(b));
}

/* The ranges of the tensors from `first` on must cover the data from `data` to the file's end, each
 * byte once. */
static mvlm_status check_cover(const struct source_file *file, uint64_t data,
                               const struct tensor_list *list, size_t first, mvlm_error *error)
{
    const size_t n = list->n - first;
    const struct source_tensor **const order = calloc(n ? n : 1, sizeof *order);
    if (!order)
        return fail_no_memory(error, "the order of tensors", n * sizeof *order);
    for (size_t i = 0; i < n; i++)
        order[i] = &list->items[first + i];
    qsort(order, n, sizeof *order, by_range);
    mvlm_status status = MVLM_OK;
    uint64_t end = data;
    for (size_t i = 0; i < n && status == MVLM_OK; i++) {
        if (order[i]->offset < end)
            status = source_file_fail(file, error, "tensor '%s' overlaps tensor '%s'",
                                      order[i]->name, order[i - 1]->name);
        else if (order[i]->offset > end)
            status = source_file_fail(file, error, "hole of %llu bytes before tensor '%s'",
                                      (unsigned long long)(order[i]->offset - end), order[i]->name);
        end = end_of(order[i]);
    }
    if (status == MVLM_OK && end != file->n_bytes)
        status = source_file_fail(file, error, "%llu bytes behind the last tensor",
                                  (unsigned long long)(file->n_bytes - end));
    free(order);
    return status;
}

mvlm_status safetensors_read(const struct source_file *file, int file_index,
                             struct tensor_list *list, mvlm_error *error)
{
    json_t *header, *entry;
    uint64_t data;
    const char *name;
    const size_t first = list->n;
    TRY(load_header(file, &data, &header, error));
    mvlm_status status = MVLM_OK;
    json_object_foreach(header, name, entry)
    {
        struct source_tensor *tensor;
        if (strcmp(name, "__metadata__") == 0) {
            status = check_metadata(file, entry, error);
        } else {
            status = tensor_list_add(list, file, name, strlen(name), &tensor, error);
            if (status == MVLM_OK) {
                tensor->file = file_index;
                status = read_entry(file, data, entry, tensor, error);
            }
        }
        if (status != MVLM_OK)
            goto done;
    }
    status = check_cover(file, data, list, first, error);
done:
    json_decref(header);
    return status;
}
