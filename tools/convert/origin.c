#include "origin.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "random_model.h"
#include "source_file.h"
#include "status.h"
#include "text.h"

static mvlm_status list_specs(struct origin *origin, mvlm_error *error)
{
    const struct description *description = &origin->config.description;
    origin->n = schema_list(description, NULL);
    origin->specs = calloc(origin->n, sizeof *origin->specs);
    origin->sources = calloc(origin->n, sizeof *origin->sources);
    if (!origin->specs || !origin->sources)
        return fail_no_memory(error, "the list of tensors", origin->n * sizeof *origin->specs);
    schema_list(description, origin->specs);
    return MVLM_OK;
}

/* ---- Checkpoint ------------------------------------------------------------------------- */

/* Depthwise taps lie a channel after the other, [n_cols][all rows]. */
static mvlm_status read_transposed(const struct origin *origin, size_t index, size_t first,
                                   size_t n_rows, float *out, mvlm_error *error)
{
    const size_t all = (size_t)origin->specs[index].n_rows,
                 n_cols = (size_t)origin->specs[index].n_cols;
    float *values = malloc(all * n_cols * sizeof *values);
    if (!values)
        return fail_no_memory(error, origin->specs[index].name, all * n_cols * sizeof *values);
    const mvlm_status status =
        checkpoint_read(origin->sources[index].checkpoint, origin->sources[index].tensor, 0,
                        (int64_t)n_cols, values, error);
    for (size_t r = 0; r < n_rows && status == MVLM_OK; r++)
        for (size_t i = 0; i < n_cols; i++)
            out[r * n_cols + i] = values[i * all + first + r];
    free(values);
    return status;
}

static mvlm_status read_checkpoint(const struct origin *origin, size_t index, size_t first,
                                   size_t n_rows, float *out, mvlm_error *error)
{
    const struct source *source = &origin->sources[index];
    if (source->transposed)
        return read_transposed(origin, index, first, n_rows, out, error);
    const size_t from = (size_t)source->first_row + first;
    TRY(checkpoint_read(source->checkpoint, source->tensor, (int64_t)from, (int64_t)n_rows, out,
                        error));
    if (!source->lora.a)
        return MVLM_OK;
    return lora_add(origin->places.lora, &source->lora, from, n_rows,
                    (size_t)origin->specs[index].n_cols, out, error);
}

/* Rows of the tower's position embeddings; 0: there are none. */
static int64_t tower_positions(const struct checkpoint *checkpoint)
{
    for (size_t i = 0; i < checkpoint_count(checkpoint); i++) {
        const struct source_tensor *t = checkpoint_tensor(checkpoint, i);
        if (ends_with(t->name, "vision_model.embeddings.position_embedding.weight") &&
            t->n_dims == 2 && t->shape[0] <= 1 << 20)
            return t->shape[0];
    }
    return 0;
}

mvlm_status origin_open_checkpoint(const char *folder, const char *lora,
                                   const struct config_changes *changes, struct origin *origin,
                                   mvlm_error *error)
{
    /* as the published merging does, an adapter's own config.json counts where it has one */
    const bool own_config = lora && source_file_exists(lora, "config.json");
    struct config_changes own = *changes;
    *origin = (struct origin){.read = read_checkpoint};
    TRY(checkpoint_open(folder, &origin->places.checkpoint, error));
    own.tower_positions = tower_positions(origin->places.checkpoint);
    if (lora)
        TRY(lora_open(lora, &origin->places.lora, error));
    TRY(vocabulary_open(folder, &origin->tokenizer, error));
    TRY(config_open(own_config ? lora : folder, folder, &origin->tokenizer, &own, &origin->config,
                    error));
    TRY(list_specs(origin, error));
    for (size_t i = 0; i < origin->n; i++)
        TRY(names_find(&origin->places, &origin->config, &origin->specs[i], &origin->sources[i],
                       error));
    TRY(names_check_leftovers(origin->places.checkpoint, &origin->config, error));
    return lora_check_leftovers(origin->places.lora, &origin->n_ignored, error);
}

/* ---- Random numbers --------------------------------------------------------------------- */

static mvlm_status read_random(const struct origin *origin, size_t index, size_t first,
                               size_t n_rows, float *out, mvlm_error *error)
{
    (void)error;
    random_rows(&origin->specs[index], origin->seed, first, n_rows, out);
    return MVLM_OK;
}

mvlm_status origin_open_random(const char *name, uint64_t seed,
                               const struct config_changes *changes, struct origin *origin,
                               mvlm_error *error)
{
    *origin = (struct origin){.read = read_random, .seed = seed};
    TRY(random_model_open(name, &origin->tokenizer, changes, &origin->config, error));
    return list_specs(origin, error);
}

/* ---- Both ------------------------------------------------------------------------------- */

void origin_close(struct origin *origin)
{
    free(origin->specs);
    free(origin->sources);
    config_close(&origin->config);
    vocabulary_close(&origin->tokenizer);
    checkpoint_close(origin->places.checkpoint);
    lora_close(origin->places.lora);
    memset(origin, 0, sizeof *origin);
}

const char *origin_name(const struct origin *origin, size_t index, char text[ORIGIN_NAME_BYTES])
{
    const struct source *source = &origin->sources[index];
    if (source->tensor)
        snprintf(text, ORIGIN_NAME_BYTES, "%s: tensor %s",
                 checkpoint_file(source->checkpoint, source->tensor), source->tensor->name);
    else
        snprintf(text, ORIGIN_NAME_BYTES, "tensor %s", origin->specs[index].name);
    return text;
}
