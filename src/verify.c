/* mobilevlm verify: every byte of model.bin against its digests, its padding and its bounds. */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "schema.h"
#include "status.h"
#include "weights.h"

struct report {
    const struct weights *weights;
    mvlm_problem_fn problem;
    void *user;
    mvlm_error *error;
    mvlm_status status;
};

/* One problem; the first fatal one becomes the call's error. */
__attribute__((format(printf, 3, 4))) static void tell(struct report *report, bool fatal,
                                                       const char *format, ...)
{
    char line[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    if (report->problem)
        report->problem(report->user, line, fatal);
    if (fatal && report->status == MVLM_OK)
        report->status = fail(report->error, MVLM_BAD_MODEL, "%s: %s", report->weights->path, line);
}

static bool all_zero(const uint8_t *bytes, uint64_t n)
{
    return n == 0 || (bytes[0] == 0 && memcmp(bytes, bytes + 1, (size_t)n - 1) == 0);
}

/* NaN or infinity among the values; odd, but a value like another to the format. */
static bool all_finite(const uint8_t *bytes, const struct format_tensor *t)
{
    const uint64_t n = t->range.n_bytes / tensor_value_bytes(t->type);
    uint32_t worst = 0;
    for (uint64_t i = 0; i < n; i++) {
        uint32_t exponent;
        if (t->type == TENSOR_F16)
            exponent = (((const uint16_t *)(const void *)bytes)[i] & 0x7c00u) == 0x7c00u;
        else
            exponent = (((const uint32_t *)(const void *)bytes)[i] & 0x7f800000u) == 0x7f800000u;
        worst |= exponent;
    }
    return !worst;
}

/* Zeros in the columns of the last tile that stand for no row. */
static bool tile_padding_zero(const uint8_t *bytes, const struct format_tensor *t)
{
    const size_t used = t->n_rows % FORMAT_TILE, size = tensor_value_bytes(t->type);
    if (t->layout != LAYOUT_TILES || used == 0)
        return true;
    const uint8_t *tile = bytes + t->n_rows / FORMAT_TILE * FORMAT_TILE * t->n_cols * size;
    for (uint64_t k = 0; k < t->n_cols; k++)
        if (!all_zero(tile + (k * FORMAT_TILE + used) * size, (FORMAT_TILE - used) * size))
            return false;
    return true;
}

/* ---- q8 and q4 -------------------------------------------------------------------------- */

static bool scales_good(const uint8_t *bytes, size_t n)
{
    bool good = true;
    for (size_t i = 0; i < n; i++) {
        float scale;
        memcpy(&scale, bytes + i * sizeof scale, sizeof scale);
        good = good && isfinite(scale) && scale >= 0.0f;
    }
    return good;
}

/* Whether input k of column c is stored as 0, in a tile of n_k padded inputs. */
static bool stored_zero(const uint8_t *tile, enum tensor_type type, size_t n_k, size_t k, size_t c)
{
    const size_t quad = k / KERNEL_QUAD, in_quad = k % KERNEL_QUAD, half = c % (FORMAT_TILE / 2);
    if (type == TENSOR_Q8)
        return q8_lines(tile)[quad * Q8_LINE + c * KERNEL_QUAD + in_quad] == Q8_ZERO;
    const uint8_t byte = q4_lines(tile, n_k)[quad * Q4_LINE + half * KERNEL_QUAD + in_quad];
    return half == c ? (byte & 15) == Q4_ZERO : byte >> 4 == 0;
}

/* Zeros in the inputs beyond n_cols, and in the columns from n_rows on. */
static bool quantized_padding_zero(const uint8_t *tile, const struct format_tensor *t,
                                   size_t n_rows)
{
    const size_t n_cols = (size_t)t->n_cols, n_k = (size_t)aligned(n_cols, KERNEL_GROUP);
    for (size_t k = n_rows < FORMAT_TILE ? 0 : n_cols; k < n_k; k++)
        for (size_t c = k < n_cols ? n_rows : 0; c < FORMAT_TILE; c++)
            if (!stored_zero(tile, t->type, n_k, k, c))
                return false;
    return true;
}

/* What is wrong with a tile, from whose first column on there are n_rows rows; NULL: nothing. */
static const char *tile_fault(const uint8_t *tile, const struct format_tensor *t, size_t n_rows)
{
    const size_t n_k = (size_t)aligned(t->n_cols, KERNEL_GROUP);
    if (!scales_good(tile, FORMAT_TILE))
        return "has a scale that is negative or no number";
    if (t->type == TENSOR_Q8 && memchr(q8_lines(tile), 0, n_k * FORMAT_TILE))
        return "holds the value -128";
    if (!quantized_padding_zero(tile, t, n_rows))
        return "has padding that is not zero";
    if (t->type == TENSOR_Q4) {
        const uint8_t *end = q4_signs(tile, n_k) + q4_groups(n_k) * (FORMAT_TILE / 8);
        if (!all_zero(end, (uint64_t)(q4_lines(tile, n_k) - end)))
            return "has bytes behind its multipliers that are not zero";
    }
    return NULL;
}

static const char *row_fault(const uint8_t *row, const struct format_tensor *t)
{
    const size_t n_cols = (size_t)t->n_cols, n_values = row_bytes(t->type, n_cols) - sizeof(float);
    const uint8_t *values = row + sizeof(float);
    if (!scales_good(row, 1))
        return "has a scale that is negative or no number";
    if (memchr(values, 0x80, n_cols))
        return "holds the value -128";
    if (!all_zero(values + n_cols, n_values - n_cols))
        return "has padding that is not zero";
    return NULL;
}

/* Tells of the first tile (or row, of a table) at fault. */
static void verify_quantized(struct report *report, const uint8_t *bytes,
                             const struct format_tensor *t)
{
    const bool tiles = t->layout == LAYOUT_TILES;
    const size_t n_rows = (size_t)t->n_rows, n = tiles ? tiles_of(n_rows) : n_rows;
    const size_t size =
        tiles ? tile_bytes(t->type, (size_t)t->n_cols) : row_bytes(t->type, (size_t)t->n_cols);
    for (size_t i = 0; i < n; i++) {
        const uint8_t *at = bytes + i * size;
        const char *fault = tiles ? tile_fault(at, t, n_rows - i * FORMAT_TILE) : row_fault(at, t);
        if (fault) {
            tell(report, true, "tensor %s: %s %zu %s", t->name, tiles ? "tile" : "row", i, fault);
            return;
        }
    }
}

/* ---- The whole -------------------------------------------------------------------------- */

static void verify_tensor(struct report *report, const struct format_tensor *t)
{
    const uint8_t *bytes = report->weights->bytes + t->range.offset;
    uint8_t digest[16];
    digest_of(bytes, (size_t)t->range.n_bytes, digest);
    if (memcmp(digest, t->digest, sizeof digest) != 0)
        tell(report, true,
             "tensor %s: digest does not match: the file is damaged between bytes %llu and %llu",
             t->name, (unsigned long long)t->range.offset,
             (unsigned long long)t->range.offset + t->range.n_bytes);
    if (is_quantized(t->type)) {
        verify_quantized(report, bytes, t);
        return;
    }
    if (!tile_padding_zero(bytes, t))
        tell(report, true, "tensor %s: padding of its last tile is not zero", t->name);
    if (!all_finite(bytes, t))
        tell(report, false, "tensor %s: holds NaN or infinity", t->name);
}

static void verify_gap(struct report *report, uint64_t from, uint64_t to, const char *before)
{
    if (!all_zero(report->weights->bytes + from, to - from))
        tell(report, true, "padding before %s is not zero, between bytes %llu and %llu", before,
             (unsigned long long)from, (unsigned long long)to);
}

mvlm_status weights_verify(const struct weights *weights, mvlm_problem_fn problem, void *user,
                           mvlm_error *error)
{
    struct report report = {weights, problem, user, error, MVLM_OK};
    const struct format_header *h = &weights->header;
    verify_gap(&report, h->header_bytes, h->description.offset, "the description");
    verify_gap(&report, h->description.offset + h->description.n_bytes, h->tokenizer.offset,
               "the tokenizer");
    verify_gap(&report, h->tokenizer.offset + h->tokenizer.n_bytes, h->directory.offset,
               "the directory");
    verify_gap(&report, h->directory.offset + h->directory.n_bytes, h->data.offset, "the data");
    uint64_t end = h->data.offset;
    for (uint32_t i = 0; i < h->n_tensors; i++) {
        const struct format_tensor t = weights->tensors[i];
        TRY(weights_intact(weights, error)); /* or the copy may be no entry */
        verify_gap(&report, end, t.range.offset, t.name);
        verify_tensor(&report, &t);
        end = t.range.offset + t.range.n_bytes;
    }
    TRY(weights_intact(weights, error)); /* or what was told is not the file's fault */
    return report.status;
}
