/* Checkpoints that must be read, to the last bit: types, strides, shards, ZIP64.
 * The shared cases: test_checkpoint_shared.c. What must be refused: test_checkpoint_refused.c. */
#include "../tools/convert/checkpoint.h"

#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "checkpoint_builder.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

static int64_t count_of(const struct source_tensor *tensor)
{
    int64_t count = 1;
    for (int d = 0; d < tensor->n_dims; d++)
        count *= tensor->shape[d];
    return count;
}

/* All elements, read `step` rows at a time; the caller frees them. */
static float *read_all(const struct checkpoint *checkpoint, const struct source_tensor *tensor,
                       int64_t step)
{
    mvlm_error error = {0};
    const int64_t rows = tensor->n_dims ? tensor->shape[0] : 1;
    const int64_t count = count_of(tensor);
    float *const out = malloc((size_t)count * sizeof *out + 1);
    assert_non_null(out);
    for (int64_t first = 0; first < rows; first += step) {
        const int64_t n = rows - first < step ? rows - first : step;
        if (checkpoint_read(checkpoint, tensor, first, n, out + first * (count / rows), &error) !=
            MVLM_OK)
            fail_msg("%s", error.message);
    }
    return out;
}

static float *read_named(struct checkpoint *checkpoint, const char *name, int64_t step)
{
    const struct source_tensor *const tensor = checkpoint_find(checkpoint, name);
    assert_non_null(tensor);
    return read_all(checkpoint, tensor, step);
}

/* ---- Types ------------------------------------------------------------------------------ */

/* A number of 1 + n_exponent + n_fraction bits from its definition, without bit tricks. */
static float expected_number(unsigned bits, int n_exponent, int n_fraction)
{
    const int fraction = (int)(bits & ((1u << n_fraction) - 1));
    const int exponent = (int)(bits >> n_fraction & ((1u << n_exponent) - 1));
    const int all_ones = (1 << n_exponent) - 1, bias = all_ones / 2;
    const float sign = bits >> (n_exponent + n_fraction) & 1 ? -1.0f : 1.0f;
    if (exponent == all_ones)
        return fraction ? NAN : sign * INFINITY;
    const int whole = exponent ? fraction + (1 << n_fraction) : fraction;
    return sign * ldexpf((float)whole, (exponent ? exponent : 1) - bias - n_fraction);
}

static void assert_same(float got, float expected, unsigned bits)
{
    if (isnan(expected) ? !isnan(got) : memcmp(&got, &expected, sizeof got) != 0)
        fail_msg("0x%04x: %a, expected %a", bits, (double)got, (double)expected);
}

/* Every bit pattern of the two short types. */
static void test_short_floats(void **state)
{
    const char *const folder = *state;
    static uint16_t numbers[65536];
    for (unsigned i = 0; i < COUNT(numbers); i++)
        numbers[i] = (uint16_t)i;
    const struct built_tensor tensors[] = {{"f16", DTYPE_F16, 2, {256, 256}, numbers},
                                           {"bf16", DTYPE_BF16, 1, {65536}, numbers}};
    build_safetensors(folder, "model.safetensors", tensors, COUNT(tensors));
    struct checkpoint *const checkpoint = open_folder(folder);
    float *const f16 = read_named(checkpoint, "f16", 7);
    float *const bf16 = read_named(checkpoint, "bf16", 1001);
    for (unsigned i = 0; i < COUNT(numbers); i++) {
        assert_same(f16[i], expected_number(i, 5, 10), i);
        assert_same(bf16[i], expected_number(i, 8, 7), i);
    }
    free(f16);
    free(bf16);
    checkpoint_close(checkpoint);
}

static void test_f32_keeps_bits(void **state)
{
    const char *const folder = *state;
    static const uint32_t numbers[] = {0,          0x80000000, 1,          0x007fffff, 0x3f800001,
                                       0x7f800000, 0xff800000, 0x7fc01234, 0x7f7fffff, 0xc0490fdb};
    const struct built_tensor tensors[] = {{"x", DTYPE_F32, 2, {5, 2}, numbers},
                                           {"scalar", DTYPE_F32, 0, {0}, &numbers[9]},
                                           {"empty", DTYPE_F32, 2, {0, 4}, numbers},
                                           {"hollow", DTYPE_F32, 3, {2, 0, 3}, numbers}};
    build_safetensors(folder, "model.safetensors", tensors, COUNT(tensors));
    struct checkpoint *const checkpoint = open_folder(folder);
    for (int64_t step = 1; step <= 5; step++) {
        float *const x = read_named(checkpoint, "x", step);
        assert_memory_equal(x, numbers, sizeof numbers);
        free(x);
    }
    float *const scalar = read_named(checkpoint, "scalar", 1);
    assert_memory_equal(scalar, &numbers[9], sizeof *scalar);
    free(scalar);
    free(read_named(checkpoint, "empty", 1));
    free(read_named(checkpoint, "hollow", 1));
    checkpoint_close(checkpoint);
}

static void test_list(void **state)
{
    const char *const folder = *state;
    static const uint8_t zeros[64];
    static const enum dtype types[] = {DTYPE_F32, DTYPE_F16, DTYPE_BF16, DTYPE_F64, DTYPE_I64,
                                       DTYPE_I32, DTYPE_I16, DTYPE_I8,   DTYPE_U8,  DTYPE_BOOL};
    static const size_t sizes[] = {4, 2, 2, 8, 8, 4, 2, 1, 1, 1};
    static const char *const names[] = {"j", "i", "h", "g", "f", "e", "d", "c", "b", "a"};
    struct built_tensor tensors[COUNT(types)];
    for (size_t i = 0; i < COUNT(types); i++)
        tensors[i] = (struct built_tensor){names[i], types[i], 2, {1, 3}, zeros};
    build_safetensors(folder, "model.safetensors", tensors, COUNT(tensors));
    struct checkpoint *const checkpoint = open_folder(folder);
    assert_int_equal(checkpoint_count(checkpoint), COUNT(types));
    assert_int_equal(checkpoint_bytes(checkpoint), 3 * 33);
    for (size_t i = 0; i < COUNT(types); i++) {
        const struct source_tensor *const tensor =
            checkpoint_tensor(checkpoint, COUNT(types) - 1 - i);
        assert_string_equal(tensor->name, names[i]);
        assert_int_equal(tensor->dtype, types[i]);
        assert_int_equal(dtype_size(types[i]), sizes[i]);
        assert_int_equal(tensor->n_dims, 2);
        assert_int_equal(tensor->shape[0] * 10 + tensor->shape[1], 13);
        assert_int_equal(tensor->stride[0] * 10 + tensor->stride[1], 31);
        assert_false(tensor->used);
    }
    assert_null(checkpoint_find(checkpoint, "z"));
    assert_ptr_equal(checkpoint_find(checkpoint, "c"), checkpoint_tensor(checkpoint, 2));
    assert_true(checkpoint_tensor(checkpoint, 2)->used);
    assert_false(checkpoint_tensor(checkpoint, 3)->used);
    const char *const path = checkpoint_file(checkpoint, checkpoint_tensor(checkpoint, 0));
    assert_string_equal(strrchr(path, '/'), "/model.safetensors");
    checkpoint_close(checkpoint);
}

/* ---- Views of storages ------------------------------------------------------------------ */

/* Reads every view in several steps and compares with a walk over the storage. */
static void check_views(const char *folder, const struct built_view *views, size_t n,
                        const float *const *storages)
{
    struct checkpoint *const checkpoint = open_folder(folder);
    assert_int_equal(checkpoint_count(checkpoint), n);
    for (size_t i = 0; i < n; i++) {
        const struct built_view *const view = &views[i];
        const struct source_tensor *const tensor = checkpoint_find(checkpoint, view->name);
        assert_non_null(tensor);
        assert_int_equal(tensor->n_dims, view->n_dims);
        for (int64_t step = 1; step < 600; step = step * 5 + 2) {
            float *const got = read_all(checkpoint, tensor, step);
            for (int64_t at = 0; at < count_of(tensor); at++) {
                int64_t from = view->offset, rest = at;
                for (int d = view->n_dims - 1; d >= 0; d--) {
                    from += rest % view->shape[d] * view->stride[d];
                    rest /= view->shape[d];
                }
                if (got[at] != storages[view->storage][from])
                    fail_msg("%s[%lld], %lld rows at a time", view->name, (long long)at,
                             (long long)step);
            }
            free(got);
        }
    }
    checkpoint_close(checkpoint);
}

static void test_views(void **state)
{
    const char *const folder = *state;
    float numbers[120], others[6];
    uint16_t short_numbers[120];
    float short_values[120];
    for (int i = 0; i < 120; i++) {
        numbers[i] = (float)i + 0.25f;
        short_numbers[i] = (uint16_t)(0x3c00 + 5 * i);
        short_values[i] = expected_number(short_numbers[i], 5, 10);
    }
    for (int i = 0; i < 6; i++)
        others[i] = (float)-i;
    const struct built_storage storages[] = {
        {DTYPE_F32, numbers, 120}, {DTYPE_F16, short_numbers, 120}, {DTYPE_F32, others, 6}};
    const struct built_view views[] = {
        {.name = "whole", .n_dims = 2, .shape = {10, 12}, .stride = {12, 1}},
        {.name = "tied", .n_dims = 2, .shape = {10, 12}, .stride = {12, 1}},
        {.name = "rows", .offset = 24, .n_dims = 2, .shape = {3, 12}, .stride = {12, 1}},
        {.name = "transposed", .n_dims = 2, .shape = {12, 10}, .stride = {1, 12}},
        {.name = "short", .storage = 1, .n_dims = 2, .shape = {12, 10}, .stride = {1, 12}},
        {.name = "columns", .offset = 1, .n_dims = 2, .shape = {10, 4}, .stride = {12, 3}},
        {.name = "order", .n_dims = 4, .shape = {4, 2, 5, 3}, .stride = {3, 60, 12, 1}},
        {.name = "ones", .n_dims = 3, .shape = {1, 6, 1}, .stride = {999, 20, 7}},
        {.name = "last", .offset = 119, .n_dims = 0},
        {.name = "vector", .storage = 1, .offset = 7, .n_dims = 1, .shape = {16}, .stride = {7}},
        {.name = "weight",
         .storage = 2,
         .n_dims = 2,
         .shape = {2, 3},
         .stride = {3, 1},
         .is_parameter = true},
    };
    const float *const values[] = {numbers, short_values, others};
    static const int flags[] = {0, PLAIN_DICT, ZIP64, ZIP64 | PLAIN_DICT | NO_BYTEORDER};
    for (size_t i = 0; i < COUNT(flags); i++) {
        build_torch(folder, "pytorch_model.bin", views, COUNT(views), storages, COUNT(storages),
                    flags[i]);
        check_views(folder, views, COUNT(views), values);
    }
}

/* Larger than the reader's buffer, so that it has to work in parts, dense and sparse. */
static void test_large_views(void **state)
{
    const char *const folder = *state;
    enum { ROWS = 400, COLUMNS = 900, N = ROWS * COLUMNS };
    uint16_t *const numbers = malloc(N * sizeof *numbers);
    float *const values = malloc(N * sizeof *values);
    assert_true(numbers && values);
    for (int i = 0; i < N; i++) {
        numbers[i] = (uint16_t)((unsigned)i * 2654435761u >> 18); /* below 0x4000: finite */
        values[i] = expected_number(numbers[i], 8, 7);
    }
    const struct built_storage storages[] = {{DTYPE_BF16, numbers, N}};
    const struct built_view views[] = {
        {.name = "a", .n_dims = 2, .shape = {ROWS, COLUMNS}, .stride = {COLUMNS, 1}},
        {.name = "b", .n_dims = 2, .shape = {COLUMNS, ROWS}, .stride = {1, COLUMNS}},
        {.name = "c", .offset = 3, .n_dims = 2, .shape = {ROWS, 9}, .stride = {COLUMNS, 99}},
        {.name = "d", .n_dims = 3, .shape = {30, ROWS, 30}, .stride = {1, COLUMNS, 30}},
        {.name = "e", .n_dims = 1, .shape = {N / 5000}, .stride = {5000}},
        {.name = "f", .offset = 1, .n_dims = 1, .shape = {N - 1}, .stride = {1}},
        {.name = "g", .n_dims = 2, .shape = {2, N / 2 - 9}, .stride = {N / 2, 1}},
    };
    const float *const lists[] = {values};
    build_torch(folder, "pytorch_model.bin", views, COUNT(views), storages, 1, 0);
    check_views(folder, views, COUNT(views), lists);
    free(numbers);
    free(values);
}

/* Memo, long integers, lists, sets and the other ways to write the same; made by hand. */
static void test_pickle_spellings(void **state)
{
    const char *const folder = *state;
    static const float numbers[] = {1, 2, 3, 4};
    static const char pickle[] =
        "\x80\x02"
        "ccollections\nOrderedDict\nq\0)\x81q\1"       /* NEWOBJ */
        "U\1a"                                         /* SHORT_BINSTRING */
        "ctorch._utils\n_rebuild_tensor_v2\nr\2\0\0\0" /* LONG_BINPUT */
        "((U\7storagectorch\nFloatStorage\nU\1"
        "0U\6"
        "cuda:0\x8a\1\4tQq\3"                                  /* LONG1 */
        "\x8a\0M\2\0J\2\0\0\0\x86q\4K\1K\2\x86\x89h\0)R}tRs"   /* SETITEM */
        "X\1\0\0\0bj\2\0\0\0(h\3K\1K\3\x85K\1\x85\x88h\0)RNtR" /* BINGET */
        "q\5s"
        "}U\11_metadata(h\0)R]K\1aK\2a](K\3K\4eG\x3f\xf0\0\0\0\0\0\0\x8fN\x87tsb.";
    const struct built_storage storages[] = {{DTYPE_F32, numbers, 4}};
    build_archive(folder, "pytorch_model.bin", pickle, sizeof pickle - 1, storages, 1, 0);
    struct checkpoint *const checkpoint = open_folder(folder);
    float *const a = read_named(checkpoint, "a", 1), *const b = read_named(checkpoint, "b", 2);
    static const float transposed[] = {1, 3, 2, 4};
    assert_memory_equal(a, transposed, sizeof transposed);
    assert_memory_equal(b, numbers + 1, 3 * sizeof *numbers);
    free(a);
    free(b);
    checkpoint_close(checkpoint);
}

/* More than 4 GiB, of which nearly all is a hole that takes no room. */
static void test_beyond_4_gib(void **state)
{
    const char *const folder = *state;
    static const uint16_t numbers[] = {0x3f80, 0x4000, 0x4040};
    const struct built_storage storages[] = {{DTYPE_BF16, NULL, 2400000000},
                                             {DTYPE_BF16, numbers, 3}};
    const struct built_view views[] = {
        {.name = "hole", .offset = 2399999999, .n_dims = 1, .shape = {1}, .stride = {1}},
        {.name = "behind", .storage = 1, .n_dims = 1, .shape = {3}, .stride = {1}}};
    build_torch(folder, "pytorch_model.bin", views, 2, storages, 2, ZIP64);
    struct checkpoint *const checkpoint = open_folder(folder);
    assert_true(checkpoint_find(checkpoint, "behind")->offset > UINT32_MAX);
    float *const behind = read_named(checkpoint, "behind", 3);
    float *const hole = read_named(checkpoint, "hole", 1);
    assert_true(behind[0] == 1 && behind[1] == 2 && behind[2] == 3 && hole[0] == 0);
    free(behind);
    free(hole);
    checkpoint_close(checkpoint);
}

/* ---- Shards ----------------------------------------------------------------------------- */

static void test_shards(void **state)
{
    const char *const folder = *state;
    static const float numbers[] = {1, 2, 3, 4};
    const struct built_tensor first[] = {{"b", DTYPE_F32, 1, {2}, numbers},
                                         {"c", DTYPE_F32, 1, {1}, numbers + 2}};
    const struct built_tensor second[] = {{"a", DTYPE_F32, 1, {1}, numbers + 3}};
    const struct built_storage storages[] = {{DTYPE_F32, numbers, 4}};
    const struct built_view view = {.name = "bin", .n_dims = 1, .shape = {4}, .stride = {1}};
    /* The safetensors are preferred to the .bin beside them; other files do not count. */
    build_safetensors(folder, "model-1.safetensors", first, 2);
    build_safetensors(folder, "model-2.safetensors", second, 1);
    file_write(folder, "model-3.safetensors", "junk", 4);
    build_torch(folder, "pytorch_model.bin", &view, 1, storages, 1, 0);
    build_index(
        folder, "model.safetensors.index.json", (const char *[]){"c", "a", "b"},
        (const char *[]){"model-1.safetensors", "model-2.safetensors", "model-1.safetensors"}, 3);
    struct checkpoint *checkpoint = open_folder(folder);
    assert_int_equal(checkpoint_count(checkpoint), 3);
    for (size_t i = 0; i < 3; i++) {
        static const float expected[] = {4, 1, 3};
        const struct source_tensor *const tensor = checkpoint_tensor(checkpoint, i);
        float *const got = read_all(checkpoint, tensor, 1);
        assert_true(got[0] == expected[i]);
        assert_non_null(strstr(checkpoint_file(checkpoint, tensor), i ? "model-1" : "model-2"));
        free(got);
    }
    checkpoint_close(checkpoint);
    build_safetensors(folder, "model.safetensors", second, 1);
    checkpoint = open_folder(folder);
    assert_int_equal(checkpoint_count(checkpoint), 1);
    checkpoint_close(checkpoint);
}

static void test_torch_shards(void **state)
{
    const char *const folder = *state;
    static const float numbers[] = {1, 2};
    static const char *const names[] = {"x", "y"}, *const shards[] = {"one.bin", "two.bin"};
    for (int i = 0; i < 2; i++) {
        const struct built_storage storage = {DTYPE_F32, &numbers[i], 1};
        const struct built_view view = {.name = names[i], .n_dims = 1, .shape = {1}, .stride = {1}};
        build_torch(folder, shards[i], &view, 1, &storage, 1, 0);
    }
    build_index(folder, "pytorch_model.bin.index.json", names, shards, 2);
    struct checkpoint *const checkpoint = open_folder(folder);
    for (int i = 0; i < 2; i++) {
        float *const got = read_named(checkpoint, names[i], 1);
        assert_true(got[0] == numbers[i]);
        free(got);
    }
    checkpoint_close(checkpoint);
}

/* ---- Threads ---------------------------------------------------------------------------- */

struct job {
    const struct checkpoint *checkpoint;
    const float *expected;
    bool is_right;
};

static void *run_job(void *user)
{
    struct job *const job = user;
    const struct source_tensor *const tensor = checkpoint_tensor(job->checkpoint, 0);
    static const int64_t columns = 512;
    float row[512];
    job->is_right = true;
    for (int64_t i = 0; i < tensor->shape[0]; i++)
        job->is_right = job->is_right &&
                        checkpoint_read(job->checkpoint, tensor, i, 1, row, NULL) == MVLM_OK &&
                        memcmp(row, job->expected + i * columns, sizeof row) == 0;
    return NULL;
}

static void test_threads(void **state)
{
    const char *const folder = *state;
    static uint16_t numbers[256 * 512];
    static float expected[COUNT(numbers)];
    for (size_t i = 0; i < COUNT(numbers); i++) {
        numbers[i] = (uint16_t)(i % 0x7c00);
        expected[i] = expected_number(numbers[i], 5, 10);
    }
    const struct built_tensor tensor = {"x", DTYPE_F16, 2, {256, 512}, numbers};
    build_safetensors(folder, "model.safetensors", &tensor, 1);
    struct checkpoint *const checkpoint = open_folder(folder);
    pthread_t threads[4];
    struct job jobs[COUNT(threads)];
    for (size_t i = 0; i < COUNT(threads); i++) {
        jobs[i] = (struct job){.checkpoint = checkpoint, .expected = expected};
        assert_int_equal(pthread_create(&threads[i], NULL, run_job, &jobs[i]), 0);
    }
    for (size_t i = 0; i < COUNT(threads); i++) {
        pthread_join(threads[i], NULL);
        assert_true(jobs[i].is_right);
    }
    checkpoint_close(checkpoint);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, folder_setup, folder_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_short_floats), TEST(test_f32_keeps_bits), TEST(test_list),
        TEST(test_views),        TEST(test_large_views),    TEST(test_pickle_spellings),
        TEST(test_beyond_4_gib), TEST(test_shards),         TEST(test_torch_shards),
        TEST(test_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
