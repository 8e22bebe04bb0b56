/* config.json and its neighbours -> the description of a model. */
#ifndef CONVERT_CONFIG_H
#define CONVERT_CONFIG_H

#include <jansson.h>

#include "description.h"
#include "sentencepiece.h"

/* How a projector of config.json becomes one of ours, and what its tensors are called. */
struct projector_source {
    const char *type; /* mm_projector_type; for the MLP the text around its number */
    enum projector_kind kind;
    int n_linear;            /* 0: the number in mlpNx_gelu */
    const char *linear_name; /* of linear layer i: %d stands for first + step i */
    int first, step;
};

struct config {
    struct description description;           /* its texts belong to this struct */
    const struct projector_source *projector; /* NULL: text only */
    int64_t tower_layers;                     /* of the checkpoint's tower, used or not */
    json_t *json;                             /* config.json */
    char *name;
};

/* Reads config.json, generation_config.json and tokenizer_config.json of `folder`; the last two may
 * be missing. The tokenizer has been read before. What this program cannot do exactly is refused by
 * name. MVLM_BAD_MODEL. */
mvlm_status config_open(const char *folder, const struct sentencepiece *tokenizer,
                        struct config *config, mvlm_error *error);

/* The same of config.json's contents (NULL: no memory), which the config owns from here on, with no
 * files beside them, for a model called `name`. */
mvlm_status config_open_json(json_t *json, const char *name, const struct sentencepiece *tokenizer,
                             struct config *config, mvlm_error *error);
void config_close(struct config *config);

#endif
