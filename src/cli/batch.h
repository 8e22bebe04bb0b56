/* A batch as it runs: what is shared by its loop (batch.c) and its reports (batch_report.c). */
#ifndef CLI_BATCH_H
#define CLI_BATCH_H

#include "ask.h"
#include "batch_feed.h"
#include "record.h"

/* An item that is being answered, in the session's sequence of the same number. */
struct slot {
    struct batch *batch;
    bool busy;
    struct work work;
    mvlm_turn turn;
    double started; /* seconds */
    struct buffer text;
};

struct batch {
    const struct values *values;
    struct file_bytes prompt_file;
    const char *prompt; /* NULL: each item has its own */
    mvlm_model *model;
    mvlm_session *session;
    mvlm_model_info info;
    double load_ms, started;
    struct item_source source;
    struct records records;
    struct feed feed;
    struct choices choices;
    struct slot *slots; /* [n_slots] */
    mvlm_piece *pieces;
    size_t n_slots, n_busy;
    mvlm_memory memory; /* as planned */
    size_t n_answered, n_failed;
    struct progress_bar bar;
    double told; /* when --progress-json last said something */
};

/* With -v: kernels, how many answers together, memory. */
void tell_start(const struct batch *batch);

/* The progress bar, or with --progress-json a line, when it is time for one. */
void tell_progress(struct batch *batch);

/* What became of it all, at the end. */
void tell_summary(struct batch *batch);

/* The record of a failed item. */
mvlm_status put_failure(struct batch *batch, const struct work *work, const mvlm_error *why,
                        mvlm_error *error);

/* The sidecar and the record of slot `index`'s answer. */
mvlm_status put_answer(struct batch *batch, size_t index, mvlm_finish finish, mvlm_error *error);

#endif
