/* The next pictures of a batch, read, decoded and resized on a thread of their own while others are
 * answered. */
#ifndef CLI_BATCH_FEED_H
#define CLI_BATCH_FEED_H

#include <pthread.h>

#include "batch_items.h"
#include "batch_records.h"

/* A picture that may stand behind several items: its file's digest, and its image. */
struct kept_image {
    char digest[33];
    mvlm_image *image; /* NULL: the place is free */
    size_t n_users, last_used;
};

/* An item that is ready: item.error is set when it cannot be answered. */
struct work {
    struct item item;
    double seconds;          /* that reading and decoding took */
    char image_digest[33];   /* of the picture's bytes; "" without one */
    struct kept_image *kept; /* NULL: no picture */
};

struct feed {
    const struct values *values;
    mvlm_model *model;
    const struct records *records;
    struct item_source *source;
    const char *prompt, *model_digest; /* prompt NULL: items have their own */
    pthread_t thread;
    bool started;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct work *ring; /* [capacity] */
    size_t capacity, first, n;
    bool ended, stopping;
    struct kept_image *images; /* [n_images] */
    size_t n_images, clock;
    atomic_size_t n_skipped;
    mvlm_error error; /* what ends the batch */
};

/* Items that are prepared ahead for `n_slots` that are answered together. */
size_t feed_capacity(size_t n_slots);

/* Images that are in memory at most: those of the items under way, and some for a picture that comes again. */
size_t feed_images(size_t n_slots);

/* Starts preparing. */
mvlm_status feed_open(struct feed *feed, size_t n_slots, mvlm_error *error);

/* Takes the next item; with `wait` it waits a little for one. *work is left empty (no id) when none is
 * ready. False at the end; then feed->error may say that it came too early. */
bool feed_take(struct feed *feed, bool wait, struct work *work);

/* Gives the item's memory and picture back. */
void work_free(struct feed *feed, struct work *work);

/* Stops the thread, whatever it does. */
void feed_close(struct feed *feed);

#endif
