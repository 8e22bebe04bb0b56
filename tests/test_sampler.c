/* Logits -> id: greedy, the distributions that are drawn from, the penalty, options out of range,
 * odd logits. */
#include "../src/sampler.h" /* before cmocka.h, whose macro `fail` hides status.h's function */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { N_IDS = 12, VOCAB = 16, N_DRAWS = 20000 };

/* What a test samples with. The arena's block is as large as measured, so a sanitizer sees what
 * goes beyond it. */
struct fixture {
    struct sampler sampler;
    struct arena arena;
    const struct kernels *kernels;
};

static void open_sampler(struct fixture *f, size_t n_ids)
{
    bool known;
    struct arena measured = {0};
    f->kernels = kernels_choose(NULL, &known);
    sampler_layout(&f->sampler, &measured, n_ids);
    assert_int_equal(arena_open(&f->arena, measured.most, NULL), MVLM_OK);
    sampler_layout(&f->sampler, &f->arena, n_ids);
    assert_int_equal(f->arena.most, measured.most);
}

static int open_fixture(void **state)
{
    static struct fixture fixture;
    open_sampler(&fixture, N_IDS);
    *state = &fixture;
    return 0;
}

static int close_fixture(void **state)
{
    struct fixture *f = *state;
    arena_close(&f->arena);
    return 0;
}

static void start(struct fixture *f, mvlm_sampling options)
{
    mvlm_error error;
    assert_int_equal(sampler_start(&f->sampler, &options, &error), MVLM_OK);
}

static int32_t choose(struct fixture *f, const float *logits)
{
    float copy[VOCAB];
    memcpy(copy, logits, sizeof copy);
    return sampler_choose(&f->sampler, f->kernels, copy);
}

/* Not sorted; a tie of two; ids 12 to 15, likelier than all, stand for no piece. */
static const float logits[VOCAB] = {-1, 2.5f, 0.5f, 3, -4, 1.5f, 2.5f, -0.25f,
                                    0,  1,    -9,   2, 50, 60,   70,   80};

/* ---- Greedy ----------------------------------------------------------------------------- */

static void greedy_takes_the_likeliest(void **state)
{
    struct fixture *f = *state;
    float values[VOCAB];
    start(f, (mvlm_sampling){.top_k = 1, .top_p = 0.1f, .seed = 7});
    assert_int_equal(choose(f, logits), 3);
    for (int best = 0; best < N_IDS; best++) {
        for (int i = 0; i < VOCAB; i++)
            values[i] = i == best || i >= N_IDS ? -1 : -2;
        assert_int_equal(choose(f, values), best);
    }
}

static void greedy_tie_goes_to_the_lower_id(void **state)
{
    struct fixture *f = *state;
    float values[VOCAB] = {0};
    start(f, (mvlm_sampling){0});
    assert_int_equal(choose(f, values), 0);
    values[4] = values[9] = 1;
    assert_int_equal(choose(f, values), 4);
    values[0] = -0.0f;
    values[4] = values[9] = -1;
    assert_int_equal(choose(f, values), 0);
}

/* ---- Distributions ---------------------------------------------------------------------- */

static void expected_probabilities(const mvlm_sampling *o, double *p)
{
    int order[N_IDS];
    size_t n = 0, kept = 0;
    for (; n < N_IDS; n++) { /* insertion: likelier first, among equals the lower id */
        size_t at = n;
        for (; at > 0 && logits[order[at - 1]] < logits[n]; at--)
            order[at] = order[at - 1];
        order[at] = (int)n;
    }
    if (o->top_k > 0 && o->top_k < N_IDS)
        n = (size_t)o->top_k;
    double sum = 0, mass = 0;
    for (size_t i = 0; i < n; i++)
        sum += exp((double)logits[order[i]]);
    while (kept < n && (o->top_p == 0 || o->top_p == 1 || mass < (double)o->top_p))
        mass += exp((double)logits[order[kept++]]) / sum;
    while (kept > 1 && exp((double)(logits[order[kept - 1]] - logits[order[0]])) < (double)o->min_p)
        kept--;
    sum = 0;
    memset(p, 0, N_IDS * sizeof *p);
    for (size_t i = 0; i < kept; i++)
        sum += p[order[i]] = exp((double)logits[order[i]] / (double)o->temperature);
    for (size_t i = 0; i < N_IDS; i++)
        p[i] /= sum;
}

/* Frequencies within 5 standard deviations, and what has no probability never drawn. */
static void check_distribution(struct fixture *f, const mvlm_sampling *options)
{
    double p[N_IDS];
    int counts[VOCAB] = {0};
    expected_probabilities(options, p);
    start(f, *options);
    for (int i = 0; i < N_DRAWS; i++) {
        const int32_t id = choose(f, logits);
        assert_in_range(id, 0, N_IDS - 1);
        counts[id]++;
    }
    for (int i = 0; i < N_IDS; i++) {
        const double share = (double)counts[i] / N_DRAWS,
                     deviation = sqrt(p[i] * (1 - p[i]) / N_DRAWS);
        if (fabs(share - p[i]) > 5 * deviation || (p[i] == 0 && counts[i]))
            fail_msg("id %d: %.4f of the draws, expected %.4f (temperature %g, top-k %d, top-p %g, "
                     "min-p %g)",
                     i, share, p[i], (double)options->temperature, options->top_k,
                     (double)options->top_p, (double)options->min_p);
    }
}

static void draws_as_computed(void **state)
{
    static const float temperatures[] = {1, 0.5f, 1.7f, 0.05f, 100};
    static const struct {
        int top_k;
        float top_p, min_p;
    } cuts[] = {{0, 0, 0},        {0, 1, 0},         {1, 0, 0},      {2, 0, 0},    {3, 0, 0},
                {5, 0, 0},        {11, 0, 0},        {12, 0, 0},     {40, 0, 0},   {0, 0.01f, 0},
                {0, 0.5f, 0},     {0, 0.9f, 0},      {0, 0.999f, 0}, {0, 0, 0.3f}, {0, 0, 0.05f},
                {0, 0, 1},        {4, 0.8f, 0},      {6, 0.95f, 0},  {6, 0, 0.2f}, {0, 0.95f, 0.4f},
                {7, 0.9f, 0.25f}, {40, 0.95f, 0.05f}};
    for (size_t t = 0; t < sizeof temperatures / sizeof *temperatures; t++)
        for (size_t c = 0; c < sizeof cuts / sizeof *cuts; c++)
            check_distribution(*state, &(mvlm_sampling){.temperature = temperatures[t],
                                                        .top_k = cuts[c].top_k,
                                                        .top_p = cuts[c].top_p,
                                                        .min_p = cuts[c].min_p,
                                                        .seed = 1 + t * 100 + c});
}

static void temperature_near_zero_is_greedy(void **state)
{
    static const float temperatures[] = {1e-3f, 1e-20f, FLT_MIN, FLT_TRUE_MIN};
    static const mvlm_sampling options[] = {
        {.top_k = 0}, {.top_k = 3}, {.top_p = 0.9f}, {.min_p = 0.1f}};
    struct fixture *f = *state;
    for (size_t t = 0; t < sizeof temperatures / sizeof *temperatures; t++)
        for (size_t o = 0; o < sizeof options / sizeof *options; o++) {
            mvlm_sampling sampling = options[o];
            sampling.temperature = temperatures[t];
            start(f, sampling);
            for (int i = 0; i < 100; i++)
                assert_int_equal(choose(f, logits), 3);
        }
}

/* The seed whose first uniform number is the largest below 1: splitmix64's finish backwards. */
static uint64_t seed_of_largest(void)
{
    uint64_t z = UINT64_MAX;
    z ^= z >> 31 ^ z >> 62;
    z *= UINT64_C(0x319642b2d24d8ec3); /* the inverse of 0x94d049bb133111eb modulo 2^64 */
    z ^= z >> 27 ^ z >> 54;
    z *= UINT64_C(0x96de1b173f119089);
    z ^= z >> 30 ^ z >> 60;
    return z - UINT64_C(0x9e3779b97f4a7c15);
}

/* The weights' roundings must not add up to a chance for the last id. */
static void unlikely_is_not_drawn(void **state)
{
    (void)state;
    enum { MANY = 3000 };
    struct fixture f = {0};
    open_sampler(&f, MANY);
    for (size_t likely = 1; likely < MANY; likely = likely * 3 / 2 + 1) {
        float values[MANY];
        for (size_t i = 0; i < MANY; i++)
            values[i] = i < likely ? -(float)(i % 7) * 0.1f : -300;
        start(&f, (mvlm_sampling){.temperature = 1, .seed = seed_of_largest()});
        assert_int_equal(sampler_choose(&f.sampler, f.kernels, values), likely - 1);
    }
    arena_close(&f.arena);
}

/* sort_front against the obvious, through top-k: with top-k k at a high temperature, each of the k
 * best comes up and none else. */
static void top_k_of_many(void **state)
{
    (void)state;
    enum { MANY = 50 };
    float values[MANY], copy[MANY];
    struct fixture f = {0};
    open_sampler(&f, MANY);
    for (int i = 0; i < MANY; i++)
        values[i] = (float)(i * 17 % MANY / 2); /* pairs of equals, in disorder */
    for (int k = 1; k <= MANY; k++) {
        bool seen[MANY] = {false};
        start(&f, (mvlm_sampling){.temperature = 1000, .top_k = k, .seed = (uint64_t)k});
        for (int draw = 0; draw < 40 * k + 200; draw++) {
            memcpy(copy, values, sizeof copy);
            seen[sampler_choose(&f.sampler, f.kernels, copy)] = true;
        }
        for (int i = 0; i < MANY; i++) {
            int likelier = 0;
            for (int j = 0; j < MANY; j++)
                likelier += values[j] > values[i] || (values[j] == values[i] && j < i);
            assert_int_equal(seen[i], likelier < k);
        }
    }
    arena_close(&f.arena);
}

static void same_seed_same_ids(void **state)
{
    struct fixture *f = *state;
    int32_t ids[3][200];
    static const uint64_t seeds[] = {42, 42, 43};
    for (size_t run = 0; run < 3; run++) {
        start(f, (mvlm_sampling){.temperature = 1.5f, .top_k = 9, .seed = seeds[run]});
        for (size_t i = 0; i < 200; i++)
            ids[run][i] = choose(f, logits);
    }
    assert_memory_equal(ids[0], ids[1], sizeof ids[0]);
    assert_memory_not_equal(ids[0], ids[2], sizeof ids[0]);
}

/* ---- Penalty ---------------------------------------------------------------------------- */

/* The penalty is seen in the logits that choosing leaves behind. */
static void penalty_once_each(void **state)
{
    struct fixture *f = *state;
    float values[VOCAB], expected[VOCAB];
    start(f, (mvlm_sampling){.repeat_penalty = 2});
    const int32_t seen[] = {3, 0, 3, 3, 8, MVLM_IMAGE_ID, 13, 15, 100, -1};
    for (size_t i = 0; i < sizeof seen / sizeof *seen; i++)
        sampler_note(&f->sampler, seen[i]);
    memcpy(values, logits, sizeof values);
    memcpy(expected, logits, sizeof values);
    expected[3] = logits[3] / 2; /* positive: divided, and once though seen three times */
    expected[0] = logits[0] * 2; /* negative: multiplied */
    assert_int_equal(sampler_choose(&f->sampler, f->kernels, values), 1);
    assert_memory_equal(values, expected, sizeof values);
}

static void penalty_is_off_at_0_and_1(void **state)
{
    struct fixture *f = *state;
    for (int penalty = 0; penalty < 2; penalty++) {
        float values[VOCAB];
        start(f, (mvlm_sampling){.repeat_penalty = (float)penalty});
        sampler_note(&f->sampler, 3);
        memcpy(values, logits, sizeof values);
        assert_int_equal(sampler_choose(&f->sampler, f->kernels, values), 3);
        assert_memory_equal(values, logits, sizeof values);
    }
}

static void penalty_looks_back_64_ids(void **state)
{
    struct fixture *f = *state;
    float values[VOCAB];
    start(f, (mvlm_sampling){.repeat_penalty = 4});
    sampler_note(&f->sampler, 3);
    for (int i = 0; i < 200; i++) { /* the note of id 3 is the i + 1st from the end */
        memcpy(values, logits, sizeof values);
        sampler_choose(&f->sampler, f->kernels, values);
        assert_true(values[3] == (i < 64 ? logits[3] / 4 : logits[3]));
        sampler_note(&f->sampler, i % 2 ? 10 : 4);
    }
    start(f, (mvlm_sampling){.repeat_penalty = 4}); /* a new start forgets */
    memcpy(values, logits, sizeof values);
    sampler_choose(&f->sampler, f->kernels, values);
    assert_memory_equal(values, logits, sizeof values);
}

/* The penalty comes before the cuts: a penalised id falls out of top-k. */
static void penalty_precedes_cuts(void **state)
{
    struct fixture *f = *state;
    start(f, (mvlm_sampling){.temperature = 1, .top_k = 2, .repeat_penalty = 10, .seed = 5});
    sampler_note(&f->sampler, 3);
    for (int i = 0; i < 300; i++) {
        const int32_t id = choose(f, logits);
        assert_true(id == 1 || id == 6);
    }
}

/* ---- Options and odd logits ------------------------------------------------------------- */

static void options_out_of_range(void **state)
{
    static const struct {
        mvlm_sampling options;
        const char *name;
    } wrong[] = {
        {{.temperature = -0.5f}, "temperature"},
        {{.temperature = NAN}, "temperature"},
        {{.temperature = INFINITY}, "temperature"},
        {{.temperature = 1001}, "temperature"},
        {{.top_k = -1}, "top-k"},
        {{.top_p = -0.1f}, "top-p"},
        {{.top_p = 1.5f}, "top-p"},
        {{.top_p = NAN}, "top-p"},
        {{.min_p = -1}, "min-p"},
        {{.min_p = 1.01f}, "min-p"},
        {{.min_p = NAN}, "min-p"},
        {{.repeat_penalty = -1}, "repeat penalty"},
        {{.repeat_penalty = NAN}, "repeat penalty"},
        {{.repeat_penalty = 2000}, "repeat penalty"},
    };
    struct fixture *f = *state;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        mvlm_error error = {.status = MVLM_OK};
        assert_int_equal(sampler_start(&f->sampler, &wrong[i].options, &error), MVLM_USAGE);
        assert_int_equal(error.status, MVLM_USAGE);
        if (!strstr(error.message, wrong[i].name))
            fail_msg("\"%s\" does not name %s", error.message, wrong[i].name);
        assert_int_equal(sampler_start(&f->sampler, &wrong[i].options, NULL), MVLM_USAGE);
    }
    start(f, (mvlm_sampling){1000, INT32_MAX, 1, 1, 1000, UINT64_MAX});
    assert_in_range(choose(f, logits), 0, N_IDS - 1);
}

/* Whatever a broken model gives, an id of a piece comes back and memory is left alone. */
static void odd_logits_give_an_id(void **state)
{
    static const float odd[] = {NAN,     -NAN,     INFINITY,     -INFINITY,
                                FLT_MAX, -FLT_MAX, FLT_TRUE_MIN, -0.0f};
    enum { N_ODD = sizeof odd / sizeof *odd };
    static const mvlm_sampling options[] = {
        {.temperature = 0},
        {.temperature = 1},
        {.temperature = 1, .top_k = 5},
        {.temperature = 1, .top_p = 0.5f},
        {.temperature = 1, .min_p = 0.5f},
        {.temperature = 0.7f, .top_k = 11, .top_p = 0.9f, .min_p = 0.1f, .repeat_penalty = 1.3f}};
    struct fixture *f = *state;
    for (size_t o = 0; o < sizeof options / sizeof *options; o++)
        for (size_t trial = 0; trial < N_ODD * N_ODD * 3; trial++) {
            float values[VOCAB];
            const size_t a = trial % N_ODD, b = trial / N_ODD % N_ODD, mode = trial / N_ODD / N_ODD;
            for (size_t i = 0; i < VOCAB; i++)
                values[i] = mode == 0        ? odd[i % 3 ? a : b]
                            : i % (mode + 2) ? logits[i]
                                             : odd[i % 2 ? a : b];
            start(f, options[o]);
            sampler_note(&f->sampler, (int32_t)(trial % N_IDS));
            for (int draw = 0; draw < 3; draw++)
                assert_in_range(choose(f, values), 0, N_IDS - 1);
        }
}

/* One infinite logit is a certainty; minus infinity is never chosen where there is a choice. */
static void infinite_logits(void **state)
{
    struct fixture *f = *state;
    float values[VOCAB];
    memcpy(values, logits, sizeof values);
    values[3] = values[1] = values[10] = -INFINITY;
    start(f, (mvlm_sampling){.temperature = 5, .seed = 9});
    for (int i = 0; i < 2000; i++) {
        const int32_t id = choose(f, values);
        assert_true(id != 3 && id != 1 && id != 10);
    }
    start(f, (mvlm_sampling){0});
    assert_int_equal(choose(f, values), 6);
    values[7] = INFINITY;
    assert_int_equal(choose(f, values), 7);
}

static void one_id_only(void **state)
{
    (void)state;
    struct fixture f = {0};
    float values[2] = {-3, 9};
    open_sampler(&f, 1);
    for (int t = 0; t < 2; t++) {
        start(&f,
              (mvlm_sampling){.temperature = (float)t, .top_k = 40, .top_p = 0.5f, .min_p = 0.1f});
        assert_int_equal(sampler_choose(&f.sampler, f.kernels, values), 0);
    }
    arena_close(&f.arena);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, open_fixture, close_fixture)
    const struct CMUnitTest tests[] = {
        TEST(greedy_takes_the_likeliest),
        TEST(greedy_tie_goes_to_the_lower_id),
        TEST(draws_as_computed),
        TEST(temperature_near_zero_is_greedy),
        cmocka_unit_test(unlikely_is_not_drawn),
        cmocka_unit_test(top_k_of_many),
        TEST(same_seed_same_ids),
        TEST(penalty_once_each),
        TEST(penalty_is_off_at_0_and_1),
        TEST(penalty_looks_back_64_ids),
        TEST(penalty_precedes_cuts),
        TEST(options_out_of_range),
        TEST(odd_logits_give_an_id),
        TEST(infinite_logits),
        cmocka_unit_test(one_id_only),
    };
    return cmocka_run_group_tests_name("sampler", tests, NULL, NULL);
}
