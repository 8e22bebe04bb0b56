#include "decode.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

const struct format_tensor *entry_of(const uint8_t *file, const char *name)
{
    const struct format_header *h = (const struct format_header *)(const void *)file;
    const struct format_tensor *t =
        (const struct format_tensor *)(const void *)(file + h->directory.offset);
    for (uint32_t i = 0; i < h->n_tensors; i++)
        if (strcmp(t[i].name, name) == 0)
            return &t[i];
    return NULL;
}

static float f32_at(const uint8_t *bytes)
{
    float value;
    memcpy(&value, bytes, sizeof value);
    return value;
}

static float half_at(const uint8_t *bytes)
{
    const unsigned bits = bytes[0] | (unsigned)bytes[1] << 8, exponent = bits >> 10 & 31;
    const float fraction = (float)(bits & 1023);
    const float magnitude = exponent == 0    ? ldexpf(fraction, -24)
                            : exponent == 31 ? (fraction > 0 ? NAN : INFINITY)
                                             : ldexpf(1024 + fraction, (int)exponent - 25);
    return bits & 0x8000 ? -magnitude : magnitude;
}

/* Input k of column c of a tile with n_k inputs, n_k being padded to whole groups already. */
static float q4_at(const uint8_t *tile, size_t n_k, size_t c, size_t k)
{
    const size_t n_groups = n_k / 32, group = k / 32, half = c % 16;
    const uint8_t *magnitudes = tile + 128, *signs = magnitudes + 16 * n_groups;
    const uint8_t *lines = magnitudes + (20 * n_groups + 63) / 64 * 64;
    const uint8_t pair = magnitudes[16 * group + half], byte = lines[k / 4 * 64 + half * 4 + k % 4];
    const int magnitude = c < 16 ? pair & 15 : pair >> 4;
    const int multiplier = signs[4 * group + c / 8] >> c % 8 & 1 ? -magnitude : magnitude;
    const int high = byte >> 4 > 7 ? (byte >> 4) - 16 : byte >> 4;
    return f32_at(tile + 4 * c) * (float)multiplier * (float)(c < 16 ? (byte & 15) - 8 : high);
}

static float tile_value(const uint8_t *bytes, const struct format_tensor *t, size_t row, size_t k)
{
    const size_t n_cols = (size_t)t->n_cols, n_k = (n_cols + 31) / 32 * 32, c = row % 32;
    switch ((enum tensor_type)t->type) {
    case TENSOR_F32:
        return f32_at(bytes + (row / 32 * n_cols * 32 + k * 32 + c) * 4);
    case TENSOR_F16:
        return half_at(bytes + (row / 32 * n_cols * 32 + k * 32 + c) * 2);
    case TENSOR_Q8:
        bytes += row / 32 * (128 + 32 * n_k);
        return f32_at(bytes + 4 * c) * (float)(bytes[128 + k / 4 * 128 + c * 4 + k % 4] - 128);
    case TENSOR_Q4:
        break;
    }
    return q4_at(bytes + row / 32 * (128 + (20 * n_k / 32 + 63) / 64 * 64 + 16 * n_k), n_k, c, k);
}

static float row_value(const uint8_t *bytes, const struct format_tensor *t, size_t row, size_t k)
{
    const size_t n_cols = (size_t)t->n_cols;
    if (t->type == TENSOR_F32)
        return f32_at(bytes + (row * n_cols + k) * 4);
    if (t->type == TENSOR_F16)
        return half_at(bytes + (row * n_cols + k) * 2);
    bytes += row * (4 + (n_cols + 3) / 4 * 4);
    return f32_at(bytes) * (float)(int8_t)bytes[4 + k];
}

float *decode_entry(const uint8_t *file, const struct format_tensor *entry)
{
    const size_t n_rows = (size_t)entry->n_rows, n_cols = (size_t)entry->n_cols;
    const uint8_t *bytes = file + entry->range.offset;
    float *values = malloc(n_rows * n_cols * sizeof *values);
    for (size_t row = 0; values && row < n_rows; row++)
        for (size_t k = 0; k < n_cols; k++)
            values[row * n_cols + k] = entry->layout == LAYOUT_TILES
                                           ? tile_value(bytes, entry, row, k)
                                           : row_value(bytes, entry, row, k);
    return values;
}

double relative_error(const float *a, const float *b, size_t n)
{
    double squares = 0, differences = 0;
    for (size_t i = 0; i < n; i++) {
        squares += (double)b[i] * b[i];
        differences += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
    }
    return squares > 0 ? sqrt(differences / squares) : 0;
}
