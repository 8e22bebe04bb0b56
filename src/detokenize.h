/* Ids -> the bytes of their text, as the published tokenizers join them. */
#ifndef SRC_DETOKENIZE_H
#define SRC_DETOKENIZE_H

#include "tokenizer.h"

enum { N_CLEAN_UPS = 10 };

struct detokenizer {
    const struct tokenizer *tokenizer;
    bool begun;                      /* something was given out */
    bool apart;                      /* the last thing was a token that stands apart */
    int n_dropped;                   /* spaces still to be dropped, if the text goes on with them */
    unsigned char held[N_CLEAN_UPS]; /* bytes of each text that may yet be cleaned up */
};

void detokenizer_start(struct detokenizer *detokenizer, const struct tokenizer *tokenizer);

/* The bytes that the next id adds, and then those that were held back for what might follow: written to
 * `out`, which has room for the tokenizer's longest piece and DETOKENIZED_MORE; both return their number.
 * They need not end with a whole character. */
enum {
    DETOKENIZED_MORE =
        40, /* more than is ever held back (19 bytes) with the joins: they must not reach the piece
                              that is read behind them */
    JOINED_BYTES = 2 /* of them that are no piece's: spaces beside it */
};
size_t detokenizer_push(struct detokenizer *detokenizer, int32_t id, char *out);
size_t detokenizer_finish(struct detokenizer *detokenizer, char *out);

#endif
