#include "ask.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <time.h>
#define XXH_STATIC_LINKING_ONLY /* the streaming state on the stack */
#include <xxhash.h>

/* ---- Reading ---------------------------------------------------------------------------- */

/* Does the value come from the environment? Then an option that says something else wins. */
static bool is_variable(const char *value, const char *name)
{
    return value && value == getenv(name);
}

static mvlm_status read_prompt(struct ask *ask, mvlm_error *error)
{
    const char *prompt = ask->values->prompt, *file = ask->values->file;
    if (prompt && file && is_variable(file, "MOBILEVLM_FILE"))
        file = NULL;
    else if (prompt && file && is_variable(prompt, "MOBILEVLM_PROMPT"))
        prompt = NULL;
    if (prompt && file)
        return cli_fail(error, MVLM_USAGE, "-p and -f both give the prompt: use one");
    if (!prompt && !file)
        return cli_fail(error, MVLM_USAGE, "no prompt: -p TEXT or -f FILE");
    ask->turn.question = prompt;
    if (file) {
        const mvlm_status status = read_text_file(file, &ask->prompt_file, error);
        if (status != MVLM_OK)
            return status;
        if (memchr(ask->prompt_file.bytes, 0, ask->prompt_file.n))
            return cli_fail(error, MVLM_USAGE, "%s: holds a NUL byte, which no prompt may", file);
        ask->turn.question = ask->prompt_file.bytes;
    }
    return MVLM_OK;
}

static mvlm_status read_pictures(struct ask *ask, mvlm_error *error)
{
    const struct text_list *images = &ask->values->images;
    bool standard_input = ask->prompt_file.bytes && strcmp(ask->values->file, "-") == 0;
    ask->pictures = calloc(images->n + 1, sizeof *ask->pictures);
    ask->picture_files = calloc(images->n + 1, sizeof *ask->picture_files);
    if (!ask->pictures || !ask->picture_files)
        return cli_fail(error, MVLM_NO_MEMORY, "out of memory for %zu pictures", images->n);
    for (size_t i = 0; i < images->n; i++) {
        const char *path = images->items[i];
        if (strcmp(path, "-") == 0 && standard_input)
            return cli_fail(error, MVLM_USAGE, "standard input can be read only once");
        standard_input = standard_input || strcmp(path, "-") == 0;
        const mvlm_status status = read_file(path, MVLM_BAD_PICTURE, &ask->picture_files[i], error);
        if (status != MVLM_OK)
            return status;
        ask->pictures[i] = (mvlm_picture){.name = strcmp(path, "-") == 0 ? "standard input" : path,
                                          .bytes = ask->picture_files[i].bytes,
                                          .n_bytes = ask->picture_files[i].n};
    }
    return MVLM_OK;
}

static int show_progress(void *user, const char *stage, double share)
{
    progress_show(user, stage, share);
    return 0;
}

static void fill_question(struct ask *ask)
{
    const struct values *v = ask->values;
    uint64_t random = 0;
    if (v->seed < 0 && getrandom(&random, sizeof random, 0) != (ssize_t)sizeof random)
        random = (uint64_t)time(NULL);
    ask->seed =
        v->seed < 0 ? (int64_t)(random >> 12) : v->seed; /* 52 bits: exact in every JSON reader */
    ask->question = (mvlm_question){
        .pictures = ask->pictures,
        .n_pictures = v->images.n,
        .turns = &ask->turn,
        .n_turns = 1,
        .system = v->system,
        .raw = v->raw,
        .max_tokens = (size_t)v->max_tokens,
        .sampling = {.temperature = (float)v->temperature,
                     .top_k = (int)v->top_k,
                     .top_p = (float)(v->top_p > 0 ? v->top_p : 1e-9), /* 0 would mean off */
                     .min_p = (float)v->min_p,
                     .repeat_penalty = (float)v->repeat_penalty,
                     .seed = (uint64_t)ask->seed},
        .stops = v->stops.items,
        .n_stops = v->stops.n,
        .until = (mvlm_stage)v->until,
        .progress = show_progress,
        .progress_user = &ask->bar};
}

mvlm_status ask_open(struct ask *ask, const struct values *values, mvlm_error *error)
{
    mvlm_session_options options;
    struct timespec start, end;
    *ask = (struct ask){.values = values};
    progress_start(&ask->bar, values->quiet);
    session_options_of(values, &options);
    clock_gettime(CLOCK_MONOTONIC, &start);
    mvlm_status status = open_model(values, &ask->model, error);
    clock_gettime(CLOCK_MONOTONIC, &end);
    ask->load_ms =
        1e3 * (double)(end.tv_sec - start.tv_sec) + 1e-6 * (double)(end.tv_nsec - start.tv_nsec);
    if (status == MVLM_OK)
        status = read_prompt(ask, error);
    if (status == MVLM_OK)
        status = read_pictures(ask, error);
    if (status == MVLM_OK)
        status = mvlm_session_open(ask->model, &options, &ask->session, error);
    if (status == MVLM_OK)
        fill_question(ask);
    return status;
}

void ask_close(struct ask *ask)
{
    for (size_t i = 0; ask->picture_files && i < ask->values->images.n; i++)
        free(ask->picture_files[i].bytes);
    free(ask->picture_files);
    free(ask->pictures);
    free(ask->prompt_file.bytes);
    free(ask->text);
    mvlm_session_close(ask->session);
    mvlm_model_close(ask->model);
}

mvlm_status ask_keep(struct ask *ask, const char *text, size_t n_bytes, mvlm_error *error)
{
    char *more = realloc(ask->text, ask->n_text + n_bytes + 1);
    if (!more)
        return cli_fail(error, MVLM_NO_MEMORY, "out of memory for the answer");
    ask->text = more;
    memcpy(ask->text + ask->n_text, text, n_bytes);
    ask->n_text += n_bytes;
    return MVLM_OK;
}

/* ---- The record ------------------------------------------------------------------------- */

/* Everything that the answer depends on beside model and pictures: each value with its length,
 * hashed. */
static void options_digest(const struct ask *ask, char text[33])
{
    const struct values *v = ask->values;
    char numbers[256];
    snprintf(numbers, sizeof numbers,
             "raw %d n %lld temp %.9g k %lld p %.9g min %.9g repeat %.9g seed %lld kv %d c %lld",
             v->raw, (long long)v->max_tokens, v->temperature, (long long)v->top_k, v->top_p,
             v->min_p, v->repeat_penalty, (long long)(v->temperature > 0 ? ask->seed : 0),
             v->kv_type, (long long)v->context);
    XXH3_state_t state;
    XXH3_128bits_reset(&state);
    XXH3_128bits_update(&state, numbers, strlen(numbers) + 1);
    XXH3_128bits_update(&state, ask->turn.question, strlen(ask->turn.question) + 1);
    XXH3_128bits_update(&state, v->system ? "s" : "", 1);
    if (v->system)
        XXH3_128bits_update(&state, v->system, strlen(v->system) + 1);
    for (size_t i = 0; i < v->stops.n; i++)
        XXH3_128bits_update(&state, v->stops.items[i], strlen(v->stops.items[i]) + 1);
    XXH128_canonical_t digest;
    XXH128_canonicalFromHash(&digest, XXH3_128bits_digest(&state));
    for (size_t i = 0; i < 16; i++)
        snprintf(text + 2 * i, 3, "%02x", digest.digest[i]);
}

static uint64_t peak_rss(void)
{
    struct rusage usage;
    return getrusage(RUSAGE_SELF, &usage) == 0 ? (uint64_t)usage.ru_maxrss * 1024 : 0;
}

static json_t *timings(const struct ask *ask, const mvlm_counters *c)
{
    return json_pack("{s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f}", "load", ask->load_ms, "jpeg",
                     c->decode_picture_ms, "preprocess", c->preprocess_ms, "encode", c->encode_ms,
                     "project", c->project_ms, "prefill", c->prefill_ms, "generate", c->generate_ms,
                     "linear", c->linear_ms);
}

static const char *finish_name(mvlm_finish finish)
{
    static const char *const names[] = {"", "stop", "length", "stop_text"};
    return names[finish];
}

mvlm_status ask_print_json(const struct ask *ask, mvlm_finish finish, mvlm_error *error)
{
    mvlm_counters c;
    mvlm_model_info info;
    char digest[33];
    int cores[MOST_CORES];
    const size_t n_cores = granted_cores(cores);
    mvlm_session_counters(ask->session, &c);
    mvlm_model_describe(ask->model, &info);
    options_digest(ask, digest);
    return put_json(
        json_pack("{s:s%, s:s, s:I, s:I, s:I, s:o, s:s, s:s, s:I, s:s, s:i, s:o, s:I, s:I}", "text",
                  ask->text ? ask->text : "", ask->n_text, "finish_reason", finish_name(finish),
                  "prompt_tokens", (json_int_t)c.prompt_tokens, "image_tokens",
                  (json_int_t)c.image_tokens, "generated_tokens", (json_int_t)c.generated_tokens,
                  "timings_ms", timings(ask, &c), "model_digest", info.digest, "options_digest",
                  digest, "seed", (json_int_t)ask->seed, "isa", info.isa, "threads", c.n_threads,
                  "cores", cores_json(cores, n_cores), "peak_rss_bytes", (json_int_t)peak_rss(),
                  "planned_bytes", (json_int_t)c.memory.total),
        error);
}

static double rate(size_t n, double milliseconds)
{
    return milliseconds > 0 ? 1e3 * (double)n / milliseconds : 0;
}

/* Asked for: 0 is as many as suit. */
static void print_threads(int64_t asked, int n_threads)
{
    int cores[MOST_CORES];
    const size_t n_cores = granted_cores(cores);
    fprintf(stderr, "%d threads, %s; cores granted:", n_threads,
            asked ? "as asked for" : "one a core");
    for (size_t i = 0; i < n_cores; i++)
        fprintf(stderr, " %d", cores[i]);
    fprintf(stderr, "\n");
}

void ask_print_details(const struct ask *ask)
{
    mvlm_counters c;
    mvlm_model_info info;
    mvlm_session_counters(ask->session, &c);
    mvlm_model_describe(ask->model, &info);
    const double total = c.encode_ms + c.project_ms + c.prefill_ms + c.generate_ms;
    fprintf(stderr, "kernels %s, context %zu, seed %lld\n", info.isa, c.n_ctx,
            (long long)ask->seed);
    print_threads(ask->values->threads, c.n_threads);
    if (strcmp(info.isa, "c") == 0)
        fprintf(stderr, "kernels c are slow: plain C, for a processor that lacks AVX2, or as --isa "
                        "or MOBILEVLM_ISA asks\n");
    fprintf(stderr,
            "memory planned: weights %.1f MB, key/value cache %.1f MB, scratch %.1f MB, in all "
            "%.1f MB; peak "
            "%.1f MB\n",
            (double)c.memory.weights / 1e6, (double)c.memory.kv_cache / 1e6,
            (double)c.memory.scratch / 1e6, (double)c.memory.total / 1e6, (double)peak_rss() / 1e6);
    fprintf(stderr, "load %.1f ms, picture %.1f + %.1f ms, encode %.1f ms, project %.1f ms\n",
            ask->load_ms, c.decode_picture_ms, c.preprocess_ms, c.encode_ms, c.project_ms);
    fprintf(
        stderr,
        "prefill %.1f ms (%zu rows, %.1f tokens/s), generate %.1f ms (%zu tokens, %.2f tokens/s), "
        "%.1f %% of it all in matrix products\n",
        c.prefill_ms, c.prompt_tokens + c.image_tokens,
        rate(c.prompt_tokens + c.image_tokens, c.prefill_ms), c.generate_ms, c.generated_tokens,
        rate(c.generated_tokens, c.generate_ms), total > 0 ? 100 * c.linear_ms / total : 0);
}
