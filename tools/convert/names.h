/* Which tensor of the checkpoint becomes which of ours. */
#ifndef CONVERT_NAMES_H
#define CONVERT_NAMES_H

#include "schema.h"
#include "checkpoint.h"
#include "config.h"

struct source {
    const struct source_tensor *tensor;
    bool transposed; /* [n_cols, ..] in the checkpoint: depthwise taps, a channel after the other */
};

/* The checkpoint's tensor for `spec`, its shape checked. MVLM_BAD_MODEL names it when it is missing
 * or of another shape. */
mvlm_status names_find(struct checkpoint *checkpoint, const struct config *config,
                       const struct tensor_spec *spec, struct source *source, mvlm_error *error);

/* After all specs were found: refuses what is left over, by name, unless it is known that the graph
 * never reads it. */
mvlm_status names_check_leftovers(const struct checkpoint *checkpoint, const struct config *config,
                                  mvlm_error *error);

#endif
