/* What a model has to do, counted from its description. */
#include "model.h"
#include "session.h"

/* Multiply-accumulates of a layer for n rows. */
static double macs_of(const struct linear *layer, size_t n_rows)
{
    return (double)layer->weight.n_rows * (double)layer->weight.n_cols * (double)n_rows;
}

static uint64_t bytes_of(const struct linear *layer)
{
    const struct matrix *w = &layer->weight;
    return tensor_bytes(w->type, w->layout, w->n_rows, w->n_cols) +
           (layer->bias ? w->n_rows * sizeof(float) : 0);
}

static double tower_macs(const struct mvlm_model *model)
{
    const struct description *d = &model->description;
    const size_t rows = vision_rows(d);
    double macs = macs_of(&model->parameters.vision.patch, rows - (size_t)d->vision.class_token);
    for (int64_t i = 0; i < d->vision.n_layers; i++) {
        const struct vision_layer *l = &model->parameters.vision.layers[i];
        const struct linear *const layers[] = {&l->q, &l->k, &l->v, &l->out, &l->fc1, &l->fc2};
        for (size_t j = 0; j < sizeof layers / sizeof *layers; j++)
            macs += macs_of(layers[j], rows);
        macs += 2.0 * (double)rows * (double)rows * (double)d->vision.width;
    }
    return macs;
}

/* A depthwise block whose output has n pixels. */
static double block_macs(const struct ldp_block *block, size_t n, double taps)
{
    return taps * (double)n + macs_of(&block->squeeze, 1) + macs_of(&block->excite, 1) +
           macs_of(&block->pointwise, n);
}

static double projector_macs(const struct mvlm_model *model)
{
    const struct description *d = &model->description;
    const size_t patches = patches_a_side(d) * patches_a_side(d), tokens = image_tokens(d);
    const double taps = 9.0 * (double)d->decoder.hidden; /* of a pixel */
    double macs = 0;
    for (int64_t i = 0; i < d->projector.n_linear; i++)
        macs += macs_of(&model->parameters.projector.linear[i], patches);
    if (d->projector.kind == PROJECTOR_LDP)
        macs += block_macs(&model->parameters.projector.block[0], patches, taps) +
                block_macs(&model->parameters.projector.block[1], tokens, taps);
    if (d->projector.kind == PROJECTOR_LDPV2)
        macs += taps * (double)tokens;
    return macs;
}

static void count_decoder(const struct mvlm_model *model, mvlm_work *work)
{
    const struct description *d = &model->description;
    const uint64_t norm_bytes =
        (uint64_t)d->decoder.hidden * sizeof(float) * (d->decoder.norm == NORM_LAYER ? 2 : 1);
    const struct linear *head = &model->parameters.decoder.head;
    work->head_macs = macs_of(head, 1);
    work->step_bytes = bytes_of(head) + norm_bytes;
    for (int64_t i = 0; i < d->decoder.n_layers; i++) {
        const struct decoder_layer *l = &model->parameters.decoder.layers[i];
        const struct linear *const layers[] = {&l->q,    &l->k,  &l->v,   &l->out,
                                               &l->gate, &l->up, &l->down};
        work->step_bytes += (d->decoder.parallel_block ? 1 : 2) * norm_bytes;
        work->query_macs += macs_of(&l->q, 1);
        work->saved_macs = 0; /* the last layer's remains */
        for (size_t j = 0; j < sizeof layers / sizeof *layers; j++) {
            work->row_macs += macs_of(layers[j], 1);
            work->saved_macs += j < 3 ? 0 : macs_of(layers[j], 1);
            work->step_bytes += bytes_of(layers[j]);
        }
    }
    work->attention_macs =
        2.0 * (double)(d->decoder.n_layers * d->decoder.n_heads * d->decoder.head_dim);
}

static void count_tensor(const struct format_tensor *tensor, mvlm_work *work)
{
    work->n_parameters += tensor->n_rows * tensor->n_cols;
    if (tensor->section == SECTION_VISION)
        work->encode_bytes += tensor->range.n_bytes;
    else if (tensor->section == SECTION_PROJECTOR)
        work->project_bytes += tensor->range.n_bytes;
}

/* Keys and values of a position in all layers; in eight bits each has a scale. */
static uint64_t position_bytes(const struct description *d, enum tensor_type type)
{
    const uint64_t lists = (uint64_t)(d->decoder.n_layers * d->decoder.n_kv_heads);
    const uint64_t n = (uint64_t)d->decoder.head_dim;
    return 2 * lists * (type == TENSOR_Q8 ? n + sizeof(float) : n * tensor_value_bytes(type));
}

static mvlm_limit limit_of(const struct linear *layer)
{
    const enum tensor_type type = layer->weight.type;
    return type == TENSOR_Q4   ? MVLM_LIMIT_W4A8
           : type == TENSOR_Q8 ? MVLM_LIMIT_W8A8
                               : MVLM_LIMIT_F32;
}

void mvlm_model_work(const mvlm_model *model, mvlm_kv_type kv_type, mvlm_work *work)
{
    const enum tensor_type cache = session_kv_type(model, kv_type);
    const bool pictures = takes_pictures(&model->description);
    *work = (mvlm_work){.cache_bytes = position_bytes(&model->description, cache),
                        .decoder_limit = limit_of(&model->parameters.decoder.layers[0].q),
                        .composite_attention = model->description.decoder.composite_attention,
                        .weight_type = tensor_type_name(model_matrix_type(model)),
                        .kv_type = tensor_type_name(cache)};
    for (uint32_t i = 0; i < model->weights.header.n_tensors; i++)
        count_tensor(&model->weights.tensors[i], work);
    count_decoder(model, work);
    if (pictures) {
        work->encode_macs = tower_macs(model);
        work->project_macs = projector_macs(model);
        work->picture_limit =
            limit_of(&model->parameters.projector.linear[0]); /* the patch layer is f32 */
    }
}
