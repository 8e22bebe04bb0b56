/* The answer to a question, from bytes to text:
 *
 *     picture bytes -> image -> vision -> projector --\
 *                                                      prompt -> decoder <-> kv_cache -> sampler
 *     turns -> prompt -> tokenizer -------------------/                       -> answer -> text
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "linear.h"
#include "prompt.h"
#include "session.h"
#include "status.h"
#include "utf8.h"

/* ---- Tracing ---------------------------------------------------------------------------- */

static mvlm_status trace(const struct mvlm_session *s, const char *stage, size_t picture,
                         const float *values, const size_t *shape, int n_dims, mvlm_error *error)
{
    if (s->question.trace &&
        s->question.trace(s->question.trace_user, stage, picture, values, shape, n_dims))
        return fail(error, MVLM_CANCELLED, "stopped by the trace at %s", stage);
    return MVLM_OK;
}

static bool ends_at(const struct mvlm_session *s, mvlm_stage stage)
{
    return s->question.until == stage;
}

/* ---- Pictures --------------------------------------------------------------------------- */

/* All pictures become squares before any is encoded, so that a bad one costs no time. */
static mvlm_status load_pictures(struct mvlm_session *s, mvlm_error *error)
{
    const uint64_t max_pixels = s->options.max_pixels ? s->options.max_pixels : UINT64_C(100000000);
    const struct image_recipe *recipe = &s->model->recipe;
    const size_t square = 3 * (size_t)recipe->side * (size_t)recipe->side;
    for (size_t i = 0; i < s->question.n_pictures; i++) {
        const mvlm_picture *file = &s->question.pictures[i];
        struct picture picture;
        const double start = seconds_now();
        TRY(compute_step(&s->compute, "picture", i, s->question.n_pictures, error));
        TRY(picture_decode(file->name, file->bytes, file->n_bytes, max_pixels, &picture, error));
        const double decoded = seconds_now();
        const mvlm_status status =
            picture_to_square(s->model->kernels, &picture, recipe, s->squares + i * square, error);
        picture_free(&picture);
        TRY(status);
        s->counters.decode_picture_ms += 1e3 * (decoded - start);
        s->counters.preprocess_ms += 1e3 * (seconds_now() - decoded);
    }
    return MVLM_OK;
}

/* Square -> pixels -> features -> the picture's rows; stops early where the question says so. */
static mvlm_status see(struct mvlm_session *s, size_t picture, mvlm_error *error)
{
    const struct description *d = &s->model->description;
    const size_t side = (size_t)d->image.size, hidden = (size_t)d->decoder.hidden,
                 tokens = image_tokens(d);
    const size_t patches = patches_a_side(d) * patches_a_side(d);
    const size_t pixel_shape[] = {3, side, side},
                 feature_shape[] = {patches, (size_t)d->vision.width};
    const size_t row_shape[] = {tokens, hidden};
    float *rows = s->image_rows + picture * tokens * hidden;
    const float *features;

    double start = seconds_now();
    square_to_pixels(s->squares + picture * 3 * side * side, &s->model->recipe, s->pixels);
    s->counters.preprocess_ms += 1e3 * (seconds_now() - start);
    TRY(trace(s, "pixels", picture, s->pixels, pixel_shape, 3, error));
    if (ends_at(s, MVLM_TO_PIXELS))
        return MVLM_OK;

    start = seconds_now();
    TRY(vision_encode(&s->compute, s->model, &s->vision, s->pixels, &features, error));
    s->counters.encode_ms += 1e3 * (seconds_now() - start);
    TRY(trace(s, "vision", picture, features, feature_shape, 2, error));
    if (ends_at(s, MVLM_TO_VISION))
        return MVLM_OK;

    start = seconds_now();
    project(&s->compute, s->model, &s->projector, features, rows);
    s->counters.project_ms += 1e3 * (seconds_now() - start);
    return trace(s, "projector", picture, rows, row_shape, 2, error);
}

/* ---- The prompt ------------------------------------------------------------------------- */

/* An embedding's page brings its neighbours along, up to a quarter of a megabyte a token: without this the whole table
 * would come to count as memory in use. */
static void give_back_table(struct mvlm_session *s)
{
    const struct matrix *table = &s->model->parameters.decoder.embedding;
    if (table->layout == LAYOUT_ROWS && !s->options.keep_tower)
        weights_give_back(table->data, table->n_rows * row_bytes(table->type, table->n_cols));
}

/* Where the next row of the sequence comes from. */
struct reader {
    const int32_t *ids;
    size_t n_ids, at;     /* the next id */
    size_t picture, line; /* pictures met so far, rows taken of the one at `at` */
};

/* Fills the decoder's input with at most n rows of the sequence; returns how many. */
static size_t fill_rows(struct mvlm_session *s, struct reader *reader, size_t n)
{
    const struct description *d = &s->model->description;
    const size_t hidden = (size_t)d->decoder.hidden, tokens = image_tokens(d);
    size_t row = 0;
    while (row < n && reader->at < reader->n_ids) {
        const int32_t id = reader->ids[reader->at];
        float *out = s->decoder.x + row * row_stride(hidden);
        if (id != MVLM_IMAGE_ID) {
            matrix_row(&s->compute, &s->model->parameters.decoder.embedding, (size_t)id, out);
            reader->at++;
        } else {
            memcpy(out, s->image_rows + (reader->picture * tokens + reader->line) * hidden,
                   hidden * sizeof *out);
            if (++reader->line == tokens) {
                reader->line = 0;
                reader->picture++;
                reader->at++;
            }
        }
        row++;
    }
    give_back_table(s);
    return row;
}

/* Called with logits [n_rows, vocab] of the rows from `first` on of the sequence. */
typedef mvlm_status (*logits_fn)(struct mvlm_session *s, size_t first, size_t n_rows, void *user,
                                 mvlm_error *error);

static mvlm_status give_logits(struct mvlm_session *s, size_t n_rows, logits_fn each, void *user,
                               mvlm_error *error)
{
    for (size_t row = 0; row < n_rows; row += s->decoder.logit_rows) {
        const size_t left = n_rows - row,
                     n = left < s->decoder.logit_rows ? left : s->decoder.logit_rows;
        decoder_logits(&s->compute, s->model, &s->decoder, row, n);
        TRY(each(s, s->position + row, n, user, error));
    }
    return MVLM_OK;
}

/* Reads ids from s->position on, which moves. With `each`, the logits of every row are computed and
 * handed to it; without, the last row's are left in decoder.logits. `n_total` positions are in the
 * cache when this is done. */
static mvlm_status read_ids(struct mvlm_session *s, const int32_t *ids, size_t n_ids,
                            size_t n_total, logits_fn each, void *user, mvlm_error *error)
{
    struct reader reader = {.ids = ids, .n_ids = n_ids};
    const size_t chunk = s->sizes.n_rows < MAX_CHUNK ? s->sizes.n_rows : MAX_CHUNK;
    size_t n = 0;
    for (size_t rows; (rows = fill_rows(s, &reader, chunk)) > 0; s->position += rows) {
        TRY(decoder_read(&s->compute, s->model, &s->decoder, &s->cache, s->position, rows, !each,
                         "prefill", n_total, error));
        if (each)
            TRY(give_logits(s, rows, each, user, error));
        n = rows;
    }
    if (!each && n)
        decoder_logits(&s->compute, s->model, &s->decoder, 0, 1);
    return MVLM_OK;
}

/* Reads the sequence from an empty cache. */
static mvlm_status prefill(struct mvlm_session *s, const int32_t *ids, size_t n_ids, logits_fn each,
                           void *user, mvlm_error *error)
{
    s->position = 0;
    /* here, because pictures use the same memory */
    const size_t most = s->sizes.n_rows + s->sizes.max_tokens;
    decoder_positions(&s->decoder, &s->model->description,
                      most < s->sizes.n_ctx ? most : s->sizes.n_ctx);
    return read_ids(s, ids, n_ids, s->sizes.n_rows, each, user, error);
}

static mvlm_status trace_logits(struct mvlm_session *s, size_t first, size_t n_rows, void *user,
                                mvlm_error *error)
{
    (void)user;
    (void)first;
    const size_t vocab = (size_t)s->model->description.decoder.vocab, shape[] = {n_rows, vocab};
    TRY(trace(s, "logits", 0, s->decoder.logits, shape, 2, error));
    /* whatever block comes last, its last row moves to where the sampler looks */
    memmove(s->decoder.logits, s->decoder.logits + (n_rows - 1) * vocab,
            vocab * sizeof *s->decoder.logits);
    return MVLM_OK;
}

/* ---- Question --------------------------------------------------------------------------- */

static void count_prompt(struct mvlm_session *s)
{
    const size_t tokens = image_tokens(&s->model->description);
    s->counters = (mvlm_counters){0};
    s->compute.linear_seconds = 0;
    for (size_t i = 0; i < s->prompt.n; i++)
        if (s->prompt.ids[i] == MVLM_IMAGE_ID)
            s->counters.image_tokens += tokens;
        else
            s->counters.prompt_tokens++;
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
static mvlm_status take_question(struct mvlm_session *s, const mvlm_question *question,
                                 mvlm_error *error)
{
    struct session_sizes sizes;
    s->state = SESSION_IDLE;
    s->question = *question;
    s->prompt.n = 0;
    TRY(sampler_start(&s->sampler, &question->sampling, error));
    TRY(check_stops(question, error));
    TRY(prompt_ids(s->model, question, &s->prompt, error));
    count_prompt(s);
    const size_t rows = s->counters.prompt_tokens + s->counters.image_tokens;
    if (rows == 0)
        return fail(error, MVLM_USAGE, "the prompt has no tokens");
    TRY(session_sizes_of(s->model, &s->options, rows, question->n_pictures, question->max_tokens,
                         &sizes, error));
    TRY(session_prepare(s, &sizes, error));
    s->counters.n_ctx = sizes.n_ctx;
    s->counters.n_threads = sizes.n_threads;
    s->counters.memory = s->plan;
    answer_start(&s->answer, question->stops, question->n_stops);
    s->compute.progress = question->progress;
    s->compute.progress_user = question->progress_user;
    return MVLM_OK;
}

/* The weights that only pictures need. */
static void give_back_tower(struct mvlm_session *s)
{
    const void *bytes;
    const size_t n = weights_before(&s->model->weights, SECTION_DECODER, &bytes);
    if (s->question.n_pictures && !s->options.keep_tower)
        weights_give_back(bytes, n);
}

static mvlm_status begin(struct mvlm_session *s, const mvlm_question *question, mvlm_error *error)
{
    TRY(take_question(s, question, error));
    TRY(load_pictures(s, error));
    for (size_t i = 0; i < question->n_pictures; i++)
        TRY(see(s, i, error));
    give_back_tower(s);
    s->state = SESSION_ENDED;
    if (question->until != MVLM_TO_END && question->until != MVLM_TO_LOGITS)
        return MVLM_OK;
    const double start = seconds_now();
    TRY(prefill(s, s->prompt.ids, s->prompt.n, question->trace ? trace_logits : NULL, NULL, error));
    s->counters.prefill_ms = 1e3 * (seconds_now() - start);
    if (ends_at(s, MVLM_TO_LOGITS))
        return MVLM_OK;
    for (size_t i = 0; i < s->prompt.n; i++)
        sampler_note(&s->sampler, s->prompt.ids[i]);
    s->pending = -1;
    s->state = SESSION_ANSWERING;
    return MVLM_OK;
}

mvlm_status mvlm_begin(mvlm_session *session, const mvlm_question *question, mvlm_error *error)
{
    return session_finish(session, begin(session, question, error));
}

/* ---- Answer ----------------------------------------------------------------------------- */

static bool is_stop_id(const struct description *d, int32_t id)
{
    for (size_t i = 0; i < d->tokenizer.stop_ids.n; i++)
        if (d->tokenizer.stop_ids.value[i] == (double)id)
            return true;
    return false;
}

/* Reads the pending id, so that decoder.logits tell of the one after it. */
static mvlm_status step(struct mvlm_session *s, mvlm_error *error)
{
    matrix_row(&s->compute, &s->model->parameters.decoder.embedding, (size_t)s->pending,
               s->decoder.x);
    give_back_table(s);
    TRY(decoder_read(&s->compute, s->model, &s->decoder, &s->cache, s->position, 1, true,
                     "generate", s->position + 1, error));
    decoder_logits(&s->compute, s->model, &s->decoder, 0, 1);
    s->position++;
    s->pending = -1;
    return MVLM_OK;
}

/* Samples an id and says whether the answer ends with it. */
static mvlm_finish sample(struct mvlm_session *s, mvlm_piece *piece)
{
    const struct description *d = &s->model->description;
    const int32_t id = sampler_choose(&s->sampler, s->model->kernels, s->decoder.logits);
    piece->id = id;
    if (is_stop_id(d, id))
        return MVLM_STOP;
    sampler_note(&s->sampler, id);
    s->pending = id;
    s->counters.generated_tokens++;
    const size_t n_bytes = tokenizer_bytes(s->model->tokenizer, id, s->token_bytes);
    if (answer_push(&s->answer, s->token_bytes, n_bytes))
        return MVLM_STOP_TEXT;
    const bool full =
        s->position == s->sizes.n_ctx || s->counters.generated_tokens == s->sizes.max_tokens;
    return full ? MVLM_LENGTH : MVLM_UNFINISHED;
}

static mvlm_status next(struct mvlm_session *s, mvlm_piece *piece, mvlm_error *error)
{
    const size_t shape[] = {1, (size_t)s->model->description.decoder.vocab};
    const double start = seconds_now();
    if (s->state != SESSION_ANSWERING)
        return fail(error, MVLM_USAGE, "no answer is under way");
    if (s->pending >= 0)
        TRY(step(s, error));
    TRY(trace(s, "generated_logits", 0, s->decoder.logits, shape, 2, error));
    piece->finish = sample(s, piece);
    piece->text = answer_take(&s->answer, piece->finish != MVLM_UNFINISHED, &piece->n_bytes);
    if (piece->finish != MVLM_UNFINISHED)
        s->state = SESSION_ENDED;
    s->counters.generate_ms += 1e3 * (seconds_now() - start);
    return MVLM_OK;
}

mvlm_status mvlm_next(mvlm_session *session, mvlm_piece *piece, mvlm_error *error)
{
    *piece = (mvlm_piece){.id = -1, .text = ""};
    return session_finish(session, next(session, piece, error));
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
            return session_finish(session, fail(error, MVLM_CANCELLED, "stopped by the caller"));
    }
    return MVLM_OK;
}

void mvlm_session_counters(const mvlm_session *session, mvlm_counters *counters)
{
    *counters = session->counters;
}

const int32_t *mvlm_session_prompt_ids(const mvlm_session *session, size_t *n_ids)
{
    *n_ids = session->prompt.n;
    return session->prompt.ids;
}

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
static mvlm_status begin_reading(struct mvlm_session *s, mvlm_error *error)
{
    struct session_sizes sizes;
    if (s->state != SESSION_READING) {
        TRY(session_sizes_of(s->model, &s->options, 0, 0, 1, &sizes, error));
        TRY(session_prepare(s, &sizes, error));
        decoder_positions(&s->decoder, &s->model->description, sizes.n_ctx);
        s->state = SESSION_READING;
    }
    s->position = 0;
    return MVLM_OK;
}

static mvlm_status read_rows(struct mvlm_session *s, size_t position, const int32_t *ids,
                             size_t n_ids, mvlm_error *error)
{
    TRY(check_ids(s, ids, n_ids, error));
    const double start = seconds_now();
    s->compute.linear_seconds = 0;
    if (position == 0)
        TRY(begin_reading(s, error));
    if (s->state != SESSION_READING || position > s->position)
        return fail(error, MVLM_USAGE, "position %zu cannot be read: those below it were not",
                    position);
    if (n_ids > s->sizes.n_ctx - position)
        return fail(error, MVLM_USAGE, "%zu ids from position %zu on: the context has %zu", n_ids,
                    position, s->sizes.n_ctx);
    s->position = position;
    s->counters = (mvlm_counters){.prompt_tokens = n_ids,
                                  .n_ctx = s->sizes.n_ctx,
                                  .n_threads = s->sizes.n_threads,
                                  .memory = s->plan};
    TRY(read_ids(s, ids, n_ids, position + n_ids, NULL, NULL, error));
    s->counters.prefill_ms = 1e3 * (seconds_now() - start);
    return MVLM_OK;
}

mvlm_status mvlm_read(mvlm_session *session, size_t position, const int32_t *ids, size_t n_ids,
                      mvlm_error *error)
{
    return session_finish(session, read_rows(session, position, ids, n_ids, error));
}

/* ---- Likelihood ------------------------------------------------------------------------- */

struct score_job {
    const int32_t *ids;
    size_t n_ids;
    float *losses;
};

/* -log softmax(logits)[the id that follows], in double precision. */
static mvlm_status score_rows(struct mvlm_session *s, size_t first, size_t n_rows, void *user,
                              mvlm_error *error)
{
    (void)error;
    const struct score_job *job = user;
    const size_t vocab = (size_t)s->model->description.decoder.vocab;
    for (size_t row = 0; row < n_rows && first + row + 1 < job->n_ids; row++) {
        const float *logits = s->decoder.logits + row * vocab;
        double most = (double)logits[0], sum = 0;
        for (size_t i = 1; i < vocab; i++)
            most = (double)logits[i] > most ? (double)logits[i] : most;
        for (size_t i = 0; i < vocab; i++)
            sum += exp((double)logits[i] - most);
        job->losses[first + row] =
            (float)(most + log(sum) - (double)logits[job->ids[first + row + 1]]);
    }
    return MVLM_OK;
}

static mvlm_status score(struct mvlm_session *s, struct score_job *job, mvlm_error *error)
{
    struct session_sizes sizes;
    s->state = SESSION_IDLE;
    s->counters = (mvlm_counters){0};
    s->compute.linear_seconds = 0;
    TRY(check_ids(s, job->ids, job->n_ids, error));
    if (job->n_ids == 0)
        return MVLM_OK;
    TRY(session_sizes_of(s->model, &s->options, job->n_ids, 0, 1, &sizes, error));
    TRY(session_prepare(s, &sizes, error));
    return prefill(s, job->ids, job->n_ids, score_rows, job, error);
}

mvlm_status mvlm_score(mvlm_session *session, const int32_t *ids, size_t n_ids, float *losses,
                       mvlm_error *error)
{
    struct score_job job = {ids, n_ids, losses};
    return session_finish(session, score(session, &job, error));
}
