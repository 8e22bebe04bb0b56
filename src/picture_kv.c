#include "picture_kv.h"

bool picture_kv_wanted(const struct mvlm_model *model, const mvlm_session_options *options)
{
    return model->description.decoder.composite_attention && options->cache_folder;
}

bool picture_kv_is_kept(const struct mvlm_session *s, const struct sequence *q, size_t first)
{
    return s->picture_kv_bytes && first > 0 && q->prompt.n && q->prompt.ids[0] != MVLM_IMAGE_ID;
}

/* What they depend on beside the model and the picture. */
enum {
    KV_REVISION = 1
}; /* grows with every change of a graph, kernel or layout that changes these bytes */
struct context {
    uint64_t first;
    int32_t type, first_id;
    uint64_t revision;
};

static struct context context_of(const struct sequence *q, size_t first)
{
    return (struct context){first, (int32_t)q->cache.type, q->prompt.ids[0], KV_REVISION};
}

static struct cache_key key_of(const struct mvlm_session *s, const struct mvlm_image *image,
                               const struct context *context)
{
    return (struct cache_key){.model = s->model->weights.digest,
                              .picture = image->digest_text,
                              .context = context,
                              .n_context = sizeof *context};
}

bool picture_kv_find(struct mvlm_session *s, const struct sequence *q,
                     const struct mvlm_image *image, size_t first)
{
    const struct context context = context_of(q, first);
    const struct cache_key key = key_of(s, image, &context);
    if (!image_cache_read(&s->images, &key, s->picture_kv, s->picture_kv_bytes))
        return false;
    kv_cache_load(&s->compute, &q->cache, first, image_tokens(&s->model->description),
                  s->picture_kv);
    return true;
}

void picture_kv_keep(struct mvlm_session *s, const struct sequence *q,
                     const struct mvlm_image *image, size_t first)
{
    const struct context context = context_of(q, first);
    const struct cache_key key = key_of(s, image, &context);
    kv_cache_save(&s->compute, &q->cache, first, image_tokens(&s->model->description),
                  s->picture_kv);
    image_cache_write(&s->images, &key, s->picture_kv, s->picture_kv_bytes);
}
