#include "batch_feed.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <xxhash.h>

#include "record.h"

enum {
    WAIT_NS = 100000000, /* a signal is noticed after a tenth of a second */
    SPARE_IMAGES = 8
};

size_t feed_capacity(size_t n_slots)
{
    return n_slots < 4 ? 2 : n_slots / 2;
}

size_t feed_images(size_t n_slots)
{
    return n_slots + feed_capacity(n_slots) + 1 /* that is being prepared */ + SPARE_IMAGES;
}

/* ---- Images that are kept --------------------------------------------------------------- */

/* The image of a picture that was seen lately, with one more user; NULL: there is none. */
static struct kept_image *find_image(struct feed *feed, const char *digest)
{
    struct kept_image *found = NULL;
    pthread_mutex_lock(&feed->lock);
    for (size_t i = 0; i < feed->n_images && !found; i++)
        if (feed->images[i].image && strcmp(feed->images[i].digest, digest) == 0)
            found = &feed->images[i];
    if (found) {
        found->n_users++;
        found->last_used = ++feed->clock;
    }
    pthread_mutex_unlock(&feed->lock);
    return found;
}

/* A place for another image: a free one, or that of the image which nobody has used for longest. There
 * are more places than items under way. */
static struct kept_image *keep_image(struct feed *feed, const char *digest, mvlm_image *image)
{
    struct kept_image *place = NULL;
    pthread_mutex_lock(&feed->lock);
    for (size_t i = 0; i < feed->n_images; i++) {
        struct kept_image *k = &feed->images[i];
        if (k->n_users == 0 &&
            (!place || !k->image || (place->image && k->last_used < place->last_used)))
            place = k;
    }
    /* NOLINTNEXTLINE(clang-analyzer-core.NullDereference): one is free, as said above */
    mvlm_image_close(place->image);
    *place = (struct kept_image){.image = image, .n_users = 1, .last_used = ++feed->clock};
    memcpy(place->digest, digest, sizeof place->digest);
    pthread_mutex_unlock(&feed->lock);
    return place;
}

void work_free(struct feed *feed, struct work *work)
{
    pthread_mutex_lock(&feed->lock);
    if (work->kept)
        work->kept->n_users--;
    pthread_mutex_unlock(&feed->lock);
    item_free(&work->item);
    *work = (struct work){0};
}

/* ---- Preparing -------------------------------------------------------------------------- */

/* The bytes of a regular file: a pipe would be waited for, a device never end, and "-" is no picture of a list. */
static mvlm_status read_picture(const char *path, struct file_bytes *file, mvlm_error *error)
{
    struct stat about;
    const int descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (descriptor < 0)
        return cli_fail(error, MVLM_BAD_PICTURE, "%s: cannot be opened: %s", path, strerror(errno));
    mvlm_status status = MVLM_OK;
    if (fstat(descriptor, &about) != 0 || !S_ISREG(about.st_mode))
        status = cli_fail(error, MVLM_BAD_PICTURE, "%s: is %s, no file", path,
                          S_ISDIR(about.st_mode) ? "a folder" : "a pipe or a device");
    else if (about.st_size > INT_MAX)
        status = cli_fail(error, MVLM_BAD_PICTURE, "%s: %lld bytes are too many for a picture",
                          path, (long long)about.st_size);
    else
        status = read_open_file(descriptor, path, MVLM_BAD_PICTURE, file, error);
    close(descriptor);
    return status;
}

/* Reads the item's picture; *done: its record is there already. Not MVLM_OK: the batch has to end. */
static mvlm_status look_up(struct feed *feed, struct work *work, struct file_bytes *file,
                           bool *done)
{
    char options[33] = "";
    mvlm_error error;
    struct asked asked;
    struct item *item = &work->item;
    if (item_asked(feed->values, feed->prompt, item, &asked))
        options_digest(feed->values, &asked, options);
    if (!item->error && item->path) {
        if (read_picture(item->path, file, &error) == MVLM_OK)
            hash_text(XXH3_128bits(file->bytes, file->n), work->image_digest);
        else
            item_fail(item, error.status, "%s", error.message);
    }
    return records_find(feed->records, feed->values, item->id, work->image_digest, options, done,
                        &feed->error);
}

static void open_image(struct feed *feed, struct work *work, const struct file_bytes *file)
{
    const mvlm_picture picture = {
        .name = work->item.path, .bytes = file->bytes, .n_bytes = file->n};
    mvlm_image *image;
    mvlm_error error;
    work->kept = find_image(feed, work->image_digest);
    if (work->kept)
        return;
    if (mvlm_image_open(feed->model, &picture, pixels_allowed(feed->values), &image, &error) ==
        MVLM_OK)
        work->kept = keep_image(feed, work->image_digest, image);
    else
        item_fail(&work->item, error.status, "%s", error.message);
}

/* An item that has to be done, ready; *done: it is there already. False at the end, or with feed->error. */
static bool prepare_one(struct feed *feed, struct work *work, bool *done)
{
    struct file_bytes file = {0};
    *work = (struct work){0};
    if (!items_next(feed->source, &work->item)) {
        feed->error = feed->source->stream.error;
        return false;
    }
    const double start = monotonic_seconds();
    const mvlm_status status = look_up(feed, work, &file, done);
    if (status == MVLM_OK && !*done && work->item.path && !work->item.error)
        open_image(feed, work, &file);
    work->seconds = monotonic_seconds() - start;
    free(file.bytes);
    if (status != MVLM_OK || *done)
        item_free(&work->item);
    return status == MVLM_OK;
}

static bool prepare(struct feed *feed, struct work *work)
{
    bool done;
    while (prepare_one(feed, work, &done)) {
        if (!done)
            return true;
        atomic_fetch_add(&feed->n_skipped, 1);
    }
    return false;
}

/* Puts what is ready into the ring once there is room; false when the batch wants no more. */
static bool hand_over(struct feed *feed, const struct work *work)
{
    pthread_mutex_lock(&feed->lock);
    while (feed->n == feed->capacity && !feed->stopping)
        pthread_cond_wait(&feed->changed, &feed->lock);
    const bool taken = !feed->stopping;
    if (taken)
        feed->ring[(feed->first + feed->n++) % feed->capacity] = *work;
    pthread_cond_broadcast(&feed->changed);
    pthread_mutex_unlock(&feed->lock);
    return taken;
}

static void *run_feed(void *argument)
{
    struct feed *feed = argument;
    struct work work;
    while (prepare(feed, &work))
        if (!hand_over(feed, &work)) {
            work_free(feed, &work);
            break;
        }
    pthread_mutex_lock(&feed->lock);
    feed->ended = true;
    pthread_cond_broadcast(&feed->changed);
    pthread_mutex_unlock(&feed->lock);
    return NULL;
}

/* ---- For the batch ---------------------------------------------------------------------- */

mvlm_status feed_open(struct feed *feed, size_t n_slots, mvlm_error *error)
{
    sigset_t all, before;
    feed->capacity = feed_capacity(n_slots);
    feed->n_images = feed_images(n_slots);
    feed->ring = calloc(feed->capacity, sizeof *feed->ring);
    feed->images = calloc(feed->n_images, sizeof *feed->images);
    if (!feed->ring || !feed->images) {
        free(feed->ring);
        free(feed->images);
        feed->ring = NULL;
        return cli_fail(error, MVLM_NO_MEMORY, "out of memory");
    }
    pthread_mutex_init(&feed->lock, NULL);
    pthread_cond_init(&feed->changed, NULL);
    sigfillset(&all); /* signals are for the thread that answers, but for those of its own faults */
    sigdelset(&all, SIGBUS);
    sigdelset(&all, SIGSEGV);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    feed->started = pthread_create(&feed->thread, NULL, run_feed, feed) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return feed->started ? MVLM_OK : cli_fail(error, MVLM_NO_MEMORY, "no thread can be started");
}

bool feed_take(struct feed *feed, bool wait, struct work *work)
{
    *work = (struct work){0};
    pthread_mutex_lock(&feed->lock);
    if (wait && feed->n == 0 && !feed->ended) {
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += WAIT_NS;
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
        pthread_cond_timedwait(&feed->changed, &feed->lock, &until);
    }
    if (feed->n) {
        *work = feed->ring[feed->first];
        feed->first = (feed->first + 1) % feed->capacity;
        feed->n--;
        pthread_cond_broadcast(&feed->changed);
    }
    const bool more = feed->n || !feed->ended;
    pthread_mutex_unlock(&feed->lock);
    return more;
}

void feed_close(struct feed *feed)
{
    struct work work;
    if (!feed->ring)
        return;
    pthread_mutex_lock(&feed->lock);
    feed->stopping = true;
    items_stop(feed->source);
    pthread_cond_broadcast(&feed->changed);
    pthread_mutex_unlock(&feed->lock);
    if (feed->started)
        pthread_join(feed->thread, NULL);
    while (feed->n) {
        feed_take(feed, false, &work);
        work_free(feed, &work);
    }
    for (size_t i = 0; i < feed->n_images; i++)
        mvlm_image_close(feed->images[i].image);
    free(feed->images);
    pthread_cond_destroy(&feed->changed);
    pthread_mutex_destroy(&feed->lock);
    free(feed->ring);
    feed->ring = NULL;
}
