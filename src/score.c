/* Ids without a conversation: reading them, as bench does, and how likely they are. */
#include "read.h"
#include "session.h"
#include "status.h"

/* ---- Plain ids -------------------------------------------------------------------------- */

static mvlm_status check_ids(const struct mvlm_session *s, const int32_t *ids, size_t n_ids,
                             mvlm_error *error)
{
    for (size_t i = 0; i < n_ids; i++)
        if (ids[i] < 0 || ids[i] >= s->model->description.decoder.vocab)
            return fail(error, MVLM_USAGE, "id %d at %zu is beyond the vocabulary", (int)ids[i], i);
    return MVLM_OK;
}

/* Memory for the whole context; kept as it stands while nothing but mvlm_read uses it. */
static mvlm_status begin_reading(struct mvlm_session *s, struct sequence *q, mvlm_error *error)
{
    struct session_sizes sizes;
    if (q->state != SESSION_READING) {
        TRY(session_sizes_of(s->model, &s->options, 0, 0, 1, &sizes, error));
        TRY(session_prepare(s, &sizes, error));
        q->state = SESSION_READING;
    }
    held_cut(&q->held, 0);
    return MVLM_OK;
}

static mvlm_status read_rows(struct mvlm_session *s, struct sequence *q, size_t position,
                             const int32_t *ids, size_t n_ids, bool alone, mvlm_error *error)
{
    TRY(check_ids(s, ids, n_ids, error));
    const double start = seconds_now();
    if (position == 0)
        TRY(begin_reading(s, q, error));
    if (q->state != SESSION_READING || position > q->held.n_rows)
        return fail(error, MVLM_USAGE, "position %zu cannot be read: those below it were not",
                    position);
    if (n_ids > s->sizes.n_ctx - position)
        return fail(error, MVLM_USAGE, "%zu ids from position %zu on: the context has %zu", n_ids,
                    position, s->sizes.n_ctx);
    held_cut(&q->held, position); /* ids only: one row each */
    q->counters = (mvlm_counters){.prompt_tokens = n_ids,
                                  .n_ctx = s->sizes.n_ctx,
                                  .n_threads = s->sizes.n_threads,
                                  .memory = s->plan};
    TRY(read_ids(s, q, ids, n_ids, alone, position + n_ids, NULL, NULL, error));
    q->counters.prefill_ms = 1e3 * (seconds_now() - start);
    return MVLM_OK;
}

mvlm_status mvlm_read(mvlm_session *session, size_t position, const int32_t *ids, size_t n_ids,
                      mvlm_error *error)
{
    struct sequence *q = &session->sequences[0];
    return session_finish(session, q, read_rows(session, q, position, ids, n_ids, false, error),
                          error);
}

mvlm_status mvlm_read_alone(mvlm_session *session, size_t position, const int32_t *ids,
                            size_t n_ids, mvlm_error *error)
{
    struct sequence *q = &session->sequences[0];
    return session_finish(session, q, read_rows(session, q, position, ids, n_ids, true, error),
                          error);
}

/* ---- Likelihood ------------------------------------------------------------------------- */

struct score_job {
    const int32_t *ids;
    size_t n_ids;
    float *losses;
};

static mvlm_status score_rows(struct mvlm_session *s, size_t first, size_t n_rows, void *user,
                              mvlm_error *error)
{
    (void)error;
    const struct score_job *job = user;
    const size_t vocab = (size_t)s->model->description.decoder.vocab;
    for (size_t row = 0; row < n_rows && first + row + 1 < job->n_ids; row++)
        job->losses[first + row] = (float)-log_probability(s->decoder.logits + row * vocab, vocab,
                                                           job->ids[first + row + 1]);
    return MVLM_OK;
}

static mvlm_status score(struct mvlm_session *s, struct sequence *q, struct score_job *job,
                         mvlm_error *error)
{
    struct session_sizes sizes;
    q->state = SESSION_IDLE;
    q->counters = (mvlm_counters){0};
    TRY(check_ids(s, job->ids, job->n_ids, error));
    if (job->n_ids == 0)
        return MVLM_OK;
    TRY(session_sizes_of(s->model, &s->options, job->n_ids, 0, 1, &sizes, error));
    TRY(session_prepare(s, &sizes, error));
    held_cut(&q->held, 0);
    return read_ids(s, q, job->ids, job->n_ids, false, job->n_ids, score_rows, job, error);
}

mvlm_status mvlm_score(mvlm_session *session, const int32_t *ids, size_t n_ids, float *losses,
                       mvlm_error *error)
{
    struct score_job job = {ids, n_ids, losses};
    struct sequence *q = &session->sequences[0];
    return session_finish(session, q, score(session, q, &job, error), error);
}
