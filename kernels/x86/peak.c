/* The peak of x86's rungs: each one's multiply-accumulate instructions on twelve independent sums,
 * which hide their latency, with all factors in registers. Each statement is volatile: compilers
 * leave it as it stands.
 *
 * Exact sums need, of eight-bit weights without VNNI: the sign moved from one factor to the other
 * (VPSIGNB), products added in pairs (VPMADDUBSW), widened (VPMADDWD), added: four instructions
 * for 32 products. Of four-bit weights the pairs' sums are small, so that eight of them are added in
 * 16 bits before one is widened. VNNI does either in one instruction. */
#include <immintrin.h>

#include "../c/names.h"

enum { N = 12, ROUNDS = 8 };

#define EACH(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11)

#ifdef __AVX512VNNI__
typedef __m512i vector;
#define VNNI(i) __asm__ volatile("vpdpbusd %2, %1, %0" : "+v"(sum##i) : "v"(u), "v"(w));
#define FMA(i)  __asm__ volatile("vfmadd231ps %2, %1, %0" : "+v"(sum##i) : "v"(u), "v"(w));
#else
typedef __m256i vector;
#define VNNI(i) __asm__ volatile("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sum##i) : "x"(u), "x"(w));
#define FMA(i)  __asm__ volatile("vfmadd231ps %2, %1, %0" : "+x"(sum##i) : "x"(u), "x"(w));
#endif

/* `once` for each sum in each of the ROUNDS, then `last` for each. */
/* clang-format off */
#define PEAK(name, bytes, once, last)                                                              \
    static double name(size_t loops)                                                               \
    {                                                                                              \
        const vector zero = {0}, u = zero, w = zero, ones = zero;                                  \
        vector EACH(SUM) t = zero;                                                                 \
        for (size_t loop = 0; loop < loops; loop++) {                                              \
            _Pragma("GCC unroll 1")                                                                \
            for (int round = 0; round < ROUNDS; round++) {                                         \
                EACH(once)                                                                         \
            }                                                                                      \
            EACH(last)                                                                             \
        }                                                                                          \
        (void)ones, (void)t;                                                                       \
        return (double)loops * ROUNDS * N * (double)(sizeof(vector) / (bytes));                    \
    }
/* clang-format on */
#define SUM(i)  sum##i = zero,
#define NONE(i) (void)sum##i;

PEAK(peak_f32, sizeof(float), FMA, NONE)

#if defined(__AVX512VNNI__) || defined(__AVXVNNI__)
PEAK(peak_w8a8, 1, VNNI, NONE)
#define peak_w4a8 peak_w8a8
#else
#define W8(i)                                                                                      \
    __asm__ volatile("vpsignb %2, %3, %1\n\tvpmaddubsw %1, %2, %1\n\t"                             \
                     "vpmaddwd %4, %1, %1\n\tvpaddd %1, %0, %0"                                    \
                     : "+x"(sum##i), "=&x"(t)                                                      \
                     : "x"(u), "x"(w), "x"(ones));
#define W4(i)                                                                                      \
    __asm__ volatile("vpmaddubsw %3, %2, %1\n\tvpaddw %1, %0, %0"                                  \
                     : "+x"(sum##i), "=&x"(t)                                                      \
                     : "x"(u), "x"(w));
#define WIDEN(i)                                                                                   \
    __asm__ volatile("vpmaddwd %2, %0, %1\n\tvpaddd %1, %0, %0"                                    \
                     : "+x"(sum##i), "=&x"(t)                                                      \
                     : "x"(ones));
PEAK(peak_w8a8, 1, W8, NONE)
PEAK(peak_w4a8, 1, W4, WIDEN)
#endif

double KERNEL(peak)(enum peak_kind kind, size_t loops)
{
    static double (*const peaks[PEAK_COUNT])(size_t) = {
        [PEAK_F32] = peak_f32, [PEAK_W8A8] = peak_w8a8, [PEAK_W4A8] = peak_w4a8};
    return peaks[kind](loops);
}
