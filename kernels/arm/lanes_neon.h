/* c/lanes.h with four NEON registers. */
#ifndef KERNELS_ARM_LANES_NEON_H
#define KERNELS_ARM_LANES_NEON_H

#include <arm_neon.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { LANES = 16 };

typedef struct floats {
    float32x4_t a, b, c, d;
} floats;
typedef struct ints {
    int32x4_t a, b, c, d;
} ints;

static inline floats f_load(const float *x)
{
    return (floats){vld1q_f32(x), vld1q_f32(x + 4), vld1q_f32(x + 8), vld1q_f32(x + 12)};
}
static inline void f_store(float *x, floats v)
{
    vst1q_f32(x, v.a), vst1q_f32(x + 4, v.b), vst1q_f32(x + 8, v.c), vst1q_f32(x + 12, v.d);
}
static inline ints i_load(const int32_t *x)
{
    return (ints){vld1q_s32(x), vld1q_s32(x + 4), vld1q_s32(x + 8), vld1q_s32(x + 12)};
}
static inline void i_store(int32_t *x, ints v)
{
    vst1q_s32(x, v.a), vst1q_s32(x + 4, v.b), vst1q_s32(x + 8, v.c), vst1q_s32(x + 12, v.d);
}
static inline float32x4_t of_low_halves(uint16x8_t x) { return vcvt_f32_f16(vreinterpret_f16_u16(vget_low_u16(x))); }
static inline float32x4_t of_high_halves(uint16x8_t x) { return vcvt_high_f32_f16(vreinterpretq_f16_u16(x)); }
static inline floats f_load_halves(const uint16_t *x)
{
    const uint16x8_t a = vld1q_u16(x), b = vld1q_u16(x + 8);
    return (floats){of_low_halves(a), of_high_halves(a), of_low_halves(b), of_high_halves(b)};
}
static inline void f_store_halves(uint16_t *x, floats v)
{
    vst1q_u16(x, vreinterpretq_u16_f16(vcvt_high_f16_f32(vcvt_f16_f32(v.a), v.b)));
    vst1q_u16(x + 8, vreinterpretq_u16_f16(vcvt_high_f16_f32(vcvt_f16_f32(v.c), v.d)));
}
/* What a call of memcpy would take several times as long for. */
static inline float32x4_t up_to_four(const float *x, size_t n)
{
    float32x4_t v = vdupq_n_f32(0);
    if (n >= 4)
        return vld1q_f32(x);
    if (n > 0)
        v = vld1q_lane_f32(x, v, 0);
    if (n > 1)
        v = vld1q_lane_f32(x + 1, v, 1);
    if (n > 2)
        v = vld1q_lane_f32(x + 2, v, 2);
    return v;
}
static inline floats f_load_n(const float *x, size_t n)
{
    const float32x4_t none = vdupq_n_f32(0);
    return (floats){up_to_four(x, n), n > 4 ? up_to_four(x + 4, n - 4) : none, n > 8 ? up_to_four(x + 8, n - 8) : none,
                    n > 12 ? up_to_four(x + 12, n - 12) : none};
}
static inline void f_store_n(float *x, floats v, size_t n)
{
    const float32x4_t four[] = {v.a, v.b, v.c, v.d};
    size_t i = 0;
    for (; i + 4 <= n; i += 4)
        vst1q_f32(x + i, four[i / 4]);
    if (i < n)
        vst1q_lane_f32(x + i, four[i / 4], 0);
    if (i + 1 < n)
        vst1q_lane_f32(x + i + 1, four[i / 4], 1);
    if (i + 2 < n)
        vst1q_lane_f32(x + i + 2, four[i / 4], 2);
}
static inline ints i_of_bytes(const uint8_t *x, size_t n)
{
    uint8_t bytes[LANES] = {0};
    memcpy(bytes, x, n);
    const uint8x16_t all = vld1q_u8(bytes);
    const uint16x8_t low = vmovl_u8(vget_low_u8(all)), high = vmovl_u8(vget_high_u8(all));
    return (ints){vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(low))), vreinterpretq_s32_u32(vmovl_u16(vget_high_u16(low))),
                  vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(high))), vreinterpretq_s32_u32(vmovl_u16(vget_high_u16(high)))};
}
/* the low halves of the lanes of a and b */
static inline int16x8_t low_words(int32x4_t a, int32x4_t b) { return vuzp1q_s16(vreinterpretq_s16_s32(a), vreinterpretq_s16_s32(b)); }
static inline int8x16_t low_bytes(int16x8_t a, int16x8_t b) { return vuzp1q_s8(vreinterpretq_s8_s16(a), vreinterpretq_s8_s16(b)); }

static inline floats f_set(float x)
{
    const float32x4_t v = vdupq_n_f32(x);
    return (floats){v, v, v, v};
}
static inline ints i_set(int32_t x)
{
    const int32x4_t v = vdupq_n_s32(x);
    return (ints){v, v, v, v};
}
/* x where it is larger (smaller), else y: of a NaN too */
static inline float32x4_t larger(float32x4_t x, float32x4_t y) { return vbslq_f32(vcgtq_f32(x, y), x, y); }
static inline float32x4_t smaller(float32x4_t x, float32x4_t y) { return vbslq_f32(vcltq_f32(x, y), x, y); }
#define FOUR(type, name, operation)                                                                \
    static inline type name(type x, type y)                                                        \
    {                                                                                              \
        return (type){operation(x.a, y.a), operation(x.b, y.b), operation(x.c, y.c), operation(x.d, y.d)}; \
    }
FOUR(floats, f_add, vaddq_f32)
FOUR(floats, f_sub, vsubq_f32)
FOUR(floats, f_mul, vmulq_f32)
FOUR(floats, f_div, vdivq_f32)
FOUR(floats, f_max, larger)
FOUR(floats, f_min, smaller)
FOUR(ints, i_add, vaddq_s32)
FOUR(ints, i_sub, vsubq_s32)
FOUR(ints, i_mul, vmulq_s32)
FOUR(ints, i_and, vandq_s32)
FOUR(ints, i_or, vorrq_s32)
FOUR(ints, i_max, vmaxq_s32)
FOUR(floats, f_at_least, vmaxq_f32)
FOUR(floats, f_at_most, vminq_f32)
FOUR(floats, f_two_less, vrecpsq_f32)
#undef FOUR
static inline floats f_fma(floats x, floats y, floats z)
{
    return (floats){vfmaq_f32(z.a, x.a, y.a), vfmaq_f32(z.b, x.b, y.b), vfmaq_f32(z.c, x.c, y.c), vfmaq_f32(z.d, x.d, y.d)};
}
static inline floats f_nfma(floats x, floats y, floats z)
{
    return (floats){vfmsq_f32(z.a, x.a, y.a), vfmsq_f32(z.b, x.b, y.b), vfmsq_f32(z.c, x.c, y.c), vfmsq_f32(z.d, x.d, y.d)};
}
#define LANES_HAVE_SHORTCUTS
static inline floats f_abs(floats x) { return (floats){vabsq_f32(x.a), vabsq_f32(x.b), vabsq_f32(x.c), vabsq_f32(x.d)}; }
static inline void add_bytes(ints *sum, int8x16_t x) { sum->a = vpadalq_s16(sum->a, vpaddlq_s8(x)); }
static inline void i_store_and_sum(int8_t *bytes, ints x, ints *sum)
{
    const int8x16_t all = low_bytes(low_words(x.a, x.b), low_words(x.c, x.d));
    add_bytes(sum, all);
    vst1q_s8(bytes, all);
}
static inline void i_store_split(int8_t *high, int8_t *low, ints x, ints *high_sum, ints *low_sum)
{
    const int16x8_t a = low_words(x.a, x.b), b = low_words(x.c, x.d);
    const int8x16_t h = vshrn_high_n_s16(vshrn_n_s16(a, 7), b, 7), l = vandq_s8(low_bytes(a, b), vdupq_n_s8(127));
    add_bytes(high_sum, h);
    add_bytes(low_sum, l);
    vst1q_s8(high, h);
    vst1q_s8(low, l);
}
/* all ones in the lanes of a register, the first of which is lane `first` of sixteen, that come before n */
static inline uint32x4_t before(size_t n, int32_t first)
{
    static const int32_t lane[4] = {0, 1, 2, 3};
    return vcltq_s32(vaddq_s32(vld1q_s32(lane), vdupq_n_s32(first)), vdupq_n_s32((int32_t)n));
}
static inline floats f_first(size_t n, floats x, floats y)
{
    return (floats){vbslq_f32(before(n, 0), x.a, y.a), vbslq_f32(before(n, 4), x.b, y.b), vbslq_f32(before(n, 8), x.c, y.c),
                    vbslq_f32(before(n, 12), x.d, y.d)};
}
static inline floats f_of_ints(ints x)
{
    return (floats){vcvtq_f32_s32(x.a), vcvtq_f32_s32(x.b), vcvtq_f32_s32(x.c), vcvtq_f32_s32(x.d)};
}
static inline ints f_nearest(floats x)
{
    return (ints){vcvtnq_s32_f32(x.a), vcvtnq_s32_f32(x.b), vcvtnq_s32_f32(x.c), vcvtnq_s32_f32(x.d)};
}
#define i_shift_left(x, n)                                                                         \
    ((ints){vshlq_n_s32((x).a, n), vshlq_n_s32((x).b, n), vshlq_n_s32((x).c, n), vshlq_n_s32((x).d, n)})
#define i_shift_right(x, n)                                                                        \
    ((ints){vshrq_n_s32((x).a, n), vshrq_n_s32((x).b, n), vshrq_n_s32((x).c, n), vshrq_n_s32((x).d, n)})
static inline ints f_bits(floats x)
{
    return (ints){vreinterpretq_s32_f32(x.a), vreinterpretq_s32_f32(x.b), vreinterpretq_s32_f32(x.c),
                  vreinterpretq_s32_f32(x.d)};
}
static inline ints i_load_n(const int32_t *x, size_t n)
{
    return f_bits(f_load_n((const float *)(const void *)x, n));
}
static inline floats i_float_bits(ints x)
{
    return (floats){vreinterpretq_f32_s32(x.a), vreinterpretq_f32_s32(x.b), vreinterpretq_f32_s32(x.c),
                    vreinterpretq_f32_s32(x.d)};
}

/* Lanes 8 apart first, then 4, 2, 1. */
static inline float f_fold(floats x)
{
    const float32x4_t four = vaddq_f32(vaddq_f32(x.a, x.c), vaddq_f32(x.b, x.d));
    const float32x2_t two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
    return vget_lane_f32(two, 0) + vget_lane_f32(two, 1);
}
static inline float f_largest(floats x)
{
    const float32x4_t four = larger(larger(x.a, x.c), larger(x.b, x.d));
    const float32x2_t low = vget_low_f32(four), high = vget_high_f32(four), two = vbsl_f32(vcgt_f32(low, high), low, high);
    const float first = vget_lane_f32(two, 0), second = vget_lane_f32(two, 1);
    return first > second ? first : second;
}
static inline int32_t i_fold(ints x) { return vaddvq_s32(vaddq_s32(vaddq_s32(x.a, x.c), vaddq_s32(x.b, x.d))); }
static inline int32_t i_largest(ints x) { return vmaxvq_s32(vmaxq_s32(vmaxq_s32(x.a, x.c), vmaxq_s32(x.b, x.d))); }

#endif
