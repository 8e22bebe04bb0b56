/* mobilevlm perplexity: how well a text is predicted, in windows of BOS and the next ids. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

struct result {
    size_t n_scored;
    double loss; /* sum */
};

static mvlm_status tokenize_file(const struct values *values, const mvlm_model *model,
                                 int32_t **ids, size_t *n_ids, mvlm_error *error)
{
    struct file_bytes text;
    mvlm_status status = read_file(values->file, MVLM_USAGE, &text, error);
    if (status != MVLM_OK)
        return status;
    status = mvlm_tokenize(model, text.bytes, text.n, 0, NULL, 0, n_ids, error);
    if (status == MVLM_OK) {
        *ids = malloc((*n_ids + 1) * sizeof **ids);
        status = *ids ? mvlm_tokenize(model, text.bytes, text.n, 0, *ids, *n_ids, n_ids, error)
                      : cli_fail(error, MVLM_NO_MEMORY, "out of memory for %zu ids", *n_ids);
    }
    free(text.bytes);
    return status;
}

/* Whole windows only, as the reference counts: what is left over at the end is not scored, unless
 * there is no whole window at all. Each begins with BOS, which is not scored. */
static mvlm_status score_windows(const struct values *values, mvlm_session *session, int32_t bos,
                                 const int32_t *ids, size_t n_ids, struct result *result,
                                 mvlm_error *error)
{
    const size_t step = (size_t)values->window - 1;
    const size_t n = n_ids < step ? n_ids : step;
    int32_t *window = malloc((n + 1) * sizeof *window);
    float *losses = malloc((n + 1) * sizeof *losses);
    struct progress_bar bar;
    mvlm_status status = MVLM_OK;
    if (!window || !losses)
        status = cli_fail(error, MVLM_NO_MEMORY, "out of memory for a window of %zu ids", n);
    progress_start(&bar, values->quiet);
    for (size_t w = 0; status == MVLM_OK && (w + 1) * n <= n_ids &&
                       (!values->windows || w < (size_t)values->windows);
         w++) {
        window[0] = bos;
        memcpy(window + 1, ids + w * n, n * sizeof *window);
        status = mvlm_score(session, window, n + 1, losses, error);
        for (size_t i = 0; i < n && status == MVLM_OK; i++)
            result->loss += (double)losses[i];
        result->n_scored += n;
        progress_show(&bar, "scoring", (double)(w * n) / (double)n_ids);
    }
    progress_clear(&bar);
    free(window);
    free(losses);
    return status;
}

static mvlm_status print_result(const struct values *values, const struct result *result,
                                mvlm_error *error)
{
    const double loss = result->loss / (double)result->n_scored;
    if (values->json)
        return put_json(json_pack("{s:I, s:f, s:f}", "tokens", (json_int_t)result->n_scored, "nll",
                                  loss, "perplexity", exp(loss)),
                        error);
    char line[128];
    const int n = snprintf(line, sizeof line, "tokens %zu, nll %.6f, perplexity %.4f\n",
                           result->n_scored, loss, exp(loss));
    return put_out(line, (size_t)n, error);
}

/* The id that windows begin with. */
static mvlm_status find_bos(const mvlm_model *model, int32_t *bos, mvlm_error *error)
{
    size_t n;
    const mvlm_status status = mvlm_tokenize(model, "", 0, MVLM_ADD_BOS, bos, 1, &n, error);
    if (status == MVLM_OK && n != 1)
        return cli_fail(error, MVLM_USAGE, "this tokenizer has no BOS, which windows begin with");
    return status;
}

mvlm_status run_perplexity(const struct values *values, mvlm_error *error)
{
    mvlm_model *model = NULL;
    mvlm_session *session = NULL;
    mvlm_session_options options;
    struct result result = {0};
    int32_t *ids = NULL, bos;
    size_t n_ids = 0;
    if (!values->file)
        return cli_fail(error, MVLM_USAGE, "no text named: -f FILE");
    session_options_of(values, &options);
    mvlm_status status = open_model(values, &model, error);
    if (status == MVLM_OK)
        status = mvlm_session_open(model, &options, &session, error);
    if (status == MVLM_OK)
        status = find_bos(model, &bos, error);
    if (status == MVLM_OK)
        status = tokenize_file(values, model, &ids, &n_ids, error);
    if (status == MVLM_OK && n_ids == 0)
        status =
            cli_fail(error, MVLM_USAGE, "%s: is empty: there is nothing to score", values->file);
    if (status == MVLM_OK) {
        catch_signals(session);
        status = score_windows(values, session, bos, ids, n_ids, &result, error);
        catch_signals(NULL);
    }
    if (status == MVLM_OK)
        status = print_result(values, &result, error);
    free(ids);
    mvlm_session_close(session);
    mvlm_model_close(model);
    return status;
}
