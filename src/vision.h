/* The vision tower: pixels -> patch features. One graph for CLIP (and SigLIP) by the description:
 *
 *     pixels [3, side, side] -> patches [n, 3 p p] -> patch layer
 *     -> [class token] + position -> [norm]
 *     -> n_layers x { x += out(attention(norm1 x)); x += fc2(activation(fc1(norm2 x))) }
 *     -> features [n, width]
 */
#ifndef SRC_VISION_H
#define SRC_VISION_H

#include "arena.h"
#include "compute.h"
#include "kv_cache.h"
#include "model.h"

struct vision_buffers {
    float *patches; /* [patches, 3 p p] */
    /* rows lie row_stride of their width apart */
    float *x, *normed;    /* [rows, width] */
    float *q, *k, *v;     /* [rows, width] */
    void *inner;          /* [rows, ffn], of linear_precision; there is room for floats */
    struct kv_cache keys; /* of one layer */
};

/* Takes the buffers from the arena (or measures them). Keys and values of a layer are kept in `type`:
 * f32 or q8. */
void vision_layout(struct vision_buffers *buffers, struct arena *arena,
                   const struct description *description, enum tensor_type type);

/* pixels -> *features, [patches, width] within the buffers. MVLM_CANCELLED. */
mvlm_status vision_encode(struct compute *compute, const struct mvlm_model *model,
                          struct vision_buffers *buffers, const float *pixels,
                          const float **features, mvlm_error *error);

#endif
