/* checkpoint -> config, names -> directory -> [rows -> f32 -> tiles -> file] for each tensor -> header.
 * Streams: a block of tiles at a time, packed by all threads, then hashed and written by one. */
#include "convert.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#define XXH_STATIC_LINKING_ONLY /* the streaming state on the stack */
#include <xxhash.h>

#include "model.h"
#include "status.h"
#include "threads.h"
#include "config.h"
#include "names.h"
#include "writer.h"

enum { TILE = FORMAT_TILE, BLOCK_BYTES = 8 << 20 };

struct conversion {
    const struct convert_options *options;
    const struct kernels *kernels;
    int n_threads;
    struct checkpoint *checkpoint;
    struct sentencepiece tokenizer;
    struct config config;
    struct tensor_spec *specs;        /* [n] */
    struct source *sources;           /* [n] */
    struct format_tensor *directory;  /* [n] */
    size_t n;
    struct format_header header;
    struct writer writer;
    struct convert_report *report;
};

/* ---- Plan ------------------------------------------------------------------------------------- */

static uint64_t aligned(uint64_t position, uint64_t align)
{
    return (position + align - 1) / align * align;
}

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
    *h = (struct format_header){.version = FORMAT_VERSION, .header_bytes = FORMAT_HEADER_BYTES,
                                .n_tensors = (uint32_t)c->n};
    memcpy(h->magic, FORMAT_MAGIC, sizeof h->magic);
    h->description = (struct format_range){aligned(FORMAT_HEADER_BYTES, FORMAT_ALIGN),
                                           description_encode(&c->config.description, NULL)};
    h->tokenizer = (struct format_range){aligned(h->description.offset + h->description.n_bytes, FORMAT_ALIGN),
                                         sentencepiece_encode(&c->tokenizer, NULL)};
    h->directory = (struct format_range){aligned(h->tokenizer.offset + h->tokenizer.n_bytes, FORMAT_ALIGN),
                                         c->n * sizeof(struct format_tensor)};
    h->data.offset = aligned(h->directory.offset + h->directory.n_bytes, FORMAT_SECTION_ALIGN);
    uint64_t position = h->data.offset;
    for (size_t i = 0; i < c->n; i++) {
        const struct tensor_spec *spec = &c->specs[i];
        struct format_tensor *t = &c->directory[i];
        strcpy(t->name, spec->name);
        t->type = spec->kind == TENSOR_VECTOR ? TENSOR_F32 : (uint8_t)c->options->type;
        t->layout = spec->kind == TENSOR_MATRIX ? LAYOUT_TILES : LAYOUT_ROWS;
        t->section = (uint8_t)spec->section;
        t->n_rows = (uint64_t)spec->n_rows;
        t->n_cols = (uint64_t)spec->n_cols;
        const bool new_section = i > 0 && t->section != c->directory[i - 1].section;
        t->range.offset = aligned(position, new_section ? FORMAT_SECTION_ALIGN : FORMAT_ALIGN);
        t->range.n_bytes = tensor_bytes(t->type, t->layout, t->n_rows, t->n_cols);
        position = t->range.offset + t->range.n_bytes;
    }
    h->data.n_bytes = position - h->data.offset;
    h->file_bytes = position;
}

/* ---- Tensors ---------------------------------------------------------------------------------- */

/* One block of one tensor: tiles (or, of tables, groups of 32 rows) from `first` on. */
struct block {
    const struct conversion *c;
    const struct format_tensor *entry;
    const struct source_tensor *source;
    size_t first;
    uint8_t *out;               /* packed */
    float *rows, *scratch;      /* [n_threads][TILE x n_cols] */
    struct pack_error *losses;  /* [n tiles of the block] */
    mvlm_status *statuses;      /* [n_threads] */
    mvlm_error *errors;         /* [n_threads] */
};

static size_t value_size(const struct format_tensor *t)
{
    return t->type == TENSOR_F16 ? 2 : 4;
}

static void pack_one(void *argument, size_t index, int thread)
{
    const struct block *b = argument;
    const struct format_tensor *t = b->entry;
    const size_t row = (b->first + index) * TILE, left = (size_t)t->n_rows - row, n_cols = (size_t)t->n_cols;
    const size_t n_rows = left < TILE ? left : TILE, tile_values = (size_t)TILE * n_cols;
    float *rows = b->rows + (size_t)thread * tile_values, *scratch = b->scratch + (size_t)thread * tile_values;
    uint8_t *out = b->out + index * tile_values * value_size(t);
    b->losses[index] = (struct pack_error){0};
    if (b->statuses[thread] != MVLM_OK)
        return;
    b->statuses[thread] = checkpoint_read(b->c->checkpoint, b->source, (int64_t)row, (int64_t)n_rows, rows,
                                          &b->errors[thread]);
    if (b->statuses[thread] != MVLM_OK)
        return;
    if (t->layout == LAYOUT_TILES)
        pack_tile(b->c->kernels, t->type, rows, n_rows, n_cols, scratch, out, &b->losses[index]);
    else
        pack_row(b->c->kernels, t->type, rows, n_rows * n_cols, out, &b->losses[index]);
}

/* Packs and writes a whole tensor, a block of tiles at a time. */
static mvlm_status write_blocks(struct conversion *c, struct block *b, size_t tiles_a_block, XXH3_state_t *hash,
                                struct pack_error *loss, mvlm_error *error)
{
    const struct format_tensor *t = b->entry;
    const size_t n_tiles = ((size_t)t->n_rows + TILE - 1) / TILE;
    const size_t tile_bytes = (size_t)TILE * (size_t)t->n_cols * value_size(t);
    uint64_t left = t->range.n_bytes; /* a table's last group may be short */
    for (b->first = 0; b->first < n_tiles; b->first += tiles_a_block) {
        const size_t n = n_tiles - b->first < tiles_a_block ? n_tiles - b->first : tiles_a_block;
        threads_run(c->n_threads, n, pack_one, b);
        for (int thread = 0; thread < c->n_threads; thread++)
            if (b->statuses[thread] != MVLM_OK)
                return fail(error, b->statuses[thread], "%s", b->errors[thread].message);
        for (size_t i = 0; i < n; i++)
            pack_error_add(loss, &b->losses[i]);
        const size_t n_bytes = left < n * tile_bytes ? (size_t)left : n * tile_bytes;
        XXH3_128bits_update(hash, b->out, n_bytes);
        TRY(writer_append(&c->writer, b->out, n_bytes, error));
        left -= n_bytes;
        if (c->options->progress)
            c->options->progress(c->options->progress_user, c->writer.position, c->header.file_bytes);
    }
    return MVLM_OK;
}

static mvlm_status write_matrix(struct conversion *c, size_t index, XXH3_state_t *hash, struct pack_error *loss,
                                mvlm_error *error)
{
    const struct format_tensor *t = &c->directory[index];
    const size_t tile_values = (size_t)TILE * (size_t)t->n_cols, threads = (size_t)c->n_threads;
    const size_t n_tiles = ((size_t)t->n_rows + TILE - 1) / TILE;
    size_t tiles = BLOCK_BYTES / (tile_values * value_size(t));
    tiles = tiles < threads ? threads : tiles;
    tiles = tiles > n_tiles ? n_tiles : tiles;
    struct block b = {.c = c, .entry = t, .source = c->sources[index].tensor};
    b.out = malloc(tiles * tile_values * value_size(t));
    b.rows = malloc(threads * tile_values * sizeof *b.rows);
    b.scratch = malloc(threads * tile_values * sizeof *b.scratch);
    b.losses = calloc(tiles, sizeof *b.losses);
    b.statuses = calloc(threads, sizeof *b.statuses);
    b.errors = calloc(threads, sizeof *b.errors);
    mvlm_status status;
    if (b.out && b.rows && b.scratch && b.losses && b.statuses && b.errors)
        status = write_blocks(c, &b, tiles, hash, loss, error);
    else
        status = fail_no_memory(error, "a block of tiles", tiles * tile_values * sizeof(float));
    free(b.out);
    free(b.rows);
    free(b.scratch);
    free(b.losses);
    free(b.statuses);
    free(b.errors);
    return status;
}

/* Small tensors stay f32; depthwise taps [channels, 9] become [9, channels]. */
static mvlm_status write_vector(struct conversion *c, size_t index, XXH3_state_t *hash, mvlm_error *error)
{
    const struct format_tensor *t = &c->directory[index];
    const struct source *source = &c->sources[index];
    const size_t rows = (size_t)t->n_rows, columns = (size_t)t->n_cols, n = rows * columns;
    float *values = malloc(2 * n * sizeof *values);
    if (!values)
        return fail_no_memory(error, t->name, 2 * n * sizeof *values);
    float *out = values + n;
    mvlm_status status = checkpoint_read(c->checkpoint, source->tensor, 0, source->tensor->shape[0], values, error);
    for (size_t r = 0; r < rows && status == MVLM_OK; r++)
        for (size_t i = 0; i < columns; i++)
            out[r * columns + i] = source->transposed ? values[i * rows + r] : values[r * columns + i];
    if (status == MVLM_OK) {
        XXH3_128bits_update(hash, out, n * sizeof *out);
        status = writer_append(&c->writer, out, n * sizeof *out, error);
    }
    free(values);
    return status;
}

static void report_loss(struct convert_report *report, const struct tensor_spec *spec, enum tensor_type type,
                        const struct pack_error *loss)
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
        return fail(error, MVLM_BAD_MODEL, "%s: tensor %s: value of magnitude %g is beyond f16's %g; use --type f32",
                    checkpoint_file(c->checkpoint, c->sources[index].tensor), c->sources[index].tensor->name,
                    (double)loss.largest, (double)most_f16);
    XXH128_canonicalFromHash(&digest, XXH3_128bits_digest(&hash));
    memcpy(t->digest, digest.digest, sizeof t->digest);
    report_loss(c->report, &c->specs[index], t->type, &loss);
    return MVLM_OK;
}

/* ---- The whole -------------------------------------------------------------------------------- */

static mvlm_status write_front(struct conversion *c, mvlm_error *error)
{
    const size_t n = (size_t)c->header.data.offset;
    uint8_t *front = calloc(1, n);
    if (!front)
        return fail_no_memory(error, "the header", n);
    description_encode(&c->config.description, front + c->header.description.offset);
    sentencepiece_encode(&c->tokenizer, front + c->header.tokenizer.offset);
    memcpy(front + c->header.directory.offset, c->directory, c->n * sizeof *c->directory);
    memcpy(front, &c->header, sizeof c->header);
    digest_of_front(front, n, c->header.digest);
    memcpy(front, &c->header, sizeof c->header);
    const mvlm_status status = writer_finish(&c->writer, front, n, error);
    free(front);
    return status;
}

static mvlm_status run(struct conversion *c, const char *folder, const char *path, mvlm_error *error)
{
    TRY(checkpoint_open(folder, &c->checkpoint, error));
    TRY(sentencepiece_open(folder, &c->tokenizer, error));
    TRY(config_open(folder, &c->tokenizer, &c->config, error));
    TRY(find_sources(c, error));
    plan_file(c);
    TRY(writer_open(&c->writer, path, c->options->force, c->options->stop, error));
    TRY(writer_pad(&c->writer, c->header.data.offset, error));
    for (size_t i = 0; i < c->n; i++)
        TRY(write_tensor(c, i, error));
    return write_front(c, error);
}

static void close_all(struct conversion *c)
{
    writer_close(&c->writer);
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
    struct conversion c = {.options = options, .kernels = kernels_choose(NULL, &known), .report = report,
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
