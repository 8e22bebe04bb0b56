/* How likely each of several answers is, from one reading of the prompt. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "read.h"
#include "session.h"
#include "status.h"
#include "utf8.h"

/* An answer that may be given. */
struct choice {
    struct id_list ids;
    size_t n_scored; /* of its ids and the end behind them */
    size_t n_common; /* with the choice that is being read */
    double score;    /* log p of what was scored */
};

struct chooser {
    struct mvlm_session *session;
    struct sequence *sequence;
    struct choice *choices; /* [n] */
    size_t n, longest;
    const struct id_list *read; /* what the cache holds behind the prompt; NULL: nothing */
    size_t n_prompt;            /* ids that the cache holds of the prompt */
};

/* A choice as an answer of earlier turns would be encoded: behind the template's answer_prefix. SentencePiece's dummy prefix
 * stands for the space there is in that, as a rule; without one an answer begins bare, unless the legacy way puts it
 * anyway. */
static mvlm_status encode_choice(const struct chooser *c, const char *text, struct id_list *ids,
                                 mvlm_error *error)
{
    const struct tokenizer *tokenizer = c->session->model->tokenizer;
    const struct description *d = tokenizer->description;
    const mvlm_question *question = &c->sequence->question;
    const char *prefix = d->prompt.present && !question->raw ? d->prompt.answer_prefix : NULL;
    char *whole;
    if (d->tokenizer.kind != TOKENIZER_BYTE_BPE) {
        const bool bare = prefix && !*prefix && !d->tokenizer.legacy;
        return tokenizer_encode(tokenizer, text, strlen(text), bare ? LEAD_NONE : LEAD_MODEL, ids,
                                error);
    }
    if (asprintf(&whole, "%s%s", prefix ? prefix : "", text) < 0)
        return fail_no_memory(error, "a choice", strlen(text));
    const mvlm_status status =
        tokenizer_encode(tokenizer, whole, strlen(whole), LEAD_NONE, ids, error);
    free(whole);
    return status;
}

static mvlm_status encode_choices(struct chooser *c, const char *const *texts, mvlm_error *error)
{
    size_t at;
    for (size_t i = 0; i < c->n; i++) {
        if (!utf8_valid(texts[i], strlen(texts[i]), &at))
            return fail(error, MVLM_USAGE, "choice %zu is no valid UTF-8", i + 1);
        TRY(encode_choice(c, texts[i], &c->choices[i].ids, error));
        if (c->choices[i].ids.n == 0)
            return fail(error, MVLM_USAGE, "choice %zu is empty", i + 1);
        if (c->choices[i].ids.n > c->longest)
            c->longest = c->choices[i].ids.n;
    }
    return MVLM_OK;
}

static size_t common_ids(const struct id_list *a, const struct id_list *b)
{
    size_t n = 0;
    while (n < a->n && n < b->n && a->ids[n] == b->ids[n])
        n++;
    return n;
}

/* How likely the answer ends here, whichever of the ids that end it comes. */
static double end_probability(const struct description *d, const float *logits)
{
    const struct number_list *stops = &d->tokenizer.stop_ids;
    const size_t vocab = (size_t)d->decoder.vocab;
    double sum = 0;
    if (stops->n == 1)
        return log_probability(logits, vocab, (int32_t)stops->value[0]);
    for (size_t i = 0; i < stops->n; i++)
        sum += exp(log_probability(logits, vocab, (int32_t)stops->value[i]));
    return sum > 0 ? log(sum) : 0; /* where nothing ends an answer, that says nothing */
}

/* The logits that follow `depth` ids of the choice that is being read say how likely the next id is, of every choice that
 * begins with the same ones; behind its last id that is the end. */
static void score(struct chooser *c, size_t depth, const float *logits)
{
    const struct description *d = &c->session->model->description;
    const size_t vocab = (size_t)d->decoder.vocab;
    for (size_t i = 0; i < c->n; i++) {
        struct choice *choice = &c->choices[i];
        if (choice->n_scored != depth || choice->n_common < depth)
            continue; /* scored before, or another beginning */
        choice->score += depth < choice->ids.n
                             ? log_probability(logits, vocab, choice->ids.ids[depth])
                             : end_probability(d, logits);
        choice->n_scored++;
    }
}

static mvlm_status score_rows(struct mvlm_session *s, size_t first, size_t n_rows, void *user,
                              mvlm_error *error)
{
    struct chooser *c = user;
    const size_t vocab = (size_t)s->model->description.decoder.vocab;
    (void)error;
    for (size_t i = 0; i < n_rows; i++)
        score(c, first - c->sequence->n_rows + 1 + i, s->decoder.logits + i * vocab);
    return MVLM_OK;
}

/* Reads a choice behind the prompt, but for what it has in common with the one before. */
static mvlm_status read_choice(struct chooser *c, const struct id_list *ids, mvlm_error *error)
{
    const size_t common = c->read ? common_ids(ids, c->read) : 0;
    for (size_t i = 0; i < c->n; i++)
        c->choices[i].n_common = common_ids(ids, &c->choices[i].ids);
    held_cut(&c->sequence->held, c->n_prompt + common);
    c->read = ids;
    return read_ids(c->session, c->sequence, ids->ids + common, ids->n - common, false,
                    c->sequence->n_rows + ids->n, score_rows, c, error);
}

/* e^scores, made to sum to 1. */
static void normalise(double *scores, size_t n)
{
    double most = scores[0], sum = 0;
    for (size_t i = 1; i < n; i++)
        most = scores[i] > most ? scores[i] : most;
    for (size_t i = 0; i < n; i++)
        sum += scores[i] = exp(scores[i] - most);
    for (size_t i = 0; i < n; i++)
        scores[i] /= sum;
}

static mvlm_status choose(struct chooser *c, const char *const *texts, double *probabilities,
                          mvlm_error *error)
{
    struct sequence *q = c->sequence;
    TRY(encode_choices(c, texts, error));
    if (c->longest > c->session->sizes.n_ctx - q->n_rows)
        return fail(error, MVLM_USAGE, "a choice of %zu tokens: the context has room for %zu",
                    c->longest, c->session->sizes.n_ctx - q->n_rows);
    c->n_prompt = q->held.n;
    /* not that of the calls that follow: session_finish forgets it */
    c->session->compute.progress = q->question.progress;
    c->session->compute.progress_user = q->question.progress_user;
    const double start = seconds_now();
    score(c, 0, q->logits); /* no ids: all choices begin alike */
    for (size_t i = 0; i < c->n; i++)
        TRY(read_choice(c, &c->choices[i].ids, error));
    for (size_t i = 0; i < c->n; i++)
        probabilities[i] = c->choices[i].score;
    held_cut(&q->held, c->n_prompt);
    normalise(probabilities, c->n);
    q->counters.generate_ms = 1e3 * (seconds_now() - start);
    return MVLM_OK;
}

mvlm_status mvlm_sequence_choose(mvlm_session *session, size_t index, const mvlm_question *question,
                                 const char *const *choices, size_t n, double *probabilities,
                                 mvlm_error *error)
{
    struct chooser chooser = {.session = session, .n = n};
    mvlm_question read = *question;
    if (n == 0)
        return fail(error, MVLM_USAGE, "no choices");
    for (size_t i = 0; i < n; i++) /* room for the longest: an id takes a byte at least */
        if (read.max_tokens < strlen(choices[i]) + 2)
            read.max_tokens = strlen(choices[i]) + 2;
    read.until = MVLM_TO_END;
    TRY(mvlm_sequence_begin(session, index, &read, error));
    chooser.sequence = &session->sequences[index];
    chooser.sequence->state = SESSION_ENDED; /* nothing is sampled */
    chooser.choices = calloc(n, sizeof *chooser.choices);
    mvlm_status status = chooser.choices
                             ? choose(&chooser, choices, probabilities, error)
                             : fail_no_memory(error, "choices", n * sizeof *chooser.choices);
    for (size_t i = 0; chooser.choices && i < n; i++)
        free(chooser.choices[i].ids.ids);
    free(chooser.choices);
    return session_finish(session, chooser.sequence, status, error);
}
