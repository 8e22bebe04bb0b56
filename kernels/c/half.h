/* IEEE half <-> single, all values, as F16C and NEON convert them. */
#ifndef KERNELS_C_HALF_H
#define KERNELS_C_HALF_H

#include <stdint.h>
#include <string.h>

static inline float float_of_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline uint32_t bits_of_float(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

/* Shifted into a single's place the exponent is 112 too small, which a multiplication mends, for
 * subnormal halves too; infinities and NaN get the largest exponent, and NaN becomes quiet. */
static inline float single_of_half(uint16_t half)
{
    const uint32_t magnitude = (uint32_t)(half & 0x7fff) << 13;
    const uint32_t special = magnitude >= 0x0f800000u ? 0x7f800000u : 0;
    const uint32_t quiet = magnitude > 0x0f800000u ? 0x00400000u : 0;
    const float value = float_of_bits(magnitude) * 0x1p112f;
    return float_of_bits(bits_of_float(value) | special | quiet | (uint32_t)(half & 0x8000) << 16);
}

/* Rounds to nearest even; what is too large becomes infinite. */
static inline uint16_t half_of_single(float value)
{
    const uint32_t bits = bits_of_float(value);
    const uint32_t magnitude = bits & 0x7fffffffu;
    const uint32_t sign = (bits >> 16) & 0x8000u;
    /* rounds a normal half: half of the last place, less one when the last bit is even */
    const uint32_t normal = (magnitude - (112u << 23) + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
    /* adding 0.5 aligns a subnormal half's last bit with a single's and rounds */
    const uint32_t subnormal = bits_of_float(float_of_bits(magnitude) + 0.5f) - 0x3f000000u;
    /* NaN keeps the upper bits of its payload and becomes quiet */
    const uint32_t payload =
        (0x0200u | (magnitude >> 13 & 0x03ffu)) & -(uint32_t)(magnitude > 0x7f800000u);
    const uint32_t special = 0x7c00u | payload;
    /* masks, not branches: with those gcc 12 does not vectorise the loop */
    const uint32_t is_subnormal = -(uint32_t)(magnitude < 0x38800000u);
    const uint32_t is_special = -(uint32_t)(magnitude >= 0x47800000u);
    const uint32_t half = (subnormal & is_subnormal) | (normal & ~(is_subnormal | is_special)) |
                          (special & is_special);
    return (uint16_t)(half | sign);
}

#endif
