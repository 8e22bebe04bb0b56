#include "names.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "status.h"

#define TOWER "model.vision_tower.vision_tower.vision_model."
#define BLOCK "model.mm_projector.model.mb_block.%d.block."

/* Our pattern -> the published name. `first` is the number that stands for our 0. */
static const struct name {
    const char *ours, *theirs;
    int first;
    bool transposed;
} names[] = {
    {"vision.patch.weight", TOWER "embeddings.patch_embedding.weight", 0, false},
    {"vision.class_embedding", TOWER "embeddings.class_embedding", 0, false},
    {"vision.position", TOWER "embeddings.position_embedding.weight", 0, false},
    {"vision.pre_norm", TOWER "pre_layrnorm", 0, false},
    {"vision.layers.%d.norm1", TOWER "encoder.layers.%d.layer_norm1", 0, false},
    {"vision.layers.%d.norm2", TOWER "encoder.layers.%d.layer_norm2", 0, false},
    {"vision.layers.%d.q", TOWER "encoder.layers.%d.self_attn.q_proj", 0, false},
    {"vision.layers.%d.k", TOWER "encoder.layers.%d.self_attn.k_proj", 0, false},
    {"vision.layers.%d.v", TOWER "encoder.layers.%d.self_attn.v_proj", 0, false},
    {"vision.layers.%d.out", TOWER "encoder.layers.%d.self_attn.out_proj", 0, false},
    {"vision.layers.%d.fc1", TOWER "encoder.layers.%d.mlp.fc1", 0, false},
    {"vision.layers.%d.fc2", TOWER "encoder.layers.%d.mlp.fc2", 0, false},
    {"projector.block.%d.taps", BLOCK "0.0.weight", 1, true},
    {"projector.block.%d.norm1", BLOCK "0.1", 1, false},
    {"projector.block.%d.squeeze", BLOCK "1.fc1", 1, false},
    {"projector.block.%d.excite", BLOCK "1.fc2", 1, false},
    {"projector.block.%d.pointwise", BLOCK "2.0", 1, false},
    {"projector.block.%d.norm2", BLOCK "2.1", 1, false},
    {"projector.peg.taps", "model.mm_projector.peg.peg.0.weight", 0, true},
    {"projector.peg.bias", "model.mm_projector.peg.peg.0.bias", 0, false},
    {"decoder.embedding.weight", "model.embed_tokens.weight", 0, false},
    {"decoder.layers.%d.attention_norm", "model.layers.%d.input_layernorm", 0, false},
    {"decoder.layers.%d.ffn_norm", "model.layers.%d.post_attention_layernorm", 0, false},
    {"decoder.layers.%d.q", "model.layers.%d.self_attn.q_proj", 0, false},
    {"decoder.layers.%d.k", "model.layers.%d.self_attn.k_proj", 0, false},
    {"decoder.layers.%d.v", "model.layers.%d.self_attn.v_proj", 0, false},
    {"decoder.layers.%d.out", "model.layers.%d.self_attn.o_proj", 0, false},
    {"decoder.layers.%d.gate", "model.layers.%d.mlp.gate_proj", 0, false},
    {"decoder.layers.%d.up", "model.layers.%d.mlp.up_proj", 0, false},
    {"decoder.layers.%d.down", "model.layers.%d.mlp.down_proj", 0, false},
    {"decoder.norm", "model.norm", 0, false},
    {"decoder.head.weight", "lm_head.weight", 0, false},
};

/* The row whose pattern is spec's, or spec's without its last word (.weight, .bias), which *tail
 * then is. */
static const struct name *find_row(const char *pattern, const char **tail)
{
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const size_t n = strlen(names[i].ours);
        if (strncmp(pattern, names[i].ours, n) == 0 &&
            (pattern[n] == 0 || strcmp(pattern + n, ".weight") == 0 ||
             strcmp(pattern + n, ".bias") == 0)) {
            *tail = pattern + n;
            return &names[i];
        }
    }
    return NULL;
}

enum { NAME_BYTES = 256 };

static bool published_name(const struct config *config, const struct tensor_spec *spec,
                           char name[NAME_BYTES], bool *transposed)
{
    static const char linear[] = "projector.linear.%d";
    char pattern[NAME_BYTES];
    const char *tail;
    *transposed = false;
    if (strncmp(spec->pattern, linear, sizeof linear - 1) ==
        0) { /* each projector has its own names for these */
        const struct projector_source *p = config->projector;
        snprintf(pattern, sizeof pattern, "%s%s", p->linear_name,
                 spec->pattern + sizeof linear - 1);
        schema_name(name, NAME_BYTES, pattern, p->first + p->step * spec->number);
        return true;
    }
    const struct name *row = find_row(spec->pattern, &tail);
    if (!row)
        return false;
    snprintf(pattern, sizeof pattern, "%s%s", row->theirs, tail);
    schema_name(name, NAME_BYTES, pattern, spec->number + row->first);
    *transposed = row->transposed;
    return true;
}

static const char *shape_text(const struct source_tensor *t, char *text, size_t capacity)
{
    size_t n = 0;
    text[0] = 0;
    for (int i = 0; i < t->n_dims && n < capacity; i++)
        n += (size_t)snprintf(text + n, capacity - n, "%s%lld", i ? " x " : "",
                              (long long)t->shape[i]);
    return text;
}

/* Rows and columns of a tensor of one or more dimensions: the first, and the product of the others.
 */
static bool shape_matches(const struct source_tensor *t, int64_t n_rows, int64_t n_cols)
{
    int64_t columns = 1;
    if (t->n_dims < 1 || t->shape[0] != n_rows)
        return false;
    for (int i = 1; i < t->n_dims; i++)
        if (__builtin_mul_overflow(columns, t->shape[i], &columns))
            return false;
    return columns == n_cols;
}

mvlm_status names_find(struct checkpoint *checkpoint, const struct config *config,
                       const struct tensor_spec *spec, struct source *source, mvlm_error *error)
{
    char name[NAME_BYTES], shape[128];
    if (!published_name(config, spec, name, &source->transposed))
        return fail(error, MVLM_BAD_MODEL, "no published name is known for tensor %s", spec->name);
    const struct source_tensor *t = source->tensor = checkpoint_find(checkpoint, name);
    if (!t)
        return fail(error, MVLM_BAD_MODEL, "tensor %s is missing", name);
    const int64_t rows = source->transposed ? spec->n_cols : spec->n_rows;
    const int64_t columns = source->transposed ? spec->n_rows : spec->n_cols;
    if (!shape_matches(t, rows, columns))
        return fail(error, MVLM_BAD_MODEL, "%s: tensor %s is %s, config.json demands %lld x %lld",
                    checkpoint_file(checkpoint, t), name, shape_text(t, shape, sizeof shape),
                    (long long)rows, (long long)columns);
    if (t->dtype != DTYPE_F32 && t->dtype != DTYPE_F16 && t->dtype != DTYPE_BF16)
        return fail(error, MVLM_BAD_MODEL, "%s: tensor %s is %s, expected f32, f16 or bf16",
                    checkpoint_file(checkpoint, t), name, dtype_name(t->dtype));
    return MVLM_OK;
}

static bool ends_with(const char *text, const char *end)
{
    const size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

/* What published checkpoints carry and the graph never reads. */
static bool never_read(const struct config *config, const char *name)
{
    static const char layers[] = TOWER "encoder.layers.";
    const struct description *d = &config->description;
    if (ends_with(name, ".rotary_emb.inv_freq") ||
        strcmp(name, TOWER "embeddings.position_ids") == 0)
        return true;
    if (d->decoder.tied_head && strcmp(name, "lm_head.weight") == 0)
        return true;
    if (config->projector &&
        strncmp(name, TOWER "post_layernorm.", sizeof TOWER "post_layernorm." - 1) == 0)
        return true;
    if (config->projector && strncmp(name, layers, sizeof layers - 1) == 0) {
        char *end;
        const long layer = strtol(name + sizeof layers - 1, &end, 10);
        return *end == '.' && layer >= d->vision.n_layers && layer < config->tower_layers;
    }
    return false;
}

mvlm_status names_check_leftovers(const struct checkpoint *checkpoint, const struct config *config,
                                  mvlm_error *error)
{
    size_t n = 0;
    char list[600] = "";
    for (size_t i = 0; i < checkpoint_count(checkpoint); i++) {
        const struct source_tensor *t = checkpoint_tensor(checkpoint, i);
        if (t->used || never_read(config, t->name))
            continue;
        const size_t at = strlen(list);
        if (n++ < 4)
            snprintf(list + at, sizeof list - at, "%s%s", at ? ", " : "", t->name);
    }
    if (n)
        return fail(error, MVLM_BAD_MODEL,
                    "%zu tensors of the checkpoint have no place in this model: %s%s", n, list,
                    n > 4 ? ", ..." : "");
    return MVLM_OK;
}
