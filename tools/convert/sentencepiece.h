/* tokenizer.model (SentencePiece's serialized ModelProto) -> pieces and settings. */
#ifndef CONVERT_SENTENCEPIECE_H
#define CONVERT_SENTENCEPIECE_H

#include "vocabulary.h"

/* Reads folder/tokenizer.model into an empty vocabulary; refuses what is no BPE model and what normalises
 * characters. MVLM_BAD_MODEL. */
mvlm_status sentencepiece_read(const char *folder, struct vocabulary *vocabulary,
                               mvlm_error *error);

#endif
