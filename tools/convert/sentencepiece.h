/* tokenizer.model (SentencePiece's serialized ModelProto) -> pieces and flags. */
#ifndef CONVERT_SENTENCEPIECE_H
#define CONVERT_SENTENCEPIECE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "description.h"
#include "mobilevlm.h"

struct sentencepiece_piece {
    const uint8_t *text; /* in the file's bytes */
    size_t n_bytes;
    float score;
    int64_t type;
};

struct sentencepiece {
    uint8_t *bytes; /* of the file */
    struct sentencepiece_piece *pieces;
    size_t n_pieces;
    int64_t model_type;
    struct tokenizer_settings settings; /* what the file itself says of them */
    size_t normalization_bytes;         /* of a character map, which this program does not apply */
};

/* Reads folder/tokenizer.model; refuses what is no BPE model and what normalises characters.
 * MVLM_BAD_MODEL. */
mvlm_status sentencepiece_open(const char *folder, struct sentencepiece *tokenizer,
                               mvlm_error *error);
void sentencepiece_close(struct sentencepiece *tokenizer);

/* Writes the tokenizer section of model.bin and returns its length; NULL only counts. */
size_t sentencepiece_encode(const struct sentencepiece *tokenizer, uint8_t *out);

#endif
