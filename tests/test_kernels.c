/* Every rung of the ladder against kernels/c, bit for bit, in checkasm's manner: the same call on
 * the same inputs, once by each, between guard pages; then every buffer is compared, inputs too.
 *
 *     rung x kernel x shape x variant x pattern x guard side -> call C, call rung -> memcmp
 *
 * TEST_SEED=... repeats a run: the seed is printed. What C itself computes: test_kernels_gemm.c,
 * test_kernels_vector.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "../kernels/kernels.h"
#include "support/guard.h"
#include "support/seed.h"

enum { MAX_BUFFERS = 4, MAX_NUMBERS = 3, MAX_BYTES = 1 << 20 };
enum content { FLOATS, HALVES };

struct buffer {
    enum content content;
    size_t n; /* values */
};

/* How one kernel is called: the sizes of its buffers for the numbers `n` of a shape, and the call.
 * Variants are 0 to n_variants - 1; what they mean is the kernel's matter. */
struct kernel_case {
    const size_t (*shapes)[MAX_NUMBERS];
    size_t n_shapes;
    unsigned n_variants;
    void (*measure)(const size_t *n, unsigned variant, struct buffer *buffers);
    void (*call)(const struct kernels *kernels, const size_t *n, unsigned variant, void *const *p);
};

/* ---- Inputs ----------------------------------------------------------------------------- */

/* +-(1 to 2) x 2^[least, most] */
static float random_magnitude(int least, int most)
{
    const uint64_t bits = random_bits();
    const int exponent = least + (int)(bits % (uint64_t)(most - least + 1));
    const float value = ldexpf(1.0f + (float)(bits >> 48) * 0x1p-16f, exponent);
    return bits >> 40 & 1 ? -value : value;
}

enum pattern { RANDOM, ZEROS, NEGATIVE_ZEROS, EQUAL, ALTERNATING, LARGE, TINY, MIXED, N_PATTERNS };

static const char *const pattern_names[] = {"random",      "zeros", "negative zeros", "equal",
                                            "alternating", "large", "tiny",           "mixed"};

static float pattern_float(enum pattern pattern, size_t i)
{
    switch (pattern) {
    case ZEROS:
        return 0.0f;
    case NEGATIVE_ZEROS:
        return -0.0f;
    case EQUAL:
        return 1.7f;
    case ALTERNATING:
        return i % 2 ? -1.3f : 1.3f;
    case LARGE: /* products of two, and sums of a thousand of these, stay finite */
        return random_magnitude(40, 54);
    case TINY: /* subnormal, and products that become so */
        return random_magnitude(-149, -60);
    case MIXED: /* from below a half's subnormals to beyond its infinity, and zeros of both signs */
        return random_bits() % 8 ? random_magnitude(-28, 18) : i % 2 ? -0.0f : 0.0f;
    default:
        return (float)((double)random_bits() * 0x1p-61 - 4);
    }
}

static uint16_t pattern_half(enum pattern pattern, size_t i)
{
    const uint16_t sign = (uint16_t)(random_bits() & 0x8000);
    const uint16_t halves[] = {[ZEROS] = 0,
                               [NEGATIVE_ZEROS] = 0x8000,
                               [EQUAL] = 0x3ecd,
                               [ALTERNATING] = i % 2 ? 0xbd33 : 0x3d33,
                               [LARGE] = 0x7bff | sign,
                               [TINY] = (uint16_t)(random_bits() & 0x3ff) | sign,
                               [RANDOM] = (uint16_t)(0x3000 + random_bits() % 0x1400) | sign,
                               [MIXED] = (uint16_t)(random_bits() % 0x7c00) | sign};
    return halves[pattern];
}

static void fill(enum pattern pattern, const struct buffer *buffer, void *place)
{
    for (size_t i = 0; i < buffer->n; i++)
        if (buffer->content == FLOATS)
            ((float *)place)[i] = pattern_float(pattern, i);
        else
            ((uint16_t *)place)[i] = pattern_half(pattern, i);
}

/* ---- How each kernel is called ---------------------------------------------------------- */

#define FLOAT_BUFFER(...)                                                                          \
    (struct buffer)                                                                                \
    {                                                                                              \
        FLOATS, __VA_ARGS__                                                                        \
    }
#define HALF_BUFFER(...)                                                                           \
    (struct buffer)                                                                                \
    {                                                                                              \
        HALVES, __VA_ARGS__                                                                        \
    }
#define SHAPES(array) array, sizeof array / sizeof *array

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

static size_t rows_of(size_t n_rows, size_t stride, size_t n)
{
    return n_rows ? (n_rows - 1) * stride + n : 0;
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

/* One for each kernel of the list: a kernel without its case does not compile. */
static struct kernel_case case_gemm_f32 = {SHAPES(gemm_shapes), 4, measure_gemm, call_gemm};
static struct kernel_case case_gemv_f16 = {SHAPES(gemv_shapes), 1, measure_gemv, call_gemv};
static struct kernel_case case_f16_to_f32 = {SHAPES(lengths), 1, measure_to_single, call_to_single};
static struct kernel_case case_f32_to_f16 = {SHAPES(lengths), 1, measure_to_half, call_to_half};
static struct kernel_case case_layer_norm = {SHAPES(lengths), 4, measure_norm, call_layer_norm};
static struct kernel_case case_rms_norm = {SHAPES(lengths), 2, measure_norm, call_rms_norm};
static struct kernel_case case_softmax = {SHAPES(lengths_from_1), 2, measure_one, call_softmax};
static struct kernel_case case_activate = {SHAPES(lengths), ACTIVATION_COUNT, measure_one,
                                           call_activate};
static struct kernel_case case_add = {SHAPES(lengths), 1, measure_two, call_add};
static struct kernel_case case_multiply = {SHAPES(lengths), 1, measure_two, call_multiply};
static struct kernel_case case_rope = {SHAPES(rope_shapes), 1, measure_rope, call_rope};
static struct kernel_case case_depthwise_3x3 = {SHAPES(depthwise_shapes), 2, measure_depthwise,
                                                call_depthwise};

/* ---- The comparison --------------------------------------------------------------------- */

static const char *rung;                    /* under test */
static struct guard guards[2][MAX_BUFFERS]; /* C's, the rung's */
static const struct kernels *tables[2];

/* One call, described in a failure's message. */
struct trial {
    const size_t *n;
    unsigned variant;
    enum pattern pattern;
    enum guard_side side;
};

static void complain(const struct trial *t, size_t buffer, const char *what, size_t at)
{
    fail_msg(
        "%s: buffer %zu %s at byte %zu; shape %zu %zu %zu, variant %u, %s, against the %s guard, "
        "TEST_SEED=%llu",
        rung, buffer, what, at, t->n[0], t->n[1], t->n[2], t->variant, pattern_names[t->pattern],
        t->side == GUARD_FRONT ? "front" : "back", seed_value());
}

static size_t first_difference(const unsigned char *a, const unsigned char *b, size_t n)
{
    size_t i = 0;
    while (i < n && a[i] == b[i])
        i++;
    return i;
}

static void compare_buffers(const struct trial *t)
{
    for (size_t i = 0; i < MAX_BUFFERS; i++) {
        const struct guard *expected = &guards[0][i], *got = &guards[1][i];
        for (size_t which = 0; which < 2; which++)
            if (!guard_intact(&guards[which][i]))
                complain(t, i, which ? "margin overwritten" : "margin overwritten by C", 0);
        const size_t n = expected->n_bytes;
        const size_t at = first_difference(expected->data, got->data, n);
        if (at < n)
            complain(t, i, "differs from C", at);
    }
}

static void try_call(const struct kernel_case *c, const struct trial *t)
{
    struct buffer buffers[MAX_BUFFERS] = {{FLOATS, 0}};
    void *places[2][MAX_BUFFERS];
    c->measure(t->n, t->variant, buffers);
    for (size_t i = 0; i < MAX_BUFFERS; i++) {
        const size_t n_bytes = buffers[i].n * (buffers[i].content == FLOATS ? 4 : 2);
        for (size_t which = 0; which < 2; which++)
            places[which][i] = guard_place(&guards[which][i], t->side, n_bytes);
        fill(t->pattern, &buffers[i], places[0][i]);
        memcpy(places[1][i], places[0][i], n_bytes);
    }
    for (size_t which = 0; which < 2; which++)
        c->call(tables[which], t->n, t->variant, places[which]);
    compare_buffers(t);
}

static void check_kernel(void **state)
{
    const struct kernel_case *c = *state;
    if (!tables[1])
        skip();
    seed_restart(NULL);
    for (size_t shape = 0; shape < c->n_shapes; shape++)
        for (unsigned variant = 0; variant < c->n_variants; variant++)
            for (enum pattern pattern = 0; pattern < N_PATTERNS; pattern++)
                for (enum guard_side side = GUARD_FRONT; side <= GUARD_BACK; side++)
                    try_call(c, &(struct trial){c->shapes[shape], variant, pattern, side});
}

/* ---- The ladder itself ------------------------------------------------------------------ */

static void choose_finds_rungs(void **state)
{
    (void)state;
    bool known = true, has = false;
    const char *best = NULL, *name;
    assert_null(kernels_choose("sse9", &known));
    assert_false(known);
    assert_null(kernels_choose("", &known));
    assert_false(known);
    for (size_t i = 0; (name = kernels_rung(i, &has)); i++) {
        const struct kernels *table = kernels_choose(name, &known);
        assert_true(known);
        assert_int_equal(table != NULL, has);
        if (table)
            assert_string_equal(table->isa, best = name);
    }
    assert_string_equal(kernels_rung(0, &has), "c");
    assert_true(has);
    assert_string_equal(kernels_choose(NULL, &known)->isa, best);
    assert_true(known);
}

static int check_ladder(void)
{
#define KERNEL_TEST(type, name, parameters) {#name, check_kernel, NULL, NULL, &case_##name},
    static const struct CMUnitTest tests[] = {KERNEL_LIST(KERNEL_TEST)};
    int failures = 0;
    bool has, known;
    tables[0] = kernels_choose("c", &known);
    for (size_t i = 0; (rung = kernels_rung(i, &has)); i++) {
        tables[1] = kernels_choose(rung, &known);
        if (!has)
            print_message("%s: skipped, this CPU lacks it\n", rung);
        failures += cmocka_run_group_tests_name(rung, tests, NULL, NULL);
    }
    return failures;
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(choose_finds_rungs)};
    seed_choose();
    for (size_t i = 0; i < 2 * MAX_BUFFERS; i++)
        guard_open(&guards[i / MAX_BUFFERS][i % MAX_BUFFERS], MAX_BYTES);
    int failures = cmocka_run_group_tests_name("ladder", tests, NULL, NULL);
    failures += check_ladder();
    for (size_t i = 0; i < 2 * MAX_BUFFERS; i++)
        guard_close(&guards[i / MAX_BUFFERS][i % MAX_BUFFERS]);
    return failures;
}
