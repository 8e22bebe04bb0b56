#include "session.h"

#include <stdlib.h>
#include <string.h>

#include "attention.h"
#include "linear.h"
#include "status.h"

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

mvlm_status session_sizes_of(const mvlm_model *model, const mvlm_session_options *options,
                             size_t n_rows, size_t n_pictures, size_t max_tokens,
                             struct session_sizes *sizes, mvlm_error *error)
{
    const size_t trained = (size_t)model->description.decoder.context;
    const size_t tokens = max_tokens ? max_tokens : DEFAULT_TOKENS;
    *sizes = (struct session_sizes){.n_rows = n_rows ? n_rows : trained,
                                    .n_pictures = n_pictures,
                                    .n_threads = options->n_threads ? options->n_threads
                                                                    : threads_available()};
    if (sizes->n_threads < 1 || sizes->n_threads > MAX_THREADS)
        return fail(error, MVLM_USAGE, "%d threads: at least 1 and at most %d", sizes->n_threads,
                    MAX_THREADS);
    if (options->n_ctx > (size_t)1 << 20)
        return fail(error, MVLM_USAGE, "context of %zu positions: at most %d", options->n_ctx,
                    1 << 20);
    if (n_pictures > sizes->n_rows)
        return fail(error, MVLM_USAGE, "%zu pictures in a prompt of %zu positions", n_pictures,
                    sizes->n_rows);
    const size_t wanted = tokens < trained ? smaller(trained, sizes->n_rows + tokens) : trained;
    sizes->n_ctx = options->n_ctx ? options->n_ctx : wanted;
    if (n_rows > sizes->n_ctx)
        return fail(error, MVLM_USAGE,
                    "the prompt takes %zu positions (%zu of them pictures'), the context has %zu",
                    n_rows, n_pictures * image_tokens(&model->description), sizes->n_ctx);
    sizes->n_rows = smaller(sizes->n_rows, sizes->n_ctx);
    /* an answer cannot be longer than the context leaves room for */
    sizes->max_tokens = smaller(tokens, sizes->n_ctx - n_rows + 1);
    sizes->kv_type = options->kv_type == MVLM_KV_AUTO  ? model_matrix_type(model)
                     : options->kv_type == MVLM_KV_F16 ? TENSOR_F16
                                                       : TENSOR_F32;
    return MVLM_OK;
}

/* Scratch of one thread, for whichever stage needs most. */
static size_t scratch_floats(const struct description *d, const struct session_sizes *sizes)
{
    size_t n = larger(linear_scratch_floats(),
                      attention_scratch_floats(sizes->n_ctx, (size_t)d->decoder.head_dim));
    if (takes_pictures(d))
        n = larger(n, attention_scratch_floats(vision_rows(d),
                                               (size_t)(d->vision.width / d->vision.n_heads)));
    return n;
}

/* Hands out the arena's memory; measures when it has none. */
static void layout(struct mvlm_session *s, const struct session_sizes *sizes)
{
    const struct description *d = &s->model->description;
    struct arena *arena = &s->arena;
    const size_t square = 3 * (size_t)(d->image.size * d->image.size);
    const size_t rows = smaller(sizes->n_rows, MAX_CHUNK);
    arena_rewind(arena, 0);
    kv_cache_layout(&s->cache, arena, sizes->kv_type, (size_t)d->decoder.n_layers,
                    (size_t)d->decoder.n_kv_heads, (size_t)d->decoder.head_dim, sizes->n_ctx);
    s->plan.kv_cache = arena->used;
    s->compute.scratch_floats =
        aligned(scratch_floats(d, sizes), 16); /* threads do not share cache lines */
    s->compute.scratch =
        arena_take(arena, (size_t)sizes->n_threads * s->compute.scratch_floats, sizeof(float));
    sampler_layout(&s->sampler, arena, s->model->tokenizer->n_pieces);
    answer_layout(&s->answer, arena, (sizes->max_tokens + 1) * s->model->tokenizer->longest);
    s->token_bytes = arena_take(arena, s->model->tokenizer->longest, 1);
    s->squares = arena_take(arena, sizes->n_pictures, square);
    s->image_rows = arena_take(arena, sizes->n_pictures * image_tokens(d),
                               (size_t)d->decoder.hidden * sizeof(float));
    const size_t mark = arena->used;
    if (sizes->n_pictures) {
        s->pixels = arena_take(arena, square, sizeof(float));
        vision_layout(&s->vision, arena, d);
        projector_layout(&s->projector, arena, d);
        arena_rewind(arena, mark);
    }
    decoder_layout(&s->decoder, arena, d, rows, smaller(rows, LOGIT_ROWS), sizes->n_ctx);
    s->plan.scratch = arena->most - s->plan.kv_cache;
    s->plan.weights = s->model->weights.n_bytes;
    if (__builtin_add_overflow(s->plan.weights, (uint64_t)arena->most, &s->plan.total))
        s->plan.total = UINT64_MAX;
}

void session_plan(const mvlm_model *model, const struct session_sizes *sizes, mvlm_memory *plan)
{
    struct mvlm_session measured = {.model = (mvlm_model *)(uintptr_t)model};
    layout(&measured, sizes);
    *plan = measured.plan;
}

mvlm_status session_prepare(struct mvlm_session *session, const struct session_sizes *sizes,
                            mvlm_error *error)
{
    mvlm_memory plan;
    session_plan(session->model, sizes, &plan);
    if (session->options.max_rss && plan.total > session->options.max_rss)
        return fail(error, MVLM_NO_MEMORY,
                    "this needs %llu bytes (weights %llu, key/value cache %llu, scratch %llu), the "
                    "budget is %llu",
                    (unsigned long long)plan.total, (unsigned long long)plan.weights,
                    (unsigned long long)plan.kv_cache, (unsigned long long)plan.scratch,
                    (unsigned long long)session->options.max_rss);
    const size_t needed = (size_t)(plan.kv_cache + plan.scratch);
    if (session->arena.n_bytes < needed) {
        arena_close(&session->arena);
        TRY(arena_open(&session->arena, needed, error));
    }
    session->arena.most = 0;
    session->sizes = *sizes;
    session->compute.n_threads = sizes->n_threads;
    layout(session, sizes);
    return MVLM_OK;
}

mvlm_status mvlm_session_plan(const mvlm_model *model, const mvlm_session_options *options,
                              size_t n_rows, size_t n_pictures, size_t max_tokens,
                              mvlm_memory *memory, mvlm_error *error)
{
    const mvlm_session_options defaults = {0};
    struct session_sizes sizes;
    TRY(session_sizes_of(model, options ? options : &defaults, n_rows, n_pictures, max_tokens,
                         &sizes, error));
    session_plan(model, &sizes, memory);
    return MVLM_OK;
}

mvlm_status mvlm_session_open(mvlm_model *model, const mvlm_session_options *options,
                              mvlm_session **session, mvlm_error *error)
{
    const mvlm_session_options defaults = {0};
    struct session_sizes sizes;
    *session = NULL;
    TRY(session_sizes_of(model, options ? options : &defaults, 1, 0, 1, &sizes,
                         error)); /* checks the options */
    struct mvlm_session *s = calloc(1, sizeof *s);
    if (!s)
        return fail_no_memory(error, "the session", sizeof *s);
    s->model = model;
    s->options = options ? *options : defaults;
    s->compute.kernels = model->kernels;
    *session = s;
    return MVLM_OK;
}

void mvlm_session_close(mvlm_session *session)
{
    if (!session)
        return;
    free(session->prompt.ids);
    arena_close(&session->arena);
    free(session);
}

void mvlm_session_cancel(mvlm_session *session)
{
    atomic_store_explicit(&session->compute.cancelled, 1, memory_order_relaxed);
}
