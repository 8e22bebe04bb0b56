/* Writes model.bin: to a temporary name in the same folder, synced, then renamed. Whatever happens
 * before the rename leaves nothing behind. */
#ifndef CONVERT_WRITER_H
#define CONVERT_WRITER_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mobilevlm.h"

struct writer {
    char *path, *temporary; /* owned */
    int file;               /* -1: none */
    uint64_t position;
    uint64_t started;                  /* up to where the disk was asked to begin */
    const volatile sig_atomic_t *stop; /* non-zero: give up; may be NULL */
};

/* Refuses a path that exists unless `force`, and one that is no place for a file. MVLM_BAD_OUTPUT,
 * MVLM_USAGE. */
mvlm_status writer_open(struct writer *writer, const char *path, bool force,
                        const volatile sig_atomic_t *stop, mvlm_error *error);

/* Appends bytes, or zeros up to `position`. MVLM_BAD_OUTPUT, MVLM_CANCELLED. */
mvlm_status writer_append(struct writer *writer, const void *bytes, size_t n_bytes,
                          mvlm_error *error);
mvlm_status writer_pad(struct writer *writer, uint64_t position, mvlm_error *error);

/* The next bytes come to stand at `position`, over those that are there. MVLM_BAD_OUTPUT. */
mvlm_status writer_seek(struct writer *writer, uint64_t position, mvlm_error *error);

/* Reads bytes that were written before; from several threads at once. MVLM_BAD_OUTPUT. */
mvlm_status writer_read(const struct writer *writer, uint64_t position, void *bytes, size_t n_bytes,
                        mvlm_error *error);

/* Writes the file's beginning, syncs, renames. */
mvlm_status writer_finish(struct writer *writer, const void *front, size_t n_bytes,
                          mvlm_error *error);

/* Removes the temporary file if there still is one. */
void writer_close(struct writer *writer);

#endif
