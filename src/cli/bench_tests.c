/* The tests of mobilevlm bench: what a repetition does, what it has to read and to multiply, and
 * what limits it. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bench.h"

/* ---- What a repetition does ------------------------------------------------------------- */

/* Model and session, from a file that is in the page cache. */
static mvlm_status run_load(struct bench *bench, const struct test *test, double *ns,
                            mvlm_error *error)
{
    mvlm_model *model;
    mvlm_session *session = NULL;
    const double start = monotonic_seconds();
    (void)test;
    mvlm_status status = open_model(bench->values, &model, error);
    if (status == MVLM_OK)
        status = mvlm_session_open(model, &bench->options, &session, error);
    ns[0] = 1e9 * (monotonic_seconds() - start);
    mvlm_session_close(session);
    mvlm_model_close(model);
    return status;
}

static mvlm_question question_of(const struct bench *bench, mvlm_turn *turn)
{
    *turn = (mvlm_turn){.question = bench->question};
    return (mvlm_question){.pictures = &bench->picture,
                           .n_pictures = 1,
                           .turns = turn,
                           .n_turns = 1,
                           .raw = true,
                           .max_tokens = 1};
}

/* A picture's way to the decoder: jpeg, preprocess, encode, project, the last two together. */
static mvlm_status run_picture(struct bench *bench, const struct test *test, double *ns,
                               mvlm_error *error)
{
    mvlm_turn turn;
    mvlm_question question = question_of(bench, &turn);
    mvlm_counters counters;
    (void)test;
    question.until = MVLM_TO_PROJECTOR;
    const mvlm_status status = mvlm_begin(bench->session, &question, error);
    mvlm_session_counters(bench->session, &counters);
    ns[0] = 1e6 * counters.decode_picture_ms;
    ns[1] = 1e6 * counters.preprocess_ms;
    ns[2] = 1e6 * counters.encode_ms;
    ns[3] = 1e6 * counters.project_ms;
    ns[4] = ns[2] + ns[3];
    return status;
}

/* The time to the first token of an answer about a picture. */
static mvlm_status run_ttft(struct bench *bench, const struct test *test, double *ns,
                            mvlm_error *error)
{
    mvlm_turn turn;
    const mvlm_question question = question_of(bench, &turn);
    mvlm_piece piece;
    const double start = monotonic_seconds();
    (void)test;
    mvlm_status status = mvlm_begin(bench->session, &question, error);
    if (status == MVLM_OK)
        status = mvlm_next(bench->session, &piece, error);
    ns[0] = 1e9 * (monotonic_seconds() - start);
    return status;
}

/* A prompt of n ids behind what stands in the cache. */
static mvlm_status run_prompt(struct bench *bench, const struct test *test, double *ns,
                              mvlm_error *error)
{
    const double start = monotonic_seconds();
    const mvlm_status status =
        mvlm_read(bench->session, test->depth, bench->ids + test->depth, test->n, error);
    ns[0] = 1e9 * (monotonic_seconds() - start);
    return status;
}

/* An answer of n ids, each read on its own. */
static mvlm_status run_answer(struct bench *bench, const struct test *test, double *ns,
                              mvlm_error *error)
{
    mvlm_status status = MVLM_OK;
    const double start = monotonic_seconds();
    for (size_t i = test->depth; status == MVLM_OK && i < test->depth + test->n; i++)
        status = mvlm_read(bench->session, i, bench->ids + i, 1, error);
    ns[0] = 1e9 * (monotonic_seconds() - start);
    return status;
}

/* ---- What it takes ---------------------------------------------------------------------- */

/* Positions that n rows behind `depth` see, themselves included. */
static double positions_seen(size_t n, size_t depth)
{
    return (double)n * (double)depth + (double)n * (double)(n + 1) / 2;
}

/* Multiply-accumulates of a prompt: only its last row's logits are of use. */
static double prompt_macs(const mvlm_work *work, size_t n, size_t depth)
{
    return (double)n * work->row_macs - (double)(n - 1) * work->saved_macs +
           positions_seen(n, depth) * work->attention_macs + work->head_macs;
}

/* The weights are read once for all rows. */
static double prompt_bytes(const mvlm_work *work, size_t n, size_t depth)
{
    return (double)work->step_bytes + (double)(n + depth) * (double)work->cache_bytes;
}

static void add_load(struct test *test)
{
    *test = (struct test){.run = run_load, .n_results = 1};
    strcpy(test->results[0].test, "load");
}

static void add_picture(const struct bench *bench, struct test *test)
{
    static const char *const names[MAX_RESULTS] = {"jpeg", "preprocess", "encode", "project",
                                                   "encode + project"};
    const mvlm_work *w = &bench->work;
    *test = (struct test){.run = run_picture, .n_results = bench->values->limits ? 5 : 4};
    struct result *r = test->results;
    for (size_t i = 0; i < test->n_results; i++)
        strcpy(r[i].test, names[i]);
    r[2].picture_macs = w->encode_macs;
    r[2].bytes = (double)w->encode_bytes;
    r[3].picture_macs = w->project_macs;
    r[3].bytes = (double)w->project_bytes;
    r[4].picture_macs = r[2].picture_macs + r[3].picture_macs;
    r[4].bytes = r[2].bytes + r[3].bytes;
}

static void add_ttft(const struct bench *bench, struct test *test)
{
    const mvlm_work *w = &bench->work;
    const size_t n = bench->info.image_tokens + TEXT_TOKENS;
    *test = (struct test){.run = run_ttft, .n_results = 1};
    struct result *r = test->results;
    strcpy(r->test, "ttft");
    r->n_prompt = n;
    r->picture_macs = w->encode_macs + w->project_macs;
    r->decoder_macs = prompt_macs(w, n, 0);
    r->bytes = (double)(w->encode_bytes + w->project_bytes) + prompt_bytes(w, n, 0);
}

static void add_prompt(const struct bench *bench, struct test *test, size_t n, size_t depth)
{
    *test = (struct test){.run = run_prompt, .n = n, .depth = depth, .n_results = 1};
    struct result *r = test->results;
    snprintf(r->test, sizeof r->test, depth ? "pp%zu @ d%zu" : "pp%zu", n, depth);
    r->n_prompt = r->n_tokens = n;
    r->n_depth = depth;
    r->decoder_macs = prompt_macs(&bench->work, n, depth);
    r->bytes = prompt_bytes(&bench->work, n, depth);
}

static void add_answer(const struct bench *bench, struct test *test, size_t n, size_t depth)
{
    const mvlm_work *w = &bench->work;
    *test = (struct test){.run = run_answer, .n = n, .depth = depth, .n_results = 1};
    struct result *r = test->results;
    snprintf(r->test, sizeof r->test, "tg%zu @ d%zu", n, depth);
    r->n_gen = r->n_tokens = n;
    r->n_depth = depth;
    r->decoder_macs =
        (double)n * (w->row_macs + w->head_macs) + positions_seen(n, depth) * w->attention_macs;
    r->bytes =
        (double)n * (double)w->step_bytes + positions_seen(n, depth) * (double)w->cache_bytes;
}

/* ---- The list --------------------------------------------------------------------------- */

static const size_t prompt_depth[] = {0}, answer_depths[] = {0, 512};

/* Depths that were asked for hold for prompts and answers; the defaults differ. */
static struct numbers depths_of(const struct bench *bench, bool answer)
{
    if (bench->n_depth.n)
        return bench->n_depth;
    return answer ? (struct numbers){(size_t *)(uintptr_t)answer_depths, 2}
                  : (struct numbers){(size_t *)(uintptr_t)prompt_depth, 1};
}

static size_t largest(struct numbers numbers)
{
    size_t most = 0;
    for (size_t i = 0; i < numbers.n; i++)
        most = numbers.items[i] > most ? numbers.items[i] : most;
    return most;
}

size_t positions_needed(const struct bench *bench)
{
    const size_t prompt = largest(bench->n_prompt) + largest(depths_of(bench, false)),
                 answer = largest(bench->n_gen) + largest(depths_of(bench, true)),
                 picture = bench->info.image_tokens + TEXT_TOKENS + 1;
    const size_t composite = bench->n_picture.n ? largest(bench->n_picture) + TEXT_TOKENS : 0;
    size_t reading = prompt > answer ? prompt : answer;
    reading = composite > reading ? composite : reading;
    return bench->info.image_tokens && picture > reading ? picture : reading ? reading : 1;
}

mvlm_status list_tests(const struct bench *bench, struct test **tests, size_t *n_tests,
                       mvlm_error *error)
{
    const struct numbers prompt_depths = depths_of(bench, false), depths = depths_of(bench, true);
    const size_t most =
        3 + bench->n_prompt.n * prompt_depths.n + bench->n_gen.n * depths.n + bench->n_picture.n;
    struct test *t = *tests = calloc(most, sizeof *t);
    if (!t)
        return cli_fail(error, MVLM_NO_MEMORY, "out of memory for %zu tests", most);
    if (bench->sustain_seconds == 0)
        add_load(t++);
    if (bench->info.image_tokens)
        add_picture(bench, t++);
    for (size_t i = 0; i < bench->n_prompt.n; i++)
        for (size_t j = 0; j < prompt_depths.n; j++)
            if (bench->n_prompt.items[i])
                add_prompt(bench, t++, bench->n_prompt.items[i], prompt_depths.items[j]);
    for (size_t i = 0; i < bench->n_gen.n; i++)
        for (size_t j = 0; j < depths.n; j++)
            if (bench->n_gen.items[i])
                add_answer(bench, t++, bench->n_gen.items[i], depths.items[j]);
    for (size_t i = 0; i < bench->n_picture.n; i++)
        if (bench->n_picture.items[i])
            add_composite(bench, t++, bench->n_picture.items[i]);
    if (bench->info.image_tokens && bench->sustain_seconds == 0)
        add_ttft(bench, t++);
    *n_tests = (size_t)(t - *tests);
    return MVLM_OK;
}

void free_tests(struct test *tests, size_t n_tests)
{
    for (size_t i = 0; i < n_tests; i++)
        for (size_t j = 0; j < tests[i].n_results; j++) {
            free(tests[i].results[j].ns);
            free(tests[i].results[j].limit_ns);
        }
    free(tests);
}

/* ---- Running ---------------------------------------------------------------------------- */

/* What the limits were just now; only those that are asked for. */
struct rates {
    double per_second[MVLM_LIMIT_W4A8 + 1];
};

static mvlm_status measure_rates(struct bench *bench, unsigned wanted, struct rates *rates,
                                 mvlm_error *error)
{
    mvlm_status status = MVLM_OK;
    *rates = (struct rates){{0}};
    for (int limit = 0; limit <= MVLM_LIMIT_W4A8 && status == MVLM_OK; limit++)
        if (wanted & 1u << limit)
            status = mvlm_measure_limit(bench->session, (mvlm_limit)limit,
                                        &rates->per_second[limit], error);
    return status;
}

static double time_ns(double work, double per_second)
{
    return work > 0 ? 1e9 * work / per_second : 0;
}

static double macs_ns(const struct bench *bench, const struct result *r, const struct rates *rates)
{
    return time_ns(r->picture_macs, rates->per_second[bench->work.picture_limit]) +
           time_ns(r->decoder_macs, rates->per_second[bench->work.decoder_limit]);
}

static double reading_ns(const struct result *r, const struct rates *rates)
{
    return time_ns(r->bytes, rates->per_second[MVLM_LIMIT_READ]);
}

/* The limits that this test's results have. */
static unsigned limits_of(const struct bench *bench, const struct test *test)
{
    unsigned wanted = 0;
    for (size_t i = 0; i < test->n_results; i++) {
        const struct result *r = &test->results[i];
        if (r->limited && r->limited_by_reading)
            wanted |= 1u << MVLM_LIMIT_READ;
        if (r->limited && !r->limited_by_reading)
            wanted |= (r->picture_macs > 0 ? 1u << bench->work.picture_limit : 0) |
                      (r->decoder_macs > 0 ? 1u << bench->work.decoder_limit : 0);
    }
    return wanted;
}

/* Whether reading or multiplying takes longer at best is found once, before the repetitions. */
static mvlm_status find_limits(struct bench *bench, struct test *test, mvlm_error *error)
{
    struct rates rates;
    bool any = false;
    for (size_t i = 0; i < test->n_results; i++)
        any = any || test->results[i].bytes > 0;
    const unsigned all =
        1u << MVLM_LIMIT_READ | 1u << bench->work.picture_limit | 1u << bench->work.decoder_limit;
    const mvlm_status status = measure_rates(bench, any ? all : 0, &rates, error);
    for (size_t i = 0; i < test->n_results && status == MVLM_OK; i++) {
        struct result *r = &test->results[i];
        r->limited = r->bytes > 0;
        r->limited_by_reading = r->limited && reading_ns(r, &rates) > macs_ns(bench, r, &rates);
    }
    return status;
}

mvlm_status test_start(struct bench *bench, struct test *test, mvlm_error *error)
{
    double ns[MAX_RESULTS];
    mvlm_status status = MVLM_OK;
    peak_memory_reset();
    if (test->depth)
        status = mvlm_read(bench->session, 0, bench->ids, test->depth, error);
    if (status == MVLM_OK)
        status = test->run(bench, test, ns, error);
    if (status == MVLM_OK && bench->values->limits)
        status = find_limits(bench, test, error);
    test_reset(bench, test);
    return status;
}

void test_reset(const struct bench *bench, struct test *test)
{
    const time_t now = time(NULL);
    struct tm utc;
    const struct sensors sensors = sensors_read(&bench->machine);
    gmtime_r(&now, &utc);
    for (size_t i = 0; i < test->n_results; i++) {
        struct result *r = &test->results[i];
        r->n = 0;
        r->n_threads = bench->threads;
        r->before = r->lowest = sensors;
        r->joules = 0;
        r->paused_s = 0;
        strftime(r->time, sizeof r->time, "%Y-%m-%dT%H:%M:%SZ", &utc);
    }
}

static mvlm_status add_sample(struct result *r, double ns, double limit_ns, mvlm_error *error)
{
    if (r->n == r->capacity) {
        const size_t capacity = r->capacity ? 2 * r->capacity : 16;
        double *times = realloc(r->ns, capacity * sizeof *times);
        r->ns = times ? times : r->ns;
        double *limits = realloc(r->limit_ns, capacity * sizeof *limits);
        r->limit_ns = limits ? limits : r->limit_ns;
        if (!times || !limits)
            return cli_fail(error, MVLM_NO_MEMORY, "out of memory for %zu times", capacity);
        r->capacity = capacity;
    }
    r->ns[r->n] = ns;
    r->limit_ns[r->n++] = limit_ns;
    return MVLM_OK;
}

static struct sensors lower(struct sensors a, struct sensors b)
{
    return (struct sensors){fmin(a.mhz, b.mhz), fmin(a.celsius, b.celsius)};
}

mvlm_status test_repeat(struct bench *bench, struct test *test, mvlm_error *error)
{
    double ns[MAX_RESULTS];
    struct rates rates;
    struct meter meter = {.joules = test->results[0].joules};
    const double paused_s = wait_until_cool(bench->values);
    mvlm_status status = measure_rates(bench, limits_of(bench, test), &rates, error);
    meter_start(&meter, bench->machine.root);
    if (status == MVLM_OK)
        status = test->run(bench, test, ns, error);
    meter_stop(&meter);
    const struct sensors now = sensors_read(&bench->machine);
    bench->lowest = lower(bench->lowest, now);
    for (size_t i = 0; i < test->n_results && status == MVLM_OK; i++) {
        struct result *r = &test->results[i];
        r->joules = test->n_results == 1 ? meter.joules : NAN; /* of several together: of none */
        r->paused_s += paused_s;
        r->lowest = lower(r->lowest, now);
        status = add_sample(
            r, ns[i], r->limited_by_reading ? reading_ns(r, &rates) : macs_ns(bench, r, &rates),
            error);
    }
    return status;
}

mvlm_status test_print(struct bench *bench, struct test *test, double elapsed_s, mvlm_error *error)
{
    const struct sensors sensors = sensors_read(&bench->machine);
    mvlm_status status = MVLM_OK;
    for (size_t i = 0; i < test->n_results && status == MVLM_OK; i++) {
        test->results[i].after = sensors;
        test->results[i].peak_rss = peak_memory();
        test->results[i].elapsed_s = elapsed_s;
        status = print_result(bench, &test->results[i], error);
    }
    const size_t n = strlen(bench->notes);
    if (test->note && isnan(elapsed_s) && status == MVLM_OK)
        test->note(test, bench->notes + n, sizeof bench->notes - n);
    return status;
}
