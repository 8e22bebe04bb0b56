/* Floats by their bits. */
#ifndef SUPPORT_BITS_H
#define SUPPORT_BITS_H

#include "../kernels/c/half.h" /* float_of_bits, bits_of_float */

#endif
