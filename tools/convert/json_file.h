/* JSON files of a checkpoint, and their fields with clear errors. */
#ifndef CONVERT_JSON_FILE_H
#define CONVERT_JSON_FILE_H

#include <stdint.h>

#include "../../src/cli/json_memory.h"
#include "mobilevlm.h"

/* Reads folder/name, which must hold an object, into *json, for the caller to json_decref. A
 * missing file gives NULL when `optional`, else an error; so does a `folder` that is NULL. */
mvlm_status json_file_load(const char *folder, const char *name, bool optional, json_t **json,
                           mvlm_error *error);

/* A field of `json` (which may be NULL) of file `file`, or `fallback` when it is absent or null.
 * Another kind of value, or an integer outside least..most, is an error. */
mvlm_status json_integer_field(const char *file, const json_t *json, const char *key, int64_t least,
                               int64_t most, const int64_t *fallback, int64_t *value,
                               mvlm_error *error);
mvlm_status json_number_field(const char *file, const json_t *json, const char *key,
                              double fallback, double *value, mvlm_error *error);
mvlm_status json_bool_field(const char *file, const json_t *json, const char *key, bool fallback,
                            bool *value, mvlm_error *error);
mvlm_status json_text_field(const char *file, const json_t *json, const char *key,
                            const char *fallback, const char **value, mvlm_error *error);

#endif
