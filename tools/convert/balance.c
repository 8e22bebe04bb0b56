#include "balance.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "status.h"

enum { FAR_LARGER = 4, MOST_EXPONENT = 6 };

/* Norms, and all that may read them. A row whose norm is not there is no row: a parallel block has no ffn_norm, and its
 * MLP reads attention_norm. The other norms feed residuals or convolutions. */
static const struct balanced {
    const char *norm, *readers[5];
} balanced[] = {
    {"vision.layers.%d.norm1",
     {"vision.layers.%d.q.weight", "vision.layers.%d.k.weight", "vision.layers.%d.v.weight"}},
    {"vision.layers.%d.norm2", {"vision.layers.%d.fc1.weight"}},
    {"decoder.layers.%d.ffn_norm",
     {"decoder.layers.%d.up.weight", "decoder.layers.%d.gate.weight"}},
    {"decoder.layers.%d.attention_norm",
     {"decoder.layers.%d.q.weight", "decoder.layers.%d.k.weight", "decoder.layers.%d.v.weight",
      "decoder.layers.%d.up.weight", "decoder.layers.%d.gate.weight"}},
    {"decoder.norm", {"decoder.head.weight"}}, /* not there where the head is tied */
};

static bool is_norm(const struct balanced *row, const char *pattern)
{
    const size_t n = strlen(row->norm);
    return strncmp(row->norm, pattern, n) == 0 && pattern[n] == '.';
}

static bool is_reader(const struct balanced *row, const char *pattern)
{
    for (size_t i = 0; i < sizeof row->readers / sizeof *row->readers && row->readers[i]; i++)
        if (strcmp(row->readers[i], pattern) == 0)
            return true;
    return false;
}

/* The tensor of that pattern and number; n when there is none. */
static size_t find(const struct origin *origin, const char *pattern, int number)
{
    size_t i = 0;
    while (i < origin->n &&
           (origin->specs[i].number != number || strcmp(origin->specs[i].pattern, pattern) != 0))
        i++;
    return i;
}

/* The row that tensor `index` belongs to, if its matrices are quantized (all have one type). */
static const struct balanced *find_row(const struct origin *origin,
                                       const struct format_tensor *directory, size_t index)
{
    const struct tensor_spec *spec = &origin->specs[index];
    for (size_t i = 0; i < sizeof balanced / sizeof *balanced; i++) {
        const struct balanced *row = &balanced[i];
        if (!is_norm(row, spec->pattern) && !is_reader(row, spec->pattern))
            continue;
        char norm[FORMAT_NAME_BYTES];
        snprintf(norm, sizeof norm, "%s.weight", row->norm);
        if (find(origin, norm, spec->number) == origin->n)
            continue;
        const size_t reader = find(origin, row->readers[0], spec->number);
        return reader < origin->n && is_quantized(directory[reader].type) ? row : NULL;
    }
    return NULL;
}

bool balance_applies(const struct origin *origin, const struct format_tensor *directory,
                     size_t index)
{
    return find_row(origin, directory, index) != NULL;
}

static int compare(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double magnitude(const float *weight, const float *bias, size_t j)
{
    return hypot((double)weight[j], bias ? (double)bias[j] : 0.0);
}

void balance_exponents(const float *weight, const float *bias, size_t n, double alpha,
                       double *sorted, int *exponents)
{
    for (size_t j = 0; j < n; j++) {
        const double a = magnitude(weight, bias, j);
        sorted[j] = isfinite(a) ? a : 0.0; /* what is no number has no order; it keeps its size */
    }
    qsort(sorted, n, sizeof *sorted, compare);
    const double median = sorted[n / 2];
    for (size_t j = 0; j < n; j++) {
        const double a = magnitude(weight, bias, j);
        exponents[j] = 0;
        if (isfinite(a) && median > 0.0 && a >= FAR_LARGER * median)
            exponents[j] = (int)fmin(round(alpha * log2(a / median)), MOST_EXPONENT);
    }
}

/* The norm's vectors -> factors[n], which hold the weight in between. `scratch`: n doubles, n
 * integers and n floats, in this order. */
static mvlm_status compute(const struct origin *origin, const struct balanced *row, size_t index,
                           double alpha, float *factors, double *scratch, mvlm_error *error)
{
    char pattern[FORMAT_NAME_BYTES];
    const struct tensor_spec *spec = &origin->specs[index];
    const int sign = is_norm(row, spec->pattern) ? -1 : 1;
    snprintf(pattern, sizeof pattern, "%s.weight", row->norm);
    const size_t weight = find(origin, pattern, spec->number),
                 n = (size_t)origin->specs[weight].n_rows;
    snprintf(pattern, sizeof pattern, "%s.bias", row->norm);
    const size_t bias = find(origin, pattern, spec->number);
    int *exponents = (int *)(void *)(scratch + n);
    float *bias_values = (float *)(void *)(exponents + n);
    TRY(origin->read(origin, weight, 0, n, factors, error));
    if (bias < origin->n)
        TRY(origin->read(origin, bias, 0, n, bias_values, error));
    balance_exponents(factors, bias < origin->n ? bias_values : NULL, n, alpha, scratch, exponents);
    for (size_t j = 0; j < n; j++)
        factors[j] = ldexpf(1.0f, sign * exponents[j]);
    return MVLM_OK;
}

mvlm_status balance_factors(const struct origin *origin, const struct format_tensor *directory,
                            size_t index, double alpha, float **factors, mvlm_error *error)
{
    const struct balanced *row = find_row(origin, directory, index);
    const struct tensor_spec *spec = &origin->specs[index];
    const size_t n = (size_t)(spec->kind == TENSOR_MATRIX ? spec->n_cols : spec->n_rows);
    *factors = NULL;
    if (!row || alpha == 0.0)
        return MVLM_OK;
    double *scratch = malloc(n * (sizeof(double) + sizeof(int) + sizeof(float)));
    *factors = malloc(n * sizeof **factors);
    mvlm_status status = scratch && *factors
                             ? compute(origin, row, index, alpha, *factors, scratch, error)
                             : fail_no_memory(error, spec->name, n * sizeof **factors);
    free(scratch);
    if (status != MVLM_OK) {
        free(*factors);
        *factors = NULL;
    }
    return status;
}
