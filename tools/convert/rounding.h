/* Rounding to four bits in which the weights that follow make up for the errors of those before, as
 * far as what the matrix reads allows. With X the rows that a matrix reads and E the errors of one of
 * its outputs, |X E|^2 = E^T H E is made small, H = X^T X. Split into F D F^T with F unit upper
 * triangular that is the sum over k of D_k (E_k + sum over j < k of F_jk E_j)^2, so weight k is
 * rounded not at its own value but at w_k + sum of F_jk E_j. (Inverting H and spreading each error
 * with the inverse's Cholesky factor, as GPTQ does, gives the same values.)
 *
 * H is block-diagonal: what inputs of different blocks have in common is not used. */
#ifndef CONVERT_ROUNDING_H
#define CONVERT_ROUNDING_H

#include <stddef.h>

#include "../../kernels/kernels.h"
#include "mobilevlm.h"
#include "threads.h"

enum { ROUNDING_BLOCK = 256 }; /* inputs */

/* Moments of n inputs: [n][ROUNDING_BLOCK]; row k has the sums of x_k x_j over all rows x for the
 * inputs j of k's block, of which only those up to k count. Adds rows[n_rows][n]. `scratch` has
 * room for moments_scratch(n_rows, n) floats. */
void moments_add(const struct kernels *kernels, float *moments, const float *rows, size_t n_rows,
                 size_t n, float *scratch);
size_t moments_scratch(size_t n_rows, size_t n);

/* Moments -> *feedback, new memory for the caller to free, of the same shape: row k has F_jk for the
 * inputs j before k in its block, and D_k at its own place. H is damped: 0.3 times the mean of its
 * diagonal is added to that. A block whose inputs were always zero, or once not finite, gets zeros:
 * its weights are rounded plainly. */
mvlm_status rounding_feedback(const float *moments, size_t n, struct team *team, float **feedback,
                              mvlm_error *error);

/* Rounds the weights columns[n][32] anew to the values of a q4 tile, whose multipliers stay; then
 * gives each column the scale that suits its new values best, which is the one in the tile where
 * there is no better. */
void rounding_apply(const struct kernels *kernels, void *tile, const float *columns, size_t n,
                    const float *feedback);

#endif
