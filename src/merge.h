/* Byte-pair merging, which both kinds of tokenizer end in: of all neighbours that may become one the best
 * pair does, the leftmost of equals, until none may. */
#ifndef SRC_MERGE_H
#define SRC_MERGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mobilevlm.h"

/* A run of the text; merged symbols grow to the right, and swallowed ones have no bytes. */
struct symbol {
    int32_t previous, next; /* -1: none */
    uint32_t start, n_bytes;
    int32_t id;  /* whatever the caller's match function says it is */
    bool frozen; /* it is never merged */
};

/* What two neighbours would become. */
struct match {
    float score; /* the largest is merged first */
    int32_t id;  /* of the merged symbol */
};

/* May these two neighbours become one? */
typedef bool (*match_fn)(void *user, const struct symbol *left, const struct symbol *right,
                         struct match *match);

/* Two neighbours that may become one. */
struct pair {
    struct match match;
    int32_t left, right;
    uint32_t n_bytes; /* of both, to recognise a pair that is no longer there */
};

struct merger {
    match_fn match;
    void *user;
    struct symbol *symbols; /* [capacity], for the caller to fill in, without previous and next */
    struct pair *heap; /* best first; room for three pairs a symbol: one at the start and two for
                          each merge */
    size_t n_heap, capacity;
};

/* Makes room for n symbols; what symbols there were are lost. MVLM_NO_MEMORY. */
mvlm_status merger_reserve(struct merger *merger, size_t n, mvlm_error *error);

/* Merges the first n symbols, which follow each other in the text: symbol 0 and those behind it by
 * `next` are what is left. */
void merge(struct merger *merger, size_t n);

void merger_close(struct merger *merger);

#endif
