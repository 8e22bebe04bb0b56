/* Activations in eight bits, what is done to a product before it is stored, and attention's weights: the floating-point
 * side of quantized layers. */
#include "math.h"
#include "names.h"

/* ---- Quantizing ------------------------------------------------------------------------- */

/* Magnitudes are compared as integers, so that NaN is the largest of all and the order does not matter. */
static inline ints magnitudes(floats x)
{
    return i_and(f_bits(x), i_set(0x7fffffff));
}

static inline float largest_of(ints magnitudes)
{
    const int32_t bits = i_largest(magnitudes);
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* Whether rows with this largest magnitude have steps: not if it is not finite, and not if it is so small that the
 * steps' reciprocal is infinite. Such rows become zeros; their scale says which of the two it was. */
static inline bool has_steps(float most)
{
    return most > 0x1p-100f && most <= 0x1.fffffep127f;
}

/* Largest magnitude of x[0..n). Fetches as much from `next` on. */
static inline float largest_magnitude(const float *x, size_t n, const float *next)
{
    ints most = i_set(0);
    FOR_LANES(n, {
        __builtin_prefetch(next + i);
        most = i_max(most, magnitudes(LOAD(x)));
    });
    return largest_of(most);
}

/* x[0..n) x factor -> a group, with zeros behind; returns its sum. */
static inline int32_t quantize_group(int8_t *q, const float *x, size_t n, floats factor)
{
    ints sum = i_set(0);
    for (size_t i = 0; i < KERNEL_GROUP; i += LANES) {
        ints value = i_set(0);
        if (i + LANES <= n)
            value = f_nearest(f_mul(f_load(x + i), factor));
        else if (i < n)
            value = f_nearest(f_mul(f_load_n(x + i, n - i), factor));
        sum = i_add(sum, value);
        i_store_bytes(q + i, value);
    }
    return i_fold(sum);
}

void KERNEL(quantize_rows)(const struct q8_rows *out, const float *x, size_t x_stride,
                           size_t n_rows, size_t n)
{
    const size_t n_groups = aligned(n, KERNEL_GROUP) / KERNEL_GROUP;
    for (size_t r = 0; r < n_rows; r++) {
        const float *next = r + 1 < n_rows ? x + (r + 1) * x_stride : x;
        const float most = largest_magnitude(x + r * x_stride, n, next);
        const bool usable = has_steps(most);
        const floats factor = f_set(usable ? 127.0f / most : 0.0f);
        int32_t sum = 0;
        for (size_t g = 0; g < n_groups; g++) {
            const size_t k = g * KERNEL_GROUP, left = n - k;
            const int32_t group_sum =
                quantize_group(out->values + r * out->stride + k, x + r * x_stride + k,
                               !usable               ? 0
                               : left < KERNEL_GROUP ? left
                                                     : KERNEL_GROUP,
                               factor);
            out->group_sum[r * n_groups + g] = group_sum;
            sum += group_sum;
        }
        out->scale[r] = most * (1.0f / 127.0f);
        out->sum[r] = sum;
    }
}

/* ---- Finishing -------------------------------------------------------------------------- */

/* What stands in for a bias that is not there. */
static const float zeros[KERNEL_TILE];

/* Any columns, of floats or integers, whatever is done to them. */
__attribute__((always_inline)) static inline void
finish_any(float *y, size_t y_stride, const void *sums, size_t n_rows, size_t n_cols,
           const struct finish *how, enum activation activation)
{
    const float *bias = how->bias ? how->bias : zeros;
    for (size_t r = 0; r < n_rows; r++) {
        const uint32_t *row = (const uint32_t *)sums + r * KERNEL_TILE;
        const floats x_scale = f_set(how->x_scale ? how->x_scale[r] : 0.0f);
        float *out = y + r * y_stride;
        FOR_LANES(n_cols, {
            floats v;
            if (how->x_scale)
                v = f_mul(f_of_ints(LOAD_INT((const int32_t *)row)),
                          f_mul(x_scale, LOAD(how->w_scale)));
            else
                v = LOAD((const float *)row);
            v = f_activation(f_add(v, LOAD(bias)), activation);
            if (how->multiply)
                v = f_mul(v, LOAD(how->multiply + r * y_stride));
            if (how->residual)
                v = f_add(v, LOAD(how->residual + r * y_stride));
            STORE(out, v);
        });
    }
}

/* Whole tiles of integers, with at most one of factors and residual: what nearly every call is. Scales and bias stay in
 * registers; `multiply` and `add` are constants. */
__attribute__((always_inline)) static inline void
finish_tile(float *y, size_t y_stride, const int32_t *sums, size_t n_rows, const struct finish *how,
            enum activation activation, bool multiply, bool add)
{
    enum { N = KERNEL_TILE / LANES };
    const float *bias = how->bias ? how->bias : zeros,
                *other = multiply ? how->multiply : how->residual;
    floats w[N], b[N];
    for (int i = 0; i < N; i++) {
        w[i] = f_load(how->w_scale + i * LANES);
        b[i] = f_load(bias + i * LANES);
    }
    for (size_t r = 0; r < n_rows; r++) {
        const floats x_scale = f_set(how->x_scale[r]);
        for (size_t i = 0; i < N; i++) {
            const size_t at = r * y_stride + i * LANES;
            const floats sum = f_of_ints(i_load(sums + r * KERNEL_TILE + i * LANES));
            floats v = f_activation(f_add(f_mul(sum, f_mul(x_scale, w[i])), b[i]), activation);
            if (multiply)
                v = f_mul(v, f_load(other + at));
            if (add)
                v = f_add(v, f_load(other + at));
            f_store(y + at, v);
        }
    }
}

__attribute__((always_inline)) static inline void
finish_rows(float *y, size_t y_stride, const void *sums, size_t n_rows, size_t n_cols,
            const struct finish *how, enum activation activation)
{
    if (!how->x_scale || n_cols != KERNEL_TILE || (how->multiply && how->residual))
        finish_any(y, y_stride, sums, n_rows, n_cols, how, activation);
    else if (how->multiply)
        finish_tile(y, y_stride, sums, n_rows, how, activation, true, false);
    else if (how->residual)
        finish_tile(y, y_stride, sums, n_rows, how, activation, false, true);
    else
        finish_tile(y, y_stride, sums, n_rows, how, activation, false, false);
}

/* One loop an activation. */
#define FINISH(a)                                                                                  \
    case a:                                                                                        \
        finish_rows(y, y_stride, sums, n_rows, n_cols, how, a);                                    \
        break

void KERNEL(finish)(float *y, size_t y_stride, const void *sums, size_t n_rows, size_t n_cols,
                    const struct finish *how)
{
    switch (how->activation) {
        FINISH(ACTIVATION_QUICK_GELU);
        FINISH(ACTIVATION_GELU);
        FINISH(ACTIVATION_GELU_TANH);
        FINISH(ACTIVATION_SILU);
        FINISH(ACTIVATION_RELU);
        FINISH(ACTIVATION_HARDSWISH);
        FINISH(ACTIVATION_HARDSIGMOID);
    case ACTIVATION_COUNT:
        FINISH(ACTIVATION_NONE);
    }
}

/* ---- Attention -------------------------------------------------------------------------- */

enum { MOST_WEIGHT = 127 * 128 + 127 }; /* of the two rows together */

/* scores -> weights of 14 bits: seven into each row; and the rows' sums */
static void split_weights(const struct q8_rows *p, const float *scores, float steps, size_t n)
{
    int8_t *high = p->values, *low = p->values + p->stride;
    const floats factor = f_set(steps);
    ints high_sum = i_set(0), low_sum = i_set(0);
    FOR_LANES(n, {
        const ints weight = f_nearest(f_mul(LOAD(scores), factor));
        const ints h = i_shift_right(weight, 7), l = i_and(weight, i_set(127));
        high_sum = i_add(high_sum, h);
        low_sum = i_add(low_sum, l);
        i_store_bytes(high + i, h); /* the last ones reach into the padding: zeros */
        i_store_bytes(low + i, l);
    });
    p->sum[0] = i_fold(high_sum);
    p->sum[1] = i_fold(low_sum);
}

void KERNEL(attention_weights)(const struct q8_rows *p, float *scores, const int32_t *products,
                               float factor, const float *key_scale, const float *value_scale,
                               size_t n, size_t n_padded)
{
    const floats f = f_set(factor);
    FOR_LANES(n, STORE(scores, f_mul(f_of_ints(LOAD_INT(products)), f_mul(LOAD(key_scale), f))););
    const floats most = f_set(lane_most(scores, n));
    floats sums = f_set(0.0f);
    ints high = i_set(0);
    FOR_LANES(n, {
        floats e = f_exp(f_sub(LOAD(scores), most));
        if (left < LANES)
            e = f_first(e, left);
        const floats weight = f_mul(e, LOAD(value_scale));
        sums = f_add(sums, e);
        high = i_max(high, magnitudes(weight));
        STORE(scores, weight);
    });
    const float sum = f_fold(sums), largest = largest_of(high);
    const bool usable = has_steps(largest);
    if (!usable)
        memset(scores, 0, n * sizeof *scores);
    memset(p->values + n, 0, n_padded - n);
    memset(p->values + p->stride + n, 0, n_padded - n);
    split_weights(p, scores, usable ? (float)MOST_WEIGHT / largest : 0.0f, n);
    p->scale[0] = p->scale[1] = largest * (1.0f / (float)MOST_WEIGHT) / sum;
}

void KERNEL(attention_output)(float *y, size_t y_stride, const int32_t *sums, const float *scale,
                              size_t n_rows, size_t n)
{
    const floats step = f_set(128.0f);
    for (size_t r = 0; r < n_rows; r++, y += y_stride, sums += 2 * KERNEL_TILE) {
        const floats s = f_set(scale[2 * r]);
        FOR_LANES(n, {
            const floats high = f_of_ints(LOAD_INT(sums)),
                         low = f_of_ints(LOAD_INT(sums + KERNEL_TILE));
            STORE(y, f_mul(f_fma(step, high, low), s));
        });
    }
}
