/* checkpoint -> config, names -> directory -> [rows -> f32 -> tiles -> file] for each tensor ->
 * header. Streams: while one thread hashes and writes a block of tiles, the others pack the next.
 */
#include "convert.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#define XXH_STATIC_LINKING_ONLY /* the streaming state on the stack */
#include <xxhash.h>

#include "status.h"
#include "threads.h"
#include "tokenizer.h"
#include "weights.h"
#include "config.h"
#include "names.h"
#include "writer.h"

enum { TILE = FORMAT_TILE, BLOCK_BYTES = 1 << 20 };

struct conversion {
    const struct convert_options *options;
    const struct kernels *kernels;
    int n_threads;
    struct checkpoint *checkpoint;
    struct sentencepiece tokenizer;
    struct config config;
    struct tensor_spec *specs;       /* [n] */
    struct source *sources;          /* [n] */
    struct format_tensor *directory; /* [n] */
    size_t n;
    struct format_header header;
    uint8_t *front; /* [header.data.offset], what stands before the data */
    struct writer writer;
    struct convert_report *report;
};

/* ---- Plan ------------------------------------------------------------------------------- */

static mvlm_status find_sources(struct conversion *c, mvlm_error *error)
{
    c->n = schema_list(&c->config.description, NULL);
    c->specs = calloc(c->n, sizeof *c->specs);
    c->sources = calloc(c->n, sizeof *c->sources);
    c->directory = calloc(c->n, sizeof *c->directory);
    if (!c->specs || !c->sources || !c->directory)
        return fail_no_memory(error, "the list of tensors", c->n * sizeof *c->specs);
    schema_list(&c->config.description, c->specs);
    for (size_t i = 0; i < c->n; i++)
        TRY(names_find(c->checkpoint, &c->config, &c->specs[i], &c->sources[i], error));
    return names_check_leftovers(c->checkpoint, &c->config, error);
}

/* Where everything will lie; only digests are still unknown. */
static void plan_file(struct conversion *c)
{
    struct format_header *h = &c->header;
    *h = (struct format_header){.version = FORMAT_VERSION,
                                .header_bytes = FORMAT_HEADER_BYTES,
                                .n_tensors = (uint32_t)c->n};
    memcpy(h->magic, FORMAT_MAGIC, sizeof h->magic);
    h->description = (struct format_range){aligned(FORMAT_HEADER_BYTES, FORMAT_ALIGN),
                                           description_encode(&c->config.description, NULL)};
    h->tokenizer =
        (struct format_range){aligned(h->description.offset + h->description.n_bytes, FORMAT_ALIGN),
                              sentencepiece_encode(&c->tokenizer, NULL)};
    h->directory =
        (struct format_range){aligned(h->tokenizer.offset + h->tokenizer.n_bytes, FORMAT_ALIGN),
                              c->n * sizeof(struct format_tensor)};
    h->data.offset = aligned(h->directory.offset + h->directory.n_bytes, FORMAT_SECTION_ALIGN);
    h->file_bytes = schema_place(c->specs, c->n, c->options->type, h->data.offset, c->directory);
    h->data.n_bytes = h->file_bytes - h->data.offset;
}

/* ---- Tensors ---------------------------------------------------------------------------- */

struct packed_block {
    uint8_t *out;
    struct pack_error *losses; /* [tiles_a_block] */
    size_t first, n_tiles;     /* of the tensor; 0: empty */
};

/* One tensor on its way: tiles (or, of tables, groups of 32 rows), a block of them at a time. */
struct stream {
    struct conversion *c;
    const struct format_tensor *entry;
    const struct source_tensor *source;
    size_t tile_bytes, tiles_a_block, n_tiles;
    float *rows, *scratch;                /* [n_threads][TILE x n_cols] */
    struct packed_block packing, writing; /* the block under way, and the one before */
    uint64_t left; /* bytes not yet written: a table's last group may be short */
    XXH3_state_t *hash;
    struct pack_error *loss;
    mvlm_status *statuses; /* [n_threads] */
    mvlm_error *errors;    /* [n_threads] */
};

static mvlm_status write_block(struct stream *s, mvlm_error *error)
{
    struct conversion *c = s->c;
    const size_t full = s->writing.n_tiles * s->tile_bytes,
                 n_bytes = s->left < full ? (size_t)s->left : full;
    for (size_t i = 0; i < s->writing.n_tiles; i++)
        pack_error_add(s->loss, &s->writing.losses[i]);
    XXH3_128bits_update(s->hash, s->writing.out, n_bytes);
    TRY(writer_append(&c->writer, s->writing.out, n_bytes, error));
    s->left -= n_bytes;
    if (c->options->progress)
        c->options->progress(c->options->progress_user, c->writer.position, c->header.file_bytes);
    return MVLM_OK;
}

static mvlm_status pack_block_tile(const struct stream *s, size_t index, int thread,
                                   mvlm_error *error)
{
    const struct format_tensor *t = s->entry;
    const size_t row = (s->packing.first + index) * TILE, left = (size_t)t->n_rows - row,
                 n_cols = (size_t)t->n_cols;
    const size_t n_rows = left < TILE ? left : TILE;
    float *rows = s->rows + (size_t)thread * TILE * n_cols,
          *scratch = s->scratch + (size_t)thread * TILE * n_cols;
    uint8_t *out = s->packing.out + index * s->tile_bytes;
    struct pack_error *loss = &s->packing.losses[index];
    *loss = (struct pack_error){0};
    TRY(checkpoint_read(s->c->checkpoint, s->source, (int64_t)row, (int64_t)n_rows, rows, error));
    if (t->layout == LAYOUT_TILES)
        pack_tile(s->c->kernels, t->type, rows, n_rows, n_cols, scratch, out, loss);
    else
        pack_row(s->c->kernels, t->type, rows, n_rows * n_cols, out, loss);
    return MVLM_OK;
}

/* Task 0 writes the block before, the others pack a tile each. */
static void run_task(void *argument, size_t index, int thread)
{
    struct stream *s = argument;
    if (s->statuses[thread] != MVLM_OK)
        return;
    if (index > 0)
        s->statuses[thread] = pack_block_tile(s, index - 1, thread, &s->errors[thread]);
    else if (s->writing.n_tiles)
        s->statuses[thread] = write_block(s, &s->errors[thread]);
}

static mvlm_status run_stream(struct stream *s, mvlm_error *error)
{
    s->writing.n_tiles = 0;
    for (size_t first = 0; first < s->n_tiles || s->writing.n_tiles; first += s->tiles_a_block) {
        const size_t left = first < s->n_tiles ? s->n_tiles - first : 0;
        s->packing.first = first;
        s->packing.n_tiles = left < s->tiles_a_block ? left : s->tiles_a_block;
        threads_run(s->c->n_threads, s->packing.n_tiles + 1, run_task, s);
        for (int thread = 0; thread < s->c->n_threads; thread++)
            if (s->statuses[thread] != MVLM_OK)
                return fail(error, s->statuses[thread], "%s", s->errors[thread].message);
        const struct packed_block written = s->writing;
        s->writing = s->packing;
        s->packing = written;
    }
    return MVLM_OK;
}

static mvlm_status write_matrix(struct conversion *c, size_t index, XXH3_state_t *hash,
                                struct pack_error *loss, mvlm_error *error)
{
    const struct format_tensor *t = &c->directory[index];
    const size_t tile_values = (size_t)TILE * (size_t)t->n_cols, threads = (size_t)c->n_threads;
    struct stream s = {.c = c,
                       .entry = t,
                       .source = c->sources[index].tensor,
                       .left = t->range.n_bytes,
                       .hash = hash,
                       .loss = loss};
    s.tile_bytes = tile_values * tensor_value_bytes(t->type);
    s.n_tiles = ((size_t)t->n_rows + TILE - 1) / TILE;
    s.tiles_a_block = BLOCK_BYTES / s.tile_bytes > threads ? BLOCK_BYTES / s.tile_bytes : threads;
    s.rows = malloc(threads * tile_values * sizeof *s.rows);
    s.scratch = malloc(threads * tile_values * sizeof *s.scratch);
    s.packing.out = malloc(s.tiles_a_block * s.tile_bytes);
    s.writing.out = malloc(s.tiles_a_block * s.tile_bytes);
    s.packing.losses = calloc(s.tiles_a_block, sizeof *s.packing.losses);
    s.writing.losses = calloc(s.tiles_a_block, sizeof *s.writing.losses);
    s.statuses = calloc(threads, sizeof *s.statuses);
    s.errors = calloc(threads, sizeof *s.errors);
    mvlm_status status;
    if (s.rows && s.scratch && s.packing.out && s.writing.out && s.packing.losses &&
        s.writing.losses && s.statuses && s.errors)
        status = run_stream(&s, error);
    else
        status = fail_no_memory(error, "a block of tiles", s.tiles_a_block * s.tile_bytes);
    free(s.rows);
    free(s.scratch);
    free(s.packing.out);
    free(s.writing.out);
    free(s.packing.losses);
    free(s.writing.losses);
    free(s.statuses);
    free(s.errors);
    return status;
}

/* Small tensors stay f32; depthwise taps [channels, 9] become [9, channels]. */
static mvlm_status write_vector(struct conversion *c, size_t index, XXH3_state_t *hash,
                                mvlm_error *error)
{
    const struct format_tensor *t = &c->directory[index];
    const struct source *source = &c->sources[index];
    const size_t rows = (size_t)t->n_rows, columns = (size_t)t->n_cols, n = rows * columns;
    float *values = malloc(2 * n * sizeof *values);
    if (!values)
        return fail_no_memory(error, t->name, 2 * n * sizeof *values);
    float *out = values + n;
    mvlm_status status =
        checkpoint_read(c->checkpoint, source->tensor, 0, source->tensor->shape[0], values, error);
    for (size_t r = 0; r < rows && status == MVLM_OK; r++)
        for (size_t i = 0; i < columns; i++)
            out[r * columns + i] =
                source->transposed ? values[i * rows + r] : values[r * columns + i];
    if (status == MVLM_OK) {
        XXH3_128bits_update(hash, out, n * sizeof *out);
        status = writer_append(&c->writer, out, n * sizeof *out, error);
    }
    free(values);
    return status;
}

static void report_loss(struct convert_report *report, const struct tensor_spec *spec,
                        enum tensor_type type, const struct pack_error *loss)
{
    size_t i = 0;
    if (!report || type == TENSOR_F32)
        return;
    while (i < report->n_losses && strcmp(report->losses[i].pattern, spec->pattern) != 0)
        i++;
    if (i == MAX_LOSSES)
        return;
    struct convert_loss *row = &report->losses[i];
    if (i == report->n_losses) {
        *row = (struct convert_loss){.pattern = spec->pattern, .type = type};
        report->n_losses++;
    }
    const double relative = loss->squares > 0 ? sqrt(loss->differences / loss->squares) : 0;
    row->n_tensors++;
    row->sum += relative;
    row->worst = relative > row->worst ? relative : row->worst;
}

static mvlm_status write_tensor(struct conversion *c, size_t index, mvlm_error *error)
{
    const float most_f16 = 65504.0f;
    struct format_tensor *t = &c->directory[index];
    struct pack_error loss = {0};
    XXH3_state_t hash;
    XXH128_canonical_t digest;
    XXH3_128bits_reset(&hash);
    TRY(writer_pad(&c->writer, t->range.offset, error));
    if (c->specs[index].kind == TENSOR_VECTOR)
        TRY(write_vector(c, index, &hash, error));
    else
        TRY(write_matrix(c, index, &hash, &loss, error));
    if (t->type == TENSOR_F16 && loss.largest > most_f16)
        return fail(error, MVLM_BAD_MODEL,
                    "%s: tensor %s: value of magnitude %g is beyond f16's %g; use --type f32",
                    checkpoint_file(c->checkpoint, c->sources[index].tensor),
                    c->sources[index].tensor->name, (double)loss.largest, (double)most_f16);
    XXH128_canonicalFromHash(&digest, XXH3_128bits_digest(&hash));
    memcpy(t->digest, digest.digest, sizeof t->digest);
    report_loss(c->report, &c->specs[index], t->type, &loss);
    return MVLM_OK;
}

/* ---- The whole -------------------------------------------------------------------------- */

/* Description and tokenizer, which are known before the data. What mobilevlm would refuse to open (a
 * norm's epsilon out of range, a piece that stands twice) is refused here, by the very code that
 * opens. */
static mvlm_status begin_front(struct conversion *c, mvlm_error *error)
{
    const struct format_header *h = &c->header;
    struct description description;
    struct tokenizer *tokenizer;
    c->front = calloc(1, (size_t)h->data.offset);
    if (!c->front)
        return fail_no_memory(error, "the header", (size_t)h->data.offset);
    description_encode(&c->config.description, c->front + h->description.offset);
    sentencepiece_encode(&c->tokenizer, c->front + h->tokenizer.offset);
    TRY(description_decode("config.json", c->front + h->description.offset,
                           (size_t)h->description.n_bytes, &description, error));
    TRY(tokenizer_open("tokenizer.model", &description, c->front + h->tokenizer.offset,
                       (size_t)h->tokenizer.n_bytes, &tokenizer, error));
    tokenizer_close(tokenizer);
    return MVLM_OK;
}

/* The directory, whose digests are known now, and the header with the digest of it all. */
static mvlm_status finish_front(struct conversion *c, mvlm_error *error)
{
    const size_t n = (size_t)c->header.data.offset;
    memcpy(c->front + c->header.directory.offset, c->directory, c->n * sizeof *c->directory);
    memcpy(c->front, &c->header, sizeof c->header);
    digest_of_front(c->front, n, c->header.digest);
    memcpy(c->front, &c->header, sizeof c->header);
    return writer_finish(&c->writer, c->front, n, error);
}

static mvlm_status run(struct conversion *c, const char *folder, const char *path,
                       mvlm_error *error)
{
    TRY(checkpoint_open(folder, &c->checkpoint, error));
    TRY(sentencepiece_open(folder, &c->tokenizer, error));
    TRY(config_open(folder, &c->tokenizer, &c->config, error));
    TRY(find_sources(c, error));
    plan_file(c);
    TRY(begin_front(c, error));
    TRY(writer_open(&c->writer, path, c->options->force, c->options->stop, error));
    TRY(writer_pad(&c->writer, c->header.data.offset, error));
    for (size_t i = 0; i < c->n; i++)
        TRY(write_tensor(c, i, error));
    return finish_front(c, error);
}

static void close_all(struct conversion *c)
{
    writer_close(&c->writer);
    free(c->front);
    free(c->specs);
    free(c->sources);
    free(c->directory);
    config_close(&c->config);
    sentencepiece_close(&c->tokenizer);
    checkpoint_close(c->checkpoint);
}

mvlm_status convert(const char *folder, const char *path, const struct convert_options *options,
                    struct convert_report *report, mvlm_error *error)
{
    bool known;
    struct conversion c = {.options = options,
                           .kernels = kernels_choose(NULL, &known),
                           .report = report,
                           .writer.file = -1};
    c.n_threads = options->n_threads ? options->n_threads : threads_available();
    if (report)
        memset(report, 0, sizeof *report);
    const mvlm_status status = run(&c, folder, path, error);
    if (status == MVLM_OK && report) {
        report->n_tensors = c.n;
        report->n_bytes = c.header.file_bytes;
        digest_text(c.header.digest, report->digest);
    }
    close_all(&c);
    return status;
}
