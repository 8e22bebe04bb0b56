#include "calibrate.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "format.h"
#include "rounding.h"
#include "status.h"

enum {
    SEQUENCE = 128, /* tokens at most */
    FIRST_SEED = 1, /* of the first sequence; each other one has the next */
};

/* A matrix of q4. */
struct observed {
    char name[FORMAT_NAME_BYTES];
    uint64_t offset;
    size_t n_cols, n_rows; /* n_rows: that it has read */
    float *moments;        /* [n_cols][ROUNDING_BLOCK] */
    bool owner;            /* false: the moments are another's, which reads the same */
};

struct calibration {
    struct observed *matrices; /* [n] */
    size_t n;
    const struct kernels *kernels;
    float *scratch;
    mvlm_session *session; /* while it is observed */
    const volatile sig_atomic_t *stop;
};

/* ---- Matrices --------------------------------------------------------------------------- */

static struct observed *find(const struct calibration *c, const char *name)
{
    for (size_t i = 0; i < c->n; i++)
        if (strcmp(c->matrices[i].name, name) == 0)
            return &c->matrices[i];
    return NULL;
}

/* The matrix before it that reads the same rows; NULL when there is none. */
static const struct observed *same_input(const struct calibration *c, const char *name)
{
    static const char *const pairs[][2] = {
        {".k.weight", ".q.weight"}, {".v.weight", ".q.weight"}, {".up.weight", ".gate.weight"}};
    char other[2 * FORMAT_NAME_BYTES];
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        const size_t n = strlen(name), n_end = strlen(pairs[i][0]);
        if (n < n_end || strcmp(name + n - n_end, pairs[i][0]) != 0)
            continue;
        memcpy(other, name, n - n_end);
        strcpy(other + n - n_end, pairs[i][1]);
        return find(c, other);
    }
    return NULL;
}

static mvlm_status add_matrix(struct calibration *c, const mvlm_tensor *tensor, mvlm_error *error)
{
    struct observed *m = &c->matrices[c->n];
    const struct observed *same = same_input(c, tensor->name);
    const size_t n_cols = (size_t)tensor->shape[1], n_values = n_cols * ROUNDING_BLOCK;
    *m = (struct observed){.offset = tensor->offset, .n_cols = n_cols, .owner = !same};
    strncpy(m->name, tensor->name, sizeof m->name - 1);
    m->moments = same ? same->moments : calloc(n_values, sizeof *m->moments);
    if (!m->moments)
        return fail_no_memory(error, tensor->name, n_values * sizeof *m->moments);
    c->n++;
    return MVLM_OK;
}

/* All matrices of q4, in the file's order, so that gate comes before up, and q before k and v. */
static mvlm_status list_matrices(struct calibration *c, const mvlm_model *model, mvlm_error *error)
{
    mvlm_model_info info;
    mvlm_tensor tensor;
    size_t most = 0;
    mvlm_model_describe(model, &info);
    c->matrices = calloc(info.n_tensors, sizeof *c->matrices);
    if (!c->matrices)
        return fail_no_memory(error, "the list of matrices", info.n_tensors * sizeof *c->matrices);
    for (size_t i = 0; mvlm_model_tensor(model, i, &tensor); i++)
        if (strcmp(tensor.type, "q4") == 0) {
            TRY(add_matrix(c, &tensor, error));
            most = (size_t)tensor.shape[1] > most ? (size_t)tensor.shape[1] : most;
        }
    const size_t n_bytes = moments_scratch(MVLM_OBSERVED_ROWS, most) * sizeof *c->scratch;
    c->scratch = malloc(n_bytes);
    return c->scratch ? MVLM_OK : fail_no_memory(error, "rows that matrices read", n_bytes);
}

const float *calibration_moments(const struct calibration *calibration, const char *name)
{
    const struct observed *m = find(calibration, name);
    return m && m->n_rows ? m->moments : NULL;
}

void calibration_close(struct calibration *calibration)
{
    if (!calibration)
        return;
    for (size_t i = 0; i < calibration->n; i++)
        if (calibration->matrices[i].owner)
            free(calibration->matrices[i].moments);
    free(calibration->matrices);
    free(calibration->scratch);
    free(calibration);
}

/* ---- Reading ---------------------------------------------------------------------------- */

static bool stopped(const struct calibration *c)
{
    return c->stop && *c->stop;
}

static void add_rows(void *user, uint64_t tensor_offset, const float *rows, size_t n_rows, size_t n)
{
    struct calibration *c = user;
    if (stopped(c))
        mvlm_session_cancel(c->session);
    for (size_t i = 0; i < c->n; i++) {
        struct observed *m = &c->matrices[i];
        if (m->offset != tensor_offset)
            continue;
        m->n_rows += n_rows;
        if (m->owner)
            moments_add(c->kernels, m->moments, rows, n_rows, n, c->scratch);
        return;
    }
}

/* Where a text begins that nobody asked for: the beginning of a sequence alone, or a line's where
 * the tokenizer has none. */
static const char *first_text(const mvlm_model *model)
{
    mvlm_field field;
    for (size_t i = 0; mvlm_model_field(model, i, &field); i++)
        if (strcmp(field.key, "tokenizer.add_bos") == 0 && field.integer)
            return "";
    return "\n";
}

/* Samples a sequence of at most *n_ids ids (at least 1, at most SEQUENCE): it may end by itself. */
static mvlm_status sample(const struct calibration *c, const char *text, uint64_t seed,
                          int32_t *ids, size_t *n_ids, mvlm_error *error)
{
    const mvlm_turn turn = {.question = text};
    const mvlm_question question = {.turns = &turn,
                                    .n_turns = 1,
                                    .raw = true,
                                    .max_tokens = SEQUENCE,
                                    .sampling = {.temperature = 1, .seed = seed}};
    const size_t most = *n_ids;
    mvlm_piece piece = {.finish = MVLM_UNFINISHED};
    TRY(mvlm_begin(c->session, &question, error));
    const int32_t *prompt = mvlm_session_prompt_ids(c->session, n_ids);
    *n_ids = *n_ids < most ? *n_ids : most;
    memcpy(ids, prompt, *n_ids * sizeof *ids);
    while (*n_ids < most && piece.finish == MVLM_UNFINISHED) {
        if (stopped(c))
            return fail(error, MVLM_CANCELLED, "stopped");
        TRY(mvlm_next(c->session, &piece, error));
        if (piece.finish != MVLM_STOP)
            ids[(*n_ids)++] = piece.id;
    }
    return MVLM_OK;
}

/* Sequences one after another, each of which is observed while it is read as a whole. */
static mvlm_status read_sequences(struct calibration *c, const mvlm_model *model,
                                  size_t n_positions, const struct calibrate_options *options,
                                  mvlm_error *error)
{
    const char *text = first_text(model);
    int32_t ids[SEQUENCE];
    float losses[SEQUENCE];
    uint64_t seed = FIRST_SEED;
    for (size_t done = 0, n; done < options->n_tokens; done += n) {
        n = options->n_tokens - done < n_positions ? options->n_tokens - done : n_positions;
        TRY(sample(c, text, seed++, ids, &n, error));
        mvlm_session_observe(c->session, add_rows, c);
        TRY(mvlm_score(c->session, ids, n, losses, error));
        mvlm_session_observe(c->session, NULL, NULL);
        if (options->progress)
            options->progress(options->progress_user,
                              (double)(done + n) / (double)options->n_tokens);
    }
    return MVLM_OK;
}

static mvlm_status observe_model(struct calibration *c, mvlm_model *model,
                                 const struct calibrate_options *options, mvlm_error *error)
{
    mvlm_model_info info;
    mvlm_model_describe(model, &info);
    const size_t n_positions = info.context_size < SEQUENCE ? info.context_size : SEQUENCE;
    const mvlm_session_options session = {.n_threads = options->n_threads, .n_ctx = n_positions};
    TRY(list_matrices(c, model, error));
    TRY(mvlm_session_open(model, &session, &c->session, error));
    const mvlm_status status = read_sequences(c, model, n_positions, options, error);
    mvlm_session_close(c->session);
    return status;
}

mvlm_status calibrate(const char *path, const struct calibrate_options *options,
                      struct calibration **calibration, mvlm_error *error)
{
    const mvlm_model_options how = {.isa = options->isa};
    bool known;
    mvlm_model *model;
    *calibration = NULL;
    TRY(mvlm_model_open(path, &how, &model, error));
    struct calibration *c = calloc(1, sizeof *c);
    if (!c) {
        mvlm_model_close(model);
        return fail_no_memory(error, "the calibration", sizeof *c);
    }
    c->kernels = kernels_choose(options->isa, &known);
    c->stop = options->stop;
    const mvlm_status status = observe_model(c, model, options, error);
    mvlm_model_close(model);
    if (status != MVLM_OK)
        calibration_close(c);
    else
        *calibration = c;
    return status;
}
