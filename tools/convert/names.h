/* Which tensor of the checkpoint becomes which of ours. */
#ifndef CONVERT_NAMES_H
#define CONVERT_NAMES_H

#include "schema.h"
#include "checkpoint.h"
#include "config.h"
#include "lora.h"

struct source {
    const struct source_tensor *tensor;
    bool transposed; /* [n_cols, ..] in the checkpoint: depthwise taps, a channel after the other */
    int64_t first_row, all_rows;   /* where our rows begin in it, and how many it has */
    struct checkpoint *checkpoint; /* that it lies in */
    struct lora_pair lora;         /* what an adapter adds to it */
};

/* Where tensors are looked for. */
struct places {
    struct checkpoint *checkpoint;
    struct lora *lora; /* an adapter, whose replacements come first; NULL: none */
};

/* The published tensor for `spec`, its shape checked. MVLM_BAD_MODEL names it when it is missing
 * or of another shape. */
mvlm_status names_find(const struct places *places, const struct config *config,
                       const struct tensor_spec *spec, struct source *source, mvlm_error *error);

/* After all specs were found: refuses what is left over, by name, unless it is known that the graph
 * never reads it. */
mvlm_status names_check_leftovers(const struct checkpoint *checkpoint, const struct config *config,
                                  mvlm_error *error);

#endif
