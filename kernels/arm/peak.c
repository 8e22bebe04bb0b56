/* The peak of arm64's rungs: each one's multiply-accumulate instructions on sixteen independent sums, which hide their
 * latency, with all factors in registers. Each statement is volatile: compilers leave it as it stands. NEON alone needs,
 * of eight-bit weights, two products in sixteen bits before one addition that widens; of four-bit ones eight. */
#include <arm_neon.h>

#include "../c/names.h"

enum { N = 16, ROUNDS = 8 };

#define EACH(X)                                                                                    \
    X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12) X(13) X(14) X(15)

/* clang-format off */
#define PEAK(name, products, once, last)                                                           \
    static double name(size_t loops)                                                               \
    {                                                                                              \
        const int32x4_t zero = vdupq_n_s32(0), u = zero, w = zero;                                 \
        int32x4_t EACH(SUM) t = zero;                                                              \
        for (size_t loop = 0; loop < loops; loop++) {                                              \
            _Pragma("GCC unroll 1")                                                                \
            for (int round = 0; round < ROUNDS; round++) {                                         \
                EACH(once)                                                                         \
            }                                                                                      \
            EACH(last)                                                                             \
        }                                                                                          \
        (void)t;                                                                                   \
        return (double)loops * ROUNDS * N * (products);                                            \
    }
/* clang-format on */
#define SUM(i)  sum##i = zero,
#define NONE(i) (void)sum##i;
#define FMA(i)  __asm__ volatile("fmla %0.4s, %1.4s, %2.4s" : "+w"(sum##i) : "w"(u), "w"(w));
PEAK(peak_f32, 4, FMA, NONE)

#if defined(__ARM_FEATURE_MATMUL_INT8)
#define ONCE(i) __asm__ volatile("smmla %0.4s, %1.16b, %2.16b" : "+w"(sum##i) : "w"(u), "w"(w));
PEAK(peak_w8a8, 32, ONCE, NONE)
#define peak_w4a8 peak_w8a8
#elif defined(__ARM_FEATURE_DOTPROD)
#define ONCE(i)   __asm__ volatile("sdot %0.4s, %1.16b, %2.16b" : "+w"(sum##i) : "w"(u), "w"(w));
PEAK(peak_w8a8, 16, ONCE, NONE)
#define peak_w4a8 peak_w8a8
#else
#define W8(i)                                                                                      \
    __asm__ volatile("smull %1.8h, %2.8b, %3.8b\n\tsmlal %1.8h, %2.8b, %3.8b\n\t"                  \
                     "sadalp %0.4s, %1.8h"                                                         \
                     : "+w"(sum##i), "=&w"(t)                                                      \
                     : "w"(u), "w"(w));
#define W4(i)    __asm__ volatile("smlal %0.8h, %1.8b, %2.8b" : "+w"(sum##i) : "w"(u), "w"(w));
#define WIDEN(i) __asm__ volatile("sadalp %0.4s, %0.8h" : "+w"(sum##i) : "w"(u));
PEAK(peak_w8a8, 16, W8, NONE)
PEAK(peak_w4a8, 8, W4, WIDEN)
#endif

double KERNEL(peak)(enum peak_kind kind, size_t loops)
{
    static double (*const peaks[PEAK_COUNT])(size_t) = {
        [PEAK_F32] = peak_f32, [PEAK_W8A8] = peak_w8a8, [PEAK_W4A8] = peak_w4a8};
    return peaks[kind](loops);
}
