/* Pictures of the golden folders, and the square that becomes of a picture. */
#include "support/pictures.h"

#include <dirent.h>
#include <stdio.h>

static const struct image_recipe clip = {
    .pad_colour = {122, 116, 104},
    .mean = {0.48145466f, 0.4578275f, 0.40821073f},
    .std = {0.26862954f, 0.26130258f, 0.27577711f},
};

static uint8_t *read_file(const char *folder, const char *name, size_t *n)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "rb");
    if (!file)
        fail_msg("cannot open %s", path);
    fseek(file, 0, SEEK_END);
    *n = (size_t)ftell(file);
    rewind(file);
    uint8_t *bytes = malloc(*n + 1);
    assert_int_equal(fread(bytes, 1, *n, file), *n);
    fclose(file);
    return bytes;
}

typedef void file_fn(const char *folder, const char *name);

static size_t each_file(const char *folder, file_fn *check)
{
    size_t n = 0;
    DIR *directory = opendir(folder);
    if (!directory)
        return 0;
    for (struct dirent *entry; (entry = readdir(directory));)
        if (entry->d_name[0] != '.') {
            check(folder, entry->d_name);
            n++;
        }
    closedir(directory);
    return n;
}

/* ---- Golden folders --------------------------------------------------------------------- */

/* PNG and BMP exactly; JPEG within what decoders may differ by (shared/reference/README.md). */
static void compare(const char *name, int is_jpeg, const uint8_t *square,
                    const struct picture *expected)
{
    const size_t n = (size_t)expected->width * (size_t)expected->height * 3;
    double sum = 0;
    int most = 0;
    for (size_t i = 0; i < n; i++) {
        const int difference = abs(square[i] - expected->rgb[i]);
        most = difference > most ? difference : most;
        sum += difference;
    }
    if (sum / (double)n > (is_jpeg ? 0.25 : 0) || most > (is_jpeg ? 8 : 0))
        fail_msg("%s differs by %g in the mean, by %d at most", name, sum / (double)n, most);
}

static const struct kernels *kernels;

static void check_square(const char *folder, const char *expected_name)
{
    char parent[2052], name[512];
    snprintf(parent, sizeof parent, "%s/..", folder);
    snprintf(name, sizeof name, "%s", expected_name);
    const size_t length = strlen(name);
    assert_true(length > 4 && !strcmp(name + length - 4, ".png"));
    name[length - 4] = 0;
    struct image_recipe recipe = clip;
    if (length > 9 && !strcmp(name + length - 9, ".crop")) {
        name[length - 9] = 0;
        recipe.fit = IMAGE_CROP;
    }
    size_t n_expected, n;
    uint8_t *expected_bytes = read_file(folder, expected_name, &n_expected);
    uint8_t *bytes = read_file(parent, name, &n);
    struct picture expected = decoded(expected_bytes, n_expected), picture = decoded(bytes, n);
    assert_int_equal(expected.width, expected.height);
    recipe.side = expected.width;
    uint8_t *square = malloc((size_t)recipe.side * (size_t)recipe.side * 3);
    assert_int_equal(picture_to_square(kernels, &picture, &recipe, square, NULL), MVLM_OK);
    compare(expected_name, bytes[0] == 0xff, square, &expected);
    picture_free(&expected);
    picture_free(&picture);
    free(expected_bytes);
    free(bytes);
    free(square);
}

static void check_refusal(const char *folder, const char *name)
{
    /* clang-format off */
    static const char *const reasons[][2] = {
        {"animation.gif", "p: GIF is not supported: use JPEG, PNG or BMP"},
        {"bomb.png", "p: 65535 x 65535 pixels, at most 100000000"},
        {"empty.jpg", "p: empty file"},
        {"half.jpg", "p: truncated JPEG: no end marker in ..."},
        {"half.png", "p: truncated PNG: no IEND chunk in ..."},
        {"header-only.png", "p: truncated PNG: no IEND chunk in 33 bytes"},
        {"heic.jpg", "p: HEIC is not supported: use JPEG, PNG or BMP"},
        {"picture.tiff", "p: TIFF is not supported: use JPEG, PNG or BMP"},
        {"picture.webp", "p: WebP is not supported: use JPEG, PNG or BMP"},
        {"soi-only.jpg", "p: truncated JPEG: no end marker in 2 bytes"},
        {"text.jpg", "p: not a picture: begins with 74 68 69 73"},
        {"wide-huffman.jpg", "p: damaged JPEG: Huffman table of 4080 codes, at most 256"},
        {"zero-width.png", "p: 0 x 10 pixels"},
        {"zip.png", "p: ZIP is not supported: use JPEG, PNG or BMP"},
    };
    /* clang-format on */
    const char *reason = "p: ...";
    for (size_t i = 0; i < sizeof reasons / sizeof *reasons; i++)
        reason = strcmp(name, reasons[i][0]) ? reason : reasons[i][1];
    size_t n;
    uint8_t *bytes = read_file(folder, name, &n);
    assert_refused(bytes, n, reason);
    free(bytes);
}

static void check_folder(const char *folder)
{
    char path[2048];
    snprintf(path, sizeof path, "%s/expected", folder);
    const size_t n_expected = each_file(path, check_square);
    snprintf(path, sizeof path, "%s/bad", folder);
    const size_t n_bad = each_file(path, check_refusal);
    if (!n_expected && !n_bad)
        skip();
}

static void golden_pictures_of_the_project(void **state)
{
    (void)state;
    check_folder(SOURCE_DIR "/tests/golden/images");
}

static void golden_pictures_shared(void **state)
{
    (void)state;
    check_folder(SHARED_DIR "/reference/images");
}

/* ---- Resizing --------------------------------------------------------------------------- */

static struct picture noise(int width, int height)
{
    struct picture picture = {width, height, malloc((size_t)width * (size_t)height * 3)};
    uint8_t *p = picture.rgb;
    for (uint32_t y = 0; y < (uint32_t)height; y++)
        for (uint32_t x = 0; x < (uint32_t)width; x++)
            for (uint32_t c = 0; c < 3; c++) {
                uint32_t v = x * 2654435761u + y * 40503u * 65537u + (c + 1) * 2246822519u;
                v = (v ^ v >> 15) * 2246822519u;
                *p++ = (uint8_t)(v ^ v >> 13);
            }
    return picture;
}

/* crc32 of the squares that Pillow makes of the same noise: 10.4, padded and cropped, and 13, squashed. (Later
 * releases than 10.4, 12.3 for very tall pictures and 13 for more, run the vertical pass first where the height shrinks
 * much more than the width.) */
static void resizing_equals_pillow(void **state)
{
    /* clang-format off */
    static const struct {
        int width, height, side;
        uint32_t sums[3];
    } cases[] = {
        {1, 1, 1, {0xe00130af, 0xe00130af, 0xe00130af}},
        {1, 1, 14, {0x13cd82e4, 0x13cd82e4, 0x13cd82e4}},
        {5, 3, 14, {0x3ba82b99, 0xf6445a8a, 0xa6fba6d4}},
        {3, 5, 14, {0x5b2786bc, 0xb67591c0, 0x09b8a3b6}},
        {17, 19, 14, {0x491c0066, 0x4324b8eb, 0x9d72bd72}},
        {14, 14, 14, {0xcb183f7d, 0xcb183f7d, 0xcb183f7d}},
        {14, 40, 14, {0x3b5f8e6e, 0xb732e5b5, 0x287d477c}},
        {40, 14, 14, {0x351fecb6, 0x31c67003, 0x5d6e411d}},
        {14, 5, 14, {0xa6d2357a, 0x676632bd, 0x6e2afe90}},
        {5, 14, 14, {0xb52d76b3, 0xe3bc2643, 0x3f34f014}},
        {100, 37, 28, {0x528dacd2, 0x55d657c2, 0x37d3f86e}},
        {28, 101, 28, {0x5c5e8c2e, 0x54806d82, 0xeda65934}},
        {1, 3000, 28, {0xcb8f4c48, 0x940de82b, 0x84e60db9}},
        {2, 2999, 28, {0xcb8f4c48, 0xe6693c31, 0x5955ed99}},
        {3000, 1, 28, {0xcb8f4c48, 0x67b22dec, 0xbaf5c2b8}},
        {640, 481, 112, {0xfd1d0888, 0x56996120, 0xf56af2c6}},
        {333, 500, 336, {0x6c68b814, 0x1cacff90, 0xf8258800}},
        {1200, 900, 336, {0xece4100f, 0x9d9e6641, 0xee87e294}},
        {97, 97, 336, {0xee660b5a, 0xee660b5a, 0xee660b5a}},
        {4000, 3000, 336, {0xe8688158, 0xc64105b0, 0x51365179}},
        {641, 480, 14, {0x09e40d9b, 0xde6ae9b5, 0x0e7465d1}},
    };
    /* clang-format on */
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct picture picture = noise(cases[i].width, cases[i].height);
        struct image_recipe recipe = clip;
        recipe.side = cases[i].side;
        const size_t n = 3 * (size_t)recipe.side * (size_t)recipe.side;
        uint8_t *square = malloc(n);
        for (int fit = IMAGE_PAD; fit <= IMAGE_SQUASH; fit++) {
            recipe.fit = (enum image_fit)fit;
            assert_int_equal(picture_to_square(kernels, &picture, &recipe, square, NULL), MVLM_OK);
            if (crc32(0, square, (uInt)n) != cases[i].sums[fit])
                fail_msg("%d x %d to %d, fit %d", cases[i].width, cases[i].height, recipe.side,
                         fit);
        }
        picture_free(&picture);
        free(square);
    }
}

/* A picture of the padding's colour stays it everywhere, whatever its shape. */
static void constant_stays_constant(void **state)
{
    /* clang-format off */
    static const int sizes[][2] = {
        {1, 1},
        {1, 100000},
        {100000, 1},
        {2, 99999},
        {700, 3},
        {337, 335},
        {50, 50},
        {1000000, 2},
    };
    /* clang-format on */
    (void)state;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        const size_t n = (size_t)sizes[i][0] * (size_t)sizes[i][1];
        struct picture picture = {sizes[i][0], sizes[i][1], malloc(3 * n)};
        for (size_t k = 0; k < 3 * n; k++)
            picture.rgb[k] = clip.pad_colour[k % 3];
        struct image_recipe recipe = clip;
        recipe.side = 56;
        uint8_t square[56 * 56 * 3];
        for (int fit = IMAGE_PAD; fit <= IMAGE_SQUASH; fit++) {
            recipe.fit = (enum image_fit)fit;
            assert_int_equal(picture_to_square(kernels, &picture, &recipe, square, NULL), MVLM_OK);
            for (size_t k = 0; k < sizeof square; k++)
                assert_int_equal(square[k], clip.pad_colour[k % 3]);
        }
        picture_free(&picture);
    }
}

/* Values from NumPy, in the order of CLIPImageProcessor's roundings. */
static void pixels_have_the_reference_roundings(void **state)
{
    /* clang-format off */
    static const struct {
        uint8_t value;
        float pixels[3];
    } cases[] = {
        {0, {-0x1.cad1b8p+0f, -0x1.c08970p+0f, -0x1.7aefb0p+0f}},
        {1, {-0x1.c714fep+0f, -0x1.bcb1e2p+0f, -0x1.774bc2p+0f}},
        {100, {-0x1.5465e0p-2f, -0x1.015a1ap-2f, -0x1.dce1d6p-5f}},
        {127, {0x1.f9c124p-5f, 0x1.3b2a62p-3f, 0x1.4d8bccp-2f}},
        {255, {0x1.ee2a82p+0f, 0x1.0995cap+1f, 0x1.12accp+1f}},
    };
    /* clang-format on */
    (void)state;
    struct image_recipe recipe = clip;
    recipe.side = 2;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint8_t square[12] = {0};
        float pixels[12];
        memset(square + 9, cases[i].value, 3); /* the last pixel */
        square_to_pixels(square, &recipe, pixels);
        for (size_t c = 0; c < 3; c++) {
            assert_memory_equal(&pixels[4 * c + 3], &cases[i].pixels[c], sizeof(float));
            assert_memory_equal(&pixels[4 * c], &cases[0].pixels[c], sizeof(float));
        }
    }
}

/* ---- The rest --------------------------------------------------------------------------- */

static void known_formats_are_named(void **state)
{
    /* clang-format off */
    static const struct {
        const char *bytes, *message;
        size_t n;
    } cases[] = {
        {"", "p: empty file", 0},
        {"\n", "p: not a picture: begins with 0a", 1},
        {"GIF89a", "p: GIF is not supported: use JPEG, PNG or BMP", 6},
        {"RIFF\0\0\0\0WEBPVP8 ", "p: WebP is not supported: use JPEG, PNG or BMP", 16},
        {"RIFF\0\0\0\0WAVEfmt ", "p: not a picture: begins with 52 49 46 46", 16},
        {"MM\0*\0\0\0\x08", "p: TIFF is not supported: use JPEG, PNG or BMP", 8},
        {"\0\0\0\x20" "ftypavif", "p: AVIF is not supported: use JPEG, PNG or BMP", 12},
        {"\0\0\0\x20" "ftypmif1", "p: HEIC is not supported: use JPEG, PNG or BMP", 12},
        {"%PDF-1.7", "p: PDF is not supported: use JPEG, PNG or BMP", 8},
        {"BM", "p: truncated BMP: no header in 2 bytes", 2},
    };
    /* clang-format on */
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_refused(cases[i].bytes, cases[i].n, cases[i].message);
}

static void most_pixels(void **state)
{
    const struct buffer png = small_png(NULL, 0);
    struct picture picture;
    mvlm_error error;
    (void)state;
    assert_int_equal(picture_decode("a.png", png.bytes, png.n, 6, &picture, &error), MVLM_OK);
    assert_pixels(&picture, 3, 2, abc_def);
    picture_free(&picture);
    assert_int_equal(picture_decode("a.png", png.bytes, png.n, 5, &picture, &error),
                     MVLM_BAD_PICTURE);
    assert_string_equal(error.message, "a.png: 3 x 2 pixels, at most 5");
    assert_int_equal(
        picture_decode("a", baseline_jpeg, sizeof baseline_jpeg, 398, &picture, &error),
        MVLM_BAD_PICTURE);
    assert_string_equal(error.message, "a: 21 x 19 pixels, at most 398");
}

int main(void)
{
    bool known;
    kernels = kernels_choose(NULL, &known);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden_pictures_of_the_project),
        cmocka_unit_test(golden_pictures_shared),
        cmocka_unit_test(resizing_equals_pillow),
        cmocka_unit_test(constant_stays_constant),
        cmocka_unit_test(pixels_have_the_reference_roundings),
        cmocka_unit_test(known_formats_are_named),
        cmocka_unit_test(most_pixels),
    };
    return cmocka_run_group_tests_name("image", tests, NULL, NULL);
}
