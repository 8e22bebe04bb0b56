/* The answer to a question, from bytes to text:
 *
 *     picture bytes -> image -> vision -> projector --\
 *                                                      prompt -> decoder <-> kv_cache -> sampler
 *     turns -> prompt -> tokenizer -------------------/                       -> answer -> text
 */
#include <stdlib.h>
#include <string.h>

#include "prompt.h"
#include "read.h"
#include "session.h"
#include "status.h"
#include "utf8.h"

/* ---- Tracing ---------------------------------------------------------------------------- */

static mvlm_status trace(const struct sequence *q, const char *stage, size_t picture,
                         const float *values, const size_t *shape, int n_dims, mvlm_error *error)
{
    if (q->question.trace &&
        q->question.trace(q->question.trace_user, stage, picture, values, shape, n_dims))
        return fail(error, MVLM_CANCELLED, "stopped by the trace at %s", stage);
    return MVLM_OK;
}

static bool ends_at(const struct sequence *q, mvlm_stage stage)
{
    return q->question.until == stage;
}

/* ---- Pictures --------------------------------------------------------------------------- */

/* All pictures become squares before any is encoded, so that a bad one costs no time. */
static mvlm_status open_images(struct mvlm_session *s, struct sequence *q, mvlm_error *error)
{
    const size_t n = q->question.n_pictures;
    q->images = q->question.images;
    if (!q->images && n) {
        q->own_images = calloc(n, sizeof *q->own_images);
        if (!q->own_images)
            return fail_no_memory(error, "pictures", n * sizeof *q->own_images);
        q->images = q->own_images;
    }
    for (; q->own_images && q->n_own_images < n; q->n_own_images++) {
        TRY(compute_step(&s->compute, "picture", q->n_own_images, n, error));
        TRY(mvlm_image_open(s->model, &q->question.pictures[q->n_own_images], s->options.max_pixels,
                            &q->own_images[q->n_own_images], error));
    }
    for (size_t i = 0; i < n; i++) {
        /* NOLINTNEXTLINE(clang-analyzer-core.NullDereference): there are as many as pictures */
        if (q->images[i]->model != s->model)
            return fail(error, MVLM_USAGE, "picture %zu was opened for another model", i + 1);
        q->counters.decode_picture_ms += q->images[i]->decode_ms;
        q->counters.preprocess_ms += q->images[i]->preprocess_ms;
        q->images[i]->decode_ms = q->images[i]->preprocess_ms = 0; /* spent once */
    }
    return MVLM_OK;
}

/* Square -> pixels -> features -> the picture's rows; stops early where the question says so. */
static mvlm_status see(struct mvlm_session *s, struct sequence *q, size_t picture,
                       mvlm_error *error)
{
    const struct description *d = &s->model->description;
    struct mvlm_image *image = q->images[picture];
    const size_t side = (size_t)d->image.size, patches = patches_a_side(d) * patches_a_side(d);
    const size_t pixel_shape[] = {3, side, side},
                 feature_shape[] = {patches, (size_t)d->vision.width},
                 row_shape[] = {image_tokens(d), (size_t)d->decoder.hidden};
    const float *features;

    if (!q->question.trace && !image->rows && image_cache_find(&s->images, image))
        q->counters.cached_pictures++;
    if (!q->question.trace && image->rows)
        return MVLM_OK;
    double start = seconds_now();
    square_to_pixels(image->square, &s->model->recipe, s->pixels);
    q->counters.preprocess_ms += 1e3 * (seconds_now() - start);
    TRY(trace(q, "pixels", picture, s->pixels, pixel_shape, 3, error));
    if (ends_at(q, MVLM_TO_PIXELS))
        return MVLM_OK;

    start = seconds_now();
    TRY(vision_encode(&s->compute, s->model, &s->vision, s->pixels, &features, error));
    q->counters.encode_ms += 1e3 * (seconds_now() - start);
    TRY(trace(q, "vision", picture, features, feature_shape, 2, error));
    if (ends_at(q, MVLM_TO_VISION))
        return MVLM_OK;

    start = seconds_now();
    if (!image->rows)
        TRY(image_take_rows(image, error));
    project(&s->compute, s->model, &s->projector, features, image->rows);
    q->counters.project_ms += 1e3 * (seconds_now() - start);
    TRY(weights_intact(&s->model->weights, error)); /* or zeros would be kept */
    image_cache_keep(&s->images, image);
    return trace(q, "projector", picture, image->rows, row_shape, 2, error);
}

/* The weights that only pictures need. */
static void give_back_tower(struct mvlm_session *s, const struct sequence *q)
{
    const void *bytes;
    const size_t n = weights_before(&s->model->weights, SECTION_DECODER, &bytes);
    if (q->question.n_pictures && !s->options.keep_tower)
        weights_give_back(bytes, n);
}

/* ---- Question --------------------------------------------------------------------------- */

static void count_prompt(const struct mvlm_session *s, struct sequence *q)
{
    const size_t tokens = image_tokens(&s->model->description);
    q->counters = (mvlm_counters){0};
    for (size_t i = 0; i < q->prompt.n; i++)
        if (q->prompt.ids[i] == MVLM_IMAGE_ID)
            q->counters.image_tokens += tokens;
        else
            q->counters.prompt_tokens++;
}

/* A stop text that is no UTF-8 could cut a character in two. */
static mvlm_status check_stops(const mvlm_question *question, mvlm_error *error)
{
    size_t at;
    for (size_t i = 0; i < question->n_stops; i++)
        if (!utf8_valid(question->stops[i], strlen(question->stops[i]), &at))
            return fail(error, MVLM_USAGE, "stop text %zu is no valid UTF-8: byte 0x%02x at %zu",
                        i + 1, (unsigned char)question->stops[i][at], at);
    return MVLM_OK;
}

/* Ids, sizes and memory of the question. */
static mvlm_status take_question(struct mvlm_session *s, struct sequence *q,
                                 const mvlm_question *question, mvlm_error *error)
{
    struct session_sizes sizes;
    q->state = SESSION_IDLE;
    q->question = *question;
    q->prompt.n = 0;
    sequence_close_images(q);
    TRY(sampler_start(&q->sampler, &question->sampling, error));
    TRY(check_stops(question, error));
    TRY(prompt_ids(s->model, question, &q->prompt, error));
    count_prompt(s, q);
    q->n_rows = q->counters.prompt_tokens + q->counters.image_tokens;
    if (q->n_rows == 0)
        return fail(error, MVLM_USAGE, "the prompt has no tokens");
    TRY(session_sizes_of(s->model, &s->options, q->n_rows, question->n_pictures,
                         question->max_tokens, &sizes, error));
    TRY(session_prepare(s, &sizes, error));
    q->max_tokens = sizes.max_tokens;
    q->counters.n_ctx = sizes.n_ctx;
    q->counters.n_threads = sizes.n_threads;
    q->counters.memory = s->plan;
    detokenizer_start(&q->detokenizer, s->model->tokenizer);
    answer_start(&q->answer, question->stops, question->n_stops);
    s->compute.progress = question->progress;
    s->compute.progress_user = question->progress_user;
    return MVLM_OK;
}

static mvlm_status trace_logits(struct mvlm_session *s, size_t first, size_t n_rows, void *user,
                                mvlm_error *error)
{
    const size_t shape[] = {n_rows, (size_t)s->model->description.decoder.vocab};
    (void)first;
    return trace(user, "logits", 0, s->decoder.logits, shape, 2, error);
}

static mvlm_status begin(struct mvlm_session *s, struct sequence *q, const mvlm_question *question,
                         mvlm_error *error)
{
    TRY(take_question(s, q, question, error));
    TRY(open_images(s, q, error));
    for (size_t i = 0; i < question->n_pictures; i++)
        TRY(see(s, q, i, error));
    give_back_tower(s, q);
    q->state = SESSION_ENDED;
    if (question->until != MVLM_TO_END && question->until != MVLM_TO_LOGITS)
        return MVLM_OK;
    const double start = seconds_now();
    TRY(read_prompt(s, q, question->trace ? trace_logits : NULL, q, error));
    sequence_close_images(q);
    q->counters.prefill_ms = 1e3 * (seconds_now() - start);
    if (ends_at(q, MVLM_TO_LOGITS))
        return MVLM_OK;
    for (size_t i = 0; i < q->prompt.n; i++)
        sampler_note(&q->sampler, q->prompt.ids[i]);
    q->pending = -1;
    q->state = SESSION_ANSWERING;
    return MVLM_OK;
}

mvlm_status mvlm_begin(mvlm_session *session, const mvlm_question *question, mvlm_error *error)
{
    return mvlm_sequence_begin(session, 0, question, error);
}

mvlm_status mvlm_sequence_begin(mvlm_session *session, size_t index, const mvlm_question *question,
                                mvlm_error *error)
{
    if (index >= session->options.n_sequences)
        return fail(error, MVLM_USAGE, "sequence %zu of %zu", index, session->options.n_sequences);
    struct sequence *q = &session->sequences[index];
    return session_finish(session, q, begin(session, q, question, error), error);
}

/* ---- Answer ----------------------------------------------------------------------------- */

static bool is_stop_id(const struct description *d, int32_t id)
{
    for (size_t i = 0; i < d->tokenizer.stop_ids.n; i++)
        if (d->tokenizer.stop_ids.value[i] == (double)id)
            return true;
    return false;
}

/* Samples an id and says whether the answer ends with it. */
static mvlm_finish sample(struct mvlm_session *s, struct sequence *q, mvlm_piece *piece)
{
    const struct description *d = &s->model->description;
    const int32_t id = sampler_choose(&q->sampler, s->model->kernels, q->logits);
    piece->id = id;
    if (is_stop_id(d, id))
        return MVLM_STOP;
    sampler_note(&q->sampler, id);
    q->pending = id;
    q->counters.generated_tokens++;
    const size_t n_bytes = detokenizer_push(&q->detokenizer, id, s->token_bytes);
    if (answer_push(&q->answer, s->token_bytes, n_bytes))
        return MVLM_STOP_TEXT;
    const bool full =
        q->held.n_rows == s->sizes.n_ctx || q->counters.generated_tokens == q->max_tokens;
    return full ? MVLM_LENGTH : MVLM_UNFINISHED;
}

static mvlm_status next_piece(struct mvlm_session *s, struct sequence *q, mvlm_piece *piece,
                              mvlm_error *error)
{
    const size_t shape[] = {1, (size_t)s->model->description.decoder.vocab};
    TRY(trace(q, "generated_logits", 0, q->logits, shape, 2, error));
    piece->finish = sample(s, q, piece);
    if ((piece->finish == MVLM_STOP || piece->finish == MVLM_LENGTH) &&
        answer_push(&q->answer, s->token_bytes,
                    detokenizer_finish(&q->detokenizer, s->token_bytes)))
        piece->finish = MVLM_STOP_TEXT;
    piece->text = answer_take(&q->answer, piece->finish != MVLM_UNFINISHED, &piece->n_bytes);
    if (piece->finish != MVLM_UNFINISHED)
        q->state = SESSION_ENDED;
    return MVLM_OK;
}

/* A piece of each of these answers that are under way. */
static mvlm_status step(struct mvlm_session *s, struct sequence *sequences, size_t n,
                        mvlm_piece *pieces, mvlm_error *error)
{
    const double start = seconds_now();
    TRY(read_pending(s, sequences, n, error));
    const double read_ms = 1e3 * (seconds_now() - start),
                 linear_ms = 1e3 * s->compute.linear_seconds;
    s->compute.linear_seconds = 0;
    for (size_t i = 0; i < n; i++) {
        const double sampling = seconds_now();
        pieces[i] = (mvlm_piece){.id = -1, .text = ""};
        if (sequences[i].state != SESSION_ANSWERING)
            continue;
        TRY(next_piece(s, &sequences[i], &pieces[i], error));
        sequences[i].counters.linear_ms += linear_ms;
        sequences[i].counters.generate_ms += read_ms + 1e3 * (seconds_now() - sampling);
    }
    return MVLM_OK;
}

mvlm_status mvlm_next(mvlm_session *session, mvlm_piece *piece, mvlm_error *error)
{
    struct sequence *q = &session->sequences[0];
    *piece = (mvlm_piece){.id = -1, .text = ""};
    return session_finish(session, q,
                          q->state == SESSION_ANSWERING
                              ? step(session, q, 1, piece, error)
                              : fail(error, MVLM_USAGE, "no answer is under way"),
                          error);
}

mvlm_status mvlm_step(mvlm_session *session, mvlm_piece *pieces, mvlm_error *error)
{
    return session_finish(
        session, NULL,
        step(session, session->sequences, session->options.n_sequences, pieces, error), error);
}

void mvlm_sequence_end(mvlm_session *session, size_t index)
{
    session->sequences[index].state = SESSION_ENDED;
}

mvlm_status mvlm_ask(mvlm_session *session, const mvlm_question *question, mvlm_text_fn text,
                     void *user, mvlm_error *error)
{
    mvlm_piece piece = {.finish = MVLM_UNFINISHED};
    TRY(mvlm_begin(session, question, error));
    if (question->until != MVLM_TO_END)
        return MVLM_OK;
    while (piece.finish == MVLM_UNFINISHED) {
        TRY(mvlm_next(session, &piece, error));
        if (text && piece.n_bytes && text(user, piece.text, piece.n_bytes))
            return session_finish(session, &session->sequences[0],
                                  fail(error, MVLM_CANCELLED, "stopped by the caller"), error);
    }
    return MVLM_OK;
}

void mvlm_session_counters(const mvlm_session *session, mvlm_counters *counters)
{
    mvlm_sequence_counters(session, 0, counters);
}

void mvlm_sequence_counters(const mvlm_session *session, size_t index, mvlm_counters *counters)
{
    *counters = session->sequences[index].counters;
}

const int32_t *mvlm_session_prompt_ids(const mvlm_session *session, size_t *n_ids)
{
    *n_ids = session->sequences[0].prompt.n;
    return session->sequences[0].prompt.ids;
}
