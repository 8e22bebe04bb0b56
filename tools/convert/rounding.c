#include "rounding.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "status.h"
#include "threads.h"

enum { TILE = KERNEL_TILE, BLOCK = ROUNDING_BLOCK };

/* Of the mean of H's diagonal: moments of a thousand rows are far from certain. */
static const double DAMPING = 0.3;

static size_t block_length(size_t n, size_t first)
{
    return n - first < BLOCK ? n - first : BLOCK;
}

/* ---- Moments ---------------------------------------------------------------------------- */

size_t moments_scratch(size_t n_rows, size_t n)
{
    return n_rows * n + n_rows * TILE; /* the rows transposed; a tile of their columns */
}

void moments_add(const struct kernels *kernels, float *moments, const float *rows, size_t n_rows,
                 size_t n, float *scratch)
{
    float *transposed = scratch, *tile = scratch + n_rows * n;
    for (size_t r = 0; r < n_rows; r++)
        for (size_t k = 0; k < n; k++)
            transposed[k * n_rows + r] = rows[r * n + k];
    for (size_t j = 0; j < n; j += TILE) { /* columns j ... of the rows from j to the block's end */
        const size_t first = j / BLOCK * BLOCK, end = first + block_length(n, first);
        const size_t n_columns = n - j < TILE ? n - j : TILE;
        for (size_t r = 0; r < n_rows; r++)
            for (size_t c = 0; c < TILE; c++)
                tile[r * TILE + c] = c < n_columns ? rows[r * n + j + c] : 0.0f;
        kernels->gemm_f32(moments + j * BLOCK + (j - first), BLOCK, transposed + j * n_rows, n_rows,
                          tile, end - j, n_rows, true);
    }
}

/* ---- Feedback --------------------------------------------------------------------------- */

/* A block's moments over the mean of their diagonal, damped -> m[n][BLOCK], the lower triangle.
 * Returns the mean; 0 where there is none. */
static double load_block(const float *moments, size_t n, double *m)
{
    double mean = 0;
    for (size_t k = 0; k < n; k++)
        mean += (double)moments[k * BLOCK + k] / (double)n;
    if (!(mean > 0 && isfinite(mean)))
        return 0;
    for (size_t k = 0; k < n; k++) {
        for (size_t j = 0; j <= k; j++)
            m[k * BLOCK + j] = (double)moments[k * BLOCK + j] / mean;
        m[k * BLOCK + k] += DAMPING;
    }
    return mean;
}

/* Moments of a block -> its feedback; `m` has room for a block. The last input first: its column
 * of F is what is left of it in the others over what is left of itself. */
static bool split_block(const float *moments, size_t n, double *m, float *feedback)
{
    const double mean = load_block(moments, n, m);
    for (size_t k = n; k-- > 0;) {
        const double *row = m + k * BLOCK;
        if (mean == 0 || !(row[k] > 0))
            return false;
        for (size_t i = 0; i < k; i++) {
            const double factor = row[i] / row[k];
            double *other = m + i * BLOCK;
            for (size_t j = 0; j <= i; j++)
                other[j] -= factor * row[j];
            feedback[k * BLOCK + i] = (float)factor;
        }
        feedback[k * BLOCK + k] = (float)(row[k] * mean);
    }
    return true;
}

struct job {
    const float *moments;
    size_t n;
    double *scratch; /* [n_threads][BLOCK][BLOCK] */
    float *feedback;
};

static void run_block(void *argument, size_t index, int thread)
{
    const struct job *job = argument;
    const size_t first = index * BLOCK, n = block_length(job->n, first);
    float *feedback = job->feedback + first * BLOCK;
    double *m = job->scratch + (size_t)thread * BLOCK * BLOCK;
    if (!split_block(job->moments + first * BLOCK, n, m, feedback))
        memset(feedback, 0, n * BLOCK * sizeof *feedback);
}

mvlm_status rounding_feedback(const float *moments, size_t n, struct team *team, float **feedback,
                              mvlm_error *error)
{
    const size_t scratch_bytes = (size_t)team_size(team) * BLOCK * BLOCK * sizeof(double);
    struct job job = {moments, n, malloc(scratch_bytes), calloc(n * BLOCK, sizeof(float))};
    *feedback = NULL;
    if (job.scratch && job.feedback) {
        team_run(team, (n + BLOCK - 1) / BLOCK, run_block, &job);
        *feedback = job.feedback;
    } else {
        free(job.feedback);
    }
    free(job.scratch);
    return *feedback ? MVLM_OK : fail_no_memory(error, "a matrix's feedback", scratch_bytes);
}

/* ---- Rounding --------------------------------------------------------------------------- */

/* Sums over all inputs of D_k (F^T w)_k (F^T b)_k and D_k (F^T b)_k^2, with w the weights and b
 * their multipliers times values: the best scale is the first over the second. */
struct fit {
    float wb[TILE], bb[TILE];
};

/* A group's multipliers, and steps: times the scales. */
struct steps {
    float scale[TILE], multiplier[TILE], step[TILE];
};

static void load_steps(const void *tile, size_t n_k, size_t group, struct steps *steps)
{
    memcpy(steps->scale, tile, sizeof steps->scale);
    for (size_t c = 0; c < TILE; c++) {
        steps->multiplier[c] = (float)q4_multiplier(tile, n_k, group, c);
        steps->step[c] = steps->scale[c] * steps->multiplier[c];
    }
}

/* To the nearest value, ties to even; what is no number to some value. */
static float round_value(float wanted)
{
    const float shifter = 12582912.0f; /* 1.5 x 2^23: adding it rounds to an integer */
    const float least = wanted > -8.0f ? wanted : -8.0f, held = least < 7.0f ? least : 7.0f;
    return (held + shifter) - shifter;
}

/* The inputs of one block, the first of which is `first`; `feedback` begins with it. */
static void round_block(const struct kernels *kernels, void *tile, size_t n_k, const float *columns,
                        size_t first, size_t n, const float *feedback, struct fit *fit)
{
    float errors[BLOCK][TILE], levels[BLOCK][TILE]; /* levels: multipliers times values */
    struct steps steps;
    for (size_t i = 0; i < n; i++) {
        const size_t k = first + i;
        const float *row = feedback + i * BLOCK, *weights = columns + k * TILE;
        float wanted[TILE], before[TILE] = {0}, values[TILE];
        if (k % KERNEL_GROUP == 0)
            load_steps(tile, n_k, k / KERNEL_GROUP, &steps);
        memcpy(wanted, weights, sizeof wanted);
        kernels->gemm_f32(wanted, TILE, row, BLOCK, errors[0], 1, i, true);
        kernels->gemm_f32(before, TILE, row, BLOCK, levels[0], 1, i, true);
        for (size_t c = 0; c < TILE; c++) {
            const float step = steps.step[c];
            values[c] = round_value(step == 0.0f ? 0.0f : wanted[c] / step);
            errors[i][c] = weights[c] - step * values[c];
            levels[i][c] = steps.multiplier[c] * values[c];
            const float b = levels[i][c] + before[c], w = wanted[c] + steps.scale[c] * before[c];
            fit->wb[c] += row[i] * w * b;
            fit->bb[c] += row[i] * b * b;
        }
        for (size_t c = 0; c < TILE; c++)
            q4_set_value(tile, n_k, k, c, (int)values[c]);
    }
}

void rounding_apply(const struct kernels *kernels, void *tile, const float *columns, size_t n,
                    const float *feedback)
{
    const size_t n_k = aligned(n, KERNEL_GROUP);
    struct tile_scales *scales = tile;
    struct fit fit = {{0}, {0}};
    for (size_t first = 0; first < n; first += BLOCK)
        round_block(kernels, tile, n_k, columns, first, block_length(n, first),
                    feedback + first * BLOCK, &fit);
    for (size_t c = 0; c < TILE; c++) {
        const float scale = fit.wb[c] / fit.bb[c];
        if (isfinite(scale) && scale > 0.0f)
            scales->scale[c] = scale;
    }
}
