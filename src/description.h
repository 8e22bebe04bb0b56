/* A model in plain fields: the whole difference between one model and another. The converter fills
 * it, the graphs read it; there is no `switch (model)`. models/FORMAT.md has each field's one
 * meaning. */
#ifndef SRC_DESCRIPTION_H
#define SRC_DESCRIPTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../kernels/kernels.h"
#include "image.h"
#include "mobilevlm.h"

enum projector_kind {
    PROJECTOR_MLP, /* n_linear linear layers with GELU between them */
    PROJECTOR_LDP, /* two linear layers, then two depthwise-separable blocks; the second halves the
                      grid */
    PROJECTOR_LDPV2, /* two linear layers, mean pooling to a grid, depthwise convolution added to
                        its input */
};

enum tokenizer_kind { TOKENIZER_SENTENCEPIECE_BPE, TOKENIZER_BYTE_BPE };

/* How byte_bpe cuts a text into words before it merges within them: pre_tokenize.h. */
enum pre_tokenizer { PRE_TOKENIZER_NONE, PRE_TOKENIZER_GPT2, PRE_TOKENIZER_QWEN2 };

enum norm_kind {
    NORM_RMS,
    NORM_LAYER /* with a bias */
};

enum { MAX_STOP_IDS = 8, MAX_LINEAR = 8 };

struct number_list {
    size_t n;
    double value[MAX_STOP_IDS];
};

struct tokenizer_settings {
    int64_t kind;                           /* enum tokenizer_kind */
    int64_t unk_id, bos_id, eos_id, pad_id; /* -1: none */
    int64_t add_bos;
    int64_t legacy; /* 1: after a special token, text gets a dummy prefix of its own
                       (transformers' flag) */
    int64_t add_dummy_prefix, remove_extra_whitespaces, escape_whitespaces, whitespace_as_suffix,
        byte_fallback;
    struct number_list stop_ids; /* that end an answer */
    int64_t pre_tokenizer;       /* byte_bpe: enum pre_tokenizer; else none */
    int64_t nfc;                 /* byte_bpe: 1: text is composed to Unicode's NFC first */
    int64_t added_tokens;        /* 1: pieces carry flags (format.h) */
    int64_t space_around_added;  /* 1: in decoded text a space stands on both sides of those that
                                   stand apart */
    int64_t clean_up_spaces; /* 1: decoded text loses spaces before punctuation (detokenize.c) */
};

/* One conversation: system_prefix system system_suffix, then for each turn
 * user_prefix question user_suffix [answer_prefix answer answer_suffix]. */
struct prompt_texts {
    int64_t present; /* 0: a base model, the prompt is the whole text */
    const char *system_prefix, *system, *system_suffix;
    const char *user_prefix, *user_suffix;
    const char *answer_prefix, *answer_suffix;
};

struct description {
    const char *name;

    struct {
        int64_t size; /* pixels of the square's edge; 0: the model takes no pictures */
        int64_t fit;  /* enum image_fit */
        struct number_list pad_colour, mean, std;
    } image;

    struct {
        int64_t patch_size, width, ffn, n_layers, n_heads;
        double norm_eps;
        int64_t activation;
        int64_t
            class_token;  /* 1: a learnt row stands before the patches, and is dropped at the end */
        int64_t pre_norm; /* 1: a norm before the first layer */
        int64_t patch_bias; /* 1: the patch convolution has a bias */
    } vision;

    struct {
        int64_t kind; /* enum projector_kind */
        int64_t n_linear;
        int64_t grid;    /* LDPV2: side of the pooled grid; else 0 */
        int64_t squeeze; /* LDP: width of the squeeze-excite bottleneck; else 0 */
        double norm_eps; /* LDP's channel norms; else 0 */
    } projector;

    struct {
        int64_t hidden, ffn, n_layers, n_heads, n_kv_heads, head_dim, vocab;
        double norm_eps;
        int64_t activation;
        double rope_theta, rope_scale; /* position p stands at the angle p / rope_scale x theta^(-2
                                          i / rope_dims) */
        int64_t rope_dims;
        int64_t context;        /* positions it was trained for */
        int64_t tied_head;      /* 1: the embeddings are the head */
        int64_t norm;           /* enum norm_kind */
        int64_t parallel_block; /* 1: attention and MLP read the same norm of a block's input */
        int64_t plain_ffn;      /* 1: down(activation(up)); 0: down(activation(gate) up) */
        int64_t qkv_bias, out_bias, ffn_bias, head_bias; /* 1: those layers have one */
        int64_t composite_attention; /* 1: a picture's rows attend each to itself alone, and text to
                                        all before it */
    } decoder;

    struct tokenizer_settings tokenizer;

    struct prompt_texts prompt;

    struct {
        double norm_balance; /* the exponent that the converter balanced norms with; 0: it did not.
                                Nothing depends on it */
        int64_t calibration; /* tokens that the rounding of q4 was calibrated on; 0: it was not */
    } convert;
};

/* Bytes -> description, whose texts point into `bytes`. Checks every field's presence, kind and
 * range, and what fields demand of each other. `name` stands in messages. Unknown keys are passed
 * over. MVLM_BAD_MODEL. */
mvlm_status description_decode(const char *name, const uint8_t *bytes, size_t n_bytes,
                               struct description *description, mvlm_error *error);

/* The checks that description_decode ends with: what fields demand of each other. */
mvlm_status description_check(const char *name, const struct description *description,
                              mvlm_error *error);

/* Description -> bytes: returns their number, and writes them when `bytes` is not NULL. */
size_t description_encode(const struct description *description, uint8_t *bytes);

/* Has it fields of GROUP_VARIANT other than zero, for which the file must ask for FORMAT_VARIANTS? */
bool description_varies(const struct description *description);

/* The index-th field present in encoded bytes that were decoded before; false past the last. */
bool description_field(const uint8_t *bytes, size_t n_bytes, size_t index, mvlm_field *field);

/* Name <-> number of the fields whose value is one of a few names; NULL and -1 when there is none.
 */
const char *activation_name(int64_t activation);
const char *projector_kind_name(int64_t kind);

bool takes_pictures(const struct description *description);
size_t patches_a_side(const struct description *description);
/* Rows of the tower: patches and class token. */
size_t vision_rows(const struct description *description);
/* Side of the grid of rows that the projector makes of a picture, and their number. */
size_t projector_out_side(const struct description *description);
size_t image_tokens(const struct description *description);
void image_recipe_of(const struct description *description, struct image_recipe *recipe);

#endif
