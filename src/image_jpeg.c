/* JPEG: every marker is walked (ITU-T T.81, annex B), and what stb_image 2.27 would trip over is
 * refused.
 *
 *     SOI, segments: tables, one frame, scans with their entropy-coded data, ... EOI
 *
 * The entropy-coded data is only measured, not decoded. What is checked beyond the file's form:
 *   - a Huffman table fits its code space and has at most 256 codes (stb_image writes out of
 * bounds);
 *   - a scan finds its tables, each component is scanned, and scans refine in order (uninitialised
 * memory);
 *   - restart markers are all there (stb_image leaves the rest of the picture as it was);
 *   - the data is long enough for the picture, and scans are few enough (time and memory).
 */
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "image_file.h"
#include "status.h"

enum {
    MOST_SCANS = 1000,
    MOST_BLOCK_VISITS =
        1 << 27, /* over all scans: seconds; 100 megapixels in a usual dozen take 2^25 */
    EOI = 0xd9,
    SOF2 = 0xc2,
    RST0 = 0xd0,
    RST7 = 0xd7,
    CMYK = 0, /* the Adobe segment's transform */
    YCCK = 2,
};

struct component {
    uint8_t id, h, v, quant;
    bool scanned;
    int8_t bit[64]; /* progressive: lowest bit read of each coefficient; -1: none yet */
};

struct jpeg {
    const struct image_source *source;
    struct image_file *file;
    size_t at; /* next byte */
    bool has_frame, progressive, has_exif;
    bool has_quant[4], has_huffman[2][4]; /* DC, AC */
    uint32_t n_components, h_max, v_max, restart_interval, n_scans;
    uint64_t n_visits;
    struct component components[4];
    size_t adobe; /* where the byte of Adobe's transform stands; 0: no such segment */
};

/* One scan's header, read. */
struct scan {
    uint32_t n;
    struct component *components[4];
    uint8_t dc[4], ac[4]; /* tables */
    uint32_t first, last; /* coefficients */
    uint32_t high, low;   /* bits: read before, and read down to */
};

static mvlm_status truncated(const struct jpeg *jpeg)
{
    return refuse(jpeg->source, "truncated JPEG: no end marker in %zu bytes",
                  jpeg->source->n_bytes);
}

static mvlm_status damaged(const struct jpeg *jpeg, const char *what)
{
    return refuse(jpeg->source, "damaged JPEG: %s before byte %zu", what, jpeg->at);
}

static mvlm_status skip_segment(struct jpeg *jpeg, uint8_t marker, const uint8_t *data, size_t n)
{
    (void)jpeg, (void)marker, (void)data, (void)n;
    return MVLM_OK;
}

static mvlm_status read_exif(struct jpeg *jpeg, uint8_t marker, const uint8_t *data, size_t n)
{
    static const char tag[6] = "Exif\0";
    (void)marker;
    if (n < sizeof tag || memcmp(data, tag, sizeof tag) != 0 || jpeg->has_exif)
        return MVLM_OK;
    jpeg->has_exif = true;
    jpeg->file->turn = exif_orientation(data + sizeof tag, n - sizeof tag);
    return MVLM_OK;
}

static mvlm_status read_adobe(struct jpeg *jpeg, uint8_t marker, const uint8_t *data, size_t n)
{
    static const char tag[6] = "Adobe";
    (void)marker;
    if (n >= 12 && !memcmp(data, tag, sizeof tag))
        jpeg->adobe = (size_t)(data + 11 - jpeg->source->bytes);
    return MVLM_OK;
}

static mvlm_status read_restart(struct jpeg *jpeg, uint8_t marker, const uint8_t *data, size_t n)
{
    (void)marker;
    if (n != 2)
        return damaged(jpeg, "restart interval of a wrong length");
    jpeg->restart_interval = be16(data);
    return MVLM_OK;
}

static mvlm_status read_quant(struct jpeg *jpeg, uint8_t marker, const uint8_t *data, size_t n)
{
    (void)marker;
    while (n) {
        const size_t size = data[0] >> 4 ? 1 + 128 : 1 + 64;
        if (data[0] >> 4 > 1 || (data[0] & 15) > 3 || size > n)
            return damaged(jpeg, "wrong quantization table");
        jpeg->has_quant[data[0] & 15] = true;
        data += size;
        n -= size;
    }
    return MVLM_OK;
}

/* T.81 C.2: codes of each length follow each other, and the code of ones alone is never used. */
static bool codes_fit(const uint8_t *counts)
{
    uint32_t code = 0;
    for (int bits = 1; bits <= 16; bits++) {
        code += counts[bits - 1];
        if (counts[bits - 1] && code >= UINT32_C(1) << bits)
            return false;
        code <<= 1;
    }
    return true;
}

static mvlm_status read_huffman(struct jpeg *jpeg, uint8_t marker, const uint8_t *data, size_t n)
{
    enum { HEADER = 17, SHORT_BITS = 9 };
    (void)marker;
    while (n) {
        if (n < HEADER || data[0] >> 4 > 1 || (data[0] & 15) > 3)
            return damaged(jpeg, "wrong Huffman table");
        uint32_t n_codes = 0, n_short = 0;
        for (int i = 0; i < 16; i++) {
            n_codes += data[1 + i];
            n_short += i < SHORT_BITS ? data[1 + i] : 0;
        }
        if (n_codes > 256)
            return refuse(jpeg->source, "damaged JPEG: Huffman table of %u codes, at most 256",
                          n_codes);
        /* stb_image marks "no short code" by 255, which is then taken */
        if (n_codes > n - HEADER || !codes_fit(data + 1) || n_short > 255)
            return damaged(jpeg, "wrong Huffman table");
        for (uint32_t i = 0; i < n_codes && !(data[0] >> 4); i++)
            if (data[HEADER + i] > 15)
                return damaged(jpeg, "wrong Huffman table");
        jpeg->has_huffman[data[0] >> 4][data[0] & 15] = true;
        data += HEADER + n_codes;
        n -= HEADER + n_codes;
    }
    return MVLM_OK;
}

static mvlm_status read_component(struct jpeg *jpeg, uint32_t index, const uint8_t *data)
{
    struct component *component = &jpeg->components[index];
    component->id = data[0];
    component->h = data[1] >> 4;
    component->v = data[1] & 15;
    component->quant = data[2];
    memset(component->bit, -1, sizeof component->bit);
    if (component->h < 1 || component->h > 4 || component->v < 1 || component->v > 4)
        return refuse(jpeg->source, "damaged JPEG: sampling factors %u x %u", component->h,
                      component->v);
    if (component->quant > 3)
        return damaged(jpeg, "wrong quantization table");
    for (uint32_t i = 0; i < index; i++)
        if (jpeg->components[i].id == component->id)
            return damaged(jpeg, "two components of one name");
    jpeg->h_max = component->h > jpeg->h_max ? component->h : jpeg->h_max;
    jpeg->v_max = component->v > jpeg->v_max ? component->v : jpeg->v_max;
    return MVLM_OK;
}

static mvlm_status read_frame(struct jpeg *jpeg, uint8_t marker, const uint8_t *data, size_t n)
{
    if (jpeg->has_frame)
        return damaged(jpeg, "a second frame");
    if (n < 6)
        return damaged(jpeg, "frame header of a wrong length");
    if (data[0] != 8)
        return refuse(jpeg->source, "%u-bit JPEG is not supported", data[0]);
    jpeg->n_components = data[5];
    if (data[5] != 1 && data[5] != 3 && data[5] != 4)
        return refuse(jpeg->source, "JPEG with %u components is not supported", data[5]);
    if (n != 6 + 3 * (size_t)data[5])
        return damaged(jpeg, "frame header of a wrong length");
    TRY(set_size(jpeg->source, jpeg->file, be16(data + 3), be16(data + 1)));
    for (uint32_t i = 0; i < jpeg->n_components; i++)
        TRY(read_component(jpeg, i, data + 6 + 3 * i));
    for (uint32_t i = 0; i < jpeg->n_components; i++)
        if (jpeg->h_max % jpeg->components[i].h || jpeg->v_max % jpeg->components[i].v)
            return refuse(jpeg->source, "JPEG with fractional sampling is not supported");
    jpeg->has_frame = true;
    jpeg->progressive = marker == SOF2;
    return MVLM_OK;
}

static mvlm_status read_scan_components(struct jpeg *jpeg, const uint8_t *data, struct scan *scan)
{
    for (uint32_t i = 0; i < scan->n; i++) {
        uint32_t which = 0;
        while (which < jpeg->n_components && jpeg->components[which].id != data[2 * i])
            which++;
        scan->dc[i] = data[2 * i + 1] >> 4;
        scan->ac[i] = data[2 * i + 1] & 15;
        if (which == jpeg->n_components || scan->dc[i] > 3 || scan->ac[i] > 3)
            return damaged(jpeg, "scan of an unknown component or table");
        scan->components[i] = &jpeg->components[which];
        for (uint32_t k = 0; k < i; k++)
            if (scan->components[k] == scan->components[i])
                return damaged(jpeg, "scan with a component twice");
    }
    return MVLM_OK;
}

/* Tables must be there; in a progressive frame only those that the scan decodes with. */
static mvlm_status check_scan_tables(const struct jpeg *jpeg, const struct scan *scan)
{
    const bool needs_dc = !jpeg->progressive || (!scan->first && !scan->high);
    const bool needs_ac = !jpeg->progressive || scan->first;
    for (uint32_t i = 0; i < scan->n; i++)
        if (!jpeg->has_quant[scan->components[i]->quant] ||
            (needs_dc && !jpeg->has_huffman[0][scan->dc[i]]) ||
            (needs_ac && !jpeg->has_huffman[1][scan->ac[i]]))
            return damaged(jpeg, "scan without its tables");
    return MVLM_OK;
}

/* T.81 G.1.1.1: coefficient 0 alone and first, then bands; each first down to some bit, then bit by
 * bit. */
static mvlm_status check_progression(struct jpeg *jpeg, const struct scan *scan)
{
    if (!jpeg->progressive) {
        if (scan->first || scan->high || scan->low)
            return damaged(jpeg, "scan of a part in a sequential frame");
        for (uint32_t i = 0; i < scan->n; i++)
            if (scan->components[i]->scanned)
                return damaged(jpeg, "a component scanned twice");
        return MVLM_OK;
    }
    if (scan->first > scan->last || scan->last > 63 || scan->low > 13 ||
        (scan->first ? scan->n > 1 : scan->last > 0) || (scan->high && scan->high != scan->low + 1))
        return damaged(jpeg, "wrong scan header");
    for (uint32_t i = 0; i < scan->n; i++) {
        int8_t *bit = scan->components[i]->bit;
        if (scan->first && bit[0] < 0)
            return damaged(jpeg, "scan out of order");
        for (uint32_t k = scan->first; k <= scan->last; k++) {
            if (bit[k] != (scan->high ? (int)scan->high : -1))
                return damaged(jpeg, "scan out of order");
            bit[k] = (int8_t)scan->low;
        }
    }
    return MVLM_OK;
}

static uint64_t divide_up(uint64_t a, uint64_t b)
{
    return (a + b - 1) / b;
}

/* T.81 A.2: a lone component is coded in its own blocks, several in units of h x v blocks each. */
static void count_blocks(const struct jpeg *jpeg, const struct scan *scan, uint64_t *n_units,
                         uint64_t *n_blocks)
{
    const uint64_t width = jpeg->file->width, height = jpeg->file->height;
    if (scan->n == 1) {
        const struct component *one = scan->components[0];
        *n_units = divide_up(divide_up(width * one->h, jpeg->h_max), 8) *
                   divide_up(divide_up(height * one->v, jpeg->v_max), 8);
        *n_blocks = *n_units;
        return;
    }
    uint64_t blocks_a_unit = 0;
    for (uint32_t i = 0; i < scan->n; i++)
        blocks_a_unit += (uint64_t)scan->components[i]->h * scan->components[i]->v;
    *n_units = divide_up(width, 8 * jpeg->h_max) * divide_up(height, 8 * jpeg->v_max);
    *n_blocks = *n_units * blocks_a_unit;
}

/* Steps over entropy-coded data to the marker that ends it. FF 00 is a byte FF, FF FF only fills.
 */
static mvlm_status skip_data(struct jpeg *jpeg, uint64_t *n_restarts)
{
    const uint8_t *bytes = jpeg->source->bytes, *end = bytes + jpeg->source->n_bytes;
    const uint8_t *p = bytes + jpeg->at;
    for (;;) {
        p = memchr(p, 0xff, (size_t)(end - p));
        while (p && p < end && *p == 0xff)
            p++;
        if (!p || p == end)
            return truncated(jpeg);
        const bool restart = *p >= RST0 && *p <= RST7;
        if (*p && !restart)
            break;
        *n_restarts += restart;
        p++;
    }
    jpeg->at = (size_t)(p - bytes) - 1;
    return MVLM_OK;
}

/* The least that a scan can take: a code for each block's DC, one more for its AC when both are
 * there. */
static mvlm_status check_data(const struct jpeg *jpeg, const struct scan *scan, size_t n_data,
                              uint64_t n_restarts)
{
    uint64_t n_units, n_blocks;
    count_blocks(jpeg, scan, &n_units, &n_blocks);
    const uint64_t bits_a_block = !jpeg->progressive ? 2 : scan->first ? 0 : 1;
    if ((uint64_t)n_data * 8 < n_blocks * bits_a_block)
        return refuse(jpeg->source, "damaged JPEG: %zu bytes of data for %llu blocks of pixels",
                      n_data, (unsigned long long)n_blocks);
    const uint64_t expected = jpeg->restart_interval ? (n_units - 1) / jpeg->restart_interval : 0;
    if (n_restarts < expected)
        return refuse(jpeg->source, "damaged JPEG: %llu restart markers of %llu",
                      (unsigned long long)n_restarts, (unsigned long long)expected);
    return MVLM_OK;
}

static mvlm_status count_scan(struct jpeg *jpeg, const struct scan *scan)
{
    uint64_t n_units, n_blocks;
    count_blocks(jpeg, scan, &n_units, &n_blocks);
    jpeg->n_visits += n_blocks;
    if (++jpeg->n_scans > MOST_SCANS || jpeg->n_visits > MOST_BLOCK_VISITS)
        return refuse(jpeg->source, "JPEG with more than %u scans is not supported",
                      jpeg->n_scans - 1);
    for (uint32_t i = 0; i < scan->n; i++)
        scan->components[i]->scanned = true;
    return MVLM_OK;
}

static mvlm_status read_scan(struct jpeg *jpeg, uint8_t marker, const uint8_t *data, size_t n)
{
    (void)marker;
    if (!jpeg->has_frame)
        return damaged(jpeg, "scan without a frame");
    struct scan scan = {.n = n ? data[0] : 0};
    if (!scan.n || scan.n > jpeg->n_components || n != 4 + 2 * (size_t)scan.n)
        return damaged(jpeg, "wrong scan header");
    scan.first = data[n - 3];
    scan.last = data[n - 2];
    scan.high = data[n - 1] >> 4;
    scan.low = data[n - 1] & 15;
    TRY(read_scan_components(jpeg, data + 1, &scan));
    TRY(check_scan_tables(jpeg, &scan));
    TRY(check_progression(jpeg, &scan));
    TRY(count_scan(jpeg, &scan));
    const size_t begin = jpeg->at;
    uint64_t n_restarts = 0;
    TRY(skip_data(jpeg, &n_restarts));
    return check_data(jpeg, &scan, jpeg->at - begin, n_restarts);
}

/* T.81 table B.1. A kind without a reader is refused by its name. */
static const struct kind {
    uint8_t first, last; /* markers */
    mvlm_status (*read)(struct jpeg *jpeg, uint8_t marker, const uint8_t *data, size_t n);
    const char *name;
} kinds[] = {
    {0xc0, 0xc2, read_frame, NULL},     {0xc3, 0xc3, NULL, "lossless"},
    {0xc4, 0xc4, read_huffman, NULL},   {0xc5, 0xc7, NULL, "hierarchical"},
    {0xc9, 0xcc, NULL, "arithmetic"},   {0xcd, 0xcf, NULL, "hierarchical"},
    {0xda, 0xda, read_scan, NULL},      {0xdb, 0xdb, read_quant, NULL},
    {0xdc, 0xdc, skip_segment, NULL},   {0xdd, 0xdd, read_restart, NULL},
    {0xde, 0xdf, NULL, "hierarchical"}, {0xe0, 0xe0, skip_segment, NULL},
    {0xe1, 0xe1, read_exif, NULL},      {0xe2, 0xed, skip_segment, NULL},
    {0xee, 0xee, read_adobe, NULL},     {0xef, 0xef, skip_segment, NULL},
    {0xf7, 0xf7, NULL, "JPEG-LS"},      {0xfe, 0xfe, skip_segment, NULL},
};

/* Bytes between segments are tolerated only where stb_image tolerates them: before the frame. */
static mvlm_status next_marker(struct jpeg *jpeg, uint8_t *marker)
{
    const uint8_t *bytes = jpeg->source->bytes;
    const size_t n = jpeg->source->n_bytes;
    size_t at = jpeg->at;
    while (at < n && bytes[at] != 0xff && !jpeg->has_frame)
        at++;
    const size_t begin = at;
    while (at < n && bytes[at] == 0xff)
        at++;
    if (at >= n)
        return truncated(jpeg);
    if (at == begin || !bytes[at])
        return refuse(jpeg->source, "damaged JPEG: no marker at byte %zu", begin);
    *marker = bytes[at];
    jpeg->at = at + 1;
    return MVLM_OK;
}

static mvlm_status read_segment(struct jpeg *jpeg, uint8_t marker)
{
    const struct kind *kind = kinds, *end = kinds + sizeof kinds / sizeof *kinds;
    while (kind < end && !(marker >= kind->first && marker <= kind->last))
        kind++;
    if (kind == end)
        return refuse(jpeg->source, "damaged JPEG: marker %02x before byte %zu", marker, jpeg->at);
    if (!kind->read)
        return refuse(jpeg->source, "JPEG of the %s kind is not supported", kind->name);
    const size_t left = jpeg->source->n_bytes - jpeg->at;
    const uint8_t *bytes = jpeg->source->bytes + jpeg->at;
    if (left < 2 || be16(bytes) > left)
        return truncated(jpeg);
    const size_t length = be16(bytes);
    if (length < 2)
        return damaged(jpeg, "segment without its length");
    jpeg->at += length;
    return kind->read(jpeg, marker, bytes + 2, length - 2);
}

/* Four components are CMYK, or YCCK where an Adobe segment says so, stored inverted, as libjpeg and
 * Pillow have it. stb_image drops the fourth unless that segment says one of both, so it is made
 * to. */
static mvlm_status state_transform(const struct jpeg *jpeg)
{
    static const uint8_t segment[16] = {0xff, 0xee, 0,   14, 'A', 'd', 'o', 'b',
                                        'e',  0,    100, 0,  0,   0,   0,   CMYK};
    const struct image_source *source = jpeg->source;
    const uint8_t transform = jpeg->adobe ? source->bytes[jpeg->adobe] : 1;
    if (jpeg->n_components != 4 || transform == CMYK || transform == YCCK)
        return MVLM_OK;
    const size_t n_added = jpeg->adobe ? 0 : sizeof segment;
    TRY(allocate_plain(source, jpeg->file, source->n_bytes + n_added));
    uint8_t *plain = jpeg->file->plain;
    memcpy(plain, source->bytes, 2);
    memcpy(plain + 2, segment, n_added);
    memcpy(plain + 2 + n_added, source->bytes + 2, source->n_bytes - 2);
    if (jpeg->adobe)
        plain[jpeg->adobe] = YCCK;
    return MVLM_OK;
}

mvlm_status jpeg_walk(const struct image_source *source, struct image_file *file)
{
    struct jpeg jpeg = {.source = source, .file = file, .at = 2};
    for (;;) {
        uint8_t marker = 0;
        TRY(next_marker(&jpeg, &marker));
        if (marker == EOI)
            break;
        TRY(read_segment(&jpeg, marker));
    }
    if (!jpeg.has_frame)
        return damaged(&jpeg, "no frame");
    for (uint32_t i = 0; i < jpeg.n_components; i++)
        if (!jpeg.components[i].scanned)
            return damaged(&jpeg, "a component without a scan");
    return state_transform(&jpeg);
}
