/* The files beside a vocabulary that say how it is used. */
#ifndef CONVERT_TOKENIZER_FILES_H
#define CONVERT_TOKENIZER_FILES_H

#include <jansson.h>

#include "vocabulary.h"

/* Reads tokenizer_config.json, special_tokens_map.json and added_tokens.json of `folder`, each of which may be
 * missing, into the vocabulary: its settings, its special tokens, and tokens that were added beside its pieces.
 * `tokenizer` is tokenizer.json where the pieces are from it, else NULL. MVLM_BAD_MODEL. */
mvlm_status tokenizer_files_read(const char *folder, const json_t *tokenizer,
                                 struct vocabulary *vocabulary, mvlm_error *error);

#endif
