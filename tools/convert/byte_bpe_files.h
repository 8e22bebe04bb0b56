/* GPT-2's kind of tokenizer: vocab.json with merges.txt, or tokenizer.json -> pieces and merges. */
#ifndef CONVERT_BYTE_BPE_FILES_H
#define CONVERT_BYTE_BPE_FILES_H

#include <jansson.h>

#include "vocabulary.h"

/* Reads folder/vocab.json and folder/merges.txt. MVLM_BAD_MODEL. */
mvlm_status byte_bpe_read(const char *folder, struct vocabulary *vocabulary, mvlm_error *error);

/* Reads folder/tokenizer.json, which *json is then, for the caller to json_decref, whatever is returned; its words
 * and its normalizer decide the settings' pre_tokenizer and nfc. MVLM_BAD_MODEL. */
mvlm_status byte_bpe_read_json(const char *folder, struct vocabulary *vocabulary, json_t **json,
                               mvlm_error *error);

#endif
