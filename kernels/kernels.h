/* Every kernel's signature, once, with its contract; the table through which src/ calls them.
 *
 * Kernels are pure: pointers and sizes in, numbers out. No allocation, no threads, no state. Sizes
 * may be zero. Pointers need the alignment of their type only; nothing is read or written outside
 * the stated ranges.
 *
 * Numbers: multiply-add is fused (fmaf), sums run over k in order where lanes are outputs and
 * otherwise in 16 fixed lanes folded by a fixed tree, conversions round to nearest even, exp and
 * its kin are our own polynomials. So every rung of the ladder gives the same bits as kernels/c,
 * and so does any split of the outputs among threads.
 */
#ifndef KERNELS_H
#define KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "formats.h"

enum activation {
    ACTIVATION_NONE,
    ACTIVATION_QUICK_GELU, /* x / (1 + exp(-1.702 x)), CLIP */
    ACTIVATION_GELU,       /* x / 2 (1 + erf(x / sqrt 2)) */
    ACTIVATION_GELU_TANH,  /* the tanh form of it, SigLIP and Phi-2 */
    ACTIVATION_SILU,       /* x / (1 + exp(-x)) */
    ACTIVATION_RELU,
    ACTIVATION_HARDSWISH,   /* x clamp(x / 6 + 1 / 2, 0, 1) */
    ACTIVATION_HARDSIGMOID, /* clamp(x / 6 + 1 / 2, 0, 1) */
    ACTIVATION_COUNT
};

/* Rows of activations in eight bits: value k of row r is scale[r] x values[r x stride + k]. A row is
 * padded with zeros to n_k, a multiple of 32. The values are never -128. */
struct q8_rows {
    int8_t *values;
    size_t stride;
    float *scale;       /* [n_rows] */
    int32_t *sum;       /* [n_rows]: of the row's values */
    int32_t *group_sum; /* [n_rows][n_k / 32]; only q4 tiles read it */
};

/* The rows from `row` on; n of their values count. */
static inline struct q8_rows q8_rows_from(const struct q8_rows *rows, size_t row, size_t n)
{
    return (struct q8_rows){rows->values + row * rows->stride, rows->stride, rows->scale + row,
                            rows->sum + row, rows->group_sum + row * q4_groups(n)};
}

/* Rows of activations hand from layer to layer: floats, or halves where eight bits are made of them next. */
enum precision { PRECISION_SINGLE, PRECISION_HALF };

static inline size_t value_bytes(enum precision precision)
{
    return precision == PRECISION_SINGLE ? sizeof(float) : sizeof(uint16_t);
}

/* What becomes of a product before it is stored, in this order: times the scales, plus bias, the
 * activation, times `multiply`, plus `residual`. */
struct finish {
    const float *x_scale; /* [n_rows]; NULL: the sums are f32 already */
    const float *w_scale; /* [32] */
    const float *bias;    /* [32] or NULL */
    enum activation activation;
    enum precision
        precision; /* of y, multiply and residual; finite values that no half can hold become its largest */
    const void *multiply, *residual; /* of y's stride, or NULL; may be y itself */
};

/* What limits multiply-accumulate: the instructions of a rung for f32, for eight-bit rows with
 * eight-bit weights, and with four-bit ones. */
enum peak_kind { PEAK_F32, PEAK_W8A8, PEAK_W4A8, PEAK_COUNT };

/* What a pixel of a resized line is made of: n pixels of the line from byte `first` on, and `start` for its three
 * channels. Weights are fixed point, each three times (a channel), twelve and four zeros at a time. */
struct resample_tap {
    size_t first, n;
    const int32_t *weights; /* [n / 4, rounded up][16] */
    int32_t start[3];
};

enum { RESAMPLE_PIXELS = 4, RESAMPLE_BITS = 22 }; /* pixels at a time; bits behind the point */

/* A sum of weights x pixels -> a pixel. */
static inline uint8_t resample_pixel(int32_t sum)
{
    const int32_t value = sum >> RESAMPLE_BITS;
    return value < 0 ? 0 : value > 255 ? 255 : (uint8_t)value;
}

/* Each calls X(return type, name, parameters) for its kernels: KERNEL_LIST_INT for those whose instructions are a rung's own,
 * KERNEL_LIST_COMMON for the others, which rungs of one vector width may share; KERNEL_LIST for all. */
/* clang-format off */
#define KERNEL_LIST_COMMON(X) \
    /* y[r][c] = (accumulate ? y[r][c] : 0) + sum over k of x[r][k] tile[k][c], in k order, for */ \
    /* r < n_rows and c < 32. tile is [n_k][32]; strides are in floats. */ \
    X(void, gemm_f32, (float *y, size_t y_stride, const float *x, size_t x_stride, \
                       const float *tile, size_t n_rows, size_t n_k, bool accumulate)) \
    /* The same for one row, without accumulate, on a tile of halves. */ \
    X(void, gemv_f16, (float *y, const float *x, const uint16_t *tile, size_t n_k)) \
    /* x[n_rows][n] -> eight bits: scale = largest magnitude / 127, values rounded to nearest even. */ \
    X(void, quantize_rows, (const struct q8_rows *out, const void *x, enum precision precision, \
                            size_t x_stride, size_t n_rows, size_t n)) \
    /* y[n_rows][n_cols] = finished sums[n_rows][32]; n_cols is at most 32. */ \
    X(void, finish, (void *y, size_t y_stride, const void *sums, size_t n_rows, size_t n_cols, \
                     const struct finish *how)) \
    /* One query's products with n > 0 keys -> its weights on their values, as rows 0 and 1 of p: */ \
    /* weight t is p->scale[0] x (128 row0[t] + row1[t]) in units of value_scale[t]'s integers; both */ \
    /* rows are zero from n to n_padded. factor is the query's scale over sqrt(head_dim). scores has */ \
    /* room for n floats. */ \
    X(void, attention_weights, (const struct q8_rows *p, float *scores, const int32_t *products, \
                                float factor, const float *key_scale, const float *value_scale, \
                                size_t n, size_t n_padded)) \
    /* y[r][c] = scale[2 r] (128 sums[2 r][c] + sums[2 r + 1][c]), n at most 32 of the 32 columns. */ \
    X(void, attention_output, (float *y, size_t y_stride, const int32_t *sums, const float *scale, \
                               size_t n_rows, size_t n)) \
    /* columns[n_k][32] -> a tile of formats.h, n_k a multiple of 32. Scales (and multipliers) are */ \
    /* searched for least squared error. Returns the sum of the squared errors. */ \
    X(double, pack_q8, (void *tile, const float *columns, size_t n_k)) \
    /* scratch: 2 n_k floats. */ \
    X(double, pack_q4, (void *tile, const float *columns, size_t n_k, float *scratch)) \
    /* line[i] = (start + sum of weights x pixels) / 2^22, held to 0..255, for n taps of three channels. */ \
    X(void, resample_line, (uint8_t *line, const uint8_t *row, const struct resample_tap *taps, \
                            size_t n)) \
    /* IEEE half <-> single, all values; to half rounds to nearest even, overflows to infinity. */ \
    X(void, f16_to_f32, (float *out, const uint16_t *in, size_t n)) \
    X(void, f32_to_f16, (uint16_t *out, const float *in, size_t n)) \
    /* y = (x - mean) / sqrt(variance + eps) * weight + bias over n values; bias may be NULL, */ \
    /* y may be x. */ \
    X(void, layer_norm, (float *y, const float *x, const float *weight, const float *bias, \
                         float eps, size_t n)) \
    /* y = x / sqrt(mean of squares + eps) * weight; y may be x. */ \
    X(void, rms_norm, (float *y, const float *x, const float *weight, float eps, size_t n)) \
    /* x = exp(scale (x - max)) / sum; n > 0. */ \
    X(void, softmax, (float *x, float scale, size_t n)) \
    /* x = activation(x). */ \
    X(void, activate, (float *x, enum activation activation, size_t n)) \
    /* y += x, y *= x. */ \
    X(void, add, (float *y, const float *x, size_t n)) \
    X(void, multiply, (float *y, const float *x, size_t n)) \
    /* Turns pairs (x[i], x[i + n / 2]), i < n / 2, by angles given as cosine and sine. */ \
    X(void, rope, (float *x, const float *cosine, const float *sine, size_t n)) \
    /* Depthwise 3 x 3 convolution with zero padding 1: in [side][side][n] -> line `y` of the */ \
    /* output, out_side pixels of n channels; taps [9][n] (3 x 3 row-major), bias [n] or NULL. */ \
    X(void, depthwise_3x3, (float *out, const float *in, const float *taps, const float *bias, \
                            size_t side, size_t out_side, size_t stride, size_t y, size_t n))

#define KERNEL_LIST_INT(X) \
    /* y[r][c] = sum over k of x[r][k] tile[k][c], exact, for n_rows rows and 32 columns. n_k is a */ \
    /* multiple of 32; `lines` as formats.h says. n_next bytes from `next` on, which will be read */ \
    /* soon, are fetched into the cache on the way. */ \
    X(void, gemm_q8, (int32_t *y, size_t y_stride, const struct q8_rows *x, size_t n_rows, \
                      const uint8_t *lines, size_t n_k, const uint8_t *next, size_t n_next)) \
    /* The same for a q4 tile, its multipliers included. `panel` is what prepare_q4 made of it, or */ \
    /* NULL: that pays for few rows. */ \
    X(void, gemm_q4, (int32_t *y, size_t y_stride, const struct q8_rows *x, size_t n_rows, \
                      const void *tile, const uint8_t *panel, size_t n_k, const uint8_t *next, \
                      size_t n_next)) \
    /* A q4 tile in the form that the rung's gemm_q4 likes best: q4_panel_bytes(n_k). */ \
    X(void, prepare_q4, (uint8_t *panel, const void *tile, size_t n_k)) \
    /* Measures the rung, computes nothing: runs its multiply-accumulate instructions at their best, */ \
    /* from registers (c: from the first-level cache), and returns how many products were summed, */ \
    /* in proportion to loops. No other kernel of the rung can be faster. */ \
    X(double, peak, (enum peak_kind kind, size_t loops))

#define KERNEL_LIST(X) \
    KERNEL_LIST_COMMON(X) \
    KERNEL_LIST_INT(X)
/* clang-format on */

#define KERNEL_MEMBER(type, name, parameters) type(*name) parameters;
struct kernels {
    const char *isa;
    size_t int_rows; /* that gemm_q8 and gemm_q4 compute best at once */
    KERNEL_LIST(KERNEL_MEMBER)
};
#undef KERNEL_MEMBER

/* The best rung that this CPU has and that is not above `isa` (NULL: no limit); where that is not known beforehand, it is tried.
 * NULL when the name is unknown (*known false) or when the CPU lacks that rung (*known true). */
const struct kernels *kernels_choose(const char *isa, bool *known);

/* The one of two rungs that multiplies eight-bit rows faster on the core that this runs on; takes a millisecond at most. */
const struct kernels *kernels_faster(const struct kernels *a, const struct kernels *b);

/* Names of all rungs of this build, lowest first; `has` tells whether the CPU has it. NULL at the
 * end. */
const char *kernels_rung(size_t index, bool *has);

#endif
