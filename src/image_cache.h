/* A folder of pictures' rows, so that a picture seen before, in whatever process, costs no encoding.
 *
 *     KEY.rows: struct cache_header, then f32 [image tokens, hidden]
 *
 * KEY is a digest of the model's digest, the picture's and ROWS_REVISION. An entry is written
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

/* Takes the picture's rows from the cache; false when it has none (or there is no cache). */
bool image_cache_find(struct image_cache *cache, struct mvlm_image *image);

/* Puts them there. A cache that cannot be written loses nothing but time. */
void image_cache_keep(struct image_cache *cache, const struct mvlm_image *image);

#endif
