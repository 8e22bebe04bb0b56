/* batch: many pictures through one opened model. Items come ready from batch_feed, several are
 * answered together, and each becomes a record as it is done. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "batch.h"
#include "batch_merge.h"
#include "system_files.h"

/* ---- Answering -------------------------------------------------------------------------- */

static bool is_late(const struct slot *slot)
{
    const double most = slot->batch->values->item_seconds;
    return most > 0 && monotonic_seconds() - slot->started > most;
}

static void set_late(const struct slot *slot, mvlm_error *why)
{
    cli_fail(why, MVLM_OUT_OF_TIME, "took longer than %g seconds (--timeout-per-item)",
             slot->batch->values->item_seconds);
}

/* While a picture is encoded and its prompt read. */
static int watch(void *user, const char *stage, double share)
{
    const struct slot *slot = user;
    (void)stage;
    (void)share;
    tell_progress(slot->batch);
    return is_late(slot);
}

/* Time that went into one item's picture and prompt is not held against the others. */
static void pass_over(struct batch *b, const struct slot *slot, double seconds)
{
    for (size_t i = 0; i < b->n_slots; i++)
        if (b->slots[i].busy && &b->slots[i] != slot)
            b->slots[i].started += seconds;
}

static void end_slot(struct batch *b, struct slot *slot)
{
    work_free(&b->feed, &slot->work);
    slot->busy = false;
    b->n_busy--;
}

static mvlm_status add_text(struct slot *slot, const char *text, size_t n_bytes, mvlm_error *error)
{
    return buffer_add(&slot->text, text, n_bytes)
               ? MVLM_OK
               : cli_fail(error, MVLM_NO_MEMORY, "out of memory for an answer");
}

/* The likeliest of the choices is the answer. */
static mvlm_status put_choice(struct batch *b, size_t index, mvlm_error *error)
{
    const char *best = choices_best(&b->choices);
    const mvlm_status status = add_text(&b->slots[index], best, strlen(best), error);
    return status == MVLM_OK ? put_answer(b, index, MVLM_STOP, error) : status;
}

/* Begins the slot's item; what fails becomes its record. */
static mvlm_status begin_item(struct batch *b, size_t index, mvlm_error *error)
{
    struct slot *slot = &b->slots[index];
    const struct item *item = &slot->work.item;
    const double start = monotonic_seconds();
    struct asked asked;
    mvlm_error why = {0};
    if (item->error)
        why = *item->error;
    slot->busy = true;
    slot->text.n = 0;
    slot->started = start - slot->work.seconds;
    b->n_busy++;
    if (why.status == MVLM_OK && item_asked(b->values, b->prompt, item, &asked)) {
        mvlm_question question = question_of(b->values, asked.seed);
        slot->turn = (mvlm_turn){.question = asked.prompt};
        question.turns = &slot->turn;
        question.n_turns = 1;
        question.max_tokens = (size_t)asked.max_tokens;
        question.images = slot->work.kept ? &slot->work.kept->image : NULL;
        question.n_pictures = slot->work.kept != NULL;
        question.progress = watch;
        question.progress_user = slot;
        if (b->choices.n)
            choices_ask(&b->choices, b->session, index, &question, &why);
        else
            mvlm_sequence_begin(b->session, index, &question, &why);
        if (why.status == MVLM_CANCELLED)
            set_late(slot, &why);
        pass_over(b, slot, monotonic_seconds() - start);
    }
    if (why.status == MVLM_OK && b->choices.n == 0)
        return MVLM_OK;
    const mvlm_status status = why.status == MVLM_OK ? put_choice(b, index, error)
                                                     : put_failure(b, &slot->work, &why, error);
    end_slot(b, slot);
    return status;
}

/* What a step made of a slot's answer. */
static mvlm_status take_piece(struct batch *b, size_t index, mvlm_error *error)
{
    struct slot *slot = &b->slots[index];
    const mvlm_piece *piece = &b->pieces[index];
    mvlm_error why = {0};
    mvlm_status status = add_text(slot, piece->text, piece->n_bytes, error);
    if (status != MVLM_OK || (piece->finish == MVLM_UNFINISHED && !is_late(slot)))
        return status;
    if (piece->finish != MVLM_UNFINISHED)
        status = put_answer(b, index, piece->finish, error);
    else {
        mvlm_sequence_end(b->session, index);
        set_late(slot, &why);
        status = put_failure(b, &slot->work, &why, error);
    }
    end_slot(b, slot);
    return status;
}

/* ---- The loop --------------------------------------------------------------------------- */

/* Why no further item is begun; MVLM_OK: there is no reason. */
static mvlm_status reason_to_stop(const struct batch *b, mvlm_error *error)
{
    const struct values *v = b->values;
    if (stopped_by)
        return cli_fail(error, MVLM_CANCELLED, "stopped by a signal");
    if (v->deadline > 0 && monotonic_seconds() - b->started > v->deadline)
        return cli_fail(error, MVLM_OUT_OF_TIME, "the deadline of %g seconds has passed",
                        v->deadline);
    if (v->max_errors && b->n_failed >= (size_t)v->max_errors)
        return cli_fail(error, SOME_FAILED, "stopped after %zu failures (--max-errors)",
                        b->n_failed);
    return MVLM_OK;
}

/* Gives every free slot an item, as long as there are any; waits for one only when none is under way.
 */
static mvlm_status fill_slots(struct batch *b, bool *more, mvlm_error *error)
{
    for (size_t i = 0; i < b->n_slots && *more; i++) {
        while (*more && !b->slots[i].busy) {
            mvlm_status status = reason_to_stop(b, error);
            if (status != MVLM_OK)
                return status;
            *more = feed_take(&b->feed, b->n_busy == 0, &b->slots[i].work);
            if (!b->slots[i].work.item.id)
                break;
            if ((status = begin_item(b, i, error)) != MVLM_OK)
                return status;
            tell_progress(b);
        }
    }
    return MVLM_OK;
}

static bool is_reason(mvlm_status status)
{
    return status == MVLM_CANCELLED || status == MVLM_OUT_OF_TIME || status == SOME_FAILED;
}

/* Until all is answered; or, where there is a reason to stop, what is under way. */
static mvlm_status run_items(struct batch *b, mvlm_error *error)
{
    mvlm_status stopping = MVLM_OK, status;
    bool more = true;
    mvlm_error reason = {0};
    while (more || b->n_busy) {
        if (more) {
            stopping = fill_slots(b, &more, &reason);
            if (stopping != MVLM_OK && !is_reason(stopping))
                return cli_fail(error, stopping, "%s", reason.message);
            more = more && stopping == MVLM_OK;
        }
        tell_progress(b);
        if (b->n_busy == 0)
            continue;
        pace(b->values);
        if ((status = mvlm_step(b->session, b->pieces, error)) != MVLM_OK)
            return status;
        for (size_t i = 0; i < b->n_slots; i++)
            if (b->slots[i].busy && (status = take_piece(b, i, error)) != MVLM_OK)
                return status;
    }
    if (stopping == MVLM_OK && b->feed.error.status != MVLM_OK)
        reason = b->feed.error;
    return reason.status == MVLM_OK ? MVLM_OK
                                    : cli_fail(error, reason.status, "%s", reason.message);
}

/* ---- Opening ---------------------------------------------------------------------------- */

/* Bytes that may be had without harm to others; 0: not known. */
static uint64_t available_memory(void)
{
    char value[64];
    return read_key("/proc/meminfo", "MemAvailable", value, sizeof value)
               ? strtoull(value, NULL, 10) * 1024
               : 0;
}

/* What n answers together take, with the pictures that are kept ready for them. */
static mvlm_status plan_memory(const struct batch *b, mvlm_session_options *options, size_t n,
                               mvlm_memory *memory, mvlm_error *error)
{
    const size_t n_pictures = b->info.image_tokens ? feed_images(n) : 0;
    options->n_sequences = n;
    return mvlm_session_plan(b->model, options, 0, n_pictures, 1, memory, error);
}

/* As many answers together as were asked for, or as half of the memory has room for. */
static mvlm_status choose_parallel(struct batch *b, mvlm_session_options *options,
                                   mvlm_error *error)
{
    enum { MOST = 12 }; /* rows that the kernels take at once (bench -p 12,13) */
    const uint64_t most = b->values->max_rss, budget = most ? most : available_memory() / 2;
    size_t n = b->values->parallel ? (size_t)b->values->parallel : MOST;
    mvlm_status status = plan_memory(b, options, n, &b->memory, error);
    while (status == MVLM_OK && !b->values->parallel && n > 1 && budget && b->memory.total > budget)
        status = plan_memory(b, options, --n, &b->memory, error);
    if (status == MVLM_OK && most && b->memory.total > most)
        return cli_fail(error, MVLM_NO_MEMORY,
                        "%zu answers together take %.1f MB, --max-rss allows %.1f MB", n,
                        (double)b->memory.total / 1e6, (double)most / 1e6);
    return status;
}

/* Positions that the longest item needs: known where all have one prompt, which then must fit. */
static mvlm_status choose_context(const struct batch *b, mvlm_session_options *options,
                                  mvlm_error *error)
{
    size_t n_rows = 0, n_tokens = (size_t)b->values->max_tokens;
    mvlm_turn turn = {.question = b->prompt};
    mvlm_question question = question_of(b->values, 0);
    if (b->values->jsonl_in)
        return MVLM_OK;
    question.turns = &turn;
    question.n_turns = 1;
    question.n_pictures = 1;
    const mvlm_status status = mvlm_question_rows(b->model, &question, &n_rows, error);
    if (status != MVLM_OK)
        return status;
    for (size_t i = 0; i < b->choices.n; i++) /* as mvlm_sequence_choose has it */
        if (n_tokens < strlen(b->choices.items[i]) + 2)
            n_tokens = strlen(b->choices.items[i]) + 2;
    if (options->n_ctx == 0)
        options->n_ctx =
            n_rows + n_tokens < b->info.context_size ? n_rows + n_tokens : b->info.context_size;
    return n_rows <= options->n_ctx
               ? MVLM_OK
               : cli_fail(error, MVLM_USAGE, "the prompt takes %zu positions, the context has %zu",
                          n_rows, options->n_ctx);
}

static mvlm_status open_session(struct batch *b, mvlm_error *error)
{
    mvlm_session_options options;
    session_options_of(b->values, &options);
    options.keep_cache = options.keep_tower = true;
    mvlm_status status = choose_context(b, &options, error);
    if (status == MVLM_OK)
        status = choose_parallel(b, &options, error);
    if (status == MVLM_OK)
        status = mvlm_session_open(b->model, &options, &b->session, error);
    if (status != MVLM_OK)
        return status;
    b->n_slots = options.n_sequences;
    b->slots = calloc(b->n_slots, sizeof *b->slots);
    b->pieces = calloc(b->n_slots, sizeof *b->pieces);
    for (size_t i = 0; b->slots && i < b->n_slots; i++)
        b->slots[i].batch = b;
    return b->slots && b->pieces ? MVLM_OK : cli_fail(error, MVLM_NO_MEMORY, "out of memory");
}

/* The output, with the options of all items where they are the same. */
static mvlm_status open_records(struct batch *b, mvlm_error *error)
{
    const struct values *v = b->values;
    const struct item any = {0};
    struct asked asked;
    char options[33] = "";
    if (!v->jsonl_in && item_asked(v, b->prompt, &any, &asked))
        options_digest(v, &asked, options);
    return records_open(&b->records, v, b->info.digest, options, error);
}

/* The folder of the sidecars is made, or its fault found, before anything runs. */
static mvlm_status check_sidecars(const struct values *v, mvlm_error *error)
{
    if (!v->sidecar_dir)
        return MVLM_OK;
    if (!v->sidecar)
        return cli_fail(error, MVLM_USAGE, "--sidecar-dir needs --sidecar EXT");
    if (mkdir(v->sidecar_dir, 0777) != 0 && errno != EEXIST)
        return cli_fail(error, MVLM_BAD_OUTPUT, "%s: cannot be made: %s", v->sidecar_dir,
                        strerror(errno));
    return MVLM_OK;
}

static mvlm_status open_batch(struct batch *b, mvlm_error *error)
{
    const struct values *v = b->values;
    b->started = monotonic_seconds();
    mvlm_status status = open_model(v, &b->model, error);
    b->load_ms = 1e3 * (monotonic_seconds() - b->started);
    if (status == MVLM_OK)
        mvlm_model_describe(b->model, &b->info);
    if (status == MVLM_OK && (v->prompt || v->file || !v->jsonl_in))
        status = prompt_of_options(v, &b->prompt_file, &b->prompt, error);
    if (status == MVLM_OK)
        status = choices_open(&b->choices, v, error);
    if (status == MVLM_OK)
        status = check_sidecars(v, error);
    if (status == MVLM_OK)
        status = items_open(&b->source, v, v->words, error);
    if (status == MVLM_OK)
        status = open_session(b, error);
    if (status == MVLM_OK)
        status = open_records(b, error);
    if (status != MVLM_OK)
        return status;
    b->feed.values = v;
    b->feed.model = b->model;
    b->feed.records = &b->records;
    b->feed.source = &b->source;
    b->feed.prompt = b->prompt;
    return feed_open(&b->feed, b->n_slots, error);
}

static mvlm_status close_batch(struct batch *b, mvlm_status status, mvlm_error *error)
{
    for (size_t i = 0; b->slots && i < b->n_slots; i++) {
        if (b->slots[i].busy)
            end_slot(b, &b->slots[i]);
        free(b->slots[i].text.bytes);
    }
    feed_close(&b->feed);
    items_close(&b->source);
    status = records_close(&b->records, status, error);
    choices_close(&b->choices);
    free(b->slots);
    free(b->pieces);
    free(b->prompt_file.bytes);
    mvlm_session_close(b->session);
    mvlm_model_close(b->model);
    return status;
}

/* "I/N" -> shard_index, shard_count. */
static mvlm_status read_shard(struct values *values, mvlm_error *error)
{
    char *slash, *end = NULL;
    if (!values->shard)
        return MVLM_OK;
    errno = 0;
    const long long index = strtoll(values->shard, &slash, 10),
                    count = *slash == '/' ? strtoll(slash + 1, &end, 10) : 0;
    if (slash == values->shard || !end || *end || errno || index < 0 || index >= count)
        return cli_fail(error, MVLM_USAGE, "--shard: \"%.60s\" is no I/N with I from 0 to N - 1",
                        values->shard);
    values->shard_index = index;
    values->shard_count = count;
    return MVLM_OK;
}

mvlm_status run_batch(const struct values *given, mvlm_error *error)
{
    struct values values = *given;
    struct batch batch = {.values = &values};
    if (values.merge)
        return merge_records(&values, error);
    progress_start(&batch.bar, values.quiet);
    mvlm_status status = read_shard(&values, error);
    if (status == MVLM_OK)
        status = open_batch(&batch, error);
    if (status == MVLM_OK) {
        tell_start(&batch);
        catch_signals(NULL); /* the first one lets the records at hand be finished */
        status = run_items(&batch, error);
        tell_summary(&batch);
    }
    const size_t n_failed = batch.n_failed;
    status = close_batch(&batch, status, error);
    return status == MVLM_OK && n_failed ? SOME_FAILED : status;
}
