/* Text -> words, within which byte_bpe merges. */
#ifndef SRC_PRE_TOKENIZE_H
#define SRC_PRE_TOKENIZE_H

#include <stddef.h>

#include "description.h"

/* The length in bytes of the word that `text` begins with: at least a character of n_bytes > 0 bytes
 * of valid UTF-8. The words are the matches, in turn, of
 *
 *     gpt2   's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
 *     qwen2  (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|
 *            \s*[\r\n]+|\s+(?!\S)|\s+
 *
 * Source: the published tokenizers of GPT-2 (and so of Phi-2) and Qwen2. */
size_t pre_token_length(enum pre_tokenizer kind, const char *text, size_t n_bytes);

#endif
