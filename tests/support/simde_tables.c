#include "simde_tables.h"

#ifdef HAVE_SIMDE_X86
#define DECLARE_AVX2(type, name, parameters)       type kernel_##name##_simde_avx2 parameters;
#define DECLARE_AVXVNNI(type, name, parameters)    type kernel_##name##_simde_avxvnni parameters;
#define DECLARE_AVX512VNNI(type, name, parameters) type kernel_##name##_simde_avx512vnni parameters;
#define FILL_AVX2(type, name, parameters)          .name = kernel_##name##_simde_avx2,
#define FILL_AVXVNNI(type, name, parameters)       .name = kernel_##name##_simde_avxvnni,
#define FILL_AVX512VNNI(type, name, parameters)    .name = kernel_##name##_simde_avx512vnni,
KERNEL_LIST(DECLARE_AVX2)
KERNEL_LIST(DECLARE_AVXVNNI)
KERNEL_LIST(DECLARE_AVX512VNNI)
#endif

#ifdef HAVE_SIMDE_ARM
#define DECLARE_NEON(type, name, parameters)    type kernel_##name##_simde_neon parameters;
#define DECLARE_DOTPROD(type, name, parameters) type kernel_##name##_simde_dotprod parameters;
#define DECLARE_I8MM(type, name, parameters)    type kernel_##name##_simde_i8mm parameters;
#define FILL_NEON(type, name, parameters)       .name = kernel_##name##_simde_neon,
#define FILL_DOTPROD(type, name, parameters)    .name = kernel_##name##_simde_dotprod,
#define FILL_I8MM(type, name, parameters)       .name = kernel_##name##_simde_i8mm,
KERNEL_LIST(DECLARE_NEON)
KERNEL_LIST_INT(DECLARE_DOTPROD)
KERNEL_LIST_INT(DECLARE_I8MM)
#endif

#if defined(HAVE_SIMDE_X86) || defined(HAVE_SIMDE_ARM)
static const struct kernels tables[] = {
#ifdef HAVE_SIMDE_X86
    {.isa = "avx2 (SIMDe)", KERNEL_LIST(FILL_AVX2)},
    {.isa = "avxvnni (SIMDe)", KERNEL_LIST(FILL_AVXVNNI)},
    {.isa = "avx512vnni (SIMDe)", KERNEL_LIST(FILL_AVX512VNNI)},
#endif
#ifdef HAVE_SIMDE_ARM
    {.isa = "neon (SIMDe)", KERNEL_LIST(FILL_NEON)},
    {.isa = "dotprod (SIMDe)", KERNEL_LIST_COMMON(FILL_NEON) KERNEL_LIST_INT(FILL_DOTPROD)},
    {.isa = "i8mm (SIMDe)", KERNEL_LIST_COMMON(FILL_NEON) KERNEL_LIST_INT(FILL_I8MM)},
#endif
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
