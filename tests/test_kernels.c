/* Every rung of the ladder against kernels/c, bit for bit, in checkasm's manner: the same call on
 * the same inputs, once by each, between guard pages; then every buffer is compared, inputs too.
 * The cases are in support/kernel_cases*.c.
 *
 *     rung x kernel x shape x variant x pattern x guard side -> call C, call rung -> memcmp
 *
 * TEST_SEED=... repeats a run: the seed is printed. What C itself computes: test_kernels_gemm.c,
 * test_kernels_vector.c, test_kernels_quantized.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "support/guard.h"
#include "support/kernel_cases.h"
#include "support/seed.h"
#include "support/simde_tables.h"

enum { MAX_BYTES = 1 << 20 };

/* Computes nothing: test_measure.c. */
const struct kernel_case case_peak = {0};
/* Every rung has its own form of a prepared tile: compared through gemm_q4. */
const struct kernel_case case_prepare_q4 = {0};

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

static size_t bytes_of(const struct buffer *buffer)
{
    static const size_t sizes[] = {
        [FLOATS] = 4, [HALVES] = 2, [INTS] = 4, [BYTES] = 1, [SCRATCH] = 1};
    return buffer->n * sizes[buffer->content];
}

static void fill(enum pattern pattern, const struct buffer *buffer, void *place)
{
    for (size_t i = 0; i < buffer->n; i++)
        if (buffer->content == FLOATS)
            ((float *)place)[i] = pattern_float(pattern, i);
        else if (buffer->content == HALVES)
            ((uint16_t *)place)[i] = pattern_half(pattern, i);
        else if (buffer->content == INTS)
            ((int32_t *)place)[i] = pattern_int(pattern, i, INT32_MIN, INT32_MAX);
}

static bool is_nan(enum content content, const unsigned char *value)
{
    float single;
    uint16_t half;
    if (content == FLOATS) {
        memcpy(&single, value, sizeof single);
        return isnan(single);
    }
    memcpy(&half, value, sizeof half);
    return (half & 0x7fff) > 0x7c00;
}

/* Where the buffers differ, or n_bytes. One NaN is as good as another. */
static size_t first_difference(enum content content, const unsigned char *a, const unsigned char *b,
                               size_t n_bytes)
{
    size_t i = 0;
    while (i < n_bytes && a[i] == b[i])
        i++;
    if (i == n_bytes || (content != FLOATS && content != HALVES))
        return i;
    const size_t size = content == FLOATS ? sizeof(float) : sizeof(uint16_t);
    for (i -= i % size; i < n_bytes; i += size)
        if (memcmp(a + i, b + i, size) != 0 && !(is_nan(content, a + i) && is_nan(content, b + i)))
            return i;
    return n_bytes;
}

static void compare_buffers(const struct trial *t, const struct buffer *buffers)
{
    for (size_t i = 0; i < MAX_BUFFERS; i++) {
        const struct guard *expected = &guards[0][i], *got = &guards[1][i];
        for (size_t which = 0; which < 2; which++)
            if (!guard_intact(&guards[which][i]))
                complain(t, i, which ? "margin overwritten" : "margin overwritten by C", 0);
        if (buffers[i].content == SCRATCH)
            continue;
        const size_t n = expected->n_bytes;
        const size_t at = first_difference(buffers[i].content, expected->data, got->data, n);
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
        for (size_t which = 0; which < 2; which++)
            places[which][i] = guard_place(&guards[which][i], t->side, bytes_of(&buffers[i]));
        fill(t->pattern, &buffers[i], places[0][i]);
    }
    if (c->prepare)
        c->prepare(t->n, t->variant, t->pattern, places[0]);
    for (size_t i = 0; i < MAX_BUFFERS; i++)
        memcpy(places[1][i], places[0][i], bytes_of(&buffers[i]));
    for (size_t which = 0; which < 2; which++)
        c->call(tables[which], t->n, t->variant, places[which]);
    compare_buffers(t, buffers);
}

static void check_patterns(const struct kernel_case *c, const size_t *n, unsigned variant)
{
    for (enum pattern pattern = 0; pattern < N_PATTERNS; pattern++)
        for (enum guard_side side = GUARD_FRONT; side <= GUARD_BACK; side++)
            if (pattern != NOT_FINITE || c->not_finite)
                try_call(c, &(struct trial){n, variant, pattern, side});
}

static void check_kernel(void **state)
{
    const struct kernel_case *c = *state;
    if (!tables[1])
        skip();
    seed_restart(NULL);
    for (size_t shape = 0; shape < c->n_shapes; shape++)
        for (unsigned variant = 0; variant < c->n_variants; variant++)
            check_patterns(c, c->shapes[shape], variant);
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
    const struct kernels *chosen = kernels_choose(NULL, &known),
                         *highest = kernels_choose(best, &known);
    assert_true(chosen == highest ||
                (strcmp(best, "i8mm") == 0 && strcmp(chosen->isa, "dotprod") == 0));
    const struct kernels *plain = kernels_choose("c", &known), *faster = plain;
    assert_true(known);
    for (int i = 0; i < 10 && faster != chosen; i++) /* the machine may have other things to do */
        faster = kernels_faster(plain, chosen);
    assert_ptr_equal(faster, chosen);
}

static int check_table(const struct kernels *table)
{
#define KERNEL_TEST(type, name, parameters)                                                        \
    {#name, check_kernel, NULL, NULL, (void *)(uintptr_t)&case_##name},
    static const struct CMUnitTest tests[] = {KERNEL_LIST(KERNEL_TEST)};
    tables[1] = table;
    return cmocka_run_group_tests_name(rung, tests, NULL, NULL);
}

static int check_ladder(void)
{
    const struct kernels *table;
    int failures = 0;
    bool has, known;
    tables[0] = kernels_choose("c", &known);
    for (size_t i = 0; (rung = kernels_rung(i, &has)); i++) {
        if (!has)
            print_message("%s: skipped, this CPU lacks it\n", rung);
        failures += check_table(has ? kernels_choose(rung, &known) : NULL);
    }
    for (size_t i = 0; (table = simde_table(i)); i++) {
        rung = table->isa;
        failures += check_table(table);
    }
    if (!simde_table(0))
        print_message("rungs by SIMDe: skipped, this build has none\n");
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
