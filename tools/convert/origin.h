/* Where a model's numbers come from: a checkpoint folder, or a generator of random ones. */
#ifndef CONVERT_ORIGIN_H
#define CONVERT_ORIGIN_H

#include "schema.h"
#include "checkpoint.h"
#include "config.h"
#include "names.h"
#include "vocabulary.h"

struct origin {
    struct vocabulary tokenizer;
    struct config config;
    struct tensor_spec *specs; /* [n]: what the description demands */
    size_t n;
    /* Rows [first, first + n_rows) of tensor `index` as f32 in C order. May be called from several
     * threads at once. */
    mvlm_status (*read)(const struct origin *origin, size_t index, size_t first, size_t n_rows,
                        float *out, mvlm_error *error);
    struct places places;   /* all NULL: random */
    struct source *sources; /* [n], of the checkpoint */
    uint64_t seed;          /* of the random numbers */
    size_t
        n_ignored; /* of an adapter's tensors: wrappers of the vision tower, which training left as they were */
};

/* The folder's description, tokenizer and tensors, each found and checked; with an adapter's folder `lora`, unless
 * that is NULL, merged into them. `changes` are made to the description. MVLM_BAD_MODEL. */
mvlm_status origin_open_checkpoint(const char *folder, const char *lora,
                                   const struct config_changes *changes, struct origin *origin,
                                   mvlm_error *error);

/* A model of random numbers, random_model.h. MVLM_USAGE when the name is unknown. */
mvlm_status origin_open_random(const char *name, uint64_t seed,
                               const struct config_changes *changes, struct origin *origin,
                               mvlm_error *error);
void origin_close(struct origin *origin);

/* What a message calls tensor `index`: "file: tensor name". */
enum { ORIGIN_NAME_BYTES = 400 };
const char *origin_name(const struct origin *origin, size_t index, char text[ORIGIN_NAME_BYTES]);

#endif
