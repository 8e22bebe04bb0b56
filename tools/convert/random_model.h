/* Models of a published shape with random weights, for benchmarks where no checkpoint is at hand:
 * nothing is read. */
#ifndef CONVERT_RANDOM_MODEL_H
#define CONVERT_RANDOM_MODEL_H

#include "schema.h"
#include "config.h"
#include "vocabulary.h"

/* The description that the published config.json of `name` ("v2-1.7b") gives, and a vocabulary of
 * its size whose words are made up, so that prompts become bytes. MVLM_USAGE for an unknown name,
 * with a list of the known ones. Both are for the caller to close, on errors too. */
mvlm_status random_model_open(const char *name, struct vocabulary *tokenizer,
                              const struct config_changes *changes, struct config *config,
                              mvlm_error *error);

/* Rows [first, first + n_rows) of a tensor: every value is a function of the seed, the tensor's
 * name and its place in the tensor alone. Norm weights are 1; a matrix of n inputs has the
 * deviation 1 / sqrt(n), so that activations keep their size; all others are small. */
void random_rows(const struct tensor_spec *spec, uint64_t seed, size_t first, size_t n_rows,
                 float *out);

#endif
