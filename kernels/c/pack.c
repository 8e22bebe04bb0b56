/* f32 columns -> quantized tiles. Scales and multipliers are searched for least squared error, all 32 columns of a tile
 * at once: a lane is a column. Nothing here is fused, so that it is fast without FMA too. */
#include <math.h>
#include <string.h>

#include "names.h"

enum { N = KERNEL_TILE };

/* What a search needs to know of values w that become steps x q: sums over k of w q and of q q. The squared error is
 * sum w w - gain(), so the largest gain is the least error. */
struct fit {
    float wq[N], qq[N];
};

static inline float gain(float step, float wq, float qq)
{
    return step * (2.0f * wq - step * qq);
}

static inline float nearest(float x)
{
    const float shifter =
        12582912.0f; /* 1.5 x 2^23: adding it rounds to an integer, ties to even */
    return (x + shifter) - shifter;
}

static inline float clamp_f32(float x, float low, float high)
{
    const float above = x < low ? low : x;
    return above > high ? high : above;
}

/* w[n_k][32] in steps of step[c], held to low..high */
static void fit_steps(struct fit *fit, const float *restrict w, size_t n_k, const float *step,
                      float low, float high)
{
    float inverse[N], wq[N] = {0}, qq[N] = {0};
    for (int c = 0; c < N; c++)
        inverse[c] = step[c] == 0.0f ? 0.0f : 1.0f / step[c];
    for (size_t k = 0; k < n_k; k++)
        for (int c = 0; c < N; c++) {
            const float value = w[k * N + (size_t)c],
                        q = clamp_f32(nearest(value * inverse[c]), low, high);
            wq[c] += value * q;
            qq[c] += q * q;
        }
    memcpy(fit->wq, wq, sizeof wq);
    memcpy(fit->qq, qq, sizeof qq);
}

/* Keeps the step (and whatever goes with it) where it gains more than the best so far. */
static void keep_better(float *best_gain, float *best, const float *gains, const float *candidate)
{
    for (int c = 0; c < N; c++) {
        const bool better = gains[c] > best_gain[c];
        best_gain[c] = better ? gains[c] : best_gain[c];
        best[c] = better ? candidate[c] : best[c];
    }
}

/* The value of largest magnitude of each column, with its sign. */
static void largest_values(const float *restrict w, size_t n_k, float *restrict most)
{
    for (int c = 0; c < N; c++)
        most[c] = 0.0f;
    for (size_t k = 0; k < n_k; k++)
        for (int c = 0; c < N; c++) {
            const float value = w[k * N + (size_t)c];
            most[c] = fabsf(value) > fabsf(most[c]) ? value : most[c];
        }
}

/* ---- q8 --------------------------------------------------------------------------------- */

double KERNEL(pack_q8)(void *tile, const float *columns, size_t n_k)
{
    enum { CANDIDATES = 8 };
    float most[N], scale[N] = {0}, best[N] = {0}, candidate[N], gains[N];
    uint8_t *lines = (uint8_t *)tile + sizeof(struct tile_scales);
    struct fit fit;
    largest_values(columns, n_k, most);
    for (int i = 0; i < CANDIDATES; i++) {
        for (int c = 0; c < N; c++) /* from the full range down to 86 % of it */
            candidate[c] = fabsf(most[c]) * (1.0f / 127.0f) * (1.0f - 0.02f * (float)i);
        fit_steps(&fit, columns, n_k, candidate, -127.0f, 127.0f);
        for (int c = 0; c < N; c++) { /* the integers stay, the scale becomes the best for them */
            candidate[c] = fit.qq[c] > 0.0f ? fit.wq[c] / fit.qq[c] : 0.0f;
            gains[c] = gain(candidate[c], fit.wq[c], fit.qq[c]);
        }
        keep_better(best, scale, gains, candidate);
    }
    memcpy(tile, scale, sizeof scale);
    double error = 0;
    for (size_t k = 0; k < n_k; k++) {
        float sum = 0.0f;
        for (int c = 0; c < N; c++) {
            const float value = columns[k * N + (size_t)c];
            const float q =
                clamp_f32(scale[c] == 0.0f ? 0.0f : nearest(value / scale[c]), -127.0f, 127.0f);
            lines[k / KERNEL_QUAD * Q8_LINE + (size_t)c * KERNEL_QUAD + k % KERNEL_QUAD] =
                (uint8_t)((int)q + Q8_ZERO);
            sum += (value - scale[c] * q) * (value - scale[c] * q);
        }
        error += (double)sum;
    }
    return error;
}

/* ---- q4 --------------------------------------------------------------------------------- */

static const float LOW = -8.0f, HIGH = 7.0f;

/* The best step of one group by itself. Its sign puts the largest value where there is one level more. */
static void best_group_step(const float *restrict w, float *step)
{
    enum { CANDIDATES = 12 };
    float most[N], best[N] = {0}, candidate[N], gains[N];
    struct fit fit;
    largest_values(w, KERNEL_GROUP, most);
    for (int c = 0; c < N; c++)
        step[c] = 0.0f;
    for (int i = 0; i < CANDIDATES; i++) {
        for (int c = 0; c < N; c++) /* the largest value becomes -7 ... -9.2 steps */
            candidate[c] = most[c] / (-7.0f - 0.2f * (float)i);
        fit_steps(&fit, w, KERNEL_GROUP, candidate, LOW, HIGH);
        for (int c = 0; c < N; c++) {
            candidate[c] = fit.qq[c] > 0.0f ? fit.wq[c] / fit.qq[c] : 0.0f;
            gains[c] = gain(candidate[c], fit.wq[c], fit.qq[c]);
        }
        keep_better(best, step, gains, candidate);
    }
}

/* A group's best multiplier near `wanted` under the columns' scales; adds its gain and fit to the sums. */
static void best_multiplier(const float *restrict w, const float *scale, const float *wanted,
                            int reach, float *multiplier, float *gains, struct fit *sums)
{
    float best[N], wq[N] = {0}, qq[N] = {0};
    struct fit fit;
    for (int c = 0; c < N; c++) {
        best[c] = 0.0f; /* what multiplier 0 gains */
        multiplier[c] = 0.0f;
    }
    for (int i = -reach; i <= reach; i++) {
        float m[N], step[N];
        for (int c = 0; c < N; c++) {
            m[c] = clamp_f32(nearest(wanted[c]) + (float)i, -(float)Q4_MOST_MULTIPLIER,
                             (float)Q4_MOST_MULTIPLIER);
            step[c] = m[c] * scale[c];
        }
        fit_steps(&fit, w, KERNEL_GROUP, step, LOW, HIGH);
        for (int c = 0; c < N; c++) {
            const float g = gain(step[c], fit.wq[c], fit.qq[c]);
            const bool better = g > best[c];
            best[c] = better ? g : best[c];
            multiplier[c] = better ? m[c] : multiplier[c];
            wq[c] = better ? fit.wq[c] * m[c] : wq[c];
            qq[c] = better ? fit.qq[c] * (m[c] * m[c]) : qq[c];
        }
    }
    for (int c = 0; c < N; c++) {
        gains[c] += best[c];
        sums->wq[c] += wq[c];
        sums->qq[c] += qq[c];
    }
}

/* All groups under the columns' scales: multipliers [n_groups][32], the gain, and the scale that suits their integers
 * best. `wanted` are the groups' own steps. */
static void fit_columns(const float *columns, size_t n_groups, const float *scale,
                        const float *wanted, int reach, float *multipliers, float *gains,
                        float *refit)
{
    struct fit sums = {{0}, {0}};
    float inverse[N];
    for (int c = 0; c < N; c++) {
        inverse[c] = scale[c] == 0.0f ? 0.0f : 1.0f / scale[c];
        gains[c] = 0.0f;
    }
    for (size_t g = 0; g < n_groups; g++) {
        float ratio[N];
        for (int c = 0; c < N; c++)
            ratio[c] = wanted[g * N + (size_t)c] * inverse[c];
        best_multiplier(columns + g * KERNEL_GROUP * N, scale, ratio, reach, multipliers + g * N,
                        gains, &sums);
    }
    for (int c = 0; c < N; c++)
        refit[c] = sums.qq[c] > 0.0f ? sums.wq[c] / sums.qq[c] : 0.0f;
}

/* The columns' scales: the largest step is 15 to 10 multiples of it, whatever gains most. */
static void best_scales(const float *columns, size_t n_groups, const float *wanted,
                        float *multipliers, float *scale)
{
    enum { CANDIDATES = 12, ROUNDS = 2 };
    float most[N] = {0}, best[N] = {0}, candidate[N], gains[N], refit[N];
    largest_values(wanted, n_groups, most);
    for (int c = 0; c < N; c++)
        scale[c] = 0.0f;
    for (int i = 0; i < CANDIDATES; i++) {
        for (int c = 0; c < N; c++)
            candidate[c] = fabsf(most[c]) / (15.4f - 0.45f * (float)i);
        fit_columns(columns, n_groups, candidate, wanted, 0, multipliers, gains, refit);
        keep_better(best, scale, gains, candidate);
    }
    for (int round = 0; round < ROUNDS; round++) {
        fit_columns(columns, n_groups, scale, wanted, 1, multipliers, gains, refit);
        memcpy(scale, refit, sizeof refit);
    }
    /* once more for the last scale, whose multipliers are kept */
    fit_columns(columns, n_groups, scale, wanted, 1, multipliers, gains, refit);
}

/* Writes group g and returns its squared error. */
static double pack_group(void *tile, const float *w, size_t n_k, size_t g, const float *scale,
                         const float *m)
{
    uint8_t *magnitudes = (uint8_t *)tile + sizeof(struct tile_scales) + g * (N / 2);
    uint8_t *signs =
        (uint8_t *)tile + sizeof(struct tile_scales) + n_k / KERNEL_GROUP * (N / 2) + g * (N / 8);
    uint8_t *lines = (uint8_t *)tile + sizeof(struct tile_scales) + q4_multiplier_bytes(n_k) +
                     g * KERNEL_GROUP * N / 2;
    double error = 0;
    for (int c = 0; c < N; c++) {
        const float step = scale[c] * m[c];
        float sum = 0.0f;
        magnitudes[c % 16] = (uint8_t)(magnitudes[c % 16] | (int)fabsf(m[c]) << (c < 16 ? 0 : 4));
        signs[c / 8] = (uint8_t)(signs[c / 8] | (m[c] < 0.0f) << c % 8);
        for (size_t k = 0; k < KERNEL_GROUP; k++) {
            const float value = w[k * N + (size_t)c];
            const float q = step == 0.0f ? 0.0f : clamp_f32(nearest(value / step), LOW, HIGH);
            uint8_t *byte = lines + k / KERNEL_QUAD * Q4_LINE + (size_t)(c % 16) * KERNEL_QUAD +
                            k % KERNEL_QUAD;
            *byte = (uint8_t)(*byte | (c < 16 ? (int)q + Q4_ZERO : ((int)q & 15) << 4));
            sum += (value - step * q) * (value - step * q);
        }
        error += (double)sum;
    }
    return error;
}

double KERNEL(pack_q4)(void *tile, const float *columns, size_t n_k, float *scratch)
{
    const size_t n_groups = n_k / KERNEL_GROUP;
    float *wanted = scratch, *multipliers = scratch + n_groups * N, scale[N];
    for (size_t g = 0; g < n_groups; g++)
        best_group_step(columns + g * KERNEL_GROUP * N, wanted + g * N);
    best_scales(columns, n_groups, wanted, multipliers, scale);
    memset(tile, 0, q4_tile_bytes(n_k));
    memcpy(tile, scale, sizeof scale);
    double error = 0;
    for (size_t g = 0; g < n_groups; g++)
        error +=
            pack_group(tile, columns + g * KERNEL_GROUP * N, n_k, g, scale, multipliers + g * N);
    return error;
}
