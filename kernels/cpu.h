/* What the processor has, as far as the ladder of kernels.c asks. */
#ifndef KERNELS_CPU_H
#define KERNELS_CPU_H

enum {
    /* each also asks whether the operating system saves the registers */
    CPU_AVX2 = 1,       /* AVX2, FMA, F16C and BMI2 (x86-64-v3) */
    CPU_AVX512VNNI = 2, /* AVX-512 F, BW, VL, DQ (x86-64-v4) and VNNI */
    CPU_AVXVNNI = 4,    /* VPDPBUSD in 256-bit registers, without AVX-512 */
    CPU_DOTPROD = 8,    /* SDOT (ARMv8.2) */
    CPU_I8MM = 16,      /* SMMLA (ARMv8.6) */
};

unsigned cpu_flags(void);

#endif
