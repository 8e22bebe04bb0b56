/* A Hugging Face checkpoint folder as one list of tensors, whatever files they lie in:
 * pytorch_model.bin (zip), sharded .bin with index, model.safetensors, sharded safetensors with
 * index. */
#ifndef CONVERT_CHECKPOINT_H
#define CONVERT_CHECKPOINT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mobilevlm.h"

enum dtype {
    DTYPE_F32,
    DTYPE_F16,
    DTYPE_BF16,
    DTYPE_F64,
    DTYPE_I64,
    DTYPE_I32,
    DTYPE_I16,
    DTYPE_I8,
    DTYPE_U8,
    DTYPE_BOOL
};

enum { MAX_DIMS = 8 };

struct source_tensor {
    char *name; /* owned by the checkpoint */
    enum dtype dtype;
    int n_dims; /* 0 for a scalar */
    int64_t shape[MAX_DIMS];
    int64_t stride[MAX_DIMS]; /* in elements */
    int file;                 /* index of the file it lies in */
    uint64_t offset;          /* of its first element, in bytes from the file's start */
    bool used;                /* set by checkpoint_find: what stays false is a leftover */
};

struct checkpoint;

/* Opens the folder and reads every file's directory; no tensor data. Everything is validated here:
 * afterwards each tensor's extent lies within its file. On error MVLM_BAD_MODEL, and *out is NULL.
 */
mvlm_status checkpoint_open(const char *folder, struct checkpoint **out, mvlm_error *error);
/* The same of one file of the folder, whose name ends in .safetensors or .bin. */
mvlm_status checkpoint_open_file(const char *folder, const char *name, struct checkpoint **out,
                                 mvlm_error *error);
void checkpoint_close(struct checkpoint *checkpoint);

/* All tensors, sorted by name. */
size_t checkpoint_count(const struct checkpoint *checkpoint);
const struct source_tensor *checkpoint_tensor(const struct checkpoint *checkpoint, size_t index);

/* The tensor of that name, marked as used; NULL when there is none. */
const struct source_tensor *checkpoint_find(struct checkpoint *checkpoint, const char *name);

/* The path of the file that a tensor lies in, for messages. */
const char *checkpoint_file(const struct checkpoint *checkpoint,
                            const struct source_tensor *tensor);

/* Sum of the bytes of all tensors (shared storages counted for each tensor), for progress. */
uint64_t checkpoint_bytes(const struct checkpoint *checkpoint);

/* Reads rows [first, first + n_rows) of the first dimension as f32 in C order into `out`
 * (n_rows x product of the other dimensions; a scalar or vector counts elements as rows).
 * F32, F16 and BF16 only. May be called from several threads at once; uses pread, never mmap, so
 * that a large checkpoint does not count as resident memory. */
mvlm_status checkpoint_read(const struct checkpoint *checkpoint, const struct source_tensor *tensor,
                            int64_t first, int64_t n_rows, float *out, mvlm_error *error);

const char *dtype_name(enum dtype dtype);
size_t dtype_size(enum dtype dtype);

#endif
