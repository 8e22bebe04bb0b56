/* What the processor has, as far as the ladder of kernels.c asks. */
#ifndef KERNELS_CPU_H
#define KERNELS_CPU_H

enum {
    CPU_AVX2 =
        1, /* AVX2, FMA and F16C, and an operating system that saves their registers (x86-64-v3) */
};

unsigned cpu_flags(void);

#endif
