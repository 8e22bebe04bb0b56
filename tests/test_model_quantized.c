/* model.bin with q8 and q4: what opening refuses, and what verify finds where every digest is
 * right. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "decode.h"
#include "golden.h"
#include "program.h"
#include "seed.h"
#include "tiny.h"
#include "weights.h"

/* Two good tiny models whose shapes leave padding everywhere, by type. */
struct fixture {
    char *folder, *path;
    uint8_t *good[2], *bytes;
    size_t n[2];
    int at; /* the one that `bytes` is a copy of: 0 q8, 1 q4 */
};

static void restore(struct fixture *f, int at)
{
    f->at = at;
    memcpy(f->bytes, f->good[at], f->n[at]);
}

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    struct description description;
    f->folder = temporary_folder();
    f->path = path_of(f->folder, "model.bin", NULL);
    tiny_describe(&description);
    description.decoder.hidden = 22; /* rows of 22 bytes have 2 more */
    for (int at = 0; at < 2; at++) {
        tiny_write(f->path, &description, at ? TENSOR_Q4 : TENSOR_Q8, 7);
        f->good[at] = (uint8_t *)file_load(f->path, &f->n[at]);
    }
    f->bytes = malloc(f->n[0]);
    *state = f;
    return seed_restart(NULL);
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    remove_folder(f->folder);
    free(f->folder);
    free(f->path);
    free(f->good[0]);
    free(f->good[1]);
    free(f->bytes);
    free(f);
    return 0;
}

static mvlm_status open_bytes(struct fixture *f, mvlm_model **model, mvlm_error *error)
{
    *error = (mvlm_error){0};
    file_save(f->path, f->bytes, f->n[f->at]);
    return mvlm_model_open(f->path, NULL, model, error);
}

static struct format_tensor *entry(struct fixture *f, const char *name)
{
    const struct format_tensor *t = entry_of(f->bytes, name);
    assert_non_null(t);
    return (struct format_tensor *)(uintptr_t)t;
}

struct notes {
    size_t n;
    char last[512];
};

static void note(void *user, const char *line, bool fatal)
{
    struct notes *notes = user;
    assert_true(fatal);
    notes->n++;
    snprintf(notes->last, sizeof notes->last, "%s", line);
}

/* Writes bytes into a tensor, mends all digests and verifies: good, or `part` and nothing else. */
static void expect_verify(struct fixture *f, const char *name, size_t at, const void *bytes,
                          size_t n, const char *part)
{
    struct format_tensor *t = entry(f, name);
    struct notes notes = {0};
    mvlm_model *model;
    mvlm_error error;
    char expected[200];
    assert_true(at + n <= t->range.n_bytes);
    if (n)
        memcpy(f->bytes + t->range.offset + at, bytes, n);
    digest_of(f->bytes + t->range.offset, (size_t)t->range.n_bytes, t->digest);
    tiny_reseal(f->bytes);
    assert_int_equal(open_bytes(f, &model, &error), MVLM_OK);
    const mvlm_status status = mvlm_model_verify(model, note, &notes, &error);
    mvlm_model_close(model);
    snprintf(expected, sizeof expected, "tensor %s: %s", name, part ? part : "");
    if (part ? status != MVLM_BAD_MODEL || notes.n != 1 || strcmp(notes.last, expected) != 0 ||
                   !strstr(error.message, expected)
             : status != MVLM_OK || notes.n != 0)
        fail_msg("status %d, %zu notes, \"%s\"; expected \"%s\"", (int)status, notes.n, notes.last,
                 expected);
    restore(f, f->at);
}

static void expect_byte(struct fixture *f, const char *name, size_t at, uint8_t byte,
                        const char *part)
{
    expect_verify(f, name, at, &byte, 1, part);
}

/* 24 x 22: inputs 22..31 and columns 24..31 are padding. */
static const char matrix[] = "decoder.layers.1.q.weight", head[] = "decoder.head.weight",
                  table[] = "decoder.embedding.weight";
static const char bad_scale[] = "has a scale that is negative or no number";
enum { SCALES = 128 };

static void good_files(void **state)
{
    struct fixture *f = *state;
    for (int at = 0; at < 2; at++) {
        restore(f, at);
        assert_int_equal(entry(f, matrix)->type, at ? TENSOR_Q4 : TENSOR_Q8);
        assert_int_equal(entry(f, table)->type, TENSOR_Q8);
        assert_int_equal(entry(f, matrix)->n_rows, 24);
        assert_int_equal(entry(f, matrix)->n_cols, 22);
        expect_verify(f, matrix, 0, NULL, 0, NULL);
    }
}

static void expect_bad_scales(struct fixture *f, const char *name, size_t at, const char *what)
{
    static const float values[] = {-1e-3f, (float)NAN, (float)INFINITY, -(float)INFINITY};
    static const float fine[] = {0, 1e-30f, 3e38f};
    char part[100];
    snprintf(part, sizeof part, "%s %s", what, bad_scale);
    for (size_t i = 0; i < sizeof values / sizeof *values; i++)
        expect_verify(f, name, at, &values[i], sizeof *values, part);
    for (size_t i = 0; i < sizeof fine / sizeof *fine; i++)
        expect_verify(f, name, at, &fine[i], sizeof *fine, NULL);
}

static void scales(void **state)
{
    struct fixture *f = *state;
    for (int at = 0; at < 2; at++) {
        restore(f, at);
        const size_t tile = (size_t)entry(f, head)->range.n_bytes / 9; /* 262 rows: 9 tiles */
        expect_bad_scales(f, matrix, 0, "tile 0");
        expect_bad_scales(f, matrix, 4 * 31, "tile 0");
        expect_bad_scales(f, head, 8 * tile + 4 * 2, "tile 8");
        expect_bad_scales(f, table, 0, "row 0");
        expect_bad_scales(f, table, 28 * 261, "row 261");
    }
}

/* Every byte of a q8 tile: input k of column c lies at k / 4 x 128 + 4 c + k % 4. */
static void q8_values(void **state)
{
    struct fixture *f = *state;
    restore(f, 0);
    for (size_t k = 0; k < 32; k++)
        for (size_t c = 0; c < 32; c++) {
            const size_t at = SCALES + k / 4 * 128 + 4 * c + k % 4;
            const bool padding = k >= 22 || c >= 24;
            expect_byte(f, matrix, at, 128, NULL);
            expect_byte(f, matrix, at, 129, padding ? "tile 0 has padding that is not zero" : NULL);
            expect_byte(f, matrix, at, 0, "tile 0 holds the value -128");
        }
}

/* And of a q4 tile, whose line holds column c in the low and c + 16 in the high half of a byte. */
static void q4_values(void **state)
{
    struct fixture *f = *state;
    restore(f, 1);
    for (size_t k = 0; k < 32; k++)
        for (size_t c = 0; c < 32; c++) {
            const size_t at = SCALES + 64 + k / 4 * 64 + 4 * (c % 16) + k % 4;
            const uint8_t *tile = f->good[1] + entry(f, matrix)->range.offset;
            const uint8_t zero = c < 16 ? (tile[at] & 0xf0) | 8 : tile[at] & 0x0f;
            const bool padding = k >= 22 || c >= 24;
            expect_byte(f, matrix, at, zero, NULL);
            expect_byte(f, matrix, at, zero ^ (c < 16 ? 0x04 : 0x80),
                        padding ? "tile 0 has padding that is not zero" : NULL);
        }
}

/* One group: 16 bytes of magnitudes, 4 of signs, and zeros up to 64. */
static void q4_multipliers(void **state)
{
    struct fixture *f = *state;
    restore(f, 1);
    for (size_t at = 0; at < 64; at++)
        expect_byte(f, matrix, SCALES + at, 0x10,
                    at < 20 ? NULL : "tile 0 has bytes behind its multipliers that are not zero");
}

static void tables(void **state)
{
    struct fixture *f = *state;
    restore(f, 1);
    for (size_t row = 0; row < 262; row += 29)
        for (size_t k = 0; k < 24; k++) {
            char low[50], padding[50];
            snprintf(low, sizeof low, "row %zu holds the value -128", row);
            snprintf(padding, sizeof padding, "row %zu has padding that is not zero", row);
            expect_byte(f, table, row * 28 + 4 + k, 0x81, k < 22 ? NULL : padding);
            expect_byte(f, table, row * 28 + 4 + k, 0x80, k < 22 ? low : padding);
        }
}

static void refused(struct fixture *f, const char *expected)
{
    mvlm_model *model;
    mvlm_error error;
    tiny_reseal(f->bytes);
    assert_int_equal(open_bytes(f, &model, &error), MVLM_BAD_MODEL);
    if (!strstr(error.message, expected))
        fail_msg("message \"%s\", expected \"%s\"", error.message, expected);
    restore(f, f->at);
}

static void types_out_of_place(void **state)
{
    struct fixture *f = *state;
    restore(f, 1);
    entry(f, table)->type = TENSOR_Q4;
    refused(f, "tensor decoder.embedding.weight: there are no rows of q4");
    entry(f, "decoder.norm.weight")->type = TENSOR_Q4;
    refused(f, "tensor decoder.norm.weight: there are no rows of q4");
    entry(f, matrix)->type = TENSOR_Q8;
    refused(f, "tensor decoder.layers.1.q.weight: 704 bytes, expected 1152");
    entry(f, matrix)->layout = LAYOUT_ROWS;
    refused(f, "there are no rows of q4");
    entry(f, matrix)->type = 4;
    refused(f, "type code 4");
    entry(f, matrix)->reserved[4] = 1;
    refused(f, "reserved bytes");
    entry(f, "decoder.norm.weight")->type = TENSOR_F16;
    refused(f, "tensor decoder.norm.weight: 88 bytes, expected 44");
    struct format_tensor *t = entry(f, "vision.class_embedding"); /* 64 bytes; 32 leave no hole */
    t->type = TENSOR_F16;
    t->range.n_bytes = 32;
    refused(f, "tensor vision.class_embedding: type f16, layout 0, section 0 do not suit");
}

/* A few bits of the data, each with its digest mended: verify passes it, or names the tensor. */
static void any_byte(void **state)
{
    struct fixture *f = *state;
    for (int at = 0; at < 2; at++) {
        restore(f, at);
        const struct format_header *h = (const struct format_header *)(const void *)f->good[at];
        const struct format_tensor *t =
            (const struct format_tensor *)(const void *)(f->bytes + h->directory.offset);
        for (int i = 0; i < 300; i++) {
            struct format_tensor *hit =
                (struct format_tensor *)(uintptr_t)&t[random_bits() % h->n_tensors];
            mvlm_model *model;
            mvlm_error error;
            f->bytes[hit->range.offset + random_bits() % hit->range.n_bytes] ^=
                (uint8_t)(1u << random_bits() % 8);
            digest_of(f->bytes + hit->range.offset, (size_t)hit->range.n_bytes, hit->digest);
            tiny_reseal(f->bytes);
            assert_int_equal(open_bytes(f, &model, &error), MVLM_OK);
            const mvlm_status status = mvlm_model_verify(model, NULL, NULL, &error);
            assert_true(status == MVLM_OK ||
                        (status == MVLM_BAD_MODEL && strstr(error.message, hit->name)));
            mvlm_model_close(model);
            restore(f, at);
        }
    }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(good_files),     TEST(scales), TEST(q8_values),          TEST(q4_values),
        TEST(q4_multipliers), TEST(tables), TEST(types_out_of_place), TEST(any_byte),
    };
    seed_choose();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
