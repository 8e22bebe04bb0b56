/* Several answers from one session: together as alone, byte for byte; and a cache that is kept. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "conversation.h"
#include "mobilevlm.h"

enum { TEXT, TWO_PICTURES, N_CASES, N_QUESTIONS = 5, MOST_TEXT = 4096 };
static const char *const names[] = {"text", "two-images"};
static struct conversations all;
static mvlm_model *quantized[2 * N_CASES]; /* of each case q8, q4 */

static int open_cases(void **state)
{
    (void)state;
    conversations_open(&all, names, N_CASES);
    for (size_t i = 0; i < 2 * N_CASES; i++)
        quantized[i] = conversation_model(all.folder, names[i / 2], i % 2 ? "q4" : "q8", NULL);
    return 0;
}

static int close_cases(void **state)
{
    (void)state;
    for (size_t i = 0; i < 2 * N_CASES; i++)
        mvlm_model_close(quantized[i]);
    conversations_close(&all);
    return 0;
}

static void expect_ok(mvlm_status status, const mvlm_error *error)
{
    if (status != MVLM_OK)
        fail_msg("%s", error->message);
}

/* An answer as it grows. */
struct said {
    char text[MOST_TEXT];
    size_t n;
    mvlm_finish finish;
};

static void add_piece(struct said *said, const mvlm_piece *piece)
{
    assert_true(said->n + piece->n_bytes < MOST_TEXT);
    memcpy(said->text + said->n, piece->text, piece->n_bytes);
    said->n += piece->n_bytes;
    said->finish = piece->finish;
}

static void finish_answer(mvlm_session *session, struct said *said)
{
    mvlm_piece piece;
    mvlm_error error;
    *said = (struct said){.finish = MVLM_UNFINISHED};
    while (said->finish == MVLM_UNFINISHED) {
        expect_ok(mvlm_next(session, &piece, &error), &error);
        add_piece(said, &piece);
    }
}

static void expect_same(const struct said *a, const struct said *b)
{
    assert_int_equal(a->n, b->n);
    assert_memory_equal(a->text, b->text, a->n);
    assert_int_equal(a->finish, b->finish);
}

/* Question i of a case: other texts, lengths and ways of sampling. */
static mvlm_question question_of(size_t c, size_t i, mvlm_turn *turn)
{
    static const char *const texts[N_QUESTIONS] = {"What is this?", "What is that over there?",
                                                   "How",
                                                   "What is this, and what is that, and why?", "?"};
    mvlm_question question = all.cases[c].question;
    *turn = (mvlm_turn){.question = texts[i]};
    question.turns = turn;
    question.n_turns = 1;
    question.max_tokens = 6 + 5 * i;
    question.sampling = (mvlm_sampling){.temperature = i % 2 ? 0.9f : 0, .seed = i};
    return question;
}

/* The answer of a session that does nothing else. */
static void answer_alone(mvlm_model *model, size_t c, size_t i, const mvlm_session_options *options,
                         struct said *said)
{
    mvlm_session_options alone = *options;
    mvlm_turn turn;
    mvlm_error error;
    alone.n_sequences = 0;
    alone.keep_cache = false;
    const mvlm_question question = question_of(c, i, &turn);
    mvlm_session *session = conversation_session(model, &alone);
    expect_ok(mvlm_begin(session, &question, &error), &error);
    finish_answer(session, said);
    mvlm_session_close(session);
}

/* Sequences answer the questions, each at least once and so many that all have one: as one ends, the next question takes
 * its place. */
static void check_together(mvlm_model *model, size_t c, const mvlm_session_options *options)
{
    enum { MOST = 64 };
    const size_t n = options->n_sequences, n_items = n > N_QUESTIONS ? n : N_QUESTIONS;
    static struct said said[MOST], alone[N_QUESTIONS];
    mvlm_turn turns[MOST];
    mvlm_piece pieces[MOST];
    mvlm_error error;
    size_t asked = 0, answered = 0, at[MOST];
    mvlm_session *session = conversation_session(model, options);
    memset(said, 0, sizeof said);
    for (size_t k = 0; k < n; k++)
        at[k] = n_items;
    while (answered < n_items) {
        for (size_t k = 0; k < n; k++)
            if (at[k] == n_items && asked < n_items) {
                const mvlm_question question = question_of(c, asked % N_QUESTIONS, &turns[asked]);
                expect_ok(mvlm_sequence_begin(session, k, &question, &error), &error);
                at[k] = asked++;
            }
        expect_ok(mvlm_step(session, pieces, &error), &error);
        for (size_t k = 0; k < n; k++) {
            if (at[k] == n_items) {
                assert_true(pieces[k].id == -1 && pieces[k].n_bytes == 0);
                continue;
            }
            add_piece(&said[at[k]], &pieces[k]);
            if (pieces[k].finish != MVLM_UNFINISHED) {
                at[k] = n_items;
                answered++;
            }
        }
    }
    mvlm_session_close(session);
    for (size_t i = 0; i < N_QUESTIONS; i++)
        answer_alone(model, c, i, options, &alone[i]);
    for (size_t i = 0; i < n_items; i++)
        expect_same(&said[i], &alone[i % N_QUESTIONS]);
}

static void together_as_alone(void **state)
{
    static const mvlm_kv_type types[] = {MVLM_KV_F32, MVLM_KV_F16, MVLM_KV_Q8};
    (void)state;
    for (size_t c = 0; c < N_CASES; c++)
        for (size_t i = 0; i < 6; i++) {
            const mvlm_session_options options = {
                .n_threads = i % 2 ? 3 : 1, .kv_type = types[i / 2], .n_sequences = 2};
            check_together(all.models[c], c, &options);
        }
}

static void together_as_alone_quantized(void **state)
{
    (void)state;
    for (size_t i = 0; i < 2 * N_CASES; i++)
        for (int n_threads = 1; n_threads <= 3; n_threads++) {
            const mvlm_session_options options = {.n_threads = n_threads, .n_sequences = 2};
            check_together(quantized[i], i / 2, &options);
        }
}

/* More of them than the context has positions. */
static void many_together(void **state)
{
    const mvlm_session_options options = {.n_threads = 2, .n_sequences = 64, .n_ctx = 48};
    (void)state;
    check_together(all.models[TEXT], TEXT, &options);
    for (size_t i = 0; i < 2; i++) /* q8 and q4 of the first case */
        check_together(quantized[i], TEXT, &options);
}

/* A question again, and one that begins alike: what the cache holds is not read again, and the
 * answer is the same. */
static void a_kept_cache_changes_nothing(void **state)
{
    static const size_t order[] = {0, 0, 3, 0, 1, 1, 4, 2};
    (void)state;
    for (size_t c = 0; c < N_CASES; c++)
        for (int type = MVLM_KV_F32; type <= MVLM_KV_Q8; type++) {
            const mvlm_session_options options = {
                .n_threads = 2, .kv_type = (mvlm_kv_type)type, .keep_cache = true};
            mvlm_session *session = conversation_session(all.models[c], &options);
            for (size_t i = 0; i < sizeof order / sizeof *order; i++) {
                struct said said, alone;
                mvlm_turn turn;
                mvlm_error error;
                mvlm_counters counters;
                const mvlm_question question = question_of(c, order[i], &turn);
                expect_ok(mvlm_begin(session, &question, &error), &error);
                mvlm_session_counters(session, &counters);
                const size_t rows = counters.prompt_tokens + counters.image_tokens;
                assert_true(counters.reused_rows < rows);
                if (i == 0)
                    assert_int_equal(counters.reused_rows, 0);
                else if (order[i] == order[i - 1])
                    assert_int_equal(counters.reused_rows, rows - 1);
                else
                    assert_true(counters.reused_rows > counters.image_tokens);
                finish_answer(session, &said);
                answer_alone(all.models[c], c, order[i], &options, &alone);
                expect_same(&said, &alone);
            }
            mvlm_session_close(session);
        }
}

/* Pictures that are opened once: the same answer, the second time without encoding. */
static void an_image_is_encoded_once(void **state)
{
    const mvlm_session_options options = {.n_threads = 1};
    mvlm_image *images[4];
    mvlm_turn turn;
    mvlm_error error;
    struct said said, alone;
    (void)state;
    mvlm_question question = question_of(TWO_PICTURES, 0, &turn);
    assert_true(question.n_pictures <= 4);
    for (size_t i = 0; i < question.n_pictures; i++)
        expect_ok(
            mvlm_image_open(all.models[TWO_PICTURES], &question.pictures[i], 0, &images[i], &error),
            &error);
    assert_int_equal(strlen(mvlm_image_digest(images[0])), 32);
    assert_string_not_equal(mvlm_image_digest(images[0]), mvlm_image_digest(images[1]));
    question.images = images;
    mvlm_session *session = conversation_session(all.models[TWO_PICTURES], &options);
    answer_alone(all.models[TWO_PICTURES], TWO_PICTURES, 0, &options, &alone);
    for (int time = 0; time < 2; time++) {
        mvlm_counters counters;
        expect_ok(mvlm_begin(session, &question, &error), &error);
        mvlm_session_counters(session, &counters);
        assert_true(time == 0 ? counters.encode_ms > 0 : counters.encode_ms == 0);
        finish_answer(session, &said);
        expect_same(&said, &alone);
    }
    mvlm_session_close(session);
    for (size_t i = 0; i < question.n_pictures; i++)
        mvlm_image_close(images[i]);
}

static void wrong_calls_are_refused(void **state)
{
    const mvlm_session_options many = {.n_sequences = 65}, two = {.n_sequences = 2};
    mvlm_session *session;
    mvlm_image *image;
    mvlm_turn turn;
    mvlm_piece pieces[2];
    mvlm_error error;
    (void)state;
    assert_int_equal(mvlm_session_open(all.models[TEXT], &many, &session, &error), MVLM_USAGE);
    session = conversation_session(all.models[TEXT], &two);
    mvlm_question question = question_of(TEXT, 0, &turn);
    assert_int_equal(mvlm_sequence_begin(session, 2, &question, &error), MVLM_USAGE);
    expect_ok(mvlm_sequence_begin(session, 1, &question, &error), &error);
    mvlm_sequence_end(session, 1);
    expect_ok(mvlm_step(session, pieces, &error), &error);
    assert_int_equal(pieces[1].id, -1);
    mvlm_session_close(session);
    const mvlm_picture *file = &all.cases[TWO_PICTURES].question.pictures[0];
    assert_int_equal(mvlm_image_open(all.models[TEXT], file, 0, &image, &error), MVLM_USAGE);
    assert_null(image);
    assert_int_equal(mvlm_image_open(all.models[TWO_PICTURES], file, 1, &image, &error),
                     MVLM_BAD_PICTURE);
    assert_null(image);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(together_as_alone),
        cmocka_unit_test(together_as_alone_quantized),
        cmocka_unit_test(many_together),
        cmocka_unit_test(a_kept_cache_changes_nothing),
        cmocka_unit_test(an_image_is_encoded_once),
        cmocka_unit_test(wrong_calls_are_refused),
    };
    return cmocka_run_group_tests_name("sequences", tests, open_cases, close_cases);
}
