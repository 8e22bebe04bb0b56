#include "decoder.h"

#include <math.h>
#include <string.h>

#include "attention.h"
#include "linear.h"
#include "norm.h"

/* Rows of q and of k and v, from the description. */
struct widths {
    size_t hidden, q, kv, ffn, vocab;
};

static struct widths widths_of(const struct description *d)
{
    return (struct widths){(size_t)d->decoder.hidden,
                           (size_t)(d->decoder.n_heads * d->decoder.head_dim),
                           (size_t)(d->decoder.n_kv_heads * d->decoder.head_dim),
                           (size_t)d->decoder.ffn, (size_t)d->decoder.vocab};
}

void decoder_layout(struct decoder_buffers *buffers, struct arena *arena,
                    const struct description *description, size_t n_rows, size_t logit_rows,
                    size_t n_positions)
{
    const struct widths w = widths_of(description);
    const size_t half = (size_t)description->decoder.rope_dims / 2;
    const struct {
        float **array;
        size_t n;
    } arrays[] = {
        {&buffers->x, n_rows * w.hidden},
        {&buffers->normed, n_rows * w.hidden},
        {&buffers->q, n_rows * w.q},
        {&buffers->mixed, n_rows * w.q},
        {&buffers->k, n_rows * w.kv},
        {&buffers->v, n_rows * w.kv},
        {&buffers->inner, n_rows * w.ffn},
        {&buffers->logits, logit_rows * w.vocab},
        {&buffers->cosine, n_positions * half},
        {&buffers->sine, n_positions * half},
    };
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
        *arrays[i].array = arena_take(arena, arrays[i].n, sizeof(float));
    buffers->logit_rows = logit_rows;
}

/* Angles are rounded to single precision at each step as the reference does: at position 2000 that
 * matters. */
void decoder_positions(struct decoder_buffers *buffers, const struct description *description,
                       size_t n_positions)
{
    const size_t half = (size_t)description->decoder.rope_dims / 2;
    for (size_t i = 0; i < half; i++) {
        const float exponent = (float)(2 * i) / (float)description->decoder.rope_dims;
        const float frequency =
            1.0f / (float)pow(description->decoder.rope_theta, (double)exponent);
        for (size_t position = 0; position < n_positions; position++) {
            const float scaled = (float)position / (float)description->decoder.rope_scale;
            const float angle = scaled * frequency;
            buffers->cosine[position * half + i] = (float)cos((double)angle);
            buffers->sine[position * half + i] = (float)sin((double)angle);
        }
    }
}

struct rope_job {
    const struct kernels *kernels;
    const struct description *d;
    const struct decoder_buffers *buffers;
    size_t first;
    struct widths w;
};

static void rotate_rows(void *argument, size_t first, size_t n_rows, int thread)
{
    (void)thread;
    const struct rope_job *job = argument;
    const size_t dims = (size_t)job->d->decoder.rope_dims,
                 head_dim = (size_t)job->d->decoder.head_dim;
    for (size_t row = first; row < first + n_rows; row++) {
        const float *cosine = job->buffers->cosine + (job->first + row) * (dims / 2);
        const float *sine = job->buffers->sine + (job->first + row) * (dims / 2);
        for (size_t at = 0; at < job->w.q; at += head_dim)
            job->kernels->rope(job->buffers->q + row * job->w.q + at, cosine, sine, dims);
        for (size_t at = 0; at < job->w.kv; at += head_dim)
            job->kernels->rope(job->buffers->k + row * job->w.kv + at, cosine, sine, dims);
    }
}

/* One layer of n_rows at positions first, first + 1, ...; with `last_only` the rows but the last
 * give only their keys and values, and the last one ends in the first row's place. */
static void run_layer(struct compute *compute, const struct mvlm_model *model, size_t index,
                      struct decoder_buffers *b, const struct kv_cache *cache, size_t first,
                      size_t n_rows, bool last_only)
{
    const struct description *d = &model->description;
    const struct decoder_layer *layer = &model->parameters.decoder.layers[index];
    const struct widths w = widths_of(d);
    const double eps = d->decoder.norm_eps;
    const struct epilogue onto_x = {.residual = b->x};
    const struct epilogue gate = {.activation = (enum activation)d->decoder.activation,
                                  .multiply = b->inner};
    struct rope_job rope = {compute->kernels, d, b, first, w};
    struct attention seen = {.cache = cache,
                             .layer = index,
                             .n_heads = (size_t)d->decoder.n_heads,
                             .n_keys = first + n_rows,
                             .causal = true,
                             .first = first};

    norm_rows(compute, NORM_RMS, &layer->attention_norm, eps, b->normed, b->x, n_rows, w.hidden);
    linear(compute, &layer->q, b->normed, w.hidden, n_rows, b->q, w.q, NULL);
    linear(compute, &layer->k, b->normed, w.hidden, n_rows, b->k, w.kv, NULL);
    linear(compute, &layer->v, b->normed, w.hidden, n_rows, b->v, w.kv, NULL);
    compute_rows(compute, n_rows, rotate_rows, &rope);
    kv_cache_append(compute, cache, index, first, b->k, b->v, w.kv, n_rows);
    if (last_only && n_rows > 1) {
        memmove(b->x, b->x + (n_rows - 1) * w.hidden, w.hidden * sizeof *b->x);
        memmove(b->q, b->q + (n_rows - 1) * w.q, w.q * sizeof *b->q);
        seen.first = first + n_rows - 1;
        n_rows = 1;
    }
    attend(compute, &seen, b->q, w.q, n_rows, b->mixed, w.q);
    linear(compute, &layer->out, b->mixed, w.q, n_rows, b->x, w.hidden, &onto_x);

    norm_rows(compute, NORM_RMS, &layer->ffn_norm, eps, b->normed, b->x, n_rows, w.hidden);
    linear(compute, &layer->up, b->normed, w.hidden, n_rows, b->inner, w.ffn, NULL);
    linear(compute, &layer->gate, b->normed, w.hidden, n_rows, b->inner, w.ffn, &gate);
    linear(compute, &layer->down, b->inner, w.ffn, n_rows, b->x, w.hidden, &onto_x);
}

mvlm_status decoder_read(struct compute *compute, const struct mvlm_model *model,
                         struct decoder_buffers *buffers, const struct kv_cache *cache,
                         size_t first, size_t n_rows, bool last_only, const char *stage,
                         size_t n_total, mvlm_error *error)
{
    const size_t n_layers = (size_t)model->description.decoder.n_layers;
    for (size_t layer = 0; layer < n_layers; layer++) {
        TRY(compute_step(compute, stage, first * n_layers + layer * n_rows, n_total * n_layers,
                         error));
        run_layer(compute, model, layer, buffers, cache, first, n_rows,
                  last_only && layer + 1 == n_layers);
    }
    return MVLM_OK;
}

void decoder_logits(struct compute *compute, const struct mvlm_model *model,
                    struct decoder_buffers *buffers, size_t first, size_t n_rows)
{
    const struct widths w = widths_of(&model->description);
    norm_rows(compute, NORM_RMS, &model->parameters.decoder.norm,
              model->description.decoder.norm_eps, buffers->normed, buffers->x + first * w.hidden,
              n_rows, w.hidden);
    linear(compute, &model->parameters.decoder.head, buffers->normed, w.hidden, n_rows,
           buffers->logits, w.vocab, NULL);
}
