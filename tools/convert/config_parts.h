/* What config.c and config_pictures.c share. */
#ifndef CONVERT_CONFIG_PARTS_H
#define CONVERT_CONFIG_PARTS_H

#include "config.h"

#define CONFIG_FILE "config.json"

/* The activation of that name, which stands under `key`. MVLM_BAD_MODEL. */
mvlm_status config_activation(const char *key, const char *name, int64_t *activation,
                              mvlm_error *error);

/* A field that must be false (or absent), because anything else would need what this program does not do. */
mvlm_status config_demand_false(const json_t *json, const char *key, mvlm_error *error);

/* The tower, what is read of it, the picture and the projector. MVLM_BAD_MODEL. */
mvlm_status config_pictures(struct config *config, mvlm_error *error);

#endif
