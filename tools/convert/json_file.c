#include "json_file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "status.h"

enum { MAX_JSON_BYTES = 64 * 1024 * 1024 };

static mvlm_status load(const char *path, bool optional, json_t **json, mvlm_error *error)
{
    struct stat about;
    json_error_t where;
    *json = NULL;
    if (stat(path, &about) != 0) {
        if (errno == ENOENT && optional)
            return MVLM_OK;
        return fail(error, MVLM_BAD_MODEL, "%s: %s", path, strerror(errno));
    }
    if (!S_ISREG(about.st_mode) || about.st_size > MAX_JSON_BYTES)
        return fail(error, MVLM_BAD_MODEL, "%s: is no file of at most %d bytes", path,
                    MAX_JSON_BYTES);
    *json = json_load_file(path, JSON_REJECT_DUPLICATES, &where);
    if (!*json)
        return fail(error, MVLM_BAD_MODEL, "%s: line %d: %s", path, where.line, where.text);
    if (!json_is_object(*json)) {
        json_decref(*json);
        *json = NULL;
        return fail(error, MVLM_BAD_MODEL, "%s: holds no JSON object", path);
    }
    return MVLM_OK;
}

mvlm_status json_file_load(const char *folder, const char *name, bool optional, json_t **json,
                           mvlm_error *error)
{
    char *path;
    *json = NULL;
    if (!folder && optional)
        return MVLM_OK;
    if (asprintf(&path, "%s/%s", folder, name) < 0)
        return fail_no_memory(error, "a path", strlen(folder));
    const mvlm_status status = load(path, optional, json, error);
    free(path);
    return status;
}

/* The field, or NULL when it is absent or null. */
static const json_t *present(const json_t *json, const char *key)
{
    const json_t *value = json_object_get(json, key);
    return json_is_null(value) ? NULL : value;
}

static mvlm_status wrong_kind(const char *file, const char *key, const char *expected,
                              mvlm_error *error)
{
    return fail(error, MVLM_BAD_MODEL, "%s: \"%s\" is no %s", file, key, expected);
}

mvlm_status json_integer_field(const char *file, const json_t *json, const char *key, int64_t least,
                               int64_t most, const int64_t *fallback, int64_t *value,
                               mvlm_error *error)
{
    const json_t *field = present(json, key);
    if (!field && !fallback)
        return fail(error, MVLM_BAD_MODEL, "%s: \"%s\" is missing", file, key);
    if (field && !json_is_integer(field))
        return wrong_kind(file, key, "integer", error);
    *value = field ? (int64_t)json_integer_value(field) : *fallback;
    if (*value < least || *value > most)
        return fail(error, MVLM_BAD_MODEL, "%s: \"%s\" is %lld, expected %lld to %lld", file, key,
                    (long long)*value, (long long)least, (long long)most);
    return MVLM_OK;
}

mvlm_status json_number_field(const char *file, const json_t *json, const char *key,
                              double fallback, double *value, mvlm_error *error)
{
    const json_t *field = present(json, key);
    if (field && !json_is_number(field))
        return wrong_kind(file, key, "number", error);
    *value = field ? json_number_value(field) : fallback;
    return MVLM_OK;
}

mvlm_status json_bool_field(const char *file, const json_t *json, const char *key, bool fallback,
                            bool *value, mvlm_error *error)
{
    const json_t *field = present(json, key);
    if (field && !json_is_boolean(field))
        return wrong_kind(file, key, "truth value", error);
    *value = field ? json_is_true(field) : fallback;
    return MVLM_OK;
}

mvlm_status json_text_field(const char *file, const json_t *json, const char *key,
                            const char *fallback, const char **value, mvlm_error *error)
{
    const json_t *field = present(json, key);
    if (field && !json_is_string(field))
        return wrong_kind(file, key, "text", error);
    *value = field ? json_string_value(field) : fallback;
    return MVLM_OK;
}
