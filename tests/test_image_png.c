/* PNG and BMP files in every form, whole and damaged. */
#include "support/pictures.h"

/* ---- PNG -------------------------------------------------------------------------------- */

static void all_turns(void **state)
{
    /* clang-format off */
    static const uint8_t turned[][18] = {
        {A, B, C, D, E, F},
        {A, B, C, D, E, F},
        {C, B, A, F, E, D},
        {F, E, D, C, B, A},
        {D, E, F, A, B, C},
        {A, D, B, E, C, F},
        {D, A, E, B, F, C},
        {F, C, E, B, D, A},
        {C, F, B, E, A, D},
        {A, B, C, D, E, F},
    };
    /* clang-format on */
    (void)state;
    for (uint32_t i = 0; i < 10; i++)
        for (int big = 0; big < 2; big++) {
            const struct buffer block = exif_block(i, big);
            const struct buffer png = small_png(block.bytes, block.n);
            struct picture picture = decoded(png.bytes, png.n);
            const int swapped = i >= 5 && i <= 8;
            assert_pixels(&picture, swapped ? 2 : 3, swapped ? 3 : 2, turned[i]);
            picture_free(&picture);
        }
}

/* Whatever stands in the block, the picture is read: turned when the tag is whole, else as it lies.
 */
static void broken_exif_is_no_error(void **state)
{
    (void)state;
    for (int big = 0; big < 2; big++) {
        const struct buffer block = exif_block(6, big);
        for (size_t n = 1; n < block.n; n++) {
            const struct buffer png = small_png(block.bytes, n);
            struct picture picture = decoded(png.bytes, png.n);
            assert_int_equal(picture.width, n < 8 + 2 + 24 ? 3 : 2);
            picture_free(&picture);
        }
        for (size_t i = 0; i < block.n * 8; i++) {
            struct buffer damaged = block;
            damaged.bytes[i / 8] ^= (uint8_t)(1 << i % 8);
            const struct buffer png = small_png(damaged.bytes, damaged.n);
            struct picture picture = decoded(png.bytes, png.n);
            picture_free(&picture);
        }
    }
}

struct png_case {
    uint8_t depth, colour, interlace;
    uint8_t palette[6];
    size_t n_palette, n_rows;
    uint8_t rows[32];
    uint8_t rgb[18];
};

/* 3 x 2 pixels in every colour type: alpha dropped, grey replicated, 16 bits cut to the high byte,
 * indices beyond the palette black. */
static void every_colour_type(void **state)
{
    /* clang-format off */
    static const struct png_case cases[] = {
        {8, 0, 0, {0}, 0, 8, {0, 1, 2, 3, 2, 3, 3, 3}, {1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4, 5, 5, 5,
         6, 6, 6}},
        {1, 0, 0, {0}, 0, 4, {0, 0xa0, 0, 0x40}, {255, 255, 255, 0, 0, 0, 255, 255, 255, 0, 0, 0,
         255, 255, 255, 0, 0, 0}},
        {2, 0, 0, {0}, 0, 4, {0, 0x18, 0, 0xd4}, {0, 0, 0, 85, 85, 85, 170, 170, 170, 255, 255, 255,
         85, 85, 85, 85, 85, 85}},
        {16, 0, 0, {0}, 0, 14, {0, 1, 255, 2, 0, 3, 128, 0, 4, 9, 5, 9, 6, 9}, {1, 1, 1, 2, 2, 2, 3,
         3, 3, 4, 4, 4, 5, 5, 5, 6, 6, 6}},
        {8, 4, 0, {0}, 0, 14, {0, 1, 0, 2, 9, 3, 255, 0, 4, 0, 5, 9, 6, 255}, {1, 1, 1, 2, 2, 2, 3,
         3, 3, 4, 4, 4, 5, 5, 5, 6, 6, 6}},
        {8, 6, 0, {0}, 0, 26, {0, A, 0, B, 9, C, 255, 0, D, 0, E, 9, F, 255}, {A, B, C, D, E, F}},
        {8, 3, 0, {A, B}, 6, 8, {0, 0, 1, 2, 0, 255, 1, 0}, {A, B, 0, 0, 0, 0, 0, 0, B, A}},
        {4, 3, 0, {A, B}, 6, 6, {0, 0x01, 0x20, 0, 0xf1, 0x00}, {A, B, 0, 0, 0, 0, 0, 0, B, A}},
        /* Adam7: passes of 1 x 1 (a), 1 x 1 (c), 1 x 1 (b), 3 x 1 (the second row) */
        {8, 2, 1, {0}, 0, 22, {0, A, 0, C, 0, B, 0, D, E, F}, {A, B, C, D, E, F}},
    };
    /* clang-format on */
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct png_case *c = &cases[i];
        for (int transparent = 0; transparent < 2; transparent++) {
            struct buffer png = {.n = 0};
            put_signature_and_header(&png, 3, 2, c->depth, c->colour, c->interlace);
            if (c->n_palette)
                put_chunk(&png, "PLTE", c->palette, c->n_palette);
            if (transparent)
                put_chunk(&png, "tRNS", "\0\1\0\2\0\3", c->colour == 3 ? 1 : 6);
            put_pixels(&png, c->rows, c->n_rows, 100);
            put_chunk(&png, "tEXt", "a", 1);
            put_chunk(&png, "IEND", NULL, 0);
            put(&png, "behind", 6);
            struct picture picture = decoded(png.bytes, png.n);
            assert_pixels(&picture, 3, 2, c->rgb);
            picture_free(&picture);
        }
    }
}

static void damaged_png(void **state)
{
    struct picture picture;
    (void)state;
    const struct buffer png = small_png("x", 1);
    for (size_t n = 0; n < png.n; n++)
        assert_int_equal(decode(png.bytes, n, &picture, NULL), MVLM_BAD_PICTURE);
    for (size_t i = 0; i < png.n * 8; i++) {
        struct buffer damaged = png;
        damaged.bytes[i / 8] ^= (uint8_t)(1 << i % 8);
        assert_int_equal(decode(damaged.bytes, damaged.n, &picture, NULL), MVLM_BAD_PICTURE);
    }
    struct buffer damaged = png;
    damaged.bytes[45] ^= 1;
    assert_refused(damaged.bytes, damaged.n,
                   "p: damaged PNG: IDAT chunk at byte 33 has check sum ...");
}

/* One chunk: Z the end, p pixels, s too few of them, e none, x no zlib stream, a wrong sum, f a
 * wrong filter ... */
static void put_letter(struct buffer *png, char letter)
{
    static const uint8_t rows[14] = {0};
    if (letter == 'Z')
        put_chunk(png, "IEND", NULL, 0);
    else if (letter == 'P')
        put_chunk(png, "PLTE", rows, 3);
    else if (letter == 't')
        put_chunk(png, "tEXt", rows, 3);
    else if (letter == 'H')
        put_chunk(png, "IHDR", rows, 13);
    else if (letter == 'U')
        put_chunk(png, "UNKN", rows, 3);
    else if (letter == 'e')
        put_chunk(png, "IDAT", NULL, 0);
    else if (letter == 'x')
        put_chunk(png, "IDAT", rows, 14);
    else if (letter == 'a') /* stored, 8 zeros, wrong Adler */
        put_chunk(png, "IDAT", "\x78\x01\x01\x08\0\xf7\xff\0\0\0\0\0\0\0\0\0\x08\0\x02", 19);
    else if (letter == 'f')
        put_pixels(png, "\x09\0\0\0\0\0\0\0", 8, 100);
    else
        put_pixels(png, rows, letter == 's' ? 7 : 8, 100);
}

/* A PNG of 3 x 2 pixels whose chunks behind IHDR a case names: one letter for each. */
static void refused_png(void **state)
{
    /* clang-format off */
    static const struct {
        const char *chunks, *message;
        uint8_t depth, colour;
    } cases[] = {
        {"Z", "p: damaged PNG: no IDAT chunk", 8, 0},
        {"pZ", "p: damaged PNG: no PLTE chunk", 8, 3},
        {"PPpZ", "p: damaged PNG: PLTE of 3 bytes", 8, 3},
        {"ptpZ", "p: damaged PNG: IDAT chunk at byte ...", 8, 0},
        {"HpZ", "p: damaged PNG: IHDR chunk at byte 33", 8, 0},
        {"UpZ", "p: damaged PNG: UNKN chunk at byte 33", 8, 0},
        {"sZ", "p: damaged PNG: pixels end after 7 of 8 bytes", 8, 0},
        {"eZ", "p: damaged PNG: pixels end after 0 of 8 bytes", 8, 0},
        {"xZ", "p: damaged PNG: unknown compression method", 8, 0},
        {"aZ", "p: damaged PNG: incorrect data check", 8, 0},
        {"fZ", "p: damaged PNG: invalid filter", 8, 0},
        {"pZ", "p: damaged PNG: colour type 2 with 4 bits", 4, 2},
        {"pZ", "p: damaged PNG: colour type 3 with 16 bits", 16, 3},
        {"pZ", "p: damaged PNG: colour type 1 with 8 bits", 8, 1},
        {"pZ", "p: damaged PNG: colour type 7 with 8 bits", 8, 7},
        {"pZ", "p: damaged PNG: colour type 0 with 200 bits", 200, 0},
    };
    /* clang-format on */
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct buffer png = {.n = 0};
        put_signature_and_header(&png, 3, 2, cases[i].depth, cases[i].colour, 0);
        for (const char *c = cases[i].chunks; *c; c++)
            put_letter(&png, *c);
        assert_refused(png.bytes, png.n, cases[i].message);
    }
}

/* Fewer bytes than could ever inflate to the header's size; more than it needs, which is fine. */
static void png_sizes_that_do_not_fit(void **state)
{
    static const uint8_t many[4000] = {0};
    struct buffer png = {.n = 0};
    (void)state;
    put_signature_and_header(&png, 9999, 9999, 8, 0, 0);
    put_chunk(&png, "IDAT", many, 3);
    put_chunk(&png, "IEND", NULL, 0);
    assert_refused(png.bytes, png.n, "p: damaged PNG: 3 bytes of IDAT for 9999 x 9999 pixels");
    png.n = 0;
    put_signature_and_header(&png, 3, 2, 8, 0, 0);
    put_pixels(&png, many, sizeof many, 4000);
    put_chunk(&png, "IEND", NULL, 0);
    struct picture picture = decoded(png.bytes, png.n);
    assert_pixels(&picture, 3, 2, many);
    picture_free(&picture);
    png.n = 8;
    put_chunk(&png, "CgBI", many, 4);
    assert_refused(png.bytes, png.n, "p: Apple's own kind of PNG (CgBI) is not supported");
    assert_refused("\x89PNG\n\x1a\n IHDR", 12, "p: damaged PNG: wrong signature");
}

/* ---- BMP -------------------------------------------------------------------------------- */

struct bmp_case {
    uint32_t header; /* bytes */
    uint32_t bits, compression, n_colours;
    int32_t width, height;
    uint32_t gap; /* bytes between what the headers name and the rows */
    size_t n_extra, n_rows;
    uint8_t extra[16]; /* masks or palette */
    uint8_t rows[24];
    const char *message; /* NULL: it is abc_def */
};

static struct buffer make_bmp(const struct bmp_case *c)
{
    struct buffer bmp = {.n = 0};
    put(&bmp, "BM", 2);
    put_le(&bmp, 0, 4);
    put_le(&bmp, 0, 4);
    put_le(&bmp, (uint32_t)(14 + c->header + c->n_extra + c->gap), 4);
    put_le(&bmp, c->header, 4);
    const int width = c->header == 12 ? 2 : 4;
    put_le(&bmp, (uint32_t)c->width, width);
    put_le(&bmp, (uint32_t)c->height, width);
    put_le(&bmp, 1, 2);
    put_le(&bmp, c->bits, 2);
    put_le(&bmp, c->compression, width == 2 ? 0 : 4);
    for (int i = 0; i < 4 && c->header >= 40; i++)
        put_le(&bmp, i == 3 ? c->n_colours : 0, 4);
    if (c->header == 40)
        put_le(&bmp, 0, 4);
    bmp.n = bmp.n > 14 + c->header ? 14 + c->header : bmp.n;
    put(&bmp, c->extra, c->n_extra);
    for (uint32_t i = 0; i < c->gap; i++)
        put(&bmp, "", 1);
    put(&bmp, c->rows, c->n_rows);
    return bmp;
}

#define ROW_ABC 0xa3, 0xa2, 0xa1, 0xb3, 0xb2, 0xb1, 0xc3, 0xc2, 0xc1
#define ROW_DEF 0xd3, 0xd2, 0xd1, 0xe3, 0xe2, 0xe1, 0xf3, 0xf2, 0xf1
#define ROWS24  ROW_DEF, 0, 0, 0, ROW_ABC, 0, 0, 0
#define DEEP    .bits = 32, .width = 3, .height = -2, .n_rows = 24

static void bmp_kinds(void **state)
{
    /* clang-format off */
    static const struct bmp_case cases[] = {
        {.header = 40, .bits = 24, .width = 3, .height = 2, .n_rows = 24, .rows = {ROWS24}},
        {.header = 40, .bits = 24, .width = 3, .height = 2, .n_rows = 21, .rows = {ROWS24}},
        {.header = 40, .bits = 24, .width = 3, .height = 2, .n_rows = 24, .rows = {ROWS24}, .gap =
         7},
        {.header = 12, .bits = 24, .width = 3, .height = 2, .n_rows = 24, .rows = {ROWS24}},
        {.header = 40, .bits = 24, .width = 3, .height = -2, .n_rows = 24, .rows = {ROW_ABC, 0, 0,
         0, ROW_DEF}},
        {.header = 40, DEEP, .rows = {0xa3, 0xa2, 0xa1, 0, 0xb3, 0xb2, 0xb1, 7, 0xc3, 0xc2, 0xc1, 0,
         0xd3, 0xd2, 0xd1, 0, 0xe3, 0xe2, 0xe1, 0, 0xf3, 0xf2, 0xf1}},
        {.header = 40, DEEP, .compression = 3, .n_extra = 12, .extra = {0xff, 0, 0, 0, 0, 0xff, 0,
         0, 0, 0, 0xff, 0}, .rows = {A, 0, B, 7, C, 0, D, 0, E, 0, F, 0}},
        {.header = 40, .bits = 24, .width = 3, .height = 2, .n_rows = 20, .rows = {ROWS24},
         .message = "p: truncated BMP: rows of 21 bytes at byte 54, in 74 bytes"},
        {.header = 41, .bits = 24, .width = 3, .height = 2, .n_rows = 24, .message =
         "p: BMP with a header of 41 bytes is not supported"},
        {.header = 40, .bits = 8, .compression = 1, .width = 3, .height = 2, .n_rows = 24, .message
         = "p: BMP with RLE compression is not supported"},
        {.header = 40, .bits = 0, .compression = 4, .width = 3, .height = 2, .n_rows = 24, .message
         = "p: BMP with JPEG compression is not supported"},
        {.header = 40, .bits = 24, .compression = 77, .width = 3, .height = 2, .n_rows = 24,
         .message = "p: BMP with compression 77 is not supported"},
        {.header = 40, .bits = 2, .width = 3, .height = 2, .n_rows = 24, .message =
         "p: BMP with 2 bits a pixel and compression 0 is not supported"},
        {.header = 40, .bits = 24, .width = 0, .height = 2, .message = "p: 0 x 2 pixels"},
        {.header = 40, .bits = 24, .width = -3, .height = 2, .message = "p: -3 x 2 pixels"},
        {.header = 40, .bits = 24, .width = 3, .height = 0, .message = "p: 3 x 0 pixels"},
        {.header = 40, .bits = 24, .width = 3, .height = INT32_MIN, .message =
         "p: 3 x 2147483648 pixels, at most 100000000"},
        {.header = 40, .bits = 24, .width = 3, .height = 2, .gap = 0u - 40, .n_rows = 0, .message =
         "p: damaged BMP: rows at byte 14, inside the header"},
        {.header = 40, DEEP, .compression = 3, .n_extra = 12, .message =
         "p: damaged BMP: bad ..."},
    };
    /* clang-format on */
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct bmp_case c = cases[i];
        struct buffer bmp = {.n = 0};
        if (c.gap > 100) { /* only the offset is wrong */
            c.gap = 0;
            bmp = make_bmp(&c);
            bmp.bytes[10] = 14;
        } else {
            bmp = make_bmp(&c);
        }
        if (c.message) {
            assert_refused(bmp.bytes, bmp.n, c.message);
            continue;
        }
        struct picture picture = decoded(bmp.bytes, bmp.n);
        assert_pixels(&picture, 3, 2, abc_def);
        picture_free(&picture);
    }
}

/* Palettes of four and three bytes a colour; a colour that the palette lacks is black. */
static void bmp_palettes(void **state)
{
    static const uint8_t rgb[] = {A, B, 0, 0, 0, B, A, B};
    /* clang-format off */
    static const struct bmp_case cases[] = {
        {.header = 40, .bits = 8, .n_colours = 2, .width = 3, .height = -2, .n_extra = 8, .n_rows =
         7, .extra = {0xa3, 0xa2, 0xa1, 0, 0xb3, 0xb2, 0xb1}, .rows = {0, 1, 2, 9, 1, 0, 1}},
        {.header = 40, .bits = 4, .n_colours = 2, .width = 3, .height = -2, .n_extra = 8, .n_rows =
         6, .extra = {0xa3, 0xa2, 0xa1, 0, 0xb3, 0xb2, 0xb1}, .rows = {0x01, 0x20, 9, 9, 0x10,
         0x10}},
        {.header = 12, .bits = 8, .width = 3, .height = 2, .n_extra = 6, .n_rows = 7, .extra =
         {0xa3, 0xa2, 0xa1, 0xb3, 0xb2, 0xb1}, .rows = {1, 0, 1, 9, 0, 1, 2}},
    };
    /* clang-format on */
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct buffer bmp = make_bmp(&cases[i]);
        struct picture picture = decoded(bmp.bytes, bmp.n);
        assert_pixels(&picture, 3, 2, rgb);
        picture_free(&picture);
        for (size_t n = 0; n < bmp.n; n++)
            assert_int_equal(decode(bmp.bytes, n, &picture, NULL), MVLM_BAD_PICTURE);
        for (size_t k = 0; k < bmp.n * 8; k++) {
            struct buffer damaged = bmp;
            damaged.bytes[k / 8] ^= (uint8_t)(1 << k % 8);
            decode(damaged.bytes, damaged.n, &picture, NULL);
            picture_free(&picture);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_turns),         cmocka_unit_test(broken_exif_is_no_error),
        cmocka_unit_test(every_colour_type), cmocka_unit_test(damaged_png),
        cmocka_unit_test(refused_png),       cmocka_unit_test(png_sizes_that_do_not_fit),
        cmocka_unit_test(bmp_kinds),         cmocka_unit_test(bmp_palettes),
    };
    return cmocka_run_group_tests_name("image_png", tests, NULL, NULL);
}
