#include "read.h"

#include <string.h>

#include "linear.h"
#include "picture_kv.h"
#include "status.h"

/* ---- Rows of input ---------------------------------------------------------------------- */

/* An embedding's page brings its neighbours along, up to a quarter of a megabyte a token: without this the whole table
 * would come to count as memory in use. */
static void give_back_table(struct mvlm_session *s)
{
    const struct matrix *table = &s->model->parameters.decoder.embedding;
    if (table->layout == LAYOUT_ROWS && !s->options.keep_tower)
        weights_give_back(table->data, table->n_rows * row_bytes(table->type, table->n_cols));
}

static float *input_row(const struct mvlm_session *s, size_t row)
{
    return s->decoder.x + row * row_stride((size_t)s->model->description.decoder.hidden);
}

static void embed(struct mvlm_session *s, int32_t id, size_t row, bool alone)
{
    s->decoder.alone[row] = alone;
    matrix_row(&s->compute, &s->model->parameters.decoder.embedding, (size_t)id, input_row(s, row));
}

/* Where the next row of the sequence comes from. */
struct reader {
    const struct sequence *sequence;
    const int32_t *ids;
    size_t n_ids, at;     /* the next id */
    size_t picture, line; /* pictures met so far, rows taken of the one at `at` */
    bool alone;           /* ids too attend to themselves alone */
};

/* Fills the decoder's input with at most n rows of the sequence; returns how many. */
static size_t fill_rows(struct mvlm_session *s, struct reader *reader, size_t n)
{
    const struct description *d = &s->model->description;
    const size_t hidden = (size_t)d->decoder.hidden, tokens = image_tokens(d);
    size_t row = 0;
    for (; row < n && reader->at < reader->n_ids; row++) {
        const int32_t id = reader->ids[reader->at];
        if (id != MVLM_IMAGE_ID) {
            embed(s, id, row, reader->alone);
            reader->at++;
            continue;
        }
        s->decoder.alone[row] = d->decoder.composite_attention;
        memcpy(input_row(s, row),
               reader->sequence->images[reader->picture]->rows + reader->line * hidden,
               hidden * sizeof(float));
        if (++reader->line == tokens) {
            reader->line = 0;
            reader->picture++;
            reader->at++;
        }
    }
    give_back_table(s);
    return row;
}

/* ---- Logits ----------------------------------------------------------------------------- */

/* Row `row` of decoder.logits belongs to the sequence. */
static void keep_logits(const struct mvlm_session *s, struct sequence *q, size_t row)
{
    const size_t vocab = (size_t)s->model->description.decoder.vocab;
    memcpy(q->logits, s->decoder.logits + row * vocab, vocab * sizeof *q->logits);
}

/* Those of all n_rows rows, the first of which stands at position `first`; the last one's are kept. */
static mvlm_status give_logits(struct mvlm_session *s, struct sequence *q, size_t first,
                               size_t n_rows, logits_fn each, void *user, mvlm_error *error)
{
    for (size_t row = 0; row < n_rows; row += s->decoder.logit_rows) {
        const size_t left = n_rows - row,
                     n = left < s->decoder.logit_rows ? left : s->decoder.logit_rows;
        decoder_logits(&s->compute, s->model, &s->decoder, row, n);
        keep_logits(s, q, n - 1);
        TRY(each(s, first + row, n, user, error));
    }
    return MVLM_OK;
}

/* ---- Reading ---------------------------------------------------------------------------- */

static struct held_id held_id_of(const struct sequence *q, int32_t id, size_t *picture)
{
    struct held_id held = {.id = id};
    if (id == MVLM_IMAGE_ID)
        held.picture = q->images[(*picture)++]->digest;
    return held;
}

static size_t held_pictures(const struct held *held)
{
    size_t n = 0;
    for (size_t i = 0; i < held->n; i++)
        n += held->ids[i].id == MVLM_IMAGE_ID;
    return n;
}

/* Where reading stands, and what it does with the rows. */
struct reading {
    struct reader reader;
    size_t first,
        last; /* where the next row stands; how many the last chunk had, whose last one has logits */
    size_t n_total;
    logits_fn each;
    void *user;
};

/* Reads up to the reader's n_ids-th id. */
static mvlm_status read_part(struct mvlm_session *s, struct sequence *q, struct reading *r,
                             mvlm_error *error)
{
    const size_t chunk = s->sizes.n_rows < MAX_CHUNK ? s->sizes.n_rows : MAX_CHUNK;
    for (size_t rows; (rows = fill_rows(s, &r->reader, chunk)) > 0;
         r->first += rows, r->last = rows) {
        const struct span span = {&q->cache, r->first, rows};
        TRY(decoder_read(&s->compute, s->model, &s->decoder, &s->rope, &span, 1, !r->each,
                         "prefill", r->n_total, error));
        if (r->each)
            TRY(give_logits(s, q, r->first, rows, r->each, r->user, error));
    }
    return MVLM_OK;
}

/* The picture at hand: out of the folder if it is there, else read and put there. */
static mvlm_status read_kept_picture(struct mvlm_session *s, struct sequence *q, struct reading *r,
                                     mvlm_error *error)
{
    const struct mvlm_image *image = q->images[r->reader.picture];
    const size_t first = r->first, tokens = image_tokens(&s->model->description);
    if (picture_kv_find(s, q, image, first)) {
        r->reader.picture++;
        r->reader.at++;
        r->first += tokens;
        q->counters.reused_rows += tokens;
        return MVLM_OK;
    }
    TRY(read_part(s, q, r, error));
    TRY(weights_intact(&s->model->weights, error)); /* or zeros would be kept */
    picture_kv_keep(s, q, image, first);
    return MVLM_OK;
}

/* The next picture whose keys and values are kept, from id `at` on: not one that ends the prompt, whose logits are
 * needed. n_ids: there is none. */
static size_t next_kept(const struct mvlm_session *s, const struct sequence *q,
                        const struct reading *r, const int32_t *ids, size_t at, size_t n_ids)
{
    while (at < n_ids && (ids[at] != MVLM_IMAGE_ID || at + 1 == n_ids ||
                          !picture_kv_is_kept(s, q, r->first + at - r->reader.at)))
        at++;
    return r->each ? n_ids : at;
}

mvlm_status read_ids(struct mvlm_session *s, struct sequence *q, const int32_t *ids, size_t n_ids,
                     bool alone, size_t n_total, logits_fn each, void *user, mvlm_error *error)
{
    size_t picture = held_pictures(&q->held);
    struct reading r = {.reader = {.sequence = q, .ids = ids, .picture = picture, .alone = alone},
                        .first = q->held.n_rows,
                        .n_total = n_total,
                        .each = each,
                        .user = user};
    rope_fill(&s->rope, &s->model->description, n_total);
    while (r.reader.at < n_ids) {
        const size_t kept = next_kept(s, q, &r, ids, r.reader.at, n_ids);
        r.reader.n_ids = kept;
        TRY(read_part(s, q, &r, error));
        if (kept == n_ids)
            break;
        r.reader.n_ids = kept + 1;
        TRY(read_kept_picture(s, q, &r, error));
    }
    if (!each && r.last) {
        decoder_logits(&s->compute, s->model, &s->decoder, 0, 1);
        keep_logits(s, q, 0);
    }
    for (size_t i = 0; i < n_ids; i++) {
        struct held_id held = held_id_of(q, ids[i], &picture);
        if (alone) /* no prompt begins so */
            held.picture.low64 = 1;
        held_add(&q->held, held);
    }
    return MVLM_OK;
}

mvlm_status read_prompt(struct mvlm_session *s, struct sequence *q, logits_fn each, void *user,
                        mvlm_error *error)
{
    const bool kept = !each && (s->options.keep_cache || s->options.n_sequences > 1);
    size_t n = 0, picture = 0;
    while (kept &&
           n + 1 < q->prompt.n) { /* the last row is read in any case: its logits are needed */
        const struct held_id id = held_id_of(q, q->prompt.ids[n], &picture);
        if (n >= q->held.n || !held_same(&q->held.ids[n], &id))
            break;
        n++;
    }
    held_cut(&q->held, n);
    q->counters.reused_rows = q->held.n_rows;
    return read_ids(s, q, q->prompt.ids + n, q->prompt.n - n, false, q->n_rows, each, user, error);
}

mvlm_status read_pending(struct mvlm_session *s, struct sequence *sequences, size_t n,
                         mvlm_error *error)
{
    struct span spans[MOST_SEQUENCES];
    struct sequence *readers[MOST_SEQUENCES];
    size_t n_spans = 0;
    for (struct sequence *q = sequences; q < sequences + n; q++) {
        if (q->state != SESSION_ANSWERING || q->pending < 0)
            continue;
        rope_fill(&s->rope, &s->model->description, q->held.n_rows + 1);
        embed(s, q->pending, n_spans, false);
        readers[n_spans] = q;
        spans[n_spans++] = (struct span){&q->cache, q->held.n_rows, 1};
    }
    if (n_spans == 0)
        return MVLM_OK;
    give_back_table(s);
    TRY(decoder_read(&s->compute, s->model, &s->decoder, &s->rope, spans, n_spans, n_spans == 1,
                     "generate", spans[0].first + 1, error));
    decoder_logits(&s->compute, s->model, &s->decoder, 0, n_spans);
    for (size_t i = 0; i < n_spans; i++) {
        keep_logits(s, readers[i], i);
        held_add(&readers[i]->held, (struct held_id){.id = readers[i]->pending});
        readers[i]->pending = -1;
    }
    return MVLM_OK;
}
