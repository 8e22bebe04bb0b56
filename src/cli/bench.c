/* mobilevlm bench: speed, memory and heat, stage by stage. */
#include "bench.h"
#include "system_files.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- The picture and its question ------------------------------------------------------- */

enum { WIDTH = 1344, HEIGHT = 1008, BMP_HEADER = 54 };

static uint32_t next_random(uint32_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    return *state;
}

static void put_number(char *place, uint32_t number)
{
    for (int i = 0; i < 4; i++)
        place[i] = (char)(number >> 8 * i & 255);
}

/* A BMP of noise, the size of a small photo, for who names no picture. */
static mvlm_status make_picture(struct file_bytes *file, mvlm_error *error)
{
    uint32_t random = 1;
    file->n = BMP_HEADER + 3 * WIDTH * HEIGHT;
    char *bytes = file->bytes = calloc(file->n, 1);
    if (!bytes)
        return cli_fail(error, MVLM_NO_MEMORY, "out of memory for a picture");
    memcpy(bytes, "BM", 2);
    put_number(bytes + 2, (uint32_t)file->n);
    put_number(bytes + 10, BMP_HEADER);
    put_number(bytes + 14, 40); /* bytes of the second header */
    put_number(bytes + 18, WIDTH);
    put_number(bytes + 22, HEIGHT);
    bytes[26] = 1;  /* plane */
    bytes[28] = 24; /* bits a pixel */
    for (size_t i = BMP_HEADER; i < file->n; i++)
        bytes[i] = (char)(next_random(&random) >> 24);
    return MVLM_OK;
}

static mvlm_status read_picture(struct bench *bench, mvlm_error *error)
{
    const struct text_list *images = &bench->values->images;
    if (images->n > 1)
        return cli_fail(error, MVLM_USAGE, "-i: one picture, not %zu", images->n);
    if (images->n && !bench->info.image_tokens)
        return cli_fail(error, MVLM_USAGE, "-i: this model takes no pictures");
    const mvlm_status status =
        images->n ? read_file(images->items[0], MVLM_BAD_PICTURE, &bench->picture_file, error)
                  : make_picture(&bench->picture_file, error);
    bench->picture = (mvlm_picture){.name = images->n ? images->items[0] : "noise",
                                    .bytes = bench->picture_file.bytes,
                                    .n_bytes = bench->picture_file.n};
    return status;
}

static mvlm_status count_tokens(const struct bench *bench, size_t *n, mvlm_error *error)
{
    return mvlm_tokenize(bench->model, bench->question, strlen(bench->question),
                         MVLM_ADD_BOS | MVLM_READ_SPECIAL, NULL, 0, n, error);
}

/* A picture and text that grows until it has as many tokens as wanted. */
static mvlm_status make_question(struct bench *bench, mvlm_error *error)
{
    static const char letters[] = "0123456789.,;:?!abcdefghijklmnopqrstuvwxyz";
    size_t n, before;
    strcpy(bench->question, "<image>");
    mvlm_status status = count_tokens(bench, &n, error);
    for (size_t at = 0, tried = 0; status == MVLM_OK && n < TEXT_TOKENS + 1; at++) {
        char *end = bench->question + strlen(bench->question);
        before = n;
        end[0] = letters[at % strlen(letters)];
        end[1] = 0;
        status = count_tokens(bench, &n, error);
        /* the first letter may bring a space along, which a vocabulary may spell in bytes */
        const bool grown = n > before && n <= TEXT_TOKENS + 1;
        tried = grown ? 0 : tried + 1;
        if (!grown) {
            end[0] = 0;
            n = before;
        }
        if (tried > strlen(letters) || strlen(bench->question) + 2 > sizeof bench->question)
            return cli_fail(error, MVLM_USAGE, "no question of %d tokens can be made", TEXT_TOKENS);
    }
    return status;
}

/* ---- Opening ---------------------------------------------------------------------------- */

static mvlm_status default_list(struct numbers *numbers, size_t number, mvlm_error *error)
{
    if (numbers->n)
        return MVLM_OK;
    numbers->items = malloc(sizeof *numbers->items);
    if (!numbers->items)
        return cli_fail(error, MVLM_NO_MEMORY, "out of memory for a list");
    numbers->items[numbers->n++] = number;
    return MVLM_OK;
}

static mvlm_status read_lists(struct bench *bench, mvlm_error *error)
{
    enum { MOST = 1 << 19 }; /* two of them fit the longest context */
    const struct values *v = bench->values;
    const struct {
        const char *option;
        const struct text_list *texts;
        size_t least, most;
        struct numbers *numbers;
        size_t default_number;
    } lists[] = {
        {"-p", &v->n_prompt, 0, MOST, &bench->n_prompt, 176},
        {"-n", &v->n_gen, 0, MOST, &bench->n_gen, 64},
        {"-t", &v->n_threads, 1, 256, &bench->n_threads, 0}, /* as many as suit */
    };
    mvlm_status status = read_numbers("-d", &v->n_depth, 0, MOST, &bench->n_depth, error);
    if (status == MVLM_OK)
        status = read_numbers("--n-picture", &v->n_picture, 0, MOST, &bench->n_picture, error);
    for (size_t i = 0; i < sizeof lists / sizeof *lists && status == MVLM_OK; i++) {
        status = read_numbers(lists[i].option, lists[i].texts, lists[i].least, lists[i].most,
                              lists[i].numbers, error);
        if (status == MVLM_OK)
            status = default_list(lists[i].numbers, lists[i].default_number, error);
    }
    if (status == MVLM_OK && v->sustain)
        status = read_duration("--sustain", v->sustain, &bench->sustain_seconds, error);
    return status;
}

/* Where attention is composite, what that saves is of interest: MobileVLM's rows of a picture, CLIP's, and those of four
 * such squares. */
static mvlm_status default_pictures(struct bench *bench, mvlm_error *error)
{
    static const size_t rows[] = {144, 576, 2304};
    if (!bench->work.composite_attention || bench->n_picture.n || bench->sustain_seconds > 0)
        return MVLM_OK;
    bench->n_picture.items = malloc(sizeof rows);
    if (!bench->n_picture.items)
        return cli_fail(error, MVLM_NO_MEMORY, "out of memory for a list");
    memcpy(bench->n_picture.items, rows, sizeof rows);
    bench->n_picture.n = sizeof rows / sizeof *rows;
    return MVLM_OK;
}

/* Random ids behind the one that sequences begin with, the same in every run. */
static mvlm_status draw_ids(struct bench *bench, mvlm_error *error)
{
    uint32_t random = 2463534242u;
    size_t n;
    bench->ids = malloc(bench->options.n_ctx * sizeof *bench->ids);
    if (!bench->ids)
        return cli_fail(error, MVLM_NO_MEMORY, "out of memory for %zu ids", bench->options.n_ctx);
    for (size_t i = 0; i < bench->options.n_ctx; i++)
        bench->ids[i] = (int32_t)(next_random(&random) % bench->info.vocab_size);
    return mvlm_tokenize(bench->model, "", 0, MVLM_ADD_BOS, bench->ids, 1, &n, error);
}

static mvlm_status open_bench(struct bench *bench, const struct values *values, mvlm_error *error)
{
    *bench = (struct bench){
        .values = values, .lowest = {NAN, NAN}, .tells_energy = meter_works(machine_root())};
    progress_start(&bench->bar, values->quiet);
    session_options_of(values, &bench->options);
    mvlm_status status = read_lists(bench, error);
    if (status == MVLM_OK)
        status = take_cores(values, bench->n_threads.items[0], error);
    machine_describe(&bench->machine, machine_root());
    if (status == MVLM_OK)
        status = open_model(values, &bench->model, error);
    if (status != MVLM_OK)
        return status;
    mvlm_model_describe(bench->model, &bench->info);
    mvlm_model_work(bench->model, bench->options.kv_type, &bench->work);
    status = default_pictures(bench, error);
    bench->options.n_ctx = positions_needed(bench);
    if (status == MVLM_OK)
        status = read_picture(bench, error);
    if (status == MVLM_OK && bench->info.image_tokens)
        status = make_question(bench, error);
    if (status == MVLM_OK)
        status = draw_ids(bench, error);
    return status;
}

static void close_bench(struct bench *bench)
{
    progress_clear(&bench->bar);
    mvlm_model_close(bench->model);
    free(bench->picture_file.bytes);
    free(bench->ids);
    free(bench->n_prompt.items);
    free(bench->n_gen.items);
    free(bench->n_depth.items);
    free(bench->n_picture.items);
    free(bench->n_threads.items);
}

/* ---- Running ---------------------------------------------------------------------------- */

static mvlm_status run_test(struct bench *bench, struct test *test, mvlm_error *error)
{
    const int64_t n = bench->values->repetitions;
    progress_show(&bench->bar, test->results[0].test, 0);
    mvlm_status status = test_start(bench, test, error);
    for (int64_t i = 0; i < n && status == MVLM_OK; i++) {
        progress_show(&bench->bar, test->results[0].test, (double)(i + 1) / (double)(n + 1));
        status = test_repeat(bench, test, error);
    }
    progress_clear(&bench->bar);
    return status == MVLM_OK ? test_print(bench, test, NAN, error) : status;
}

/* One test after another until the time is over; what each did in the last ten seconds is printed
 * whenever these have gone by. */
static mvlm_status sustain(struct bench *bench, struct test *tests, size_t n_tests,
                           mvlm_error *error)
{
    static const double window = 10;
    mvlm_status status = MVLM_OK;
    for (size_t i = 0; i < n_tests && status == MVLM_OK; i++)
        status = test_start(bench, &tests[i], error);
    const double start = monotonic_seconds(), end = start + bench->sustain_seconds;
    double now = start;
    while (now < end && status == MVLM_OK) {
        const double until = fmin(now + window, end);
        for (size_t i = 0; i < n_tests; i++)
            test_reset(bench, &tests[i]);
        peak_memory_reset();
        do {
            progress_show(&bench->bar, "sustain", (now - start) / bench->sustain_seconds);
            for (size_t i = 0; i < n_tests && status == MVLM_OK; i++) {
                if (tests[i].depth) /* other tests have used the cache */
                    status = mvlm_read(bench->session, 0, bench->ids, tests[i].depth, error);
                if (status == MVLM_OK)
                    status = test_repeat(bench, &tests[i], error);
            }
            now = monotonic_seconds();
        } while (now < until && status == MVLM_OK);
        progress_clear(&bench->bar);
        for (size_t i = 0; i < n_tests && status == MVLM_OK; i++)
            status = test_print(bench, &tests[i], now - start, error);
    }
    return status;
}

/* All tests with one number of threads. */
static mvlm_status run_tests(struct bench *bench, mvlm_error *error)
{
    struct test *tests = NULL;
    size_t n_tests = 0;
    mvlm_counters counters;
    mvlm_status status = mvlm_session_open(bench->model, &bench->options, &bench->session, error);
    if (status == MVLM_OK)
        status = mvlm_read(bench->session, 0, bench->ids, 1, error);
    if (status == MVLM_OK) {
        mvlm_session_counters(bench->session, &counters);
        bench->threads = (size_t)counters.n_threads;
        status = list_tests(bench, &tests, &n_tests, error);
    }
    catch_signals(bench->session);
    if (status == MVLM_OK && bench->sustain_seconds > 0)
        status = sustain(bench, tests, n_tests, error);
    else
        for (size_t i = 0; i < n_tests && status == MVLM_OK; i++)
            status = run_test(bench, &tests[i], error);
    catch_signals(NULL);
    free_tests(tests, n_tests);
    mvlm_session_close(bench->session);
    bench->session = NULL;
    return status;
}

mvlm_status run_bench(const struct values *values, mvlm_error *error)
{
    struct bench bench;
    mvlm_error last;
    mvlm_status status = open_bench(&bench, values, error);
    if (status == MVLM_OK)
        status = print_start(&bench, error);
    if (status == MVLM_OK) {
        for (size_t i = 0; i < bench.n_threads.n && status == MVLM_OK; i++) {
            const size_t n_threads = bench.n_threads.items[i];
            status = take_cores(values, n_threads, error);
            bench.options.n_threads = n_threads ? (int)n_threads : threads_wanted(values);
            machine_describe(&bench.machine, machine_root());
            if (status == MVLM_OK)
                status = run_tests(&bench, error);
        }
        progress_clear(&bench.bar);
        const mvlm_status end = print_end(&bench, status == MVLM_OK ? error : &last);
        status = status == MVLM_OK ? end : status;
    }
    close_bench(&bench);
    return status;
}
