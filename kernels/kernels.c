#include "kernels.h"

#include <string.h>
#include <time.h>

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
static const struct kernels table_c = {.isa = "c", .int_rows = 12, KERNEL_LIST(KERNEL_FILL_C)};

#ifdef KERNELS_X86
KERNEL_LIST(KERNEL_DECLARE_AVX2)
KERNEL_LIST(KERNEL_DECLARE_AVXVNNI)
KERNEL_LIST(KERNEL_DECLARE_AVX512VNNI)
/* As many rows as a kernel has sums for, and no more: finishing and storing one block overlaps with computing the next (with
 * 192 an encode took a quarter longer). */
#define TABLE_X86(name, fill)                                                                      \
    {                                                                                              \
        .isa = (name), .int_rows = 12, KERNEL_LIST(fill)                                           \
    }
static const struct kernels table_avx2 = TABLE_X86("avx2", KERNEL_FILL_AVX2);
static const struct kernels table_avxvnni = TABLE_X86("avxvnni", KERNEL_FILL_AVXVNNI);
static const struct kernels table_avx512vnni = TABLE_X86("avx512vnni", KERNEL_FILL_AVX512VNNI);
#endif

#ifdef KERNELS_ARM
#define KERNEL_DECLARE_NEON(type, name, parameters)    type kernel_##name##_neon parameters;
#define KERNEL_DECLARE_DOTPROD(type, name, parameters) type kernel_##name##_dotprod parameters;
#define KERNEL_DECLARE_I8MM(type, name, parameters)    type kernel_##name##_i8mm parameters;
#define KERNEL_FILL_NEON(type, name, parameters)       .name = kernel_##name##_neon,
#define KERNEL_FILL_DOTPROD(type, name, parameters)    .name = kernel_##name##_dotprod,
#define KERNEL_FILL_I8MM(type, name, parameters)       .name = kernel_##name##_i8mm,
KERNEL_LIST(KERNEL_DECLARE_NEON)
KERNEL_LIST_INT(KERNEL_DECLARE_DOTPROD)
KERNEL_LIST_INT(KERNEL_DECLARE_I8MM)
/* What is no product of quantized tiles is neon's. Tiles are turned into another form first, so many rows share that: 48 are
 * eight blocks of dotprod's six, six of i8mm's eight. */
#define TABLE_ARM(name, fill)                                                                      \
    {                                                                                              \
        .isa = name, .int_rows = 48, KERNEL_LIST_COMMON(KERNEL_FILL_NEON) KERNEL_LIST_INT(fill)    \
    }
static const struct kernels table_neon = TABLE_ARM("neon", KERNEL_FILL_NEON);
static const struct kernels table_dotprod = TABLE_ARM("dotprod", KERNEL_FILL_DOTPROD);
static const struct kernels table_i8mm = TABLE_ARM("i8mm", KERNEL_FILL_I8MM);
#endif

/* The ladder, lowest first. */
static const struct rung {
    const struct kernels *table;
    unsigned needs; /* flags of cpu.h */
    bool to_try;    /* not on every processor the better one */
} ladder[] = {
    {&table_c, 0, false},
#ifdef KERNELS_X86
    {&table_avx2, CPU_AVX2, false},
    {&table_avxvnni, CPU_AVX2 | CPU_AVXVNNI, false},
    {&table_avx512vnni, CPU_AVX2 | CPU_AVX512VNNI, false},
#endif
#ifdef KERNELS_ARM
    {&table_neon, 0, false}, /* every processor of 64 bits has it */
    {&table_dotprod, CPU_DOTPROD, false},
    {&table_i8mm, CPU_DOTPROD | CPU_I8MM,
     true}, /* small cores have one unit for SMMLA and two for SDOT */
#endif
};
enum { N_RUNGS = sizeof ladder / sizeof *ladder };

/* ---- Which of two is faster ------------------------------------------------------------- */

/* What is multiplied: as many rows as any rung computes at once, in the first cache with their tile. */
enum { TRIAL_ROWS = 48, TRIAL_K = 256, TRIALS = 20 };

struct trial {
    int8_t values[TRIAL_ROWS * TRIAL_K];
    uint8_t lines[TRIAL_K * KERNEL_TILE];
    int32_t sum[TRIAL_ROWS], group_sum[TRIAL_ROWS * TRIAL_K / KERNEL_GROUP];
    int32_t y[TRIAL_ROWS * KERNEL_TILE];
};

static int64_t nanoseconds_of(const struct kernels *kernels, struct trial *trial)
{
    const struct q8_rows rows = {.values = trial->values,
                                 .stride = TRIAL_K,
                                 .sum = trial->sum,
                                 .group_sum = trial->group_sum};
    struct timespec start, end;
    clock_gettime(CLOCK_MONOTONIC, &start);
    /* NOLINTNEXTLINE(clang-analyzer-core.NullDereference): the first rung is never left out */
    kernels->gemm_q8(trial->y, KERNEL_TILE, &rows, TRIAL_ROWS, trial->lines, TRIAL_K, NULL, 0);
    clock_gettime(CLOCK_MONOTONIC, &end);
    return (int64_t)(end.tv_sec - start.tv_sec) * 1000000000 + (end.tv_nsec - start.tv_nsec);
}

const struct kernels *kernels_faster(const struct kernels *a, const struct kernels *b)
{
    struct trial trial = {0};
    int64_t best_a = INT64_MAX, best_b = INT64_MAX;
    for (int i = 0; i < TRIALS; i++) {
        const int64_t now_a = nanoseconds_of(a, &trial), now_b = nanoseconds_of(b, &trial);
        best_a = now_a < best_a ? now_a : best_a;
        best_b = now_b < best_b ? now_b : best_b;
    }
    return best_a < best_b ? a : b;
}

/* ---- The ladder ------------------------------------------------------------------------- */

const struct kernels *kernels_choose(const char *isa, bool *known)
{
    const unsigned flags = cpu_flags();
    const struct kernels *best = NULL;
    *known = isa == NULL;
    for (size_t i = 0; i < N_RUNGS; i++) {
        const bool has = (ladder[i].needs & ~flags) == 0;
        const bool last = isa && strcmp(isa, ladder[i].table->isa) == 0;
        if (has)
            best =
                ladder[i].to_try && !last ? kernels_faster(best, ladder[i].table) : ladder[i].table;
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
