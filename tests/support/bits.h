/* Floats by their bits. */
#ifndef SUPPORT_BITS_H
#define SUPPORT_BITS_H

#include <stdint.h>
#include <string.h>

static inline float float_of_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

#endif
