#include "names.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "status.h"
#include "text.h"

#define TOWER_NAME "vision_tower.vision_tower.vision_model."
#define TOWER      "model." TOWER_NAME
#define LAYER      "model.layers.%d."
#define OLD        "transformer.h.%d." /* the first releases of Imp */
#define BLOCK      "model.mm_projector.model.mb_block.%d.block."

/* Which rows of a published matrix are ours, where several stand one above the other. */
enum slice { WHOLE, OF_QKV_Q, OF_QKV_K, OF_QKV_V, OF_GATE_UP_GATE, OF_GATE_UP_UP };

/* Our pattern -> the published name; where there are several, the first that the checkpoint has. `first` is the number
 * that stands for our 0. */
static const struct name {
    const char *ours, *theirs;
    int first;
    bool transposed;
    enum slice slice;
} names[] = {
    {"vision.patch.weight", TOWER "embeddings.patch_embedding.weight", 0, false, WHOLE},
    {"vision.patch.bias", TOWER "embeddings.patch_embedding.bias", 0, false, WHOLE},
    {"vision.class_embedding", TOWER "embeddings.class_embedding", 0, false, WHOLE},
    {"vision.position", TOWER "embeddings.position_embedding.weight", 0, false, WHOLE},
    {"vision.pre_norm", TOWER "pre_layrnorm", 0, false, WHOLE},
    {"vision.layers.%d.norm1", TOWER "encoder.layers.%d.layer_norm1", 0, false, WHOLE},
    {"vision.layers.%d.norm2", TOWER "encoder.layers.%d.layer_norm2", 0, false, WHOLE},
    {"vision.layers.%d.q", TOWER "encoder.layers.%d.self_attn.q_proj", 0, false, WHOLE},
    {"vision.layers.%d.k", TOWER "encoder.layers.%d.self_attn.k_proj", 0, false, WHOLE},
    {"vision.layers.%d.v", TOWER "encoder.layers.%d.self_attn.v_proj", 0, false, WHOLE},
    {"vision.layers.%d.out", TOWER "encoder.layers.%d.self_attn.out_proj", 0, false, WHOLE},
    {"vision.layers.%d.fc1", TOWER "encoder.layers.%d.mlp.fc1", 0, false, WHOLE},
    {"vision.layers.%d.fc2", TOWER "encoder.layers.%d.mlp.fc2", 0, false, WHOLE},
    {"projector.block.%d.taps", BLOCK "0.0.weight", 1, true, WHOLE},
    {"projector.block.%d.norm1", BLOCK "0.1", 1, false, WHOLE},
    {"projector.block.%d.squeeze", BLOCK "1.fc1", 1, false, WHOLE},
    {"projector.block.%d.excite", BLOCK "1.fc2", 1, false, WHOLE},
    {"projector.block.%d.pointwise", BLOCK "2.0", 1, false, WHOLE},
    {"projector.block.%d.norm2", BLOCK "2.1", 1, false, WHOLE},
    {"projector.peg.taps", "model.mm_projector.peg.peg.0.weight", 0, true, WHOLE},
    {"projector.peg.bias", "model.mm_projector.peg.peg.0.bias", 0, false, WHOLE},
    {"decoder.embedding.weight", "model.embed_tokens.weight", 0, false, WHOLE},
    {"decoder.embedding.weight", "transformer.embd.wte.weight", 0, false, WHOLE},
    {"decoder.layers.%d.attention_norm", LAYER "input_layernorm", 0, false, WHOLE},
    {"decoder.layers.%d.attention_norm", OLD "ln", 0, false, WHOLE},
    {"decoder.layers.%d.ffn_norm", LAYER "post_attention_layernorm", 0, false, WHOLE},
    {"decoder.layers.%d.q", LAYER "self_attn.q_proj", 0, false, WHOLE},
    {"decoder.layers.%d.q", LAYER "self_attn.qkv_proj", 0, false, OF_QKV_Q},
    {"decoder.layers.%d.q", OLD "mixer.Wqkv", 0, false, OF_QKV_Q},
    {"decoder.layers.%d.k", LAYER "self_attn.k_proj", 0, false, WHOLE},
    {"decoder.layers.%d.k", LAYER "self_attn.qkv_proj", 0, false, OF_QKV_K},
    {"decoder.layers.%d.k", OLD "mixer.Wqkv", 0, false, OF_QKV_K},
    {"decoder.layers.%d.v", LAYER "self_attn.v_proj", 0, false, WHOLE},
    {"decoder.layers.%d.v", LAYER "self_attn.qkv_proj", 0, false, OF_QKV_V},
    {"decoder.layers.%d.v", OLD "mixer.Wqkv", 0, false, OF_QKV_V},
    {"decoder.layers.%d.out", LAYER "self_attn.o_proj", 0, false, WHOLE},
    {"decoder.layers.%d.out", LAYER "self_attn.dense", 0, false, WHOLE},
    {"decoder.layers.%d.out", OLD "mixer.out_proj", 0, false, WHOLE},
    {"decoder.layers.%d.gate", LAYER "mlp.gate_proj", 0, false, WHOLE},
    {"decoder.layers.%d.gate", LAYER "mlp.gate_up_proj", 0, false, OF_GATE_UP_GATE},
    {"decoder.layers.%d.up", LAYER "mlp.up_proj", 0, false, WHOLE},
    {"decoder.layers.%d.up", LAYER "mlp.gate_up_proj", 0, false, OF_GATE_UP_UP},
    {"decoder.layers.%d.up", LAYER "mlp.fc1", 0, false, WHOLE},
    {"decoder.layers.%d.up", OLD "mlp.fc1", 0, false, WHOLE},
    {"decoder.layers.%d.down", LAYER "mlp.down_proj", 0, false, WHOLE},
    {"decoder.layers.%d.down", LAYER "mlp.fc2", 0, false, WHOLE},
    {"decoder.layers.%d.down", OLD "mlp.fc2", 0, false, WHOLE},
    {"decoder.norm", "model.norm", 0, false, WHOLE},
    {"decoder.norm", "model.final_layernorm", 0, false, WHOLE},
    {"decoder.norm", "lm_head.ln", 0, false, WHOLE},
    {"decoder.head", "lm_head", 0, false, WHOLE},
    {"decoder.head", "lm_head.linear", 0, false, WHOLE},
};

/* Is the row's pattern spec's, or spec's without its last word (.weight, .bias), which *tail then is? */
static bool row_fits(const struct name *row, const char *pattern, const char **tail)
{
    const size_t n = strlen(row->ours);
    *tail = pattern + n;
    return strncmp(pattern, row->ours, n) == 0 &&
           (pattern[n] == 0 || strcmp(pattern + n, ".weight") == 0 ||
            strcmp(pattern + n, ".bias") == 0);
}

enum { NAME_BYTES = 256 };
static const char old_prefix[] = "transformer.", new_prefix[] = "model.";

/* The tensor of exactly that name: an adapter's, which stands in the place of the checkpoint's, or the checkpoint's. */
static void find_exactly(const struct places *places, const char *name, struct source *source)
{
    char replaced[NAME_BYTES + sizeof LORA_PREFIX + sizeof old_prefix];
    struct checkpoint *other = lora_replacements(places->lora);
    source->checkpoint = places->checkpoint;
    source->tensor = checkpoint_find(places->checkpoint, name);
    if (!other)
        return;
    snprintf(replaced, sizeof replaced, LORA_PREFIX "%s", name);
    const struct source_tensor *t = checkpoint_find(other, replaced);
    if (t) {
        source->checkpoint = other;
        source->tensor = t;
    }
}

/* The tensor of that name, or of its name in the first releases of Imp. */
static void find_named(const struct places *places, const char *name, struct source *source)
{
    char old[NAME_BYTES + sizeof old_prefix];
    const size_t n = sizeof new_prefix - 1;
    find_exactly(places, name, source);
    if (source->tensor || strncmp(name, new_prefix, n) != 0)
        return;
    snprintf(old, sizeof old, "%s%s", old_prefix, name + n);
    find_exactly(places, old, source);
}

/* Looks for spec's tensor by the pattern of a published name; `name` is left as the first that was looked for. */
static void look_for(const struct places *places, const char *theirs, const char *tail, int number,
                     char name[NAME_BYTES], struct source *source)
{
    char pattern[NAME_BYTES], candidate[NAME_BYTES];
    snprintf(pattern, sizeof pattern, "%s%s", theirs, tail);
    schema_name(candidate, sizeof candidate, pattern, number);
    if (!*name)
        strcpy(name, candidate);
    find_named(places, candidate, source);
}

/* Where our rows begin in the published matrix, and how many that has. */
static void place_slice(const struct description *d, enum slice slice, int64_t n_rows,
                        struct source *source)
{
    const int64_t q = d->decoder.n_heads * d->decoder.head_dim,
                  kv = d->decoder.n_kv_heads * d->decoder.head_dim, ffn = d->decoder.ffn;
    const struct {
        int64_t first, all;
    } slices[] = {[WHOLE] = {0, n_rows},
                  [OF_QKV_Q] = {0, q + 2 * kv},
                  [OF_QKV_K] = {q, q + 2 * kv},
                  [OF_QKV_V] = {q + kv, q + 2 * kv},
                  [OF_GATE_UP_GATE] = {0, 2 * ffn},
                  [OF_GATE_UP_UP] = {ffn, 2 * ffn}};
    source->first_row = slices[slice].first;
    source->all_rows = slices[slice].all;
}

/* Finds the published tensor; source->tensor is NULL when there is none, and `name` what it would be called. */
static void find_source(const struct places *places, const struct config *config,
                        const struct tensor_spec *spec, char name[NAME_BYTES],
                        struct source *source)
{
    static const char linear[] = "projector.linear.%d";
    const struct projector_source *p = config->projector;
    const char *tail;
    *name = 0;
    *source = (struct source){.all_rows = spec->n_rows};
    if (strncmp(spec->pattern, linear, sizeof linear - 1) == 0) {
        /* each projector has its own names for these */
        look_for(places, p->linear_name, spec->pattern + sizeof linear - 1,
                 p->first + p->step * spec->number, name, source);
        return;
    }
    for (size_t i = 0; i < sizeof names / sizeof *names && !source->tensor; i++)
        if (row_fits(&names[i], spec->pattern, &tail)) {
            look_for(places, names[i].theirs, tail, spec->number + names[i].first, name, source);
            source->transposed = names[i].transposed;
            place_slice(&config->description, names[i].slice, spec->n_rows, source);
        }
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

mvlm_status names_find(const struct places *places, const struct config *config,
                       const struct tensor_spec *spec, struct source *source, mvlm_error *error)
{
    char name[NAME_BYTES], shape[128];
    find_source(places, config, spec, name, source);
    const struct source_tensor *t = source->tensor;
    const struct checkpoint *checkpoint = source->checkpoint;
    if (!t)
        return fail(error, MVLM_BAD_MODEL, "tensor %s is missing", *name ? name : spec->name);
    const int64_t rows = source->transposed ? spec->n_cols : source->all_rows;
    const int64_t columns = source->transposed ? spec->n_rows : spec->n_cols;
    if (!shape_matches(t, rows, columns))
        return fail(error, MVLM_BAD_MODEL, "%s: tensor %s is %s, config.json demands %lld x %lld",
                    checkpoint_file(checkpoint, t), t->name, shape_text(t, shape, sizeof shape),
                    (long long)rows, (long long)columns);
    if (t->dtype != DTYPE_F32 && t->dtype != DTYPE_F16 && t->dtype != DTYPE_BF16)
        return fail(error, MVLM_BAD_MODEL, "%s: tensor %s is %s, expected f32, f16 or bf16",
                    checkpoint_file(checkpoint, t), t->name, dtype_name(t->dtype));
    return lora_find(places->lora, t, &source->lora, error);
}

/* What stands behind `prefix` in the name; NULL: it does not begin so. */
static const char *behind(const char *name, const char *prefix)
{
    const size_t n = strlen(prefix);
    return strncmp(name, prefix, n) == 0 ? name + n : NULL;
}

/* Of a tower, by its name behind "model." or "transformer.". */
static bool tower_never_reads(const struct config *config, const char *name)
{
    const char *layers = behind(name, TOWER_NAME "encoder.layers.");
    if (behind(name, TOWER_NAME "post_layernorm.") || behind(name, TOWER_NAME "head."))
        return true;
    if (!layers)
        return strcmp(name, TOWER_NAME "embeddings.position_ids") == 0;
    char *end;
    const long layer = strtol(layers, &end, 10);
    return *end == '.' && layer >= config->description.vision.n_layers &&
           layer < config->tower_layers;
}

/* What published checkpoints carry and the graph never reads. */
static bool never_read(const struct config *config, const char *name)
{
    const char *rest = behind(name, new_prefix);
    if (!rest)
        rest = behind(name, old_prefix);
    if (ends_with(name, ".rotary_emb.inv_freq"))
        return true;
    if (config->description.decoder.tied_head && strcmp(name, "lm_head.weight") == 0)
        return true;
    return config->projector && rest && tower_never_reads(config, rest);
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
