/* The files beside config.json that say how a checkpoint is used. */
#ifndef CONVERT_SIDE_FILES_H
#define CONVERT_SIDE_FILES_H

#include <jansson.h>

#include "description.h"

/* Reads generation_config.json and preprocessor_config.json of `folder`, each of which may be missing (both where
 * `folder` is NULL), into the description. What they ask for and this program does not do is refused by name.
 * `config` is config.json. MVLM_BAD_MODEL. */
mvlm_status read_side_files(const char *folder, const json_t *config,
                            struct description *description, mvlm_error *error);

#endif
