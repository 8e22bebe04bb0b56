/* Checkpoints that must be refused, each with a message that names what is wrong and where; and
 * damaged files, cut at every length and flipped in every bit, which must never do harm.
 * Pickles: test_checkpoint_pickle.c. */
#include "../tools/convert/checkpoint.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "checkpoint_builder.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))
#define SAFETENSORS  "model.safetensors"
#define BIN          "pytorch_model.bin"

/* ---- Folders and indexes ---------------------------------------------------------------- */

static void test_folders(void **state)
{
    const char *const folder = *state;
    char path[512];
    check_refused(folder, "no weights; looked for model.safetensors, model.safetensors.index.json, "
                          "pytorch_model.bin, pytorch_model.bin.index.json");
    snprintf(path, sizeof path, "%s/nowhere", folder);
    check_refused(path, "No such file");
    file_write(folder, "file", "x", 1);
    snprintf(path, sizeof path, "%s/file", folder);
    check_refused(path, "not a folder");
    snprintf(path, sizeof path, "%s/" SAFETENSORS, folder);
    assert_int_equal(symlink("nowhere", path), 0);
    check_refused(folder, SAFETENSORS ": cannot be opened");
    assert_int_equal(unlink(path), 0);
    assert_int_equal(mkfifo(path, 0600), 0);
    check_refused(folder, SAFETENSORS ": not a regular file");
    assert_int_equal(unlink(path), 0);
    static const char pointer[] = "version https://git-lfs.github.com/spec/v1\noid sha256:00\n";
    file_write(folder, BIN, pointer, sizeof pointer - 1);
    check_refused(folder, BIN ": a git-lfs pointer");
    file_write(folder, BIN, "", 0);
    check_refused(folder, BIN ": no end record");
    build_safetensors(folder, SAFETENSORS, NULL, 0);
    check_refused(folder, "holds no tensors");
}

static void build_shard(const char *folder, const char *name, const char *first, const char *second)
{
    static const float numbers[] = {1, 2};
    const struct built_tensor tensors[] = {{first, DTYPE_F32, 1, {1}, numbers},
                                           {second, DTYPE_F32, 1, {1}, numbers + 1}};
    build_safetensors(folder, name, tensors, second ? 2 : 1);
}

static void test_indexes(void **state)
{
    static const struct {
        const char *index, *part;
    } cases[] = {
        {"", "not JSON"},
        {"{", "not JSON"},
        {"[]", "weight_map is not"},
        {"{}", "weight_map is not"},
        {"{\"weight_map\": 3}", "weight_map is not"},
        {"{\"weight_map\": {}}", "weight_map is not"},
        {"{\"weight_map\": {\"a\": 3}}", "a shard is not a string"},
        {"{\"weight_map\": {\"a\": \"1\", \"a\": \"1\"}}", "not JSON: duplicate"},
        {"{\"weight_map\": {\"a\": \"\"}}", "shard ''"},
        {"{\"weight_map\": {\"a\": \"..\"}}", "shard '..'"},
        {"{\"weight_map\": {\"a\": \".\"}}", "shard '.'"},
        {"{\"weight_map\": {\"a\": \"/etc/passwd\"}}", "shard '/etc/passwd'"},
        {"{\"weight_map\": {\"a\": \"../one\"}}", "shard '../one'"},
        {"{\"weight_map\": {\"a\": \"one/\"}}", "shard 'one/'"},
        {"{\"weight_map\": {\"a\": \"o\\nne\"}}", "shard 'o?ne'"},
        {"{\"weight_map\": {\"a\": \"one\\u0000\"}}", "shard 'one?'"},
        {"{\"weight_map\": {\"a\": \"one\", \"b\": \"three\"}}",
         "model.safetensors.index.json: names shard three, which is not in"},
        {"{\"weight_map\": {\"a\": \"one\", \"b\": \"one\", \"c\": \"two\", \"d\": \"two\"}}",
         "tensor 'd' is not in shard two"},
        {"{\"weight_map\": {\"a\": \"one\", \"b\": \"two\", \"c\": \"two\"}}",
         "tensor 'b' is not in shard two"},
        {"{\"weight_map\": {\"a\": \"one\", \"c\": \"two\"}}", "does not name tensor 'b'"},
        {"{\"weight_map\": {\"a\": \"one\", \"b\": \"one\", \"c\": \"twice\"}}",
         "tensor 'b' is also in"},
    };
    const char *const folder = *state;
    build_shard(folder, "one", "a", "b");
    build_shard(folder, "two", "c", NULL);
    build_shard(folder, "twice", "b", "c");
    for (size_t i = 0; i < COUNT(cases); i++) {
        file_write(folder, "model.safetensors.index.json", cases[i].index, strlen(cases[i].index));
        check_refused(folder, cases[i].part);
    }
}

/* ---- safetensors ------------------------------------------------------------------------ */

#define ENTRY(type, shape, offsets)                                                                \
    "{\"dtype\":\"" type "\",\"shape\":" shape ",\"data_offsets\":" offsets "}"

static void test_safetensors(void **state)
{
    static const struct {
        const char *header, *part;
    } cases[] = {
        /* each with 8 bytes of data */
        {"", "does not begin with '{'"},
        {"[]", "does not begin with '{'"},
        {" {}", "does not begin with '{'"},
        {"{", "not JSON"},
        {"{} x", "not JSON"},
        {"{}", "8 bytes behind the last tensor"},
        {"{\"a\":3}", "'a': entry is not an object"},
        {"{\"a\":{}}", "'a': dtype is not a string"},
        {"{\"a\":{\"dtype\":\"F32\"}}", "'a': shape is not an array"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2]}}", "'a': data_offsets is not a pair"},
        {"{\"a\":" ENTRY("F8_E4M3", "[8]", "[0,8]") "}", "'a': unknown dtype 'F8_E4M3'"},
        {"{\"a\":" ENTRY("F32\\u0000", "[2]", "[0,8]") "}", "'a': unknown dtype 'F32?'"},
        {"{\"a\":" ENTRY("F32", "[-2]", "[0,8]") "}", "'a': shape[0] is not"},
        {"{\"a\":" ENTRY("F32", "[1,2.0]", "[0,8]") "}", "'a': shape[1] is not"},
        {"{\"a\":" ENTRY("F32", "[\"2\"]", "[0,8]") "}", "'a': shape[0] is not"},
        {"{\"a\":" ENTRY("F32", "[1,1,1,1,1,1,1,1,2]", "[0,8]") "}",
         "'a': 9 dimensions, at most 8"},
        {"{\"a\":" ENTRY("F32", "[2]", "[0]") "}", "'a': data_offsets is not a pair"},
        {"{\"a\":" ENTRY("F32", "[2]", "[0,8,9]") "}", "'a': data_offsets is not a pair"},
        {"{\"a\":" ENTRY("F32", "[2]", "[-8,0]") "}", "'a': data_offsets[0] is not"},
        {"{\"a\":" ENTRY("F32", "[2]", "[0,8.0]") "}", "'a': data_offsets[1] is not"},
        {"{\"a\":" ENTRY("F32", "[2]", "[0,8e0]") "}", "'a': data_offsets[1] is not"},
        {"{\"a\":" ENTRY("F32", "[2]", "[0,99999999999999999999]") "}", "not JSON"},
        {"{\"a\":" ENTRY("F32", "[0]", "[8,0]") "}", "'a': data_offsets 8 to 0"},
        {"{\"a\":" ENTRY("F32", "[3]", "[0,12]") "}", "'a': data_offsets 0 to 12, file has 8"},
        {"{\"a\":" ENTRY("F32", "[1]", "[0,8]") "}",
         "'a': 8 bytes in the file, shape and dtype need 4"},
        {"{\"a\":" ENTRY("F16", "[2]", "[0,8]") "}", "shape and dtype need 4"},
        {"{\"a\":" ENTRY("U8", "[4294967296,4294967296,8]", "[0,8]") "}", "'a': shape too large"},
        {"{\"a\":" ENTRY("F64", "[2305843009213693953]", "[0,8]") "}", "'a': shape too large"},
        {"{\"a\":" ENTRY("U8", "[0,4294967296,4294967296]", "[0,0]") "}", "'a': shape too large"},
        {"{\"a\":" ENTRY("F32", "[1]", "[0,4]") ",\"b\":" ENTRY("F32", "[2]", "[0,8]") "}",
         "'b' overlaps tensor 'a'"},
        {"{\"a\":" ENTRY("F16", "[3]", "[2,8]") ",\"b\":" ENTRY("F16", "[2]", "[0,4]") "}",
         "'a' overlaps tensor 'b'"},
        {"{\"a\":" ENTRY("F32", "[2]", "[0,8]") ",\"b\":" ENTRY("F32", "[0]", "[4,4]") "}",
         "'b' overlaps tensor 'a'"},
        {"{\"a\":" ENTRY("F32", "[1]", "[4,8]") "}", "hole of 4 bytes before tensor 'a'"},
        {"{\"a\":" ENTRY("F16", "[1]", "[0,2]") ",\"b\":" ENTRY("F32", "[1]", "[4,8]") "}",
         "hole of 2 bytes before tensor 'b'"},
        {"{\"a\":" ENTRY("F32", "[1]", "[0,4]") "}", "4 bytes behind the last tensor"},
        {"{\"a\":" ENTRY("F32", "[2]", "[0,8]") ",\"a\":" ENTRY("F32", "[2]", "[0,8]") "}",
         "duplicate"},
        {"{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}",
         "duplicate"},
        {"{\"\":" ENTRY("F32", "[2]", "[0,8]") "}", "name of 0 bytes"},
        {"{\"a\\n\":" ENTRY("F32", "[2]", "[0,8]") "}", "'a?': name with a control character"},
        {"{\"__metadata__\":3,\"a\":" ENTRY("F32", "[2]", "[0,8]") "}", "__metadata__ is not"},
        {"{\"__metadata__\":{\"x\":1},\"a\":" ENTRY("F32", "[2]", "[0,8]") "}",
         "__metadata__: 'x' is not a string"},
    };
    const char *const folder = *state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        build_safetensors_raw(folder, SAFETENSORS, cases[i].header, strlen(cases[i].header), 8);
        check_refused(folder, cases[i].part);
    }
}

static void test_safetensors_lengths(void **state)
{
    static const uint64_t lengths[] = {11, 100000001, 1ull << 62, UINT64_MAX, UINT64_MAX - 7};
    const char *const folder = *state;
    for (size_t i = 0; i < COUNT(lengths); i++) {
        uint8_t file[8 + 10] = {0};
        memcpy(file, &lengths[i], sizeof lengths[i]);
        memset(file + 8, '{', 10);
        file_write(folder, SAFETENSORS, file, sizeof file);
        check_refused(folder, i ? "header of" : "header of 11 bytes at 8, file has 18: truncated?");
    }
    struct bytes deep = {0};
    for (int i = 0; i < 100000; i++)
        bytes_add(&deep, "{\"a\":", 5);
    build_safetensors_raw(folder, SAFETENSORS, (const char *)deep.data, deep.n, 0);
    check_refused(folder, "not JSON: maximum parsing depth");
    bytes_free(&deep);
}

/* ---- zip -------------------------------------------------------------------------------- */

/* The n-th place of a four-byte signature. */
static uint8_t *find(uint8_t *bytes, size_t n_bytes, const char *signature, int n)
{
    for (size_t at = 0; at + 4 <= n_bytes; at++)
        if (memcmp(bytes + at, signature, 4) == 0 && n-- == 0)
            return bytes + at;
    fail_msg("no such signature");
    return NULL;
}

static void build_small(const char *folder, int flags)
{
    static const float numbers[] = {1, 2, 3, 4, 5, 6};
    const struct built_storage storages[] = {{DTYPE_F32, numbers, 6}, {DTYPE_F16, numbers, 2}};
    const struct built_view views[] = {
        {.name = "a", .offset = 1, .n_dims = 2, .shape = {2, 2}, .stride = {1, 3}},
        {.name = "b", .storage = 1, .n_dims = 1, .shape = {2}, .stride = {1}}};
    build_torch(folder, BIN, views, 2, storages, 2, flags);
}

/* Records of build_small: 0 data.pkl, 1 byteorder, 2 data/0, 3 data/1, 4 version. */
static void test_zip_fields(void **state)
{
    static const struct {
        const char *signature;
        int which, at, n;
        uint64_t value;
        bool zip64;
        const char *part;
    } cases[] = {
        {"PK\1\2", 2, 8, 2, 0x0801, false, "record 'archive/data/0' is encrypted"},
        {"PK\1\2", 2, 8, 2, 0x2000, false, "record 'archive/data/0' is encrypted"},
        {"PK\1\2", 3, 10, 2, 8, false, "record 'archive/data/1' is compressed (method 8)"},
        {"PK\1\2", 2, 20, 4, 23, false, "'archive/data/0': 23 bytes stored, expected 24"},
        {"PK\1\2", 4, 20, 8, 0x00000fff00000fff, false, "'archive/version': 4095 bytes at"},
        {"PK\1\2", 1, 28, 2, 0xffff, false, "entry reaches beyond the directory"},
        {"PK\1\2", 4, 28, 2, 600, false, "entry reaches beyond the directory"},
        {"PK\1\2", 0, 42, 4, 0x7fffffff, false, "'archive/data.pkl': header at 2147483647"},
        {"PK\1\2", 0, 42, 4, 0xffffffff, false, "'archive/data.pkl': broken extra field"},
        {"PK\1\2", 0, 42, 4, 1, false, "'archive/data.pkl': no header of that name at 1"},
        {"PK\1\2", 3, 0, 4, 0, false, "broken entry in the directory"},
        {"PK\1\2", 2, 46 + 14, 8, 0x7fffffffffffffff, true, "broken extra field"},
        {"PK\1\2", 2, 46 + 14 + 4, 8, 23, true, "24 bytes stored, expected 23"},
        {"PK\1\2", 2, 46 + 14 + 20, 8, UINT64_MAX, true, "outside of the file"},
        {"PK\1\2", 2, 46 + 14 + 20, 8, INT64_MAX, true, "outside of the file"},
        {"PK\3\4", 2, 26, 2, 13, false, "'archive/data/0': no header of that name"},
        {"PK\3\4", 2, 6, 2, 1, false, "'archive/data/0': compressed or encrypted by its own"},
        {"PK\3\4", 2, 8, 2, 8, false, "'archive/data/0': compressed or encrypted by its own"},
        {"PK\3\4", 2, 28, 2, 0xffff, false, "'archive/data/0': 24 bytes at "},
        {"PK\3\4", 2, 30, 1, 'A', false, "'archive/data/0': no header of that name"},
        {"PK\5\6", 0, 4, 2, 1, false, "several parts"},
        {"PK\5\6", 0, 8, 2, 4, false, "several parts"},
        {"PK\5\6", 0, 8, 4, 0x00040004, false, "directory of"},
        {"PK\5\6", 0, 8, 4, 0xfff0fff0, false, "65520 records in a directory of"},
        {"PK\5\6", 0, 8, 4, 0x00060006, false, "broken entry in the directory"},
        {"PK\5\6", 0, 12, 4, 0x7fffffff, false, "outside of the file"},
        {"PK\5\6", 0, 16, 4, 0x7fffffff, false, "outside of the file"},
        {"PK\5\6", 0, 16, 4, 0, false, "broken entry in the directory"},
        {"PK\5\6", 0, 20, 2, 1, false, "no end record"},
        {"PK\6\6", 0, 16, 4, 1, true, "several parts"},
        {"PK\6\6", 0, 0, 4, 0, true, "no ZIP64 end record"},
        {"PK\6\6", 0, 24, 8, 4, true, "several parts"},
        {"PK\6\6", 0, 40, 8, UINT64_MAX, true, "outside of the file"},
        {"PK\6\6", 0, 48, 8, UINT64_MAX, true, "outside of the file"},
        {"PK\6\7", 0, 8, 8, UINT64_MAX, true, "ZIP64 end record at"},
        {"PK\6\7", 0, 8, 8, 0, true, "no ZIP64 end record at 0"},
        {"PK\6\7", 0, 0, 4, 0, true, "outside of the file"},
    };
    const char *const folder = *state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        size_t n;
        build_small(folder, cases[i].zip64 ? ZIP64 : 0);
        uint8_t *const bytes = folder_file_load(folder, BIN, &n);
        uint8_t *const place = find(bytes, n, cases[i].signature, cases[i].which) + cases[i].at;
        for (int k = 0; k < cases[i].n; k++)
            place[k] = (uint8_t)(cases[i].value >> 8 * k);
        file_write(folder, BIN, bytes, n);
        check_refused(folder, cases[i].part);
        free(bytes);
    }
}

static void test_zip_records(void **state)
{
    static const char nothing[] = "\x80\x02}.";
    static const struct {
        struct built_record records[3];
        const char *part;
    } cases[] = {
        {{{"a/data.pkl", nothing, 4, 0, 0}, {"a/x", "1", 1, 0, 0}, {"a/x", "2", 1, 0, 0}},
         "record 'a/x' is there twice"},
        {{{"a/data.pkl", nothing, 4, 0, 0}, {"b/data.pkl", nothing, 4, 0, 0}, {"c", "", 0, 0, 0}},
         "two records data.pkl"},
        {{{"a/b/data.pkl", nothing, 4, 0, 0}, {"data.pkl", nothing, 4, 0, 0}, {"c", "", 0, 0, 0}},
         "zip archive without data.pkl"},
        {{{"a/data.pkl", nothing, 4, 0, 0}, {"a/byteorder", "big", 3, 0, 0}, {"c", "", 0, 0, 0}},
         "byteorder 'big', expected 'little'"},
        {{{"a/data.pkl", nothing, 4, 8, 0}, {"b", "", 0, 0, 0}, {"c", "", 0, 0, 0}},
         "record 'a/data.pkl' is compressed"},
        {{{"a/data.pkl", NULL, 17 << 20, 0, 0}, {"b", "", 0, 0, 0}, {"c", "", 0, 0, 0}},
         "data.pkl of 17825792 bytes, at most"},
        {{{"a/data.pkl", nothing, 4, 0, 0}, {"b", "", 0, 0, 0}, {"c", "", 0, 0, 0}},
         "holds no tensors"},
    };
    const char *const folder = *state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        build_zip(folder, BIN, cases[i].records, 3, false);
        check_refused(folder, cases[i].part);
    }
}

static void test_zip_names(void **state)
{
    const char *const folder = *state;
    char name[601];
    memset(name, 'r', sizeof name);
    memcpy(name + 591, "/data.pkl", 10);
    const struct built_record record = {name, "}.", 2, 0, 0},
                              short_record = {name + 91, "}.", 2, 0, 0};
    build_zip(folder, BIN, &record, 1, false);
    check_refused(folder, "name of 600 bytes, at most 512");
    build_zip(folder, BIN, &short_record, 1, false);
    check_refused(folder, "holds no tensors"); /* data.pkl was found, and read */
    build_zip(folder, BIN, NULL, 0, false);
    check_refused(folder, "zip archive without data.pkl");
}

/* A record whose local header lies in another record's data. */
static void test_zip_overlap(void **state)
{
    const char *const folder = *state;
    uint8_t inner[64] = "PK\3\4";
    size_t n;
    inner[26] = 3;
    memcpy(inner + 30, "a/x", 3);
    const struct built_record records[] = {{"a/data.pkl", inner, sizeof inner, 0, 0},
                                           {"a/x", "1", 1, 0, 0}};
    build_zip(folder, BIN, records, 2, false);
    uint8_t *const bytes = folder_file_load(folder, BIN, &n);
    find(bytes, n, "PK\1\2", 1)[42] = (uint8_t)(find(bytes, n, "PK\3\4", 1) - bytes);
    file_write(folder, BIN, bytes, n);
    check_refused(folder, "record 'a/x' overlaps record 'a/data.pkl'");
    free(bytes);
}

static void test_legacy(void **state)
{
    const char *const folder = *state;
    uint8_t file[600] = "\x80\x02\x8a\x0al\xfc\x9c\x46\xf9\x20j\xa8P\x19.";
    file_write(folder, BIN, file, sizeof file);
    check_refused(folder, "in the format of torch before 1.6, which is not read");
    memset(file, 0, sizeof file);
    memcpy(file + 257, "ustar", 5);
    file_write(folder, BIN, file, sizeof file);
    check_refused(folder, "in the format of torch before 1.6, which is not read");
    memset(file, 0, sizeof file);
    file_write(folder, BIN, file, sizeof file);
    check_refused(folder, "no end record of a zip archive: truncated");
}

/* ---- Reading ---------------------------------------------------------------------------- */

static void check_read(const struct checkpoint *checkpoint, const char *name, int64_t first,
                       int64_t n, const char *part)
{
    float out[8];
    mvlm_error error = {0};
    for (size_t i = 0; i < checkpoint_count(checkpoint); i++)
        if (strcmp(checkpoint_tensor(checkpoint, i)->name, name) == 0)
            assert_int_equal(checkpoint_read(checkpoint, checkpoint_tensor(checkpoint, i), first, n,
                                             out, &error),
                             MVLM_BAD_MODEL);
    if (!strstr(error.message, part))
        fail_msg("'%s', expected '%s'", error.message, part);
}

static void test_reading(void **state)
{
    const char *const folder = *state;
    static const float numbers[8];
    const struct built_tensor tensors[] = {{"ids", DTYPE_I64, 1, {2}, numbers},
                                           {"x", DTYPE_F32, 2, {2, 2}, numbers},
                                           {"scalar", DTYPE_BF16, 0, {0}, numbers}};
    struct checkpoint *checkpoint;
    char path[512];
    build_safetensors(folder, SAFETENSORS, tensors, COUNT(tensors));
    assert_int_equal(checkpoint_open(folder, &checkpoint, NULL), MVLM_OK);
    check_read(checkpoint, "ids", 0, 1, "'ids': type I64, expected F32, F16 or BF16");
    check_read(checkpoint, "x", 0, 3, "'x': 3 rows from row 0 wanted, has 2");
    check_read(checkpoint, "x", 2, 1, "'x': 1 rows from row 2 wanted, has 2");
    check_read(checkpoint, "x", -1, 1, "rows from row -1 wanted");
    check_read(checkpoint, "x", 1, INT64_MAX, "rows from row 1 wanted");
    check_read(checkpoint, "x", 0, -1, "-1 rows");
    check_read(checkpoint, "scalar", 1, 1, "has 1");
    assert_int_equal(
        checkpoint_read(checkpoint, checkpoint_find(checkpoint, "x"), 2, 0, NULL, NULL), MVLM_OK);
    snprintf(path, sizeof path, "%s/" SAFETENSORS, folder);
    assert_int_equal(truncate(path, 20), 0);
    check_read(checkpoint, "x", 0, 2, "became shorter while it was read");
    checkpoint_close(checkpoint);
}

/* ---- Damage ----------------------------------------------------------------------------- */

/* What opens must hold its promises: extents in the file, and every float readable. */
static bool opens(const char *folder, size_t n_bytes)
{
    struct checkpoint *checkpoint;
    if (checkpoint_open(folder, &checkpoint, NULL) != MVLM_OK)
        return false;
    for (size_t i = 0; i < checkpoint_count(checkpoint); i++) {
        const struct source_tensor *const tensor = checkpoint_tensor(checkpoint, i);
        size_t count = 1;
        for (int d = tensor->n_dims - 1; d >= 0; d--)
            count *= (size_t)tensor->shape[d];
        assert_true(count <= n_bytes && count * dtype_size(tensor->dtype) <= n_bytes);
        float *const out = malloc(count * sizeof *out + 1);
        assert_non_null(out);
        const int64_t rows = tensor->n_dims ? tensor->shape[0] : 1;
        const bool is_float = tensor->dtype <= DTYPE_BF16;
        assert_int_equal(checkpoint_read(checkpoint, tensor, 0, rows, out, NULL),
                         is_float ? MVLM_OK : MVLM_BAD_MODEL);
        free(out);
    }
    checkpoint_close(checkpoint);
    return true;
}

static void check_damage(const char *folder, const char *name)
{
    size_t n;
    uint8_t *const bytes = folder_file_load(folder, name, &n);
    assert_true(opens(folder, n));
    char path[512];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    for (size_t length = n; length-- > 0;) {
        assert_int_equal(truncate(path, (off_t)length), 0);
        if (opens(folder, length))
            fail_msg("%s opens when cut to %zu of %zu bytes", name, length, n);
    }
    file_write(folder, name, bytes, n);
    const int file = open(path, O_WRONLY);
    assert_true(file >= 0);
    for (size_t bit = 0; bit < 8 * n; bit++) {
        const uint8_t flipped = (uint8_t)(bytes[bit / 8] ^ 1 << bit % 8);
        assert_int_equal(pwrite(file, &flipped, 1, (off_t)(bit / 8)), 1);
        opens(folder, n);
        assert_int_equal(pwrite(file, &bytes[bit / 8], 1, (off_t)(bit / 8)), 1);
    }
    close(file);
    free(bytes);
    folder_clear(folder);
}

static void test_damage(void **state)
{
    const char *const folder = *state;
    static const float numbers[4] = {1, 2, 3, 4};
    const struct built_tensor tensors[] = {{"a", DTYPE_F32, 2, {2, 1}, numbers},
                                           {"b", DTYPE_F16, 1, {3}, numbers + 2}};
    build_safetensors(folder, SAFETENSORS, tensors, COUNT(tensors));
    check_damage(folder, SAFETENSORS);
    build_small(folder, 0);
    check_damage(folder, BIN);
    build_small(folder, ZIP64 | PLAIN_DICT);
    check_damage(folder, BIN);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, folder_setup, folder_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_folders),     TEST(test_indexes),
        TEST(test_safetensors), TEST(test_safetensors_lengths),
        TEST(test_zip_fields),  TEST(test_zip_records),
        TEST(test_zip_names),   TEST(test_zip_overlap),
        TEST(test_legacy),      TEST(test_reading),
        TEST(test_damage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
