/* kernels/c is compiled once for each rung that has no hand-written kernel yet: KERNEL_ISA is the
 * rung's name, and the per-file compiler flags its instruction set. */
#ifndef KERNELS_C_NAMES_H
#define KERNELS_C_NAMES_H

#include "../kernels.h"

#ifndef KERNEL_ISA
#error "KERNEL_ISA must name the rung: c, avx2, ..."
#endif

#define ALWAYS_INLINE __attribute__((always_inline)) static inline

#define KERNEL_JOIN_(name, isa) kernel_##name##_##isa
#define KERNEL_JOIN(name, isa)  KERNEL_JOIN_(name, isa)
#define KERNEL(name)            KERNEL_JOIN(name, KERNEL_ISA)

#define KERNEL_DECLARE_(type, name, parameters) type KERNEL(name) parameters;
KERNEL_LIST(KERNEL_DECLARE_)

#endif
