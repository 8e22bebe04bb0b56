/* Models of q8 and q4 whose values are wrong though every digest is right: what `verify` reports
 * but opening does not. An answer may be anything then, also an error; nothing may be read or
 * written out of place. AddressSanitizer and UndefinedBehaviorSanitizer watch. */
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
#include "schema.h"
#include "seed.h"
#include "tiny.h"
#include "weights.h"

struct fixture {
    char *folder, *path;
    uint8_t *good, *bytes;
    size_t n;
    mvlm_picture picture;
};

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    f->folder = temporary_folder();
    f->path = path_of(f->folder, "model.bin", NULL);
    f->picture.name = "grey.png";
    f->picture.bytes = file_load(SOURCE_DIR "/tests/golden/images/grey.png", &f->picture.n_bytes);
    *state = f;
    return seed_restart(NULL);
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    remove_folder(f->folder);
    free(f->folder);
    free(f->path);
    free(f->good);
    free(f->bytes);
    free((void *)(uintptr_t)f->picture.bytes);
    free(f);
    return 0;
}

static void make(struct fixture *f, enum tensor_type type)
{
    struct description description;
    tiny_describe(&description);
    tiny_write(f->path, &description, type, 7);
    free(f->good);
    free(f->bytes);
    f->good = (uint8_t *)file_load(f->path, &f->n);
    f->bytes = malloc(f->n);
    assert_non_null(f->bytes);
    memcpy(f->bytes, f->good, f->n);
}

/* ---- Asking ----------------------------------------------------------------------------- */

static void ask(mvlm_model *model, const mvlm_picture *picture, int n_threads, mvlm_kv_type kv_type,
                float temperature)
{
    const mvlm_session_options options = {.n_threads = n_threads, .kv_type = kv_type};
    const mvlm_turn turn = {.question = "a long enough question: more than one tile of positions"};
    const mvlm_question question = {.pictures = picture,
                                    .n_pictures = 1,
                                    .turns = &turn,
                                    .n_turns = 1,
                                    .max_tokens = 6,
                                    .sampling = {.temperature = temperature,
                                                 .top_k = 40,
                                                 .top_p = 0.9f,
                                                 .min_p = 0.05f,
                                                 .repeat_penalty = 1.1f}};
    mvlm_session *session;
    mvlm_error error = {0};
    assert_int_equal(mvlm_session_open(model, &options, &session, &error), MVLM_OK);
    const mvlm_status status = mvlm_ask(session, &question, NULL, NULL, &error);
    assert_true(status == MVLM_OK || error.message[0]);
    mvlm_session_close(session);
}

/* Asks the damaged model in several ways, then mends it. */
static void run(struct fixture *f)
{
    static const char *const rungs[] = {NULL, "c"};
    struct format_header h;
    memcpy(&h, f->bytes, sizeof h);
    struct format_tensor *t = (struct format_tensor *)(void *)(f->bytes + h.directory.offset);
    for (size_t i = 0; i < h.n_tensors; i++)
        digest_of(f->bytes + t[i].range.offset, (size_t)t[i].range.n_bytes, t[i].digest);
    tiny_reseal(f->bytes);
    file_save(f->path, f->bytes, f->n);
    for (size_t i = 0; i < sizeof rungs / sizeof *rungs; i++) {
        const mvlm_model_options options = {.isa = rungs[i]};
        mvlm_model *model;
        mvlm_error error;
        if (mvlm_model_open(f->path, &options, &model, &error) != MVLM_OK)
            fail_msg("%s", error.message);
        ask(model, &f->picture, 1, MVLM_KV_AUTO, 0);
        ask(model, &f->picture, 2, MVLM_KV_F16, 0.8f);
        ask(model, &f->picture, 1, MVLM_KV_F32, 0.8f);
        mvlm_model_close(model);
    }
    memcpy(f->bytes, f->good, f->n);
}

/* ---- Damage ----------------------------------------------------------------------------- */

static const enum tensor_type types[] = {TENSOR_Q8, TENSOR_Q4};

/* Is the byte one of a scale? They are a tile's first 128 bytes, and a row's first four. */
static bool is_scale(const struct format_tensor *t, size_t at)
{
    const size_t n_cols = (size_t)t->n_cols;
    if (t->type == TENSOR_F32 || t->type == TENSOR_F16)
        return false;
    return t->layout == LAYOUT_TILES
               ? at % tile_bytes((enum tensor_type)t->type, n_cols) < sizeof(struct tile_scales)
               : at % row_bytes((enum tensor_type)t->type, n_cols) < sizeof(float);
}

typedef void (*damage_fn)(const struct format_tensor *t, uint8_t *bytes, const void *value);

/* Damages the tensors whose name begins with `part`, and asks. */
static void damage_part(struct fixture *f, const char *part, damage_fn damage, const void *value)
{
    struct format_header h;
    memcpy(&h, f->bytes, sizeof h);
    const struct format_tensor *t =
        (const struct format_tensor *)(const void *)(f->bytes + h.directory.offset);
    size_t n = 0;
    for (size_t i = 0; i < h.n_tensors; i++)
        if (strncmp(t[i].name, part, strlen(part)) == 0) {
            damage(&t[i], f->bytes + t[i].range.offset, value);
            n++;
        }
    assert_true(n > 0);
    run(f);
}

/* Parts one by one, since damage in the tower leaves nothing finite for those behind it. */
static void damage_each(struct fixture *f, damage_fn damage, const void *value)
{
    static const char *const parts[] = {"vision.patch",
                                        "vision.",
                                        "projector.",
                                        "decoder.embedding",
                                        "decoder.layers.0.k",
                                        "decoder.layers.1.v",
                                        "decoder.layers.1.down",
                                        "decoder.head",
                                        "decoder."};
    for (size_t type = 0; type < sizeof types / sizeof *types; type++) {
        make(f, types[type]);
        for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
            damage_part(f, parts[i], damage, value);
    }
}

static void set_scales(const struct format_tensor *t, uint8_t *bytes, const void *value)
{
    for (size_t at = 0; at < t->range.n_bytes; at += sizeof(float))
        if (is_scale(t, at))
            memcpy(bytes + at, value, sizeof(float));
}

/* One scale of a tensor only, so that most of a row stays finite. */
static void set_a_scale(const struct format_tensor *t, uint8_t *bytes, const void *value)
{
    if (is_scale(t, 0))
        memcpy(bytes, value, sizeof(float));
}

static void scales(void **state)
{
    static const float values[] = {(float)NAN, (float)INFINITY, -(float)INFINITY, 3e38f, -1e-3f, 0};
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        damage_each(*state, set_scales, &values[i]);
        damage_each(*state, set_a_scale, &values[i]);
    }
}

/* Everything else: values, multipliers and padding. 0 is -128 in q8 tiles, 0x80 in rows and where a
 * q4 tile's multipliers are 15 times -8; 0xff are multipliers of 15, all negative. */
static void set_values(const struct format_tensor *t, uint8_t *bytes, const void *value)
{
    const bool floats = t->type == TENSOR_F32 || t->type == TENSOR_F16;
    for (size_t at = 0; at < t->range.n_bytes && !floats; at++)
        if (!is_scale(t, at))
            memcpy(bytes + at, value, 1);
}

static void values(void **state)
{
    static const uint8_t bytes[] = {0x00, 0x80, 0x08, 0x88, 0x7f, 0xf0, 0xff};
    for (size_t i = 0; i < sizeof bytes; i++)
        damage_each(*state, set_values, &bytes[i]);
}

/* Norms and biases, which are floats in these files too. */
static void set_floats(const struct format_tensor *t, uint8_t *bytes, const void *value)
{
    const bool floats = t->type == TENSOR_F32;
    for (size_t at = 0; at < t->range.n_bytes && floats; at += sizeof(float))
        memcpy(bytes + at, value, sizeof(float));
}

static void floats_beside(void **state)
{
    static const float floats[] = {(float)NAN, (float)INFINITY, 3e38f, -3e38f};
    static const char *const parts[] = {"vision.", "projector.", "decoder."};
    struct fixture *f = *state;
    for (size_t type = 0; type < sizeof types / sizeof *types; type++) {
        make(f, types[type]);
        for (size_t i = 0; i < sizeof floats / sizeof *floats; i++)
            for (size_t p = 0; p < sizeof parts / sizeof *parts; p++)
                damage_part(f, parts[p], set_floats, &floats[i]);
    }
}

/* All bytes of the data at random, and single ones. */
static void any_bytes(void **state)
{
    struct fixture *f = *state;
    for (size_t type = 0; type < sizeof types / sizeof *types; type++) {
        make(f, types[type]);
        struct format_header h;
        memcpy(&h, f->good, sizeof h);
        for (int i = 0; i < 8; i++) {
            for (uint64_t at = h.data.offset; at < h.file_bytes; at++)
                if (i > 0 && random_bits() % 1000 < (uint64_t)i)
                    f->bytes[at] = (uint8_t)random_bits();
                else if (i == 0)
                    f->bytes[at] = (uint8_t)random_bits();
            run(f);
        }
    }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {TEST(scales), TEST(values), TEST(floats_beside),
                                       TEST(any_bytes)};
    seed_choose();
    return cmocka_run_group_tests_name("quantized, damaged", tests, NULL, NULL);
}
