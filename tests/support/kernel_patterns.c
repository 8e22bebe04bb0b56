/* What kernels under test are fed with. */
#include "kernel_cases.h"

#include <math.h>

#include "seed.h"

/* +-(1 to 2) x 2^[least, most] */
static float random_magnitude(int least, int most)
{
    const uint64_t bits = random_bits();
    const int exponent = least + (int)(bits % (uint64_t)(most - least + 1));
    const float value = ldexpf(1.0f + (float)(bits >> 48) * 0x1p-16f, exponent);
    return bits >> 40 & 1 ? -value : value;
}

const char *const pattern_names[N_PATTERNS] = {"random", "zeros",       "negative zeros",
                                               "equal",  "alternating", "large",
                                               "tiny",   "mixed",       "not finite"};

float pattern_float(enum pattern pattern, size_t i)
{
    switch (pattern) {
    case ZEROS:
        return 0.0f;
    case NEGATIVE_ZEROS:
        return -0.0f;
    case EQUAL:
        return 1.7f;
    case ALTERNATING:
        return i % 2 ? -1.3f : 1.3f;
    case LARGE: /* products of two, and sums of a thousand of these, stay finite */
        return random_magnitude(40, 54);
    case TINY: /* subnormal, and products that become so */
        return random_magnitude(-149, -60);
    case MIXED: /* from below a half's subnormals to beyond its infinity, and zeros of both signs */
        return random_bits() % 8 ? random_magnitude(-28, 18) : i % 2 ? -0.0f : 0.0f;
    case NOT_FINITE: /* in one row of a few values in eight or so */
        if (random_bits() % 97 == 0)
            return random_bits() % 3 ? (float)NAN : i % 2 ? -INFINITY : INFINITY;
        __attribute__((fallthrough));
    default:
        return (float)((double)random_bits() * 0x1p-61 - 4);
    }
}

uint16_t pattern_half(enum pattern pattern, size_t i)
{
    const uint16_t sign = (uint16_t)(random_bits() & 0x8000);
    const uint16_t halves[] = {[ZEROS] = 0,
                               [NEGATIVE_ZEROS] = 0x8000,
                               [EQUAL] = 0x3ecd,
                               [ALTERNATING] = i % 2 ? 0xbd33 : 0x3d33,
                               [LARGE] = 0x7bff | sign,
                               [TINY] = (uint16_t)(random_bits() & 0x3ff) | sign,
                               [RANDOM] = (uint16_t)(0x3000 + random_bits() % 0x1400) | sign,
                               [MIXED] = (uint16_t)(random_bits() % 0x7c00) | sign,
                               [NOT_FINITE] = 0x7c00 | sign};
    return halves[pattern];
}

int32_t pattern_int(enum pattern pattern, size_t i, int32_t least, int32_t most)
{
    const int64_t middle = ((int64_t)least + most) / 2, range = (int64_t)most - least + 1;
    const uint64_t bits = random_bits();
    switch (pattern) {
    case ZEROS:
        return (int32_t)middle;
    case NEGATIVE_ZEROS:
        return least;
    case EQUAL:
        return most;
    case ALTERNATING:
        return i % 2 ? least : most;
    case LARGE:
        return bits & 1 ? least : most;
    case TINY:
        return (int32_t)(middle + (int64_t)(bits % 3) - 1);
    default:
        return (int32_t)(least + (int64_t)(bits % (uint64_t)range));
    }
}
