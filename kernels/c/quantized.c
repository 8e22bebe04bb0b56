/* Activations in eight bits, what is done to a product before it is stored, and attention's weights: the floating-point
 * side of quantized layers. */
#include "math.h"
#include "names.h"

/* ---- Quantizing ------------------------------------------------------------------------- */

/* Magnitudes are compared as integers, so that NaN is the largest of all and the order does not matter. */
static inline ints magnitudes(floats x)
{
    return f_bits(f_abs(x));
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

/* Values [at, at + n) of x, of which n are there (at most all lanes). */
ALWAYS_INLINE floats load(const void *x, enum precision precision, size_t at, size_t n)
{
    if (precision == PRECISION_SINGLE)
        return n < LANES ? f_load_n((const float *)x + at, n) : f_load((const float *)x + at);
    const uint16_t *halves = (const uint16_t *)x + at;
    uint16_t some[LANES] = {0};
    if (n < LANES)
        halves = memcpy(some, halves, n * sizeof *halves);
    return f_load_halves(halves);
}

/* The largest half is finite: what is larger stays finite too, and NaN what it is. */
ALWAYS_INLINE void store(void *y, enum precision precision, size_t at, floats v, size_t n)
{
    const float most = 65504.0f;
    if (precision == PRECISION_SINGLE && n < LANES) {
        f_store_n((float *)y + at, v, n);
    } else if (precision == PRECISION_SINGLE) {
        f_store((float *)y + at, v);
    } else {
        uint16_t halves[LANES];
        v = f_at_least(f_set(-most), f_at_most(f_set(most), v));
        if (n == LANES) {
            f_store_halves((uint16_t *)y + at, v);
        } else {
            f_store_halves(halves, v);
            memcpy((uint16_t *)y + at, halves, n * sizeof *halves);
        }
    }
}

/* Largest magnitude of x[0..n). Fetches as much from `next` on. */
ALWAYS_INLINE float largest_magnitude(const void *x, enum precision precision, size_t n,
                                      const char *next)
{
    const size_t step = LANES * value_bytes(precision);
    ints most = i_set(0);
    FOR_LANES(n, {
        __builtin_prefetch(next);
        next += step;
        most = i_max(most, magnitudes(load(x, precision, i, left)));
    });
    return largest_of(most);
}

/* n values of x from `at` on, x factor -> a group, with zeros behind; returns its sum. */
ALWAYS_INLINE int32_t quantize_group(int8_t *q, const void *x, enum precision precision, size_t at,
                                     size_t n, floats factor)
{
    ints sum = i_set(0);
    for (size_t i = 0; i < KERNEL_GROUP; i += LANES) {
        ints value = i_set(0);
        if (i < n) {
            const size_t left = n - i < LANES ? n - i : LANES;
            value = f_nearest(f_mul(load(x, precision, at + i, left), factor));
        }
        i_store_and_sum(q + i, value, &sum);
    }
    return i_fold(sum);
}

/* The same of a whole row, group by group; returns its sum. */
ALWAYS_INLINE int32_t quantize_row(int8_t *q, int32_t *group_sum, const void *x,
                                   enum precision precision, size_t n, float steps)
{
    const floats factor = f_set(steps);
    int32_t sum = 0;
    size_t k = 0;
    for (; k + KERNEL_GROUP <= n; k += KERNEL_GROUP)
        sum += *group_sum++ = quantize_group(q + k, x, precision, k, KERNEL_GROUP, factor);
    if (k < n)
        sum += *group_sum = quantize_group(q + k, x, precision, k, n - k, factor);
    return sum;
}

ALWAYS_INLINE void quantize(const struct q8_rows *out, const void *x, enum precision precision,
                            size_t x_stride, size_t n_rows, size_t n)
{
    const size_t n_padded = aligned(n, KERNEL_GROUP), n_groups = n_padded / KERNEL_GROUP,
                 row_bytes = x_stride * value_bytes(precision);
    for (size_t r = 0; r < n_rows; r++) {
        const char *row = (const char *)x + r * row_bytes;
        int8_t *q = out->values + r * out->stride;
        int32_t *group_sum = out->group_sum + r * n_groups;
        const float most =
            largest_magnitude(row, precision, n, r + 1 < n_rows ? row + row_bytes : row);
        out->scale[r] = most * (1.0f / 127.0f);
        if (has_steps(most)) {
            out->sum[r] = quantize_row(q, group_sum, row, precision, n, 127.0f / most);
        } else {
            memset(q, 0, n_padded);
            memset(group_sum, 0, n_groups * sizeof *group_sum);
            out->sum[r] = 0;
        }
    }
}

void KERNEL(quantize_rows)(const struct q8_rows *out, const void *x, enum precision precision,
                           size_t x_stride, size_t n_rows, size_t n)
{
    if (precision == PRECISION_SINGLE)
        quantize(out, x, PRECISION_SINGLE, x_stride, n_rows, n);
    else
        quantize(out, x, PRECISION_HALF, x_stride, n_rows, n);
}

/* ---- Finishing -------------------------------------------------------------------------- */

/* What stands in for a bias that is not there. */
static const float zeros[KERNEL_TILE];

/* Any columns, of floats or integers, whatever is done to them. */
ALWAYS_INLINE void finish_any(void *y, size_t y_stride, const void *sums, size_t n_rows,
                              size_t n_cols, const struct finish *how, enum precision precision,
                              enum activation activation)
{
    const float *bias = how->bias ? how->bias : zeros;
    for (size_t r = 0; r < n_rows; r++) {
        const uint32_t *row = (const uint32_t *)sums + r * KERNEL_TILE;
        const floats x_scale = f_set(how->x_scale ? how->x_scale[r] : 0.0f);
        FOR_LANES(n_cols, {
            const size_t at = r * y_stride + i;
            floats v;
            if (how->x_scale)
                v = f_mul(f_of_ints(LOAD_INT((const int32_t *)row)),
                          f_mul(x_scale, LOAD(how->w_scale)));
            else
                v = LOAD((const float *)row);
            v = f_activation(f_add(v, LOAD(bias)), activation);
            if (how->multiply)
                v = f_mul(v, load(how->multiply, precision, at, left));
            if (how->residual)
                v = f_add(v, load(how->residual, precision, at, left));
            store(y, precision, at, v, left);
        });
    }
}

/* Whole tiles of integers, with at most one of factors and residual: what nearly every call is. Scales and bias stay in
 * registers; `precision`, `multiply` and `add` are constants. */
ALWAYS_INLINE void finish_tile(void *y, size_t y_stride, const int32_t *sums, size_t n_rows,
                               const struct finish *how, enum precision precision,
                               enum activation activation, bool multiply, bool add)
{
    enum { N = KERNEL_TILE / LANES };
    const float *bias = how->bias ? how->bias : zeros;
    const void *other = multiply ? how->multiply : how->residual;
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
                v = f_mul(v, load(other, precision, at, LANES));
            if (add)
                v = f_add(v, load(other, precision, at, LANES));
            store(y, precision, at, v, LANES);
        }
    }
}

ALWAYS_INLINE void finish_rows(void *y, size_t y_stride, const void *sums, size_t n_rows,
                               size_t n_cols, const struct finish *how, enum precision precision,
                               enum activation activation)
{
    if (!how->x_scale || n_cols != KERNEL_TILE || (how->multiply && how->residual))
        finish_any(y, y_stride, sums, n_rows, n_cols, how, precision, activation);
    else if (how->multiply)
        finish_tile(y, y_stride, sums, n_rows, how, precision, activation, true, false);
    else if (how->residual)
        finish_tile(y, y_stride, sums, n_rows, how, precision, activation, false, true);
    else
        finish_tile(y, y_stride, sums, n_rows, how, precision, activation, false, false);
}

/* One loop for each activation and precision. */
#define FINISH(a)                                                                                  \
    case a:                                                                                        \
        if (how->precision == PRECISION_SINGLE)                                                    \
            finish_rows(y, y_stride, sums, n_rows, n_cols, how, PRECISION_SINGLE, a);              \
        else                                                                                       \
            finish_rows(y, y_stride, sums, n_rows, n_cols, how, PRECISION_HALF, a);                \
        break

void KERNEL(finish)(void *y, size_t y_stride, const void *sums, size_t n_rows, size_t n_cols,
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

/* products -> scores in units of ln 2; returns the largest. */
static inline float score_keys(float *scores, const int32_t *products, float factor,
                               const float *key_scale, size_t n)
{
    const floats f = f_set(factor * 1.44269504f);
    floats most = f_set(-INFINITY);
    FOR_LANES(n, {
        const floats score = f_mul(f_of_ints(LOAD_INT(products)), f_mul(LOAD(key_scale), f));
        most = f_at_least(most, left == LANES ? score : f_first(left, score, f_set(-INFINITY)));
        STORE(scores, score);
    });
    return f_largest(most);
}

/* scores -> weights of 14 bits: seven into each row; and the rows' sums */
static void split_weights(const struct q8_rows *p, const float *scores, float steps, size_t n)
{
    int8_t *high = p->values, *low = p->values + p->stride;
    const floats factor = f_set(steps);
    ints high_sum = i_set(0), low_sum = i_set(0);
    FOR_LANES(n, {
        /* the bits of a single that was shifted by SHIFTER end in the integer's */
        const ints weight = f_bits(f_fma(LOAD(scores), factor, SHIFTER));
        /* the last ones reach into the padding: zeros */
        i_store_split(high + i, low + i, weight, &high_sum, &low_sum);
    });
    p->sum[0] = i_fold(high_sum);
    p->sum[1] = i_fold(low_sum);
}

void KERNEL(attention_weights)(const struct q8_rows *p, float *scores, const int32_t *products,
                               float factor, const float *key_scale, const float *value_scale,
                               size_t n, size_t n_padded)
{
    const floats most = f_set(score_keys(scores, products, factor, key_scale, n));
    floats sums = f_set(0.0f);
    ints high = i_set(0);
    FOR_LANES(n, {
        floats e = f_exp2(f_sub(LOAD(scores), most));
        if (left < LANES)
            e = f_first(left, e, f_set(0.0f));
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
