#include "cpu.h"

#if defined(__x86_64__)
#include <cpuid.h>

/* Leaf 1, ECX bit 29. Older compilers know no name for it either. */
static int has_f16c(void)
{
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c >> 29 & 1);
}

/* Leaf 7, subleaf 1, EAX bit 4. Compilers older than gcc 13 and clang 15 know no name for it. Its
 * registers are AVX2's: what the operating system must save for the one it saves for the other. */
static int has_avxvnni(void)
{
    unsigned a, b, c, d;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || a < 1)
        return 0;
    return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 4 & 1);
}
#endif

#if defined(__aarch64__)
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>

/* The bits of the kernel's interface; older headers lack the names. */
#define HWCAP_CPUID_   (1ul << 11) /* since Linux 4.11 */
#define HWCAP_ASIMDDP_ (1ul << 20)
#define HWCAP2_I8MM_   (1ul << 13)

/* Whether every processor that /proc/cpuinfo lists has the feature. For kernels older than the features' bits, some of
 * which list them there; a newer one that masks a bit, or an emulator, means it. */
static int cpuinfo_lists(const char *feature)
{
    char line[2048];
    int n_lists = 0, n_found = 0;
    FILE *file = fopen("/proc/cpuinfo", "re");
    while (file && fgets(line, sizeof line, file)) {
        if (strncmp(line, "Features", 8) != 0)
            continue;
        n_lists++;
        for (char *rest = line, *word; (word = strsep(&rest, " \t\n"));)
            if (strcmp(word, feature) == 0) {
                n_found++;
                break;
            }
    }
    if (file)
        fclose(file);
    return n_lists > 0 && n_found == n_lists;
}
#endif

unsigned cpu_flags(void)
{
    unsigned flags = 0;
#if defined(__aarch64__)
    const int old = !(getauxval(AT_HWCAP) & HWCAP_CPUID_);
    if ((getauxval(AT_HWCAP) & HWCAP_ASIMDDP_) || (old && cpuinfo_lists("asimddp")))
        flags |= CPU_DOTPROD;
    if ((getauxval(AT_HWCAP2) & HWCAP2_I8MM_) || (old && cpuinfo_lists("i8mm")))
        flags |= CPU_I8MM;
#endif
#if defined(__x86_64__)
    __builtin_cpu_init(); /* also asks XGETBV whether the operating system saves the wide registers
                           */
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
        __builtin_cpu_supports("bmi2") && has_f16c())
        flags |= CPU_AVX2;
    if ((flags & CPU_AVX2) && has_avxvnni())
        flags |= CPU_AVXVNNI;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vnni"))
        flags |= CPU_AVX512VNNI;
#endif
    return flags;
}
