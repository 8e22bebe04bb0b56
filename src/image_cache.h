/* A folder of pictures' rows, so that a picture seen before, in whatever process, costs no encoding; and of what else
 * was made of a picture (picture_kv.h).
 *
 *     KEY.rows: struct cache_header, then f32 [image tokens, hidden]
 *     KEY.more: the same of other bytes, each at most an eighth of what the folder may hold; they go first
 *
 * KEY is a digest of the model's digest, the picture's, ROWS_REVISION, and of whatever else the bytes depend on. An entry is written
 * under another name and renamed; one that is not what it should be is as good as none. What was not
 * used for longest goes when the folder becomes larger than it may. */
#ifndef SRC_IMAGE_CACHE_H
#define SRC_IMAGE_CACHE_H

#include "image_rows.h"

struct image_cache {
    char *folder;        /* NULL: none */
    uint64_t most_bytes; /* of all entries */
    uint64_t n_bytes;    /* of them when this process last looked, and what it has added */
    uint64_t n_added;    /* by this process since it last looked */
};

/* Makes the folder when it is missing. MVLM_BAD_OUTPUT, MVLM_NO_MEMORY. */
mvlm_status image_cache_open(struct image_cache *cache, const char *folder, uint64_t most_bytes,
                             mvlm_error *error);
void image_cache_close(struct image_cache *cache);

/* What an entry's bytes depend on. */
struct cache_key {
    const char *model, *picture; /* digests, 32 hexadecimal digits */
    const void *context;         /* more; NULL: nothing, as of pictures' rows */
    size_t n_context;
};

/* Reads the entry, of exactly n_bytes, if there is one that is whole and undamaged. */
bool image_cache_read(struct image_cache *cache, const struct cache_key *key, void *bytes,
                      size_t n_bytes);

/* Writes it. A cache that cannot be written loses nothing but time. */
void image_cache_write(struct image_cache *cache, const struct cache_key *key, const void *bytes,
                       size_t n_bytes);

/* Takes the picture's rows from the cache; false when it has none (or there is no cache). */
bool image_cache_find(struct image_cache *cache, struct mvlm_image *image);

/* Puts them there. */
void image_cache_keep(struct image_cache *cache, const struct mvlm_image *image);

#endif
