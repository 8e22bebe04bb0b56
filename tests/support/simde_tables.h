/* The rungs of kernels/x86 and kernels/arm once more, compiled for no instruction set in particular through
 * tests/simde: so they are tested where the processor lacks them. */
#ifndef SUPPORT_SIMDE_TABLES_H
#define SUPPORT_SIMDE_TABLES_H

#include <stddef.h>

#include "../kernels/kernels.h"

/* NULL behind the last one; there is none without SIMDe. */
const struct kernels *simde_table(size_t index);

#endif
