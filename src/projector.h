/* The projector: patch features [patches, width] -> rows of the decoder's input [tokens, hidden].
 *
 *     all     linear, GELU, linear, ... (n_linear of them)
 *     ldp     then twice: depthwise 3x3 -> norm -> hardswish -> squeeze-excite -> pointwise -> norm;
 *             the first block is added to its input, the second halves the grid
 *     ldpv2   then: mean pooling to a fixed grid; depthwise 3x3 with bias, added to its input
 */
#ifndef SRC_PROJECTOR_H
#define SRC_PROJECTOR_H

#include "arena.h"
#include "compute.h"
#include "model.h"

struct projector_buffers {
    float *a, *b, *c;         /* [patches, hidden] */
    float *pooled, *squeezed; /* [hidden], [squeeze] */
};

void projector_layout(struct projector_buffers *buffers, struct arena *arena,
                      const struct description *description);

/* features -> out[tokens, hidden]. */
void project(struct compute *compute, const struct mvlm_model *model,
             struct projector_buffers *buffers, const float *features, float *out);

#endif
