/* tensors -> JSON header + data; views + storages -> pickle -> zip records -> archive. */
#include "checkpoint_builder.h"
#include "json_file.h"

#include <dirent.h>
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

#include <cmocka.h>

enum { MAX_PATH = 512, MAX_RECORDS = 64, LOCAL_SIZE = 30, ALIGNMENT = 64 };

/* ---- Folders and files ------------------------------------------------------------------ */

int folder_setup(void **state)
{
    static const char name[] = "/tmp/mobilevlm-test-XXXXXX";
    char *const folder = strdup(name);
    *state = folder;
    return folder && mkdtemp(folder) ? 0 : -1;
}

void folder_clear(const char *folder)
{
    DIR *const directory = opendir(folder);
    assert_non_null(directory);
    for (const struct dirent *entry; (entry = readdir(directory));)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            unlinkat(dirfd(directory), entry->d_name, 0);
    closedir(directory);
}

int folder_teardown(void **state)
{
    folder_clear(*state);
    const int result = rmdir(*state);
    free(*state);
    return result;
}

static FILE *file_open(const char *folder, const char *name, const char *mode)
{
    char path[MAX_PATH];
    assert_true((size_t)snprintf(path, sizeof path, "%s/%s", folder, name) < sizeof path);
    FILE *const file = fopen(path, mode);
    assert_non_null(file);
    return file;
}

static void put(FILE *file, const void *bytes, size_t n)
{
    if (n)
        assert_int_equal(fwrite(bytes, 1, n, file), n);
}

void file_write(const char *folder, const char *name, const void *bytes, size_t n_bytes)
{
    FILE *const file = file_open(folder, name, "wb");
    put(file, bytes, n_bytes);
    assert_int_equal(fclose(file), 0);
}

uint8_t *folder_file_load(const char *folder, const char *name, size_t *n_bytes)
{
    FILE *const file = file_open(folder, name, "rb");
    assert_int_equal(fseek(file, 0, SEEK_END), 0);
    *n_bytes = (size_t)ftell(file);
    rewind(file);
    uint8_t *const bytes = malloc(*n_bytes + 1);
    assert_non_null(bytes);
    assert_int_equal(fread(bytes, 1, *n_bytes, file), *n_bytes);
    fclose(file);
    return bytes;
}

void bytes_add(struct bytes *bytes, const void *data, size_t n)
{
    if (bytes->n + n >= bytes->capacity) {
        bytes->capacity = 2 * (bytes->n + n) + 64;
        bytes->data = realloc(bytes->data, bytes->capacity);
        assert_non_null(bytes->data);
    }
    if (n)
        memcpy(bytes->data + bytes->n, data, n);
    bytes->n += n;
}

void bytes_free(struct bytes *bytes)
{
    free(bytes->data);
    *bytes = (struct bytes){0};
}

/* The lowest `n` bytes of a number. */
static void add_number(struct bytes *bytes, uint64_t number, int n)
{
    for (int i = 0; i < n; i++)
        bytes_add(bytes, &(uint8_t){(uint8_t)(number >> 8 * i)}, 1);
}

void check_refused(const char *folder, const char *part)
{
    struct checkpoint *checkpoint = (struct checkpoint *)&checkpoint;
    mvlm_error error = {0};
    const mvlm_status status = checkpoint_open(folder, &checkpoint, &error);
    if (status == MVLM_OK)
        fail_msg("opened, expected '%s'", part);
    assert_null(checkpoint);
    assert_int_equal(status, MVLM_BAD_MODEL);
    assert_int_equal(error.status, MVLM_BAD_MODEL);
    if (!strstr(error.message, part) || !strstr(error.message, folder) ||
        strchr(error.message, '\n'))
        fail_msg("'%s', expected '%s'", error.message, part);
    assert_int_equal(checkpoint_open(folder, &checkpoint, NULL), MVLM_BAD_MODEL);
}

/* ---- safetensors ------------------------------------------------------------------------ */

static size_t tensor_size(const struct built_tensor *tensor)
{
    size_t n = dtype_size(tensor->dtype);
    for (int d = 0; d < tensor->n_dims; d++)
        n *= (size_t)tensor->shape[d];
    return n;
}

static void put_header(FILE *file, const char *header, size_t n)
{
    struct bytes length = {0};
    add_number(&length, n, 8);
    put(file, length.data, length.n);
    put(file, header, n);
    bytes_free(&length);
}

void build_safetensors(const char *folder, const char *name, const struct built_tensor *tensors,
                       size_t n_tensors)
{
    FILE *const file = file_open(folder, name, "wb");
    json_t *const header = json_pack("{s:{s:s}}", "__metadata__", "format", "pt");
    size_t at = 0;
    for (size_t i = 0; i < n_tensors; i++) {
        const struct built_tensor *const tensor = &tensors[i];
        const size_t n = tensor_size(tensor);
        json_t *const shape = json_array();
        for (int d = 0; d < tensor->n_dims; d++)
            json_array_append_new(shape, json_integer(tensor->shape[d]));
        json_object_set_new(header, tensor->name,
                            json_pack("{s:s, s:o, s:[II]}", "dtype", dtype_name(tensor->dtype),
                                      "shape", shape, "data_offsets", (json_int_t)at,
                                      (json_int_t)(at + n)));
        at += n;
    }
    char *const text = json_written(header, JSON_COMPACT);
    assert_non_null(text);
    struct bytes padded = {0};
    bytes_add(&padded, text, strlen(text));
    while (padded.n % 8)
        bytes_add(&padded, " ", 1);
    put_header(file, (const char *)padded.data, padded.n);
    for (size_t i = 0; i < n_tensors; i++)
        put(file, tensors[i].data, tensor_size(&tensors[i]));
    assert_int_equal(fclose(file), 0);
    bytes_free(&padded);
    free(text);
    json_decref(header);
}

void build_safetensors_raw(const char *folder, const char *name, const char *header,
                           size_t n_header, size_t n_data)
{
    FILE *const file = file_open(folder, name, "wb");
    put_header(file, header, n_header);
    for (size_t i = 0; i < n_data; i++)
        put(file, "", 1);
    assert_int_equal(fclose(file), 0);
}

void build_index(const char *folder, const char *name, const char *const *tensors,
                 const char *const *shards, size_t n)
{
    json_t *const map = json_object();
    for (size_t i = 0; i < n; i++)
        json_object_set_new(map, tensors[i], json_string(shards[i]));
    json_t *const index =
        json_pack("{s:{s:i}, s:o}", "metadata", "total_size", 0, "weight_map", map);
    char *const text = json_written(index, JSON_INDENT(2));
    assert_non_null(text);
    file_write(folder, name, text, strlen(text));
    free(text);
    json_decref(index);
}

/* ---- zip -------------------------------------------------------------------------------- */

/* The fields that local and central header share, from "version needed" to the sizes. */
static void add_shared(struct bytes *bytes, const struct built_record *record, bool zip64)
{
    const uint32_t crc = record->data ? (uint32_t)crc32(0, record->data, (uInt)record->n_bytes) : 0;
    add_number(bytes, zip64 ? 45 : 20, 2);
    add_number(bytes, record->flags, 2);
    add_number(bytes, record->method, 2);
    add_number(bytes, 0, 4);
    add_number(bytes, crc, 4);
    add_number(bytes, zip64 ? UINT32_MAX : record->n_bytes, 4);
    add_number(bytes, zip64 ? UINT32_MAX : record->n_bytes, 4);
    add_number(bytes, strlen(record->name), 2);
}

static void put_record(FILE *file, const struct built_record *record, bool zip64)
{
    struct bytes header = {0};
    const uint64_t at = (uint64_t)ftello(file), zip64_size = zip64 ? 20 : 0;
    const uint64_t end = at + LOCAL_SIZE + strlen(record->name) + zip64_size + 4;
    const uint64_t padding = (ALIGNMENT - end % ALIGNMENT) % ALIGNMENT;
    bytes_add(&header, "PK\3\4", 4);
    add_shared(&header, record, zip64);
    add_number(&header, zip64_size + 4 + padding, 2);
    bytes_add(&header, record->name, strlen(record->name));
    if (zip64) {
        add_number(&header, 1, 2);
        add_number(&header, 16, 2);
        add_number(&header, record->n_bytes, 8);
        add_number(&header, record->n_bytes, 8);
    }
    bytes_add(&header, "FB", 2);
    add_number(&header, padding, 2);
    for (uint64_t i = 0; i < padding; i++)
        bytes_add(&header, "Z", 1);
    put(file, header.data, header.n);
    if (record->data)
        put(file, record->data, (size_t)record->n_bytes);
    else
        assert_int_equal(fseeko(file, (off_t)record->n_bytes, SEEK_CUR), 0);
    bytes_free(&header);
}

static void add_central(struct bytes *directory, const struct built_record *record, uint64_t at,
                        bool zip64)
{
    bytes_add(directory, "PK\1\2", 4);
    add_number(directory, 0, 2);
    add_shared(directory, record, zip64);
    add_number(directory, zip64 ? 28 : 0, 2);
    add_number(directory, 0, 2 + 2 + 2); /* comment, disk, internal attributes */
    add_number(directory, 0, 4);
    add_number(directory, zip64 ? UINT32_MAX : at, 4);
    bytes_add(directory, record->name, strlen(record->name));
    if (!zip64)
        return;
    add_number(directory, 1, 2);
    add_number(directory, 24, 2);
    add_number(directory, record->n_bytes, 8);
    add_number(directory, record->n_bytes, 8);
    add_number(directory, at, 8);
}

static void add_end(struct bytes *out, uint64_t at, uint64_t size, uint64_t n, bool zip64)
{
    if (zip64) {
        bytes_add(out, "PK\6\6", 4);
        add_number(out, 44, 8);
        add_number(out, 45, 2);
        add_number(out, 45, 2);
        add_number(out, 0, 8);
        add_number(out, n, 8);
        add_number(out, n, 8);
        add_number(out, size, 8);
        add_number(out, at, 8);
        bytes_add(out, "PK\6\7", 4);
        add_number(out, 0, 4);
        add_number(out, at + size, 8);
        add_number(out, 1, 4);
    }
    bytes_add(out, "PK\5\6", 4);
    add_number(out, 0, 4);
    add_number(out, zip64 ? UINT16_MAX : n, 2);
    add_number(out, zip64 ? UINT16_MAX : n, 2);
    add_number(out, zip64 ? UINT32_MAX : size, 4);
    add_number(out, zip64 ? UINT32_MAX : at, 4);
    add_number(out, 0, 2);
}

void build_zip(const char *folder, const char *name, const struct built_record *records,
               size_t n_records, bool zip64)
{
    FILE *const file = file_open(folder, name, "wb");
    struct bytes directory = {0}, end = {0};
    for (size_t i = 0; i < n_records; i++) {
        add_central(&directory, &records[i], (uint64_t)ftello(file), zip64);
        put_record(file, &records[i], zip64);
    }
    add_end(&end, (uint64_t)ftello(file), directory.n, n_records, zip64);
    put(file, directory.data, directory.n);
    put(file, end.data, end.n);
    assert_int_equal(fclose(file), 0);
    bytes_free(&directory);
    bytes_free(&end);
}

/* ---- torch ------------------------------------------------------------------------------ */

static void add_text(struct bytes *out, const char *text)
{
    bytes_add(out, "X", 1);
    add_number(out, strlen(text), 4);
    bytes_add(out, text, strlen(text));
}

static void add_code(struct bytes *out, const char *code)
{
    bytes_add(out, code, strlen(code));
}

/* An integer in the shortest opcode, as Python's pickler chooses it. */
static void add_int(struct bytes *out, int64_t number)
{
    if (number >= 0 && number < 256) {
        add_code(out, "K");
        add_number(out, (uint64_t)number, 1);
    } else if (number >= 0 && number < 65536) {
        add_code(out, "M");
        add_number(out, (uint64_t)number, 2);
    } else if (number >= INT32_MIN && number <= INT32_MAX) {
        add_code(out, "J");
        add_number(out, (uint64_t)number, 4);
    } else {
        add_code(out, "\x8a\x08");
        add_number(out, (uint64_t)number, 8);
    }
}

static void add_tuple(struct bytes *out, const int64_t *numbers, int n)
{
    static const char *const short_tuples[] = {")", "\x85", "\x86", "\x87"};
    if (n > 3)
        add_code(out, "(");
    for (int i = 0; i < n; i++)
        add_int(out, numbers[i]);
    add_code(out, n > 3 ? "t" : short_tuples[n]);
}

static void add_storage(struct bytes *out, int key, const struct built_storage *storage)
{
    static const char *const types[] = {
        [DTYPE_F32] = "Float",  [DTYPE_F16] = "Half", [DTYPE_BF16] = "BFloat16",
        [DTYPE_F64] = "Double", [DTYPE_I64] = "Long", [DTYPE_I32] = "Int",
        [DTYPE_I16] = "Short",  [DTYPE_I8] = "Char",  [DTYPE_U8] = "Byte",
        [DTYPE_BOOL] = "Bool"};
    char text[16];
    snprintf(text, sizeof text, "%d", key);
    add_code(out, "(");
    add_text(out, "storage");
    add_code(out, "ctorch\n");
    add_code(out, types[storage->dtype]);
    add_code(out, "Storage\n");
    add_text(out, text);
    add_text(out, "cpu");
    add_int(out, (int64_t)storage->count);
    add_code(out, "tQ");
}

static void add_view(struct bytes *out, const struct built_view *view,
                     const struct built_storage *storages)
{
    if (view->is_parameter)
        add_code(out, "ctorch._utils\n_rebuild_parameter\n");
    add_code(out, "ctorch._utils\n_rebuild_tensor_v2\n(");
    add_storage(out, view->storage, &storages[view->storage]);
    add_int(out, view->offset);
    add_tuple(out, view->shape, view->n_dims);
    add_tuple(out, view->stride, view->n_dims);
    add_code(out, "\x89"
                  "ccollections\nOrderedDict\n)RtR");
    if (view->is_parameter)
        add_code(out, "\x88"
                      "ccollections\nOrderedDict\n)R\x87R");
}

void build_pickle(struct bytes *out, const struct built_view *views, size_t n_views,
                  const struct built_storage *storages, int flags)
{
    add_code(out, "\x80\x02");
    add_code(out, flags & PLAIN_DICT ? "}" : "ccollections\nOrderedDict\n)R");
    add_code(out, "(");
    for (size_t i = 0; i < n_views; i++) {
        add_text(out, views[i].name);
        add_code(out, i < 256 ? "q" : "r");
        add_number(out, i, i < 256 ? 1 : 4);
        add_view(out, &views[i], storages);
    }
    add_code(out, "u");
    if (!(flags & PLAIN_DICT)) {
        add_code(out, "}");
        add_text(out, "_metadata");
        add_code(out, "ccollections\nOrderedDict\n)Rsb");
    }
    add_code(out, ".");
}

void build_archive(const char *folder, const char *name, const void *pickle, size_t n_pickle,
                   const struct built_storage *storages, size_t n_storages, int flags)
{
    struct built_record records[MAX_RECORDS];
    char names[MAX_RECORDS][48];
    size_t n = 0;
    assert_true(n_storages + 3 <= MAX_RECORDS);
    records[n++] =
        (struct built_record){.name = "archive/data.pkl", .data = pickle, .n_bytes = n_pickle};
    if (!(flags & NO_BYTEORDER))
        records[n++] =
            (struct built_record){.name = "archive/byteorder", .data = "little", .n_bytes = 6};
    for (size_t i = 0; i < n_storages; i++, n++) {
        snprintf(names[n], sizeof names[n], "archive/data/%zu", i);
        records[n] =
            (struct built_record){.name = names[n],
                                  .data = storages[i].data,
                                  .n_bytes = storages[i].count * dtype_size(storages[i].dtype)};
    }
    records[n++] = (struct built_record){.name = "archive/version", .data = "3\n", .n_bytes = 2};
    build_zip(folder, name, records, n, flags & ZIP64);
}

void build_torch(const char *folder, const char *name, const struct built_view *views,
                 size_t n_views, const struct built_storage *storages, size_t n_storages, int flags)
{
    struct bytes pickle = {0};
    build_pickle(&pickle, views, n_views, storages, flags);
    build_archive(folder, name, pickle.data, pickle.n, storages, n_storages, flags);
    bytes_free(&pickle);
}

struct checkpoint *open_folder(const char *folder)
{
    struct checkpoint *checkpoint;
    mvlm_error error = {0};
    if (checkpoint_open(folder, &checkpoint, &error) != MVLM_OK)
        fail_msg("%s", error.message);
    return checkpoint;
}
