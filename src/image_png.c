/* PNG: every chunk is checked, and the pixels are inflated by zlib into a plain file for stb_image.
 *
 *     signature, IHDR, ... PLTE, ... IDAT, IDAT, ... IEND
 *         -> signature, IHDR, [PLTE of 256], IDAT of stored blocks, IEND
 *
 * stb_image then only undoes the filters, unpacks and deinterlaces. Exactly as many bytes are
 * inflated as the header's size needs, so a bomb costs nothing; transparency is not passed on,
 * since alpha is dropped.
 */
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <zlib.h>

#include "image_file.h"
#include "status.h"

enum {
    SIGNATURE = 8,
    CHUNK = 12, /* length, type, check sum */
    IHDR = 13,
    PALETTE = 256 * 3,
    ZLIB_HEADER = 2,
    ZLIB_SUM = 4,
    BLOCK_HEADER = 5,
    BLOCK = 65535,         /* most bytes of a stored block, RFC 1951 3.2.4 */
    MOST_INFLATION = 1032, /* bytes that one deflated byte can stand for: 258 for every 2 bits */
};

struct chunk {
    const uint8_t *type, *data;
    uint32_t length;
};

struct png {
    const struct image_source *source;
    struct image_file *file;
    const uint8_t *header; /* IHDR's data */
    uint32_t depth, colour, n_samples;
    bool interlaced;
    struct chunk palette;
    size_t pixels;       /* where the first IDAT begins; 0: none yet */
    uint64_t n_deflated; /* bytes in all IDATs */
    bool pixels_ended, has_exif;
};

static bool is(const struct chunk *chunk, const char *type)
{
    return !memcmp(chunk->type, type, 4);
}

/* Splits off the chunk at `at`, which the file must hold whole. */
static bool take_chunk(const struct image_source *source, size_t at, struct chunk *chunk)
{
    if (source->n_bytes - at < CHUNK)
        return false;
    chunk->length = be32(source->bytes + at);
    chunk->type = source->bytes + at + 4;
    chunk->data = chunk->type + 4;
    return chunk->length <= source->n_bytes - at - CHUNK;
}

static mvlm_status check_chunk(const struct image_source *source, size_t at,
                               const struct chunk *chunk)
{
    for (int i = 0; i < 4; i++) {
        const uint8_t letter = chunk->type[i] | 0x20;
        if (letter < 'a' || letter > 'z')
            return refuse(source, "damaged PNG: no chunk at byte %zu", at);
    }
    const uint32_t expected = be32(chunk->data + chunk->length);
    const uint32_t sum = (uint32_t)crc32_z(0, chunk->type, (size_t)chunk->length + 4);
    if (sum != expected)
        return refuse(source, "damaged PNG: %.4s chunk at byte %zu has check sum %08x, not %08x",
                      (const char *)chunk->type, at, sum, expected);
    return MVLM_OK;
}

/* PNG specification, table 11.1: depths allowed for each colour type, as a set of bits. */
static mvlm_status read_header(struct png *png, const struct chunk *chunk)
{
    static const uint32_t depths[] = {
        1 << 1 | 1 << 2 | 1 << 4 | 1 << 8 | 1 << 16,
        0,
        1 << 8 | 1 << 16,
        1 << 1 | 1 << 2 | 1 << 4 | 1 << 8,
        1 << 8 | 1 << 16,
        0,
        1 << 8 | 1 << 16,
    };
    static const uint8_t samples[] = {1, 0, 3, 1, 2, 0, 4};
    if (chunk->length != IHDR)
        return refuse(png->source, "damaged PNG: IHDR of %u bytes, not %d", chunk->length, IHDR);
    png->header = chunk->data;
    TRY(set_size(png->source, png->file, be32(chunk->data), be32(chunk->data + 4)));
    png->depth = chunk->data[8];
    png->colour = chunk->data[9];
    if (png->colour >= sizeof samples || png->depth > 16 ||
        !(depths[png->colour] >> png->depth & 1))
        return refuse(png->source, "damaged PNG: colour type %u with %u bits", png->colour,
                      png->depth);
    if (chunk->data[10] || chunk->data[11] || chunk->data[12] > 1)
        return refuse(png->source,
                      "PNG with compression %u, filter %u, interlace %u is not supported",
                      chunk->data[10], chunk->data[11], chunk->data[12]);
    png->n_samples = samples[png->colour];
    png->interlaced = chunk->data[12];
    return MVLM_OK;
}

static mvlm_status read_chunk(struct png *png, const struct chunk *chunk, size_t at)
{
    const struct image_source *source = png->source;
    if (!png->header) {
        if (is(chunk, "CgBI"))
            return refuse(source, "Apple's own kind of PNG (CgBI) is not supported");
        if (!is(chunk, "IHDR"))
            return refuse(source, "damaged PNG: begins with %.4s, not IHDR",
                          (const char *)chunk->type);
        return read_header(png, chunk);
    }
    if (png->pixels && !is(chunk, "IDAT"))
        png->pixels_ended = true;
    if (is(chunk, "IDAT")) {
        if (png->pixels_ended)
            return refuse(source, "damaged PNG: IDAT chunk at byte %zu apart from the others", at);
        png->pixels = png->pixels ? png->pixels : at;
        png->n_deflated += chunk->length;
    } else if (is(chunk, "PLTE")) {
        if (chunk->length % 3 || !chunk->length || chunk->length > PALETTE || png->palette.data)
            return refuse(source, "damaged PNG: PLTE of %u bytes", chunk->length);
        png->palette = *chunk;
    } else if (is(chunk, "eXIf") && !png->has_exif) {
        png->has_exif = true;
        png->file->turn = exif_orientation(chunk->data, chunk->length);
    } else if (!(chunk->type[0] & 0x20)) {
        return refuse(source, "damaged PNG: %.4s chunk at byte %zu", (const char *)chunk->type, at);
    }
    return MVLM_OK;
}

static mvlm_status read_chunks(struct png *png)
{
    const struct image_source *source = png->source;
    for (size_t at = SIGNATURE;;) {
        struct chunk chunk;
        if (!take_chunk(source, at, &chunk))
            return refuse(source, "truncated PNG: no IEND chunk in %zu bytes", source->n_bytes);
        TRY(check_chunk(source, at, &chunk));
        if (png->header && is(&chunk, "IEND"))
            break;
        TRY(read_chunk(png, &chunk, at));
        at += CHUNK + (size_t)chunk.length;
    }
    if (!png->pixels)
        return refuse(source, "damaged PNG: no IDAT chunk");
    if (png->colour == 3 && !png->palette.data)
        return refuse(source, "damaged PNG: no PLTE chunk");
    return MVLM_OK;
}

static uint64_t pass_bytes(const struct png *png, uint64_t width, uint64_t height)
{
    const uint64_t row = (width * png->n_samples * png->depth + 7) / 8;
    return width ? (row + 1) * height : 0; /* each row begins with its filter's number */
}

/* Bytes of all rows; interlaced, of Adam7's seven pictures (PNG specification, 8.2). */
static uint64_t inflated_bytes(const struct png *png)
{
    static const uint8_t passes[7][4] = {/* first x, first y, step x, step y */
                                         {0, 0, 8, 8}, {4, 0, 8, 8}, {0, 4, 4, 8}, {2, 0, 4, 4},
                                         {0, 2, 2, 4}, {1, 0, 2, 2}, {0, 1, 1, 2}};
    const uint64_t width = png->file->width, height = png->file->height;
    if (!png->interlaced)
        return pass_bytes(png, width, height);
    uint64_t sum = 0;
    for (size_t i = 0; i < 7; i++)
        sum += pass_bytes(png, (width + passes[i][2] - 1u - passes[i][0]) / passes[i][2],
                          (height + passes[i][3] - 1u - passes[i][1]) / passes[i][3]);
    return sum;
}

/* The IDAT chunks as one stream. */
struct inflater {
    const struct image_source *source;
    size_t at; /* the next chunk */
    z_stream z;
};

/* False when no IDAT follows. */
static bool next_input(struct inflater *inflater)
{
    struct chunk chunk;
    if (!take_chunk(inflater->source, inflater->at, &chunk) || !is(&chunk, "IDAT"))
        return false;
    inflater->z.next_in = (Bytef *)(uintptr_t)chunk.data; /* zlib only reads it */
    inflater->z.avail_in = chunk.length;
    inflater->at += CHUNK + (size_t)chunk.length;
    return true;
}

/* Fills `to`; with `n_bytes` 0, reads on as far as the stream goes without giving more: to its
 * check sum. */
static mvlm_status inflate_bytes(struct inflater *inflater, uint8_t *to, unsigned n_bytes)
{
    z_stream *z = &inflater->z;
    z->next_out = to;
    z->avail_out = n_bytes;
    for (;;) {
        const int result = inflate(z, Z_NO_FLUSH);
        if (result == Z_MEM_ERROR)
            return fail_no_memory(inflater->source->error, "zlib", sizeof *z);
        if (result != Z_OK && result != Z_BUF_ERROR && result != Z_STREAM_END)
            return refuse(inflater->source, "damaged PNG: %s",
                          z->msg ? z->msg : "pixels cannot be inflated");
        if (result == Z_STREAM_END || (n_bytes && !z->avail_out))
            return MVLM_OK;
        if (z->avail_in ? !n_bytes : !next_input(inflater))
            return MVLM_OK;
    }
}

static mvlm_status write_pixels(const struct png *png, uint8_t *to, uint64_t n_bytes)
{
    struct inflater inflater = {.source = png->source, .at = png->pixels};
    if (inflateInit(&inflater.z) != Z_OK)
        return fail_no_memory(png->source->error, "zlib", sizeof inflater.z);
    mvlm_status status = MVLM_OK;
    for (uint64_t done = 0; done < n_bytes && status == MVLM_OK;) {
        const unsigned n = n_bytes - done < BLOCK ? (unsigned)(n_bytes - done) : BLOCK;
        const uint8_t head[BLOCK_HEADER] = {done + n == n_bytes, n & 255, n >> 8 & 255, ~n & 255,
                                            ~n >> 8 & 255};
        memcpy(to, head, sizeof head);
        status = inflate_bytes(&inflater, to + sizeof head, n);
        if (status == MVLM_OK && inflater.z.avail_out)
            status = refuse(png->source, "damaged PNG: pixels end after %llu of %llu bytes",
                            (unsigned long long)(done + n - inflater.z.avail_out),
                            (unsigned long long)n_bytes);
        to += sizeof head + n;
        done += n;
    }
    if (status == MVLM_OK)
        status = inflate_bytes(&inflater, to, 0);
    inflateEnd(&inflater.z);
    return status;
}

/* Begins a chunk; its check sum stays 0, since stb_image skips it. */
static uint8_t *write_chunk(uint8_t *to, const char *type, uint32_t length)
{
    for (int i = 0; i < 4; i++)
        to[i] = (uint8_t)(length >> (24 - 8 * i));
    memcpy(to + 4, type, 4);
    return to + 8;
}

static mvlm_status write_plain(const struct png *png)
{
    static const uint8_t zlib_header[ZLIB_HEADER] = {0x78, 0x01};
    const struct image_source *source = png->source;
    const uint64_t n_bytes = inflated_bytes(png);
    const uint64_t n_blocks = (n_bytes + BLOCK - 1) / BLOCK;
    const uint64_t n_stored = ZLIB_HEADER + n_bytes + n_blocks * BLOCK_HEADER + ZLIB_SUM;
    const uint64_t n_palette = png->colour == 3 ? CHUNK + PALETTE : 0;
    const uint64_t n_file = SIGNATURE + CHUNK + IHDR + n_palette + CHUNK + n_stored + CHUNK;
    if (n_bytes / MOST_INFLATION > png->n_deflated)
        return refuse(source, "damaged PNG: %llu bytes of IDAT for %u x %u pixels",
                      (unsigned long long)png->n_deflated, png->file->width, png->file->height);
    if (n_file > INT_MAX)
        return refuse(source, "%u x %u pixels take %llu bytes, at most %d", png->file->width,
                      png->file->height, (unsigned long long)n_file, INT_MAX);

    TRY(allocate_plain(source, png->file, n_file));
    uint8_t *to = png->file->plain;
    memcpy(to, source->bytes, SIGNATURE);
    to = write_chunk(to + SIGNATURE, "IHDR", IHDR);
    memcpy(to, png->header, IHDR);
    to += IHDR + 4;
    if (n_palette) {
        to = write_chunk(to, "PLTE", PALETTE);
        memcpy(to, png->palette.data, png->palette.length);
        to += PALETTE + 4;
    }
    to = write_chunk(to, "IDAT", (uint32_t)n_stored);
    memcpy(to, zlib_header, sizeof zlib_header);
    TRY(write_pixels(png, to + sizeof zlib_header, n_bytes));
    write_chunk(to + n_stored + 4, "IEND", 0);
    return MVLM_OK;
}

mvlm_status png_walk(const struct image_source *source, struct image_file *file)
{
    static const uint8_t signature[SIGNATURE] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};
    struct png png = {.source = source, .file = file};
    const size_t n = source->n_bytes < SIGNATURE ? source->n_bytes : SIGNATURE;
    if (memcmp(source->bytes, signature, n) != 0)
        return refuse(source, "damaged PNG: wrong signature");
    if (n < SIGNATURE)
        return refuse(source, "truncated PNG: no IEND chunk in %zu bytes", source->n_bytes);
    TRY(read_chunks(&png));
    return write_plain(&png);
}
