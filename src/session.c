#include "session.h"

#include "picture_kv.h"

#include <stdlib.h>
#include <string.h>

#include "attention.h"
#include "linear.h"
#include "norm.h"
#include "status.h"

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

enum tensor_type session_kv_type(const mvlm_model *model, mvlm_kv_type wanted)
{
    static const enum tensor_type types[] = {
        [MVLM_KV_F32] = TENSOR_F32, [MVLM_KV_F16] = TENSOR_F16, [MVLM_KV_Q8] = TENSOR_Q8};
    if (wanted != MVLM_KV_AUTO)
        return types[wanted];
    return model_matrix_type(model) == TENSOR_F32 ? TENSOR_F32 : TENSOR_Q8;
}

/* Must memory stay where it is from one question to the next? */
static bool keeps_caches(const mvlm_session_options *options)
{
    return options->keep_cache || options->n_sequences > 1;
}

mvlm_status session_sizes_of(const mvlm_model *model, const mvlm_session_options *options,
                             size_t n_rows, size_t n_pictures, size_t max_tokens,
                             struct session_sizes *sizes, mvlm_error *error)
{
    const size_t trained = (size_t)model->description.decoder.context;
    const size_t tokens = max_tokens ? max_tokens : DEFAULT_TOKENS;
    *sizes = (struct session_sizes){.keep_tower = options->keep_tower,
                                    .kv_type = session_kv_type(model, options->kv_type),
                                    .n_rows = n_rows ? n_rows : trained,
                                    .n_pictures = n_pictures,
                                    .keep_picture_kv = picture_kv_wanted(model, options),
                                    .n_sequences = options->n_sequences ? options->n_sequences : 1,
                                    .n_threads = options->n_threads ? options->n_threads
                                                                    : threads_available()};
    if (sizes->n_threads < 1 || sizes->n_threads > MAX_THREADS)
        return fail(error, MVLM_USAGE, "%d threads: at least 1 and at most %d", sizes->n_threads,
                    MAX_THREADS);
    if (sizes->n_sequences > MOST_SEQUENCES)
        return fail(error, MVLM_USAGE, "%zu sequences: at most %d", sizes->n_sequences,
                    MOST_SEQUENCES);
    if (options->n_ctx > (size_t)1 << 20)
        return fail(error, MVLM_USAGE, "context of %zu positions: at most %d", options->n_ctx,
                    1 << 20);
    if (n_pictures && !takes_pictures(&model->description))
        return fail(error, MVLM_USAGE, "%zu pictures for a text-only model", n_pictures);
    if (n_pictures > sizes->n_rows)
        return fail(error, MVLM_USAGE, "%zu pictures in a prompt of %zu positions", n_pictures,
                    sizes->n_rows);
    const size_t wanted = tokens < trained && !keeps_caches(options)
                              ? smaller(trained, sizes->n_rows + tokens)
                              : trained;
    sizes->n_ctx = options->n_ctx ? options->n_ctx : wanted;
    if (sizes->kv_type == TENSOR_Q8 && sizes->n_ctx > MOST_Q8_POSITIONS)
        return fail(error, MVLM_USAGE,
                    "context of %zu positions: at most %d in a cache of eight bits", sizes->n_ctx,
                    MOST_Q8_POSITIONS);
    if (n_rows > sizes->n_ctx)
        return fail(error, MVLM_USAGE,
                    "the prompt takes %zu positions (%zu of them pictures'), the context has %zu",
                    n_rows, n_pictures * image_tokens(&model->description), sizes->n_ctx);
    sizes->n_rows = smaller(sizes->n_rows, sizes->n_ctx);
    /* an answer cannot be longer than the context leaves room for */
    sizes->max_tokens = smaller(tokens, sizes->n_ctx - n_rows + 1);
    return MVLM_OK;
}

/* Keys and values of the tower's layers: eight bits where its matrices are quantized. */
static enum tensor_type tower_kv_type(const mvlm_model *model)
{
    const struct description *d = &model->description;
    return takes_pictures(d) && d->vision.n_layers &&
                   is_quantized(model->parameters.vision.layers[0].q.weight.type)
               ? TENSOR_Q8
               : TENSOR_F32;
}

/* Scratch of one thread, for whichever stage needs most. */
static size_t scratch_floats(const mvlm_model *model, const struct session_sizes *sizes)
{
    const struct description *d = &model->description;
    const size_t head_dim = (size_t)d->decoder.head_dim;
    size_t n = larger(attention_scratch_floats(sizes->kv_type, sizes->n_ctx, head_dim),
                      kv_cache_scratch_floats(head_dim));
    n = larger(n, linear_scratch_floats(model->most_inputs));
    n = larger(n, norm_scratch_floats(larger((size_t)d->decoder.hidden, (size_t)d->vision.width)));
    if (takes_pictures(d)) {
        const size_t tower_dim = (size_t)(d->vision.width / d->vision.n_heads);
        n = larger(n, attention_scratch_floats(tower_kv_type(model), vision_rows(d), tower_dim));
        n = larger(n, kv_cache_scratch_floats(tower_dim));
    }
    return n;
}

/* Rows that linear layers read at once. */
static size_t most_rows(const struct description *d, const struct session_sizes *sizes)
{
    /* a chunk of a prompt, or the newest id of each answer */
    const size_t rows = larger(smaller(sizes->n_rows, MAX_CHUNK), sizes->n_sequences);
    if (!sizes->n_pictures)
        return rows;
    const size_t side = larger(patches_a_side(d), projector_out_side(d));
    return larger(rows, larger(vision_rows(d), side * side));
}

/* Bytes of the mapped file that are in memory at once: a picture's sections are given back before the decoder reads, if
 * nobody keeps them. */
static uint64_t resident_weights(const mvlm_model *model, const struct session_sizes *sizes)
{
    const uint64_t front = model->weights.header.data.offset,
                   decoder = model->section_bytes[SECTION_DECODER];
    const uint64_t pictures =
        model->section_bytes[SECTION_VISION] + model->section_bytes[SECTION_PROJECTOR];
    if (!sizes->n_pictures)
        return front + decoder;
    if (sizes->keep_tower)
        return front + pictures + decoder;
    return front + (pictures > decoder ? pictures : decoder);
}

/* What each sequence has for itself. */
static void sequences_layout(struct mvlm_session *s, const struct session_sizes *sizes)
{
    const struct description *d = &s->model->description;
    struct arena *arena = &s->arena;
    struct sequence measured = {0};
    for (size_t i = 0; i < sizes->n_sequences; i++)
        kv_cache_layout(s->sequences ? &s->sequences[i].cache : &measured.cache, arena,
                        sizes->kv_type, (size_t)d->decoder.n_layers, (size_t)d->decoder.n_kv_heads,
                        (size_t)d->decoder.head_dim, sizes->n_ctx);
    s->plan.kv_cache = arena->used;
    for (size_t i = 0; i < sizes->n_sequences; i++) {
        struct sequence *q = s->sequences ? &s->sequences[i] : &measured;
        held_layout(&q->held, arena, sizes->n_ctx);
        q->logits = arena_take(arena, (size_t)d->decoder.vocab, sizeof(float));
        answer_layout(&q->answer, arena,
                      (sizes->max_tokens + 1) * (s->model->tokenizer->longest + JOINED_BYTES));
        if (i == 0)
            sampler_layout(&q->sampler, arena, s->model->tokenizer->n_pieces);
        else if (s->sequences) /* they draw one after the other */
            sampler_share(&q->sampler, &s->sequences[0].sampler);
    }
    const struct kv_cache *cache = s->sequences ? &s->sequences[0].cache : &measured.cache;
    s->picture_kv_bytes = sizes->keep_picture_kv && sizes->n_pictures
                              ? image_tokens(d) * kv_cache_position_bytes(cache)
                              : 0;
    s->picture_kv = arena_take(arena, s->picture_kv_bytes, 1);
}

/* Hands out the arena's memory; measures when it has none. */
static void layout(struct mvlm_session *s, const struct session_sizes *sizes)
{
    const struct description *d = &s->model->description;
    struct arena *arena = &s->arena;
    const size_t rows = smaller(sizes->n_rows, MAX_CHUNK);
    arena_rewind(arena, 0);
    sequences_layout(s, sizes);
    rope_layout(&s->rope, arena, d, sizes->n_ctx);
    s->compute.scratch_floats =
        aligned(scratch_floats(s->model, sizes), 16); /* threads do not share cache lines */
    s->compute.scratch =
        arena_take(arena, (size_t)sizes->n_threads * s->compute.scratch_floats, sizeof(float));
    linear_layout(&s->compute, arena, most_rows(d, sizes), s->model->most_inputs);
    s->token_bytes = arena_take(arena, s->model->tokenizer->longest + DETOKENIZED_MORE, 1);
    const size_t mark = arena->used;
    if (sizes->n_pictures) {
        s->pixels = arena_take(arena, 3 * (size_t)(d->image.size * d->image.size), sizeof(float));
        vision_layout(&s->vision, arena, d, tower_kv_type(s->model));
        projector_layout(&s->projector, arena, d);
        arena_rewind(arena, mark);
    }
    decoder_layout(&s->decoder, arena, d, larger(rows, sizes->n_sequences),
                   larger(smaller(rows, LOGIT_ROWS), sizes->n_sequences));
}

/* The plan, and the bytes of it that the arena has. */
static size_t measure(const mvlm_model *model, const struct session_sizes *sizes, mvlm_memory *plan)
{
    struct mvlm_session measured = {.model = (mvlm_model *)(uintptr_t)model};
    layout(&measured, sizes);
    *plan = measured.plan;
    plan->scratch = measured.arena.most - plan->kv_cache;
    if (sizes->n_pictures)
        plan->scratch += sizes->n_pictures * image_bytes(&model->description);
    plan->weights = resident_weights(model, sizes);
    if (__builtin_add_overflow(plan->weights, plan->kv_cache + plan->scratch, &plan->total))
        plan->total = UINT64_MAX;
    return measured.arena.most;
}

void session_plan(const mvlm_model *model, const struct session_sizes *sizes, mvlm_memory *plan)
{
    measure(model, sizes, plan);
}

/* The sizes that memory is made for. */
static struct session_sizes memory_sizes(const mvlm_model *model,
                                         const mvlm_session_options *options,
                                         const struct session_sizes *sizes,
                                         size_t n_pictures_before)
{
    struct session_sizes memory = *sizes;
    if (keeps_caches(options)) {
        memory.n_rows = memory.max_tokens = memory.n_ctx;
        memory.n_pictures = larger(takes_pictures(&model->description),
                                   larger(sizes->n_pictures, n_pictures_before));
    }
    return memory;
}

/* Lays the memory out, in a new block where the old one is too small; caches that are elsewhere now
 * hold nothing. */
static mvlm_status lay_out_anew(struct mvlm_session *session, const struct session_sizes *memory,
                                size_t needed, mvlm_error *error)
{
    const bool stays = keeps_caches(&session->options) && session->arena.n_bytes >= needed &&
                       session->sizes.n_ctx == memory->n_ctx;
    const size_t n_positions = stays ? session->rope.n_positions : 0;
    for (size_t i = 0; !stays && i < memory->n_sequences; i++)
        held_cut(&session->sequences[i].held, 0);
    if (session->arena.n_bytes < needed) {
        arena_close(&session->arena);
        TRY(arena_open(&session->arena, needed, error));
    }
    session->arena.most = 0;
    session->sizes = *memory;
    layout(session, memory);
    session->rope.n_positions = n_positions;
    return MVLM_OK;
}

static bool same_sizes(const struct session_sizes *a, const struct session_sizes *b)
{
    return a->n_ctx == b->n_ctx && a->n_rows == b->n_rows && a->n_pictures == b->n_pictures &&
           a->max_tokens == b->max_tokens && a->n_sequences == b->n_sequences &&
           a->n_threads == b->n_threads && a->kv_type == b->kv_type &&
           a->keep_picture_kv == b->keep_picture_kv;
}

mvlm_status session_prepare(struct mvlm_session *session, const struct session_sizes *sizes,
                            mvlm_error *error)
{
    struct session_sizes memory =
        memory_sizes(session->model, &session->options, sizes, session->sizes.n_pictures);
    mvlm_memory plan;
    size_t needed = measure(session->model, &memory, &plan);
    if (memory.keep_picture_kv && session->options.max_rss &&
        plan.total > session->options.max_rss) { /* it only saves time */
        memory.keep_picture_kv = false;
        needed = measure(session->model, &memory, &plan);
    }
    if (session->options.max_rss && plan.total > session->options.max_rss)
        return fail(error, MVLM_NO_MEMORY,
                    "this needs %llu bytes (weights %llu, key/value cache %llu, scratch %llu), the "
                    "budget is %llu",
                    (unsigned long long)plan.total, (unsigned long long)plan.weights,
                    (unsigned long long)plan.kv_cache, (unsigned long long)plan.scratch,
                    (unsigned long long)session->options.max_rss);
    session->plan = plan;
    return session->arena.block && same_sizes(&memory, &session->sizes)
               ? MVLM_OK
               : lay_out_anew(session, &memory, needed, error);
}

mvlm_status mvlm_session_plan(const mvlm_model *model, const mvlm_session_options *options,
                              size_t n_rows, size_t n_pictures, size_t max_tokens,
                              mvlm_memory *memory, mvlm_error *error)
{
    const mvlm_session_options defaults = {0}, *o = options ? options : &defaults;
    struct session_sizes sizes;
    TRY(session_sizes_of(model, o, n_rows, n_pictures, max_tokens, &sizes, error));
    sizes = memory_sizes(model, o, &sizes, 0);
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
    s->options.n_threads = sizes.n_threads;
    s->compute.kernels = model->kernels;
    s->compute.team = team_open(sizes.n_threads);
    if (!s->compute.team) {
        free(s);
        return fail(error, MVLM_NO_MEMORY, "%d threads cannot be started", sizes.n_threads);
    }
    s->compute.weights = &model->weights;
    s->options.n_sequences = sizes.n_sequences;
    s->sequences = calloc(sizes.n_sequences, sizeof *s->sequences);
    if (!s->sequences) {
        mvlm_session_close(s);
        return fail_no_memory(error, "sequences", sizes.n_sequences * sizeof *s->sequences);
    }
    const mvlm_status status =
        image_cache_open(&s->images, s->options.cache_folder, s->options.cache_bytes, error);
    if (status != MVLM_OK) {
        mvlm_session_close(s);
        return status;
    }
    for (size_t i = 0; i < sizes.n_sequences && takes_pictures(&model->description); i++)
        s->sequences[i].held.image_tokens = image_tokens(&model->description);
    *session = s;
    return MVLM_OK;
}

void sequence_close_images(struct sequence *sequence)
{
    for (size_t i = 0; i < sequence->n_own_images; i++)
        mvlm_image_close(sequence->own_images[i]);
    free(sequence->own_images);
    sequence->own_images = NULL;
    sequence->n_own_images = 0;
}

void mvlm_session_close(mvlm_session *session)
{
    if (!session)
        return;
    team_close(session->compute.team);
    for (size_t i = 0; session->sequences && i < session->options.n_sequences; i++) {
        struct sequence *sequence = &session->sequences[i];
        sequence_close_images(sequence);
        free(sequence->prompt.ids);
    }
    free(session->sequences);
    image_cache_close(&session->images);
    arena_close(&session->arena);
    free(session);
}

void mvlm_session_cancel(mvlm_session *session)
{
    atomic_store_explicit(&session->compute.cancelled, 1, memory_order_relaxed);
}

void mvlm_session_observe(mvlm_session *session, mvlm_observer_fn observer, void *user)
{
    session->compute.observer = observer;
    session->compute.observer_user = user;
}

/* ---- Calls ------------------------------------------------------------------------------ */

/* A cancelled call uses the flag up; the question's progress is not that of the calls that follow.
 */
mvlm_status session_finish(struct mvlm_session *session, struct sequence *sequence,
                           mvlm_status status, mvlm_error *error)
{
    const size_t n = sequence ? 1 : session->options.n_sequences;
    session->compute.progress = NULL;
    if (weights_intact(&session->model->weights, error) != MVLM_OK)
        status = MVLM_BAD_MODEL;
    for (struct sequence *q = sequence ? sequence : session->sequences, *end = q + n; q < end;
         q++) {
        q->counters.linear_ms += 1e3 * session->compute.linear_seconds;
        if (status != MVLM_OK)
            q->state = SESSION_IDLE;
    }
    session->compute.linear_seconds = 0;
    if (status == MVLM_CANCELLED)
        atomic_store_explicit(&session->compute.cancelled, 0, memory_order_relaxed);
    return status;
}
