/* Sixteen lanes of single precision and of 32-bit integers, in plain C: the definition of what x86/lanes_*.h and
 * arm/lanes_*.h do with vectors. c/vector.c and its kin are written once, with these. */
#ifndef KERNELS_C_LANES_H
#define KERNELS_C_LANES_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "half.h"

enum { LANES = 16 };

typedef struct floats {
    float v[LANES];
} floats;
typedef struct ints {
    int32_t v[LANES];
} ints;

#define LANE_OP(type, result, expression)                                                          \
    type result;                                                                                   \
    for (int l = 0; l < LANES; l++)                                                                \
        result.v[l] = (expression);                                                                \
    return result

/* ---- Memory: all lanes, or the first n (< 16) with zeros behind them ---------------------- */
static inline floats f_load(const float *x)
{
    floats a;
    memcpy(&a, x, sizeof a);
    return a;
}

static inline floats f_load_n(const float *x, size_t n)
{
    floats a = {{0}};
    memcpy(&a, x, n * sizeof *x);
    return a;
}

/* Sixteen halves. */
static inline floats f_load_halves(const uint16_t *x)
{
    LANE_OP(floats, a, single_of_half(x[l]));
}

static inline void f_store_halves(uint16_t *x, floats a)
{
    for (int l = 0; l < LANES; l++)
        x[l] = half_of_single(a.v[l]);
}

static inline void f_store(float *x, floats a)
{
    memcpy(x, &a, sizeof a);
}

static inline void f_store_n(float *x, floats a, size_t n)
{
    memcpy(x, &a, n * sizeof *x);
}

static inline ints i_load(const int32_t *x)
{
    ints a;
    memcpy(&a, x, sizeof a);
    return a;
}

static inline ints i_load_n(const int32_t *x, size_t n)
{
    ints a = {{0}};
    memcpy(&a, x, n * sizeof *x);
    return a;
}

/* The first n bytes (at most 16), zeros behind them. */
static inline ints i_of_bytes(const uint8_t *x, size_t n)
{
    ints a = {{0}};
    for (size_t l = 0; l < n; l++)
        a.v[l] = x[l];
    return a;
}

/* The low bytes. */
static inline void i_store_bytes(int8_t *x, ints a)
{
    for (int l = 0; l < LANES; l++)
        x[l] = (int8_t)a.v[l];
}

/* ---- Arithmetic, each operation rounded once ---------------------------------------------- */
static inline floats f_set(float x)
{
    LANE_OP(floats, a, x);
}

static inline floats f_add(floats a, floats b)
{
    LANE_OP(floats, r, a.v[l] + b.v[l]);
}

static inline floats f_sub(floats a, floats b)
{
    LANE_OP(floats, r, a.v[l] - b.v[l]);
}

static inline floats f_mul(floats a, floats b)
{
    LANE_OP(floats, r, a.v[l] * b.v[l]);
}

static inline floats f_div(floats a, floats b)
{
    LANE_OP(floats, r, a.v[l] / b.v[l]);
}

/* a b + c and c - a b */
static inline floats f_fma(floats a, floats b, floats c)
{
    LANE_OP(floats, r, fmaf(a.v[l], b.v[l], c.v[l]));
}

static inline floats f_nfma(floats a, floats b, floats c)
{
    LANE_OP(floats, r, fmaf(-a.v[l], b.v[l], c.v[l]));
}

/* b where a is NaN, or not larger (smaller) */
static inline floats f_max(floats a, floats b)
{
    LANE_OP(floats, r, a.v[l] > b.v[l] ? a.v[l] : b.v[l]);
}

static inline floats f_min(floats a, floats b)
{
    LANE_OP(floats, r, a.v[l] < b.v[l] ? a.v[l] : b.v[l]);
}

/* a in the first n lanes, b in the others */
static inline floats f_first(size_t n, floats a, floats b)
{
    LANE_OP(floats, r, (size_t)l < n ? a.v[l] : b.v[l]);
}

static inline floats f_of_ints(ints a)
{
    LANE_OP(floats, r, (float)a.v[l]);
}

/* The nearest integers, ties to even, of |a| below 2^22: adding 1.5 x 2^23 leaves them in the low bits. */
static inline ints f_nearest(floats a)
{
    const float shifter = 12582912.0f;
    int32_t zero;
    memcpy(&zero, &shifter, sizeof zero);
    ints r;
    for (int l = 0; l < LANES; l++) {
        a.v[l] += shifter;
        memcpy(&r.v[l], &a.v[l], sizeof zero);
        r.v[l] -= zero;
    }
    return r;
}

/* ---- Integers, and floats as their bits ---------------------------------------------------- */
static inline ints i_set(int32_t x)
{
    LANE_OP(ints, a, x);
}

static inline ints i_add(ints a, ints b)
{
    LANE_OP(ints, r, (int32_t)((uint32_t)a.v[l] + (uint32_t)b.v[l]));
}

static inline ints i_sub(ints a, ints b)
{
    LANE_OP(ints, r, (int32_t)((uint32_t)a.v[l] - (uint32_t)b.v[l]));
}

static inline ints i_mul(ints a, ints b)
{
    LANE_OP(ints, r, (int32_t)((uint32_t)a.v[l] * (uint32_t)b.v[l]));
}

static inline ints i_and(ints a, ints b)
{
    LANE_OP(ints, r, a.v[l] & b.v[l]);
}

static inline ints i_or(ints a, ints b)
{
    LANE_OP(ints, r, a.v[l] | b.v[l]);
}

static inline ints i_max(ints a, ints b)
{
    LANE_OP(ints, r, a.v[l] > b.v[l] ? a.v[l] : b.v[l]);
}

/* n is a constant */
#define i_shift_left(a, n)  i_shift_left_(a, n)
#define i_shift_right(a, n) i_shift_right_(a, n)
static inline ints i_shift_left_(ints a, int n)
{
    LANE_OP(ints, r, (int32_t)((uint32_t)a.v[l] << n));
}

static inline ints i_shift_right_(ints a, int n)
{
    LANE_OP(ints, r, a.v[l] >> n);
}

static inline ints f_bits(floats a)
{
    ints r;
    memcpy(&r, &a, sizeof r);
    return r;
}

static inline floats i_float_bits(ints a)
{
    floats r;
    memcpy(&r, &a, sizeof r);
    return r;
}

/* ---- Sixteen lanes -> one ------------------------------------------------------------------ */
/* The fixed tree: lanes 8 apart first, then 4, 2, 1. */
static inline float f_fold(floats a)
{
    for (int width = LANES / 2; width > 0; width /= 2)
        for (int i = 0; i < width; i++)
            a.v[i] += a.v[i + width];
    return a.v[0];
}

static inline int32_t i_fold(ints a)
{
    int32_t sum = 0;
    for (int l = 0; l < LANES; l++)
        sum += a.v[l];
    return sum;
}

static inline void i_store(int32_t *x, ints a)
{
    memcpy(x, &a, sizeof a);
}

static inline float f_largest(floats a)
{
    for (int width = LANES / 2; width > 0; width /= 2)
        for (int i = 0; i < width; i++)
            a.v[i] = a.v[i] > a.v[i + width] ? a.v[i] : a.v[i + width];
    return a.v[0];
}

static inline int32_t i_largest(ints a)
{
    int32_t most = a.v[0];
    for (int l = 1; l < LANES; l++)
        most = a.v[l] > most ? a.v[l] : most;
    return most;
}

#undef LANE_OP
#endif
