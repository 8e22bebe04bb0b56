#include "json_file.h"

#include <stdlib.h>
#include <string.h>

#include "source_file.h"
#include "status.h"

enum { MAX_JSON_BYTES = 64 * 1024 * 1024 };

/* A copy of the text in which integers of more than 18 digits are written as reals, which jansson rounds instead of
 * refusing them: tokenizers' model_max_length has 31. NULL: no memory. */
static char *soften_integers(const char *text, size_t n, size_t *n_softer)
{
    char *copy = malloc(2 * n + 1), *out = copy;
    bool in_string = false;
    for (size_t i = 0; copy && i < n;) {
        size_t digits = 0;
        while (!in_string && i + digits < n && text[i + digits] >= '0' && text[i + digits] <= '9')
            digits++;
        if (digits) {
            const char next = i + digits < n ? text[i + digits] : '\0';
            const bool real = next == '.' || next == 'e' || next == 'E' ||
                              (i > 0 && (text[i - 1] == '.' || text[i - 1] == 'e' ||
                                         text[i - 1] == 'E' || text[i - 1] == '+'));
            memcpy(out, text + i, digits);
            out += digits;
            i += digits;
            if (digits > 18 && !real) {
                *out++ = '.';
                *out++ = '0';
            }
            continue;
        }
        if (in_string && text[i] == '\\' && i + 1 < n)
            *out++ = text[i++];
        else if (text[i] == '"')
            in_string = !in_string;
        *out++ = text[i++];
    }
    *n_softer = copy ? (size_t)(out - copy) : 0;
    return copy;
}

static mvlm_status parse(const char *path, const char *text, size_t n, json_t **json,
                         mvlm_error *error)
{
    json_error_t where;
    bool no_memory;
    *json = json_read(text, n, JSON_REJECT_DUPLICATES, &where, &no_memory);
    if (!*json && !no_memory && json_error_code(&where) == json_error_numeric_overflow) {
        size_t n_softer;
        char *softer = soften_integers(text, n, &n_softer);
        if (!softer)
            return fail_no_memory(error, path, 2 * n);
        *json = json_read(softer, n_softer, JSON_REJECT_DUPLICATES, &where, &no_memory);
        free(softer);
    }
    if (no_memory)
        return fail_no_memory(error, path, n);
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
    struct source_file file;
    uint8_t *text;
    *json = NULL;
    if (optional && (!folder || !source_file_exists(folder, name)))
        return MVLM_OK;
    TRY(source_file_open(folder, name, &file, error));
    mvlm_status status =
        source_file_load(&file, 0, file.n_bytes, MAX_JSON_BYTES, "JSON", &text, error);
    if (status == MVLM_OK)
        status = parse(file.path, (const char *)text, (size_t)file.n_bytes, json, error);
    free(text);
    source_file_close(&file);
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
