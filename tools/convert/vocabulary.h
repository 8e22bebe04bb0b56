/* A tokenizer on its way into model.bin, whatever files it came in. */
#ifndef CONVERT_VOCABULARY_H
#define CONVERT_VOCABULARY_H

#include <stddef.h>
#include <stdint.h>

#include "description.h"
#include "format.h"
#include "mobilevlm.h"

struct vocabulary_piece {
    const char *text; /* in the vocabulary's memory, no NUL */
    size_t n_bytes;
    float score;
    int64_t type;   /* enum piece_type */
    unsigned flags; /* enum piece_flags */
};

/* Texts of pieces that do not lie in a file's bytes. */
struct vocabulary_text;

struct vocabulary {
    struct vocabulary_piece *pieces; /* [n_pieces], by id */
    size_t n_pieces, capacity;
    struct format_merge *merges; /* [n_merges], of byte_bpe */
    size_t n_merges;
    struct tokenizer_settings settings;
    uint8_t *bytes;                /* of tokenizer.model; NULL: none */
    struct vocabulary_text *texts; /* a list */
};

/* Reads the tokenizer of a checkpoint's folder: tokenizer.model, or vocab.json and merges.txt, or tokenizer.json where
 * none of these is there; with tokenizer_config.json, special_tokens_map.json and added_tokens.json, each of which may
 * be missing. What this program does not do exactly is refused by name. MVLM_BAD_MODEL. */
mvlm_status vocabulary_open(const char *folder, struct vocabulary *vocabulary, mvlm_error *error);
void vocabulary_close(struct vocabulary *vocabulary);

/* Makes room for n pieces in all. MVLM_NO_MEMORY. */
mvlm_status vocabulary_reserve(struct vocabulary *vocabulary, size_t n, mvlm_error *error);

/* Gives the piece a copy of a text of at most 65,535 bytes. MVLM_NO_MEMORY. */
mvlm_status vocabulary_set_text(struct vocabulary *vocabulary, size_t id, const char *text,
                                size_t n_bytes, mvlm_error *error);

/* The id of the piece with that text; -1: none. Looks at all of them. */
int64_t vocabulary_find(const struct vocabulary *vocabulary, const char *text);

/* Writes the tokenizer section of model.bin and returns its length; NULL only counts. */
size_t vocabulary_encode(const struct vocabulary *vocabulary, uint8_t *out);

#endif
