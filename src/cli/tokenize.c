/* mobilevlm tokenize: text <-> ids, of all standard input or line by line. */
#include <stdlib.h>
#include <string.h>

#include "cli.h"

/* Ids of a text, in new memory. */
static mvlm_status encode(const struct values *values, const mvlm_model *model, const char *text,
                          size_t n_bytes, int32_t **ids, size_t *n_ids, mvlm_error *error)
{
    const int flags = (values->bos ? MVLM_ADD_BOS : 0) | (values->raw ? MVLM_READ_SPECIAL : 0);
    *ids = NULL;
    mvlm_status status = mvlm_tokenize(model, text, n_bytes, flags, NULL, 0, n_ids, error);
    if (status != MVLM_OK)
        return status;
    *ids = malloc((*n_ids + 1) * sizeof **ids);
    if (!*ids)
        return cli_fail(error, MVLM_NO_MEMORY, "out of memory for %zu ids", *n_ids);
    return mvlm_tokenize(model, text, n_bytes, flags, *ids, *n_ids, n_ids, error);
}

static mvlm_status decode(const mvlm_model *model, const int32_t *ids, size_t n_ids, char **text,
                          size_t *n_bytes, mvlm_error *error)
{
    *text = NULL;
    mvlm_status status = mvlm_detokenize(model, ids, n_ids, NULL, 0, n_bytes, error);
    if (status != MVLM_OK)
        return status;
    *text = malloc(*n_bytes + 1);
    if (!*text)
        return cli_fail(error, MVLM_NO_MEMORY, "out of memory for %zu bytes", *n_bytes);
    return mvlm_detokenize(model, ids, n_ids, *text, *n_bytes, n_bytes, error);
}

static mvlm_status encode_line(const struct values *values, const mvlm_model *model,
                               const json_t *line, mvlm_error *error)
{
    const json_t *text = json_object_get(line, "text");
    int32_t *ids;
    size_t n_ids;
    if (!json_is_string(text))
        return cli_fail(error, MVLM_USAGE, "expected an object with \"text\"");
    mvlm_status status = encode(values, model, json_string_value(text), json_string_length(text),
                                &ids, &n_ids, error);
    if (status == MVLM_OK) {
        json_t *list = json_array();
        for (size_t i = 0; i < n_ids; i++)
            json_push(&list, json_integer(ids[i]));
        status = put_json(list, error);
    }
    free(ids);
    return status;
}

static mvlm_status decode_line(const mvlm_model *model, const json_t *line, mvlm_error *error)
{
    const size_t n_ids = json_array_size(line);
    int32_t *ids = calloc(n_ids + 1, sizeof *ids);
    char *text = NULL;
    size_t n_bytes;
    mvlm_status status = MVLM_OK;
    if (!ids)
        return cli_fail(error, MVLM_NO_MEMORY, "out of memory for %zu ids", n_ids);
    if (!json_is_array(line))
        status = cli_fail(error, MVLM_USAGE, "expected an array of ids");
    for (size_t i = 0; i < n_ids && status == MVLM_OK; i++) {
        const json_t *id = json_array_get(line, i);
        if (!json_is_integer(id) || json_integer_value(id) < 0 ||
            json_integer_value(id) > INT32_MAX)
            status = cli_fail(error, MVLM_USAGE, "entry %zu is no id", i);
        else
            ids[i] = (int32_t)json_integer_value(id);
    }
    if (status == MVLM_OK)
        status = decode(model, ids, n_ids, &text, &n_bytes, error);
    if (status == MVLM_OK)
        status = put_json(json_pack("{s:s%}", "text", text, n_bytes), error);
    free(text);
    free(ids);
    return status;
}

/* Each line is a JSON value of its own. */
static mvlm_status tokenize_lines(const struct values *values, const mvlm_model *model,
                                  const struct file_bytes *input, mvlm_error *error)
{
    size_t number = 0;
    for (const char *at = input->bytes, *end = at + input->n; at < end;) {
        const char *newline = memchr(at, '\n', (size_t)(end - at));
        const size_t length = newline ? (size_t)(newline - at) : (size_t)(end - at);
        json_error_t where;
        number++;
        if (length) {
            bool no_memory;
            json_t *line =
                json_read(at, length, JSON_ALLOW_NUL | JSON_REJECT_DUPLICATES, &where, &no_memory);
            if (no_memory)
                return cli_fail(error, MVLM_NO_MEMORY, "out of memory for line %zu", number);
            if (!line)
                return cli_fail(error, MVLM_USAGE, "line %zu: %s", number, where.text);
            mvlm_error inner = {0};
            const mvlm_status status = values->decode ? decode_line(model, line, &inner)
                                                      : encode_line(values, model, line, &inner);
            json_decref(line);
            if (status != MVLM_OK)
                return cli_fail(error, status, "line %zu: %s", number, inner.message);
        }
        at += length + (newline != NULL);
    }
    return MVLM_OK;
}

static mvlm_status encode_all(const struct values *values, const mvlm_model *model,
                              const struct file_bytes *input, mvlm_error *error)
{
    int32_t *ids;
    size_t n_ids;
    mvlm_status status = encode(values, model, input->bytes, input->n, &ids, &n_ids, error);
    for (size_t i = 0; i < n_ids && status == MVLM_OK; i++) {
        char number[16];
        const int n = snprintf(number, sizeof number, "%s%d", i ? " " : "", (int)ids[i]);
        if (fwrite(number, 1, (size_t)n, stdout) != (size_t)n)
            status = cli_fail(error, MVLM_BAD_OUTPUT, "standard output cannot be written");
    }
    if (status == MVLM_OK && (putchar('\n') == EOF || fflush(stdout) != 0))
        status = cli_fail(error, MVLM_BAD_OUTPUT, "standard output cannot be written");
    free(ids);
    return status;
}

static mvlm_status decode_all(const mvlm_model *model, const struct file_bytes *input,
                              mvlm_error *error)
{
    int32_t *ids = malloc((input->n + 1) * sizeof *ids);
    char *text = NULL;
    size_t n_ids = 0, n_bytes;
    mvlm_status status = MVLM_OK;
    if (!ids)
        return cli_fail(error, MVLM_NO_MEMORY, "out of memory for ids");
    for (const char *at = input->bytes; *(at += strspn(at, " \t\r\n"));) {
        char *end;
        const long id = strtol(at, &end, 10);
        if (end == at || id < 0 || id > INT32_MAX) {
            const size_t n = strcspn(at, " \t\r\n");
            status = cli_fail(error, MVLM_USAGE, "\"%.*s\" is no id", (int)(n < 20 ? n : 20), at);
            break;
        }
        ids[n_ids++] = (int32_t)id;
        at = end;
    }
    if (status == MVLM_OK)
        status = decode(model, ids, n_ids, &text, &n_bytes, error);
    if (status == MVLM_OK)
        status = put_out(text, n_bytes, error);
    if (status == MVLM_OK)
        status = put_out("\n", 1, error);
    free(text);
    free(ids);
    return status;
}

mvlm_status run_tokenize(const struct values *values, mvlm_error *error)
{
    mvlm_model *model;
    struct file_bytes input = {0};
    mvlm_status status = open_model(values, &model, error);
    if (status == MVLM_OK)
        status = read_text_file("-", &input, error);
    if (status == MVLM_OK && values->jsonl)
        status = tokenize_lines(values, model, &input, error);
    else if (status == MVLM_OK && values->decode)
        status = decode_all(model, &input, error);
    else if (status == MVLM_OK)
        status = encode_all(values, model, &input, error);
    free(input.bytes);
    mvlm_model_close(model);
    return status;
}
