#include "config.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "status.h"
#include "json_file.h"
#include "side_files.h"

static const char file[] = "config.json";

/* ---- Tables ----------------------------------------------------------------------------- */

/* Model types whose decoder is LLaMA's. */
static const char *const llama_types[] = {"mobilevlm", "mobilellama", "mobile_llama", "llama",
                                          NULL};

/* Names of activations in config.json. */
static const struct {
    const char *name;
    enum activation activation;
} activations[] = {
    {"silu", ACTIVATION_SILU},
    {"swish", ACTIVATION_SILU},
    {"quick_gelu", ACTIVATION_QUICK_GELU},
    {"gelu", ACTIVATION_GELU},
    {"gelu_new", ACTIVATION_GELU_TANH},
    {"gelu_pytorch_tanh", ACTIVATION_GELU_TANH},
    {"relu", ACTIVATION_RELU},
};

static const struct projector_source projectors[] = {
    {"ldpnet", PROJECTOR_LDP, 2, "model.mm_projector.model.mlp.%d", 1, 2},
    {"ldpnetv2", PROJECTOR_LDPV2, 2, "model.mm_projector.mlp.mlp.%d", 0, 2},
    {"linear", PROJECTOR_MLP, 1, "model.mm_projector", 0, 0},
    {"mlpx_gelu", PROJECTOR_MLP, 0, "model.mm_projector.%d", 0, 2},
};

/* Conversation templates, by conv_mode. */
static const struct prompt_template {
    const char *name;
    struct prompt_texts texts;
} templates[] = {
    {"v1",
     {1, "",
      "A chat between a curious user and an artificial intelligence assistant. "
      "The assistant gives helpful, detailed, and polite answers to the user's questions.",
      " ", "USER: ", " ASSISTANT:", " ", "</s>"}},
    /* our own: a small model's prompt without the sentence that it would read each time */
    {"short", {1, "", "", "", "USER: ", " ASSISTANT:", " ", "</s>"}},
};

/* The tower that the published checkpoints name but do not describe:
 * openai/clip-vit-large-patch14-336. */
static const char clip_name[] = "clip-vit-large-patch14-336";
static const int64_t clip_size = 336, clip_patch = 14, clip_width = 1024, clip_ffn = 4096,
                     clip_layers = 24, clip_heads = 16;

/* CLIP's image processor: mean and deviation of red, green and blue; padding is the mean, cut to
 * whole numbers. */
static const double clip_mean[] = {0.48145466, 0.4578275, 0.40821073};
static const double clip_std[] = {0.26862954, 0.26130258, 0.27577711};

/* ---- Pieces ----------------------------------------------------------------------------- */

static mvlm_status find_activation(const char *key, const char *name, int64_t *activation,
                                   mvlm_error *error)
{
    for (size_t i = 0; i < sizeof activations / sizeof *activations; i++)
        if (strcmp(activations[i].name, name) == 0) {
            *activation = activations[i].activation;
            return MVLM_OK;
        }
    return fail(error, MVLM_BAD_MODEL, "%s: %s \"%.60s\" is not supported", file, key, name);
}

/* A field that must have one value (or be absent), because anything else would need what this
 * program does not do. */
static mvlm_status demand_false(const json_t *json, const char *key, mvlm_error *error)
{
    bool value;
    TRY(json_bool_field(file, json, key, false, &value, error));
    return value ? fail(error, MVLM_BAD_MODEL, "%s: \"%s\": true is not supported", file, key)
                 : MVLM_OK;
}

static mvlm_status demand_text(const json_t *json, const char *key, const char *demanded,
                               mvlm_error *error)
{
    const char *value;
    TRY(json_text_field(file, json, key, demanded, &value, error));
    if (strcmp(value, demanded) != 0)
        return fail(error, MVLM_BAD_MODEL, "%s: \"%s\" \"%.60s\" is not supported, only \"%s\"",
                    file, key, value, demanded);
    return MVLM_OK;
}

static mvlm_status check_model_type(const json_t *json, mvlm_error *error)
{
    const char *type;
    TRY(json_text_field(file, json, "model_type", "", &type, error));
    for (size_t i = 0; llama_types[i]; i++)
        if (strcmp(type, llama_types[i]) == 0)
            return MVLM_OK;
    return fail(error, MVLM_BAD_MODEL,
                "%s: model_type \"%.60s\" is not supported (mobilevlm and llama are)", file, type);
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
                                    mvlm_error *error)
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

static mvlm_status read_rope(const json_t *json, struct description *d, mvlm_error *error)
{
    double partial;
    d->decoder.rope_scale = 1.0;
    TRY(json_number_field(file, json, "rope_theta", 1e4, &d->decoder.rope_theta, error));
    TRY(read_rope_object("rope_scaling", json_object_get(json, "rope_scaling"), d, error));
    TRY(read_rope_object("rope_parameters", json_object_get(json, "rope_parameters"), d, error));
    TRY(json_number_field(file, json, "partial_rotary_factor", 1.0, &partial, error));
    if (partial != 1.0)
        return fail(error, MVLM_BAD_MODEL, "%s: \"partial_rotary_factor\" %g is not supported",
                    file, partial);
    d->decoder.rope_dims = d->decoder.head_dim;
    return MVLM_OK;
}

static mvlm_status read_decoder(struct config *c, mvlm_error *error)
{
    const json_t *json = c->json;
    struct description *d = &c->description;
    const int64_t context = 2048;
    const char *activation;
    bool tied;
    TRY(demand_false(json, "attention_bias", error));
    TRY(demand_false(json, "mlp_bias", error));
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
    /* never n_head: the 3B checkpoints carry one, left over from their training code, that is wrong
     */
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
    TRY(json_integer_field(file, json, "max_position_embeddings", 1, 1048576, &context,
                           &d->decoder.context, error));
    TRY(json_number_field(file, json, "rms_norm_eps", 1e-6, &d->decoder.norm_eps, error));
    TRY(read_rope(json, d, error));
    TRY(json_text_field(file, json, "hidden_act", "silu", &activation, error));
    TRY(find_activation("hidden_act", activation, &d->decoder.activation, error));
    TRY(json_bool_field(file, json, "tie_word_embeddings", false, &tied, error));
    d->decoder.tied_head = tied;
    return MVLM_OK;
}

static mvlm_status read_tower(struct config *c, mvlm_error *error)
{
    const json_t *tower = json_object_get(c->json, "vision_config");
    struct description *d = &c->description;
    const bool given = tower && !json_is_null(tower);
    const char *activation, *name;
    if (given && !json_is_object(tower))
        return fail(error, MVLM_BAD_MODEL, "%s: \"vision_config\" is no object", file);
    tower = given ? tower : NULL;
    TRY(json_text_field(file, c->json, "mm_vision_tower", clip_name, &name, error));
    if (!given && !strstr(name, clip_name))
        return fail(error, MVLM_BAD_MODEL,
                    "%s: nothing is known of the tower \"%.80s\" without a \"vision_config\"", file,
                    name);
    TRY(json_integer_field(file, tower, "image_size", 1, 4096, given ? NULL : &clip_size,
                           &d->image.size, error));
    TRY(json_integer_field(file, tower, "patch_size", 1, 1024, given ? NULL : &clip_patch,
                           &d->vision.patch_size, error));
    TRY(json_integer_field(file, tower, "hidden_size", 1, 65536, given ? NULL : &clip_width,
                           &d->vision.width, error));
    TRY(json_integer_field(file, tower, "intermediate_size", 1, 262144, given ? NULL : &clip_ffn,
                           &d->vision.ffn, error));
    TRY(json_integer_field(file, tower, "num_hidden_layers", 1, 1024, given ? NULL : &clip_layers,
                           &c->tower_layers, error));
    TRY(json_integer_field(file, tower, "num_attention_heads", 1, 1024, given ? NULL : &clip_heads,
                           &d->vision.n_heads, error));
    TRY(json_number_field(file, tower, "layer_norm_eps", 1e-5, &d->vision.norm_eps, error));
    TRY(json_text_field(file, tower, "hidden_act", "quick_gelu", &activation, error));
    TRY(find_activation("vision_config: hidden_act", activation, &d->vision.activation, error));
    d->vision.class_token = d->vision.pre_norm = 1;
    return MVLM_OK;
}

/* mm_vision_select_layer counts hidden states: 0 is before the first layer, -1 after the last. */
static mvlm_status read_selection(struct config *c, mvlm_error *error)
{
    const int64_t last_but_one = -2;
    int64_t selected, width;
    TRY(demand_text(c->json, "mm_vision_select_feature", "patch", error));
    TRY(json_integer_field(file, c->json, "mm_vision_select_layer", -c->tower_layers - 1,
                           c->tower_layers, &last_but_one, &selected, error));
    c->description.vision.n_layers = selected < 0 ? c->tower_layers + 1 + selected : selected;
    TRY(json_integer_field(file, c->json, "mm_hidden_size", 1, 65536, &c->description.vision.width,
                           &width, error));
    if (width != c->description.vision.width)
        return fail(error, MVLM_BAD_MODEL,
                    "%s: \"mm_hidden_size\" %lld, but the tower is %lld wide", file,
                    (long long)width, (long long)c->description.vision.width);
    return MVLM_OK;
}

static mvlm_status read_image(struct config *c, mvlm_error *error)
{
    struct description *d = &c->description;
    const char *ratio;
    TRY(json_text_field(file, c->json, "image_aspect_ratio", "square", &ratio, error));
    if (strcmp(ratio, "pad") != 0 && strcmp(ratio, "square") != 0)
        return fail(error, MVLM_BAD_MODEL,
                    "%s: image_aspect_ratio \"%.60s\" is not supported (pad and square are)", file,
                    ratio);
    /* whatever is not padded goes through CLIP's own processor, which resizes the shortest edge and
     * cuts the centre */
    d->image.fit = strcmp(ratio, "pad") == 0 ? IMAGE_PAD : IMAGE_CROP;
    d->image.pad_colour.n = d->image.mean.n = d->image.std.n = 3;
    for (int channel = 0; channel < 3; channel++) {
        d->image.mean.value[channel] = clip_mean[channel];
        d->image.std.value[channel] = clip_std[channel];
        d->image.pad_colour.value[channel] = floor(clip_mean[channel] * 255);
    }
    return MVLM_OK;
}

/* The source whose type is `type`; *n_linear gets the number in mlpNx_gelu. */
static const struct projector_source *find_projector(const char *type, int64_t *n_linear)
{
    char plain[32];
    char *after;
    *n_linear = 0;
    snprintf(plain, sizeof plain, "%s", type);
    if (strncmp(type, "mlp", 3) == 0 && strchr("123456789", type[3])) {
        *n_linear = strtol(type + 3, &after, 10);
        snprintf(plain, sizeof plain, "mlp%s", after);
    }
    for (size_t i = 0; i < sizeof projectors / sizeof *projectors; i++)
        if (strcmp(projectors[i].type, plain) == 0 &&
            (projectors[i].n_linear != 0) == (*n_linear == 0))
            return &projectors[i];
    return NULL;
}

static mvlm_status read_projector(struct config *c, mvlm_error *error)
{
    struct description *d = &c->description;
    const char *type;
    int64_t number;
    TRY(json_text_field(file, c->json, "mm_projector_type", "ldpnet", &type, error));
    c->projector = find_projector(type, &number);
    if (!c->projector || number > MAX_LINEAR)
        return fail(error, MVLM_BAD_MODEL,
                    "%s: mm_projector_type \"%.60s\" is not supported (ldpnet, ldpnetv2, linear "
                    "and mlp1x_gelu to "
                    "mlp%dx_gelu are)",
                    file, type, MAX_LINEAR);
    d->projector.kind = c->projector->kind;
    d->projector.n_linear = number ? number : c->projector->n_linear;
    /* the reference pools to 12 x 12 whatever the tower's grid; mm_projector_grid is our own */
    const int64_t published_grid = 12;
    if (d->projector.kind == PROJECTOR_LDPV2)
        TRY(json_integer_field(file, c->json, "mm_projector_grid", 1, 256, &published_grid,
                               &d->projector.grid, error));
    if (d->projector.kind == PROJECTOR_LDP) {
        d->projector.norm_eps = 1e-5;
        /* torchvision's _make_divisible(hidden / 4, 8): the nearest multiple of 8, never under 90 %
         */
        const int64_t quarter = d->decoder.hidden / 4;
        int64_t squeeze = (quarter + 4) / 8 * 8;
        squeeze = squeeze < 8 ? 8 : squeeze;
        d->projector.squeeze = squeeze * 10 < quarter * 9 ? squeeze + 8 : squeeze;
    }
    return MVLM_OK;
}

static mvlm_status read_pictures(struct config *c, mvlm_error *error)
{
    TRY(demand_text(c->json, "vision_tower_type", "clip", error));
    TRY(demand_false(c->json, "mm_use_im_start_end", error));
    TRY(read_tower(c, error));
    TRY(read_selection(c, error));
    TRY(read_image(c, error));
    return read_projector(c, error);
}

static mvlm_status read_template(struct config *c, mvlm_error *error)
{
    struct description *d = &c->description;
    const char *name;
    TRY(json_text_field(file, c->json, "conv_mode", c->projector ? "v1" : NULL, &name, error));
    if (!name)
        return MVLM_OK; /* a text-only model without a template is a base model */
    for (size_t i = 0; i < sizeof templates / sizeof *templates; i++)
        if (strcmp(templates[i].name, name) == 0) {
            d->prompt = templates[i].texts;
            return MVLM_OK;
        }
    return fail(error, MVLM_BAD_MODEL, "%s: conv_mode \"%.60s\" is not supported", file, name);
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

/* config->json and the files of `folder`, which may be NULL: none. */
static mvlm_status read_all(const char *folder, const struct sentencepiece *tokenizer,
                            struct config *c, mvlm_error *error)
{
    static const char *const picture_keys[] = {"mm_vision_tower", "mm_projector_type",
                                               "vision_config"};
    bool pictures = false;
    c->description.name = c->name;
    TRY(check_model_type(c->json, error));
    TRY(read_decoder(c, error));
    for (size_t i = 0; i < sizeof picture_keys / sizeof *picture_keys; i++)
        pictures = pictures || json_object_get(c->json, picture_keys[i]);
    if (pictures)
        TRY(read_pictures(c, error));
    TRY(read_template(c, error));
    if (tokenizer->n_pieces > (size_t)c->description.decoder.vocab)
        return fail(error, MVLM_BAD_MODEL,
                    "%s: \"vocab_size\" %lld is less than the tokenizer's %zu pieces", file,
                    (long long)c->description.decoder.vocab, tokenizer->n_pieces);
    c->description.tokenizer = tokenizer->settings;
    TRY(read_side_files(folder, c->json, tokenizer, &c->description, error));
    return description_check(file, &c->description, error);
}

/* Takes `name` and `json` over, and closes what was read when something is wrong. */
static mvlm_status open_as(char *name, json_t *json, const char *folder,
                           const struct sentencepiece *tokenizer, struct config *config,
                           mvlm_error *error)
{
    *config = (struct config){.json = json, .name = name};
    const mvlm_status status = name && json ? read_all(folder, tokenizer, config, error)
                                            : fail_no_memory(error, "the description", 0);
    if (status != MVLM_OK)
        config_close(config);
    return status;
}

mvlm_status config_open(const char *folder, const struct sentencepiece *tokenizer,
                        struct config *config, mvlm_error *error)
{
    json_t *json;
    memset(config, 0, sizeof *config);
    TRY(json_file_load(folder, file, false, &json, error));
    return open_as(base_name(folder), json, folder, tokenizer, config, error);
}

mvlm_status config_open_json(json_t *json, const char *name, const struct sentencepiece *tokenizer,
                             struct config *config, mvlm_error *error)
{
    return open_as(strdup(name), json, NULL, tokenizer, config, error);
}

void config_close(struct config *config)
{
    json_decref(config->json);
    free(config->name);
    memset(config, 0, sizeof *config);
}
