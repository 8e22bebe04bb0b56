/* origin -> description, list of tensors -> directory -> [rows -> f32 -> tiles -> file] for each
 * tensor -> header. Streams: while one thread hashes and writes a block of tiles, the others pack
 * the next. Tiles of q4 are written twice where they are calibrated: the whole file is opened as a
 * model before it gets its name, and then they are rounded anew in their places.
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
#include "balance.h"
#include "calibrate.h"
#include "origin.h"
#include "rounding.h"
#include "writer.h"

enum { TILE = FORMAT_TILE, BLOCK_BYTES = 1 << 20 };

struct conversion {
    const struct convert_options *options;
    const struct kernels *kernels;
    struct team *team;
    int n_threads; /* of the team */
    struct origin origin;
    struct format_tensor *directory; /* [origin.n] */
    struct format_header header;
    uint8_t *front; /* [header.data.offset], what stands before the data */
    struct writer writer;
    struct convert_report *report;
    uint64_t done,
        total; /* of the work, in bytes of tensors; calibrating counts as much as rounding */
};

/* ---- Plan ------------------------------------------------------------------------------- */

/* Records how norms are balanced, if any is: that follows from the tensors' types. */
static void describe_balance(struct conversion *c)
{
    schema_place(c->origin.specs, c->origin.n, &c->options->types, 0, c->directory);
    for (size_t i = 0; i < c->origin.n; i++)
        if (balance_applies(&c->origin, c->directory, i))
            c->origin.config.description.convert.norm_balance = c->options->norm_balance;
}

/* Records that q4 is calibrated, if it is, and plans the work. */
static void describe_calibration(struct conversion *c)
{
    uint64_t n_calibrated = 0;
    for (size_t i = 0; i < c->origin.n; i++) {
        c->total += c->directory[i].range.n_bytes;
        if (c->directory[i].type == TENSOR_Q4)
            n_calibrated += c->directory[i].range.n_bytes;
    }
    if (n_calibrated && c->options->calibration && !c->options->random) {
        c->origin.config.description.convert.calibration = (int64_t)c->options->calibration;
        c->total += 2 * n_calibrated;
    }
}

/* Where everything will lie; only digests are still unknown. */
static mvlm_status plan_file(struct conversion *c, mvlm_error *error)
{
    const size_t n = c->origin.n;
    struct format_header *h = &c->header;
    c->directory = calloc(n, sizeof *c->directory);
    if (!c->directory)
        return fail_no_memory(error, "the directory", n * sizeof *c->directory);
    describe_balance(c);
    describe_calibration(c);
    *h = (struct format_header){
        .version = FORMAT_VERSION,
        .header_bytes = FORMAT_HEADER_BYTES,
        .required_features =
            description_varies(&c->origin.config.description) ? FORMAT_VARIANTS : 0,
        .n_tensors = (uint32_t)n};
    memcpy(h->magic, FORMAT_MAGIC, sizeof h->magic);
    h->description = (struct format_range){aligned(FORMAT_HEADER_BYTES, FORMAT_ALIGN),
                                           description_encode(&c->origin.config.description, NULL)};
    h->tokenizer =
        (struct format_range){aligned(h->description.offset + h->description.n_bytes, FORMAT_ALIGN),
                              vocabulary_encode(&c->origin.tokenizer, NULL)};
    h->directory =
        (struct format_range){aligned(h->tokenizer.offset + h->tokenizer.n_bytes, FORMAT_ALIGN),
                              n * sizeof(struct format_tensor)};
    h->data.offset = aligned(h->directory.offset + h->directory.n_bytes, FORMAT_SECTION_ALIGN);
    h->file_bytes =
        schema_place(c->origin.specs, n, &c->options->types, h->data.offset, c->directory);
    h->data.n_bytes = h->file_bytes - h->data.offset;
    return MVLM_OK;
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
    size_t tensor;         /* its index */
    const float *factors;  /* of its columns; NULL: all 1 */
    const float *feedback; /* rounding.h's, for tiles that are there; NULL: they are packed */
    size_t tile_bytes, tiles_a_block, n_tiles;
    float *rows, *scratch; /* [n_threads][TILE x n_cols], [n_threads][pack_scratch] */
    struct packed_block packing, writing; /* the block under way, and the one before */
    uint64_t left; /* bytes not yet written: a table's last group may be short */
    XXH3_state_t *hash;
    struct pack_error *loss;
    mvlm_status *statuses; /* [n_threads] */
    mvlm_error *errors;    /* [n_threads] */
};

static void tell_progress(const struct conversion *c, uint64_t done)
{
    if (c->options->progress)
        c->options->progress(c->options->progress_user, (double)done / (double)c->total);
}

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
    tell_progress(c, c->done += n_bytes);
    return MVLM_OK;
}

/* rows[n_rows][n] times factors[n], which may be NULL. */
static void multiply_columns(float *rows, const float *factors, size_t n_rows, size_t n)
{
    for (size_t r = 0; r < n_rows && factors; r++)
        for (size_t i = 0; i < n; i++)
            rows[r * n + i] *= factors[i];
}

/* A tile of q4 as it was written, rounded anew: index is its number in the tensor. */
static mvlm_status round_tile(const struct stream *s, size_t index, const float *rows,
                              size_t n_rows, float *columns, uint8_t *out, mvlm_error *error)
{
    const struct format_tensor *t = s->entry;
    TRY(writer_read(&s->c->writer, t->range.offset + index * s->tile_bytes, out, s->tile_bytes,
                    error));
    pack_columns(rows, n_rows, (size_t)t->n_cols, columns);
    rounding_apply(s->c->kernels, out, columns, (size_t)t->n_cols, s->feedback);
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
          *scratch = s->scratch + (size_t)thread * pack_scratch(n_cols);
    uint8_t *out = s->packing.out + index * s->tile_bytes;
    struct pack_error *loss = &s->packing.losses[index];
    *loss = (struct pack_error){0};
    TRY(s->c->origin.read(&s->c->origin, s->tensor, row, n_rows, rows, error));
    multiply_columns(rows, s->factors, n_rows, n_cols);
    if (s->feedback)
        return round_tile(s, s->packing.first + index, rows, n_rows, scratch, out, error);
    if (t->layout == LAYOUT_TILES)
        pack_tile(s->c->kernels, t->type, rows, n_rows, n_cols, scratch, out, loss);
    else
        pack_rows(s->c->kernels, t->type, rows, n_rows, n_cols, out, loss);
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
        team_run(s->c->team, s->packing.n_tiles + 1, run_task, s);
        for (int thread = 0; thread < s->c->n_threads; thread++)
            if (s->statuses[thread] != MVLM_OK)
                return fail(error, s->statuses[thread], "%s", s->errors[thread].message);
        const struct packed_block written = s->writing;
        s->writing = s->packing;
        s->packing = written;
    }
    return MVLM_OK;
}

static mvlm_status write_matrix(struct conversion *c, size_t index, const float *factors,
                                const float *feedback, XXH3_state_t *hash, struct pack_error *loss,
                                mvlm_error *error)
{
    const struct format_tensor *t = &c->directory[index];
    const size_t tile_values = (size_t)TILE * (size_t)t->n_cols, threads = (size_t)c->n_threads;
    struct stream s = {.c = c,
                       .entry = t,
                       .tensor = index,
                       .factors = factors,
                       .feedback = feedback,
                       .left = t->range.n_bytes,
                       .hash = hash,
                       .loss = loss};
    s.tile_bytes = (size_t)tensor_bytes(t->type, t->layout, TILE, t->n_cols);
    s.n_tiles = ((size_t)t->n_rows + TILE - 1) / TILE;
    s.tiles_a_block = BLOCK_BYTES / s.tile_bytes > threads ? BLOCK_BYTES / s.tile_bytes : threads;
    s.rows = malloc(threads * tile_values * sizeof *s.rows);
    s.scratch = malloc(threads * pack_scratch((size_t)t->n_cols) * sizeof *s.scratch);
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

/* Small tensors stay f32. */
static mvlm_status write_vector(struct conversion *c, size_t index, const float *factors,
                                XXH3_state_t *hash, mvlm_error *error)
{
    const struct format_tensor *t = &c->directory[index];
    const size_t n_bytes = (size_t)t->range.n_bytes;
    float *values = malloc(n_bytes);
    if (!values)
        return fail_no_memory(error, t->name, n_bytes);
    mvlm_status status = c->origin.read(&c->origin, index, 0, (size_t)t->n_rows, values, error);
    if (status == MVLM_OK) {
        multiply_columns(values, factors, 1, (size_t)t->n_rows);
        XXH3_128bits_update(hash, values, n_bytes);
        status = writer_append(&c->writer, values, n_bytes, error);
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

/* The option that decides a matrix's type. */
static const char *option_of(const struct tensor_spec *spec)
{
    if (spec->section != SECTION_DECODER)
        return "--vision-type";
    return spec->base == BASE_DECODER_LAYER ? "--type" : "--head-type";
}

static mvlm_status check_range(const struct conversion *c, size_t index, float largest,
                               mvlm_error *error)
{
    const enum tensor_type type = c->directory[index].type;
    const char *option = option_of(&c->origin.specs[index]);
    char name[ORIGIN_NAME_BYTES];
    if (largest <= pack_most(type))
        return MVLM_OK;
    origin_name(&c->origin, index, name);
    if (is_quantized(type) && isinf(largest))
        return fail(error, MVLM_BAD_MODEL, "%s: holds NaN or infinity, which %s cannot; use %s f32",
                    name, tensor_type_name(type), option);
    return fail(error, MVLM_BAD_MODEL, "%s: value of magnitude %g is beyond %s's %g; use %s f32",
                name, (double)largest, tensor_type_name(type), (double)pack_most(type), option);
}

/* Where the writer stands; with `feedback`, where the tensor has been written before. */
static mvlm_status write_tensor(struct conversion *c, size_t index, const float *feedback,
                                mvlm_error *error)
{
    struct format_tensor *t = &c->directory[index];
    struct pack_error loss = {0};
    float *factors;
    XXH3_state_t hash;
    XXH128_canonical_t digest;
    XXH3_128bits_reset(&hash);
    TRY(balance_factors(&c->origin, c->directory, index, c->options->norm_balance, &factors,
                        error));
    const mvlm_status status = c->origin.specs[index].kind == TENSOR_VECTOR
                                   ? write_vector(c, index, factors, &hash, error)
                                   : write_matrix(c, index, factors, feedback, &hash, &loss, error);
    free(factors);
    TRY(status);
    TRY(check_range(c, index, loss.largest, error));
    XXH128_canonicalFromHash(&digest, XXH3_128bits_digest(&hash));
    memcpy(t->digest, digest.digest, sizeof t->digest);
    if (!feedback)
        report_loss(c->report, &c->origin.specs[index], t->type, &loss);
    return MVLM_OK;
}

/* ---- Front ------------------------------------------------------------------------------ */

/* Description and tokenizer, which are known before the data. What mobilevlm would refuse to open
 * (a norm's epsilon out of range, a piece that stands twice) is refused here, by the very code that
 * opens. */
static mvlm_status begin_front(struct conversion *c, mvlm_error *error)
{
    const struct format_header *h = &c->header;
    struct description description;
    struct tokenizer *tokenizer;
    c->front = calloc(1, (size_t)h->data.offset);
    if (!c->front)
        return fail_no_memory(error, "the header", (size_t)h->data.offset);
    description_encode(&c->origin.config.description, c->front + h->description.offset);
    vocabulary_encode(&c->origin.tokenizer, c->front + h->tokenizer.offset);
    TRY(description_decode("config.json", c->front + h->description.offset,
                           (size_t)h->description.n_bytes, &description, error));
    TRY(tokenizer_open("the tokenizer", &description, c->front + h->tokenizer.offset,
                       (size_t)h->tokenizer.n_bytes, &tokenizer, error));
    tokenizer_close(tokenizer);
    return MVLM_OK;
}

/* The directory, whose digests are known now, and the header with the digest of it all. */
static void complete_front(struct conversion *c)
{
    const size_t n = (size_t)c->header.data.offset;
    memcpy(c->front + c->header.directory.offset, c->directory, c->origin.n * sizeof *c->directory);
    memcpy(c->front, &c->header, sizeof c->header);
    digest_of_front(c->front, n, c->header.digest);
    memcpy(c->front, &c->header, sizeof c->header);
}

/* ---- Calibration ------------------------------------------------------------------------ */

static void tell_calibrated(void *user, double share)
{
    const struct conversion *c = user;
    const uint64_t after = c->total - c->done; /* calibrating, and rounding */
    tell_progress(c, c->done + (uint64_t)((double)after / 2 * share));
}

/* The matrices of q4. Those that read the same rows are neighbours and share moments and feedback. */
static mvlm_status round_tensors(struct conversion *c, const struct calibration *calibration,
                                 mvlm_error *error)
{
    const float *moments = NULL;
    float *feedback = NULL;
    mvlm_status status = MVLM_OK;
    for (size_t i = 0; i < c->origin.n && status == MVLM_OK; i++) {
        const struct format_tensor *t = &c->directory[i];
        const float *own = calibration_moments(calibration, t->name);
        if (!own)
            continue;
        if (own != moments) {
            free(feedback);
            status = rounding_feedback(own, (size_t)t->n_cols, c->team, &feedback, error);
            moments = own;
        }
        if (status == MVLM_OK)
            status = writer_seek(&c->writer, t->range.offset, error);
        if (status == MVLM_OK)
            status = write_tensor(c, i, feedback, error);
    }
    free(feedback);
    return status;
}

/* The file as it stands, whole but for its name, is the model that is observed. */
static mvlm_status calibrate_file(struct conversion *c, mvlm_error *error)
{
    const struct calibrate_options how = {.n_tokens = c->options->calibration,
                                          .n_threads = c->n_threads,
                                          .isa = c->options->isa,
                                          .stop = c->options->stop,
                                          .progress = tell_calibrated,
                                          .progress_user = c};
    struct calibration *calibration;
    complete_front(c);
    TRY(writer_seek(&c->writer, 0, error));
    TRY(writer_append(&c->writer, c->front, (size_t)c->header.data.offset, error));
    TRY(calibrate(c->writer.temporary, &how, &calibration, error));
    c->done += (c->total - c->done) / 2;
    const mvlm_status status = round_tensors(c, calibration, error);
    calibration_close(calibration);
    return status;
}

/* ---- The whole -------------------------------------------------------------------------- */

static mvlm_status run(struct conversion *c, const char *folder, const char *path,
                       mvlm_error *error)
{
    if (c->options->random)
        TRY(origin_open_random(c->options->random, c->options->seed, &c->options->config,
                               &c->origin, error));
    else
        TRY(origin_open_checkpoint(folder, c->options->lora, &c->options->config, &c->origin,
                                   error));
    TRY(plan_file(c, error));
    TRY(begin_front(c, error));
    TRY(writer_open(&c->writer, path, c->options->force, c->options->stop, error));
    TRY(writer_pad(&c->writer, c->header.data.offset, error));
    c->team = team_open(c->n_threads);
    if (!c->team)
        return fail(error, MVLM_NO_MEMORY, "%d threads cannot be started", c->n_threads);
    for (size_t i = 0; i < c->origin.n; i++) {
        TRY(writer_pad(&c->writer, c->directory[i].range.offset, error));
        TRY(write_tensor(c, i, NULL, error));
    }
    if (c->origin.config.description.convert.calibration)
        TRY(calibrate_file(c, error));
    complete_front(c);
    return writer_finish(&c->writer, c->front, (size_t)c->header.data.offset, error);
}

static void close_all(struct conversion *c)
{
    team_close(c->team);
    writer_close(&c->writer);
    free(c->front);
    free(c->directory);
    origin_close(&c->origin);
}

mvlm_status convert(const char *folder, const char *path, const struct convert_options *options,
                    struct convert_report *report, mvlm_error *error)
{
    bool known;
    struct conversion c = {.options = options,
                           .kernels = kernels_choose(options->isa, &known),
                           .report = report,
                           .writer.file = -1};
    if (!c.kernels)
        return fail(error, MVLM_USAGE, "instruction set %.40s is not there", options->isa);
    c.n_threads = options->n_threads ? options->n_threads : threads_available();
    if (report)
        memset(report, 0, sizeof *report);
    const mvlm_status status = run(&c, folder, path, error);
    if (status == MVLM_OK && report) {
        report->n_tensors = c.origin.n;
        report->n_ignored = c.origin.n_ignored;
        report->n_bytes = c.header.file_bytes;
        digest_text(c.header.digest, report->digest);
    }
    close_all(&c);
    return status;
}
