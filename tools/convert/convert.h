/* A checkpoint folder, or random numbers, -> model.bin. */
#ifndef CONVERT_CONVERT_H
#define CONVERT_CONVERT_H

#include <signal.h>

#include "config.h"
#include "format.h"
#include "mobilevlm.h"
#include "pack.h"

/* What a type costs one kind of tensor (all layers' gate, say): relative root mean square
 * differences. */
struct convert_loss {
    const char *pattern;
    enum tensor_type type;
    size_t n_tensors;
    double worst, sum; /* of a tensor; sum over tensors, for the mean */
};

enum { MAX_LOSSES = 64 };

struct convert_report {
    struct convert_loss losses[MAX_LOSSES];
    size_t n_losses, n_tensors;
    size_t n_ignored; /* origin.h */
    uint64_t n_bytes; /* of the file */
    char digest[33];
};

/* What --norm-balance and --calibrate are by default. */
#define CONVERT_NORM_BALANCE 1.0
#define CONVERT_CALIBRATION  1024

struct convert_options {
    struct tensor_types types;
    double norm_balance; /* 0 to 1: balance.h's alpha; 0: norms stay as they are */
    /* tokens that q4's rounding is calibrated on, calibrate.h; 0: none. Random weights have nothing to say */
    size_t calibration;
    const char *lora;             /* an adapter's folder, merged into the checkpoint; NULL: none */
    struct config_changes config; /* to what config.json says */
    const char *random; /* the shape of a model of random numbers, random_model.h; NULL: a folder */
    uint64_t seed;      /* of those */
    bool force;
    int n_threads;   /* 0: one a core */
    const char *isa; /* highest rung of kernels; NULL: the best. Nothing depends on it but time */
    const volatile sig_atomic_t *stop;
    void (*progress)(void *user, double share); /* NULL: nobody asks */
    void *progress_user;
};

/* `folder` is not looked at where options->random is given. On any error nothing is left behind.
 * `report` may be NULL. */
mvlm_status convert(const char *folder, const char *path, const struct convert_options *options,
                    struct convert_report *report, mvlm_error *error);

#endif
