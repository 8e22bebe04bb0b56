/* Cases of the quantized layers' kernels. */
#include <math.h>
#include <string.h>

#include "kernel_cases.h"
#include "seed.h"

/* ---- Rows of eight bits ----------------------------------------------------------------- */

/* n_rows, n: around blocks of 3, 6 and 12 rows; around groups of 32 */
static const size_t row_shapes[][MAX_NUMBERS] = {
    {0, 5},  {1, 0},  {1, 1},  {2, 15}, {1, 16},  {3, 17},  {1, 31},  {2, 32},
    {1, 33}, {2, 47}, {1, 64}, {1, 63}, {13, 65}, {6, 100}, {2, 172}, {1, 2049}};

/* variant: 1 with gaps between rows, 2 of halves */
static size_t values_stride(size_t n, unsigned variant)
{
    return aligned(n, KERNEL_GROUP) + (variant & 1 ? 64 : 0);
}

static void measure_quantize(const size_t *n, unsigned variant, struct buffer *b)
{
    const size_t n_k = aligned(n[1], KERNEL_GROUP);
    b[0] = BYTE_BUFFER(rows_of(n[0], values_stride(n[1], variant), n_k));
    b[1] = FLOAT_BUFFER(n[0]);
    b[2] = INT_BUFFER(n[0]);
    b[3] = INT_BUFFER(n[0] * n_k / KERNEL_GROUP);
    b[4] = FLOAT_BUFFER(rows_of(n[0], n[1] + (variant & 1 ? 3 : 0), n[1]));
    if (variant & 2)
        b[4].content = HALVES;
}

static void call_quantize(const struct kernels *k, const size_t *n, unsigned variant,
                          void *const *p)
{
    const struct q8_rows rows = {p[0], values_stride(n[1], variant), p[1], p[2], p[3]};
    k->quantize_rows(&rows, p[4], variant & 2 ? PRECISION_HALF : PRECISION_SINGLE,
                     n[1] + (variant & 1 ? 3 : 0), n[0], n[1]);
}

const struct kernel_case case_quantize_rows = {SHAPES(row_shapes), 4,    measure_quantize,
                                               call_quantize,      NULL, true};

/* ---- Products --------------------------------------------------------------------------- */

/* n_rows, n_k: every count of rows up to beyond each block, and parts of 512 inputs */
static const size_t product_shapes[][MAX_NUMBERS] = {
    {0, 64},  {3, 0},   {1, 32},  {1, 64},  {2, 32},   {2, 96},    {3, 32},  {3, 160}, {4, 32},
    {5, 64},  {6, 32},  {7, 96},  {8, 32},  {9, 64},   {10, 32},   {11, 32}, {12, 64}, {13, 32},
    {24, 96}, {25, 32}, {1, 512}, {6, 544}, {2, 1056}, {13, 1024}, {1, 2048}};

/* variant: 1 with gaps between rows, 2 something to be fetched, 4 weights of the other sign */
static size_t product_y_stride(unsigned variant)
{
    return variant & 1 ? KERNEL_TILE + 5 : KERNEL_TILE;
}

enum { Y, VALUES, SUM, GROUP_SUM, TILE, PANEL }; /* buffers */

static void measure_product(const size_t *n, unsigned variant, struct buffer *b)
{
    b[Y] = INT_BUFFER(rows_of(n[0], product_y_stride(variant), KERNEL_TILE));
    b[VALUES] = BYTE_BUFFER(rows_of(n[0], values_stride(n[1], variant), n[1]));
    b[SUM] = INT_BUFFER(n[0]);
    b[GROUP_SUM] = INT_BUFFER(n[0] * n[1] / KERNEL_GROUP);
}

static void measure_q8(const size_t *n, unsigned variant, struct buffer *b)
{
    measure_product(n, variant, b);
    b[TILE] = BYTE_BUFFER(n[1] * KERNEL_TILE);
}

static void measure_q4(const size_t *n, unsigned variant, struct buffer *b)
{
    measure_product(n, variant, b);
    b[TILE] = BYTE_BUFFER(q4_tile_bytes(n[1]));
    b[PANEL] = (struct buffer){SCRATCH, q4_panel_bytes(n[1])};
}

static void prepare_rows(const size_t *n, unsigned variant, enum pattern pattern, void *const *p)
{
    int32_t *sum = p[SUM], *group_sum = p[GROUP_SUM];
    const size_t n_groups = n[1] / KERNEL_GROUP;
    for (size_t r = 0; r < n[0]; r++) {
        int8_t *row = (int8_t *)p[VALUES] + r * values_stride(n[1], variant);
        sum[r] = 0;
        for (size_t g = 0; g < n_groups; g++) {
            int32_t *one = &group_sum[r * n_groups + g];
            *one = 0;
            for (size_t k = g * KERNEL_GROUP; k < (g + 1) * KERNEL_GROUP; k++) {
                /* quads of one sign, so that no pair of products cancels: ++--, then +-+- */
                row[k] = (int8_t)pattern_int(pattern, g % 2 ? k / 2 : k, -127, 127);
                *one += row[k];
            }
            sum[r] += *one;
        }
    }
}

static void prepare_q8(const size_t *n, unsigned variant, enum pattern pattern, void *const *p)
{
    uint8_t *lines = p[TILE];
    prepare_rows(n, variant, pattern, p);
    for (size_t i = 0; i < n[1] * KERNEL_TILE; i++) {
        const int32_t value = pattern_int(pattern, i, -127, 127);
        lines[i] = (uint8_t)(Q8_ZERO + (variant & 4 ? -value : value));
    }
}

static void prepare_q4(const size_t *n, unsigned variant, enum pattern pattern, void *const *p)
{
    const size_t n_groups = q4_groups(n[1]);
    uint8_t *multipliers = (uint8_t *)p[TILE] + sizeof(struct tile_scales);
    uint8_t *lines = multipliers + q4_multiplier_bytes(n[1]);
    prepare_rows(n, variant, pattern, p);
    memset(p[TILE], 0, q4_tile_bytes(n[1]));
    for (size_t i = 0; i < n_groups * KERNEL_TILE / 2; i++) { /* magnitudes */
        const int32_t low = pattern_int(pattern, i, -15, 15),
                      high = pattern_int(pattern, i, -15, 15);
        multipliers[i] = (uint8_t)((low < 0 ? -low : low) | (high < 0 ? -high : high) << 4);
    }
    for (size_t i = 0; i < n_groups * KERNEL_TILE / 8; i++) { /* signs */
        const int32_t bits = pattern_int(pattern, i, 0, 255);
        multipliers[n_groups * (KERNEL_TILE / 2) + i] = (uint8_t)(variant & 4 ? ~bits : bits);
    }
    for (size_t i = 0; i < n[1] * KERNEL_TILE / 2; i++) {
        const int32_t low = pattern_int(pattern, i, -8, 7), high = pattern_int(pattern, i, -8, 7);
        lines[i] = (uint8_t)((low + Q4_ZERO) | (high & 15) << 4);
    }
}

static struct q8_rows product_rows(const size_t *n, unsigned variant, void *const *p)
{
    return (struct q8_rows){p[VALUES], values_stride(n[1], variant), NULL, p[SUM], p[GROUP_SUM]};
}

static void call_q8(const struct kernels *k, const size_t *n, unsigned variant, void *const *p)
{
    const struct q8_rows rows = product_rows(n, variant, p);
    k->gemm_q8(p[Y], product_y_stride(variant), &rows, n[0], p[TILE], n[1], p[TILE],
               variant & 2 ? n[1] * KERNEL_TILE : 0);
}

static void call_q4(const struct kernels *k, const size_t *n, unsigned variant, void *const *p)
{
    const struct q8_rows rows = product_rows(n, variant, p);
    if (variant & 8)
        k->prepare_q4(p[PANEL], p[TILE], n[1]);
    k->gemm_q4(p[Y], product_y_stride(variant), &rows, n[0], p[TILE], variant & 8 ? p[PANEL] : NULL,
               n[1], p[TILE], variant & 2 ? q4_tile_bytes(n[1]) : 0);
}

const struct kernel_case case_gemm_q8 = {
    SHAPES(product_shapes), 8, measure_q8, call_q8, prepare_q8, false};
const struct kernel_case case_gemm_q4 = {
    SHAPES(product_shapes), 16, measure_q4, call_q4, prepare_q4, false};

/* ---- Finishing -------------------------------------------------------------------------- */

/* n_rows, n_cols */
static const size_t finish_shapes[][MAX_NUMBERS] = {{0, 32}, {1, 0},  {1, 1},  {2, 15}, {1, 16},
                                                    {2, 17}, {3, 31}, {1, 32}, {13, 32}};

enum { HALVES_OF = 16 * ACTIVATION_COUNT };

/* variant: HALVES_OF (halves) + the activation x 16, with 1 integers and their scales, 2 bias, 4 factors, 8 a residual,
 * which is y itself where there are factors too */
static size_t finish_stride(unsigned variant)
{
    return variant & 2 ? KERNEL_TILE + 3 : KERNEL_TILE;
}

static void measure_finish(const size_t *n, unsigned variant, struct buffer *b)
{
    const size_t n_y = rows_of(n[0], finish_stride(variant), n[1]);
    b[0] = b[5] = b[6] = variant < HALVES_OF ? FLOAT_BUFFER(n_y) : HALF_BUFFER(n_y);
    b[1] = FLOAT_BUFFER(n[0] * KERNEL_TILE);
    if (variant & 1)
        b[1].content = INTS;
    b[2] = FLOAT_BUFFER(n[0]);
    b[3] = b[4] = FLOAT_BUFFER(KERNEL_TILE);
}

static void call_finish(const struct kernels *k, const size_t *n, unsigned variant, void *const *p)
{
    const void *residual = variant & 4 ? p[0] : p[6];
    const struct finish how = {.x_scale = variant & 1 ? p[2] : NULL,
                               .w_scale = p[3],
                               .bias = variant & 2 ? p[4] : NULL,
                               .activation = (enum activation)(variant % HALVES_OF / 16),
                               .precision = variant < HALVES_OF ? PRECISION_SINGLE : PRECISION_HALF,
                               .multiply = variant & 4 ? p[5] : NULL,
                               .residual = variant & 8 ? residual : NULL};
    k->finish(p[0], finish_stride(variant), p[1], n[0], n[1], &how);
}

const struct kernel_case case_finish = {SHAPES(finish_shapes), 2 * HALVES_OF, measure_finish,
                                        call_finish,           NULL,          true};

/* ---- Attention -------------------------------------------------------------------------- */

/* n, n_padded */
static const size_t weight_shapes[][MAX_NUMBERS] = {{1, 32},  {2, 32},  {15, 32},  {16, 32},
                                                    {17, 64}, {31, 32}, {32, 32},  {33, 64},
                                                    {47, 64}, {64, 64}, {65, 128}, {577, 608}};

static void measure_weights(const size_t *n, unsigned variant, struct buffer *b)
{
    b[0] = BYTE_BUFFER(n[1] + values_stride(n[1], variant));
    b[1] = FLOAT_BUFFER(2);
    b[2] = INT_BUFFER(2);
    b[3] = (struct buffer){SCRATCH, n[0] * sizeof(float)};
    b[4] = INT_BUFFER(n[0]);
    b[5] = b[6] = FLOAT_BUFFER(n[0]);
}

/* scales are not negative */
static void prepare_weights(const size_t *n, unsigned variant, enum pattern pattern, void *const *p)
{
    float *key_scale = p[5], *value_scale = p[6];
    (void)variant;
    for (size_t i = 0; i < n[0]; i++) {
        key_scale[i] = fabsf(pattern_float(pattern, i));
        value_scale[i] = fabsf(pattern_float(pattern, i));
    }
}

static void call_weights(const struct kernels *k, const size_t *n, unsigned variant, void *const *p)
{
    const struct q8_rows rows = {p[0], values_stride(n[1], variant), p[1], p[2], NULL};
    k->attention_weights(&rows, p[3], p[4], variant & 2 ? 0x1p-24f : 0x1p-31f, p[5], p[6], n[0],
                         n[1]);
}

/* n_rows, columns */
static const size_t output_shapes[][MAX_NUMBERS] = {{0, 32}, {1, 0},  {2, 1},  {1, 7},  {3, 15},
                                                    {1, 16}, {2, 17}, {5, 24}, {1, 31}, {24, 32}};

static size_t output_stride(unsigned variant)
{
    return KERNEL_TILE + variant;
}

static void measure_output(const size_t *n, unsigned variant, struct buffer *b)
{
    b[0] = FLOAT_BUFFER(rows_of(n[0], output_stride(variant), n[1]));
    b[1] = INT_BUFFER(2 * KERNEL_TILE * n[0]);
    b[2] = FLOAT_BUFFER(2 * n[0]);
}

static void call_output(const struct kernels *k, const size_t *n, unsigned variant, void *const *p)
{
    k->attention_output(p[0], output_stride(variant), p[1], p[2], n[0], n[1]);
}

const struct kernel_case case_attention_weights = {
    SHAPES(weight_shapes), 4, measure_weights, call_weights, prepare_weights, false};
const struct kernel_case case_attention_output = {SHAPES(output_shapes), 2,    measure_output,
                                                  call_output,           NULL, false};

/* ---- Packing ---------------------------------------------------------------------------- */

static const size_t pack_shapes[][MAX_NUMBERS] = {{0}, {32}, {64}, {160}};

static void measure_pack_q8(const size_t *n, unsigned variant, struct buffer *b)
{
    (void)variant;
    b[0] = BYTE_BUFFER(q8_tile_bytes(n[0]));
    b[1] = FLOAT_BUFFER(n[0] * KERNEL_TILE);
    b[2] = BYTE_BUFFER(sizeof(double));
}

static void measure_pack_q4(const size_t *n, unsigned variant, struct buffer *b)
{
    measure_pack_q8(n, variant, b);
    b[0] = BYTE_BUFFER(q4_tile_bytes(n[0]));
    b[3] = (struct buffer){SCRATCH, 2 * n[0] * sizeof(float)};
}

static void call_pack_q8(const struct kernels *k, const size_t *n, unsigned variant, void *const *p)
{
    (void)variant;
    const double error = k->pack_q8(p[0], p[1], n[0]);
    memcpy(p[2], &error, sizeof error);
}

static void call_pack_q4(const struct kernels *k, const size_t *n, unsigned variant, void *const *p)
{
    (void)variant;
    const double error = k->pack_q4(p[0], p[1], n[0], p[3]);
    memcpy(p[2], &error, sizeof error);
}

const struct kernel_case case_pack_q8 = {SHAPES(pack_shapes), 1,    measure_pack_q8,
                                         call_pack_q8,        NULL, false};
const struct kernel_case case_pack_q4 = {SHAPES(pack_shapes), 1,    measure_pack_q4,
                                         call_pack_q4,        NULL, false};
