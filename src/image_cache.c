#include "image_cache.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#define XXH_STATIC_LINKING_ONLY /* the streaming state on the stack */
#include <xxhash.h>

#include "status.h"

#define MAGIC  "MVLMROWS"
#define ENDING ".rows" /* of pictures' rows */
#define MORE   ".more" /* of what else was made of them */
#define PART   ".part"

enum { KEY_DIGITS = 32, NAME_BYTES = KEY_DIGITS + sizeof ENDING };
enum {
    ROWS_REVISION = 1
}; /* grows with every change of a kernel or graph that moves rows' last bits */
enum { LARGEST_SHARE = 8 };        /* no entry may take more than an eighth of the folder */
enum { LOOKS = 64 };               /* at the folder, while a process fills it */
enum { ABANDONED_SECONDS = 3600 }; /* no process takes so long to write an entry */

/* Little-endian, as the machines are that this runs on. */
struct cache_header {
    char magic[8];
    uint64_t n_bytes;            /* of what follows */
    char model[32], picture[32]; /* digests, hexadecimal */
    XXH128_canonical_t digest;   /* of what follows */
};

/* ---- Names ------------------------------------------------------------------------------ */

static void name_of(const struct cache_key *key, char name[NAME_BYTES])
{
    XXH128_canonical_t digest;
    XXH3_state_t state;
    XXH3_128bits_reset(&state);
    XXH3_128bits_update(&state, key->model, 32);
    XXH3_128bits_update(&state, key->picture, 32);
    XXH3_128bits_update(&state, &(const uint8_t){ROWS_REVISION}, 1);
    XXH3_128bits_update(&state, key->context, key->n_context);
    XXH128_canonicalFromHash(&digest, XXH3_128bits_digest(&state));
    digest_text(digest.digest, name);
    memcpy(name + KEY_DIGITS, key->n_context ? MORE : ENDING, sizeof ENDING);
}

static struct cache_header header_of(const struct cache_key *key, const void *bytes, size_t n_bytes)
{
    struct cache_header header = {.magic = MAGIC, .n_bytes = n_bytes};
    memcpy(header.model, key->model, sizeof header.model);
    memcpy(header.picture, key->picture, sizeof header.picture);
    XXH128_canonicalFromHash(&header.digest, XXH3_128bits(bytes, n_bytes));
    return header;
}

static bool is_entry(const char *name)
{
    const size_t n = strlen(name);
    return n == KEY_DIGITS + sizeof ENDING - 1 &&
           (strcmp(name + KEY_DIGITS, ENDING) == 0 || strcmp(name + KEY_DIGITS, MORE) == 0);
}

/* ---- The folder ------------------------------------------------------------------------- */

struct entry {
    char name[NAME_BYTES];
    uint64_t n_bytes;
    struct timespec used;
};

/* What a process that was killed left of an entry. */
static bool is_abandoned(const char *name, const struct stat *about)
{
    const size_t n = strlen(name), n_part = sizeof PART - 1;
    return n > n_part && strcmp(name + n - n_part, PART) == 0 &&
           (strstr(name, ENDING ".") || strstr(name, MORE ".")) &&
           time(NULL) - about->st_mtim.tv_sec > ABANDONED_SECONDS;
}

/* All entries; *n of them, to be freed. NULL when there are none, or no memory. */
static struct entry *list_entries(const struct image_cache *cache, size_t *n, uint64_t *n_bytes)
{
    DIR *folder = opendir(cache->folder);
    struct entry *entries = NULL;
    size_t capacity = 0;
    *n = 0;
    *n_bytes = 0;
    for (const struct dirent *d; folder && (d = readdir(folder));) {
        struct stat about;
        if (fstatat(dirfd(folder), d->d_name, &about, 0) != 0)
            continue;
        if (is_abandoned(d->d_name, &about))
            unlinkat(dirfd(folder), d->d_name, 0);
        if (!is_entry(d->d_name))
            continue;
        if (*n == capacity) {
            struct entry *more = realloc(entries, (2 * capacity + 64) * sizeof *more);
            if (!more)
                break;
            entries = more;
            capacity = 2 * capacity + 64;
        }
        memcpy(entries[*n].name, d->d_name, NAME_BYTES);
        entries[*n].n_bytes = (uint64_t)about.st_size;
        entries[(*n)++].used = about.st_mtim;
        *n_bytes += (uint64_t)about.st_size;
    }
    if (folder)
        closedir(folder);
    return entries;
}

/* What is not rows goes first: it is larger, and saves less. */
static int older_first(const void *a, const void *b)
{
    const bool more_a = strstr(((const struct entry *)a)->name, MORE),
               more_b = strstr(((const struct entry *)b)->name, MORE);
    if (more_a != more_b)
        return more_a ? -1 : 1;
    const struct timespec x = ((const struct entry *)a)->used, y = ((const struct entry *)b)->used;
    if (x.tv_sec != y.tv_sec)
        return x.tv_sec < y.tv_sec ? -1 : 1;
    return (x.tv_nsec > y.tv_nsec) - (x.tv_nsec < y.tv_nsec);
}

/* Removes what was not used for longest, until a tenth of the room is free: then not each new entry has
 * to look through the folder. */
static void make_room(struct image_cache *cache)
{
    size_t n;
    struct entry *entries = list_entries(cache, &n, &cache->n_bytes);
    char path[4096];
    cache->n_added = 0;
    if (cache->n_bytes > cache->most_bytes)
        qsort(entries, n, sizeof *entries, older_first);
    const uint64_t wanted = cache->most_bytes - cache->most_bytes / 10;
    for (size_t i = 0; i < n && cache->n_bytes > cache->most_bytes; i++) {
        for (; i < n && cache->n_bytes > wanted; i++) {
            snprintf(path, sizeof path, "%s/%s", cache->folder, entries[i].name);
            if (unlink(path) == 0 || errno == ENOENT)
                cache->n_bytes -= entries[i].n_bytes;
        }
    }
    free(entries);
}

mvlm_status image_cache_open(struct image_cache *cache, const char *folder, uint64_t most_bytes,
                             mvlm_error *error)
{
    struct stat about;
    *cache = (struct image_cache){.most_bytes = most_bytes ? most_bytes : UINT64_C(1) << 30};
    if (!folder)
        return MVLM_OK;
    if ((mkdir(folder, 0777) != 0 && errno != EEXIST) || stat(folder, &about) != 0)
        return fail(error, MVLM_BAD_OUTPUT, "%s: cannot be made: %s", folder, strerror(errno));
    if (!S_ISDIR(about.st_mode))
        return fail(error, MVLM_BAD_OUTPUT, "%s: is no folder", folder);
    cache->folder = strdup(folder);
    if (!cache->folder)
        return fail_no_memory(error, "the cache's name", strlen(folder));
    make_room(cache);
    return MVLM_OK;
}

void image_cache_close(struct image_cache *cache)
{
    free(cache->folder);
    *cache = (struct image_cache){0};
}

/* ---- Entries ---------------------------------------------------------------------------- */

/* Reads exactly n bytes. */
static bool read_exactly(int file, void *bytes, size_t n)
{
    for (size_t done = 0; done < n;) {
        const ssize_t got = read(file, (char *)bytes + done, n - done);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return false;
        done += (size_t)got;
    }
    return true;
}

static bool write_exactly(int file, const void *bytes, size_t n)
{
    for (size_t done = 0; done < n;) {
        const ssize_t put = write(file, (const char *)bytes + done, n - done);
        if (put < 0 && errno == EINTR)
            continue;
        if (put <= 0)
            return false;
        done += (size_t)put;
    }
    return true;
}

/* The entry's bytes, if it is whole, of this key and undamaged. */
static bool read_entry(int file, const struct cache_key *key, void *bytes, size_t n_bytes)
{
    struct cache_header header;
    char more;
    if (!read_exactly(file, &header, sizeof header) || header.n_bytes != n_bytes ||
        !read_exactly(file, bytes, n_bytes) || read(file, &more, 1) != 0)
        return false;
    const struct cache_header expected = header_of(key, bytes, n_bytes);
    return memcmp(&header, &expected, sizeof header) == 0;
}

bool image_cache_read(struct image_cache *cache, const struct cache_key *key, void *bytes,
                      size_t n_bytes)
{
    char path[4096], name[NAME_BYTES];
    if (!cache->folder)
        return false;
    name_of(key, name);
    snprintf(path, sizeof path, "%s/%s", cache->folder, name);
    const int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return false;
    const bool found = read_entry(file, key, bytes, n_bytes);
    if (found)
        futimens(file, NULL); /* used now */
    close(file);
    return found;
}

/* A new file that becomes `path`; another process, of another container perhaps, may have our number. */
static int open_part(const char *path, char *part, size_t capacity)
{
    static atomic_uint counter;
    int file = -1;
    for (int i = 0; i < 100 && file < 0; i++) {
        snprintf(part, capacity, "%s.%ld.%u" PART, path, (long)getpid(),
                 atomic_fetch_add(&counter, 1));
        file = open(part, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (file < 0 && errno != EEXIST)
            break;
    }
    return file;
}

void image_cache_write(struct image_cache *cache, const struct cache_key *key, const void *bytes,
                       size_t n_bytes)
{
    char part[4096 + 64], path[4096], name[NAME_BYTES];
    if (!cache->folder || (key->n_context && n_bytes > cache->most_bytes / LARGEST_SHARE))
        return;
    const struct cache_header header = header_of(key, bytes, n_bytes);
    name_of(key, name);
    snprintf(path, sizeof path, "%s/%s", cache->folder, name);
    const int file = open_part(path, part, sizeof part);
    if (file < 0)
        return;
    bool good = write_exactly(file, &header, sizeof header) && write_exactly(file, bytes, n_bytes);
    good = close(file) == 0 && good;
    if (!good || rename(part, path) != 0) {
        unlink(part);
        return;
    }
    cache->n_bytes += sizeof header + n_bytes;
    cache->n_added += sizeof header + n_bytes;
    /* others add to the folder too, so it is looked at again now and then */
    if (cache->n_bytes > cache->most_bytes || cache->n_added > cache->most_bytes / LOOKS)
        make_room(cache);
}

/* ---- Pictures' rows --------------------------------------------------------------------- */

static struct cache_key rows_key(const struct mvlm_image *image)
{
    return (struct cache_key){.model = image->model->weights.digest, .picture = image->digest_text};
}

bool image_cache_find(struct image_cache *cache, struct mvlm_image *image)
{
    const struct cache_key key = rows_key(image);
    mvlm_error error;
    if (!cache->folder || image_take_rows(image, &error) != MVLM_OK)
        return false;
    if (image_cache_read(cache, &key, image->rows, image_rows_bytes(&image->model->description)))
        return true;
    free(image->rows);
    image->rows = NULL;
    return false;
}

void image_cache_keep(struct image_cache *cache, const struct mvlm_image *image)
{
    const struct cache_key key = rows_key(image);
    image_cache_write(cache, &key, image->rows, image_rows_bytes(&image->model->description));
}
