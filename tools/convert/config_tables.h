/* What the published models say by their names alone: a new kind of model is a row here. */
#ifndef CONVERT_CONFIG_TABLES_H
#define CONVERT_CONFIG_TABLES_H

#include <stdbool.h>

#include "description.h"

/* A decoder, by config.json's model_type. */
struct family {
    const char *model_types[6]; /* NULL behind the last */
    enum norm_kind norm;
    bool parallel_block, plain_ffn, qkv_bias, out_bias, ffn_bias, head_bias;
    const char *eps_key;
    double norm_eps; /* where the file is silent */
    const char *activation;
    double partial_rotary_factor;
    const char *conv_mode; /* of a model that takes pictures */
};

/* The family; NULL: not supported. */
const struct family *find_family(const char *model_type);

/* A tower, by its name. */
struct tower {
    const char *name; /* within mm_vision_tower, and vision_tower_type */
    const char *only; /* published weights that need no vision_config have this in their name */
    int64_t image_size, patch_size, width, ffn, n_layers, n_heads;
    /* the checkpoint holds the tower without the layers behind the selected one, and a vision_config describes what it
     * holds */
    bool cut;
    double norm_eps;
    const char *activation;
    bool class_token, pre_norm, patch_bias;
    double mean[3], std[3]; /* of red, green and blue; padding is the mean, cut to whole numbers */
    enum image_fit square;  /* what becomes of a picture that is not padded */
};

/* The tower of that name or type; NULL: not supported. */
const struct tower *find_tower(const char *name);

/* How a projector of config.json becomes one of ours, and what its tensors are called. */
struct projector_source {
    const char *type; /* mm_projector_type; for the MLP the text around its number */
    enum projector_kind kind;
    int n_linear;            /* 0: the number in mlpNx_gelu */
    const char *linear_name; /* of linear layer i: %d stands for first + step i */
    int first, step;
};

/* The row of that type, and the number in its name (0: none); NULL: not supported. */
const struct projector_source *find_projector(const char *type, int64_t *number);

/* The enum activation of that name; -1: not supported. */
int64_t find_activation(const char *name);

/* A conversation's texts, and the token that ends an answer. */
struct prompt_template {
    const char *conv_mode;
    struct prompt_texts texts;
    const char *stop;
};

/* The template; NULL: not supported. */
const struct prompt_template *find_template(const char *conv_mode);

#endif
