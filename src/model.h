/* An opened model: its description, its tensors bound to typed places, its tokenizer, its kernels.
 */
#ifndef SRC_MODEL_H
#define SRC_MODEL_H

#include "description.h"
#include "schema.h"
#include "tokenizer.h"
#include "weights.h"

struct mvlm_model {
    struct weights weights;
    struct description description;
    struct image_recipe recipe; /* where the model takes pictures */
    struct parameters parameters;
    struct tokenizer *tokenizer;
    const struct kernels *kernels;
    size_t n_fields;
    size_t most_inputs; /* of a linear layer */
    /* bytes that computing with a section reads: all but tables, of which only a few rows are */
    uint64_t section_bytes[SECTION_COUNT];
};

/* The type of the decoder's matrices, which "auto" key/value caches follow. */
enum tensor_type model_matrix_type(const struct mvlm_model *model);

#endif
