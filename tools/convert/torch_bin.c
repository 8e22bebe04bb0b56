/* zip directory -> <root>/data.pkl -> tensors with storage keys -> <root>/data/<key> -> offsets. */
#include "torch_bin.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pickle.h"
#include "status.h"
#include "zip.h"

/* A tensor takes some 300 bytes of pickle; the machine that runs it 50 bytes for each of them. */
enum { MAX_PICKLE = 16 << 20, MAX_PATH = 600, MAX_KEY = 64 };

struct archive {
    const struct source_file *file;
    struct zip zip;
    struct pickle_text root; /* of the records' names, up to the first '/' */
};

/* Before torch 1.6: a bare pickle that begins with this number, or a tar archive. */
static mvlm_status refuse_legacy(const struct source_file *file, mvlm_error *error)
{
    static const uint8_t magic[] = {0x80, 2,    0x8a, 10,  'l',  0xfc, 0x9c,
                                    'F',  0xf9, ' ',  'j', 0xa8, 'P'};
    uint8_t start[262] = {0};
    const size_t n = file->n_bytes < sizeof start ? (size_t)file->n_bytes : sizeof start;
    TRY(source_file_read(file, 0, start, n, error));
    if (memcmp(start, magic, sizeof magic) == 0 || memcmp(start + 257, "ustar", 5) == 0)
        return source_file_fail(
            file, error,
            "in the format of torch before 1.6, which is not read: load it with "
            "torch and save it again");
    return MVLM_OK;
}

static mvlm_status find_root(struct archive *archive, mvlm_error *error)
{
    static const char name[] = "/data.pkl";
    const size_t length = sizeof name - 1;
    for (size_t i = 0; i < archive->zip.n_records; i++) {
        const struct zip_record *const record = &archive->zip.records[i];
        const char *const slash = memchr(record->name, '/', record->name_length);
        if (!slash || record->name_length - (size_t)(slash - record->name) != length ||
            memcmp(slash, name, length) != 0)
            continue;
        if (archive->root.bytes)
            return source_file_fail(archive->file, error, "two records data.pkl, expected one");
        archive->root = (struct pickle_text){record->name, (size_t)(slash - record->name)};
    }
    if (!archive->root.bytes)
        return source_file_fail(archive->file, error,
                                "zip archive without data.pkl: not a file of torch.save");
    return MVLM_OK;
}

/* The record <root>/<folder><name>; NULL when there is none. */
static const struct zip_record *find_record(const struct archive *archive, const char *folder,
                                            struct pickle_text name)
{
    char path[MAX_PATH];
    if (name.n > MAX_KEY)
        return NULL;
    const int n =
        snprintf(path, sizeof path, "%.*s/%s", (int)archive->root.n, archive->root.bytes, folder);
    if (n < 0 || (size_t)n > sizeof path - MAX_KEY)
        return NULL;
    memcpy(path + n, name.bytes, name.n);
    return zip_find(&archive->zip, path, (size_t)n + name.n);
}

static mvlm_status check_byteorder(const struct archive *archive, mvlm_error *error)
{
    static const struct pickle_text byteorder = {"byteorder", 9};
    const struct zip_record *const record = find_record(archive, "", byteorder);
    char order[16] = {0}, text[QUOTE_SIZE];
    if (!record)
        return MVLM_OK;
    const size_t n = record->n_bytes < sizeof order ? (size_t)record->n_bytes : sizeof order;
    TRY(source_file_read(archive->file, record->offset, order, n, error));
    if (record->n_bytes == 6 && memcmp(order, "little", 6) == 0)
        return MVLM_OK;
    return source_file_fail(archive->file, error, "byteorder '%s', expected 'little'",
                            quote(text, order, n));
}

/* The last element, in elements from the storage's start; false when that overflows. */
static bool find_last(const struct pickle_tensor *tensor, int64_t *last)
{
    int64_t span;
    *last = tensor->offset;
    for (int d = 0; d < tensor->n_dims; d++)
        if (__builtin_mul_overflow(tensor->shape[d] - 1, tensor->stride[d], &span) ||
            __builtin_add_overflow(*last, span, last))
            return false;
    return true;
}

/* More elements than the storage has come from stride 0, and could be any number. */
static mvlm_status check_extent(const struct source_file *file, const char *name,
                                const struct pickle_tensor *from, mvlm_error *error)
{
    int64_t dense[MAX_DIMS], count, last;
    if (!shape_strides(from->shape, from->n_dims, dense, &count))
        return source_file_fail(file, error, "tensor '%s': shape too large", name);
    if (count > from->storage_count || from->offset > from->storage_count)
        return source_file_fail(file, error, "tensor '%s': %lld elements at %lld, storage has %lld",
                                name, (long long)count, (long long)from->offset,
                                (long long)from->storage_count);
    if (count > 0 && (!find_last(from, &last) || last >= from->storage_count))
        return source_file_fail(file, error,
                                "tensor '%s': strides reach beyond its storage of %lld elements",
                                name, (long long)from->storage_count);
    return MVLM_OK;
}

static mvlm_status place_tensor(const struct archive *archive, const struct pickle_tensor *from,
                                struct source_tensor *tensor, mvlm_error *error)
{
    const struct source_file *const file = archive->file;
    const struct zip_record *const record = find_record(archive, "data/", from->storage);
    char key[QUOTE_SIZE];
    uint64_t n_bytes;
    quote(key, from->storage.bytes, from->storage.n);
    if (!record)
        return source_file_fail(file, error, "tensor '%s': no record data/%s", tensor->name, key);
    if (__builtin_mul_overflow((uint64_t)from->storage_count, dtype_size(from->dtype), &n_bytes) ||
        n_bytes != record->n_bytes)
        return source_file_fail(file, error,
                                "tensor '%s': record data/%s of %llu bytes, expected %lld x %zu",
                                tensor->name, key, (unsigned long long)record->n_bytes,
                                (long long)from->storage_count, dtype_size(from->dtype));
    TRY(check_extent(file, tensor->name, from, error));
    tensor->dtype = from->dtype;
    tensor->n_dims = from->n_dims;
    memcpy(tensor->shape, from->shape, sizeof tensor->shape);
    memcpy(tensor->stride, from->stride, sizeof tensor->stride);
    tensor->offset = record->offset + (uint64_t)from->offset * dtype_size(from->dtype);
    return MVLM_OK;
}

static mvlm_status read_tensors(struct archive *archive, int file_index, struct tensor_list *list,
                                mvlm_error *error)
{
    static const struct pickle_text data = {"data.pkl", 8};
    struct pickle_tensor *tensors = NULL;
    size_t n;
    uint8_t *bytes;
    TRY(find_root(archive, error));
    TRY(check_byteorder(archive, error));
    const struct zip_record *const record = find_record(archive, "", data);
    if (!record)
        return source_file_fail(archive->file, error, "zip: root name that cannot be used");
    TRY(source_file_load(archive->file, record->offset, record->n_bytes, MAX_PICKLE, "data.pkl",
                         &bytes, error));
    mvlm_status status =
        pickle_read(archive->file, bytes, (size_t)record->n_bytes, &tensors, &n, error);
    for (size_t i = 0; status == MVLM_OK && i < n; i++) {
        struct source_tensor *tensor;
        status = tensor_list_add(list, archive->file, tensors[i].name.bytes, tensors[i].name.n,
                                 &tensor, error);
        if (status == MVLM_OK) {
            tensor->file = file_index;
            status = place_tensor(archive, &tensors[i], tensor, error);
        }
    }
    free(tensors);
    free(bytes);
    return status;
}

mvlm_status torch_bin_read(const struct source_file *file, int file_index, struct tensor_list *list,
                           mvlm_error *error)
{
    struct archive archive = {.file = file};
    TRY(refuse_legacy(file, error));
    TRY(zip_open(file, &archive.zip, error));
    const mvlm_status status = read_tensors(&archive, file_index, list, error);
    zip_close(&archive.zip);
    return status;
}
