/* What composite attention saves of a picture's prefill: the same rows with it and without, by turns. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"

enum { FULL, COMPOSITE, N_KINDS };

/* A picture of n rows, then text, with either attention. */
static mvlm_status run_both(struct bench *bench, const struct test *test, double *ns,
                            mvlm_error *error)
{
    mvlm_status status = MVLM_OK;
    for (int kind = FULL; kind < N_KINDS && status == MVLM_OK; kind++) {
        const double start = monotonic_seconds();
        if (kind == FULL)
            status = mvlm_read(bench->session, 0, bench->ids, test->n + TEXT_TOKENS, error);
        else
            status = mvlm_read_alone(bench->session, 0, bench->ids, test->n, error);
        if (kind == COMPOSITE && status == MVLM_OK)
            status = mvlm_read(bench->session, test->n, bench->ids + test->n, TEXT_TOKENS, error);
        ns[kind] = 1e9 * (monotonic_seconds() - start);
    }
    return status;
}

/* How many times as fast: the repetitions' median. */
static double speed_up(const struct test *test)
{
    const struct result *full = &test->results[FULL], *composite = &test->results[COMPOSITE];
    double *ratios = malloc(full->n * sizeof *ratios);
    if (!ratios || full->n == 0) {
        free(ratios);
        return NAN;
    }
    for (size_t i = 0; i < full->n; i++)
        ratios[i] = full->ns[i] / composite->ns[i];
    const double median = median_of(ratios, full->n);
    free(ratios);
    return median;
}

static void note_speed_up(const struct test *test, char *note, size_t capacity)
{
    const double measured = speed_up(test), arithmetic = test->results[FULL].decoder_macs /
                                                         test->results[COMPOSITE].decoder_macs;
    snprintf(
        note, capacity,
        "%zu threads, a picture of %zu rows, then %d of text: composite attention is %.3f times as "
        "fast as full, %.3f by its multiply-accumulates: %.1f %%\n",
        test->results[FULL].n_threads, test->n, TEXT_TOKENS, measured, arithmetic,
        100 * measured / arithmetic);
}

void add_composite(const struct bench *bench, struct test *test, size_t n)
{
    static const char *const names[] = {"full", "composite"};
    const mvlm_work *w = &bench->work;
    const double rows = (double)n, all = rows + TEXT_TOKENS;
    /* what each row sees, itself included: a picture's rows, and text behind them */
    const double picture_sees = rows * (rows + 1) / 2,
                 text_sees = TEXT_TOKENS * rows + TEXT_TOKENS * (TEXT_TOKENS + 1) / 2.0;
    const double layers = all * w->row_macs - (all - 1) * w->saved_macs + w->head_macs;
    *test = (struct test){.run = run_both, .note = note_speed_up, .n = n, .n_results = N_KINDS};
    for (int kind = FULL; kind < N_KINDS; kind++) {
        struct result *r = &test->results[kind];
        snprintf(r->test, sizeof r->test, "%s %zu", names[kind], n);
        r->n_prompt = r->n_tokens = n + TEXT_TOKENS;
        r->bytes = (double)w->step_bytes + all * (double)w->cache_bytes;
        r->decoder_macs = layers + text_sees * w->attention_macs;
        if (kind == FULL)
            r->decoder_macs += picture_sees * w->attention_macs;
        else
            r->decoder_macs -= rows * w->query_macs;
    }
}
