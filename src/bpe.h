/* Shared by tokenizer.c and the two encoders only. */
#ifndef SRC_BPE_H
#define SRC_BPE_H

#include "tokenizer.h"

/* U+2581, which stands for a space within a piece of SentencePiece's. */
#define SPACE_MARK "\xe2\x96\x81"
enum { MARK_BYTES = sizeof SPACE_MARK - 1 };

/* The id of the piece with that text, of any type; -1: none. */
int32_t tokenizer_find(const struct tokenizer *tokenizer, const char *text, size_t n_bytes);

/* tokenizer_encode of either kind; byte_bpe leaves white space at the beginning as it is, whatever
 * `lead` says. */
mvlm_status sentencepiece_bpe_encode(const struct tokenizer *tokenizer, const char *text,
                                     size_t n_bytes, enum lead lead, struct id_list *list,
                                     mvlm_error *error);
mvlm_status byte_bpe_encode(const struct tokenizer *tokenizer, const char *text, size_t n_bytes,
                            enum lead lead, struct id_list *list, mvlm_error *error);

/* The byte that a character of byte_bpe's pieces stands for; -1: none. A byte that prints stands for
 * itself, the others in their order for U+0100 and so on. Source: GPT-2's encoder. */
int byte_of_character(uint32_t character);

/* Reads the merges behind the pieces. MVLM_BAD_MODEL; `name` stands in messages. */
mvlm_status byte_bpe_open(const char *name, struct tokenizer *tokenizer, const uint8_t *bytes,
                          size_t n_bytes, mvlm_error *error);

#endif
