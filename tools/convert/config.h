/* config.json and its neighbours -> the description of a model. */
#ifndef CONVERT_CONFIG_H
#define CONVERT_CONFIG_H

#include <jansson.h>

#include "config_tables.h"
#include "description.h"
#include "vocabulary.h"

/* What counts in place of what config.json says, or where it says nothing. */
struct config_changes {
    /* rows of the tower's position embeddings, which decide what size a tower's pictures have that is known by its name
     * alone; 0: as published */
    int64_t tower_positions;
    double
        rope_scale; /* positions are divided by it, and as many times as many fit; 0: as published */
    int composite_attention; /* 1: pictures' rows attend to themselves alone; 0: as published */
};

struct config {
    struct description description; /* its texts belong to this struct */
    struct config_changes changes;
    const struct family *family;
    const struct tower *tower;                /* NULL: text only */
    const struct projector_source *projector; /* NULL: text only */
    int64_t window;                           /* that attention looks back within; 0: none */
    int64_t tower_layers;                     /* of the checkpoint's tower, used or not */
    json_t *json;                             /* config.json */
    char *name;
};

/* Reads config.json of `config_folder`, and generation_config.json and preprocessor_config.json of `folder`, which may
 * be missing. The tokenizer has been read before. What this program cannot do exactly is refused by
 * name. MVLM_BAD_MODEL. */
mvlm_status config_open(const char *config_folder, const char *folder,
                        const struct vocabulary *tokenizer, const struct config_changes *changes,
                        struct config *config, mvlm_error *error);

/* The same of config.json's contents (NULL: no memory), which the config owns from here on, with no
 * files beside them, for a model called `name`. */
mvlm_status config_open_json(json_t *json, const char *name, const struct vocabulary *tokenizer,
                             const struct config_changes *changes, struct config *config,
                             mvlm_error *error);
void config_close(struct config *config);

#endif
