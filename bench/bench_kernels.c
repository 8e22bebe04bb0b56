/* How fast each kernel is by itself, on one thread, at the shapes of MobileVLM's models, and which
 * share that is of its rung's peak:
 *
 *     bench-kernels [NAME] [--isa ISA]      kernels whose name holds NAME; one rung only
 *
 * A line a kernel, rung and shape: medians of a few repetitions, each with the peak measured right
 * before it. GB/s counts what has to be read and written once. With one row, weights are read from
 * memory (a buffer larger than the caches); else they stay in the cache, as src/linear.c has it. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../kernels/kernels.h"

enum {
    MOST_ROWS = 577,
    MOST_K = 5632,
    /* as src/linear.c cuts its work: rows at once of quantized and of float matrices, inputs of these */
    INT_ROWS = 12,
    FLOAT_ROWS = 192,
    FLOAT_K = 256,
    KEYS = 577, /* of the tower: 24 x 24 patches and the class token */
    KEYS_PADDED = 608,
    CHANNELS = 2048,
    MOST_SAMPLES = 7,
};
#define WEIGHT_BYTES ((size_t)128 << 20)
static const double SAMPLE_SECONDS = 1e-3, CASE_SECONDS = 60e-3;

/* Everything that kernels read and write. */
static struct {
    float *x, *y, *w;              /* [MOST_ROWS][MOST_K], the same, [MOST_K][32] */
    float *scales, *cosine, *sine; /* [MOST_K]: positive, and of one angle */
    uint16_t *halves;              /* as x */
    uint8_t *weights;              /* [WEIGHT_BYTES], tiles of q8 and q4 alike */
    uint8_t *panel;                /* [MOST_K x 32] */
    int32_t *sums;                 /* [MOST_ROWS][32] */
    struct q8_rows rows;
    size_t at; /* in the weights: where the next single row goes on */
} data;

/* A kernel at a shape; what the numbers mean is the kernel's matter. */
struct shape {
    size_t rows, k;
    enum activation activation;
};

struct kernel_bench {
    const char *name;
    void (*run)(const struct kernels *kernels, const struct shape *shape);
    /* of one run */
    double (*macs)(const struct shape *shape); /* NULL: it multiplies no matrices */
    double (*bytes)(const struct shape *shape);
    enum peak_kind peak;
    const struct shape *shapes;
    size_t n_shapes;
};

/* ---- Matrix products -------------------------------------------------------------------- */

/* The next tile of a matrix that does not fit the caches. */
static const uint8_t *next_tile(size_t n_bytes)
{
    if (data.at + 2 * n_bytes > WEIGHT_BYTES)
        data.at = 0;
    const uint8_t *tile = data.weights + data.at;
    data.at += n_bytes;
    return tile;
}

/* Rows of the block that begins at `row`. */
static size_t block_of(const struct shape *s, size_t row, size_t most)
{
    return s->rows - row < most ? s->rows - row : most;
}

static void run_gemm_q8(const struct kernels *kernels, const struct shape *s)
{
    const size_t n_bytes = q8_tile_bytes(s->k);
    const uint8_t *tile = s->rows == 1 ? next_tile(n_bytes) : data.weights;
    for (size_t row = 0; row < s->rows; row += INT_ROWS) {
        const struct q8_rows x = q8_rows_from(&data.rows, row, s->k);
        kernels->gemm_q8(data.sums, KERNEL_TILE, &x, block_of(s, row, INT_ROWS), q8_lines(tile),
                         s->k, tile + n_bytes, 0);
    }
}

static void run_gemm_q4(const struct kernels *kernels, const struct shape *s)
{
    const size_t n_bytes = q4_tile_bytes(s->k);
    const uint8_t *tile = s->rows == 1 ? next_tile(n_bytes) : data.weights;
    if (s->rows > 1)
        kernels->prepare_q4(data.panel, tile, s->k);
    for (size_t row = 0; row < s->rows; row += INT_ROWS) {
        const struct q8_rows x = q8_rows_from(&data.rows, row, s->k);
        kernels->gemm_q4(data.sums, KERNEL_TILE, &x, block_of(s, row, INT_ROWS), tile,
                         s->rows > 1 ? data.panel : NULL, s->k, tile + n_bytes, 0);
    }
}

static void run_gemm_f32(const struct kernels *kernels, const struct shape *s)
{
    for (size_t row = 0; row < s->rows; row += FLOAT_ROWS)
        for (size_t k = 0; k < s->k; k += FLOAT_K)
            kernels->gemm_f32(data.y, KERNEL_TILE, data.x + row * s->k + k, s->k,
                              data.w + k * KERNEL_TILE, block_of(s, row, FLOAT_ROWS),
                              s->k - k < FLOAT_K ? s->k - k : FLOAT_K, k > 0);
}

static void run_gemv_f16(const struct kernels *kernels, const struct shape *s)
{
    kernels->gemv_f16(data.y, data.x, data.halves, s->k);
}

static double product_macs(const struct shape *s)
{
    return (double)s->rows * (double)s->k * KERNEL_TILE;
}

static double q8_bytes(const struct shape *s)
{
    return (double)q8_tile_bytes(s->k);
}

static double q4_bytes(const struct shape *s)
{
    return (double)q4_tile_bytes(s->k);
}

static double f32_bytes(const struct shape *s)
{
    return 4.0 * (double)s->k * KERNEL_TILE;
}

static double f16_bytes(const struct shape *s)
{
    return 2.0 * (double)s->k * KERNEL_TILE;
}

/* ---- Rows of numbers -------------------------------------------------------------------- */

static void run_quantize(const struct kernels *kernels, const struct shape *s)
{
    kernels->quantize_rows(&data.rows, data.x, PRECISION_SINGLE, s->k, s->rows, s->k);
}

static double quantize_bytes(const struct shape *s)
{
    return 5.0 * (double)s->rows * (double)s->k;
}

static void run_finish(const struct kernels *kernels, const struct shape *s)
{
    const struct finish how = {
        .x_scale = data.rows.scale, .w_scale = data.w, .bias = data.w, .activation = s->activation};
    for (size_t row = 0; row < s->rows; row += INT_ROWS)
        kernels->finish(data.y + row * s->k, s->k, data.sums, block_of(s, row, INT_ROWS),
                        KERNEL_TILE, &how);
}

static double finish_bytes(const struct shape *s)
{
    return 8.0 * (double)s->rows * KERNEL_TILE;
}

static void run_attention_weights(const struct kernels *kernels, const struct shape *s)
{
    for (size_t row = 0; row < s->rows; row++)
        kernels->attention_weights(&data.rows, data.y, data.sums, 1e-4f, data.scales, data.scales,
                                   s->k, KEYS_PADDED);
}

/* products and two scales in, two bytes out */
static double attention_bytes(const struct shape *s)
{
    return 14.0 * (double)s->rows * (double)s->k;
}

static void run_layer_norm(const struct kernels *kernels, const struct shape *s)
{
    for (size_t row = 0; row < s->rows; row++)
        kernels->layer_norm(data.y + row * s->k, data.x + row * s->k, data.w, data.w, 1e-5f, s->k);
}

static void run_rms_norm(const struct kernels *kernels, const struct shape *s)
{
    for (size_t row = 0; row < s->rows; row++)
        kernels->rms_norm(data.y + row * s->k, data.x + row * s->k, data.w, 1e-5f, s->k);
}

/* In place: after the first run its values are those of a softmax, which takes no less time. */
static void run_softmax(const struct kernels *kernels, const struct shape *s)
{
    for (size_t row = 0; row < s->rows; row++)
        kernels->softmax(data.y + row * s->k, 0.125f, s->k);
}

static void run_rope(const struct kernels *kernels, const struct shape *s)
{
    for (size_t row = 0; row < s->rows; row++)
        kernels->rope(data.y + row * s->k, data.cosine, data.sine, s->k);
}

static void run_f16_to_f32(const struct kernels *kernels, const struct shape *s)
{
    kernels->f16_to_f32(data.y, data.halves, s->rows * s->k);
}

static double two_floats(const struct shape *s)
{
    return 8.0 * (double)s->rows * (double)s->k;
}

static double float_and_half(const struct shape *s)
{
    return 6.0 * (double)s->rows * (double)s->k;
}

/* rows: the grid's side; k: the stride */
static size_t out_side_of(const struct shape *s)
{
    return (s->rows + s->k - 1) / s->k;
}

static void run_depthwise(const struct kernels *kernels, const struct shape *s)
{
    const size_t out_side = out_side_of(s);
    for (size_t y = 0; y < out_side; y++)
        kernels->depthwise_3x3(data.y + y * out_side * CHANNELS, data.x, data.w, data.w, s->rows,
                               out_side, s->k, y, CHANNELS);
}

static double depthwise_macs(const struct shape *s)
{
    return 9.0 * (double)(out_side_of(s) * out_side_of(s)) * CHANNELS;
}

static double depthwise_bytes(const struct shape *s)
{
    return 4.0 * (double)(s->rows * s->rows + out_side_of(s) * out_side_of(s)) * CHANNELS;
}

static void run_pack_q8(const struct kernels *kernels, const struct shape *s)
{
    kernels->pack_q8(data.panel, data.w, s->k);
}

static void run_pack_q4(const struct kernels *kernels, const struct shape *s)
{
    kernels->pack_q4(data.panel, data.w, s->k, data.y);
}

/* ---- The list --------------------------------------------------------------------------- */

#define SHAPES(array) array, sizeof array / sizeof *array

static const struct shape products[] = {
    {MOST_ROWS, 1024, 0}, {MOST_ROWS, 4096, 0}, {176, 2048, 0}, {176, 5632, 0},
    {1, 1024, 0},         {1, 4096, 0},         {1, 2048, 0},   {1, 5632, 0},
};
/* those of attention too: 24 queries times keys, twice 24 rows of weights times values */
static const struct shape products_q8[] = {
    {MOST_ROWS, 1024, 0}, {MOST_ROWS, 4096, 0}, {176, 2048, 0},       {176, 5632, 0},
    {1, 1024, 0},         {1, 4096, 0},         {1, 2048, 0},         {1, 5632, 0},
    {24, 64, 0},          {24, 128, 0},         {48, KEYS_PADDED, 0},
};
static const struct shape single_rows[] = {{1, 2048, 0}, {1, 5632, 0}};
static const struct shape activations[] = {
    {MOST_ROWS, 1024, 0}, {MOST_ROWS, 2048, 0}, {176, 5632, 0}, {1, 5632, 0}};
static const struct shape finishes[] = {
    {1, KERNEL_TILE, ACTIVATION_NONE},         {MOST_ROWS, 4096, ACTIVATION_NONE},
    {MOST_ROWS, 4096, ACTIVATION_QUICK_GELU},  {MOST_ROWS, 4096, ACTIVATION_GELU},
    {MOST_ROWS, 4096, ACTIVATION_GELU_TANH},   {MOST_ROWS, 4096, ACTIVATION_SILU},
    {MOST_ROWS, 4096, ACTIVATION_RELU},        {MOST_ROWS, 4096, ACTIVATION_HARDSWISH},
    {MOST_ROWS, 4096, ACTIVATION_HARDSIGMOID},
};
static const struct shape key_rows[] = {{24, KEYS, 0}, {1, KEYS, 0}};
static const struct shape tower_rows[] = {{MOST_ROWS, 1024, 0}};
static const struct shape decoder_rows[] = {{176, 2048, 0}, {1, 2048, 0}};
static const struct shape heads[] = {{16, 64, 0}, {16, 128, 0}};
static const struct shape grids[] = {{24, 1, 0}, {24, 2, 0}, {12, 1, 0}};
static const struct shape columns[] = {{1, 2048, 0}, {1, 5632, 0}};

static const struct kernel_bench benches[] = {
    {"gemm_q8", run_gemm_q8, product_macs, q8_bytes, PEAK_W8A8, SHAPES(products_q8)},
    {"gemm_q4", run_gemm_q4, product_macs, q4_bytes, PEAK_W4A8, SHAPES(products)},
    {"gemm_f32", run_gemm_f32, product_macs, f32_bytes, PEAK_F32, SHAPES(products)},
    {"gemv_f16", run_gemv_f16, product_macs, f16_bytes, PEAK_F32, SHAPES(single_rows)},
    {"quantize_rows", run_quantize, NULL, quantize_bytes, PEAK_F32, SHAPES(activations)},
    {"finish", run_finish, NULL, finish_bytes, PEAK_F32, SHAPES(finishes)},
    {"attention_weights", run_attention_weights, NULL, attention_bytes, PEAK_F32, SHAPES(key_rows)},
    {"layer_norm", run_layer_norm, NULL, two_floats, PEAK_F32, SHAPES(tower_rows)},
    {"rms_norm", run_rms_norm, NULL, two_floats, PEAK_F32, SHAPES(decoder_rows)},
    {"softmax", run_softmax, NULL, two_floats, PEAK_F32, SHAPES(key_rows)},
    {"rope", run_rope, NULL, two_floats, PEAK_F32, SHAPES(heads)},
    {"f16_to_f32", run_f16_to_f32, NULL, float_and_half, PEAK_F32, SHAPES(tower_rows)},
    {"depthwise_3x3", run_depthwise, depthwise_macs, depthwise_bytes, PEAK_F32, SHAPES(grids)},
    {"pack_q8", run_pack_q8, NULL, f32_bytes, PEAK_F32, SHAPES(columns)},
    {"pack_q4", run_pack_q4, NULL, f32_bytes, PEAK_F32, SHAPES(columns)},
};

/* ---- Measuring -------------------------------------------------------------------------- */

static double seconds_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static int ascending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values, size_t n)
{
    qsort(values, n, sizeof *values, ascending);
    return (values[(n - 1) / 2] + values[n / 2]) / 2;
}

/* Multiply-accumulates a second, measured for about a millisecond. `loops` is found on the way. */
static double peak_now(const struct kernels *kernels, enum peak_kind kind, size_t *loops)
{
    for (;;) {
        const double start = seconds_now(), macs = kernels->peak(kind, *loops),
                     seconds = seconds_now() - start;
        if (seconds >= SAMPLE_SECONDS / 2)
            return macs / seconds;
        *loops *= 2;
    }
}

static double time_runs(const struct kernel_bench *bench, const struct kernels *kernels,
                        const struct shape *shape, size_t n)
{
    const double start = seconds_now();
    for (size_t i = 0; i < n; i++)
        bench->run(kernels, shape);
    return seconds_now() - start;
}

static void measure(const struct kernel_bench *bench, const struct kernels *kernels,
                    const struct shape *shape)
{
    static const char *const activation_names[ACTIVATION_COUNT] = {
        "", "quick_gelu", "gelu", "gelu_tanh", "silu", "relu", "hardswish", "hardsigmoid"};
    static size_t loops[PEAK_COUNT] = {1, 1, 1};
    const double macs = bench->macs ? bench->macs(shape) : 0, begin = seconds_now();
    double times[MOST_SAMPLES], shares[MOST_SAMPLES];
    size_t n_runs = 1, n = 0;
    double first = time_runs(bench, kernels, shape, 1); /* warms up */
    while (first < SAMPLE_SECONDS && n_runs < 1000000) {
        n_runs *= 2;
        first = time_runs(bench, kernels, shape, n_runs);
    }
    while (n < MOST_SAMPLES && (n == 0 || seconds_now() - begin < CASE_SECONDS)) {
        const double peak = macs > 0 ? peak_now(kernels, bench->peak, &loops[bench->peak]) : 1;
        times[n] = time_runs(bench, kernels, shape, n_runs) / (double)n_runs;
        shares[n] = macs / times[n] / peak;
        n++;
    }
    const double seconds = median(times, n);
    printf("%-17s %-11s %5zu x %4zu %-11s %10.2f us ", bench->name, kernels->isa, shape->rows,
           shape->k, activation_names[shape->activation], 1e6 * seconds);
    if (macs > 0)
        printf("%8.1f GMAC/s %7.2f GB/s %6.1f %%\n", 1e-9 * macs / seconds,
               1e-9 * bench->bytes(shape) / seconds, 100 * median(shares, n));
    else
        printf("%8s        %7.2f GB/s\n", "", 1e-9 * bench->bytes(shape) / seconds);
    fflush(stdout);
}

/* ---- Memory ----------------------------------------------------------------------------- */

static void *take(size_t n, size_t size)
{
    void *memory = aligned_alloc(64, (size_t)aligned(n * size, 64));
    if (!memory) {
        fprintf(stderr, "bench-kernels: out of memory for %zu bytes\n", n * size);
        exit(5);
    }
    memset(memory, 0, n * size);
    return memory;
}

static uint32_t next_random(void)
{
    static uint32_t state = 1;
    state ^= state << 13;
    state ^= state >> 17;
    state ^= state << 5;
    return state;
}

static void prepare(void)
{
    const size_t n = (size_t)MOST_ROWS * MOST_K, stride = MOST_K + 64;
    data.x = take(n, sizeof(float));
    data.y = take(n, sizeof(float));
    data.w = take((size_t)MOST_K * KERNEL_TILE, sizeof(float));
    data.scales = take(MOST_K, sizeof(float));
    data.cosine = take(MOST_K, sizeof(float));
    data.sine = take(MOST_K, sizeof(float));
    data.halves = take(n, sizeof(uint16_t));
    data.weights = take(WEIGHT_BYTES, 1);
    data.panel = take(2 * (size_t)MOST_K, KERNEL_TILE);
    data.sums = take((size_t)MOST_ROWS * KERNEL_TILE, sizeof(int32_t));
    data.rows = (struct q8_rows){take(MOST_ROWS, stride), stride, take(MOST_ROWS, sizeof(float)),
                                 take(MOST_ROWS, sizeof(int32_t)),
                                 take(MOST_ROWS * q4_groups(MOST_K), sizeof(int32_t))};
    for (size_t i = 0; i < MOST_K; i++) {
        data.scales[i] = 0.5f + (float)next_random() * 0x1p-33f;
        data.cosine[i] = 0.6f;
        data.sine[i] = 0.8f;
    }
    for (size_t i = 0; i < n; i++) {
        data.x[i] = (float)next_random() * 0x1p-31f - 1.0f;
        data.halves[i] = (uint16_t)(0x3000 + next_random() % 0x800);
    }
    memcpy(data.y, data.x, n * sizeof *data.y);
    memcpy(data.w, data.x, (size_t)MOST_K * KERNEL_TILE * sizeof *data.w);
    for (size_t i = 0; i < WEIGHT_BYTES / sizeof(uint32_t); i++)
        ((uint32_t *)(void *)data.weights)[i] = next_random();
    for (size_t i = 0; i < MOST_ROWS * stride; i++)
        data.rows.values[i] = (int8_t)(next_random() % 255 - 127);
    for (size_t i = 0; i < (size_t)MOST_ROWS * KERNEL_TILE; i++)
        data.sums[i] = (int32_t)(next_random() % 100000) - 50000;
    for (size_t i = 0; i < MOST_ROWS; i++)
        data.rows.scale[i] = 1e-3f;
}

static int run_all(const char *name, const char *isa)
{
    bool has, known;
    const char *rung;
    size_t n = 0;
    for (size_t b = 0; b < sizeof benches / sizeof *benches; b++)
        for (size_t i = 0; strstr(benches[b].name, name) && (rung = kernels_rung(i, &has)); i++) {
            if (!has || (isa && strcmp(isa, rung) != 0))
                continue;
            for (size_t s = 0; s < benches[b].n_shapes; s++, n++)
                measure(&benches[b], kernels_choose(rung, &known), &benches[b].shapes[s]);
        }
    if (n == 0)
        fprintf(stderr, "bench-kernels: nothing to measure: no such kernel or instruction set\n");
    return n ? 0 : 2;
}

int main(int argc, char **argv)
{
    const char *name = "", *isa = NULL;
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], "--isa") == 0 && i + 1 < argc) {
            isa = argv[++i];
        } else if (argv[i][0] != '-') {
            name = argv[i];
        } else {
            fprintf(stderr, "usage: bench-kernels [NAME] [--isa ISA]\n");
            return 2;
        }
    prepare();
    return run_all(name, isa);
}
