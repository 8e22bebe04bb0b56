/* The state dict in a torch pickle, read by a machine that can build nothing but one. */
#ifndef CONVERT_PICKLE_H
#define CONVERT_PICKLE_H

#include "checkpoint.h"
#include "source_file.h"

struct pickle_text {
    const char *bytes; /* in the pickle, not ended by NUL */
    size_t n;
};

struct pickle_tensor {
    struct pickle_text name;
    struct pickle_text storage; /* key of the record that holds the elements */
    enum dtype dtype;
    int64_t storage_count; /* elements of the storage */
    int64_t offset;        /* of the first element in the storage, in elements; 0 or more */
    int n_dims;
    int64_t shape[MAX_DIMS], stride[MAX_DIMS]; /* all 0 or more, not checked further */
};

/* Runs the pickle `bytes` of `file` and returns what its dict holds; the caller frees *tensors.
 * Names and keys point into `bytes`. Knows the opcodes and names of model-facts.md 9.2 that a state
 * dict needs, and refuses all others by name: nothing is ever loaded or called. */
mvlm_status pickle_read(const struct source_file *file, const uint8_t *bytes, size_t n_bytes,
                        struct pickle_tensor **tensors, size_t *n_tensors, mvlm_error *error);

#endif
