/* NumPy's .npy files, written in blocks of rows: the shape stands in a header of fixed size and is
 * filled in at the end. Source of the format: numpy.lib.format, version 1.0. */
#ifndef CLI_NPY_H
#define CLI_NPY_H

#include <stdint.h>
#include <stdio.h>

#include "mobilevlm.h"

struct npy {
    FILE *file; /* NULL: closed */
    char *path;
    const char *type; /* "<f4" or "<i4" */
    size_t shape[4];  /* the first counts the rows written */
    int n_dims;
};

/* Rows of 4-byte values: `shape` with its first number is how many rows these are; the others stay
 * the same. The first call creates folder/name. MVLM_BAD_OUTPUT. */
mvlm_status npy_append(struct npy *npy, const char *folder, const char *name, const char *type,
                       const void *values, const size_t *shape, int n_dims, mvlm_error *error);

/* Writes the shape and closes; a file that was never begun is left alone. */
mvlm_status npy_close(struct npy *npy, mvlm_error *error);

#endif
