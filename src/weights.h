/* model.bin: mapped, validated, looked up. No copies; opening reads only what stands before the
 * data. */
#ifndef SRC_WEIGHTS_H
#define SRC_WEIGHTS_H

#include <stddef.h>
#include <stdint.h>

#include "format.h"
#include "mapping.h"
#include "mobilevlm.h"

struct weights {
    char *path; /* owned */
    struct mapping *mapping;
    const uint8_t *bytes; /* the whole file, mapped read-only */
    size_t n_bytes;
    struct format_header header;         /* a copy: what is checked is what is used */
    const struct format_tensor *tensors; /* [header.n_tensors], in the mapping */
    size_t section_end[SECTION_COUNT]; /* offset behind the last tensor of it and of those before */
    char digest[33];                   /* of the header, hexadecimal */
};

/* Maps `path` and checks all that stands before the data: magic, version, features, lengths,
 * digest, and that the tensors tile the data section without hole or overlap. MVLM_BAD_MODEL;
 * *weights is empty on error. */
mvlm_status weights_open(const char *path, struct weights *weights, mvlm_error *error);
void weights_close(struct weights *weights);

/* MVLM_BAD_MODEL once a byte of the file could not be read, because it was cut or its disk fails: since then nothing that
 * was computed or found is to be believed. */
mvlm_status weights_intact(const struct weights *weights, mvlm_error *error);

/* Reads everything: digests, padding, and what a value must not be. As mvlm_model_verify. */
mvlm_status weights_verify(const struct weights *weights, mvlm_problem_fn problem, void *user,
                           mvlm_error *error);

/* Tells the system that these bytes of the mapping are not needed now: their pages no longer count as this process's
 * memory, and come back by themselves when they are read again. */
void weights_give_back(const void *bytes, size_t n_bytes);

/* The bytes of the sections before `end`. */
size_t weights_before(const struct weights *weights, enum section end, const void **bytes);

/* 16 bytes -> 32 hexadecimal digits and NUL. */
void digest_text(const uint8_t digest[16], char text[33]);

/* The XXH3-128 of `n` bytes, canonical form. */
void digest_of(const void *bytes, size_t n, uint8_t digest[16]);

/* The digest of everything before the data: `front` with the header's digest field taken as zeros.
 */
void digest_of_front(const uint8_t *front, size_t n, uint8_t digest[16]);

#endif
