/* Products of eight-bit rows with quantized tiles by SDOT (ARMv8.2 dotprod). */
#include "tile_dotprod.h"

/* n rows (a constant) of signed lines: 8 columns at a time. */
ALWAYS_INLINE void quarters(const struct rows *rows, const uint8_t *lines, size_t n_k,
                            struct fetch *fetch, bool first, const size_t n)
{
    for (size_t column = 0; column < KERNEL_TILE; column += 8)
        block(rows, lines, n_k, fetch, first, false, n, column, 2);
}

#define REST(n)                                                                                    \
    case n:                                                                                        \
        quarters(&left, lines, n_k, fetch, first, n);                                              \
        break

static void chunk(const struct rows *rows, size_t n_rows, const uint8_t *lines, size_t n_k,
                  bool flip, bool first, struct fetch *fetch)
{
    struct rows left = *rows;
    if (flip) {
        few_rows(&left, n_rows, lines, n_k, fetch, first, true);
        return;
    }
    for (; n_rows >= DOT_ROWS; n_rows -= DOT_ROWS) {
        quarters(&left, lines, n_k, fetch, first, DOT_ROWS);
        left.y += DOT_ROWS * left.y_stride;
        left.x += DOT_ROWS * left.x_stride;
    }
    switch (n_rows) {
        REST(4);
        REST(5);
    default:
        few_rows(&left, n_rows, lines, n_k, fetch, first, false);
    }
}

void KERNEL(gemm_q8)(int32_t *y, size_t y_stride, const struct q8_rows *x, size_t n_rows,
                     const uint8_t *lines, size_t n_k, const uint8_t *next, size_t n_next)
{
    struct fetch fetch = {next, n_next};
    gemm_chunks(chunk, y, y_stride, x, n_rows, lines, n_k, true, FEW, &fetch);
}

void KERNEL(prepare_q4)(uint8_t *panel, const void *tile, size_t n_k)
{
    signed_lines_of_q4(panel, tile, n_k);
}

void KERNEL(gemm_q4)(int32_t *y, size_t y_stride, const struct q8_rows *x, size_t n_rows,
                     const void *tile, const uint8_t *panel, size_t n_k, const uint8_t *next,
                     size_t n_next)
{
    struct fetch fetch = {next, n_next};
    if (panel)
        gemm_chunks(chunk, y, y_stride, x, n_rows, panel, n_k, false, FEW, &fetch);
    else
        row_by_row(gemv_q4, y, y_stride, x, n_rows, tile, n_k);
}
