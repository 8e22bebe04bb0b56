/* Shared by tokenizer.c and bpe.c only. */
#ifndef SRC_BPE_H
#define SRC_BPE_H

#include "tokenizer.h"

/* U+2581, which stands for a space within a piece. */
#define SPACE_MARK "\xe2\x96\x81"
enum { MARK_BYTES = sizeof SPACE_MARK - 1 };

/* The id of the piece with that text, of any type; -1: none. */
int32_t tokenizer_find(const struct tokenizer *tokenizer, const char *text, size_t n_bytes);

#endif
