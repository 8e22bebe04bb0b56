#include "sampler.h"

#include <float.h>
#include <math.h>
#include <string.h>

void sampler_layout(struct sampler *sampler, struct arena *arena, size_t n_ids)
{
    sampler->n_ids = n_ids;
    sampler->candidates = arena_take(arena, n_ids, sizeof *sampler->candidates);
    sampler->weights = arena_take(arena, n_ids, sizeof *sampler->weights);
}

void sampler_share(struct sampler *sampler, const struct sampler *other)
{
    sampler->n_ids = other->n_ids;
    sampler->candidates = other->candidates;
    sampler->weights = other->weights;
}

mvlm_status sampler_start(struct sampler *sampler, const mvlm_sampling *options, mvlm_error *error)
{
    const struct {
        const char *name;
        double value, least, most;
    } ranges[] = {
        {"temperature", (double)options->temperature, 0, 1000},
        {"top-k", options->top_k, 0, 2147483647},
        {"top-p", (double)options->top_p, 0, 1},
        {"min-p", (double)options->min_p, 0, 1},
        {"repeat penalty", (double)options->repeat_penalty, 0, 1000},
    };
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++)
        if (!(ranges[i].value >= ranges[i].least && ranges[i].value <= ranges[i].most))
            return fail(error, MVLM_USAGE, "%s %g is out of range: %g to %g", ranges[i].name,
                        ranges[i].value, ranges[i].least, ranges[i].most);
    sampler->options = *options;
    sampler->random = options->seed;
    sampler->n_recent = 0;
    return MVLM_OK;
}

void sampler_note(struct sampler *sampler, int32_t id)
{
    sampler->recent[sampler->n_recent++ % PENALTY_WINDOW] = id;
}

/* Each id seen lately becomes less likely, once, however often it was seen. */
static void penalise(const struct sampler *sampler, float *logits)
{
    const float penalty = sampler->options.repeat_penalty;
    const size_t n = sampler->n_recent < PENALTY_WINDOW ? sampler->n_recent : PENALTY_WINDOW;
    if (penalty == 0.0f || penalty == 1.0f)
        return;
    for (size_t i = 0; i < n; i++) {
        const int32_t id = sampler->recent[i];
        bool seen_before = id < 0 || (size_t)id >= sampler->n_ids;
        for (size_t k = 0; k < i && !seen_before; k++)
            seen_before = sampler->recent[k] == id;
        if (!seen_before)
            logits[id] = logits[id] > 0 ? logits[id] / penalty : logits[id] * penalty;
    }
}

/* Likelier first; among equals the lower id. */
static bool before(struct candidate a, struct candidate b)
{
    return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
}

static void sift_down(struct candidate *heap, size_t n, size_t i)
{
    const struct candidate moved = heap[i];
    for (size_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && before(heap[child + 1], heap[child]))
            child++;
        if (!before(heap[child], moved))
            break;
        heap[i] = heap[child];
    }
    heap[i] = moved;
}

/* Uniform in [0, 1): splitmix64 (Steele, Lea and Flood, 2014). */
static double uniform(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return (double)((z ^ (z >> 31)) >> 11) * 0x1p-53;
}

/* The k likeliest, best first, at the front of the candidates. Popped from a heap, so that a small
 * k costs little. */
static void sort_front(struct candidate *candidates, size_t n, size_t k)
{
    for (size_t i = n / 2; i-- > 0;)
        sift_down(candidates, n, i);
    /* popped ones gather at the back, best last */
    for (size_t i = 0; i < k; i++) {
        const struct candidate best = candidates[0];
        candidates[0] = candidates[n - 1 - i];
        candidates[n - 1 - i] = best;
        sift_down(candidates, n - 1 - i, 0);
    }
    for (size_t i = 0, j = n - 1; i < k && i < j; i++, j--) {
        const struct candidate other = candidates[i];
        candidates[i] = candidates[j];
        candidates[j] = other;
    }
}

static void weigh(const struct sampler *s, const struct kernels *kernels, size_t n, float scale)
{
    for (size_t i = 0; i < n; i++)
        s->weights[i] = s->candidates[i].logit;
    kernels->softmax(s->weights, scale, n);
}

/* top-k, then top-p of what is left: returns how many candidates stay, at the front. */
static size_t truncate(const struct sampler *s, const struct kernels *kernels)
{
    const bool by_count = s->options.top_k > 0 && (size_t)s->options.top_k < s->n_ids;
    const bool by_mass = s->options.top_p > 0 && s->options.top_p < 1;
    size_t n = by_count ? (size_t)s->options.top_k : s->n_ids;
    if (by_count || by_mass)
        sort_front(s->candidates, s->n_ids, n);
    if (!by_mass)
        return n;
    weigh(s, kernels, n, 1.0f);
    double mass = 0;
    for (size_t i = 0; i < n; i++)
        if ((mass += (double)s->weights[i]) >= (double)s->options.top_p)
            return i + 1;
    return n;
}

/* Drops what is less likely than min_p times the likeliest. */
static size_t drop_unlikely(const struct sampler *s, size_t n)
{
    if (s->options.min_p <= 0)
        return n;
    float most = s->candidates[0].logit;
    for (size_t i = 1; i < n; i++)
        most = s->candidates[i].logit > most ? s->candidates[i].logit : most;
    const float least = most + logf(s->options.min_p);
    size_t kept = 0;
    for (size_t i = 0; i < n; i++)
        if (s->candidates[i].logit >= least)
            s->candidates[kept++] = s->candidates[i];
    return kept ? kept : 1;
}

static int32_t draw(struct sampler *s, const struct kernels *kernels)
{
    for (size_t i = 0; i < s->n_ids; i++)
        s->candidates[i].id = (int32_t)i;
    const size_t n = drop_unlikely(s, truncate(s, kernels));
    /* held below infinity: times a difference of 0 that would be NaN */
    weigh(s, kernels, n, fminf(1.0f / s->options.temperature, FLT_MAX));
    double sum = 0; /* 1 but for roundings, which would all fall to the last candidate */
    for (size_t i = 0; i < n; i++)
        sum += (double)s->weights[i];
    double left = uniform(&s->random) * sum;
    for (size_t i = 0; i + 1 < n; i++)
        if ((left -= (double)s->weights[i]) < 0)
            return s->candidates[i].id;
    return s->candidates[n - 1].id;
}

int32_t sampler_choose(struct sampler *sampler, const struct kernels *kernels, float *logits)
{
    penalise(sampler, logits);
    if (sampler->options.temperature == 0.0f) {
        size_t best = 0;
        for (size_t i = 1; i < sampler->n_ids; i++)
            if (logits[i] > logits[best])
                best = i;
        return (int32_t)best;
    }
    for (size_t i = 0; i < sampler->n_ids; i++)
        sampler->candidates[i].logit = logits[i];
    return draw(sampler, kernels);
}

double log_probability(const float *logits, size_t n, int32_t id)
{
    double most = (double)logits[0], sum = 0;
    for (size_t i = 1; i < n; i++)
        most = (double)logits[i] > most ? (double)logits[i] : most;
    for (size_t i = 0; i < n; i++)
        sum += exp((double)logits[i] - most);
    return (double)logits[id] - most - log(sum);
}
