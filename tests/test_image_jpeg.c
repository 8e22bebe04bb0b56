/* JPEG files, whole, cut short, flipped bit by bit, and edited into what must be refused. */
#include "support/pictures.h"

#include <stdio.h>

static const struct jpeg {
    const char *name;
    const uint8_t *bytes;
    size_t n;
} jpegs[] = {{"baseline", baseline_jpeg, sizeof baseline_jpeg},
             {"progressive", progressive_jpeg, sizeof progressive_jpeg},
             {"cmyk", cmyk_jpeg, sizeof cmyk_jpeg}};

static void truncated_jpeg(void **state)
{
    (void)state;
    for (size_t i = 0; i < 3; i++)
        for (size_t n = 2; n < jpegs[i].n; n++) {
            char message[100];
            snprintf(message, sizeof message, "p: truncated JPEG: no end marker in %zu bytes", n);
            assert_refused(jpegs[i].bytes, n, message);
        }
    assert_refused("\xff", 1, "p: not a picture: begins with ff");
}

static void flipped_jpeg(void **state)
{
    (void)state;
    for (size_t i = 0; i < 3; i++)
        for (size_t k = 0; k < jpegs[i].n * 9; k++) {
            uint8_t damaged[1000];
            memcpy(damaged, jpegs[i].bytes, jpegs[i].n);
            damaged[k / 9] ^= (uint8_t)(k % 9 < 8 ? 1 << k % 9 : 255);
            struct picture picture;
            mvlm_error error;
            if (decode(damaged, jpegs[i].n, &picture, &error) == MVLM_OK)
                assert_in_range(picture.width * picture.height, 1, MOST);
            else
                assert_int_equal(strncmp(error.message, "p: ", 3), 0);
            picture_free(&picture);
        }
}

/* The picture with the bytes from `at` on replaced: `n_old` of them by `n_new` others. */
static struct buffer edited(const struct jpeg *jpeg, size_t at, size_t n_old, const void *new,
                            size_t n_new)
{
    struct buffer file = {.n = 0};
    put(&file, jpeg->bytes, at);
    put(&file, new, n_new);
    put(&file, jpeg->bytes + at + n_old, jpeg->n - at - n_old);
    return file;
}

/* Where the n-th marker `marker` stands. */
static size_t find(const struct jpeg *jpeg, uint8_t marker, int n)
{
    for (size_t at = 2; at + 1 < jpeg->n; at++)
        if (jpeg->bytes[at] == 0xff && jpeg->bytes[at + 1] == marker && !n--)
            return at;
    fail_msg("no marker %02x", marker);
    return 0;
}

static size_t segment_length(const struct jpeg *jpeg, size_t at)
{
    return 2u + ((size_t)jpeg->bytes[at + 2] << 8) + jpeg->bytes[at + 3];
}

static void refused_jpeg(void **state)
{
    /* clang-format off */
    static const struct {
        int jpeg;
        uint8_t marker; /* the segment, and where in it (its FF being 0) what is put instead of how
                           much */
        int nth;
        size_t at, n_old;
        const char *new;
        size_t n_new;
        const char *message;
    } cases[] = {
        {0, 0xc0, 0, 1, 1, "\xc3", 1, "p: JPEG of the lossless kind is not supported"},
        {0, 0xc0, 0, 1, 1, "\xc5", 1, "p: JPEG of the hierarchical kind is not supported"},
        {0, 0xc0, 0, 1, 1, "\xc9", 1, "p: JPEG of the arithmetic kind is not supported"},
        {0, 0xc0, 0, 1, 1, "\xf7", 1, "p: JPEG of the JPEG-LS kind is not supported"},
        {0, 0xc0, 0, 4, 1, "\x0c", 1, "p: 12-bit JPEG is not supported"},
        {0, 0xc0, 0, 5, 2, "\0\0", 2, "p: 21 x 0 pixels"},
        {0, 0xc0, 0, 5, 4, "\xff\xff\xff\xff", 4, "p: 65535 x 65535 pixels, at most 100000000"},
        {0, 0xc0, 0, 5, 4, "\x20\0\x20\0", 4, "p: damaged JPEG: 56 bytes of data for ..."},
        {0, 0xc0, 0, 9, 1, "\x02", 1, "p: JPEG with 2 components is not supported"},
        {0, 0xc0, 0, 11, 1, "\x52", 1, "p: damaged JPEG: sampling factors 5 x 2"},
        {0, 0xc0, 0, 11, 4, "\x33\0\2\x22", 4,
         "p: JPEG with fractional sampling is not supported"},
        {0, 0xc0, 0, 13, 1, "\1", 1, "p: damaged JPEG: two components of one name ..."},
        {0, 0xc0, 0, 19, 0, "\xff\xc0\0\x0b\x08\0\x13\0\x15\1\1\x11", 13,
         "p: damaged JPEG: a second frame ..."},
        {0, 0xdb, 0, 4, 1, "\x24", 1, "p: damaged JPEG: wrong quantization table ..."},
        {0, 0xdb, 1, 1, 1, "\xfe", 1, "p: damaged JPEG: scan without its tables ..."},
        {0, 0xc4, 0, 1, 1, "\xfe", 1, "p: damaged JPEG: scan without its tables ..."},
        {0, 0xc4, 1, 1, 1, "\xfe", 1, "p: damaged JPEG: scan without its tables ..."},
        {0, 0xc4, 0, 5, 1, "\3", 1, "p: damaged JPEG: wrong Huffman table ..."},
        {0, 0xda, 0, 4, 1, "\4", 1, "p: damaged JPEG: wrong scan header ..."},
        {0, 0xda, 0, 5, 1, "\x09", 1,
         "p: damaged JPEG: scan of an unknown component or table ..."},
        {0, 0xda, 0, 7, 1, "\1", 1, "p: damaged JPEG: scan with a component twice ..."},
        {0, 0xda, 0, 11, 1, "\1", 1, "p: damaged JPEG: scan of a part in a sequential frame ..."},
        {2, 0xda, 0, 3, 10, "\x08\1\x43\0", 4, "p: damaged JPEG: a component without a scan ..."},
        {0, 0xd1, 0, 0, 2, "", 0, "p: damaged JPEG: 2 restart markers of 3"},
        {0, 0xd9, 0, 0, 0, "\xff\xc0\0\3\x08", 5, "p: damaged JPEG: a second frame ..."},
        {0, 0xd9, 0, 0, 0, "\xff\x02", 2, "p: damaged JPEG: marker 02 before byte ..."},
        {0, 0xdd, 0, 0, 0, "\0", 1, "p: damaged JPEG: no marker at byte ..."},
        {1, 0xda, 0, 12, 1, "\1", 1, "p: damaged JPEG: wrong scan header ..."},
        {1, 0xda, 0, 13, 1, "\x22", 1, "p: damaged JPEG: wrong scan header ..."},
        {1, 0xda, 1, 8, 1, "\x10", 1, "p: damaged JPEG: scan out of order ..."},
        {1, 0xda, 0, 1, 1, "\xfe", 1, "p: damaged JPEG: no marker at byte ..."},
    };
    /* clang-format on */
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct jpeg *jpeg = &jpegs[cases[i].jpeg];
        const size_t at = find(jpeg, cases[i].marker, cases[i].nth) + cases[i].at;
        const struct buffer file = edited(jpeg, at, cases[i].n_old, cases[i].new, cases[i].n_new);
        assert_refused(file.bytes, file.n, cases[i].message);
    }
    assert_refused("\xff\xd8\xff\xd9", 4, "p: damaged JPEG: no frame ...");
}

/* Decoded as if zeros followed, as libjpeg does. */
static void jpeg_data_ends_inside_a_code(void **state)
{
    (void)state;
    struct picture picture = decoded(overrun_jpeg, sizeof overrun_jpeg);
    assert_int_equal(picture.width * picture.height, 8 * 8);
    picture_free(&picture);
}

/* Fill bytes, data behind the end and a trailing restart marker change nothing. */
static void tolerated_jpeg(void **state)
{
    const struct jpeg *jpeg = &jpegs[0];
    /* clang-format off */
    const struct {
        uint8_t marker;
        const char *new;
        size_t n, skip;
    } cases[] = {
        {0xd9, "more", 4, 2},
        {0xd9, "\xff\xd3", 2, 0},
        {0xc0, "\xff\xff", 2, 0},
        {0xc0, "padding", 7, 0},
        {0xda, "\xff\xfe\0\x05\xff\xd9!", 7, 0},
    };
    /* clang-format on */
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const size_t at = find(jpeg, cases[i].marker, 0) + cases[i].skip;
        const struct buffer file = edited(jpeg, at, 0, cases[i].new, cases[i].n);
        assert_same(decoded(file.bytes, file.n), decoded(jpeg->bytes, jpeg->n));
    }
}

/* The first EXIF segment counts; other kinds of the same marker do not. */
static void exif_in_jpeg(void **state)
{
    const struct jpeg *jpeg = &jpegs[1];
    (void)state;
    for (int big = 0; big < 2; big++) {
        struct buffer segments = {.n = 0};
        put(&segments, "\xff\xe1\0\x08http:x", 10);
        for (uint32_t orientation = 6; orientation; orientation -= 3) {
            const struct buffer block = exif_block(orientation, big);
            put_be32(&segments, 0xffe10000 | (uint32_t)(block.n + 8));
            put(&segments, "Exif\0", 6);
            put(&segments, block.bytes, block.n);
        }
        const struct buffer file = edited(jpeg, 2, 0, segments.bytes, segments.n);
        struct picture turned = decoded(file.bytes, file.n), plain = decoded(jpeg->bytes, jpeg->n);
        assert_int_equal(turned.width, 19);
        assert_int_equal(turned.height, 21);
        assert_memory_equal(turned.rgb, plain.rgb + (size_t)18 * 21 * 3, 3);
        picture_free(&turned);
        picture_free(&plain);
    }
}

/* libjpeg takes four components for CMYK without Adobe's segment, and for YCCK with an odd one in
 * it. */
static void cmyk_without_adobe(void **state)
{
    const struct jpeg *jpeg = &jpegs[2];
    const size_t at = find(jpeg, 0xee, 0);
    (void)state;
    const struct buffer without = edited(jpeg, at, segment_length(jpeg, at), "", 0);
    assert_same(decoded(without.bytes, without.n), decoded(jpeg->bytes, jpeg->n));
    const struct buffer odd = edited(jpeg, at + 15, 1, "\1", 1);
    const struct buffer ycck = edited(jpeg, at + 15, 1, "\2", 1);
    assert_same(decoded(odd.bytes, odd.n), decoded(ycck.bytes, ycck.n));
    struct picture cmyk = decoded(jpeg->bytes, jpeg->n), other = decoded(ycck.bytes, ycck.n);
    assert_memory_not_equal(cmyk.rgb, other.rgb, 21 * 19 * 3);
    picture_free(&cmyk);
    picture_free(&other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(truncated_jpeg),     cmocka_unit_test(flipped_jpeg),
        cmocka_unit_test(refused_jpeg),       cmocka_unit_test(jpeg_data_ends_inside_a_code),
        cmocka_unit_test(tolerated_jpeg),     cmocka_unit_test(exif_in_jpeg),
        cmocka_unit_test(cmyk_without_adobe),
    };
    return cmocka_run_group_tests_name("image_jpeg", tests, NULL, NULL);
}
