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

/* Output columns of a weight tile: models/FORMAT.md. */
enum { KERNEL_TILE = 32 };

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

/* KERNEL_LIST(X) calls X(return type, name, parameters) for each kernel. */
/* clang-format off */
#define KERNEL_LIST(X) \
    /* y[r][c] = (accumulate ? y[r][c] : 0) + sum over k of x[r][k] tile[k][c], in k order, for */ \
    /* r < n_rows and c < 32. tile is [n_k][32]; strides are in floats. */ \
    X(void, gemm_f32, (float *y, size_t y_stride, const float *x, size_t x_stride, \
                       const float *tile, size_t n_rows, size_t n_k, bool accumulate)) \
    /* The same for one row, without accumulate, on a tile of halves. */ \
    X(void, gemv_f16, (float *y, const float *x, const uint16_t *tile, size_t n_k)) \
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
/* clang-format on */

#define KERNEL_MEMBER(type, name, parameters) type(*name) parameters;
struct kernels {
    const char *isa;
    KERNEL_LIST(KERNEL_MEMBER)
};
#undef KERNEL_MEMBER

/* The best rung that this CPU has and that is not above `isa` (NULL: no limit).
 * NULL when the name is unknown (*known false) or when the CPU lacks that rung (*known true). */
const struct kernels *kernels_choose(const char *isa, bool *known);

/* Names of all rungs of this build, lowest first; `has` tells whether the CPU has it. NULL at the
 * end. */
const char *kernels_rung(size_t index, bool *has);

#endif
