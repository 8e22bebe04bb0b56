/* Picture file bytes -> RGB -> the square of numbers that the vision tower reads.
 *
 *     bytes -> image_file_walk -> stb_image -> EXIF turn -> struct picture
 *     picture -> edges (pad | crop | squash) -> picture_resize -> square -> pixels
 *
 * The only file that knows stb_image.
 */
#include "image.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "image_file.h"
#include "resize.h"
#include "status.h"

/* stb_image does not always tell that memory was missing. */
static _Thread_local bool memory_missing;

static void *noted(void *block)
{
    memory_missing |= !block;
    return block;
}

/* Zeroed memory: what a damaged JPEG leaves undecoded is the same every time, and nobody's secret.
 * No assert: it would abort on input (a JPEG's Huffman code that stb_image looks up wrongly). */
#define STBI_MALLOC(n)     noted(calloc(1, (n)))
#define STBI_REALLOC(p, n) noted(realloc((p), (n)))
#define STBI_FREE(p)       free(p)
#define STBI_ASSERT(x)     ((void)0)
#ifdef __ARM_NEON
#define STBI_NEON
#endif
#define STBI_ONLY_JPEG
#define STBI_ONLY_PNG
#define STBI_ONLY_BMP
#define STBI_NO_GIF
#define STBI_NO_STDIO
#define STBI_NO_LINEAR
#define STBI_NO_HDR
#define STB_IMAGE_STATIC
#define STB_IMAGE_IMPLEMENTATION

/* declared by one name and defined by another */
#define stbi_set_unpremultiply_on_load_thread stbi__unpremultiply_on_load_thread

/* On damaged JPEG data stb_image 2.27 shifts zeros by up to 39 bits and lets the sums of DC values
 * overflow. Both spoil pixels and nothing else, so these two checks of UBSan are off inside it, and
 * only there: every function of it is `static`, and gcc has no pragma for the attribute. */
#define UNCHECKED __attribute__((no_sanitize("shift", "signed-integer-overflow")))
#ifdef __clang__
#pragma clang attribute push(UNCHECKED, apply_to = function)
#include <stb/stb_image.h>
#pragma clang attribute pop
#else
#define static UNCHECKED static
#include <stb/stb_image.h>
#undef static
#endif

/* The picture as its viewers see it: pixel (x, y) of the result is pixel `first + x * right + y *
 * down` of the stored one. */
struct turn {
    int swaps; /* width and height */
    ptrdiff_t first, right, down;
};

static struct turn make_turn(int orientation, ptrdiff_t width, ptrdiff_t height)
{
    const ptrdiff_t end = width * height - 1;
    const struct turn turns[8] = {
        {0, 0, 1, width},     {0, width - 1, -1, width},
        {0, end, -1, -width}, {0, end - (width - 1), 1, -width},
        {1, 0, width, 1},     {1, end - (width - 1), -width, 1},
        {1, end, -width, -1}, {1, width - 1, width, -1},
    };
    return turns[orientation - 1];
}

/* In tiles, so that a quarter turn does not miss the cache at every pixel. */
static void copy_turned(const uint8_t *from, const struct turn *turn, struct picture *to)
{
    enum { TILE = 32 };
    for (int top = 0; top < to->height; top += TILE)
        for (int left = 0; left < to->width; left += TILE)
            for (int y = top; y < top + TILE && y < to->height; y++) {
                const uint8_t *pixel =
                    from + 3 * (turn->first + left * turn->right + y * turn->down);
                uint8_t *out = to->rgb + 3 * ((size_t)y * (size_t)to->width + (size_t)left);
                for (int x = left; x < left + TILE && x < to->width; x++) {
                    memcpy(out, pixel, 3);
                    out += 3;
                    pixel += 3 * turn->right;
                }
            }
}

static mvlm_status turn_picture(struct picture *picture, int orientation, mvlm_error *error)
{
    if (orientation == 1)
        return MVLM_OK;
    const struct turn turn = make_turn(orientation, picture->width, picture->height);
    const size_t n_bytes = 3 * (size_t)picture->width * (size_t)picture->height;
    struct picture turned = {.width = turn.swaps ? picture->height : picture->width,
                             .height = turn.swaps ? picture->width : picture->height,
                             .rgb = malloc(n_bytes)};
    if (!turned.rgb)
        return fail_no_memory(error, "turning a picture", n_bytes);
    copy_turned(picture->rgb, &turn, &turned);
    picture_free(picture);
    *picture = turned;
    return MVLM_OK;
}

static mvlm_status decode(const struct image_source *source, const struct image_file *file,
                          struct picture *picture)
{
    int channels;
    stbi__g_failure_reason = NULL; /* it does not always give one */
    memory_missing = false;
    picture->rgb = stbi_load_from_memory(file->bytes, (int)file->n_bytes, &picture->width,
                                         &picture->height, &channels, 3);
    if (!picture->rgb) {
        const char *reason = stbi_failure_reason();
        if (memory_missing || (reason && !strcmp(reason, "outofmem")))
            return fail_no_memory(source->error, "decoding a picture",
                                  3 * (size_t)file->width * file->height);
        return refuse(source, "damaged %s: %s", file->format,
                      reason ? reason : "cannot be decoded");
    }
    if ((uint32_t)picture->width != file->width || (uint32_t)picture->height != file->height)
        return refuse(source, "damaged %s: %d x %d pixels, %u x %u expected", file->format,
                      picture->width, picture->height, file->width, file->height);
    return turn_picture(picture, file->turn, source->error);
}

mvlm_status picture_decode(const char *name, const uint8_t *bytes, size_t n_bytes,
                           uint64_t max_pixels, struct picture *picture, mvlm_error *error)
{
    const struct image_source source = {
        .name = name, .bytes = bytes, .n_bytes = n_bytes, .max_pixels = max_pixels, .error = error};
    struct image_file file;
    *picture = (struct picture){0};
    TRY(image_file_walk(&source, &file));
    const mvlm_status status = decode(&source, &file, picture);
    image_file_free(&file);
    if (status != MVLM_OK)
        picture_free(picture);
    return status;
}

void picture_free(struct picture *picture)
{
    free(picture->rgb);
    *picture = (struct picture){0};
}

/* One edge under each rule; `other` is the other edge. Offsets round down, as Pillow's and
 * CLIPImageProcessor's do; so does the longer edge of a crop, side * long / short. */
static struct resize_axis make_axis(enum image_fit fit, int64_t edge, int64_t other, int64_t side)
{
    struct resize_axis axis = {.n_in = edge, .n_real = edge, .n_out = side};
    if (fit == IMAGE_PAD && edge < other) {
        axis.n_in = other;
        axis.offset = (other - edge) / 2;
    } else if (fit == IMAGE_CROP && edge > other) {
        axis.n_out = side * edge / other;
        axis.first = (axis.n_out - side) / 2;
    }
    return axis;
}

/* Which pass comes first? The reference of the models that squash is Pillow 13, which since its change 9549 begins with
 * the vertical one where that takes away more than twice what the other does; that of the older models is Pillow before
 * it, which always begins with the horizontal one. */
static bool columns_come_first(enum image_fit fit, const struct resize_axis *x,
                               const struct resize_axis *y)
{
    return fit == IMAGE_SQUASH && y->n_in > y->n_out &&
           y->n_in - y->n_out > 2 * (x->n_in - x->n_out);
}

mvlm_status picture_to_square(const struct kernels *kernels, const struct picture *picture,
                              const struct image_recipe *recipe, uint8_t *square, mvlm_error *error)
{
    const struct resize_axis x =
        make_axis(recipe->fit, picture->width, picture->height, recipe->side);
    const struct resize_axis y =
        make_axis(recipe->fit, picture->height, picture->width, recipe->side);
    return picture_resize(kernels, picture, &x, &y, recipe->pad_colour,
                          columns_come_first(recipe->fit, &x, &y), recipe->side, square, error);
}

/* CLIPImageProcessor: value * (1 / 255) in double, rounded to float; then in float. A value has few
 * possibilities, so they are tabled. */
void square_to_pixels(const uint8_t *square, const struct image_recipe *recipe, float *pixels)
{
    const size_t n = (size_t)recipe->side * (size_t)recipe->side;
    for (size_t channel = 0; channel < 3; channel++) {
        float table[256];
        for (int value = 0; value < 256; value++)
            table[value] =
                ((float)(value * (1.0 / 255)) - recipe->mean[channel]) / recipe->std[channel];
        for (size_t i = 0; i < n; i++)
            pixels[channel * n + i] = table[square[3 * i + channel]];
    }
}
