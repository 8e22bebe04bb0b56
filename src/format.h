/* model.bin as it lies on disk, little-endian: models/FORMAT.md says the same in words. */
#ifndef SRC_FORMAT_H
#define SRC_FORMAT_H

#include <stdint.h>

#include "../kernels/kernels.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "model.bin is read in place: a little-endian processor is needed"
#endif

#define FORMAT_MAGIC                                                                               \
    "MVLM\r\n\x1a\n" /* eight bytes: a transfer that changes line ends breaks them */

enum {
    FORMAT_VERSION = 1,
    FORMAT_HEADER_BYTES = 192,
    FORMAT_NAME_BYTES = 72,
    FORMAT_ALIGN = 64,            /* of tensors and of the parts before the data */
    FORMAT_SECTION_ALIGN = 16384, /* of the data's sections: whole pages on every system */
    FORMAT_TILE = 32,             /* output columns of a weight tile */
    FORMAT_MOST_QUANTIZED =
        1 << 16, /* columns of a quantized tensor: 127 x 128 of each fit 31 bits */
};

/* Features that a reader must understand. Variants: fields of the description that the first version
 * did not have stand there with other values than zero. */
#define FORMAT_VARIANTS       UINT64_C(1)
#define FORMAT_KNOWN_FEATURES FORMAT_VARIANTS

enum tensor_type { TENSOR_F32 = 0, TENSOR_F16 = 1, TENSOR_Q8 = 2, TENSOR_Q4 = 3 };

enum tensor_layout {
    LAYOUT_ROWS = 0,  /* row-major */
    LAYOUT_TILES = 1, /* 32 rows at a time, transposed: of f32 and f16 [rows / 32, rounded up]
                         [columns][32], zeros beyond the last row; of q8 and q4 as formats.h says */
};

_Static_assert((int)FORMAT_TILE == (int)KERNEL_TILE, "kernels read the file's tiles as they lie");

/* Parts of the data, in the order of execution; each begins at a multiple of FORMAT_SECTION_ALIGN.
 */
enum section { SECTION_VISION, SECTION_PROJECTOR, SECTION_DECODER, SECTION_COUNT };

/* Which type each part of a model is stored in. */
struct tensor_types {
    enum tensor_type vision;  /* matrices of the tower and the projector */
    enum tensor_type decoder; /* matrices of the decoder's layers */
    enum tensor_type head;    /* embeddings and lm_head */
};

struct format_range {
    uint64_t offset, n_bytes; /* from the file's start */
};

struct format_header {
    uint8_t magic[8];
    uint32_t version;
    uint32_t header_bytes;
    uint64_t required_features, optional_features;
    uint64_t file_bytes;
    struct format_range description, tokenizer, directory, data;
    uint32_t n_tensors;
    uint32_t reserved0;
    /* XXH3-128, canonical, of all bytes before the data, with these sixteen taken as zero */
    uint8_t digest[16];
    uint8_t reserved1[64];
};
_Static_assert(sizeof(struct format_header) == FORMAT_HEADER_BYTES, "the header is 192 bytes");

struct format_tensor {
    char name[FORMAT_NAME_BYTES]; /* zeros after it */
    uint8_t type, layout, section, reserved[5];
    uint64_t n_rows, n_cols;
    struct format_range range;
    uint8_t digest[16]; /* XXH3-128, canonical, of the tensor's bytes */
};
_Static_assert(sizeof(struct format_tensor) == 128, "a directory entry is 128 bytes");

/* An entry of the description. The key follows with a NUL, then the value, each with zeros up to a
 * multiple of 8. */
struct format_field {
    uint8_t kind; /* mvlm_field's: 0 integer (i64), 1 real (f64), 2 text (with its NUL), 3 reals
                     (f64 each) */
    uint8_t key_bytes;
    uint16_t reserved;
    uint32_t value_bytes;
};
_Static_assert(sizeof(struct format_field) == 8, "a field's head is 8 bytes");

/* What a token that was added beside the vocabulary does to the text around it. */
enum piece_flags {
    PIECE_STRIPS_LEFT = 1,  /* white space before it in a text belongs to it */
    PIECE_STRIPS_RIGHT = 2, /* ... and behind it */
    PIECE_APART =
        4, /* it is cut out of a text before that is encoded, and stands alone in a decoded one */
};

/* A piece of the tokenizer; its bytes follow. The section begins with a u32 that counts the pieces.
 */
struct format_piece {
    float score;
    uint8_t type;  /* of SentencePiece's ModelProto: 1 normal, 2 unknown, 3 control, 4 user defined,
                     5 unused, 6 byte */
    uint8_t flags; /* enum piece_flags; zero unless tokenizer.added_tokens */
    uint16_t n_bytes;
};
_Static_assert(sizeof(struct format_piece) == 8, "a piece's head is 8 bytes");

/* A merge of byte_bpe: two pieces whose texts together are a third. Behind the pieces stands a u32 that
 * counts the merges, then these, the first to be done first. */
struct format_merge {
    uint32_t left, right; /* ids */
};

#endif
