/* The public API as a program uses it: asking, stepping, stopping, several sessions, questions in a
 * row, errors. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>

#include "conversation.h"
#include "mobilevlm.h"
#include "program.h"

/* Without pictures, with one, with two in two turns. */
static const char *const names[] = {"text", "v1", "two-images"};
enum { TEXT, ONE_PICTURE, TWO_PICTURES, N_CASES };

static struct conversations all;
static struct conversation *const cases = all.cases;
static mvlm_model **const models = all.models;

static int open_cases(void **state)
{
    (void)state;
    conversations_open(&all, names, N_CASES);
    return 0;
}

static int close_cases(void **state)
{
    (void)state;
    conversations_close(&all);
    return 0;
}

static mvlm_session *open_session(mvlm_model *model, int n_threads)
{
    const mvlm_session_options options = {.n_threads = n_threads};
    return conversation_session(model, &options);
}

static void ask(mvlm_session *session, const mvlm_question *question, struct reply *reply)
{
    mvlm_error error;
    reply->n = 0;
    reply->n_calls = 0;
    reply->text[0] = 0;
    if (mvlm_ask(session, question, reply_add, reply, &error) != MVLM_OK)
        fail_msg("%s", error.message);
}

/* The call failed so, and says why. */
static void assert_failed(mvlm_status got, mvlm_status expected, const mvlm_error *error,
                          const char *part)
{
    assert_int_equal(got, expected);
    assert_int_equal(error->status, expected);
    if (!strstr(error->message, part) || strchr(error->message, '\n'))
        fail_msg("\"%s\" does not say \"%s\" in one line", error->message, part);
}

/* ---- Answers ---------------------------------------------------------------------------- */

static void ask_gives_the_golden_text(void **state)
{
    (void)state;
    static struct reply reply;
    for (size_t i = 0; i < N_CASES; i++) {
        mvlm_session *session = open_session(models[i], 0);
        ask(session, &cases[i].question, &reply);
        assert_string_equal(reply.text, cases[i].text);
        assert_int_equal(mvlm_ask(session, &cases[i].question, NULL, NULL, NULL), MVLM_OK);
        mvlm_session_close(session);
    }
}

/* begin and next give ask's text in pieces, and the golden ids; the last piece says why it is the
 * last. */
static void pieces_add_up(void **state)
{
    (void)state;
    for (size_t c = 0; c < N_CASES; c++) {
        static struct reply reply;
        const json_t *ids = json_object_get(cases[c].expected, "generated_ids");
        const bool ended = json_is_true(json_object_get(cases[c].expected, "ended"));
        mvlm_session *session = open_session(models[c], 1);
        mvlm_piece piece = {.finish = MVLM_UNFINISHED};
        mvlm_error error;
        memset(&reply, 0, sizeof reply);
        assert_int_equal(mvlm_begin(session, &cases[c].question, &error), MVLM_OK);
        for (size_t i = 0; piece.finish == MVLM_UNFINISHED; i++) {
            assert_int_equal(mvlm_next(session, &piece, &error), MVLM_OK);
            if (piece.finish == MVLM_STOP)
                assert_int_equal(i, json_array_size(ids));
            else
                assert_int_equal(piece.id, json_integer_value(json_array_get(ids, i)));
            if (piece.n_bytes)
                reply_add(&reply, piece.text, piece.n_bytes);
        }
        assert_int_equal(piece.finish, ended ? MVLM_STOP : MVLM_LENGTH);
        assert_string_equal(reply.text, cases[c].text);
        mvlm_counters counters;
        mvlm_session_counters(session, &counters);
        assert_int_equal(counters.generated_tokens, json_array_size(ids));
        mvlm_session_close(session);
    }
}

static void counters_tell_the_question(void **state)
{
    (void)state;
    for (size_t c = 0; c < N_CASES; c++) {
        const json_t *rows = json_object_get(cases[c].expected, "image_tokens");
        const json_t *expected = json_object_get(cases[c].expected, "input_ids");
        mvlm_session *session = open_session(models[c], 2);
        mvlm_counters counters;
        mvlm_error error;
        size_t n_ids, n_rows = 0;
        assert_int_equal(mvlm_begin(session, &cases[c].question, &error), MVLM_OK);
        mvlm_session_counters(session, &counters);
        for (size_t i = 0; i < json_array_size(rows); i++)
            n_rows += (size_t)json_integer_value(json_array_get(rows, i));
        assert_int_equal(counters.image_tokens, n_rows);
        const int32_t *ids = mvlm_session_prompt_ids(session, &n_ids);
        assert_int_equal(n_ids, json_array_size(expected));
        for (size_t i = 0; i < n_ids; i++)
            assert_int_equal(ids[i], json_integer_value(json_array_get(expected, i)));
        assert_int_equal(counters.prompt_tokens, n_ids - json_array_size(rows));
        assert_int_equal(counters.n_threads, 2);
        assert_int_equal(counters.generated_tokens, 0);
        mvlm_session_close(session);
    }
}

static void next_needs_an_answer_under_way(void **state)
{
    (void)state;
    mvlm_session *session = open_session(models[TEXT], 1);
    mvlm_question question = cases[TEXT].question;
    mvlm_piece piece;
    mvlm_error error;
    assert_failed(mvlm_next(session, &piece, &error), MVLM_USAGE, &error, "no answer");
    assert_int_equal(piece.id, -1);
    assert_int_equal(piece.n_bytes, 0);
    assert_int_equal(mvlm_ask(session, &question, NULL, NULL, &error), MVLM_OK);
    assert_failed(mvlm_next(session, &piece, &error), MVLM_USAGE, &error, "no answer");
    assert_int_equal(mvlm_next(session, &piece, NULL), MVLM_USAGE);
    question.until = MVLM_TO_LOGITS;
    assert_int_equal(mvlm_begin(session, &question, &error), MVLM_OK);
    assert_failed(mvlm_next(session, &piece, &error), MVLM_USAGE, &error, "no answer");
    question.until = MVLM_TO_END;
    question.n_turns = 0; /* a question that fails ends the one before */
    assert_int_equal(mvlm_begin(session, &cases[TEXT].question, &error), MVLM_OK);
    assert_int_equal(mvlm_begin(session, &question, &error), MVLM_USAGE);
    assert_failed(mvlm_next(session, &piece, &error), MVLM_USAGE, &error, "no answer");
    mvlm_session_close(session);
}

static void max_tokens_and_context_end_it(void **state)
{
    (void)state;
    mvlm_question question = cases[ONE_PICTURE].question;
    mvlm_counters counters;
    mvlm_error error;
    for (size_t tokens = 1; tokens < 5; tokens++) {
        mvlm_session *session = open_session(models[ONE_PICTURE], 1);
        question.max_tokens = tokens;
        assert_int_equal(mvlm_ask(session, &question, NULL, NULL, &error), MVLM_OK);
        mvlm_session_counters(session, &counters);
        assert_int_equal(counters.generated_tokens, tokens);
        mvlm_session_close(session);
    }
    const size_t rows = counters.prompt_tokens + counters.image_tokens;
    question.max_tokens = 20;
    for (size_t room = 0; room < 4; room++) { /* the last id sampled needs no place in the cache */
        const mvlm_session_options options = {.n_ctx = rows + room, .n_threads = 1};
        mvlm_session *session;
        assert_int_equal(mvlm_session_open(models[ONE_PICTURE], &options, &session, &error),
                         MVLM_OK);
        assert_int_equal(mvlm_ask(session, &question, NULL, NULL, &error), MVLM_OK);
        mvlm_session_counters(session, &counters);
        assert_int_equal(counters.generated_tokens, room + 1);
        assert_int_equal(counters.n_ctx, rows + room);
        mvlm_session_close(session);
    }
}

static void stop_texts_end_it(void **state)
{
    (void)state;
    const char *const stops[] = {"nowhere in it", "e 4", "43"}, *const wrong[] = {"fine", "\xa9"};
    static struct reply reply;
    mvlm_question question = cases[TEXT].question; /* "There are 43." */
    mvlm_session *session = open_session(models[TEXT], 1);
    mvlm_piece piece = {.finish = MVLM_UNFINISHED};
    mvlm_error error;
    question.stops = stops;
    question.n_stops = 3;
    assert_non_null(strstr(cases[TEXT].text, stops[1]));
    ask(session, &question, &reply);
    const size_t expected = (size_t)(strstr(cases[TEXT].text, stops[1]) - cases[TEXT].text);
    assert_int_equal(reply.n, expected);
    assert_memory_equal(reply.text, cases[TEXT].text, expected);
    assert_int_equal(mvlm_begin(session, &question, &error), MVLM_OK);
    while (piece.finish == MVLM_UNFINISHED)
        assert_int_equal(mvlm_next(session, &piece, &error), MVLM_OK);
    assert_int_equal(piece.finish, MVLM_STOP_TEXT);
    question.stops = wrong;
    question.n_stops = 2;
    assert_failed(mvlm_begin(session, &question, &error), MVLM_USAGE, &error, "stop text 2");
    mvlm_session_close(session);
}

/* ---- Several sessions, several questions ------------------------------------------------ */

struct worker {
    mvlm_model *model;
    const mvlm_question *question;
    int n_threads, n_right;
    const char *expected;
};

enum { ROUNDS = 3 };

/* Asserts belong to the main thread, so it only counts. */
static void *work(void *argument)
{
    struct worker *worker = argument;
    const mvlm_session_options options = {.n_threads = worker->n_threads};
    mvlm_session *session;
    struct reply *reply = calloc(1, sizeof *reply);
    if (reply && mvlm_session_open(worker->model, &options, &session, NULL) == MVLM_OK) {
        for (int i = 0; i < ROUNDS; i++) {
            reply->n = 0;
            if (mvlm_ask(session, worker->question, reply_add, reply, NULL) == MVLM_OK)
                worker->n_right += strcmp(reply->text, worker->expected) == 0;
        }
        mvlm_session_close(session);
    }
    free(reply);
    return NULL;
}

static void sessions_at_once(void **state)
{
    (void)state;
    for (size_t c = 0; c < N_CASES; c++)
        for (int n_threads = 1; n_threads <= 2; n_threads++) {
            struct worker workers[2];
            pthread_t threads[2];
            for (size_t i = 0; i < 2; i++) {
                workers[i] =
                    (struct worker){models[c], &cases[c].question, n_threads, 0, cases[c].text};
                assert_int_equal(pthread_create(&threads[i], NULL, work, &workers[i]), 0);
            }
            for (size_t i = 0; i < 2; i++) {
                pthread_join(threads[i], NULL);
                assert_int_equal(workers[i].n_right, ROUNDS);
            }
        }
}

/* Questions small and large, in every order of two: what one left behind must not show in the next.
 */
static void questions_in_a_row(void **state)
{
    (void)state;
    static struct reply alone[4], reply;
    const mvlm_turn short_turn = {.question = "Hi"};
    const mvlm_turn long_turn = {
        .question = "A much longer question, with more words. How many are there, and why?"};
    const mvlm_sampling hot = {.temperature = 2, .seed = 11, .repeat_penalty = 1.3f};
    const mvlm_question questions[4] = {
        cases[TWO_PICTURES].question,
        {.turns = &short_turn, .n_turns = 1, .max_tokens = 3},
        {.turns = &long_turn, .n_turns = 1, .max_tokens = 100, .sampling = hot},
        {.turns = &long_turn,
         .n_turns = 1,
         .max_tokens = 9,
         .pictures = cases[TWO_PICTURES].pictures,
         .n_pictures = 1},
    };
    for (size_t i = 0; i < 4; i++) {
        mvlm_session *session = open_session(models[TWO_PICTURES], 1);
        ask(session, &questions[i], &alone[i]);
        mvlm_session_close(session);
    }
    mvlm_session *session = open_session(models[TWO_PICTURES], 2);
    for (size_t order = 0; order < 16; order++)
        for (size_t half = 0; half < 2; half++) {
            const size_t i = half ? order / 4 : order % 4;
            float losses[2];
            ask(session, &questions[i], &reply);
            assert_string_equal(reply.text, alone[i].text);
            if (order % 3 == 0)
                assert_int_equal(mvlm_score(session, (const int32_t[]){1, 300, 7}, 3, losses, NULL),
                                 MVLM_OK);
        }
    mvlm_session_close(session);
}

/* A session computes with the threads that there were when it was opened, whatever cores the process may use later. */
static void cores_come_and_go(void **state)
{
    (void)state;
    static struct reply reply;
    cpu_set_t all_cores, one_core;
    if (sched_getaffinity(0, sizeof all_cores, &all_cores) || CPU_COUNT(&all_cores) < 2)
        skip(); /* nothing comes or goes */
    CPU_ZERO(&one_core);
    for (size_t cpu = 0; cpu < CPU_SETSIZE && !CPU_COUNT(&one_core); cpu++)
        if (CPU_ISSET(cpu, &all_cores))
            CPU_SET(cpu, &one_core);
    for (int more = 0; more <= 1; more++) {
        mvlm_counters counters;
        assert_int_equal(sched_setaffinity(0, sizeof one_core, more ? &one_core : &all_cores), 0);
        mvlm_session *session = open_session(models[TEXT], 0);
        assert_int_equal(sched_setaffinity(0, sizeof one_core, more ? &all_cores : &one_core), 0);
        ask(session, &cases[TEXT].question, &reply);
        assert_string_equal(reply.text, cases[TEXT].text);
        mvlm_session_counters(session, &counters);
        if (more)
            assert_int_equal(counters.n_threads, 1);
        else
            assert_true(counters.n_threads > 1);
        mvlm_session_close(session);
    }
    sched_setaffinity(0, sizeof all_cores, &all_cores);
}

/* ---- Stopping --------------------------------------------------------------------------- */

/* Another thread cancels while the progress callback waits for it. */
struct rendezvous {
    mvlm_session *session;
    sem_t reached, cancelled;
    int at_call, n_calls;
};

static int wait_for_cancel(void *user, const char *stage, double share)
{
    struct rendezvous *r = user;
    (void)stage;
    assert_true(share >= 0 && share <= 1);
    if (++r->n_calls == r->at_call) {
        sem_post(&r->reached);
        sem_wait(&r->cancelled);
    }
    return 0;
}

static void *cancel(void *argument)
{
    struct rendezvous *r = argument;
    sem_wait(&r->reached);
    mvlm_session_cancel(r->session);
    sem_post(&r->cancelled);
    return NULL;
}

static void cancel_from_another_thread(void **state)
{
    (void)state;
    static struct reply reply;
    mvlm_session *session = open_session(models[ONE_PICTURE], 2);
    for (int at_call = 1; at_call <= 5;
         at_call += 2) { /* in the picture's encoding and in the prompt's reading */
        struct rendezvous r = {.session = session, .at_call = at_call};
        mvlm_question question = cases[ONE_PICTURE].question;
        mvlm_error error;
        pthread_t thread;
        question.progress = wait_for_cancel;
        question.progress_user = &r;
        sem_init(&r.reached, 0, 0);
        sem_init(&r.cancelled, 0, 0);
        assert_int_equal(pthread_create(&thread, NULL, cancel, &r), 0);
        assert_failed(mvlm_ask(session, &question, NULL, NULL, &error), MVLM_CANCELLED, &error,
                      "stopped");
        pthread_join(thread, NULL);
        assert_true(r.n_calls <= at_call + 1);
        ask(session, &cases[ONE_PICTURE].question, &reply); /* the session goes on */
        assert_string_equal(reply.text, cases[ONE_PICTURE].text);
        sem_destroy(&r.reached);
        sem_destroy(&r.cancelled);
    }
    mvlm_session_close(session);
}

static void cancel_between_pieces(void **state)
{
    (void)state;
    static struct reply reply;
    mvlm_session *session = open_session(models[TEXT], 1);
    mvlm_piece piece;
    mvlm_error error;
    assert_int_equal(mvlm_begin(session, &cases[TEXT].question, &error), MVLM_OK);
    assert_int_equal(mvlm_next(session, &piece, &error), MVLM_OK);
    mvlm_session_cancel(session);
    assert_failed(mvlm_next(session, &piece, &error), MVLM_CANCELLED, &error, "stopped");
    assert_int_equal(mvlm_next(session, &piece, &error), MVLM_USAGE);
    ask(session, &cases[TEXT].question, &reply);
    assert_string_equal(reply.text, cases[TEXT].text);
    mvlm_session_close(session);
}

static int stop_progress(void *user, const char *stage, double share)
{
    int *left = user;
    (void)stage;
    (void)share;
    return --*left == 0;
}

struct trace_stop {
    const char *stage;
    int n_calls;
};

static int stop_trace(void *user, const char *stage, size_t picture, const float *values,
                      const size_t *shape, int n_dims)
{
    struct trace_stop *stop = user;
    (void)picture;
    assert_true(values && shape && n_dims >= 2);
    stop->n_calls++;
    return strcmp(stage, stop->stage) == 0;
}

static void callbacks_stop(void **state)
{
    (void)state;
    static const char *const stages[] = {"pixels", "vision", "projector", "logits",
                                         "generated_logits"};
    static struct reply reply;
    mvlm_session *session = open_session(models[ONE_PICTURE], 1);
    mvlm_question question = cases[ONE_PICTURE].question;
    mvlm_error error;
    reply = (struct reply){.stop_at = 2};
    assert_failed(mvlm_ask(session, &question, reply_add, &reply, &error), MVLM_CANCELLED, &error,
                  "stopped");
    assert_int_equal(reply.n_calls, 2);
    assert_memory_equal(reply.text, cases[ONE_PICTURE].text, reply.n);
    for (int at = 1; at < 4; at++) {
        int left = at;
        float loss;
        question.progress = stop_progress;
        question.progress_user = &left;
        assert_failed(mvlm_ask(session, &question, NULL, NULL, &error), MVLM_CANCELLED, &error,
                      "stopped");
        assert_int_equal(left, 0);
        assert_int_equal(mvlm_score(session, (const int32_t[]){1, 2}, 2, &loss, &error), MVLM_OK);
        assert_int_equal(left, 0); /* a question's callback is not called after it */
    }
    question.progress = NULL;
    for (size_t i = 0; i < sizeof stages / sizeof *stages; i++) {
        struct trace_stop stop = {stages[i], 0};
        question.trace = stop_trace;
        question.trace_user = &stop;
        assert_failed(mvlm_ask(session, &question, NULL, NULL, &error), MVLM_CANCELLED, &error,
                      stages[i]);
        assert_true(stop.n_calls > (int)i);
    }
    reply = (struct reply){0};
    ask(session, &cases[ONE_PICTURE].question, &reply);
    assert_string_equal(reply.text, cases[ONE_PICTURE].text);
    mvlm_session_close(session);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ask_gives_the_golden_text),
        cmocka_unit_test(pieces_add_up),
        cmocka_unit_test(counters_tell_the_question),
        cmocka_unit_test(next_needs_an_answer_under_way),
        cmocka_unit_test(max_tokens_and_context_end_it),
        cmocka_unit_test(stop_texts_end_it),
        cmocka_unit_test(sessions_at_once),
        cmocka_unit_test(questions_in_a_row),
        cmocka_unit_test(cores_come_and_go),
        cmocka_unit_test(cancel_from_another_thread),
        cmocka_unit_test(cancel_between_pieces),
        cmocka_unit_test(callbacks_stop),
    };
    return cmocka_run_group_tests_name("api", tests, open_cases, close_cases);
}
