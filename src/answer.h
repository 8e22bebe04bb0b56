/* The answer's text as it grows: bytes of tokens -> UTF-8, white space dropped at both ends, ended
 * by stop texts. Text is released only when nothing that may follow can take it back. */
#ifndef SRC_ANSWER_H
#define SRC_ANSWER_H

#include "arena.h"
#include "utf8.h"

struct answer {
    struct utf8_stream utf8;
    char *text; /* all of it so far, in memory for `capacity` bytes */
    size_t capacity, n;
    size_t begin;   /* where the answer begins: behind leading white space */
    size_t emitted; /* up to where it has been given out */
    const char *const *stops;
    size_t n_stops;
    bool ended; /* a stop text was found */
};

/* Memory for `n_bytes` bytes of tokens. */
void answer_layout(struct answer *answer, struct arena *arena, size_t n_bytes);
void answer_start(struct answer *answer, const char *const *stops, size_t n_stops);

/* Adds a token's bytes. Returns true when a stop text ends the answer. */
bool answer_push(struct answer *answer, const char *bytes, size_t n_bytes);

/* The next text that may be given out, valid until the next push; `last` says that nothing follows.
 */
const char *answer_take(struct answer *answer, bool last, size_t *n_bytes);

#endif
