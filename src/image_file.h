/* Looks through a picture file before stb_image sees it.
 *
 *     bytes -> format, by its first bytes -> jpeg_walk | png_walk | bmp_walk -> struct image_file
 *
 * stb_image 2.27 trusts too much: it writes out of bounds on a JPEG's wide Huffman table, reads
 * tables that were never set, inflates without a limit, ignores check sums, and takes the missing
 * end of a file for zeros. The walks refuse such files, and every file that is not what we decode,
 * with a message that says why. A PNG or BMP is rewritten in its plainest form, so that stb_image
 * reads only what we wrote.
 */
#ifndef SRC_IMAGE_FILE_H
#define SRC_IMAGE_FILE_H

#include <stddef.h>
#include <stdint.h>

#include "mobilevlm.h"

/* What is read, and what goes into messages. */
struct image_source {
    const char *name;
    const uint8_t *bytes;
    size_t n_bytes;
    uint64_t max_pixels;
    mvlm_error *error;
};

struct image_file {
    const char *format; /* "JPEG", "PNG", "BMP" */
    uint32_t width, height;
    int turn;             /* EXIF orientation, 1 (none) to 8 */
    const uint8_t *bytes; /* for stb_image: the source's, or `plain` */
    size_t n_bytes;
    uint8_t *plain; /* owned; NULL, or a rewritten file; image_file_free */
};

/* Checks a file of at most `max_pixels` pixels. On error MVLM_BAD_PICTURE or MVLM_NO_MEMORY, and
 * `file` holds nothing to free. */
mvlm_status image_file_walk(const struct image_source *source, struct image_file *file);
void image_file_free(struct image_file *file);

/* ---- Shared by the walks ---------------------------------------------------------------- */

mvlm_status jpeg_walk(const struct image_source *source, struct image_file *file);
mvlm_status png_walk(const struct image_source *source, struct image_file *file);
mvlm_status bmp_walk(const struct image_source *source, struct image_file *file);

/* MVLM_BAD_PICTURE with the message "<name>: ...". */
__attribute__((format(printf, 2, 3))) mvlm_status refuse(const struct image_source *source,
                                                         const char *format, ...);

#ifdef __clang_analyzer__ /* as in status.h */
#define refuse(...) (refuse(__VA_ARGS__), MVLM_BAD_PICTURE)
#endif

/* Notes the size, or refuses an empty or too large one. */
mvlm_status set_size(const struct image_source *source, struct image_file *file, uint32_t width,
                     uint32_t height);

/* Gives the file `n_bytes` of zeroed memory to be rewritten into. */
mvlm_status allocate_plain(const struct image_source *source, struct image_file *file,
                           size_t n_bytes);

/* The orientation that an EXIF block (a TIFF header and its first directory) states; 1 when it
 * states none or is broken. */
int exif_orientation(const uint8_t *block, size_t n_bytes);

static inline uint32_t be16(const uint8_t *p)
{
    return (uint32_t)p[0] << 8 | p[1];
}

static inline uint32_t be32(const uint8_t *p)
{
    return be16(p) << 16 | be16(p + 2);
}

static inline uint32_t le16(const uint8_t *p)
{
    return (uint32_t)p[1] << 8 | p[0];
}

static inline uint32_t le32(const uint8_t *p)
{
    return le16(p + 2) << 16 | le16(p);
}

#endif
