/* The JSON record of an answer, as cli.md describes it, and the digests in it. */
#ifndef CLI_RECORD_H
#define CLI_RECORD_H

#include <xxhash.h>

#include "cli.h"

/* What an answer depends on beside the model, the pictures and the options that hold for all. */
struct asked {
    const char *prompt;
    int64_t max_tokens, seed;
};

/* 32 hexadecimal digits. */
void hash_text(XXH128_hash_t hash, char text[33]);

/* Of everything that the answer depends on beside model and pictures. */
void options_digest(const struct values *values, const struct asked *asked, char text[33]);

/* An answer of sequence `index`; NULL without memory. load_ms is what opening the model took. */
json_t *answer_record(const mvlm_model *model, const mvlm_session *session, size_t index,
                      const struct values *values, const struct asked *asked, double load_ms,
                      mvlm_finish finish, const char *text, size_t n_text);

#endif
