#include "vision.h"

#include <string.h>

#include "attention.h"
#include "linear.h"
#include "norm.h"

void vision_layout(struct vision_buffers *buffers, struct arena *arena,
                   const struct description *description, enum tensor_type type)
{
    const size_t side = patches_a_side(description), patch = (size_t)description->vision.patch_size;
    const size_t rows = vision_rows(description), width = (size_t)description->vision.width;
    const size_t heads = (size_t)description->vision.n_heads;
    buffers->patches = arena_take(arena, side * side * 3 * patch * patch, sizeof(float));
    float **const arrays[] = {&buffers->x, &buffers->normed, &buffers->q, &buffers->k, &buffers->v};
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
        *arrays[i] = arena_take(arena, rows * row_stride(width), sizeof(float));
    buffers->inner =
        arena_take(arena, rows * row_stride((size_t)description->vision.ffn), sizeof(float));
    kv_cache_layout(&buffers->keys, arena, type, 1, heads, width / heads, rows);
}

/* pixels [3, side, side] -> one row a patch: channel, then line, then column, as the convolution's
 * weights lie. Pixels beyond the last whole patch are not read. */
static void cut_patches(const struct description *description, const float *pixels, float *patches)
{
    const size_t n = patches_a_side(description), patch = (size_t)description->vision.patch_size;
    const size_t side = (size_t)description->image.size;
    for (size_t y = 0; y < n; y++)
        for (size_t x = 0; x < n; x++)
            for (size_t line = 0; line < 3 * patch; line++) {
                const size_t channel = line / patch, pixel_y = y * patch + line % patch;
                memcpy(patches, pixels + (channel * side + pixel_y) * side + x * patch,
                       patch * sizeof *patches);
                patches += patch;
            }
}

/* patches -> x: [class token, patches] + position, then the norm before the first layer. */
static void embed_patches(struct compute *compute, const struct mvlm_model *model,
                          struct vision_buffers *b)
{
    const struct description *d = &model->description;
    const size_t width = (size_t)d->vision.width, rows = vision_rows(d),
                 class_rows = (size_t)d->vision.class_token;
    const struct linear *patch = &model->parameters.vision.patch;
    if (class_rows)
        memcpy(b->x, model->parameters.vision.class_embedding, width * sizeof *b->x);
    const struct input input = linear_input(compute, &patch->weight, b->patches, PRECISION_SINGLE,
                                            patch->weight.n_cols, rows - class_rows);
    const struct norm_rows x = {b->x, row_stride(width), rows, width};
    linear(compute, patch, &input, b->x + class_rows * x.stride, x.stride, (struct epilogue){0});
    for (size_t row = 0; row < rows; row++)
        compute->kernels->add(b->x + row * x.stride,
                              model->parameters.vision.position + row * width, width);
    if (d->vision.pre_norm)
        norm_rows(compute, NORM_LAYER, &model->parameters.vision.pre_norm, d->vision.norm_eps, &x,
                  b->x);
}

static void run_layer(struct compute *compute, const struct description *d,
                      const struct vision_layer *layer, struct vision_buffers *b)
{
    const size_t width = (size_t)d->vision.width, ffn = (size_t)d->vision.ffn,
                 rows = vision_rows(d);
    const struct epilogue activate = {.activation = (enum activation)d->vision.activation,
                                      .precision = linear_precision(&layer->fc2.weight)};
    const struct epilogue onto_x = {.residual = b->x};
    const size_t stride = row_stride(width), ffn_stride = row_stride(ffn);
    const struct norm_rows x = {b->x, stride, rows, width};
    const struct product qkv[] = {{&layer->q, b->q, stride, {0}},
                                  {&layer->k, b->k, stride, {0}},
                                  {&layer->v, b->v, stride, {0}}};
    struct input input;
    const struct attention all = {
        .cache = &b->keys, .n_heads = (size_t)d->vision.n_heads, .n_keys = rows};

    input = norm_input(compute, NORM_LAYER, &layer->norm1, d->vision.norm_eps, &layer->q, &x,
                       b->normed);
    linear_all(compute, &input, qkv, 3, false);
    kv_cache_set_origin(compute, &b->keys, 0, b->k, stride, rows);
    kv_cache_append(compute, &b->keys, 0, 0, b->k, b->v, stride, rows);
    attend(compute, &all, b->q, stride, rows, b->normed, stride);
    input = linear_input(compute, &layer->out.weight, b->normed, PRECISION_SINGLE, stride, rows);
    linear(compute, &layer->out, &input, b->x, stride, onto_x);

    input = norm_input(compute, NORM_LAYER, &layer->norm2, d->vision.norm_eps, &layer->fc1, &x,
                       b->normed);
    linear(compute, &layer->fc1, &input, b->inner, ffn_stride, activate);
    input =
        linear_input(compute, &layer->fc2.weight, b->inner, activate.precision, ffn_stride, rows);
    linear(compute, &layer->fc2, &input, b->x, stride, onto_x);
}

/* The patches' rows without gaps, at the beginning of x: what follows reads [patches, width]. */
static const float *close_up(const struct description *d, struct vision_buffers *b)
{
    const size_t width = (size_t)d->vision.width, stride = row_stride(width);
    const size_t class_rows = (size_t)d->vision.class_token, n = vision_rows(d) - class_rows;
    for (size_t row = 0; row < n; row++)
        memmove(b->x + row * width, b->x + (row + class_rows) * stride, width * sizeof *b->x);
    return b->x;
}

mvlm_status vision_encode(struct compute *compute, const struct mvlm_model *model,
                          struct vision_buffers *buffers, const float *pixels,
                          const float **features, mvlm_error *error)
{
    const struct description *d = &model->description;
    const size_t n_layers = (size_t)d->vision.n_layers;
    cut_patches(d, pixels, buffers->patches);
    embed_patches(compute, model, buffers);
    for (size_t layer = 0; layer < n_layers; layer++) {
        TRY(compute_step(compute, "encode", layer, n_layers, error));
        run_layer(compute, d, &model->parameters.vision.layers[layer], buffers);
    }
    *features = close_up(d, buffers);
    return compute_step(compute, "encode", 1, 1, error);
}
