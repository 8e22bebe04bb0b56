/* A picture file through preprocessing: bytes -> walk -> decode -> turn -> resize -> numbers. A PNG's check sums are made
 * right first. An input that begins with 'R' is 13 bytes of IHDR, a byte with the number of colours of a palette, these,
 * and rows that are not deflated yet: a PNG is made of them. */
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "fuzz.h"
#include "image.h"

enum { MOST_PIXELS_HERE = 1 << 18, SIDE = 28 };

static const uint8_t signature[8] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};

static uint32_t be32_at(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void put_be32(uint8_t *p, uint32_t value)
{
    for (int i = 0; i < 4; i++)
        p[i] = (uint8_t)(value >> (24 - 8 * i));
}

static void repair_png(uint8_t *bytes, size_t n)
{
    for (size_t at = 8; n - at >= 12;) {
        const uint32_t length = be32_at(bytes + at);
        if (length > n - at - 12)
            return;
        put_be32(bytes + at + 8 + length, (uint32_t)crc32(0, bytes + at + 4, length + 4));
        at += 12 + (size_t)length;
    }
}

static uint8_t *put_chunk(uint8_t *to, const char *type, const uint8_t *data, size_t n)
{
    put_be32(to, (uint32_t)n);
    memcpy(to + 4, type, 4);
    if (n)
        memcpy(to + 8, data, n);
    put_be32(to + 8 + n, (uint32_t)crc32(0, to + 4, (uInt)n + 4));
    return to + 12 + n;
}

/* Free it. */
static uint8_t *make_png(const uint8_t *bytes, size_t n, size_t *n_png)
{
    enum { IHDR = 13 };
    const size_t n_palette = n > IHDR ? 3 * (size_t)(bytes[IHDR] & 63) : 0,
                 head = IHDR + 1 + n_palette;
    if (n < head)
        return NULL;
    uLongf n_idat = compressBound((uLong)(n - head));
    uint8_t *png = malloc(sizeof signature + 4 * 12 + IHDR + n_palette + n_idat),
            *idat = malloc(n_idat);
    fuzz_check(png && idat && compress2(idat, &n_idat, bytes + head, (uLong)(n - head), 1) == Z_OK);
    memcpy(png, signature, sizeof signature);
    uint8_t *at = put_chunk(png + sizeof signature, "IHDR", bytes, IHDR);
    if (n_palette)
        at = put_chunk(at, "PLTE", bytes + IHDR + 1, n_palette);
    at = put_chunk(at, "IDAT", idat, n_idat);
    at = put_chunk(at, "IEND", NULL, 0);
    free(idat);
    *n_png = (size_t)(at - png);
    return png;
}

static void decode(const uint8_t *bytes, size_t n)
{
    static uint8_t square[3 * SIDE * SIDE];
    static float pixels[3 * SIDE * SIDE];
    struct image_recipe recipe = {.side = SIDE,
                                  .pad_colour = {122, 116, 104},
                                  .mean = {0.5f, 0.5f, 0.5f},
                                  .std = {0.25f, 0.25f, 0.25f}};
    bool known;
    const struct kernels *kernels = kernels_choose(NULL, &known);
    struct picture picture;
    mvlm_error error = {0};
    if (!fuzz_outcome(picture_decode("a", bytes, n, MOST_PIXELS_HERE, &picture, &error), &error)) {
        fuzz_check(!picture.rgb && error.status != MVLM_NO_MEMORY);
        return;
    }
    fuzz_check((int64_t)picture.width * picture.height <= MOST_PIXELS_HERE);
    for (int fit = IMAGE_PAD; fit <= IMAGE_SQUASH; fit++) {
        recipe.fit = (enum image_fit)fit;
        if (fuzz_outcome(picture_to_square(kernels, &picture, &recipe, square, &error), &error))
            square_to_pixels(square, &recipe, pixels);
    }
    picture_free(&picture);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    uint8_t *made = NULL;
    if (n > 1 && bytes[0] == 'R')
        made = make_png(bytes + 1, n - 1, &n);
    else if (n > sizeof signature && memcmp(bytes, signature, sizeof signature) == 0) {
        made = (uint8_t *)fuzz_text(bytes, n);
        repair_png(made, n);
    }
    if (made || n == 0 || bytes[0] != 'R')
        decode(made ? made : bytes, n);
    free(made);
    return 0;
}
