/* Writes little checkpoints into a test's own folder: safetensors, and zip archives of torch.save.
 * Any failure to write ends the test (cmocka's assertions). */
#ifndef TESTS_CHECKPOINT_BUILDER_H
#define TESTS_CHECKPOINT_BUILDER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../../tools/convert/checkpoint.h"

/* ---- Folders and files ------------------------------------------------------------------ */

/* cmocka fixtures: *state is the path of a new folder, removed with the files in it. */
int folder_setup(void **state);
int folder_teardown(void **state);
void folder_clear(const char *folder);

void file_write(const char *folder, const char *name, const void *bytes, size_t n_bytes);
/* The caller frees it. */
uint8_t *folder_file_load(const char *folder, const char *name, size_t *n_bytes);

struct bytes {
    uint8_t *data;
    size_t n, capacity;
};
void bytes_add(struct bytes *bytes, const void *data, size_t n);
void bytes_free(struct bytes *bytes);

/* Opening the folder must fail with MVLM_BAD_MODEL and a message of one line that holds `part` and
 * the folder. */
void check_refused(const char *folder, const char *part);

/* ---- safetensors ------------------------------------------------------------------------ */

struct built_tensor {
    const char *name;
    enum dtype dtype;
    int n_dims;
    int64_t shape[MAX_DIMS];
    const void *data; /* little-endian, C order */
};

void build_safetensors(const char *folder, const char *name, const struct built_tensor *tensors,
                       size_t n_tensors);

/* Any header, for files that are to be refused; `n_data` bytes of zero follow it. */
void build_safetensors_raw(const char *folder, const char *name, const char *header,
                           size_t n_header, size_t n_data);

/* An index that puts tensors[i] into shards[i]. */
void build_index(const char *folder, const char *name, const char *const *tensors,
                 const char *const *shards, size_t n);

/* ---- torch ------------------------------------------------------------------------------ */

struct built_record {
    const char *name;
    const void *data; /* NULL: a hole */
    uint64_t n_bytes;
    uint16_t method, flags; /* 0, or what is to be refused */
};

/* Stored records, aligned to 64 bytes as torch aligns them. */
void build_zip(const char *folder, const char *name, const struct built_record *records,
               size_t n_records, bool zip64);

struct built_storage {
    enum dtype dtype;
    const void *data; /* NULL: a hole */
    uint64_t count;   /* elements; its key is its place in the list */
};

struct built_view {
    const char *name;
    int storage;
    int64_t offset; /* in elements */
    int n_dims;
    int64_t shape[MAX_DIMS], stride[MAX_DIMS];
    bool is_parameter;
};

enum built_flags { PLAIN_DICT = 1, ZIP64 = 2, NO_BYTEORDER = 4 };

/* The pickle of a state dict. */
void build_pickle(struct bytes *out, const struct built_view *views, size_t n_views,
                  const struct built_storage *storages, int flags);

/* An archive with that data.pkl and the storages as records data/0, data/1 ... */
void build_archive(const char *folder, const char *name, const void *pickle, size_t n_pickle,
                   const struct built_storage *storages, size_t n_storages, int flags);

void build_torch(const char *folder, const char *name, const struct built_view *views,
                 size_t n_views, const struct built_storage *storages, size_t n_storages,
                 int flags);

/* Opens the checkpoint; fails the test when that fails. */
struct checkpoint *open_folder(const char *folder);

#endif
