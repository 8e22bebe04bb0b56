#include "projector.h"

#include <string.h>

#include "linear.h"
#include "norm.h"

void projector_layout(struct projector_buffers *buffers, struct arena *arena,
                      const struct description *description)
{
    const size_t side = patches_a_side(description), out_side = projector_out_side(description);
    const size_t larger = side > out_side ? side : out_side; /* pooling may enlarge a small grid */
    const size_t hidden = (size_t)description->decoder.hidden;
    float **const grids[] = {&buffers->a, &buffers->b, &buffers->c};
    for (size_t i = 0; i < sizeof grids / sizeof *grids; i++)
        *grids[i] = arena_take(arena, larger * larger * hidden, sizeof(float));
    buffers->pooled = arena_take(arena, hidden, sizeof(float));
    buffers->squeezed = arena_take(arena, (size_t)description->projector.squeeze, sizeof(float));
}

/* A grid of rows, [side x side, hidden]. */
struct grid {
    float *rows;
    size_t side, hidden;
};

struct convolution {
    const struct kernels *kernels;
    const float *taps, *bias;
    struct grid in, out;
    size_t stride;
};

static void convolve_line(void *argument, size_t y, int thread)
{
    (void)thread;
    const struct convolution *c = argument;
    c->kernels->depthwise_3x3(c->out.rows + y * c->out.side * c->out.hidden, c->in.rows, c->taps,
                              c->bias, c->in.side, c->out.side, c->stride, y, c->in.hidden);
}

static void convolve(const struct compute *compute, const float *taps, const float *bias,
                     struct grid in, struct grid out, size_t stride)
{
    struct convolution c = {compute->kernels, taps, bias, in, out, stride};
    compute_run(compute, out.side, convolve_line, &c);
}

/* The mean over the grid, through a bottleneck, becomes a factor for each channel. */
static void squeeze_excite(struct compute *compute, const struct ldp_block *block,
                           struct projector_buffers *buffers, struct grid x)
{
    const struct kernels *kernels = compute->kernels;
    const struct epilogue relu = {.activation = ACTIVATION_RELU};
    const struct epilogue hardsigmoid = {.activation = ACTIVATION_HARDSIGMOID};
    const size_t n = x.side * x.side, squeeze = block->squeeze.weight.n_rows;
    float *mean = buffers->pooled, *factor = buffers->pooled;
    memset(mean, 0, x.hidden * sizeof *mean);
    for (size_t i = 0; i < n; i++)
        kernels->add(mean, x.rows + i * x.hidden, x.hidden);
    for (size_t i = 0; i < x.hidden; i++)
        mean[i] /= (float)n;
    struct input input =
        linear_input(compute, &block->squeeze.weight, mean, PRECISION_SINGLE, x.hidden, 1);
    linear(compute, &block->squeeze, &input, buffers->squeezed, squeeze, relu);
    input = linear_input(compute, &block->excite.weight, buffers->squeezed, PRECISION_SINGLE,
                         squeeze, 1);
    linear(compute, &block->excite, &input, factor, x.hidden, hardsigmoid);
    for (size_t i = 0; i < n; i++)
        kernels->multiply(x.rows + i * x.hidden, factor, x.hidden);
}

/* One depthwise-separable block, in -> out, with `inner` of out's size in between; three different
 * arrays. */
static void run_block(struct compute *compute, const struct mvlm_model *model,
                      const struct ldp_block *block, struct projector_buffers *buffers,
                      size_t stride, struct grid in, struct grid inner, struct grid out)
{
    const size_t n = out.side * out.side;
    const double eps = model->description.projector.norm_eps;
    convolve(compute, block->taps, NULL, in, inner, stride);
    const struct norm_rows inner_rows = {inner.rows, in.hidden, n, in.hidden};
    norm_rows(compute, NORM_LAYER, &block->norm1, eps, &inner_rows, inner.rows);
    compute->kernels->activate(inner.rows, ACTIVATION_HARDSWISH, n * in.hidden);
    squeeze_excite(compute, block, buffers, inner);
    const struct input input =
        linear_input(compute, &block->pointwise.weight, inner.rows, PRECISION_SINGLE, in.hidden, n);
    linear(compute, &block->pointwise, &input, out.rows, in.hidden, (struct epilogue){0});
    const struct norm_rows out_rows = {out.rows, in.hidden, n, in.hidden};
    norm_rows(compute, NORM_LAYER, &block->norm2, eps, &out_rows, out.rows);
}

/* x = rows of the linear layers, in buffers->a. */
static void finish_ldp(struct compute *compute, const struct mvlm_model *model,
                       struct projector_buffers *b, float *out)
{
    const struct ldp_block *blocks = model->parameters.projector.block;
    const size_t hidden = (size_t)model->description.decoder.hidden;
    const size_t side = patches_a_side(&model->description),
                 half = projector_out_side(&model->description);
    const struct grid x = {b->a, side, hidden}, inner = {b->b, side, hidden},
                      y = {b->c, side, hidden};
    run_block(compute, model, &blocks[0], b, 1, x, inner, y);
    compute->kernels->add(y.rows, x.rows, side * side * hidden);
    run_block(compute, model, &blocks[1], b, 2, y, (struct grid){b->b, half, hidden},
              (struct grid){out, half, hidden});
}

/* Means over windows that share the grid out as evenly as may be: window i of n covers
 * [floor(i side / n), ceil((i + 1) side / n)). Source: PyTorch's documentation of
 * AdaptiveAvgPool2d. */
static void pool(const struct kernels *kernels, struct grid in, struct grid out)
{
    const size_t n = out.side, side = in.side, hidden = in.hidden;
    for (size_t y = 0; y < n; y++)
        for (size_t x = 0; x < n; x++) {
            const size_t top = y * side / n, bottom = ((y + 1) * side + n - 1) / n;
            const size_t left = x * side / n, right = ((x + 1) * side + n - 1) / n;
            float *mean = out.rows + (y * n + x) * hidden;
            memset(mean, 0, hidden * sizeof *mean);
            for (size_t row = top; row < bottom; row++)
                for (size_t column = left; column < right; column++)
                    kernels->add(mean, in.rows + (row * side + column) * hidden, hidden);
            const float count = (float)((bottom - top) * (right - left));
            for (size_t i = 0; i < hidden; i++)
                mean[i] /= count;
        }
}

static void finish_ldpv2(struct compute *compute, const struct mvlm_model *model,
                         struct projector_buffers *b, float *out)
{
    const size_t hidden = (size_t)model->description.decoder.hidden;
    const size_t side = patches_a_side(&model->description),
                 grid = projector_out_side(&model->description);
    const struct grid x = {b->a, side, hidden}, pooled = {b->b, grid, hidden},
                      rows = {out, grid, hidden};
    pool(compute->kernels, x, pooled);
    convolve(compute, model->parameters.projector.peg_taps, model->parameters.projector.peg_bias,
             pooled, rows, 1);
    compute->kernels->add(out, pooled.rows, grid * grid * hidden);
}

static void finish_mlp(struct compute *compute, const struct mvlm_model *model,
                       struct projector_buffers *b, float *out)
{
    (void)compute;
    memcpy(out, b->a,
           image_tokens(&model->description) * (size_t)model->description.decoder.hidden *
               sizeof *out);
}

/* What each kind does with the rows that the linear layers left in buffers->a. */
static void (*const finish[])(struct compute *, const struct mvlm_model *,
                              struct projector_buffers *, float *) = {
    [PROJECTOR_MLP] = finish_mlp,
    [PROJECTOR_LDP] = finish_ldp,
    [PROJECTOR_LDPV2] = finish_ldpv2,
};

void project(struct compute *compute, const struct mvlm_model *model,
             struct projector_buffers *buffers, const float *features, float *out)
{
    const struct description *d = &model->description;
    const size_t hidden = (size_t)d->decoder.hidden, n_linear = (size_t)d->projector.n_linear;
    const size_t side = patches_a_side(d), patches = side * side;
    const struct epilogue gelu = {.activation = ACTIVATION_GELU},
                          none = {.activation = ACTIVATION_NONE};
    const float *x = features;
    size_t x_width = (size_t)d->vision.width;
    for (size_t i = 0; i < n_linear; i++) {
        const bool last = i + 1 == n_linear;
        float *y =
            (n_linear - i) % 2 ? buffers->a : buffers->b; /* so that the last one lands in a */
        const struct linear *layer = &model->parameters.projector.linear[i];
        const struct input input =
            linear_input(compute, &layer->weight, x, PRECISION_SINGLE, x_width, patches);
        linear(compute, layer, &input, y, hidden, last ? none : gelu);
        x = y;
        x_width = hidden;
    }
    finish[d->projector.kind](compute, model, buffers, out);
}
