/* Cases of the kernels in single precision and halves. */
#include "kernel_cases.h"

#include <string.h>

/* n: around the widths of registers (4, 8, 16, 32), ragged, and widths of real models */
static const size_t lengths[][MAX_NUMBERS] = {
    {0},  {1},  {2},  {3},  {4},  {5},  {7},  {8},  {9},  {15},  {16},  {17},   {24},  {31},
    {32}, {33}, {47}, {63}, {64}, {65}, {88}, {95}, {97}, {127}, {172}, {1000}, {4304}};
static const size_t lengths_from_1[][MAX_NUMBERS] = {
    {1}, {2}, {7}, {8}, {9}, {15}, {16}, {17}, {31}, {32}, {33}, {63}, {65}, {172}, {2049}};

/* n_rows, n_k: around the C kernel's 3 rows and likely blocks of 4 and 6, ragged k */
static const size_t gemm_shapes[][MAX_NUMBERS] = {
    {0, 0},   {0, 5},    {1, 0},  {2, 0},   {1, 1},  {1, 2},   {1, 172}, {2, 3},    {2, 31},
    {3, 1},   {3, 32},   {4, 7},  {4, 33},  {5, 16}, {6, 15},  {6, 64},  {7, 172},  {8, 9},
    {11, 63}, {12, 128}, {13, 5}, {23, 80}, {24, 1}, {25, 65}, {31, 4},  {193, 17}, {3, 1100}};

static size_t gemm_y_stride(unsigned variant)
{
    return variant & 2 ? KERNEL_TILE + 5 : KERNEL_TILE;
}

static size_t gemm_x_stride(const size_t *n, unsigned variant)
{
    return variant & 2 ? n[1] + 3 : n[1];
}

static void measure_gemm(const size_t *n, unsigned variant, struct buffer *b)
{
    b[0] = FLOAT_BUFFER(rows_of(n[0], gemm_y_stride(variant), KERNEL_TILE));
    b[1] = FLOAT_BUFFER(rows_of(n[0], gemm_x_stride(n, variant), n[1]));
    b[2] = FLOAT_BUFFER(n[1] * KERNEL_TILE);
}

static void call_gemm(const struct kernels *k, const size_t *n, unsigned variant, void *const *p)
{
    k->gemm_f32(p[0], gemm_y_stride(variant), p[1], gemm_x_stride(n, variant), p[2], n[0], n[1],
                variant & 1);
}

static const size_t gemv_shapes[][MAX_NUMBERS] = {{0},  {1},  {2},  {3},   {7},   {8},
                                                  {31}, {32}, {33}, {172}, {1030}};

static void measure_gemv(const size_t *n, unsigned variant, struct buffer *b)
{
    (void)variant;
    b[0] = FLOAT_BUFFER(KERNEL_TILE);
    b[1] = FLOAT_BUFFER(n[0]);
    b[2] = HALF_BUFFER(n[0] * KERNEL_TILE);
}

static void call_gemv(const struct kernels *k, const size_t *n, unsigned variant, void *const *p)
{
    (void)variant;
    k->gemv_f16(p[0], p[1], p[2], n[0]);
}

static void measure_to_single(const size_t *n, unsigned variant, struct buffer *b)
{
    (void)variant;
    b[0] = FLOAT_BUFFER(n[0]);
    b[1] = HALF_BUFFER(n[0]);
}

static void call_to_single(const struct kernels *k, const size_t *n, unsigned variant,
                           void *const *p)
{
    (void)variant;
    k->f16_to_f32(p[0], p[1], n[0]);
}

static void measure_to_half(const size_t *n, unsigned variant, struct buffer *b)
{
    (void)variant;
    b[0] = HALF_BUFFER(n[0]);
    b[1] = FLOAT_BUFFER(n[0]);
}

static void call_to_half(const struct kernels *k, const size_t *n, unsigned variant, void *const *p)
{
    (void)variant;
    k->f32_to_f16(p[0], p[1], n[0]);
}

/* variant: 1 in place, 2 with bias */
static void measure_norm(const size_t *n, unsigned variant, struct buffer *b)
{
    (void)variant;
    for (size_t i = 0; i < 4; i++)
        b[i] = FLOAT_BUFFER(n[0]);
}

static void call_layer_norm(const struct kernels *k, const size_t *n, unsigned variant,
                            void *const *p)
{
    k->layer_norm(variant & 1 ? p[1] : p[0], p[1], p[2], variant & 2 ? p[3] : NULL, 1e-5f, n[0]);
}

static void call_rms_norm(const struct kernels *k, const size_t *n, unsigned variant,
                          void *const *p)
{
    k->rms_norm(variant & 1 ? p[1] : p[0], p[1], p[2], 1e-6f, n[0]);
}

static void measure_one(const size_t *n, unsigned variant, struct buffer *b)
{
    (void)variant;
    b[0] = FLOAT_BUFFER(n[0]);
}

static void call_softmax(const struct kernels *k, const size_t *n, unsigned variant, void *const *p)
{
    k->softmax(p[0], variant ? 0.125f : 1.0f, n[0]);
}

/* variant: the activation */
static void call_activate(const struct kernels *k, const size_t *n, unsigned variant,
                          void *const *p)
{
    k->activate(p[0], (enum activation)variant, n[0]);
}

static void measure_two(const size_t *n, unsigned variant, struct buffer *b)
{
    (void)variant;
    b[0] = b[1] = FLOAT_BUFFER(n[0]);
}

static void call_add(const struct kernels *k, const size_t *n, unsigned variant, void *const *p)
{
    (void)variant;
    k->add(p[0], p[1], n[0]);
}

static void call_multiply(const struct kernels *k, const size_t *n, unsigned variant,
                          void *const *p)
{
    (void)variant;
    k->multiply(p[0], p[1], n[0]);
}

static const size_t rope_shapes[][MAX_NUMBERS] = {{0},  {2},  {4},  {6},  {14}, {16},  {18},
                                                  {30}, {32}, {34}, {64}, {80}, {128}, {130}};

static void measure_rope(const size_t *n, unsigned variant, struct buffer *b)
{
    (void)variant;
    b[0] = FLOAT_BUFFER(n[0]);
    b[1] = b[2] = FLOAT_BUFFER(n[0] / 2);
}

static void call_rope(const struct kernels *k, const size_t *n, unsigned variant, void *const *p)
{
    (void)variant;
    k->rope(p[0], p[1], p[2], n[0]);
}

/* side, stride, channels */
static const size_t depthwise_shapes[][MAX_NUMBERS] = {
    {1, 1, 1}, {1, 2, 7},  {2, 1, 8}, {2, 2, 9},  {3, 1, 15}, {3, 2, 16}, {4, 1, 17}, {4, 2, 31},
    {5, 1, 0}, {5, 2, 33}, {5, 3, 5}, {5, 1, 64}, {7, 1, 40}, {8, 2, 65}, {24, 2, 8}};

static size_t depthwise_out_side(const size_t *n)
{
    return (n[0] - 1) / n[1] + 1;
}

static void measure_depthwise(const size_t *n, unsigned variant, struct buffer *b)
{
    (void)variant;
    b[0] = FLOAT_BUFFER(depthwise_out_side(n) * depthwise_out_side(n) * n[2]);
    b[1] = FLOAT_BUFFER(n[0] * n[0] * n[2]);
    b[2] = FLOAT_BUFFER(9 * n[2]);
    b[3] = FLOAT_BUFFER(n[2]);
}

/* variant: 1 with bias */
static void call_depthwise(const struct kernels *k, const size_t *n, unsigned variant,
                           void *const *p)
{
    const size_t out_side = depthwise_out_side(n);
    for (size_t y = 0; y < out_side; y++)
        k->depthwise_3x3((float *)p[0] + y * out_side * n[2], p[1], p[2], variant ? p[3] : NULL,
                         n[0], out_side, n[1], y, n[2]);
}

/* ---- Resampling --------------------------------------------------------------------------- */

/* columns, pixels that each is made of, pixels between their beginnings */
static const size_t resample_shapes[][MAX_NUMBERS] = {{0, 1, 1}, {1, 0, 1}, {1, 1, 1}, {3, 3, 1},
                                                      {2, 4, 2}, {5, 5, 3}, {4, 8, 7}, {7, 47, 11}};

static size_t resample_weights(const size_t *n)
{
    return (n[1] + RESAMPLE_PIXELS - 1) / RESAMPLE_PIXELS * 16;
}

static void measure_resample(const size_t *n, unsigned variant, struct buffer *b)
{
    (void)variant;
    b[0] = BYTE_BUFFER(3 * n[0]);
    b[1] = BYTE_BUFFER(n[0] ? 3 * ((n[0] - 1) * n[2] + n[1]) : 0);
    b[2] = INT_BUFFER(n[0] * resample_weights(n));
}

static void prepare_resample(const size_t *n, unsigned variant, enum pattern pattern,
                             void *const *p)
{
    (void)variant;
    memset(p[0], 0, 3 * n[0]);
    for (size_t i = 0; n[0] && i < 3 * ((n[0] - 1) * n[2] + n[1]); i++)
        ((uint8_t *)p[1])[i] = (uint8_t)pattern_int(pattern, i, 0, 255);
    for (size_t i = 0; i < n[0] * resample_weights(n); i++) {
        const bool used = n[1] && i % 16 < 12 &&
                          i % resample_weights(n) / 16 * RESAMPLE_PIXELS + i % 16 / 3 < n[1];
        ((int32_t *)p[2])[i] = used ? pattern_int(pattern, i, -(1 << 19), 1 << 20) : 0;
    }
}

static void call_resample(const struct kernels *k, const size_t *n, unsigned variant,
                          void *const *p)
{
    struct resample_tap taps[8];
    (void)variant;
    for (size_t i = 0; i < n[0]; i++)
        taps[i] = (struct resample_tap){3 * i * n[2],
                                        n[1],
                                        (const int32_t *)p[2] + i * resample_weights(n),
                                        {1 << 21, 0, -(1 << 24)}};
    k->resample_line(p[0], p[1], taps, n[0]);
}

const struct kernel_case case_resample_line = {
    SHAPES(resample_shapes), 1, measure_resample, call_resample, prepare_resample, false};

const struct kernel_case case_gemm_f32 = {SHAPES(gemm_shapes), 4,    measure_gemm,
                                          call_gemm,           NULL, false};
const struct kernel_case case_gemv_f16 = {SHAPES(gemv_shapes), 1,    measure_gemv,
                                          call_gemv,           NULL, false};
const struct kernel_case case_f16_to_f32 = {SHAPES(lengths), 1,    measure_to_single,
                                            call_to_single,  NULL, false};
const struct kernel_case case_f32_to_f16 = {SHAPES(lengths), 1,    measure_to_half,
                                            call_to_half,    NULL, false};
const struct kernel_case case_layer_norm = {SHAPES(lengths), 4,    measure_norm,
                                            call_layer_norm, NULL, false};
const struct kernel_case case_rms_norm = {SHAPES(lengths), 2,    measure_norm,
                                          call_rms_norm,   NULL, false};
const struct kernel_case case_softmax = {SHAPES(lengths_from_1), 2,    measure_one,
                                         call_softmax,           NULL, false};
const struct kernel_case case_activate = {
    SHAPES(lengths), ACTIVATION_COUNT, measure_one, call_activate, NULL, false};
const struct kernel_case case_add = {SHAPES(lengths), 1, measure_two, call_add, NULL, false};
const struct kernel_case case_multiply = {SHAPES(lengths), 1,    measure_two,
                                          call_multiply,   NULL, false};
const struct kernel_case case_rope = {SHAPES(rope_shapes), 1, measure_rope, call_rope, NULL, false};
const struct kernel_case case_depthwise_3x3 = {SHAPES(depthwise_shapes), 2,    measure_depthwise,
                                               call_depthwise,           NULL, false};
