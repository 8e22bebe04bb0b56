/* weights + description -> model: every shape and type is checked here, once. */
#include "model.h"

#include <stdlib.h>
#include <string.h>

#include "status.h"

static mvlm_status choose_kernels(struct mvlm_model *model, const mvlm_model_options *options,
                                  mvlm_error *error)
{
    const char *isa = options ? options->isa : NULL;
    bool known;
    model->kernels = kernels_choose(isa, &known);
    if (model->kernels)
        return MVLM_OK;
    char list[128] = "";
    bool has;
    const char *rung;
    for (size_t i = 0; (rung = kernels_rung(i, &has)) != NULL; i++)
        if (has) {
            strncat(list, *list ? ", " : "", sizeof list - strlen(list) - 1);
            strncat(list, rung, sizeof list - strlen(list) - 1);
        }
    if (!known)
        return fail(error, MVLM_USAGE, "unknown instruction set \"%.40s\": this machine has %s",
                    isa, list);
    return fail(error, MVLM_UNSUPPORTED, "this processor lacks %s: it has %s", isa, list);
}

static mvlm_status read_description(struct mvlm_model *model, mvlm_error *error)
{
    const struct format_range range = model->weights.header.description;
    const uint8_t *bytes = model->weights.bytes + range.offset;
    TRY(description_decode(model->weights.path, bytes, (size_t)range.n_bytes, &model->description,
                           error));
    if (description_varies(&model->description) &&
        !(model->weights.header.required_features & FORMAT_VARIANTS))
        return fail(error, MVLM_BAD_MODEL,
                    "%s: its description has variants, its header does not say so",
                    model->weights.path);
    if (takes_pictures(&model->description))
        image_recipe_of(&model->description, &model->recipe);
    mvlm_field field;
    while (description_field(bytes, (size_t)range.n_bytes, model->n_fields, &field))
        model->n_fields++;
    return MVLM_OK;
}

/* The directory's entry against what the schema demands in its place. */
static mvlm_status check_entry(const struct mvlm_model *model, const struct format_tensor *t,
                               const struct tensor_spec *spec, mvlm_error *error)
{
    const char *path = model->weights.path;
    if (strcmp(t->name, spec->name) != 0)
        return fail(error, MVLM_BAD_MODEL, "%s: tensor %s stands where %s belongs", path, t->name,
                    spec->name);
    if (t->n_rows != (uint64_t)spec->n_rows || t->n_cols != (uint64_t)spec->n_cols)
        return fail(error, MVLM_BAD_MODEL,
                    "%s: tensor %s is %llu x %llu, its description demands %lld x %lld", path,
                    t->name, (unsigned long long)t->n_rows, (unsigned long long)t->n_cols,
                    (long long)spec->n_rows, (long long)spec->n_cols);
    const enum tensor_layout layout = spec->kind == TENSOR_MATRIX ? LAYOUT_TILES : LAYOUT_ROWS;
    if (t->layout != layout || t->section != spec->section ||
        (spec->kind == TENSOR_VECTOR && t->type != TENSOR_F32))
        return fail(error, MVLM_BAD_MODEL,
                    "%s: tensor %s: type %s, layout %u, section %u do not suit its place", path,
                    t->name, tensor_type_name(t->type), t->layout, t->section);
    return MVLM_OK;
}

static void bind(struct mvlm_model *model, const struct format_tensor *t,
                 const struct tensor_spec *spec)
{
    struct parameters *p = &model->parameters;
    char *base = (char *)p;
    if (spec->base == BASE_VISION_LAYER)
        base = (char *)&p->vision.layers[spec->number];
    else if (spec->base == BASE_DECODER_LAYER)
        base = (char *)&p->decoder.layers[spec->number];
    const void *data = model->weights.bytes + t->range.offset;
    if (spec->kind == TENSOR_VECTOR)
        *(const float **)(void *)(base + spec->offset) = data;
    else
        *(struct matrix *)(void *)(base + spec->offset) =
            (struct matrix){t->type, t->layout, (size_t)t->n_rows, (size_t)t->n_cols, data};
    if (spec->kind != TENSOR_TABLE)
        model->section_bytes[spec->section] += t->range.n_bytes;
    if (spec->kind == TENSOR_MATRIX && t->n_cols > model->most_inputs)
        model->most_inputs = (size_t)t->n_cols;
}

/* Layers that read the same rows read them in one form: floats or eight bits. */
static mvlm_status check_alike(const struct mvlm_model *model, const char *section, size_t layer,
                               const struct matrix *const *matrices, size_t n, mvlm_error *error)
{
    for (size_t i = 1; i < n; i++)
        if (is_quantized(matrices[i]->type) != is_quantized(matrices[0]->type))
            return fail(error, MVLM_BAD_MODEL,
                        "%s: %s.layers.%zu: matrices that read the same rows are %s and %s: all "
                        "must be quantized, or "
                        "none",
                        model->weights.path, section, layer, tensor_type_name(matrices[0]->type),
                        tensor_type_name(matrices[i]->type));
    return MVLM_OK;
}

static mvlm_status check_layers(const struct mvlm_model *model, mvlm_error *error)
{
    const struct parameters *p = &model->parameters;
    for (size_t i = 0; i < (size_t)model->description.vision.n_layers; i++) {
        const struct vision_layer *l = &p->vision.layers[i];
        const struct matrix *const qkv[] = {&l->q.weight, &l->k.weight, &l->v.weight};
        if (takes_pictures(&model->description))
            TRY(check_alike(model, "vision", i, qkv, 3, error));
    }
    for (size_t i = 0; i < (size_t)model->description.decoder.n_layers; i++) {
        const struct decoder_layer *l = &p->decoder.layers[i];
        const struct matrix *const readers[] = {&l->q.weight, &l->k.weight, &l->v.weight,
                                                &l->up.weight, &l->gate.weight};
        const bool parallel = model->description.decoder.parallel_block;
        const size_t n = model->description.decoder.plain_ffn ? 4 : 5;
        TRY(check_alike(model, "decoder", i, readers, parallel ? n : 3, error));
        TRY(check_alike(model, "decoder", i, readers + 3, n - 3, error));
    }
    return MVLM_OK;
}

static mvlm_status bind_tensors(struct mvlm_model *model, mvlm_error *error)
{
    const struct description *d = &model->description;
    const uint32_t n = model->weights.header.n_tensors;
    const size_t expected = schema_list(d, NULL);
    if (n != expected)
        return fail(error, MVLM_BAD_MODEL, "%s: %u tensors, its description demands %zu",
                    model->weights.path, n, expected);
    model->parameters.vision.layers =
        calloc((size_t)d->vision.n_layers + 1, sizeof(struct vision_layer));
    model->parameters.decoder.layers =
        calloc((size_t)d->decoder.n_layers, sizeof(struct decoder_layer));
    struct tensor_spec *specs = calloc(n, sizeof *specs);
    mvlm_status status = MVLM_OK;
    if (!specs || !model->parameters.vision.layers || !model->parameters.decoder.layers)
        status = fail_no_memory(error, "the list of tensors", n * sizeof *specs);
    else
        schema_list(d, specs);
    for (uint32_t i = 0; status == MVLM_OK && i < n; i++) {
        status = check_entry(model, &model->weights.tensors[i], &specs[i], error);
        if (status == MVLM_OK)
            bind(model, &model->weights.tensors[i], &specs[i]);
    }
    if (d->decoder.tied_head)
        model->parameters.decoder.head.weight = model->parameters.decoder.embedding;
    free(specs);
    return status == MVLM_OK ? check_layers(model, error) : status;
}

static mvlm_status open_parts(struct mvlm_model *model, const char *path,
                              const mvlm_model_options *options, mvlm_error *error)
{
    TRY(choose_kernels(model, options, error));
    TRY(weights_open(path, &model->weights, error));
    TRY(read_description(model, error));
    TRY(bind_tensors(model, error));
    const struct format_range range = model->weights.header.tokenizer;
    const mvlm_status status =
        tokenizer_open(path, &model->description, model->weights.bytes + range.offset,
                       (size_t)range.n_bytes, &model->tokenizer, error);
    TRY(weights_intact(&model->weights, error)); /* else the tokenizer is at fault */
    return status;
}

mvlm_status mvlm_model_open(const char *path, const mvlm_model_options *options, mvlm_model **out,
                            mvlm_error *error)
{
    *out = NULL;
    struct mvlm_model *model = calloc(1, sizeof *model);
    if (!model)
        return fail_no_memory(error, "the model", sizeof *model);
    const mvlm_status status = open_parts(model, path, options, error);
    if (status == MVLM_OK)
        *out = model;
    else
        mvlm_model_close(model);
    return status;
}

void mvlm_model_close(mvlm_model *model)
{
    if (!model)
        return;
    tokenizer_close(model->tokenizer);
    free(model->parameters.vision.layers);
    free(model->parameters.decoder.layers);
    weights_close(&model->weights);
    free(model);
}

mvlm_status mvlm_model_verify(const mvlm_model *model, mvlm_problem_fn problem, void *user,
                              mvlm_error *error)
{
    return weights_verify(&model->weights, problem, user, error);
}

void mvlm_model_describe(const mvlm_model *model, mvlm_model_info *info)
{
    *info = (mvlm_model_info){
        .path = model->weights.path,
        .n_bytes = model->weights.n_bytes,
        .format_version = model->weights.header.version,
        .digest = model->weights.digest,
        .isa = model->kernels->isa,
        .context_size = (size_t)model->description.decoder.context,
        .vocab_size = (size_t)model->description.decoder.vocab,
        .image_tokens = image_tokens(&model->description),
        .has_template = model->description.prompt.present,
        .n_fields = model->n_fields,
        .n_tensors = model->weights.header.n_tensors,
    };
}

bool mvlm_model_field(const mvlm_model *model, size_t index, mvlm_field *field)
{
    const struct format_range range = model->weights.header.description;
    return description_field(model->weights.bytes + range.offset, (size_t)range.n_bytes, index,
                             field);
}

bool mvlm_model_tensor(const mvlm_model *model, size_t index, mvlm_tensor *tensor)
{
    if (index >= model->weights.header.n_tensors)
        return false;
    const struct format_tensor *t = &model->weights.tensors[index];
    *tensor = (mvlm_tensor){.name = t->name,
                            .type = tensor_type_name(t->type),
                            .shape = {(int64_t)t->n_rows, (int64_t)t->n_cols},
                            .offset = t->range.offset,
                            .n_bytes = t->range.n_bytes};
    digest_text(t->digest, tensor->digest);
    return true;
}

enum tensor_type model_matrix_type(const struct mvlm_model *model)
{
    return model->parameters.decoder.layers[0].q.weight.type;
}
