/* mvlm_session_observe: every matrix of the decoder is observed, with its shape, the rows that it
 * reads, in the order of execution, and the answer stays what it was. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "conversation.h"
#include "decode.h"
#include "golden.h"
#include "program.h"

enum { MAX_OBSERVED = 400, MOST_INPUTS = 1024, LAYER_MATRICES = 7 };

/* What was observed, a row of this list for each tensor, in the order of their first call. */
struct observed {
    uint64_t offset;
    size_t n, n_rows;
    float sum;               /* of all values */
    float last[MOST_INPUTS]; /* the last row */
};
struct watch {
    struct observed items[MAX_OBSERVED];
    size_t n_items, n_calls;
};
static struct watch watch;

static void observe(void *user, uint64_t tensor_offset, const float *rows, size_t n_rows, size_t n)
{
    struct watch *w = user;
    size_t at = 0;
    w->n_calls++;
    while (at < w->n_items && w->items[at].offset != tensor_offset)
        at++;
    assert_true(at < MAX_OBSERVED && n <= MOST_INPUTS && n_rows >= 1 &&
                n_rows <= MVLM_OBSERVED_ROWS);
    struct observed *item = &w->items[at];
    if (at == w->n_items) {
        *item = (struct observed){.offset = tensor_offset, .n = n};
        w->n_items++;
    }
    assert_int_equal(item->n, n);
    item->n_rows += n_rows;
    for (size_t i = 0; i < n_rows * n; i++) {
        assert_true(isfinite(rows[i]));
        item->sum += rows[i];
    }
    memcpy(item->last, rows + (n_rows - 1) * n, n * sizeof *rows);
}

static mvlm_session *open_session(mvlm_model *model)
{
    const mvlm_session_options options = {.n_threads = 2};
    mvlm_session *session;
    mvlm_error error;
    if (mvlm_session_open(model, &options, &session, &error) != MVLM_OK)
        fail_msg("%s", error.message);
    return session;
}

static mvlm_tensor tensor_named(const mvlm_model *model, const char *name)
{
    mvlm_tensor tensor;
    for (size_t i = 0; mvlm_model_tensor(model, i, &tensor); i++)
        if (strcmp(tensor.name, name) == 0)
            return tensor;
    fail_msg("no tensor %s", name);
    return tensor;
}

static const struct observed *observed_as(const mvlm_model *model, const char *name)
{
    const mvlm_tensor tensor = tensor_named(model, name);
    for (size_t i = 0; i < watch.n_items; i++)
        if (watch.items[i].offset == tensor.offset) {
            assert_int_equal(watch.items[i].n, tensor.shape[1]);
            return &watch.items[i];
        }
    fail_msg("%s was not observed", name);
    return NULL;
}

static size_t layers_of(const mvlm_model *model)
{
    mvlm_field field;
    for (size_t i = 0; mvlm_model_field(model, i, &field); i++)
        if (strcmp(field.key, "decoder.n_layers") == 0)
            return (size_t)field.integer;
    return 0;
}

static const char *head_of(const mvlm_model *model)
{
    mvlm_field field;
    for (size_t i = 0; mvlm_model_field(model, i, &field); i++)
        if (strcmp(field.key, "decoder.tied_head") == 0 && field.integer)
            return "decoder.embedding.weight";
    return "decoder.head.weight";
}

/* In the order of execution, each with so many rows: of the last layer, what comes behind its keys
 * and values is computed for one row of a prompt only. */
static void check_decoder(const mvlm_model *model, size_t n_rows, size_t n_last)
{
    static const char *const parts[LAYER_MATRICES] = {"q", "k", "v", "out", "up", "gate", "down"};
    const size_t n_layers = layers_of(model);
    const struct observed *before = NULL;
    for (size_t layer = 0; layer < n_layers; layer++)
        for (size_t i = 0; i < LAYER_MATRICES; i++) {
            char name[64];
            snprintf(name, sizeof name, "decoder.layers.%zu.%s.weight", layer, parts[i]);
            const struct observed *item = observed_as(model, name);
            assert_true(!before || item == before + 1);
            assert_int_equal(item->n_rows, layer + 1 == n_layers && i > 2 ? n_last : n_rows);
            if (i == 1 || i == 2 || i == 5) { /* reads what the one before it reads */
                assert_true(item->sum == before->sum);
                assert_memory_equal(item->last, before->last, item->n * sizeof *item->last);
            }
            before = item;
        }
    assert_int_equal(observed_as(model, head_of(model))->n_rows, n_last);
}

/* Keeps the last logits. */
struct logits {
    float values[4096];
    size_t n;
};
static int keep_logits(void *user, const char *stage, size_t picture, const float *values,
                       const size_t *shape, int n_dims)
{
    struct logits *logits = user;
    (void)picture;
    if (strcmp(stage, "generated_logits") == 0) {
        assert_true(n_dims == 2 && shape[1] <= 4096);
        logits->n = shape[1];
        memcpy(logits->values, values, logits->n * sizeof *values);
    }
    return 0;
}

/* The last logits are the head's weights times the row that was observed. */
static void check_head(const char *path, const mvlm_model *model, const struct logits *logits)
{
    size_t n_bytes;
    const char *name = head_of(model);
    const struct observed *item = observed_as(model, name);
    uint8_t *file = (uint8_t *)file_load(path, &n_bytes);
    float *weights = decode_entry(file, entry_of(file, name)),
          *expected = calloc(logits->n, sizeof *expected);
    for (size_t r = 0; r < logits->n; r++) {
        double sum = 0;
        for (size_t i = 0; i < item->n; i++)
            sum += (double)weights[r * item->n + i] * (double)item->last[i];
        expected[r] = (float)sum;
    }
    assert_close("the head times the row observed", expected, logits->values, logits->n);
    free(weights);
    free(expected);
    free(file);
}

static void check_case(const char *name, const char *type)
{
    static struct reply reply, plain;
    static struct logits logits;
    struct conversation c;
    mvlm_model *model = conversation_model(test_folder, name, type, NULL);
    mvlm_session *session = open_session(model);
    mvlm_counters counters;
    mvlm_model_info info;
    mvlm_error error;
    conversation_open(&c, name);
    memset(&reply, 0, sizeof reply);
    memset(&plain, 0, sizeof plain);
    memset(&watch, 0, sizeof watch);
    assert_int_equal(mvlm_ask(session, &c.question, reply_add, &plain, &error), MVLM_OK);
    mvlm_session_observe(session, observe, &watch);
    c.question.trace = keep_logits;
    c.question.trace_user = &logits;
    assert_int_equal(mvlm_ask(session, &c.question, reply_add, &reply, &error), MVLM_OK);
    assert_string_equal(reply.text, plain.text);
    mvlm_session_counters(session, &counters);
    mvlm_model_describe(model, &info);
    assert_int_equal(watch.n_items > layers_of(model) * LAYER_MATRICES + 1, info.image_tokens > 0);
    /* the trace computes the logits of all rows of the prompt; the last id is not read */
    const size_t n_read = counters.prompt_tokens + counters.image_tokens +
                          counters.generated_tokens -
                          (counters.generated_tokens == c.question.max_tokens);
    check_decoder(model, n_read, n_read);
    check_head(info.path, model, &logits);
    conversation_close(&c);
    mvlm_session_close(session);
    mvlm_model_close(model);
}

static void all_matrices_are_observed(void **state)
{
    static const char *const names[] = {"text", "v1", "two-images"}, *const types[] = {"f32", "f16",
                                                                                       "q8", "q4"};
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        for (size_t k = 0; k < sizeof types / sizeof *types; k++)
            check_case(names[i], types[k]);
}

static void every_call_that_computes_is_observed(void **state)
{
    enum { N_IDS = 70 };
    int32_t ids[N_IDS];
    float losses[N_IDS], observed_losses[N_IDS];
    mvlm_model *model = conversation_model(test_folder, "text", "q8", NULL);
    mvlm_session *session = open_session(model);
    mvlm_error error;
    (void)state;
    for (int32_t i = 0; i < N_IDS; i++)
        ids[i] = 1 + i;
    memset(&watch, 0, sizeof watch);
    assert_int_equal(mvlm_score(session, ids, N_IDS, losses, &error), MVLM_OK);
    mvlm_session_observe(session, observe, &watch);
    assert_int_equal(mvlm_score(session, ids, N_IDS, observed_losses, &error), MVLM_OK);
    check_decoder(model, N_IDS, N_IDS);
    assert_memory_equal(losses, observed_losses, (N_IDS - 1) * sizeof *losses);
    memset(&watch, 0, sizeof watch);
    assert_int_equal(mvlm_read(session, 0, ids, N_IDS, &error), MVLM_OK);
    check_decoder(model, N_IDS, 1);
    mvlm_session_observe(session, NULL, NULL);
    memset(&watch, 0, sizeof watch);
    assert_int_equal(mvlm_read(session, 0, ids, N_IDS, &error), MVLM_OK);
    assert_int_equal(watch.n_calls, 0);
    mvlm_session_close(session);
    mvlm_model_close(model);
}

/* "" as a raw prompt is the beginning of a sequence alone. */
static void a_raw_prompt_may_be_empty(void **state)
{
    mvlm_model *model = conversation_model(test_folder, "v1", "q8", NULL);
    mvlm_session *session = open_session(model);
    const mvlm_turn turn = {.question = ""};
    mvlm_question question = {.turns = &turn, .n_turns = 1, .raw = true, .max_tokens = 3};
    mvlm_error error;
    size_t n_ids;
    (void)state;
    assert_int_equal(mvlm_ask(session, &question, NULL, NULL, &error), MVLM_OK);
    const int32_t *ids = mvlm_session_prompt_ids(session, &n_ids);
    assert_int_equal(n_ids, 1);
    assert_int_equal(ids[0], 1);
    question.raw = false;
    assert_int_equal(mvlm_ask(session, &question, NULL, NULL, &error), MVLM_USAGE);
    mvlm_session_close(session);
    mvlm_model_close(model);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, open_test_folder, close_test_folder)
    const struct CMUnitTest tests[] = {
        TEST(all_matrices_are_observed),
        TEST(every_call_that_computes_is_observed),
        TEST(a_raw_prompt_may_be_empty),
    };
    return cmocka_run_group_tests_name("observe", tests, NULL, NULL);
}
