/* Logits -> id: greedy, or drawn after repeat penalty, top-k, top-p, min-p and temperature, in this
 * order. */
#ifndef SRC_SAMPLER_H
#define SRC_SAMPLER_H

#include "arena.h"
#include "compute.h"
#include "mobilevlm.h"

enum { PENALTY_WINDOW = 64 }; /* ids that the repeat penalty looks back on, as in llama.cpp */

struct candidate {
    float logit;
    int32_t id;
};

struct sampler {
    mvlm_sampling options;
    uint64_t random; /* state of splitmix64 */
    size_t n_ids;    /* ids from here on are never chosen: no piece stands for them */
    int32_t recent[PENALTY_WINDOW];
    size_t n_recent;              /* ids seen in all; recent[i % PENALTY_WINDOW] */
    struct candidate *candidates; /* [n_ids] */
    float *weights;               /* [n_ids] */
};

/* Takes the sampler's memory from the arena (or measures it). */
void sampler_layout(struct sampler *sampler, struct arena *arena, size_t n_ids);

/* Has `sampler` draw in the memory of another one. */
void sampler_share(struct sampler *sampler, const struct sampler *other);

/* Starts over with these options; fails with MVLM_USAGE when one is out of range. */
mvlm_status sampler_start(struct sampler *sampler, const mvlm_sampling *options, mvlm_error *error);

/* Notes an id of the prompt or of the answer. */
void sampler_note(struct sampler *sampler, int32_t id);

/* log softmax(logits)[id], in double precision. */
double log_probability(const float *logits, size_t n, int32_t id);

/* The next id. `logits` [vocab] are changed by the penalty. */
int32_t sampler_choose(struct sampler *sampler, const struct kernels *kernels, float *logits);

#endif
