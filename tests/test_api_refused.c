/* Wrong arguments to the public API: each is refused with its status and a message that names it,
 * and nothing is left open. Damaged model files: test_model_file.c; bad pictures: test_image.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "conversation.h"
#include "mobilevlm.h"
#include "program.h"

static struct conversation text_case, picture_case;
static mvlm_model *text_model, *picture_model;
static char *folder;

static int open_models(void **state)
{
    (void)state;
    folder = temporary_folder();
    conversation_open(&text_case, "text");
    conversation_open(&picture_case, "v1");
    text_model = conversation_model(folder, "text", "f32", NULL);
    picture_model = conversation_model(folder, "v1", "f32", NULL);
    return 0;
}

static int close_models(void **state)
{
    (void)state;
    mvlm_model_close(text_model);
    mvlm_model_close(picture_model);
    conversation_close(&text_case);
    conversation_close(&picture_case);
    remove_folder(folder);
    free(folder);
    return 0;
}

static void assert_failed(mvlm_status got, mvlm_status expected, const mvlm_error *error,
                          const char *part)
{
    if (got != expected || error->status != expected || !strstr(error->message, part))
        fail_msg("status %d, \"%s\"; expected %d, \"...%s...\"", (int)got, error->message,
                 (int)expected, part);
}

static void questions_refused(void **state)
{
    (void)state;
    const mvlm_turn answered = {"a", "b"}, empty = {"", NULL}, latin1 = {"caf\xe9", NULL},
                    none = {NULL, NULL};
    const mvlm_turn hi = {"Hi", NULL}, marks = {"<image> and <image>", NULL},
                    two[] = {{"a", NULL}, {"b", NULL}};
    const mvlm_turn both[] = {{"a", "b"}, {"c", NULL}};
    const mvlm_picture *const picture = picture_case.pictures;
    const struct {
        mvlm_model *model;
        mvlm_question question;
        const char *part;
    } wrong[] = {
        {text_model, {0}, "last turn"},
        {text_model, {.turns = &answered, .n_turns = 1}, "last turn"},
        {text_model, {.turns = &empty, .n_turns = 1}, "empty"},
        {text_model, {.turns = &none, .n_turns = 1}, "lacks its question"},
        {text_model, {.turns = &latin1, .n_turns = 1}, "0xe9 at 3"},
        {picture_model, {.turns = two, .n_turns = 2}, "turn 1"},
        {text_model, {.turns = both, .n_turns = 2}, "2 turns"},
        {picture_model, {.turns = both, .n_turns = 2, .raw = true}, "2 turns"},
        {text_model, {.turns = &hi, .n_turns = 1, .system = "Be kind."}, "system"},
        {picture_model, {.turns = &hi, .n_turns = 1, .system = "\xff"}, "system"},
        {text_model,
         {.turns = &hi, .n_turns = 1, .pictures = picture, .n_pictures = 1},
         "text-only"},
        {picture_model,
         {.turns = &marks, .n_turns = 1, .pictures = picture, .n_pictures = 1},
         "2 <image> marks"},
        {picture_model, {.turns = &marks, .n_turns = 1}, "2 <image> marks"},
        {text_model, {.turns = &hi, .n_turns = 1, .sampling = {.top_k = -1}}, "top-k"},
        {text_model, {.turns = &hi, .n_turns = 1, .sampling = {.temperature = -1}}, "temperature"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        mvlm_session *session;
        mvlm_error error;
        assert_int_equal(mvlm_session_open(wrong[i].model, NULL, &session, &error), MVLM_OK);
        assert_failed(mvlm_begin(session, &wrong[i].question, &error), MVLM_USAGE, &error,
                      wrong[i].part);
        assert_int_equal(mvlm_ask(session, &wrong[i].question, NULL, NULL, NULL), MVLM_USAGE);
        mvlm_session_close(session);
    }
}

static void session_options_refused(void **state)
{
    (void)state;
    static const struct {
        mvlm_session_options options;
        const char *part;
    } wrong[] = {
        {{.n_threads = -1}, "-1 threads"},
        {{.n_threads = 257}, "257 threads"},
        {{.n_ctx = ((size_t)1 << 20) + 1}, "1048577 positions"},
        {{.n_ctx = SIZE_MAX}, "positions"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        mvlm_session *session = (mvlm_session *)folder;
        mvlm_memory memory;
        mvlm_error error;
        assert_failed(mvlm_session_open(text_model, &wrong[i].options, &session, &error),
                      MVLM_USAGE, &error, wrong[i].part);
        assert_null(session);
        assert_failed(mvlm_session_plan(text_model, &wrong[i].options, 5, 0, 5, &memory, &error),
                      MVLM_USAGE, &error, wrong[i].part);
    }
    mvlm_session_close(NULL);
    mvlm_model_close(NULL);
}

/* A prompt larger than the context, given or trained; a plan of absurd size, refused without
 * trying. */
static void too_large_refused(void **state)
{
    (void)state;
    mvlm_session *session;
    mvlm_memory memory;
    mvlm_error error;
    assert_int_equal(
        mvlm_session_open(text_model, &(mvlm_session_options){.n_ctx = 2}, &session, &error),
        MVLM_OK);
    assert_failed(mvlm_begin(session, &text_case.question, &error), MVLM_USAGE, &error,
                  "context has 2");
    mvlm_session_close(session);
    assert_int_equal(
        mvlm_session_open(picture_model, &(mvlm_session_options){.n_ctx = 20}, &session, &error),
        MVLM_OK);
    assert_failed(mvlm_begin(session, &picture_case.question, &error), MVLM_USAGE, &error,
                  "9 of them pictures'");
    mvlm_session_close(session);
    assert_int_equal(mvlm_session_plan(text_model, NULL, SIZE_MAX, 0, 1, &memory, &error),
                     MVLM_USAGE);
    assert_int_equal(mvlm_session_plan(text_model, NULL, 1, 0, SIZE_MAX, &memory, &error), MVLM_OK);
    assert_int_equal(mvlm_session_plan(picture_model, NULL, 100, SIZE_MAX / 2, 1, &memory, &error),
                     MVLM_USAGE);
    assert_non_null(strstr(error.message, "pictures in a prompt of 100 positions"));
}

static void bad_picture_refused(void **state)
{
    (void)state;
    const mvlm_picture pictures[] = {
        {"first.jpg", "\xff\xd8\xff", 3}, {NULL, "GIF89a", 6}, {"empty", NULL, 0}};
    const mvlm_turn turn = {.question = "Hi"};
    mvlm_session *session;
    mvlm_error error;
    assert_int_equal(mvlm_session_open(picture_model, NULL, &session, &error), MVLM_OK);
    for (size_t i = 0; i < 3; i++) {
        const mvlm_question question = {
            .turns = &turn, .n_turns = 1, .pictures = &pictures[i], .n_pictures = 1};
        assert_failed(mvlm_begin(session, &question, &error), MVLM_BAD_PICTURE, &error,
                      pictures[i].name ? pictures[i].name : "GIF");
    }
    mvlm_session_close(session);
    const mvlm_session_options few_pixels = {.max_pixels = 10};
    assert_int_equal(mvlm_session_open(picture_model, &few_pixels, &session, &error), MVLM_OK);
    assert_failed(mvlm_begin(session, &picture_case.question, &error), MVLM_BAD_PICTURE, &error,
                  "at most 10");
    mvlm_session_close(session);
}

static void models_refused(void **state)
{
    (void)state;
    mvlm_model *model = text_model;
    mvlm_model_info info;
    mvlm_error error;
    mvlm_model_describe(text_model, &info);
    assert_failed(mvlm_model_open("/nonexistent.bin", NULL, &model, &error), MVLM_BAD_MODEL, &error,
                  "/nonexistent.bin");
    assert_null(model);
    assert_failed(mvlm_model_open(info.path, &(mvlm_model_options){.isa = "mmx"}, &model, &error),
                  MVLM_USAGE, &error, "mmx");
    assert_null(model);
    assert_failed(mvlm_model_open(folder, NULL, &model, &error), MVLM_BAD_MODEL, &error, folder);
    assert_int_equal(mvlm_model_open("", NULL, &model, NULL), MVLM_BAD_MODEL);
}

static void every_status_has_its_text(void **state)
{
    (void)state;
    for (int a = -1; a < 12; a++) {
        assert_true(*mvlm_status_text((mvlm_status)a) != 0);
        for (int b = MVLM_USAGE; b < a && a <= MVLM_CANCELLED; b++)
            assert_string_not_equal(mvlm_status_text((mvlm_status)a),
                                    mvlm_status_text((mvlm_status)b));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(questions_refused), cmocka_unit_test(session_options_refused),
        cmocka_unit_test(too_large_refused), cmocka_unit_test(bad_picture_refused),
        cmocka_unit_test(models_refused),    cmocka_unit_test(every_status_has_its_text),
    };
    return cmocka_run_group_tests_name("api refused", tests, open_models, close_models);
}
