#include "batch.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

/* ---- Progress --------------------------------------------------------------------------- */

static size_t n_done(const struct batch *b)
{
    return b->n_answered + b->n_failed;
}

/* Items in all; 0: not known, they come from standard input. */
static size_t n_total(const struct batch *b)
{
    return b->source.streams ? 0 : b->source.n;
}

static void tell_json(struct batch *b)
{
    const double seconds = monotonic_seconds() - b->started,
                 rate = (double)n_done(b) / (seconds + 1e-9);
    const size_t total = n_total(b), skipped = atomic_load(&b->feed.n_skipped),
                 left = total > n_done(b) + skipped ? total - n_done(b) - skipped : 0;
    char known[64] = "";
    if (total)
        snprintf(known, sizeof known, ", \"total\": %zu, \"eta_s\": %.1f", total,
                 rate > 0 ? (double)left / rate : 0.0);
    fprintf(stderr,
            "{\"seconds\": %.1f, \"answered\": %zu, \"failed\": %zu, \"skipped\": %zu%s, "
            "\"pictures_per_second\": %.3f, \"rss_bytes\": %llu}\n",
            seconds, b->n_answered, b->n_failed, skipped, known, rate,
            (unsigned long long)peak_memory());
}

void tell_start(const struct batch *b)
{
    if (b->values->verbose)
        fprintf(stderr,
                "kernels %s, %zu answers together, planned memory: weights %.1f MB, key/value "
                "caches %.1f MB, scratch "
                "and pictures %.1f MB, in all %.1f MB\n",
                b->info.isa, b->n_slots, (double)b->memory.weights / 1e6,
                (double)b->memory.kv_cache / 1e6, (double)b->memory.scratch / 1e6,
                (double)b->memory.total / 1e6);
}

void tell_progress(struct batch *b)
{
    const size_t total = n_total(b), done = n_done(b) + atomic_load(&b->feed.n_skipped);
    if (b->values->progress_json && monotonic_seconds() - b->told >= 1) {
        b->told = monotonic_seconds();
        tell_json(b);
    } else if (!b->values->progress_json && total)
        progress_show(&b->bar, "pictures", (double)done / (double)total);
}

void tell_summary(struct batch *b)
{
    const double seconds = monotonic_seconds() - b->started;
    progress_clear(&b->bar);
    if (b->values->progress_json)
        tell_json(b);
    if (b->values->quiet)
        return;
    fprintf(stderr, "%zu answered, %zu failed, %zu skipped in %.1f s: %.2f a second%s\n",
            b->n_answered, b->n_failed, atomic_load(&b->feed.n_skipped), seconds,
            (double)n_done(b) / (seconds + 1e-9),
            b->records.mended ? " (a torn last line of the output was cut off)" : "");
}

/* ---- Records ---------------------------------------------------------------------------- */

/* id, path and image_digest, which every record has. */
static void add_identity(json_t **record, const struct work *work)
{
    const struct item *item = &work->item;
    char *bytes = item->path ? path_id(item->path) : NULL;
    json_put(record, "id", json_text(item->id));
    if (item->path)
        json_put(record, "path", json_text(item->path));
    if (item->path && (!bytes || strcmp(bytes, item->path) != 0)) /* which JSON cannot hold */
        json_put(record, "path_bytes", bytes ? json_string(bytes + strlen("bytes:")) : NULL);
    if (item->prompt) /* else the one of all */
        json_put(record, "prompt", json_text(item->prompt));
    if (item->max_tokens)
        json_put(record, "max_tokens", json_integer(item->max_tokens));
    if (*work->image_digest)
        json_put(record, "image_digest", json_string(work->image_digest));
    free(bytes);
}

static mvlm_status put_record(struct batch *b, json_t *record, const struct work *work,
                              mvlm_error *error)
{
    add_identity(&record, work);
    return records_put(&b->records, record, error);
}

mvlm_status put_failure(struct batch *b, const struct work *work, const mvlm_error *why,
                        mvlm_error *error)
{
    struct asked asked;
    char digest[33] = "";
    json_t *record = json_pack("{s:{s:i, s:o}, s:s}", "error", "code", (int)why->status, "message",
                               json_text(why->message), "model_digest", b->info.digest);
    if (item_asked(b->values, b->prompt, &work->item, &asked)) {
        options_digest(b->values, &asked, digest);
        json_put(&record, "options_digest", json_string(digest));
    }
    b->n_failed++;
    return put_record(b, record, work, error);
}

/* The sidecar first, so that a record tells that it is there. */
mvlm_status put_answer(struct batch *b, size_t index, mvlm_finish finish, mvlm_error *error)
{
    const struct slot *slot = &b->slots[index];
    const struct values *v = b->values;
    struct asked asked;
    mvlm_status status = MVLM_OK;
    item_asked(v, b->prompt, &slot->work.item, &asked);
    if (v->sidecar && slot->work.item.path) {
        char *path = sidecar_path(v, slot->work.item.path);
        status = path ? write_sidecar(path, slot->text.bytes ? slot->text.bytes : "", slot->text.n,
                                      error)
                      : cli_fail(error, MVLM_NO_MEMORY, "out of memory");
        free(path);
    }
    if (status == MVLM_OK) {
        json_t *record = answer_record(b->model, b->session, index, v, &asked, b->load_ms, finish,
                                       slot->text.bytes, slot->text.n);
        if (b->choices.n)
            json_put(&record, "choices", choices_json(&b->choices));
        status = put_record(b, record, &slot->work, error);
    }
    if (status == MVLM_OK)
        b->n_answered++;
    return status;
}
