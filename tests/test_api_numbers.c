/* What the engine promises about its numbers: the same bits for any number of threads and any rung
 * of kernels, for reading at once and step by step, in chunks or not; likelihoods that follow from
 * the logits; halves that differ little. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../kernels/kernels.h"
#include "conversation.h"
#include "mobilevlm.h"
#include "program.h"

static const mvlm_session_options one_thread = {
    .n_threads = 1}; /* quicker for tiny models on a busy machine */

static const char *const names[] = {
    "text", "v1", "v2", "two-images", "linear-last-layer", "imp-phi2", "imp-phi3", "composite"};
enum { N_NAMES = sizeof names / sizeof *names };

/* f16 files take other paths through linear and attention only, so a case or two will do; q8 and q4
 * have kernels of their own, and q4 files have a tower of q8. */
static const struct {
    const char *name, *type;
} runs[] = {{"text", "f32"},
            {"v1", "f32"},
            {"v2", "f32"},
            {"two-images", "f32"},
            {"linear-last-layer", "f32"},
            {"text", "f16"},
            {"v1", "f16"},
            {"text", "q8"},
            {"v1", "q8"},
            {"v2", "q8"},
            {"two-images", "q8"},
            {"text", "q4"},
            {"v1", "q4"},
            {"v2", "q4"},
            {"two-images", "q4"},
            {"imp-phi2", "f32"},
            {"imp-phi2", "q4"},
            {"imp-phi3", "q8"},
            {"composite", "f32"},
            {"composite", "q4"}};
enum { N_RUNS = sizeof runs / sizeof *runs };

static void threads_change_nothing(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_RUNS; i++) {
        struct record one, more;
        record_run(&one, test_folder, runs[i].name,
                   &(struct manner){runs[i].type, NULL, {.n_threads = 1}});
        for (int n = 2; n <= 3; n++) {
            record_run(&more, test_folder, runs[i].name,
                       &(struct manner){runs[i].type, NULL, {.n_threads = n}});
            assert_same_bits(runs[i].name, &one, &more);
            record_free(&more);
        }
        record_free(&one);
    }
}

static void rungs_change_nothing(void **state)
{
    (void)state;
    const char *isa;
    bool has;
    for (size_t rung = 1; (isa = kernels_rung(rung, &has)); rung++)
        for (size_t i = 0; i < N_RUNS && has; i++) {
            struct record c, other;
            record_run(&c, test_folder, runs[i].name,
                       &(struct manner){runs[i].type, "c", {.n_threads = 1}});
            record_run(&other, test_folder, runs[i].name,
                       &(struct manner){runs[i].type, isa, {.n_threads = 1}});
            assert_same_bits(isa, &c, &other);
            record_free(&c);
            record_free(&other);
        }
}

/* A larger context moves the tiles of the cache, and changes no number. */
static void context_size_changes_nothing(void **state)
{
    (void)state;
    struct record fitting, larger;
    record_run(&fitting, test_folder, "two-images",
               &(struct manner){"f32", NULL, {.n_threads = 1}});
    record_run(&larger, test_folder, "two-images",
               &(struct manner){"f32", NULL, {.n_threads = 1, .n_ctx = 1777}});
    assert_same_bits("context", &fitting, &larger);
    record_free(&fitting);
    record_free(&larger);
}

/* A half has 11 bits, so one rounding is 5e-4 at most; a few layers may add up to some of them. */
static void halves_differ_little(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_NAMES; i++) {
        struct record single, cache, file, file_single_cache;
        record_run(&single, test_folder, names[i],
                   &(struct manner){"f32", NULL, {.n_threads = 1, .kv_type = MVLM_KV_AUTO}});
        record_run(&cache, test_folder, names[i],
                   &(struct manner){"f32", NULL, {.n_threads = 1, .kv_type = MVLM_KV_F16}});
        record_run(&file, test_folder, names[i],
                   &(struct manner){"f16", NULL, {.n_threads = 1, .kv_type = MVLM_KV_F16}});
        record_run(&file_single_cache, test_folder, names[i],
                   &(struct manner){"f16", NULL, {.n_threads = 1, .kv_type = MVLM_KV_F32}});
        const double of_cache = logits_differ_by(&single, &cache),
                     of_file = logits_differ_by(&single, &file);
        if (!(of_cache > 0 && of_cache < 4e-3 && of_file > 0 && of_file < 1e-2))
            fail_msg("%s: a cache of halves changes the logits by %g, a file of halves by %g",
                     names[i], of_cache, of_file);
        assert_true(logits_differ_by(&file, &file_single_cache) > 0);
        record_free(&single);
        record_free(&cache);
        record_free(&file);
        record_free(&file_single_cache);
    }
}

/* ---- Likelihood ------------------------------------------------------------------------- */

/* -log softmax(logits)[id] */
static double loss_of(const float *logits, size_t vocab, int32_t id)
{
    double sum = 0;
    for (size_t i = 0; i < vocab; i++)
        sum += exp((double)logits[i] - (double)logits[id]);
    return log(sum);
}

enum { MOST_IDS = 1030 };

/* The cache of an f32 file is f32, those of the others q8. */
static const char *const types[] = {"f32", "q8", "q4"};
enum { N_TYPES = sizeof types / sizeof *types };

/* The text case's prompt and its greedy answer, as ids; the logits of every row but the last, from
 * the trace. */
struct sequence {
    mvlm_model *model;
    struct conversation c;
    struct record record;
    int32_t ids[MOST_IDS];
    size_t n_prompt, n;
    size_t vocab;
};

static void read_sequence(struct sequence *s, const char *type)
{
    mvlm_session *session;
    mvlm_piece piece = {.finish = MVLM_UNFINISHED};
    mvlm_error error;
    mvlm_model_info info;
    memset(s, 0, sizeof *s);
    s->model = conversation_model(test_folder, "text", type, NULL);
    conversation_open(&s->c, "text");
    s->c.question.trace = record_add;
    s->c.question.trace_user = &s->record;
    mvlm_model_describe(s->model, &info);
    s->vocab = info.vocab_size;
    assert_int_equal(mvlm_session_open(s->model, &one_thread, &session, &error), MVLM_OK);
    assert_int_equal(mvlm_begin(session, &s->c.question, &error), MVLM_OK);
    const int32_t *prompt = mvlm_session_prompt_ids(session, &s->n_prompt);
    memcpy(s->ids, prompt, s->n_prompt * sizeof *prompt);
    s->n = s->n_prompt;
    while (piece.finish == MVLM_UNFINISHED) {
        assert_int_equal(mvlm_next(session, &piece, &error), MVLM_OK);
        s->ids[s->n++] = piece.id;
    }
    mvlm_session_close(session);
}

static void close_sequence(struct sequence *s)
{
    record_free(&s->record);
    conversation_close(&s->c);
    mvlm_model_close(s->model);
}

static void score(const struct sequence *s, const int32_t *ids, size_t n, int n_threads,
                  float *losses)
{
    const mvlm_session_options options = {.n_threads = n_threads};
    mvlm_session *session;
    mvlm_error error;
    if (mvlm_session_open(s->model, &options, &session, &error) != MVLM_OK ||
        mvlm_score(session, ids, n, losses, &error) != MVLM_OK)
        fail_msg("%s", error.message);
    mvlm_session_close(session);
}

/* Scored at once or stepped through, an id's likelihood is the same; so are the logits that both
 * come from. */
static void score_follows_from_logits(void **state)
{
    (void)state;
    static struct sequence s;
    float losses[MOST_IDS];
    size_t n_prompt_logits, n_steps;
    read_sequence(&s, "f32");
    const float *prompt = record_stage(&s.record, "logits", &n_prompt_logits);
    const float *steps = record_stage(&s.record, "generated_logits", &n_steps);
    assert_int_equal(n_prompt_logits, s.n_prompt * s.vocab);
    assert_int_equal(n_steps, (s.n - s.n_prompt) * s.vocab);
    score(&s, s.ids, s.n, 2, losses);
    for (size_t i = 0; i + 1 < s.n; i++) {
        const float *row =
            i < s.n_prompt ? prompt + i * s.vocab : steps + (i + 1 - s.n_prompt) * s.vocab;
        const double expected = loss_of(row, s.vocab, s.ids[i + 1]);
        if (!(fabs((double)losses[i] - expected) <= 1e-6 * (1 + expected)))
            fail_msg("loss %zu is %.9g, expected %.9g", i, (double)losses[i], expected);
    }
    /* the first step samples from the last row of the prompt */
    assert_memory_equal(steps, prompt + n_prompt_logits - s.vocab, s.vocab * sizeof *steps);
    close_sequence(&s);
}

/* Rows read at once and rows read step by step give the same bits: a prompt that says what prompt
 * and answer said so far has the step's logits in its last row. */
static void prefill_equals_steps_of(const char *type)
{
    static struct sequence s;
    size_t n_compared = 0, n_logits;
    mvlm_session *session;
    mvlm_error error;
    read_sequence(&s, type);
    const float *steps = record_stage(&s.record, "generated_logits", &n_logits);
    assert_int_equal(mvlm_session_open(s.model, &one_thread, &session, &error), MVLM_OK);
    for (size_t n = s.n_prompt; n < s.n; n++) {
        char text[256];
        struct record record = {0};
        size_t n_bytes, n_ids;
        assert_int_equal(
            mvlm_detokenize(s.model, s.ids, n, text, sizeof text - 1, &n_bytes, &error), MVLM_OK);
        text[n_bytes] = 0;
        const mvlm_turn turn = {.question = text};
        const mvlm_question question = {.turns = &turn,
                                        .n_turns = 1,
                                        .until = MVLM_TO_LOGITS,
                                        .trace = record_add,
                                        .trace_user = &record};
        assert_int_equal(mvlm_begin(session, &question, &error), MVLM_OK);
        const int32_t *ids = mvlm_session_prompt_ids(session, &n_ids);
        if (n_ids == n &&
            memcmp(ids, s.ids, n * sizeof *ids) == 0) { /* the text may be cut into other pieces */
            const float *logits = record_stage(&record, "logits", &n_logits);
            assert_memory_equal(logits + (n - 1) * s.vocab, steps + (n - s.n_prompt) * s.vocab,
                                s.vocab * sizeof *steps);
            n_compared++;
        }
        record_free(&record);
    }
    assert_true(n_compared >= 4);
    mvlm_session_close(session);
    close_sequence(&s);
}

static void prefill_equals_steps(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_TYPES; i++)
        prefill_equals_steps_of(types[i]);
}

/* Sequences longer than a chunk of 512 rows: a row's numbers do not depend on where the chunks are
 * cut. */
static void chunks_change_nothing_of(const char *type)
{
    static struct sequence s;
    static float whole[MOST_IDS], part[MOST_IDS];
    static const size_t lengths[] = {512, 513};
    read_sequence(&s, type);
    for (size_t i = s.n; i < MOST_IDS; i++)
        s.ids[i] = (int32_t)(3 + i * 7919 % (s.vocab - 3));
    score(&s, s.ids, MOST_IDS, 1, whole);
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        score(&s, s.ids, lengths[i], 1, part);
        assert_memory_equal(part, whole, (lengths[i] - 1) * sizeof *part);
    }
    close_sequence(&s);
}

static void chunks_change_nothing(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_TYPES; i++)
        chunks_change_nothing_of(types[i]);
}

/* An answer from a prompt read in one go ends as one that was traced, with sampling that any
 * changed bit would show. */
static void tracing_changes_nothing(void **state)
{
    (void)state;
    struct conversation c;
    struct record record = {0};
    static struct reply plain, traced;
    mvlm_session *session;
    mvlm_error error;
    mvlm_model *model = conversation_model(test_folder, "v1", "f32", NULL);
    conversation_open(&c, "v1");
    c.question.sampling = (mvlm_sampling){.temperature = 3, .seed = 5};
    c.question.max_tokens = 60;
    assert_int_equal(mvlm_session_open(model, &one_thread, &session, &error), MVLM_OK);
    assert_int_equal(mvlm_ask(session, &c.question, reply_add, &plain, &error), MVLM_OK);
    c.question.trace = record_add;
    c.question.trace_user = &record;
    assert_int_equal(mvlm_ask(session, &c.question, reply_add, &traced, &error), MVLM_OK);
    assert_string_equal(plain.text, traced.text);
    record_free(&record);
    mvlm_session_close(session);
    conversation_close(&c);
    mvlm_model_close(model);
}

static void score_at_its_ends(void **state)
{
    (void)state;
    static struct sequence s;
    float loss = 7;
    mvlm_session *session;
    mvlm_error error;
    read_sequence(&s, "f32");
    const int32_t too_high[] = {1, (int32_t)s.vocab}, negative[] = {MVLM_IMAGE_ID, 1};
    assert_int_equal(mvlm_session_open(s.model, &one_thread, &session, &error), MVLM_OK);
    assert_int_equal(mvlm_score(session, s.ids, 0, &loss, &error), MVLM_OK);
    assert_int_equal(mvlm_score(session, s.ids, 1, &loss, &error), MVLM_OK);
    assert_true(loss == 7); /* nothing to say of one id */
    assert_int_equal(mvlm_score(session, too_high, 2, &loss, &error), MVLM_USAGE);
    assert_non_null(strstr(error.message, "at 1 is beyond the vocabulary"));
    assert_int_equal(mvlm_score(session, negative, 2, &loss, &error), MVLM_USAGE);
    mvlm_session_close(session);
    assert_int_equal(mvlm_session_open(s.model, &(mvlm_session_options){.n_threads = 1, .n_ctx = 3},
                                       &session, &error),
                     MVLM_OK);
    float losses[3];
    assert_int_equal(mvlm_score(session, s.ids, 3, losses, &error), MVLM_OK);
    assert_int_equal(mvlm_score(session, s.ids, 4, losses, &error), MVLM_USAGE);
    mvlm_session_close(session);
    close_sequence(&s);
}

static int stage_number(const char *stage)
{
    static const char *const stages[] = {"",          "pixels", "vision",
                                         "projector", "logits", "generated_logits"};
    int i = 0;
    while (strcmp(stages[i], stage) != 0)
        i++;
    return i;
}

/* `until` computes up to that stage, the same values, and no further. */
static void until_stops_there(void **state)
{
    (void)state;
    struct conversation c;
    struct record all = {0}, some = {0};
    mvlm_session *session;
    mvlm_error error;
    mvlm_model *model = conversation_model(test_folder, "two-images", "f32", NULL);
    conversation_open(&c, "two-images");
    c.question.trace = record_add;
    c.question.trace_user = &all;
    assert_int_equal(mvlm_session_open(model, &one_thread, &session, &error), MVLM_OK);
    assert_int_equal(mvlm_ask(session, &c.question, NULL, NULL, &error), MVLM_OK);
    c.question.trace_user = &some;
    for (int until = MVLM_TO_PIXELS; until <= MVLM_TO_LOGITS; until++) {
        c.question.until = (mvlm_stage)until;
        record_free(&some);
        assert_int_equal(mvlm_ask(session, &c.question, NULL, NULL, &error), MVLM_OK);
        size_t n = 0;
        for (size_t i = 0; i < all.n_calls; i++) {
            if (stage_number(all.calls[i].stage) > until)
                continue;
            assert_true(n < some.n_calls);
            assert_string_equal(some.calls[n].stage, all.calls[i].stage);
            assert_int_equal(some.calls[n].n, all.calls[i].n);
            assert_memory_equal(some.values + some.calls[n].at, all.values + all.calls[i].at,
                                all.calls[i].n * sizeof *all.values);
            n++;
        }
        assert_int_equal(n, some.n_calls);
    }
    record_free(&all);
    record_free(&some);
    mvlm_session_close(session);
    conversation_close(&c);
    mvlm_model_close(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threads_change_nothing),
        cmocka_unit_test(rungs_change_nothing),
        cmocka_unit_test(context_size_changes_nothing),
        cmocka_unit_test(halves_differ_little),
        cmocka_unit_test(score_follows_from_logits),
        cmocka_unit_test(prefill_equals_steps),
        cmocka_unit_test(chunks_change_nothing),
        cmocka_unit_test(tracing_changes_nothing),
        cmocka_unit_test(score_at_its_ends),
        cmocka_unit_test(until_stops_there),
    };
    return cmocka_run_group_tests_name("api numbers", tests, open_test_folder, close_test_folder);
}
