/* A LoRA adapter's folder: what it adds to a checkpoint's matrices, and what it puts in the place of others. */
#ifndef CONVERT_LORA_H
#define CONVERT_LORA_H

#include "checkpoint.h"

struct lora;

/* Opens folder/adapter_model.bin or .safetensors, with adapter_config.json, and non_lora_trainables.bin where it is
 * there. Keys are checkpoint names behind "base_model.model.". MVLM_BAD_MODEL. */
mvlm_status lora_open(const char *folder, struct lora **lora, mvlm_error *error);
void lora_close(struct lora *lora);

/* What the adapter has for a tensor of the checkpoint: W + scale B A, all three as they are stored. */
struct lora_pair {
    const struct source_tensor *a, *b; /* [rank, n_cols], [n_rows, rank]; NULL: nothing is added */
};

/* The pair for the checkpoint's tensor, whose shape it must fit. MVLM_BAD_MODEL. */
mvlm_status lora_find(struct lora *lora, const struct source_tensor *tensor, struct lora_pair *pair,
                      mvlm_error *error);

/* rows[n_rows][n_cols] += scale B A, of rows [first, first + n_rows) of the tensor. From any thread. */
mvlm_status lora_add(const struct lora *lora, const struct lora_pair *pair, size_t first,
                     size_t n_rows, size_t n_cols, float *rows, mvlm_error *error);

/* The checkpoint of the tensors that stand in the place of others, under the others' names behind
 * LORA_PREFIX; NULL: none do. */
#define LORA_PREFIX "base_model.model."
struct checkpoint *lora_replacements(struct lora *lora);

/* After all tensors were looked for: refuses what was not, by name, but for wrappers of the vision tower, which
 * training left untouched; *n_ignored is their number. MVLM_BAD_MODEL. */
mvlm_status lora_check_leftovers(const struct lora *lora, size_t *n_ignored, mvlm_error *error);

#endif
