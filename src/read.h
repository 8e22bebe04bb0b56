/* Ids and pictures into a sequence's cache, and the logits of what follows. */
#ifndef SRC_READ_H
#define SRC_READ_H

#include "session.h"

/* Called with logits [n_rows, vocab], in the session's decoder.logits, of the rows from `first` on of
 * the sequence. */
typedef mvlm_status (*logits_fn)(struct mvlm_session *s, size_t first, size_t n_rows, void *user,
                                 mvlm_error *error);

/* Reads ids (MVLM_IMAGE_ID: the next of the sequence's pictures that the cache does not hold) behind
 * what the cache holds, and holds them then. With `each`, the logits of every row are handed to it; in
 * any case the last row's are left in q->logits. `n_total` positions are in the cache when this is
 * done. With `alone` the ids' rows attend each to itself alone. MVLM_CANCELLED and MVLM_NO_MEMORY: the cache holds what it held. */
mvlm_status read_ids(struct mvlm_session *s, struct sequence *q, const int32_t *ids, size_t n_ids,
                     bool alone, size_t n_total, logits_fn each, void *user, mvlm_error *error);

/* Reads the sequence's prompt: of a cache that is kept, what it does not hold already; with `each`
 * all of it. */
mvlm_status read_prompt(struct mvlm_session *s, struct sequence *q, logits_fn each, void *user,
                        mvlm_error *error);

/* Reads the pending ids of these sequences' answers, together, so that their logits tell of the ids
 * after them. */
mvlm_status read_pending(struct mvlm_session *s, struct sequence *sequences, size_t n,
                         mvlm_error *error);

#endif
