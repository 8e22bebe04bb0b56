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
                    const struct description *description, size_t n_rows, size_t logit_rows)
{
    const struct widths w = widths_of(description);
    const struct {
        float **array;
        size_t n;
    } arrays[] = {
        {&buffers->x, n_rows * row_stride(w.hidden)},
        {&buffers->normed, n_rows * row_stride(w.hidden)},
        {&buffers->q, n_rows * row_stride(w.q)},
        {&buffers->mixed, n_rows * row_stride(w.q)},
        {&buffers->k, n_rows * row_stride(w.kv)},
        {&buffers->v, n_rows * row_stride(w.kv)},
        {&buffers->logits, logit_rows * w.vocab},
    };
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
        *arrays[i].array = arena_take(arena, arrays[i].n, sizeof(float));
    buffers->inner = arena_take(arena, n_rows * row_stride(w.ffn), sizeof(float));
    buffers->alone = arena_take(arena, n_rows, sizeof *buffers->alone);
    buffers->logit_rows = logit_rows;
}

void rope_layout(struct rope_tables *rope, struct arena *arena,
                 const struct description *description, size_t capacity)
{
    const size_t half = (size_t)description->decoder.rope_dims / 2;
    rope->cosine = arena_take(arena, capacity * half, sizeof(float));
    rope->sine = arena_take(arena, capacity * half, sizeof(float));
    rope->n_positions = 0;
}

/* Angles are rounded to single precision at each step as the reference does: at position 2000 that
 * matters. */
void rope_fill(struct rope_tables *rope, const struct description *description, size_t n_positions)
{
    const size_t half = (size_t)description->decoder.rope_dims / 2;
    for (size_t i = 0; i < half; i++) {
        const float exponent = (float)(2 * i) / (float)description->decoder.rope_dims;
        const float frequency =
            1.0f / (float)pow(description->decoder.rope_theta, (double)exponent);
        for (size_t position = rope->n_positions; position < n_positions; position++) {
            const float scaled = (float)position / (float)description->decoder.rope_scale;
            const float angle = scaled * frequency;
            rope->cosine[position * half + i] = (float)cos((double)angle);
            rope->sine[position * half + i] = (float)sin((double)angle);
        }
    }
    if (n_positions > rope->n_positions)
        rope->n_positions = n_positions;
}

/* Where the rows in buffers->x belong. */
struct rows {
    const struct span *spans;
    size_t n_spans, n;
};

static size_t position_of(const struct rows *rows, size_t row)
{
    const struct span *span = rows->spans;
    for (; row >= span->n_rows; span++)
        row -= span->n_rows;
    return span->first + row;
}

/* Rows of buffers->x that follow each other and are all alone, or none is. */
struct run {
    size_t first, n;
    bool alone;
};

/* The run behind *run, which begins as {0}, up to row `end`; false when there is none. */
static bool next_run(const struct decoder_buffers *b, size_t end, struct run *run)
{
    const size_t first = run->first + run->n;
    if (first >= end)
        return false;
    *run = (struct run){first, end - first, b->alone[first]};
    for (size_t row = first; row < end; row++)
        if (b->alone[row] != run->alone) {
            run->n = row - first;
            break;
        }
    return true;
}

struct rope_job {
    const struct kernels *kernels;
    const struct description *d;
    const struct decoder_buffers *buffers;
    const struct rope_tables *tables;
    const struct rows *rows;
    struct widths w;
};

static void rotate_rows(void *argument, size_t first, size_t n_rows, int thread)
{
    (void)thread;
    const struct rope_job *job = argument;
    const size_t dims = (size_t)job->d->decoder.rope_dims,
                 head_dim = (size_t)job->d->decoder.head_dim;
    for (size_t row = first; row < first + n_rows; row++) {
        const size_t at_position = position_of(job->rows, row) * (dims / 2);
        const float *cosine = job->tables->cosine + at_position;
        const float *sine = job->tables->sine + at_position;
        const bool alone = job->buffers->alone[row];
        for (size_t at = 0; at < job->w.q && !alone; at += head_dim)
            job->kernels->rope(job->buffers->q + row * row_stride(job->w.q) + at, cosine, sine,
                               dims);
        for (size_t at = 0; at < job->w.kv; at += head_dim)
            job->kernels->rope(job->buffers->k + row * row_stride(job->w.kv) + at, cosine, sine,
                               dims);
    }
}

/* q of the rows that see others, k and v of all. */
static void project_rows(struct compute *compute, const struct decoder_layer *layer,
                         const struct decoder_buffers *b, const struct widths *w,
                         const struct input *input)
{
    const size_t q_stride = row_stride(w->q), kv_stride = row_stride(w->kv);
    const struct product qkv[] = {{&layer->q, b->q, q_stride, {0}},
                                  {&layer->k, b->k, kv_stride, {0}},
                                  {&layer->v, b->v, kv_stride, {0}}};
    struct run run = {0};
    if (next_run(b, input->n_rows, &run) && run.n == input->n_rows && !run.alone) {
        linear_all(compute, input, qkv, 3, false);
        return;
    }
    linear_all(compute, input, qkv + 1, 2, false);
    for (run = (struct run){0}; next_run(b, input->n_rows, &run);) {
        const struct input rows = linear_input_rows(input, run.first, run.n, w->hidden);
        if (!run.alone)
            linear(compute, &layer->q, &rows, b->q + run.first * q_stride, q_stride,
                   (struct epilogue){0});
    }
}

/* What rows that attend to themselves alone see: their own v, a copy for each head of its group. */
struct own_job {
    struct widths w;
    size_t head_dim, heads_a_group;
    const float *v;
    float *mixed;
};

static void see_themselves(void *argument, size_t first, size_t n_rows, int thread)
{
    (void)thread;
    const struct own_job *job = argument;
    for (size_t row = first; row < first + n_rows; row++)
        for (size_t head = 0; head * job->head_dim < job->w.q; head++)
            memcpy(job->mixed + row * row_stride(job->w.q) + head * job->head_dim,
                   job->v + row * row_stride(job->w.kv) + head / job->heads_a_group * job->head_dim,
                   job->head_dim * sizeof(float));
}

/* What a span's rows [from, to) of buffers see in its cache: q -> mixed. The span begins at row `begin`; with
 * `moved` q and mixed of row `from` stand first. */
static void look_at(struct compute *compute, const struct mvlm_model *model, size_t layer,
                    const struct decoder_buffers *b, const struct span *span, size_t begin,
                    size_t from, size_t to, bool moved)
{
    const struct description *d = &model->description;
    const struct widths w = widths_of(d);
    const size_t q_stride = row_stride(w.q), heads = (size_t)d->decoder.n_heads;
    struct run run = {.first = from};
    while (next_run(b, to, &run)) {
        const size_t at = (moved ? 0 : run.first) * q_stride;
        struct own_job own = {w, (size_t)d->decoder.head_dim, heads / (size_t)d->decoder.n_kv_heads,
                              b->v + run.first * row_stride(w.kv), b->mixed + at};
        const struct attention seen = {.cache = span->cache,
                                       .layer = layer,
                                       .n_heads = heads,
                                       .n_keys = span->first + run.first + run.n - begin,
                                       .causal = true,
                                       .first = span->first + run.first - begin};
        if (run.alone)
            compute_rows(compute, run.n, see_themselves, &own);
        else
            attend(compute, &seen, b->q + at, q_stride, run.n, b->mixed + at, q_stride);
    }
}

/* Keys and values of all rows into their caches, then what each row sees there: b->q -> b->mixed.
 * With `last_only` the last row alone, whose q stands first. */
static void look_back(struct compute *compute, const struct mvlm_model *model, size_t layer,
                      const struct decoder_buffers *b, const struct rows *rows, bool last_only)
{
    const size_t kv_stride = row_stride(widths_of(&model->description).kv);
    size_t begin = 0;
    for (const struct span *span = rows->spans; span < rows->spans + rows->n_spans; span++) {
        const float *k = b->k + begin * kv_stride, *v = b->v + begin * kv_stride;
        const size_t end = begin + span->n_rows;
        if (span->first == 0)
            kv_cache_set_origin(compute, span->cache, layer, k, kv_stride, 1);
        kv_cache_append(compute, span->cache, layer, span->first, k, v, kv_stride, span->n_rows);
        look_at(compute, model, layer, b, span, begin, last_only ? end - 1 : begin, end, last_only);
        begin = end;
    }
}

/* b->inner = activation(gate) up, or activation(up) of a plain MLP. */
static void expand(struct compute *compute, const struct description *d,
                   const struct decoder_layer *layer, const struct decoder_buffers *b,
                   const struct input *input)
{
    const bool plain = d->decoder.plain_ffn;
    const size_t stride = row_stride((size_t)d->decoder.ffn);
    const enum precision precision = linear_precision(&layer->down.weight);
    const enum activation activation = (enum activation)d->decoder.activation;
    const struct epilogue activated = {
        .activation = activation, .multiply = plain ? NULL : b->inner, .precision = precision};
    const struct product up_gate[] = {
        {&layer->up, b->inner, stride,
         plain ? activated : (struct epilogue){.precision = precision}},
        {&layer->gate, b->inner, stride, activated}};
    linear_all(compute, input, up_gate, plain ? 1 : 2, true);
}

/* One layer; with `last_only` the rows but the last give only their keys and values, and the last one
 * ends in the first row's place. */
static void run_layer(struct compute *compute, const struct mvlm_model *model, size_t index,
                      struct decoder_buffers *b, const struct rope_tables *tables,
                      const struct rows *rows, bool last_only)
{
    const struct description *d = &model->description;
    const struct decoder_layer *layer = &model->parameters.decoder.layers[index];
    const struct widths w = widths_of(d);
    const enum norm_kind norm = (enum norm_kind)d->decoder.norm;
    const double eps = d->decoder.norm_eps;
    const size_t x_stride = row_stride(w.hidden), q_stride = row_stride(w.q), last = rows->n - 1;
    const struct epilogue onto_x = {.residual = b->x};
    struct norm_rows x = {b->x, x_stride, rows->n, w.hidden};
    struct rope_job rope = {compute->kernels, d, b, tables, rows, w};
    struct input input =
        norm_input(compute, norm, &layer->attention_norm, eps, &layer->q, &x, b->normed);

    project_rows(compute, layer, b, &w, &input);
    compute_rows(compute, rows->n, rotate_rows, &rope);
    if (last_only) {
        memmove(b->x, b->x + last * x_stride, w.hidden * sizeof *b->x);
        memmove(b->q, b->q + last * q_stride, w.q * sizeof *b->q);
        input = linear_input_rows(&input, last, 1, w.hidden);
        x.n_rows = 1;
    }
    if (d->decoder.parallel_block)
        expand(compute, d, layer, b, &input);
    look_back(compute, model, index, b, rows, last_only);
    input =
        linear_input(compute, &layer->out.weight, b->mixed, PRECISION_SINGLE, q_stride, x.n_rows);
    linear(compute, &layer->out, &input, b->x, x_stride, onto_x);

    if (!d->decoder.parallel_block) {
        input = norm_input(compute, norm, &layer->ffn_norm, eps, &layer->up, &x, b->normed);
        expand(compute, d, layer, b, &input);
    }
    input = linear_input(compute, &layer->down.weight, b->inner,
                         linear_precision(&layer->down.weight), row_stride(w.ffn), x.n_rows);
    linear(compute, &layer->down, &input, b->x, x_stride, onto_x);
}

mvlm_status decoder_read(struct compute *compute, const struct mvlm_model *model,
                         struct decoder_buffers *buffers, const struct rope_tables *rope,
                         const struct span *spans, size_t n_spans, bool last_only,
                         const char *stage, size_t n_total, mvlm_error *error)
{
    const size_t n_layers = (size_t)model->description.decoder.n_layers;
    struct rows rows = {spans, n_spans, 0};
    for (size_t i = 0; i < n_spans; i++)
        rows.n += spans[i].n_rows;
    for (size_t layer = 0; layer < n_layers; layer++) {
        TRY(compute_step(compute, stage, spans[0].first * n_layers + layer * rows.n,
                         n_total * n_layers, error));
        run_layer(compute, model, layer, buffers, rope, &rows, last_only && layer + 1 == n_layers);
    }
    return MVLM_OK;
}

void decoder_logits(struct compute *compute, const struct mvlm_model *model,
                    struct decoder_buffers *buffers, size_t first, size_t n_rows)
{
    const struct widths w = widths_of(&model->description);
    const struct linear *head = &model->parameters.decoder.head;
    const size_t stride = row_stride(w.hidden);
    const struct norm_rows x = {buffers->x + first * stride, stride, n_rows, w.hidden};
    const struct input input = norm_input(
        compute, (enum norm_kind)model->description.decoder.norm, &model->parameters.decoder.norm,
        model->description.decoder.norm_eps, head, &x, buffers->normed);
    linear(compute, head, &input, buffers->logits, w.vocab, (struct epilogue){0});
}
