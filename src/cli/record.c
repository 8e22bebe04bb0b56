#include "record.h"

#include <string.h>
#define XXH_STATIC_LINKING_ONLY /* the streaming state on the stack */
#include <xxhash.h>

void hash_text(XXH128_hash_t hash, char text[33])
{
    XXH128_canonical_t digest;
    XXH128_canonicalFromHash(&digest, hash);
    for (size_t i = 0; i < 16; i++)
        snprintf(text + 2 * i, 3, "%02x", digest.digest[i]);
}

/* Each value with its end, hashed; what may be absent begins with a byte that says so. */
void options_digest(const struct values *v, const struct asked *asked, char text[33])
{
    char numbers[256];
    snprintf(numbers, sizeof numbers,
             "raw %d n %lld temp %.9g k %lld p %.9g min %.9g repeat %.9g seed %lld kv %d c %lld",
             v->raw, (long long)asked->max_tokens, v->temperature, (long long)v->top_k, v->top_p,
             v->min_p, v->repeat_penalty, (long long)(v->temperature > 0 ? asked->seed : 0),
             v->kv_type, (long long)v->context);
    XXH3_state_t state;
    XXH3_128bits_reset(&state);
    XXH3_128bits_update(&state, numbers, strlen(numbers) + 1);
    XXH3_128bits_update(&state, asked->prompt, strlen(asked->prompt) + 1);
    XXH3_128bits_update(&state, v->system ? "s" : "", 1);
    if (v->system)
        XXH3_128bits_update(&state, v->system, strlen(v->system) + 1);
    XXH3_128bits_update(&state, v->choices ? "c" : "", 1);
    if (v->choices)
        XXH3_128bits_update(&state, v->choices, strlen(v->choices) + 1);
    for (size_t i = 0; i < v->stops.n; i++)
        XXH3_128bits_update(&state, v->stops.items[i], strlen(v->stops.items[i]) + 1);
    hash_text(XXH3_128bits_digest(&state), text);
}

static json_t *timings(double load_ms, const mvlm_counters *c)
{
    return json_pack("{s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f}", "load", load_ms, "jpeg",
                     c->decode_picture_ms, "preprocess", c->preprocess_ms, "encode", c->encode_ms,
                     "project", c->project_ms, "prefill", c->prefill_ms, "generate", c->generate_ms,
                     "linear", c->linear_ms);
}

static const char *finish_name(mvlm_finish finish)
{
    static const char *const names[] = {"", "stop", "length", "stop_text"};
    return names[finish];
}

json_t *answer_record(const mvlm_model *model, const mvlm_session *session, size_t index,
                      const struct values *values, const struct asked *asked, double load_ms,
                      mvlm_finish finish, const char *text, size_t n_text)
{
    mvlm_counters c;
    mvlm_model_info info;
    char digest[33];
    int cores[MOST_CORES];
    const size_t n_cores = granted_cores(cores);
    mvlm_sequence_counters(session, index, &c);
    mvlm_model_describe(model, &info);
    options_digest(values, asked, digest);
    return json_pack("{s:s%, s:s, s:I, s:I, s:I, s:o, s:s, s:s, s:I, s:s, s:i, s:o, s:I, s:I}",
                     "text", text ? text : "", n_text, "finish_reason", finish_name(finish),
                     "prompt_tokens", (json_int_t)c.prompt_tokens, "image_tokens",
                     (json_int_t)c.image_tokens, "generated_tokens", (json_int_t)c.generated_tokens,
                     "timings_ms", timings(load_ms, &c), "model_digest", info.digest,
                     "options_digest", digest, "seed", (json_int_t)asked->seed, "isa", info.isa,
                     "threads", c.n_threads, "cores", cores_json(cores, n_cores), "peak_rss_bytes",
                     (json_int_t)peak_memory(), "planned_bytes", (json_int_t)c.memory.total);
}
