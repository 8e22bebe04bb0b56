/* What a model's own text makes its four-bit matrices read: the model, rounded plainly, writes
 * stories from nothing, and the rows that these matrices read meanwhile are summed up for
 * rounding.h. So no data is needed. The same numbers for any number of threads and on every rung. */
#ifndef CONVERT_CALIBRATE_H
#define CONVERT_CALIBRATE_H

#include <signal.h>
#include <stddef.h>

#include "mobilevlm.h"

struct calibration;

struct calibrate_options {
    size_t n_tokens; /* to be read, at least 1 */
    int n_threads;
    const char *isa;                   /* NULL: the best that the CPU has */
    const volatile sig_atomic_t *stop; /* non-zero: give up; may be NULL */
    void (*progress)(void *user, double share);
    void *progress_user;
};

/* Reads n_tokens tokens with the model file at `path`, in sequences of at most 128 that are sampled
 * at temperature 1. *calibration is new memory, some 1 KB for each input of matrices of q4, for
 * calibration_close. Fails as the library does; MVLM_CANCELLED. */
mvlm_status calibrate(const char *path, const struct calibrate_options *options,
                      struct calibration **calibration, mvlm_error *error);
void calibration_close(struct calibration *calibration);

/* The moments (rounding.h) of what the tensor of that name reads; NULL when it is not of q4, or was
 * not used. */
const float *calibration_moments(const struct calibration *calibration, const char *name);

#endif
