#include "config.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "status.h"
#include "config_parts.h"
#include "json_file.h"
#include "side_files.h"
#include "tokenizer.h"

static const char file[] = CONFIG_FILE;

/* ---- Decoder ---------------------------------------------------------------------------- */

static mvlm_status read_family(struct config *c, mvlm_error *error)
{
    const char *type;
    TRY(json_text_field(file, c->json, "model_type", "", &type, error));
    c->family = find_family(type);
    return c->family ? MVLM_OK
                     : fail(error, MVLM_BAD_MODEL,
                            "%s: model_type \"%.60s\" is not supported (those of MobileVLM, LLaMA, "
                            "Imp, Phi-2, Qwen2 and Phi-3 are)",
                            file, type);
}

/* Phi-2's first releases count their width so. */
static bool is_first_release(const struct config *c)
{
    return c->family->norm == NORM_LAYER && json_is_integer(json_object_get(c->json, "n_embd"));
}

/* Phi-2's first releases call some fields otherwise. (Not so the other families: MobileVLM's 3B checkpoints carry an
 * n_head, left over from their training code, that is wrong.) */
static mvlm_status rename_fields(const struct config *c, mvlm_error *error)
{
    static const struct {
        const char *old, *name;
    } names[] = {{"n_embd", "hidden_size"},
                 {"n_inner", "intermediate_size"},
                 {"n_layer", "num_hidden_layers"},
                 {"n_head", "num_attention_heads"},
                 {"n_head_kv", "num_key_value_heads"},
                 {"n_positions", "max_position_embeddings"},
                 {"activation_function", "hidden_act"},
                 {"layer_norm_epsilon", "layer_norm_eps"}};
    int64_t width;
    if (!is_first_release(c))
        return MVLM_OK;
    TRY(json_integer_field(file, c->json, "n_embd", 1, 65536, NULL, &width, error));
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        json_t *value = json_object_get(c->json, names[i].old);
        if (value && !json_is_null(value) && !json_object_get(c->json, names[i].name) &&
            json_object_set(c->json, names[i].name, value) != 0)
            return fail_no_memory(error, file, 0);
    }
    if (!json_object_get(c->json, "intermediate_size") &&
        json_object_set_new(c->json, "intermediate_size", json_integer(4 * width)) != 0)
        return fail_no_memory(error, file, 0);
    return MVLM_OK;
}

/* What would need attention or layers that this program does not have. */
static mvlm_status refuse_variants(const json_t *json, mvlm_error *error)
{
    static const char *const experts[] = {"num_experts", "num_local_experts", "n_routed_experts",
                                          "num_experts_per_tok"};
    for (size_t i = 0; i < sizeof experts / sizeof *experts; i++) {
        const json_t *value = json_object_get(json, experts[i]);
        const bool none = !value || json_is_null(value) || json_is_false(value) ||
                          (json_is_integer(value) && json_integer_value(value) == 0);
        if (!none)
            return fail(error, MVLM_BAD_MODEL, "%s: a mixture of experts (\"%s\") is not supported",
                        file, experts[i]);
    }
    TRY(config_demand_false(json, "use_sliding_window", error));
    TRY(config_demand_false(json, "qk_layernorm", error));
    TRY(config_demand_false(json, "attention_bias", error));
    return config_demand_false(json, "mlp_bias", error);
}

/* The kind of scaling in `rope`: "type" as the published checkpoints write it, "rope_type" as newer ones do. */
static mvlm_status read_rope_type(const char *key, const json_t *rope, const char **type,
                                  mvlm_error *error)
{
    const char *newer;
    TRY(json_text_field(file, rope, "type", "", type, error));
    TRY(json_text_field(file, rope, "rope_type", *type, &newer, error));
    if (**type && strcmp(*type, newer) != 0)
        return fail(error, MVLM_BAD_MODEL, "%s: %s: type \"%.40s\", but rope_type \"%.40s\"", file,
                    key, *type, newer);
    *type = *newer ? newer : strcmp(key, "rope_parameters") == 0 ? "default" : "";
    return MVLM_OK;
}

/* rope_scaling, or what later releases write in its place, rope_parameters: null, none, or linear by a factor. */
static mvlm_status read_rope_object(const char *key, const json_t *rope, struct description *d,
                                    double *partial, mvlm_error *error)
{
    const char *type;
    double *scale = &d->decoder.rope_scale;
    if (!rope || json_is_null(rope))
        return MVLM_OK;
    if (!json_is_object(rope))
        return fail(error, MVLM_BAD_MODEL, "%s: \"%s\" is no object", file, key);
    TRY(read_rope_type(key, rope, &type, error));
    TRY(json_number_field(file, rope, "rope_theta", d->decoder.rope_theta, &d->decoder.rope_theta,
                          error));
    TRY(json_number_field(file, rope, "partial_rotary_factor", *partial, partial, error));
    if (strcmp(type, "default") == 0)
        return MVLM_OK;
    if (strcmp(type, "linear") != 0)
        return fail(error, MVLM_BAD_MODEL, "%s: %s \"%.60s\" is not supported, only linear", file,
                    key, type);
    TRY(json_number_field(file, rope, "factor", 0.0, scale, error));
    if (!(*scale >= 1e-3 && *scale <= 1e3))
        return fail(error, MVLM_BAD_MODEL, "%s: %s: \"factor\" %g is out of range", file, key,
                    *scale);
    return MVLM_OK;
}

/* How many of a head's values are rotated: all, or a share of them. */
static mvlm_status read_rope_dims(const struct config *c, double partial, struct description *d,
                                  mvlm_error *error)
{
    if (!(partial > 0 && partial <= 1))
        return fail(error, MVLM_BAD_MODEL, "%s: \"partial_rotary_factor\" %g is not within 0 to 1",
                    file, partial);
    int64_t dims = (int64_t)(partial * (double)d->decoder.head_dim);
    if (is_first_release(c)) {
        const int64_t given = dims, none = 0;
        const bool known = json_object_get(c->json, "partial_rotary_factor");
        TRY(json_integer_field(file, c->json, "rotary_dim", 0, d->decoder.head_dim,
                               known ? &given : &none, &dims, error));
    }
    if (dims % 2 || dims == 0)
        return fail(
            error, MVLM_BAD_MODEL,
            "%s: \"partial_rotary_factor\" %g rotates %lld of a head's %lld values: they are "
            "rotated in pairs",
            file, partial, (long long)dims, (long long)d->decoder.head_dim);
    d->decoder.rope_dims = dims;
    return MVLM_OK;
}

static mvlm_status read_rope(const struct config *c, struct description *d, mvlm_error *error)
{
    const json_t *json = c->json;
    double partial;
    d->decoder.rope_scale = 1.0;
    TRY(json_number_field(file, json, "rope_theta", 1e4, &d->decoder.rope_theta, error));
    TRY(json_number_field(file, json, "partial_rotary_factor", c->family->partial_rotary_factor,
                          &partial, error));
    TRY(read_rope_object("rope_scaling", json_object_get(json, "rope_scaling"), d, &partial,
                         error));
    TRY(read_rope_object("rope_parameters", json_object_get(json, "rope_parameters"), d, &partial,
                         error));
    return read_rope_dims(c, partial, d, error);
}

/* The fields that a family has by itself. */
static void take_family(const struct family *family, struct description *d)
{
    d->decoder.norm = family->norm;
    d->decoder.parallel_block = family->parallel_block;
    d->decoder.plain_ffn = family->plain_ffn;
    d->decoder.qkv_bias = family->qkv_bias;
    d->decoder.out_bias = family->out_bias;
    d->decoder.ffn_bias = family->ffn_bias;
    d->decoder.head_bias = family->head_bias;
}

/* Positions that it was trained for; where attention looks back no further than a window, not more than that has. */
static mvlm_status read_context(struct config *c, int64_t *context, mvlm_error *error)
{
    const json_t *json = c->json;
    const int64_t fallback = 2048, none = 0;
    TRY(json_integer_field(file, json, "max_position_embeddings", 1, 1048576, &fallback, context,
                           error));
    /* Qwen2 names a window that use_sliding_window, which must be false, turns on */
    if (json_object_get(json, "use_sliding_window"))
        return MVLM_OK;
    TRY(json_integer_field(file, json, "sliding_window", 0, 1048576, &none, &c->window, error));
    if (c->window > 0 && c->window < *context)
        *context = c->window;
    return MVLM_OK;
}

static mvlm_status read_decoder(struct config *c, mvlm_error *error)
{
    const json_t *json = c->json;
    struct description *d = &c->description;
    const struct family *family = c->family;
    const char *activation;
    bool tied;
    TRY(rename_fields(c, error));
    TRY(refuse_variants(json, error));
    take_family(family, d);
    if (json_object_get(json, "quantization_config"))
        return fail(error, MVLM_BAD_MODEL,
                    "%s: a checkpoint that is quantized already (\"quantization_config\") is not "
                    "supported",
                    file);
    TRY(json_integer_field(file, json, "hidden_size", 1, 65536, NULL, &d->decoder.hidden, error));
    TRY(json_integer_field(file, json, "intermediate_size", 1, 262144, NULL, &d->decoder.ffn,
                           error));
    TRY(json_integer_field(file, json, "num_hidden_layers", 1, 1024, NULL, &d->decoder.n_layers,
                           error));
    TRY(json_integer_field(file, json, "num_attention_heads", 1, 1024, NULL, &d->decoder.n_heads,
                           error));
    TRY(json_integer_field(file, json, "num_key_value_heads", 1, 1024, &d->decoder.n_heads,
                           &d->decoder.n_kv_heads, error));
    const int64_t head_dim = d->decoder.hidden / d->decoder.n_heads;
    if (!json_is_integer(json_object_get(json, "head_dim")) &&
        d->decoder.hidden % d->decoder.n_heads)
        return fail(error, MVLM_BAD_MODEL,
                    "%s: hidden_size %lld is no multiple of num_attention_heads %lld", file,
                    (long long)d->decoder.hidden, (long long)d->decoder.n_heads);
    TRY(json_integer_field(file, json, "head_dim", 2, 1024, &head_dim, &d->decoder.head_dim,
                           error));
    TRY(json_integer_field(file, json, "vocab_size", 1, 4194304, NULL, &d->decoder.vocab, error));
    TRY(read_context(c, &d->decoder.context, error));
    TRY(json_number_field(file, json, family->eps_key, family->norm_eps, &d->decoder.norm_eps,
                          error));
    TRY(read_rope(c, d, error));
    TRY(json_text_field(file, json, "hidden_act", family->activation, &activation, error));
    TRY(config_activation("hidden_act", activation, &d->decoder.activation, error));
    TRY(json_bool_field(file, json, "tie_word_embeddings", false, &tied, error));
    d->decoder.tied_head = tied;
    return MVLM_OK;
}

/* The template's own end of an answer ends it too, if it is a piece and not known to do so. */
static mvlm_status add_stop(const struct vocabulary *tokenizer, const char *stop,
                            struct number_list *stops, mvlm_error *error)
{
    const int64_t id = vocabulary_find(tokenizer, stop);
    for (size_t i = 0; i < stops->n; i++)
        if (stops->value[i] == (double)id)
            return MVLM_OK;
    if (id < 0 || (tokenizer->pieces[id].type != PIECE_CONTROL &&
                   tokenizer->pieces[id].type != PIECE_USER_DEFINED))
        return MVLM_OK;
    if (stops->n == MAX_STOP_IDS)
        return fail(error, MVLM_BAD_MODEL, "%s: more than %d end tokens", file, MAX_STOP_IDS);
    stops->value[stops->n++] = (double)id;
    return MVLM_OK;
}

static mvlm_status read_template(struct config *c, const struct vocabulary *tokenizer,
                                 mvlm_error *error)
{
    const char *name;
    TRY(json_text_field(file, c->json, "conv_mode", c->projector ? c->family->conv_mode : NULL,
                        &name, error));
    if (!name)
        return MVLM_OK; /* a text-only model without a template is a base model */
    const struct prompt_template *t = find_template(name);
    if (!t)
        return fail(error, MVLM_BAD_MODEL, "%s: conv_mode \"%.60s\" is not supported", file, name);
    c->description.prompt = t->texts;
    return add_stop(tokenizer, t->stop, &c->description.tokenizer.stop_ids, error);
}

/* ---- The whole -------------------------------------------------------------------------- */

/* The folder's last name. */
static char *base_name(const char *folder)
{
    size_t end = strlen(folder);
    while (end > 1 && folder[end - 1] == '/')
        end--;
    size_t begin = end;
    while (begin > 0 && folder[begin - 1] != '/')
        begin--;
    return strndup(folder + begin, end - begin);
}

static mvlm_status make_changes(struct config *c, mvlm_error *error)
{
    const struct config_changes *changes = &c->changes;
    struct description *d = &c->description;
    if (changes->composite_attention && !takes_pictures(d))
        return fail(error, MVLM_USAGE, "--attention composite, but the model takes no pictures");
    if (changes->composite_attention)
        d->decoder.composite_attention = 1;
    if (changes->rope_scale > 0 && c->window)
        return fail(
            error, MVLM_USAGE,
            "--rope-scale, but attention looks back no further than a window of %lld, which "
            "this program does not have",
            (long long)c->window);
    if (changes->rope_scale > 0) {
        const double context =
            (double)d->decoder.context * changes->rope_scale / d->decoder.rope_scale;
        d->decoder.rope_scale = changes->rope_scale;
        d->decoder.context = context < 1 ? 1 : context < 1048576 ? (int64_t)context : 1048576;
    }
    return MVLM_OK;
}

/* config->json and the files of `folder`, which may be NULL: none. */
static mvlm_status read_all(const char *folder, const struct vocabulary *tokenizer,
                            struct config *c, mvlm_error *error)
{
    static const char *const picture_keys[] = {"mm_vision_tower", "mm_projector_type",
                                               "vision_config"};
    bool pictures = false;
    c->description.name = c->name;
    TRY(read_family(c, error));
    TRY(read_decoder(c, error));
    for (size_t i = 0; i < sizeof picture_keys / sizeof *picture_keys; i++)
        pictures = pictures || json_object_get(c->json, picture_keys[i]);
    if (pictures)
        TRY(config_pictures(c, error));
    if (tokenizer->n_pieces > (size_t)c->description.decoder.vocab)
        return fail(error, MVLM_BAD_MODEL,
                    "%s: \"vocab_size\" %lld is less than the tokenizer's %zu pieces", file,
                    (long long)c->description.decoder.vocab, tokenizer->n_pieces);
    c->description.tokenizer = tokenizer->settings;
    TRY(read_side_files(folder, c->json, &c->description, error));
    TRY(read_template(c, tokenizer, error));
    TRY(make_changes(c, error));
    return description_check(file, &c->description, error);
}

/* Takes `name` and `json` over, and closes what was read when something is wrong. */
static mvlm_status open_as(char *name, json_t *json, const char *folder,
                           const struct vocabulary *tokenizer, const struct config_changes *changes,
                           struct config *config, mvlm_error *error)
{
    *config = (struct config){.json = json, .name = name, .changes = *changes};
    const mvlm_status status = name && json ? read_all(folder, tokenizer, config, error)
                                            : fail_no_memory(error, "the description", 0);
    if (status != MVLM_OK)
        config_close(config);
    return status;
}

mvlm_status config_open(const char *config_folder, const char *folder,
                        const struct vocabulary *tokenizer, const struct config_changes *changes,
                        struct config *config, mvlm_error *error)
{
    json_t *json;
    memset(config, 0, sizeof *config);
    TRY(json_file_load(config_folder, file, false, &json, error));
    return open_as(base_name(folder), json, folder, tokenizer, changes, config, error);
}

mvlm_status config_open_json(json_t *json, const char *name, const struct vocabulary *tokenizer,
                             const struct config_changes *changes, struct config *config,
                             mvlm_error *error)
{
    return open_as(strdup(name), json, NULL, tokenizer, changes, config, error);
}

void config_close(struct config *config)
{
    json_decref(config->json);
    free(config->name);
    memset(config, 0, sizeof *config);
}
