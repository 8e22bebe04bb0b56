/* Norms of many rows, shared out to the threads. */
#ifndef SRC_NORM_H
#define SRC_NORM_H

#include "compute.h"
#include "schema.h"

enum norm_kind { NORM_LAYER, NORM_RMS };

/* y[n_rows][n] = norm(x[n_rows][n]); y may be x. */
void norm_rows(const struct compute *compute, enum norm_kind kind, const struct norm *norm,
               double eps, float *y, const float *x, size_t n_rows, size_t n);

#endif
