/* Every tensor that a description demands, in the order of execution, and its place in struct
 * parameters. The converter writes this list and the engine binds it, so the two cannot disagree.
 */
#ifndef SRC_SCHEMA_H
#define SRC_SCHEMA_H

#include <stddef.h>
#include <stdint.h>

#include "description.h"
#include "format.h"

/* A weight matrix of a linear layer, y = x W^T: n_rows outputs, n_cols inputs. */
struct matrix {
    enum tensor_type type;
    enum tensor_layout layout;
    size_t n_rows, n_cols;
    const void *data; /* in the mapped file */
};

struct linear {
    struct matrix weight;
    const float *bias; /* [n_rows] or NULL */
};

struct norm {
    const float *weight, *bias; /* [width]; bias may be NULL */
};

struct vision_layer {
    struct norm norm1, norm2;
    struct linear q, k, v, out; /* [width, width] */
    struct linear fc1, fc2;     /* [ffn, width], [width, ffn] */
};

/* Depthwise convolution, norm, hardswish, squeeze-excite, pointwise convolution, norm. */
struct ldp_block {
    const float *taps; /* [9, hidden] */
    struct norm norm1, norm2;
    struct linear squeeze, excite, pointwise;
};

struct decoder_layer {
    struct norm attention_norm, ffn_norm; /* a parallel block has the first alone */
    struct linear q, k, v, out;
    struct linear gate, up, down; /* gate is not there where the MLP is plain */
};

struct parameters {
    struct {
        struct linear patch;          /* [width, 3 x patch x patch] */
        const float *class_embedding; /* [width] */
        const float *position;        /* [rows, width] */
        struct norm pre_norm;
        struct vision_layer *layers;
    } vision;
    struct {
        struct linear linear[MAX_LINEAR];
        struct ldp_block block[2];
        const float *peg_taps, *peg_bias; /* [9, hidden], [hidden] */
    } projector;
    struct {
        struct matrix embedding; /* [vocab, hidden] */
        struct decoder_layer *layers;
        struct norm norm;
        struct linear head; /* [vocab, hidden]; the embedding where it is tied */
    } decoder;
};

enum tensor_kind {
    TENSOR_MATRIX, /* of a linear layer: tiles, of the type that the converter was asked for */
    TENSOR_TABLE,  /* rows looked up by number: row-major, of that type (q8 for q4) */
    TENSOR_VECTOR, /* small numbers: row-major f32 */
};

/* Where a tensor is bound: `offset` bytes into that struct; a struct matrix for matrices and
 * tables, else a pointer. */
enum tensor_base { BASE_PARAMETERS, BASE_VISION_LAYER, BASE_DECODER_LAYER };

struct tensor_spec {
    char name[FORMAT_NAME_BYTES];
    const char *pattern; /* the name with %d for its layer, as the schema's tables have it */
    int number;          /* the layer (or block, or step); -1 for none */
    enum tensor_kind kind;
    enum section section;
    int64_t n_rows, n_cols;
    enum tensor_base base;
    size_t offset;
};

/* Writes the list into `specs` unless it is NULL, and returns its length. */
size_t schema_list(const struct description *description, struct tensor_spec *specs);

/* Fills the directory for these tensors, matrices and tables of `types`, from `data` on; all but the
 * digests. Returns where the last one ends. */
uint64_t schema_place(const struct tensor_spec *specs, size_t n, const struct tensor_types *types,
                      uint64_t data, struct format_tensor *directory);

/* Writes `pattern` with `number` in place of its %d, if it has one. */
void schema_name(char *name, size_t capacity, const char *pattern, int number);

/* Bytes that a tensor takes; no overflow for sizes that description.c lets pass. */
uint64_t tensor_bytes(enum tensor_type type, enum tensor_layout layout, uint64_t n_rows,
                      uint64_t n_cols);

/* Bytes of a tile of n_cols inputs, and of a row of a table. */
size_t tile_bytes(enum tensor_type type, size_t n_cols);
size_t row_bytes(enum tensor_type type, size_t n_cols);

/* Tiles of 32 that hold n values. */
size_t tiles_of(size_t n);

const char *tensor_type_name(enum tensor_type type);
bool is_quantized(enum tensor_type type);

/* Bytes of a value of f32 or f16. */
size_t tensor_value_bytes(enum tensor_type type);

#endif
