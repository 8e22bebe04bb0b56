/* Norms that feed only linear layers: trained ones have a few channels far larger than the rest, on
 * which eight bits of an activation would be spent. Where those layers are quantized, such a channel
 * j of the norm is divided by s_j and column j of their matrices multiplied by it. Every s_j is a
 * power of two, so that in f32 this changes nothing. Channels of ordinary size are left alone:
 * moving their differences too costs q4 more in the matrices than it gains (stories260K). */
#ifndef CONVERT_BALANCE_H
#define CONVERT_BALANCE_H

#include "origin.h"

/* Is tensor `index` a part of such a norm, or a matrix that reads one, and are the matrices
 * quantized? `directory` holds all tensors' types. */
bool balance_applies(const struct origin *origin, const struct format_tensor *directory,
                     size_t index);

/* What the values of a norm's vector, or the columns of a matrix, are to be multiplied with:
 * *factors is new memory for the caller to free, or NULL where nothing changes. With a_j =
 * sqrt(weight_j^2 + bias_j^2), where a_j is at least four times the median of a, s_j is
 * (a_j / median)^alpha, at most 64, rounded to a power of two; else it is 1. Reads the norm's
 * vectors only. */
mvlm_status balance_factors(const struct origin *origin, const struct format_tensor *directory,
                            size_t index, double alpha, float **factors, mvlm_error *error);

/* The exponents of all s_j for one norm of n channels; bias may be NULL. `sorted` has room for n
 * values. */
void balance_exponents(const float *weight, const float *bias, size_t n, double alpha,
                       double *sorted, int *exponents);

#endif
