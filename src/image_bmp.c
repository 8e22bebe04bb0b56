/* BMP: headers, palette and rows are checked and written anew under the 40-byte header that
 * stb_image reads best.
 *
 *     file header (14), information header, [masks], [palette], rows at the stated offset
 *         -> file header, 40 bytes, [3 masks], [256 colours], rows
 *
 * So palettes that are short or far from the rows, the headers of OS/2 and masks inside the header
 * all work, and no colour is read that was never written.
 */
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "image_file.h"
#include "status.h"

enum {
    FILE_HEADER = 14,
    CORE_HEADER = 12, /* OS/2: 16-bit sizes, colours of three bytes */
    INFO_HEADER = 40,
    OS2_HEADER = 64,
    MASKS = 12, /* red, green, blue */
    PALETTE = 256 * 4,
    RGB = 0,
    BITFIELDS = 3,
};

struct bmp {
    const uint8_t *header; /* the information header */
    uint32_t header_size, offset, bits, compression, n_colours;
    int32_t width, height; /* a negative height: rows from the top */
    const uint8_t *masks;  /* NULL: none */
};

static bool known_header(uint32_t size)
{
    static const uint32_t sizes[] = {CORE_HEADER, INFO_HEADER, 52, 56, OS2_HEADER, 108, 124};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        if (size == sizes[i])
            return true;
    return false;
}

static mvlm_status read_header(const struct image_source *source, struct bmp *bmp)
{
    if (source->n_bytes < FILE_HEADER + 4)
        return refuse(source, "truncated BMP: no header in %zu bytes", source->n_bytes);
    bmp->offset = le32(source->bytes + 10);
    bmp->header = source->bytes + FILE_HEADER;
    bmp->header_size = le32(bmp->header);
    if (!known_header(bmp->header_size))
        return refuse(source, "BMP with a header of %u bytes is not supported", bmp->header_size);
    if (source->n_bytes - FILE_HEADER < bmp->header_size)
        return refuse(source, "truncated BMP: no header in %zu bytes", source->n_bytes);
    const uint8_t *header = bmp->header;
    if (bmp->header_size == CORE_HEADER) {
        bmp->width = (int32_t)le16(header + 4);
        bmp->height = (int32_t)le16(header + 6);
        bmp->bits = le16(header + 10);
        return MVLM_OK;
    }
    bmp->width = (int32_t)le32(header + 4);
    bmp->height = (int32_t)le32(header + 8);
    bmp->bits = le16(header + 14);
    bmp->compression = le32(header + 16);
    bmp->n_colours = le32(header + 32);
    return MVLM_OK;
}

static mvlm_status check_encoding(const struct image_source *source, struct bmp *bmp)
{
    static const char *const compressions[] = {NULL, "RLE", "RLE", NULL, "JPEG", "PNG"};
    const uint32_t c = bmp->compression, bits = bmp->bits;
    if (c < sizeof compressions / sizeof *compressions && compressions[c])
        return refuse(source, "BMP with %s compression is not supported", compressions[c]);
    const bool masked = c == BITFIELDS && bmp->header_size != OS2_HEADER;
    if (c != RGB && !masked)
        return refuse(source, "BMP with compression %u is not supported", c);
    const bool deep = bits == 16 || bits == 32;
    const bool flat = bits == 1 || bits == 4 || bits == 8 || bits == 24;
    if (!deep && !(flat && c == RGB))
        return refuse(source, "BMP with %u bits a pixel and compression %u is not supported", bits,
                      c);
    if (!masked)
        return MVLM_OK;
    if (source->n_bytes < FILE_HEADER + INFO_HEADER + MASKS)
        return refuse(source, "truncated BMP: no masks in %zu bytes", source->n_bytes);
    bmp->masks = bmp->header + INFO_HEADER; /* behind a short header, inside a long one */
    return MVLM_OK;
}

static uint32_t magnitude(int32_t value)
{
    return (uint32_t)(value < 0 ? -(int64_t)value : value);
}

/* The new file's headers, up to the palette. */
static void write_header(const struct bmp *bmp, uint8_t *plain, size_t offset)
{
    const struct {
        size_t at;
        uint32_t value;
    } fields[] = {
        {10, (uint32_t)offset},      {14, INFO_HEADER},         {18, (uint32_t)bmp->width},
        {22, (uint32_t)bmp->height}, {26, 1 | bmp->bits << 16}, {30, bmp->masks ? BITFIELDS : RGB},
    };
    memcpy(plain, "BM", 2);
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        for (int byte = 0; byte < 4; byte++)
            plain[fields[i].at + (size_t)byte] = (uint8_t)(fields[i].value >> 8 * byte);
    if (bmp->masks)
        memcpy(plain + FILE_HEADER + INFO_HEADER, bmp->masks, MASKS);
}

/* As many colours as are stated, as lie before the rows and as the file holds; the rest stay black.
 */
static void write_palette(const struct image_source *source, const struct bmp *bmp, uint8_t *plain)
{
    const size_t width = bmp->header_size == CORE_HEADER ? 3 : 4;
    const size_t at = FILE_HEADER + (size_t)bmp->header_size;
    const size_t end = bmp->offset < source->n_bytes ? bmp->offset : source->n_bytes;
    size_t n = (size_t)1 << bmp->bits;
    if (bmp->n_colours && bmp->n_colours < n)
        n = bmp->n_colours;
    for (size_t i = 0; i < n && at + (i + 1) * width <= end; i++)
        memcpy(plain + 4 * i, source->bytes + at + i * width, 3);
}

mvlm_status bmp_walk(const struct image_source *source, struct image_file *file)
{
    struct bmp bmp = {0};
    TRY(read_header(source, &bmp));
    TRY(check_encoding(source, &bmp));
    if (bmp.width <= 0)
        return refuse(source, "%d x %d pixels", bmp.width, bmp.height);
    TRY(set_size(source, file, (uint32_t)bmp.width, magnitude(bmp.height)));
    if (bmp.offset < FILE_HEADER + bmp.header_size)
        return refuse(source, "damaged BMP: rows at byte %u, inside the header", bmp.offset);

    const uint64_t row_bits = (uint64_t)file->width * bmp.bits;
    const uint64_t stride =
        (row_bits + 31) / 32 * 4; /* rows are padded to 4 bytes; the last may not be */
    const uint64_t n_rows = stride * (file->height - 1) + (row_bits + 7) / 8;
    if (bmp.offset > source->n_bytes || n_rows > source->n_bytes - bmp.offset)
        return refuse(source, "truncated BMP: rows of %llu bytes at byte %u, in %zu bytes",
                      (unsigned long long)n_rows, bmp.offset, source->n_bytes);

    const bool indexed = bmp.bits <= 8;
    const size_t palette = FILE_HEADER + INFO_HEADER + (bmp.masks ? MASKS : 0);
    const size_t offset = palette + (indexed ? PALETTE : 0);
    TRY(allocate_plain(source, file, offset + stride * file->height));
    write_header(&bmp, file->plain, offset);
    if (indexed)
        write_palette(source, &bmp, file->plain + palette);
    memcpy(file->plain + offset, source->bytes + bmp.offset, n_rows);
    return MVLM_OK;
}
