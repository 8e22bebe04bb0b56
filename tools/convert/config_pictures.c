/* config.json's tower, picture and projector -> the description. */
#include "config_parts.h"

#include <math.h>
#include <string.h>

#include "json_file.h"
#include "status.h"

static const char file[] = CONFIG_FILE;

mvlm_status config_activation(const char *key, const char *name, int64_t *activation,
                              mvlm_error *error)
{
    *activation = find_activation(name);
    return *activation >= 0
               ? MVLM_OK
               : fail(error, MVLM_BAD_MODEL, "%s: %s \"%.60s\" is not supported", file, key, name);
}

mvlm_status config_demand_false(const json_t *json, const char *key, mvlm_error *error)
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

/* Which tower it is, and the object that describes it: NULL where its name says all. */
static mvlm_status choose_tower(struct config *c, const json_t **given, mvlm_error *error)
{
    const char *name, *type;
    *given = json_object_get(c->json, "vision_config");
    if (json_is_null(*given))
        *given = NULL;
    if (*given && !json_is_object(*given))
        return fail(error, MVLM_BAD_MODEL, "%s: \"vision_config\" is no object", file);
    TRY(json_text_field(file, c->json, "mm_vision_tower", "clip-vit-large-patch14-336", &name,
                        error));
    TRY(json_text_field(file, c->json, "vision_tower_type", name, &type, error));
    c->tower = find_tower(type);
    if (!c->tower)
        return fail(error, MVLM_BAD_MODEL,
                    "%s: tower \"%.80s\" is not supported (clip and siglip are)", file, type);
    if (!*given && !strstr(name, c->tower->only))
        return fail(error, MVLM_BAD_MODEL,
                    "%s: nothing is known of the tower \"%.80s\" without a \"vision_config\"", file,
                    name);
    return MVLM_OK;
}

/* The published towers differ in nothing but the size of their pictures, which the checkpoint's position embeddings
 * tell: 14 x 14 of them are of 196 pixels, 27 x 27 of 378 to 391. */
static void fit_picture_size(const struct config *c, struct description *d)
{
    const int64_t patches = c->changes.tower_positions - d->vision.class_token;
    int64_t side = 0;
    while (side * side < patches)
        side++;
    if (patches > 0 && side * side == patches && side != d->image.size / d->vision.patch_size)
        d->image.size = side * d->vision.patch_size;
}

static mvlm_status read_tower(struct config *c, mvlm_error *error)
{
    struct description *d = &c->description;
    const json_t *given;
    const char *activation;
    TRY(choose_tower(c, &given, error));
    const struct tower *t = c->tower;
    TRY(json_integer_field(file, given, "image_size", 1, 4096, given ? NULL : &t->image_size,
                           &d->image.size, error));
    TRY(json_integer_field(file, given, "patch_size", 1, 1024, given ? NULL : &t->patch_size,
                           &d->vision.patch_size, error));
    TRY(json_integer_field(file, given, "hidden_size", 1, 65536, given ? NULL : &t->width,
                           &d->vision.width, error));
    TRY(json_integer_field(file, given, "intermediate_size", 1, 262144, given ? NULL : &t->ffn,
                           &d->vision.ffn, error));
    TRY(json_integer_field(file, given, "num_hidden_layers", 1, 1024, given ? NULL : &t->n_layers,
                           &c->tower_layers, error));
    if (given && t->cut)
        c->tower_layers++;
    TRY(json_integer_field(file, given, "num_attention_heads", 1, 1024, given ? NULL : &t->n_heads,
                           &d->vision.n_heads, error));
    TRY(json_number_field(file, given, "layer_norm_eps", t->norm_eps, &d->vision.norm_eps, error));
    TRY(json_text_field(file, given, "hidden_act", t->activation, &activation, error));
    TRY(config_activation("vision_config: hidden_act", activation, &d->vision.activation, error));
    d->vision.class_token = t->class_token;
    d->vision.pre_norm = t->pre_norm;
    d->vision.patch_bias = t->patch_bias;
    if (!given)
        fit_picture_size(c, d);
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
    d->image.fit = strcmp(ratio, "pad") == 0 ? IMAGE_PAD : c->tower->square;
    d->image.pad_colour.n = d->image.mean.n = d->image.std.n = 3;
    for (int channel = 0; channel < 3; channel++) {
        d->image.mean.value[channel] = c->tower->mean[channel];
        d->image.std.value[channel] = c->tower->std[channel];
        d->image.pad_colour.value[channel] = floor(c->tower->mean[channel] * 255);
    }
    return MVLM_OK;
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

mvlm_status config_pictures(struct config *c, mvlm_error *error)
{
    bool composite;
    TRY(config_demand_false(c->json, "mm_use_im_start_end", error));
    TRY(json_bool_field(file, c->json, "mm_composite_attention", false, &composite, error));
    c->description.decoder.composite_attention = composite;
    TRY(read_tower(c, error));
    TRY(read_selection(c, error));
    TRY(read_image(c, error));
    return read_projector(c, error);
}
