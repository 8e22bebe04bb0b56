/* The decoder: rows of embeddings -> logits. prefill(n) and step(1) are the same graph:
 *
 *     x [n, hidden] -> n_layers x { x += out(attention(rope(q), cache <- rope(k), v))
 *                                   x += down(activation(gate) up) }
 *     -> norm -> head -> logits [n, vocab]
 *
 * Each of the two reads a norm of x. In a parallel block both read the same one, of the block's input; a plain MLP has no
 * gate: down(activation(up)). With composite attention a picture's rows attend each to itself alone, so that what
 * attention gives them is their own v, and no q is computed for them.
 */
#ifndef SRC_DECODER_H
#define SRC_DECODER_H

#include "arena.h"
#include "compute.h"
#include "kv_cache.h"
#include "model.h"

struct decoder_buffers {
    /* rows lie row_stride of their width apart */
    float *x, *normed; /* [rows, hidden] */
    float *q, *mixed;  /* [rows, n_heads x head_dim] */
    float *k, *v;      /* [rows, n_kv_heads x head_dim] */
    void *inner;       /* [rows, ffn], of linear_precision; there is room for floats */
    bool *alone;       /* [rows]: which of x's rows attend to themselves alone; set by the caller */
    float *logits;     /* [logit_rows, vocab] */
    size_t logit_rows;
};

/* Rotary tables: cosines and sines of the angles of the first n_positions positions. */
struct rope_tables {
    float *cosine, *sine; /* [capacity, rope_dims / 2] */
    size_t n_positions;
};

/* Rows that follow each other in one sequence: positions first, first + 1, ... of its cache. */
struct span {
    const struct kv_cache *cache;
    size_t first, n_rows;
};

/* Takes buffers for `n_rows` at once and logits of `logit_rows` at once. */
void decoder_layout(struct decoder_buffers *buffers, struct arena *arena,
                    const struct description *description, size_t n_rows, size_t logit_rows);

/* Takes tables for `capacity` positions, none of which is filled. */
void rope_layout(struct rope_tables *rope, struct arena *arena,
                 const struct description *description, size_t capacity);

/* Fills the tables up to n_positions. */
void rope_fill(struct rope_tables *rope, const struct description *description, size_t n_positions);

/* Reads embeddings, which the caller has put into buffers->x one span behind the other. Afterwards
 * buffers->x holds what the layers made of them: of all rows, or with `last_only`, of one span only,
 * of the last one (in the first row's place), because nobody reads the others' last layer. What
 * becomes of a row does not depend on the rows that are read with it. MVLM_CANCELLED. `stage` and the
 * n_total rows that it has in all are for whoever watches the progress. */
mvlm_status decoder_read(struct compute *compute, const struct mvlm_model *model,
                         struct decoder_buffers *buffers, const struct rope_tables *rope,
                         const struct span *spans, size_t n_spans, bool last_only,
                         const char *stage, size_t n_total, mvlm_error *error);

/* buffers->logits [n_rows, vocab] of the rows from `first` on of buffers->x; n_rows is at most
 * logit_rows. */
void decoder_logits(struct compute *compute, const struct mvlm_model *model,
                    struct decoder_buffers *buffers, size_t first, size_t n_rows);

#endif
