/* The first look at a picture file: its format by content, and what the three walks share. */
#include "image_file.h"

#include <limits.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "status.h"

/* stb_image counts bytes in ints, some of them six for a pixel. */
#define MOST_PIXELS (UINT64_C(1) << 28)

mvlm_status(refuse)(const struct image_source *source, const char *format, ...)
{
    char reason[256];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(reason, sizeof reason, format, arguments);
    va_end(arguments);
    return fail(source->error, MVLM_BAD_PICTURE, "%s: %s", source->name, reason);
}

mvlm_status set_size(const struct image_source *source, struct image_file *file, uint32_t width,
                     uint32_t height)
{
    const uint64_t most = source->max_pixels < MOST_PIXELS ? source->max_pixels : MOST_PIXELS;
    if (!width || !height)
        return refuse(source, "%u x %u pixels", width, height);
    if ((uint64_t)width * height > most)
        return refuse(source, "%u x %u pixels, at most %llu", width, height,
                      (unsigned long long)most);
    file->width = width;
    file->height = height;
    return MVLM_OK;
}

mvlm_status allocate_plain(const struct image_source *source, struct image_file *file,
                           size_t n_bytes)
{
    file->plain = calloc(n_bytes, 1);
    if (!file->plain)
        return fail_no_memory(source->error, "a picture file", n_bytes);
    file->bytes = file->plain;
    file->n_bytes = n_bytes;
    return MVLM_OK;
}

/* TIFF 6.0: a directory is a 16-bit count and entries of tag, type, count and value or its place.
 */
int exif_orientation(const uint8_t *block, size_t n_bytes)
{
    enum { HEADER = 8, ENTRY = 12, TAG_ORIENTATION = 0x0112, TYPE_SHORT = 3, TYPE_LONG = 4 };
    if (n_bytes < HEADER)
        return 1;
    const bool big = !memcmp(block, "MM\0*", 4);
    if (!big && memcmp(block, "II*\0", 4) != 0)
        return 1;
    const size_t directory = big ? be32(block + 4) : le32(block + 4);
    if (directory > n_bytes - 2)
        return 1;
    const size_t n_stated = big ? be16(block + directory) : le16(block + directory);
    const size_t n_present = (n_bytes - directory - 2) / ENTRY;
    for (size_t i = 0; i < n_stated && i < n_present; i++) {
        const uint8_t *entry = block + directory + 2 + i * ENTRY;
        if ((big ? be16(entry) : le16(entry)) != TAG_ORIENTATION)
            continue;
        const uint32_t type = big ? be16(entry + 2) : le16(entry + 2);
        uint32_t value = 0;
        if (type == TYPE_SHORT)
            value = big ? be16(entry + 8) : le16(entry + 8);
        else if (type == TYPE_LONG)
            value = big ? be32(entry + 8) : le32(entry + 8);
        return value >= 1 && value <= 8 ? (int)value : 1;
    }
    return 1;
}

typedef mvlm_status walk_fn(const struct image_source *source, struct image_file *file);

/* A name without a walk is refused by that name. The first row that fits counts. */
static const struct signature {
    size_t offset, length;
    const char *bytes, *name;
    walk_fn *walk;
} signatures[] = {
    {0, 2, "\xff\xd8", "JPEG", jpeg_walk},
    {0, 4, "\x89PNG", "PNG", png_walk},
    {0, 2, "BM", "BMP", bmp_walk},
    {0, 4, "GIF8", "GIF", NULL},
    {8, 4, "WEBP", "WebP", NULL},
    {0, 4, "II*\0", "TIFF", NULL},
    {0, 4, "MM\0*", "TIFF", NULL},
    {0, 4, "II+\0", "BigTIFF", NULL},
    {0, 4, "MM\0+", "BigTIFF", NULL},
    {4, 7, "ftypavi", "AVIF", NULL},
    {4, 7, "ftyphei", "HEIC", NULL},
    {4, 7, "ftyphev", "HEIC", NULL},
    {4, 7, "ftypmif", "HEIC", NULL},
    {4, 7, "ftypmsf", "HEIC", NULL},
    {4, 4, "ftyp", "MP4", NULL},
    {4, 4, "JXL ", "JPEG XL", NULL},
    {0, 2, "\xff\x0a", "JPEG XL", NULL},
    {4, 4, "jP  ", "JPEG 2000", NULL},
    {0, 4, "\xff\x4f\xff\x51", "JPEG 2000", NULL},
    {0, 4, "8BPS", "Photoshop", NULL},
    {0, 4, "<svg", "SVG", NULL},
    {0, 5, "<?xml", "XML", NULL},
    {0, 5, "%PDF-", "PDF", NULL},
    {0, 4, "PK\3\4", "ZIP", NULL},
    {0, 2, "\x1f\x8b", "gzip", NULL},
};

static const struct signature *find_signature(const uint8_t *bytes, size_t n_bytes)
{
    for (size_t i = 0; i < sizeof signatures / sizeof *signatures; i++) {
        const struct signature *signature = &signatures[i];
        if (signature->offset + signature->length <= n_bytes &&
            !memcmp(bytes + signature->offset, signature->bytes, signature->length))
            return signature;
    }
    return NULL;
}

static mvlm_status refuse_unknown(const struct image_source *source)
{
    char first[16] = "";
    for (size_t i = 0; i < 4 && i < source->n_bytes; i++)
        snprintf(first + 3 * i, 4, " %02x", source->bytes[i]);
    return refuse(source, "not a picture: begins with%s", first);
}

mvlm_status image_file_walk(const struct image_source *source, struct image_file *file)
{
    *file = (struct image_file){.turn = 1, .bytes = source->bytes, .n_bytes = source->n_bytes};
    if (!source->n_bytes)
        return refuse(source, "empty file");
    if (source->n_bytes > INT_MAX)
        return refuse(source, "%zu bytes, at most %d", source->n_bytes, INT_MAX);
    const struct signature *signature = find_signature(source->bytes, source->n_bytes);
    if (!signature)
        return refuse_unknown(source);
    if (!signature->walk)
        return refuse(source, "%s is not supported: use JPEG, PNG or BMP", signature->name);
    file->format = signature->name;
    const mvlm_status status = signature->walk(source, file);
    if (status != MVLM_OK)
        image_file_free(file);
    return status;
}

void image_file_free(struct image_file *file)
{
    free(file->plain);
    *file = (struct image_file){0};
}
