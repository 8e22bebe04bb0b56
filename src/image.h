/* Picture file bytes -> RGB -> the square of numbers that the vision tower reads.
 *
 *     bytes -> (JPEG markers | PNG chunks | BMP header) -> stb_image -> EXIF turn -> struct picture
 *     picture -> pad | crop | squash -> Pillow's bicubic -> (value / 255 - mean) / std -> pixels
 */
#ifndef SRC_IMAGE_H
#define SRC_IMAGE_H

#include <stddef.h>
#include <stdint.h>

#include "../kernels/kernels.h"
#include "mobilevlm.h"

/* RGB, 8 bits a channel, rows from the top, no padding: rgb[(y * width + x) * 3 + channel]. */
struct picture {
    int width, height;
    uint8_t *rgb; /* owned; picture_free */
};

/* How a picture becomes a square (the checkpoint's image_aspect_ratio). */
enum image_fit {
    IMAGE_PAD,    /* centred on a square of pad_colour, then resized */
    IMAGE_CROP,   /* shortest edge resized to the side, then the centre cut out */
    IMAGE_SQUASH, /* resized to the square, whatever its shape */
};

struct image_recipe {
    int side; /* pixels of the square's edge */
    enum image_fit fit;
    uint8_t pad_colour[3]; /* red, green, blue */
    float mean[3], std[3]; /* of values in 0..1, for each channel */
};

/* Decodes `n_bytes` of a JPEG, PNG or BMP file and turns it as its EXIF orientation says.
 * `name` stands in messages. More than `max_pixels` pixels are refused before memory is touched.
 * On error MVLM_BAD_PICTURE (or MVLM_NO_MEMORY), and `picture` is empty. */
mvlm_status picture_decode(const char *name, const uint8_t *bytes, size_t n_bytes,
                           uint64_t max_pixels, struct picture *picture, mvlm_error *error);

void picture_free(struct picture *picture);

/* The resized square, not yet normalised: square[(y * side + x) * 3 + channel]. */
mvlm_status picture_to_square(const struct kernels *kernels, const struct picture *picture,
                              const struct image_recipe *recipe, uint8_t *square,
                              mvlm_error *error);

/* square [side, side, 3] -> pixels [3, side, side], with the float roundings of CLIPImageProcessor.
 */
void square_to_pixels(const uint8_t *square, const struct image_recipe *recipe, float *pixels);

#endif
