/* The three integer products of rungs that multiply chunk by chunk; included last, behind the rung's `chunk`, `gemv_q4`
 * and FEW. */
#ifndef KERNELS_ARM_PRODUCTS_H
#define KERNELS_ARM_PRODUCTS_H

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

#endif
