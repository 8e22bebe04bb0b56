/* A picture as the model sees it: its square of pixels, and, once the tower and the projector have
 * been through it, the rows that the decoder reads. The rows stay with it, for every question that
 * follows. */
#ifndef SRC_IMAGE_ROWS_H
#define SRC_IMAGE_ROWS_H

#include <xxhash.h>

#include "model.h"

#define MOST_PIXELS UINT64_C(100000000) /* of a picture, unless somebody says otherwise */

struct mvlm_image {
    const struct mvlm_model *model;
    uint8_t *square;      /* [side, side, 3] */
    float *rows;          /* [image tokens, hidden]; NULL until it is encoded */
    XXH128_hash_t digest; /* of the square */
    char digest_text[33];
    double decode_ms, preprocess_ms;
};

/* Memory for the rows; on error MVLM_NO_MEMORY. */
mvlm_status image_take_rows(struct mvlm_image *image, mvlm_error *error);

/* Bytes of the rows. */
size_t image_rows_bytes(const struct description *description);

/* Bytes that an encoded picture takes. */
uint64_t image_bytes(const struct description *description);

#endif
