/* Every golden case, stage by stage: those of the project, and those of ../shared when that folder
 * is there. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "conversation.h"
#include "golden.h"
#include "program.h"

/* One case: model, question, and what the engine's trace gave. */
struct run {
    const char *folder, *name;
    struct conversation conversation;
    mvlm_model *model;
    struct traced {
        char name[64];
        float *values;
        size_t n;
    } traced[32];
    size_t n_traced;
    char text[4096];
    size_t n_text;
    int32_t ids[1024];
    size_t n_ids;
};

static int keep(void *user, const char *stage, size_t picture, const float *values,
                const size_t *shape, int n_dims)
{
    struct run *run = user;
    char name[64];
    size_t n = 1, i = 0;
    snprintf(name, sizeof name, picture ? "%s.%zu" : "%s", stage, picture);
    for (int d = 0; d < n_dims; d++)
        n *= shape[d];
    while (i < run->n_traced && strcmp(run->traced[i].name, name) != 0)
        i++;
    struct traced *t = &run->traced[i];
    if (i == run->n_traced) {
        assert_true(run->n_traced++ < 32);
        strcpy(t->name, name);
    }
    t->values = realloc(t->values, (t->n + n) * sizeof *values);
    assert_non_null(t->values);
    memcpy(t->values + t->n, values, n * sizeof *values);
    t->n += n;
    return 0;
}

static void answer(struct run *run, int n_threads)
{
    const mvlm_session_options options = {.n_threads = n_threads};
    mvlm_session *session;
    mvlm_error error = {0};
    mvlm_piece piece = {.finish = MVLM_UNFINISHED};
    mvlm_question question = run->conversation.question;
    question.trace = keep;
    question.trace_user = run;
    run->n_traced = run->n_text = run->n_ids = 0;
    memset(run->traced, 0, sizeof run->traced);
    if (mvlm_session_open(run->model, &options, &session, &error) != MVLM_OK ||
        mvlm_begin(session, &question, &error) != MVLM_OK)
        fail_msg("%s: %s", run->name, error.message);
    while (piece.finish == MVLM_UNFINISHED) {
        if (mvlm_next(session, &piece, &error) != MVLM_OK)
            fail_msg("%s: %s", run->name, error.message);
        if (piece.finish != MVLM_STOP)
            run->ids[run->n_ids++] = piece.id;
        memcpy(run->text + run->n_text, piece.text, piece.n_bytes);
        run->n_text += piece.n_bytes;
    }
    run->text[run->n_text] = 0;
    size_t n_ids;
    const int32_t *ids = mvlm_session_prompt_ids(session, &n_ids);
    const json_t *expected = json_object_get(run->conversation.expected, "input_ids");
    assert_int_equal(n_ids, json_array_size(expected));
    for (size_t i = 0; i < n_ids; i++)
        assert_int_equal(ids[i], json_integer_value(json_array_get(expected, i)));
    mvlm_session_close(session);
}

static void forget_trace(struct run *run)
{
    for (size_t i = 0; i < run->n_traced; i++)
        free(run->traced[i].values);
    run->n_traced = 0;
}

/* Largest magnitude of a difference of pixels: none for exact pictures, the README's bound for
 * JPEG. */
static void check_pixels(const struct run *run, const struct traced *t,
                         const struct array *expected, size_t picture)
{
    const char *name = run->conversation.pictures[picture].name;
    const bool jpeg = strstr(name, ".jpg") || strstr(name, "jpeg");
    double sum = 0, most = 0;
    for (size_t i = 0; i < t->n; i++) {
        const double difference =
            fabs((double)t->values[i] - (double)expected->floats[i]) * 255 * 0.27;
        sum += difference;
        most = difference > most ? difference : most;
    }
    if (!jpeg && most > 0)
        fail_msg("%s: %s: pixels differ by up to %g levels", run->name, t->name, most);
    assert_true(sum / (double)t->n <= 0.25 && most <= 8.5);
}

static void check_stage(const struct run *run, const struct traced *t)
{
    char file[80], what[128];
    struct array expected;
    snprintf(file, sizeof file, "%s.npy", t->name);
    snprintf(what, sizeof what, "%s: %s", run->name, t->name);
    char *path = path_of(run->folder, "expected", file);
    array_load(&expected, path);
    assert_true(expected.n <= t->n); /* only the last rows are kept of large vocabularies */
    if (strncmp(t->name, "pixels", 6) == 0)
        check_pixels(run, t, &expected, t->name[6] == '.' ? (size_t)atoi(t->name + 7) : 0);
    else
        assert_close(what, t->values + (t->n - expected.n), expected.floats, expected.n);
    array_free(&expected);
    free(path);
}

static void check_answer(const struct run *run)
{
    const json_t *ids = json_object_get(run->conversation.expected, "generated_ids");
    assert_int_equal(run->n_ids, json_array_size(ids));
    for (size_t i = 0; i < run->n_ids; i++)
        assert_int_equal(run->ids[i], json_integer_value(json_array_get(ids, i)));
    assert_string_equal(run->text, run->conversation.text);
}

static void check_perplexity(const struct run *run)
{
    const json_t *expected = json_object_get(run->conversation.expected, "perplexity");
    const double loss = text_loss(run->model, expected);
    const double reference = json_number_value(json_object_get(expected, "nll"));
    if (!(fabs(loss - reference) <= 1e-4))
        fail_msg("%s: nll %.6f, expected %.6f", run->name, loss, reference);
}

/* One and three threads give the same bytes at every stage. */
static void check_threads(struct run *run)
{
    struct run other = *run;
    answer(&other, 3);
    assert_int_equal(other.n_traced, run->n_traced);
    for (size_t i = 0; i < run->n_traced; i++) {
        assert_int_equal(run->traced[i].n, other.traced[i].n);
        if (memcmp(run->traced[i].values, other.traced[i].values,
                   run->traced[i].n * sizeof(float)) != 0)
            fail_msg("%s: %s differs between 1 and 3 threads", run->name, run->traced[i].name);
    }
    forget_trace(&other);
}

static void check_case(const char *folder, const char *name, void *user)
{
    char *temporary = temporary_folder(), *path = path_of(temporary, "model.bin", NULL);
    struct run run = {.folder = folder, .name = name};
    mvlm_error error = {0};
    print_message("  %s\n", name);
    conversation_open_case(&run.conversation, folder, user);
    convert_case(folder, path, "f32");
    if (mvlm_model_open(path, NULL, &run.model, &error) != MVLM_OK ||
        mvlm_model_verify(run.model, NULL, NULL, &error) != MVLM_OK)
        fail_msg("%s: %s", name, error.message);
    answer(&run, 1);
    for (size_t i = 0; i < run.n_traced; i++)
        check_stage(&run, &run.traced[i]);
    check_answer(&run);
    check_threads(&run);
    if (json_object_get(run.conversation.expected, "perplexity"))
        check_perplexity(&run);
    forget_trace(&run);
    mvlm_model_close(run.model);
    conversation_close(&run.conversation);
    remove_folder(temporary);
    free(temporary);
    free(path);
}

static void own_cases(void **state)
{
    (void)state;
    assert_true(for_each_case(SOURCE_DIR "/tests/golden/cases", check_case,
                              SOURCE_DIR "/tests/golden/images") >= 5);
}

static void shared_cases(void **state)
{
    (void)state;
    if (!path_exists(SHARED_DIR "/reference/cases"))
        skip();
    assert_true(for_each_case(SHARED_DIR "/reference/cases", check_case,
                              SHARED_DIR "/reference/images") > 0);
}

static void shared_family_cases(void **state)
{
    (void)state;
    if (!path_exists(SHARED_DIR "/reference/family/cases"))
        skip();
    assert_true(for_each_case(SHARED_DIR "/reference/family/cases", check_case,
                              SHARED_DIR "/reference/images") > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(own_cases), cmocka_unit_test(shared_cases),
                                       cmocka_unit_test(shared_family_cases)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
