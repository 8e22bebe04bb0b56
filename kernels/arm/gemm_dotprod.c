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

#include "products.h"
