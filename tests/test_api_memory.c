/* Memory: no allocation between mvlm_begin and the answer's end, a plan that is what is allocated,
 * a budget that is kept, and failed allocations that leave a session usable. This program's own
 * malloc counts, and fails on demand. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "conversation.h"
#include "golden.h"
#include "mobilevlm.h"
#include "program.h"

/* Sanitizers bring their own malloc, which must not be replaced. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define OWN_MALLOC 0
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) ||                         \
    __has_feature(memory_sanitizer)
#define OWN_MALLOC 0
#endif
#endif
#if !defined(OWN_MALLOC) && defined(__GLIBC__)
#define OWN_MALLOC 1
#elif !defined(OWN_MALLOC)
#define OWN_MALLOC 0
#endif

static atomic_size_t n_allocations, aligned_bytes;
static atomic_long failing_in; /* the allocation that fails, counted down; 0: none */

#if OWN_MALLOC
/* glibc's own names of what is replaced here */
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *block, size_t size);
void *__libc_memalign(size_t alignment, size_t size);

static bool fails(void)
{
    atomic_fetch_add(&n_allocations, 1);
    if (atomic_load(&failing_in) == 0 || atomic_fetch_sub(&failing_in, 1) != 1)
        return false;
    errno = ENOMEM;
    return true;
}

void *malloc(size_t size)
{
    return fails() ? NULL : __libc_malloc(size);
}

void *calloc(size_t n, size_t size)
{
    return fails() ? NULL : __libc_calloc(n, size);
}

void *realloc(void *block, size_t size)
{
    return fails() ? NULL : __libc_realloc(block, size);
}

void *aligned_alloc(size_t alignment, size_t size)
{
    atomic_fetch_add(&aligned_bytes, size);
    return fails() ? NULL : __libc_memalign(alignment, size);
}

void *memalign(size_t alignment, size_t size);
void *memalign(size_t alignment, size_t size)
{
    return fails() ? NULL : __libc_memalign(alignment, size);
}

int posix_memalign(void **block, size_t alignment, size_t size)
{
    atomic_fetch_add(&aligned_bytes, size);
    *block = fails() ? NULL : __libc_memalign(alignment, size);
    return *block ? 0 : ENOMEM;
}
#endif

static void need_own_malloc(void)
{
    if (!OWN_MALLOC)
        skip();
}

enum { TEXT, TWO_PICTURES, N_CASES };
static const char *const names[] = {"text", "two-images"};
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

/* ---- None a token ----------------------------------------------------------------------- */

static void no_allocation_a_token(void **state)
{
    (void)state;
    static const char *const stops[] = {"never said", "nor this"};
    static const mvlm_sampling samplings[] = {
        {.temperature = 0},
        {.temperature = 1, .top_k = 40, .top_p = 0.95f, .min_p = 0.05f, .repeat_penalty = 1.1f}};
    need_own_malloc();
    for (size_t trial = 0; trial < 8; trial++) {
        const size_t c = trial % N_CASES;
        const mvlm_session_options options = {.n_threads = trial & 2 ? 3 : 1,
                                              .kv_type = trial & 4 ? MVLM_KV_F16 : MVLM_KV_F32};
        mvlm_question question = cases[c].question;
        mvlm_session *session = conversation_session(models[c], &options);
        mvlm_piece piece = {.finish = MVLM_UNFINISHED};
        question.stops = stops;
        question.n_stops = 2;
        question.sampling = samplings[trial / 4];
        assert_int_equal(mvlm_begin(session, &question, NULL), MVLM_OK);
        const size_t before = atomic_load(&n_allocations);
        assert_true(before > 0);
        while (piece.finish == MVLM_UNFINISHED)
            assert_int_equal(mvlm_next(session, &piece, NULL), MVLM_OK);
        assert_int_equal(atomic_load(&n_allocations) - before, 0);
        mvlm_session_close(session);
    }
}

/* ---- The plan --------------------------------------------------------------------------- */

/* The plan for a case's question is what its session then reports and allocates. */
static void check_plan(size_t c, const mvlm_session_options *options, size_t max_tokens)
{
    mvlm_memory plan;
    mvlm_counters counters;
    mvlm_error error;
    mvlm_question question = cases[c].question;
    mvlm_session *session = conversation_session(models[c], options);
    question.max_tokens = max_tokens;
    atomic_store(&aligned_bytes, 0);
    assert_int_equal(mvlm_begin(session, &question, &error), MVLM_OK);
    mvlm_session_counters(session, &counters);
    const size_t allocated = atomic_load(&aligned_bytes);
    const size_t rows = counters.prompt_tokens + counters.image_tokens,
                 before = atomic_load(&n_allocations);
    assert_int_equal(
        mvlm_session_plan(models[c], options, rows, question.n_pictures, max_tokens, &plan, &error),
        MVLM_OK);
    assert_int_equal(atomic_load(&n_allocations), before); /* computed without allocating */
    assert_memory_equal(&plan, &counters.memory, sizeof plan);
    assert_int_equal(plan.total, plan.weights + plan.kv_cache + plan.scratch);
    if (OWN_MALLOC)
        assert_int_equal(allocated, plan.kv_cache + plan.scratch);
    mvlm_model_info info;
    mvlm_model_describe(models[c], &info);
    assert_true(plan.weights > info.n_bytes / 4 && plan.weights <= info.n_bytes);
    mvlm_session_close(session);
}

static void plan_is_what_is_allocated(void **state)
{
    (void)state;
    for (size_t c = 0; c < N_CASES; c++)
        for (size_t trial = 0; trial < 8; trial++) {
            const mvlm_session_options options = {.n_threads = trial & 1 ? 3 : 1,
                                                  .kv_type = trial & 2 ? MVLM_KV_F16 : MVLM_KV_AUTO,
                                                  .n_ctx = trial & 4 ? 999 : 0};
            check_plan(c, &options, trial % 3 * 17);
        }
}

static void plan_grows_with_what_it_holds(void **state)
{
    (void)state;
    const mvlm_session_options one = {.n_threads = 1}, two = {.n_threads = 2},
                               half = {.n_threads = 1, .kv_type = MVLM_KV_F16};
    mvlm_memory small, other;
    assert_int_equal(mvlm_session_plan(models[TWO_PICTURES], &one, 200, 1, 10, &small, NULL),
                     MVLM_OK);
    assert_int_equal(mvlm_session_plan(models[TWO_PICTURES], &two, 200, 1, 10, &other, NULL),
                     MVLM_OK);
    assert_true(other.scratch > small.scratch && other.kv_cache == small.kv_cache);
    assert_int_equal(mvlm_session_plan(models[TWO_PICTURES], &half, 200, 1, 10, &other, NULL),
                     MVLM_OK);
    assert_int_equal(other.kv_cache * 2, small.kv_cache);
    assert_int_equal(mvlm_session_plan(models[TWO_PICTURES], &one, 200, 2, 10, &other, NULL),
                     MVLM_OK);
    assert_true(other.total > small.total);
    assert_int_equal(mvlm_session_plan(models[TWO_PICTURES], &one, 0, 1, 10, &other, NULL),
                     MVLM_OK);
    assert_true(other.kv_cache > small.kv_cache); /* the whole context */
    assert_int_equal(mvlm_session_plan(models[TWO_PICTURES], NULL, 200, 1, 10, &other, NULL),
                     MVLM_OK);
}

static void budget_is_kept(void **state)
{
    (void)state;
    const mvlm_question *question = &cases[TWO_PICTURES].question;
    mvlm_session_options options = {.n_threads = 1};
    mvlm_counters counters;
    mvlm_error error;
    mvlm_session *session = conversation_session(models[TWO_PICTURES], &options);
    assert_int_equal(mvlm_begin(session, question, &error), MVLM_OK);
    mvlm_session_counters(session, &counters);
    mvlm_session_close(session);
    options.max_rss = counters.memory.total - 1;
    session = conversation_session(models[TWO_PICTURES], &options);
    atomic_store(&aligned_bytes, 0);
    assert_int_equal(mvlm_begin(session, question, &error), MVLM_NO_MEMORY);
    assert_int_equal(error.status, MVLM_NO_MEMORY);
    assert_non_null(strstr(error.message, "budget"));
    assert_int_equal(atomic_load(&aligned_bytes), 0); /* refused before */
    mvlm_session_close(session);
    options.max_rss = counters.memory.total;
    session = conversation_session(models[TWO_PICTURES], &options);
    assert_int_equal(mvlm_begin(session, question, &error), MVLM_OK);
    mvlm_session_close(session);
}

/* ---- Failed allocations ----------------------------------------------------------------- */

/* Each allocation of opening and asking fails once: MVLM_NO_MEMORY, nothing half open, and what was
 * open goes on. */
static void open_and_ask_without_memory(void **state)
{
    (void)state;
    static struct reply reply;
    const mvlm_session_options options = {.n_threads = 1};
    bool failed = true;
    need_own_malloc();
    for (long at = 1; failed; at++) {
        mvlm_model *model;
        mvlm_session *session = NULL;
        mvlm_error error = {.status = MVLM_OK};
        mvlm_model_info info;
        mvlm_model_describe(models[TEXT], &info);
        atomic_store(&failing_in, at);
        mvlm_status status = mvlm_model_open(info.path, NULL, &model, &error);
        if (status == MVLM_OK)
            status = mvlm_session_open(model, &options, &session, &error);
        if (status == MVLM_OK)
            status = mvlm_ask(session, &cases[TEXT].question, NULL, NULL, &error);
        failed = atomic_exchange(&failing_in, 0) <= 0;
        if (status != (failed ? MVLM_NO_MEMORY : MVLM_OK))
            fail_msg("allocation %ld fails: status %d, \"%s\"", at, (int)status, error.message);
        assert_true((model == NULL) <= (session == NULL));
        if (session) {
            reply = (struct reply){.n = 0};
            assert_int_equal(mvlm_ask(session, &cases[TEXT].question, reply_add, &reply, &error),
                             MVLM_OK);
            assert_string_equal(reply.text, cases[TEXT].text);
        }
        mvlm_session_close(session);
        mvlm_model_close(model);
        assert_true(at < 1000);
    }
}

/* The same for a question with pictures, in a session that has answered already. */
static void pictures_without_memory(void **state)
{
    (void)state;
    static struct reply reply;
    const mvlm_session_options options = {.n_threads = 1};
    const mvlm_turn turn = {.question = "Hi"};
    const mvlm_question small = {.turns = &turn, .n_turns = 1, .max_tokens = 2};
    bool failed = true;
    need_own_malloc();
    for (long at = 1; failed; at++) {
        mvlm_session *session = conversation_session(models[TWO_PICTURES], &options);
        mvlm_error error;
        assert_int_equal(mvlm_ask(session, &small, NULL, NULL, &error), MVLM_OK);
        atomic_store(&failing_in, at);
        const mvlm_status status = mvlm_begin(session, &cases[TWO_PICTURES].question, &error);
        failed = atomic_exchange(&failing_in, 0) <= 0;
        if (status != (failed ? MVLM_NO_MEMORY : MVLM_OK))
            fail_msg("allocation %ld fails: status %d, \"%s\"", at, (int)status, error.message);
        reply = (struct reply){.n = 0};
        assert_int_equal(
            mvlm_ask(session, &cases[TWO_PICTURES].question, reply_add, &reply, &error), MVLM_OK);
        assert_string_equal(reply.text, cases[TWO_PICTURES].text);
        mvlm_session_close(session);
        assert_true(at < 1000);
    }
}

/* Each kind of picture file: decoding, turning and resizing without memory. */
static void picture_files_without_memory(void **state)
{
    (void)state;
    need_own_malloc();
    static const char *const files[] = {"420.jpg", "progressive.jpg", "exif6.jpg", "bmp8.bmp",
                                        "palette.png"};
    const mvlm_session_options options = {.n_threads = 1};
    mvlm_session *session = conversation_session(models[TWO_PICTURES], &options);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char *path = path_of(SOURCE_DIR "/tests/golden/images", files[i], NULL);
        const mvlm_turn turn = {.question = "Hi"};
        mvlm_picture picture = {.name = files[i]};
        mvlm_question question = {.turns = &turn,
                                  .n_turns = 1,
                                  .pictures = &picture,
                                  .n_pictures = 1,
                                  .until = MVLM_TO_PIXELS};
        mvlm_error error;
        bool failed = true;
        char *bytes = file_load(path, &picture.n_bytes);
        picture.bytes = bytes;
        for (long at = 1; failed; at++) {
            atomic_store(&failing_in, at);
            const mvlm_status status = mvlm_begin(session, &question, &error);
            failed = atomic_exchange(&failing_in, 0) <= 0;
            if (status != (failed ? MVLM_NO_MEMORY : MVLM_OK))
                fail_msg("%s, allocation %ld fails: status %d, \"%s\"", files[i], at, (int)status,
                         error.message);
        }
        free(bytes);
        free(path);
    }
    mvlm_session_close(session);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_allocation_a_token),
        cmocka_unit_test(plan_is_what_is_allocated),
        cmocka_unit_test(plan_grows_with_what_it_holds),
        cmocka_unit_test(budget_is_kept),
        cmocka_unit_test(open_and_ask_without_memory),
        cmocka_unit_test(pictures_without_memory),
        cmocka_unit_test(picture_files_without_memory),
    };
    return cmocka_run_group_tests_name("api memory", tests, open_cases, close_cases);
}
