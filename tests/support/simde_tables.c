#include "simde_tables.h"

#ifdef HAVE_SIMDE
#define DECLARE_AVX2(type, name, parameters)       type kernel_##name##_simde_avx2 parameters;
#define DECLARE_AVXVNNI(type, name, parameters)    type kernel_##name##_simde_avxvnni parameters;
#define DECLARE_AVX512VNNI(type, name, parameters) type kernel_##name##_simde_avx512vnni parameters;
KERNEL_LIST(DECLARE_AVX2)
KERNEL_LIST(DECLARE_AVXVNNI)
KERNEL_LIST(DECLARE_AVX512VNNI)

#define FILL_AVX2(type, name, parameters)       .name = kernel_##name##_simde_avx2,
#define FILL_AVXVNNI(type, name, parameters)    .name = kernel_##name##_simde_avxvnni,
#define FILL_AVX512VNNI(type, name, parameters) .name = kernel_##name##_simde_avx512vnni,
static const struct kernels tables[] = {
    {.isa = "avx2 (SIMDe)", KERNEL_LIST(FILL_AVX2)},
    {.isa = "avxvnni (SIMDe)", KERNEL_LIST(FILL_AVXVNNI)},
    {.isa = "avx512vnni (SIMDe)", KERNEL_LIST(FILL_AVX512VNNI)},
};

const struct kernels *simde_table(size_t index)
{
    return index < sizeof tables / sizeof *tables ? &tables[index] : NULL;
}
#else
const struct kernels *simde_table(size_t index)
{
    (void)index;
    return NULL;
}
#endif
