/* A small model cut at every byte, with every bit before its data flipped, and one in every 64 bytes of its data: a clean
 * error, or verify names the place, or the answer is the same. Then the same with lengths and digests made right, so that
 * the checks behind them are reached. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "conversation.h"
#include "format.h"
#include "golden.h"
#include "mobilevlm.h"
#include "program.h"
#include "tiny.h"

/* The file lies in memory: it is opened half a million times. */
static int file;
static char path[64];
static uint8_t *good, *picture_bytes;
static size_t n_good, n_picture;
static struct format_header header;
static struct reply expected;

static int set_up(void **state)
{
    char name[512];
    struct description description;
    open_test_folder(state);
    tiny_describe(&description);
    snprintf(name, sizeof name, "%s/model.bin", test_folder);
    tiny_write(name, &description, TENSOR_Q8, 1);
    good = (uint8_t *)file_load(name, &n_good);
    memcpy(&header, good, sizeof header);
    picture_bytes = (uint8_t *)file_load(SOURCE_DIR "/tests/golden/images/tiny.png", &n_picture);
    file = memfd_create("model", 0);
    snprintf(path, sizeof path, "/proc/self/fd/%d", file);
    return file < 0 || pwrite(file, good, n_good, 0) != (ssize_t)n_good;
}

static int tear_down(void **state)
{
    free(good);
    free(picture_bytes);
    close(file);
    return close_test_folder(state);
}

static void put(size_t at, const void *bytes, size_t n)
{
    assert_int_equal(pwrite(file, bytes, n, (off_t)at), n);
}

/* The file as it was, from the beginning to the data. */
static void restore_front(void)
{
    put(0, good, (size_t)header.data.offset);
}

static mvlm_status open_file(mvlm_model **model, mvlm_error *error)
{
    const mvlm_status status = mvlm_model_open(path, NULL, model, error);
    if (status != MVLM_OK) {
        assert_null(*model);
        assert_true(status == MVLM_BAD_MODEL || status == MVLM_NO_MEMORY);
        assert_true(*error->message && !strchr(error->message, '\n'));
    }
    return status;
}

/* A picture and a question, two tokens. Whatever the file says, it ends well or with an error. */
static mvlm_status ask(mvlm_model *model, struct reply *reply)
{
    const mvlm_session_options options = {.n_threads = 1, .max_rss = 64 << 20};
    const mvlm_picture picture = {"tiny.png", picture_bytes, n_picture};
    const mvlm_turn turn = {.question = "aa"};
    mvlm_model_info info;
    mvlm_session *session;
    mvlm_error error = {0};
    mvlm_model_describe(model, &info);
    const mvlm_question question = {.turns = &turn,
                                    .n_turns = 1,
                                    .max_tokens = 2,
                                    .pictures = &picture,
                                    .n_pictures = info.image_tokens ? 1 : 0};
    mvlm_status status = mvlm_session_open(model, &options, &session, &error);
    *reply = (struct reply){.n = 0};
    if (status == MVLM_OK)
        status = mvlm_ask(session, &question, reply_add, reply, &error);
    assert_true(status == MVLM_OK || *error.message);
    mvlm_session_close(session);
    return status;
}

static void the_good_file_answers(void **state)
{
    (void)state;
    mvlm_model *model;
    mvlm_error error;
    assert_int_equal(open_file(&model, &error), MVLM_OK);
    assert_int_equal(mvlm_model_verify(model, NULL, NULL, &error), MVLM_OK);
    assert_int_equal(ask(model, &expected), MVLM_OK);
    mvlm_model_close(model);
}

/* ---- Cut -------------------------------------------------------------------------------- */

static void expect_refused(size_t n, const char *what)
{
    mvlm_model *model;
    mvlm_error error;
    if (open_file(&model, &error) == MVLM_OK)
        fail_msg("%s at byte %zu is not noticed", what, n);
}

static void cut_at_every_byte(void **state)
{
    (void)state;
    for (size_t n = n_good; n-- > 0;) {
        assert_int_equal(ftruncate(file, (off_t)n), 0);
        expect_refused(n, "the cut");
    }
    put(0, good, n_good);
}

/* The header says what is there, and its digest is right. */
static void cut_and_resealed(void **state)
{
    (void)state;
    const size_t front = (size_t)header.data.offset;
    uint8_t *bytes = malloc(front);
    assert_non_null(bytes);
    memcpy(bytes, good, front);
    for (size_t n = n_good - 1; n >= front; n--) {
        struct format_header h = header;
        h.file_bytes = n;
        h.data.n_bytes = n - front;
        memcpy(bytes, &h, sizeof h);
        tiny_reseal(bytes);
        assert_int_equal(ftruncate(file, (off_t)n), 0);
        put(0, bytes, sizeof h);
        expect_refused(n, "the cut");
    }
    free(bytes);
    put(0, good, n_good);
}

/* ---- Flipped ---------------------------------------------------------------------------- */

static size_t n_opened;

/* Every bit before the data: refused, or the file is as good as it was. */
static void flip_every_bit(void **state)
{
    (void)state;
    n_opened = 0;
    for (size_t bit = 0; bit < 8 * (size_t)header.data.offset; bit++) {
        const uint8_t changed = good[bit / 8] ^ (uint8_t)(1u << bit % 8);
        put(bit / 8, &changed, 1);
        expect_refused(bit / 8, "a flipped bit");
        put(bit / 8, &good[bit / 8], 1);
    }
}

/* The same under a right digest: what opens is verified and asked. */
static void flip_every_bit_and_reseal(void **state)
{
    (void)state;
    const size_t front = (size_t)header.data.offset;
    uint8_t *bytes = malloc(front);
    assert_non_null(bytes);
    memcpy(bytes, good, front);
    for (size_t bit = 0; bit < 8 * front; bit++) {
        mvlm_model *model;
        mvlm_error error;
        struct reply reply;
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        struct format_header h;
        memcpy(&h, bytes, sizeof h);
        if (h.data.offset == front) { /* else there is nothing to seal */
            tiny_reseal(bytes);
            put(0, bytes, sizeof h);
        }
        put(bit / 8, &bytes[bit / 8], 1);
        if (open_file(&model, &error) == MVLM_OK) {
            n_opened++;
            if (bit % 8 == 0)
                mvlm_model_verify(model, NULL, NULL, &error);
            ask(model, &reply);
            mvlm_model_close(model);
        }
        bytes[bit / 8] = good[bit / 8];
        memcpy(bytes, good, sizeof h);
        put(0, good, sizeof h);
        put(bit / 8, &good[bit / 8], 1);
    }
    free(bytes);
    restore_front();
    printf("%zu of %zu flips make another valid file\n", n_opened, 8 * front);
    assert_true(n_opened > 0);
}

struct notes {
    char line[256]; /* the first that is fatal */
};

static void note(void *user, const char *line, bool fatal)
{
    struct notes *notes = user;
    if (fatal && !*notes->line)
        snprintf(notes->line, sizeof notes->line, "%s", line);
}

/* The tensor that holds the byte; NULL: padding. */
static const struct format_tensor *tensor_at(size_t at)
{
    for (size_t i = 0; i < header.n_tensors; i++) {
        const struct format_tensor *t =
            (const struct format_tensor *)(const void *)(good + header.directory.offset) + i;
        if (at >= t->range.offset && at - t->range.offset < t->range.n_bytes)
            return t;
    }
    return NULL;
}

/* One bit in every 64 bytes of data: verify names its tensor, or the padding; the file can be asked nevertheless. */
static void flip_data(void **state)
{
    (void)state;
    for (size_t at = (size_t)header.data.offset; at < n_good; at += 64) {
        const size_t place = at + at / 64 % 64 < n_good ? at + at / 64 % 64 : at;
        const uint8_t changed = good[place] ^ (uint8_t)(1u << at / 64 % 8);
        const struct format_tensor *t = tensor_at(place);
        struct notes notes = {{0}};
        struct reply reply;
        mvlm_model *model;
        mvlm_error error;
        put(place, &changed, 1);
        assert_int_equal(open_file(&model, &error), MVLM_OK);
        assert_int_equal(mvlm_model_verify(model, note, &notes, &error), MVLM_BAD_MODEL);
        if (!strstr(notes.line, t ? t->name : "padding"))
            fail_msg("a flipped bit of %s is told as: %s", t ? t->name : "padding", notes.line);
        ask(model, &reply);
        mvlm_model_close(model);
        put(place, &good[place], 1);
    }
}

/* Nothing of all this has changed what the good file says. */
static void the_good_file_still_answers(void **state)
{
    (void)state;
    mvlm_model *model;
    mvlm_error error;
    struct reply reply;
    assert_int_equal(open_file(&model, &error), MVLM_OK);
    assert_int_equal(ask(model, &reply), MVLM_OK);
    assert_string_equal(reply.text, expected.text);
    mvlm_model_close(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_good_file_answers),
        cmocka_unit_test(cut_at_every_byte),
        cmocka_unit_test(cut_and_resealed),
        cmocka_unit_test(flip_every_bit),
        cmocka_unit_test(flip_every_bit_and_reseal),
        cmocka_unit_test(flip_data),
        cmocka_unit_test(the_good_file_still_answers),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
