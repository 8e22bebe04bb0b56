#include "kernels.h"

#include <string.h>

#include "cpu.h"

/* One table a rung, filled from its functions kernel_<name>_<isa>. */
#define KERNEL_DECLARE_C(type, name, parameters)       type kernel_##name##_c parameters;
#define KERNEL_DECLARE_AVX2(type, name, parameters)    type kernel_##name##_avx2 parameters;
#define KERNEL_DECLARE_AVXVNNI(type, name, parameters) type kernel_##name##_avxvnni parameters;
#define KERNEL_DECLARE_AVX512VNNI(type, name, parameters)                                          \
    type kernel_##name##_avx512vnni parameters;
#define KERNEL_FILL_C(type, name, parameters)          .name = kernel_##name##_c,
#define KERNEL_FILL_AVX2(type, name, parameters)       .name = kernel_##name##_avx2,
#define KERNEL_FILL_AVXVNNI(type, name, parameters)    .name = kernel_##name##_avxvnni,
#define KERNEL_FILL_AVX512VNNI(type, name, parameters) .name = kernel_##name##_avx512vnni,

KERNEL_LIST(KERNEL_DECLARE_C)
static const struct kernels table_c = {.isa = "c", KERNEL_LIST(KERNEL_FILL_C)};

#ifdef KERNELS_X86
KERNEL_LIST(KERNEL_DECLARE_AVX2)
KERNEL_LIST(KERNEL_DECLARE_AVXVNNI)
KERNEL_LIST(KERNEL_DECLARE_AVX512VNNI)
static const struct kernels table_avx2 = {.isa = "avx2", KERNEL_LIST(KERNEL_FILL_AVX2)};
static const struct kernels table_avxvnni = {.isa = "avxvnni", KERNEL_LIST(KERNEL_FILL_AVXVNNI)};
static const struct kernels table_avx512vnni = {.isa = "avx512vnni",
                                                KERNEL_LIST(KERNEL_FILL_AVX512VNNI)};
#endif

/* The ladder, lowest first. */
static const struct rung {
    const struct kernels *table;
    unsigned needs; /* flags of cpu.h */
} ladder[] = {
    {&table_c, 0},
#ifdef KERNELS_X86
    {&table_avx2, CPU_AVX2},
    {&table_avxvnni, CPU_AVX2 | CPU_AVXVNNI},
    {&table_avx512vnni, CPU_AVX2 | CPU_AVX512VNNI},
#endif
};
enum { N_RUNGS = sizeof ladder / sizeof *ladder };

const struct kernels *kernels_choose(const char *isa, bool *known)
{
    const unsigned flags = cpu_flags();
    const struct kernels *best = NULL;
    *known = isa == NULL;
    for (size_t i = 0; i < N_RUNGS; i++) {
        const bool has = (ladder[i].needs & ~flags) == 0;
        const bool last = isa && strcmp(isa, ladder[i].table->isa) == 0;
        if (has)
            best = ladder[i].table;
        if (last) {
            *known = true;
            return has ? best : NULL;
        }
    }
    return *known ? best : NULL;
}

const char *kernels_rung(size_t index, bool *has)
{
    if (index >= N_RUNGS)
        return NULL;
    *has = (ladder[index].needs & ~cpu_flags()) == 0;
    return ladder[index].table->isa;
}
