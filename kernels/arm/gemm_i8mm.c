/* Products of eight-bit rows with quantized tiles by SMMLA (ARMv8.6 i8mm): 2 rows x 8 inputs times 8 inputs x 2 columns.
 * Few rows go by SDOT. */
#include "tile_dotprod.h"

enum {
    ROWS = 8,               /* at once, with 8 columns: 4 x 4 sums of 2 x 2, 4 of x, 4 of weights */
    STEP = 2 * KERNEL_QUAD, /* inputs of an instruction */
    PAIRS = KERNEL_TILE / 2,     /* of columns */
    STEP_BYTES = PAIRS * VECTOR, /* of weights: [16 pairs][2 columns][8 inputs] */
};

/* Two signed lines -> the weights of a step. */
ALWAYS_INLINE void store_step(uint8_t *out, const int8x16_t a[VECTORS], const int8x16_t b[VECTORS])
{
    UNROLLED
    for (int i = 0; i < VECTORS; i++) {
        const int32x4_t first = vreinterpretq_s32_s8(a[i]), second = vreinterpretq_s32_s8(b[i]);
        vst1q_u8(out + 2 * VECTOR * i, vreinterpretq_u8_s32(vzip1q_s32(first, second)));
        vst1q_u8(out + 2 * VECTOR * i + VECTOR, vreinterpretq_u8_s32(vzip2q_s32(first, second)));
    }
}

static void steps_of_q8(uint8_t *out, const uint8_t *lines, size_t n_k)
{
    for (size_t k = 0; k < n_k; k += STEP) {
        int8x16_t a[VECTORS], b[VECTORS];
        for (int i = 0; i < VECTORS; i++) {
            a[i] = weights(lines + VECTOR * i, true);
            b[i] = weights(lines + Q8_LINE + VECTOR * i, true);
        }
        store_step(out, a, b);
        lines += 2 * Q8_LINE;
        out += STEP_BYTES;
    }
}

/* Up to 8 rows as [n_k / 8][4 pairs][2 rows][8 inputs]; rows that are not there are zeros. */
static void pack_rows(int8_t *out, const int8_t *x, size_t x_stride, size_t n_rows, size_t n_k)
{
    for (size_t r = 0; r < ROWS; r += 2) /* n_k is a multiple of 32 */
        for (size_t k = 0; k < n_k; k += VECTOR) {
            const int64x2_t zero = vdupq_n_s64(0),
                            a = r < n_rows ? vreinterpretq_s64_s8(vld1q_s8(x + r * x_stride + k))
                                           : zero,
                            b = r + 1 < n_rows
                                    ? vreinterpretq_s64_s8(vld1q_s8(x + (r + 1) * x_stride + k))
                                    : zero;
            vst1q_s8(out + k * ROWS + r * STEP, vreinterpretq_s8_s64(vzip1q_s64(a, b)));
            vst1q_s8(out + (k + STEP) * ROWS + r * STEP, vreinterpretq_s8_s64(vzip2q_s64(a, b)));
        }
}

/* 8 rows times 8 columns from pair `pair` on; n_rows of them are stored. */
ALWAYS_INLINE void block_mmla(const struct rows *rows, size_t n_rows, const int8_t *x,
                              const uint8_t *steps, size_t n_k, bool first, size_t pair,
                              struct fetch *fetch)
{
    int32x4_t sums[ROWS / 2][4];
    UNROLLED
    for (int r = 0; r < ROWS / 2; r++) {
        UNROLLED
        for (int i = 0; i < 4; i++)
            sums[r][i] = vdupq_n_s32(0);
    }
    steps += pair * VECTOR;
    for (size_t k = 0; k < n_k; k += STEP, x += ROWS * STEP, steps += STEP_BYTES) {
        int8x16_t w[4];
        UNROLLED
        for (int i = 0; i < 4; i++)
            w[i] = vld1q_s8((const int8_t *)steps + VECTOR * i);
        UNROLLED
        for (int r = 0; r < ROWS / 2; r++) {
            const int8x16_t values = vld1q_s8(x + VECTOR * r);
            UNROLLED
            for (int i = 0; i < 4; i++)
                sums[r][i] = vmmlaq_s32(sums[r][i], values, w[i]);
        }
        fetch_line(fetch);
    }
    UNROLLED
    for (size_t r = 0; r < ROWS; r++) {
        int32_t *y = rows->y + r * rows->y_stride + 2 * pair;
        UNROLLED
        for (int i = 0; i < 4 && r < n_rows; i += 2) { /* two pairs of columns of one row */
            const int64x2_t a = vreinterpretq_s64_s32(sums[r / 2][i]),
                            b = vreinterpretq_s64_s32(sums[r / 2][i + 1]);
            const int32x4_t columns =
                vreinterpretq_s32_s64(r % 2 ? vzip2q_s64(a, b) : vzip1q_s64(a, b));
            vst1q_s32(y + 2 * i, first ? columns : vaddq_s32(columns, vld1q_s32(y + 2 * i)));
        }
    }
}

/* All rows times a chunk of steps. */
static void chunk(const struct rows *rows, size_t n_rows, const uint8_t *steps, size_t n_k,
                  bool first, struct fetch *fetch)
{
    int8_t x[ROWS * CHUNK];
    struct rows left = *rows;
    for (; n_rows; n_rows -= n_rows < ROWS ? n_rows : ROWS) {
        pack_rows(x, left.x, left.x_stride, n_rows, n_k);
        for (size_t pair = 0; pair < PAIRS; pair += 4)
            block_mmla(&left, n_rows, x, steps, n_k, first, pair, fetch);
        left.y += ROWS * left.y_stride;
        left.x += ROWS * left.x_stride;
    }
}

/* `lines` are q8's, or what prepare_q4 made. */
static void gemm(int32_t *y, size_t y_stride, const struct q8_rows *x, size_t n_rows,
                 const uint8_t *lines, bool is_q8, size_t n_k, struct fetch *fetch)
{
    uint8_t steps[CHUNK * KERNEL_TILE];
    struct rows rows = {y, y_stride, x->values, x->stride};
    for (size_t k = 0; n_rows && (k < n_k || k == 0); k += CHUNK, rows.x += CHUNK) {
        const size_t n = n_k - k < CHUNK ? n_k - k : CHUNK;
        const uint8_t *from = lines + k * KERNEL_TILE;
        if (is_q8 && n_rows <= FEW)
            few_rows(&rows, n_rows, from, n, fetch, k == 0, true);
        else if (is_q8) {
            steps_of_q8(steps, from, n);
            chunk(&rows, n_rows, steps, n, k == 0, fetch);
        } else
            chunk(&rows, n_rows, from, n, k == 0, fetch);
    }
}

void KERNEL(gemm_q8)(int32_t *y, size_t y_stride, const struct q8_rows *x, size_t n_rows,
                     const uint8_t *lines, size_t n_k, const uint8_t *next, size_t n_next)
{
    struct fetch fetch = {next, n_next};
    gemm(y, y_stride, x, n_rows, lines, true, n_k, &fetch);
}

/* The tile as steps. */
void KERNEL(prepare_q4)(uint8_t *panel, const void *tile, size_t n_k)
{
    const uint8_t *magnitudes = q4_magnitudes(tile), *signs = q4_signs(tile, n_k),
                  *lines = q4_lines(tile, n_k);
    for (size_t g = 0; g < n_k / KERNEL_GROUP; g++) {
        int8x16_t spread[VECTORS], a[VECTORS], b[VECTORS];
        group_multipliers_spread(magnitudes + g * 16, signs + g * 4, spread);
        for (size_t k = 0; k < KERNEL_GROUP; k += STEP) {
            multiply_line(lines, spread, a);
            multiply_line(lines + Q4_LINE, spread, b);
            store_step(panel, a, b);
            lines += 2 * Q4_LINE;
            panel += STEP_BYTES;
        }
    }
}

void KERNEL(gemm_q4)(int32_t *y, size_t y_stride, const struct q8_rows *x, size_t n_rows,
                     const void *tile, const uint8_t *panel, size_t n_k, const uint8_t *next,
                     size_t n_next)
{
    struct fetch fetch = {next, n_next};
    if (panel)
        gemm(y, y_stride, x, n_rows, panel, false, n_k, &fetch);
    else
        row_by_row(gemv_q4, y, y_stride, x, n_rows, tile, n_k);
}
