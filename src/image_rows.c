#include "image_rows.h"

#include <stdlib.h>

#include "compute.h"
#include "image.h"
#include "status.h"

enum { LINE_BYTES = 64 };

static size_t square_bytes(const struct description *d)
{
    return (size_t)aligned(3 * (uint64_t)(d->image.size * d->image.size), LINE_BYTES);
}

size_t image_rows_bytes(const struct description *description)
{
    return image_tokens(description) * (size_t)description->decoder.hidden * sizeof(float);
}

uint64_t image_bytes(const struct description *description)
{
    return square_bytes(description) + aligned(image_rows_bytes(description), LINE_BYTES);
}

mvlm_status image_take_rows(struct mvlm_image *image, mvlm_error *error)
{
    const size_t n_bytes =
        (size_t)aligned(image_rows_bytes(&image->model->description), LINE_BYTES);
    image->rows = aligned_alloc(LINE_BYTES, n_bytes);
    return image->rows ? MVLM_OK : fail_no_memory(error, "a picture's rows", n_bytes);
}

static void set_digest(struct mvlm_image *image)
{
    const size_t side = (size_t)image->model->recipe.side;
    XXH128_canonical_t canonical;
    image->digest = XXH3_128bits(image->square, 3 * side * side);
    XXH128_canonicalFromHash(&canonical, image->digest);
    digest_text(canonical.digest, image->digest_text);
}

static mvlm_status fill_square(struct mvlm_image *image, const mvlm_picture *file,
                               uint64_t max_pixels, mvlm_error *error)
{
    const struct mvlm_model *model = image->model;
    struct picture picture;
    const double start = seconds_now();
    TRY(picture_decode(file->name, file->bytes, file->n_bytes, max_pixels, &picture, error));
    const double decoded = seconds_now();
    const mvlm_status status =
        picture_to_square(model->kernels, &picture, &model->recipe, image->square, error);
    picture_free(&picture);
    image->decode_ms = 1e3 * (decoded - start);
    image->preprocess_ms = 1e3 * (seconds_now() - decoded);
    return status;
}

mvlm_status mvlm_image_open(const mvlm_model *model, const mvlm_picture *picture,
                            uint64_t max_pixels, mvlm_image **image, mvlm_error *error)
{
    const size_t n_bytes = square_bytes(&model->description);
    *image = NULL;
    if (!takes_pictures(&model->description))
        return fail(error, MVLM_USAGE, "%s: %s is a text-only model", picture->name,
                    model->weights.path);
    struct mvlm_image *opened = calloc(1, sizeof *opened);
    if (!opened)
        return fail_no_memory(error, "a picture", sizeof *opened);
    opened->model = model;
    opened->square = aligned_alloc(LINE_BYTES, n_bytes);
    mvlm_status status =
        opened->square ? fill_square(opened, picture, max_pixels ? max_pixels : MOST_PIXELS, error)
                       : fail_no_memory(error, "a picture's square", n_bytes);
    if (status != MVLM_OK) {
        mvlm_image_close(opened);
        return status;
    }
    set_digest(opened);
    *image = opened;
    return MVLM_OK;
}

void mvlm_image_close(mvlm_image *image)
{
    if (!image)
        return;
    free(image->square);
    free(image->rows);
    free(image);
}

const char *mvlm_image_digest(const mvlm_image *image)
{
    return image->digest_text;
}
