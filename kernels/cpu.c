#include "cpu.h"

unsigned cpu_flags(void)
{
    unsigned flags = 0;
#if defined(__x86_64__)
    __builtin_cpu_init(); /* also asks XGETBV whether the operating system saves the wide registers
                           */
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
        __builtin_cpu_supports("bmi2"))
        flags |= CPU_AVX2;
#endif
    return flags;
}
