/* Source: PEFT's LoRA, and MobileVLM's scripts/mergelora.py. */
#include "lora.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "json_file.h"
#include "source_file.h"
#include "status.h"
#include "text.h"

struct lora {
    struct checkpoint *adapter, *other; /* `other` may be NULL */
    int64_t rank;
    double scale;
};

static const char config_name[] = "adapter_config.json", bin[] = "adapter_model.bin",
                  safetensors[] = "adapter_model.safetensors",
                  other_name[] = "non_lora_trainables.bin";

/* ---- Configuration ---------------------------------------------------------------------- */

static mvlm_status refuse(const char *key, mvlm_error *error)
{
    return fail(error, MVLM_BAD_MODEL, "%s: \"%s\" is not supported", config_name, key);
}

/* Is the value one that changes nothing? */
static bool is_empty(const json_t *value)
{
    return !value || json_is_null(value) || json_is_false(value) ||
           (json_is_object(value) && json_object_size(value) == 0) ||
           (json_is_array(value) && json_array_size(value) == 0);
}

/* Adapters that began as a part of the base's own matrices belong to what was left of them. */
static mvlm_status check_start(const json_t *json, mvlm_error *error)
{
    static const char key[] = "init_lora_weights";
    static const char *const known[] = {"gaussian", "eva", "orthogonal"};
    const json_t *value = json_object_get(json, key);
    const char *name = json_string_value(value);
    if (!value || json_is_null(value) || json_is_boolean(value))
        return MVLM_OK;
    for (size_t i = 0; name && i < sizeof known / sizeof *known; i++)
        if (strcmp(known[i], name) == 0)
            return MVLM_OK;
    return fail(error, MVLM_BAD_MODEL, "%s: \"%s\" \"%.40s\" is not supported", config_name, key,
                name ? name : "");
}

static mvlm_status use_config(struct lora *lora, const json_t *json, mvlm_error *error)
{
    static const char *const unset[] = {"lora_bias",
                                        "trainable_token_indices",
                                        "alora_invocation_tokens",
                                        "fan_in_fan_out",
                                        "use_dora",
                                        "use_rslora",
                                        "rank_pattern",
                                        "alpha_pattern",
                                        "modules_to_save",
                                        "layer_replication"};
    const char *type, *bias;
    double alpha;
    TRY(json_text_field(config_name, json, "peft_type", "", &type, error));
    if (strcmp(type, "LORA") != 0)
        return fail(error, MVLM_BAD_MODEL, "%s: peft_type \"%.40s\" is not supported, only LORA",
                    config_name, type);
    TRY(json_text_field(config_name, json, "bias", "none", &bias, error));
    if (strcmp(bias, "none") != 0)
        return refuse("bias", error);
    for (size_t i = 0; i < sizeof unset / sizeof *unset; i++)
        if (!is_empty(json_object_get(json, unset[i])))
            return refuse(unset[i], error);
    TRY(check_start(json, error));
    TRY(json_integer_field(config_name, json, "r", 1, 65536, NULL, &lora->rank, error));
    TRY(json_number_field(config_name, json, "lora_alpha", 0.0, &alpha, error));
    if (!(alpha > 0))
        return fail(error, MVLM_BAD_MODEL, "%s: \"lora_alpha\" is missing, or not above 0",
                    config_name);
    lora->scale = alpha / (double)lora->rank;
    return MVLM_OK;
}

static mvlm_status read_config(const char *folder, struct lora *lora, mvlm_error *error)
{
    json_t *json;
    TRY(json_file_load(folder, config_name, false, &json, error));
    const mvlm_status status = use_config(lora, json, error);
    json_decref(json);
    return status;
}

/* ---- Opening ---------------------------------------------------------------------------- */

static mvlm_status open_files(const char *folder, struct lora *lora, mvlm_error *error)
{
    const bool has_bin = source_file_exists(folder, bin),
               has_safetensors = source_file_exists(folder, safetensors);
    TRY(read_config(folder, lora, error));
    if (has_bin && has_safetensors)
        return fail(error, MVLM_BAD_MODEL, "%s: holds both %s and %s: which one counts?", folder,
                    bin, safetensors);
    TRY(checkpoint_open_file(folder, has_safetensors ? safetensors : bin, &lora->adapter, error));
    if (source_file_exists(folder, other_name))
        TRY(checkpoint_open_file(folder, other_name, &lora->other, error));
    return MVLM_OK;
}

mvlm_status lora_open(const char *folder, struct lora **out, mvlm_error *error)
{
    *out = NULL;
    struct lora *lora = calloc(1, sizeof *lora);
    if (!lora)
        return fail_no_memory(error, "the adapter", sizeof *lora);
    const mvlm_status status = open_files(folder, lora, error);
    if (status == MVLM_OK)
        *out = lora;
    else
        lora_close(lora);
    return status;
}

void lora_close(struct lora *lora)
{
    if (!lora)
        return;
    checkpoint_close(lora->adapter);
    checkpoint_close(lora->other);
    free(lora);
}

struct checkpoint *lora_replacements(struct lora *lora)
{
    return lora ? lora->other : NULL;
}

/* Training wraps layers by the ends of their names, and so the tower's too, whose wrappers it throws away. */
static bool is_of_tower(const char *name)
{
    return strstr(name, ".vision_tower.");
}

/* ---- Merging ---------------------------------------------------------------------------- */

static mvlm_status bad_pair(const struct lora *lora, const struct source_tensor *tensor,
                            const struct lora_pair *pair, mvlm_error *error)
{
    const struct source_tensor *t = pair->a ? pair->a : pair->b;
    if (!pair->a || !pair->b)
        return fail(error, MVLM_BAD_MODEL, "%s: tensor %s has no other half",
                    checkpoint_file(lora->adapter, t), t->name);
    return fail(error, MVLM_BAD_MODEL,
                "%s: tensor %s: A and B of rank %lld do not fit %lld x %lld, as the checkpoint has "
                "it",
                checkpoint_file(lora->adapter, t), t->name, (long long)lora->rank,
                (long long)tensor->shape[0], (long long)tensor->shape[1]);
}

static bool is_matrix(const struct source_tensor *t, int64_t n_rows, int64_t n_cols)
{
    return t->n_dims == 2 && t->shape[0] == n_rows && t->shape[1] == n_cols &&
           (t->dtype == DTYPE_F32 || t->dtype == DTYPE_F16 || t->dtype == DTYPE_BF16);
}

mvlm_status lora_find(struct lora *lora, const struct source_tensor *tensor, struct lora_pair *pair,
                      mvlm_error *error)
{
    static const char weight[] = ".weight";
    char name[512];
    *pair = (struct lora_pair){NULL, NULL};
    if (!lora || is_of_tower(tensor->name) || !ends_with(tensor->name, weight))
        return MVLM_OK;
    const int length = (int)(strlen(tensor->name) - strlen(weight));
    snprintf(name, sizeof name, LORA_PREFIX "%.*s.lora_A.weight", length, tensor->name);
    pair->a = checkpoint_find(lora->adapter, name);
    snprintf(name, sizeof name, LORA_PREFIX "%.*s.lora_B.weight", length, tensor->name);
    pair->b = checkpoint_find(lora->adapter, name);
    if (!pair->a && !pair->b)
        return MVLM_OK;
    const bool fits = pair->a && pair->b && tensor->n_dims == 2 &&
                      is_matrix(pair->a, lora->rank, tensor->shape[1]) &&
                      is_matrix(pair->b, tensor->shape[0], lora->rank);
    return fits ? MVLM_OK : bad_pair(lora, tensor, pair, error);
}

mvlm_status lora_add(const struct lora *lora, const struct lora_pair *pair, size_t first,
                     size_t n_rows, size_t n_cols, float *rows, mvlm_error *error)
{
    const size_t rank = (size_t)lora->rank;
    const float scale = (float)lora->scale;
    float *a = malloc((rank * n_cols + n_rows * rank + n_cols) * sizeof *a);
    if (!a)
        return fail_no_memory(error, pair->a->name, rank * n_cols * sizeof *a);
    float *b = a + rank * n_cols, *sum = b + n_rows * rank;
    mvlm_status status = checkpoint_read(lora->adapter, pair->a, 0, (int64_t)rank, a, error);
    if (status == MVLM_OK)
        status = checkpoint_read(lora->adapter, pair->b, (int64_t)first, (int64_t)n_rows, b, error);
    for (size_t r = 0; r < n_rows && status == MVLM_OK; r++) {
        memset(sum, 0, n_cols * sizeof *sum);
        for (size_t k = 0; k < rank; k++)
            for (size_t i = 0; i < n_cols; i++)
                sum[i] += b[r * rank + k] * a[k * n_cols + i];
        for (size_t i = 0; i < n_cols; i++)
            rows[r * n_cols + i] += scale * sum[i];
    }
    free(a);
    return status;
}

/* ---- Leftovers -------------------------------------------------------------------------- */

/* A wrapper of the tower that was trained after all would be lost: its B is not zero. */
static mvlm_status check_untrained(const struct lora *lora, const struct source_tensor *t,
                                   mvlm_error *error)
{
    if (!strstr(t->name, ".lora_B.") || t->n_dims != 2 || !is_matrix(t, t->shape[0], t->shape[1]))
        return MVLM_OK;
    const size_t n = (size_t)t->shape[0] * (size_t)t->shape[1];
    float *values = malloc(n * sizeof *values);
    if (!values)
        return fail_no_memory(error, t->name, n * sizeof *values);
    mvlm_status status = checkpoint_read(lora->adapter, t, 0, t->shape[0], values, error);
    for (size_t i = 0; i < n && status == MVLM_OK; i++)
        if (values[i] != 0)
            status = fail(error, MVLM_BAD_MODEL,
                          "%s: tensor %s: an adapter of the vision tower is not supported",
                          checkpoint_file(lora->adapter, t), t->name);
    free(values);
    return status;
}

mvlm_status lora_check_leftovers(const struct lora *lora, size_t *n_ignored, mvlm_error *error)
{
    *n_ignored = 0;
    for (size_t i = 0; lora && i < checkpoint_count(lora->adapter); i++) {
        const struct source_tensor *t = checkpoint_tensor(lora->adapter, i);
        if (!t->used && !(is_of_tower(t->name) && strstr(t->name, ".lora_")))
            return fail(error, MVLM_BAD_MODEL, "%s: tensor %s has no place in this model",
                        checkpoint_file(lora->adapter, t), t->name);
        if (!t->used)
            TRY(check_untrained(lora, t, error));
        *n_ignored += !t->used;
    }
    for (size_t i = 0; lora && lora->other && i < checkpoint_count(lora->other); i++) {
        const struct source_tensor *t = checkpoint_tensor(lora->other, i);
        if (!t->used)
            return fail(error, MVLM_BAD_MODEL, "%s: tensor %s has no place in this model",
                        checkpoint_file(lora->other, t), t->name);
    }
    return MVLM_OK;
}
