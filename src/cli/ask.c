#include "ask.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "record.h"

/* ---- Reading ---------------------------------------------------------------------------- */

mvlm_status prompt_of_options(const struct values *values, struct file_bytes *bytes,
                              const char **text, mvlm_error *error)
{
    const char *prompt = values->prompt, *file = values->file;
    if (prompt && file && is_variable(file, "MOBILEVLM_FILE"))
        file = NULL;
    else if (prompt && file && is_variable(prompt, "MOBILEVLM_PROMPT"))
        prompt = NULL;
    if (prompt && file)
        return cli_fail(error, MVLM_USAGE, "-p and -f both give the prompt: use one");
    if (!prompt && !file)
        return cli_fail(error, MVLM_USAGE, "no prompt: -p TEXT or -f FILE");
    *text = prompt;
    if (file) {
        const mvlm_status status = read_text_file(file, bytes, error);
        if (status != MVLM_OK)
            return status;
        if (memchr(bytes->bytes, 0, bytes->n))
            return cli_fail(error, MVLM_USAGE, "%s: holds a NUL byte, which no prompt may", file);
        *text = bytes->bytes;
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

int show_progress(void *bar, const char *stage, double share)
{
    progress_show(bar, stage, share);
    return 0;
}

mvlm_question question_of(const struct values *v, int64_t seed)
{
    return (mvlm_question){
        .system = v->system,
        .raw = v->raw,
        .max_tokens = (size_t)v->max_tokens,
        .sampling = {.temperature = (float)v->temperature,
                     .top_k = (int)v->top_k,
                     .top_p = (float)(v->top_p > 0 ? v->top_p : 1e-9), /* 0 would mean off */
                     .min_p = (float)v->min_p,
                     .repeat_penalty = (float)v->repeat_penalty,
                     .seed = (uint64_t)seed},
        .stops = v->stops.items,
        .n_stops = v->stops.n,
        .until = (mvlm_stage)v->until};
}

int64_t seed_of(const struct values *v)
{
    uint64_t random = 0;
    if (v->seed >= 0)
        return v->seed;
    if (getrandom(&random, sizeof random, 0) != (ssize_t)sizeof random)
        random = (uint64_t)time(NULL);
    return (int64_t)(random >> 12); /* 52 bits: exact in every JSON reader */
}

static void fill_question(struct ask *ask)
{
    const struct values *v = ask->values;
    ask->seed = seed_of(v);
    ask->question = question_of(v, ask->seed);
    ask->question.pictures = ask->pictures;
    ask->question.n_pictures = v->images.n;
    ask->question.turns = &ask->turn;
    ask->question.n_turns = 1;
    ask->question.progress = show_progress;
    ask->question.progress_user = &ask->bar;
}

mvlm_status ask_open(struct ask *ask, const struct values *values, mvlm_error *error)
{
    mvlm_session_options options;
    *ask = (struct ask){.values = values};
    progress_start(&ask->bar, values->quiet);
    session_options_of(values, &options);
    const double start = monotonic_seconds();
    mvlm_status status = open_model(values, &ask->model, error);
    ask->load_ms = 1e3 * (monotonic_seconds() - start);
    if (status == MVLM_OK)
        status = prompt_of_options(values, &ask->prompt_file, &ask->turn.question, error);
    if (status == MVLM_OK)
        status = choices_open(&ask->choices, values, error);
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
    free(ask->text.bytes);
    choices_close(&ask->choices);
    mvlm_session_close(ask->session);
    mvlm_model_close(ask->model);
}

mvlm_status ask_keep(struct ask *ask, const char *text, size_t n_bytes, mvlm_error *error)
{
    return buffer_add(&ask->text, text, n_bytes)
               ? MVLM_OK
               : cli_fail(error, MVLM_NO_MEMORY, "out of memory for the answer");
}

/* ---- What is printed -------------------------------------------------------------------- */

static struct asked asked_of(const struct ask *ask)
{
    return (struct asked){ask->turn.question, ask->values->max_tokens, ask->seed};
}

mvlm_status ask_print_json(const struct ask *ask, mvlm_finish finish, mvlm_error *error)
{
    const struct asked asked = asked_of(ask);
    json_t *record = answer_record(ask->model, ask->session, 0, ask->values, &asked, ask->load_ms,
                                   finish, ask->text.bytes, ask->text.n);
    if (record && ask->choices.n)
        json_put(&record, "choices", choices_json(&ask->choices));
    return put_json(record, error);
}

static double rate(size_t n, double milliseconds)
{
    return milliseconds > 0 ? 1e3 * (double)n / milliseconds : 0;
}

/* Asked for: 0 is as many as suit. */
static void print_threads(int64_t n_asked, int n_threads)
{
    int granted[MOST_CORES];
    const int *asked;
    const char *why;
    const size_t n_granted = granted_cores(granted), n_cores_asked = asked_cores(&asked, &why);
    fprintf(stderr, "%d threads, %s", n_threads, n_asked ? "as asked for" : "one a core");
    print_cores(stderr, "; cores asked:", asked, n_cores_asked);
    fprintf(stderr, " (%s)", why);
    print_cores(stderr, "; granted:", granted, n_granted);
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
            (double)c.memory.scratch / 1e6, (double)c.memory.total / 1e6,
            (double)peak_memory() / 1e6);
    fprintf(stderr, "load %.1f ms, picture %.1f + %.1f ms, encode %.1f ms, project %.1f ms\n",
            ask->load_ms, c.decode_picture_ms, c.preprocess_ms, c.encode_ms, c.project_ms);
    const size_t n_rows = c.prompt_tokens + c.image_tokens;
    fprintf(
        stderr,
        "prefill %.1f ms (%zu rows, %zu of them kept from before, %.1f tokens/s), generate %.1f "
        "ms (%zu tokens, %.2f tokens/s), %.1f %% of it all in matrix products\n",
        c.prefill_ms, n_rows, c.reused_rows, rate(n_rows - c.reused_rows, c.prefill_ms),
        c.generate_ms, c.generated_tokens, rate(c.generated_tokens, c.generate_ms),
        total > 0 ? 100 * c.linear_ms / total : 0);
}
