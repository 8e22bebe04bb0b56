/* mobilevlm info: what the file holds, what it will need. */
#include <stdlib.h>

#include "cli.h"

static json_t *field_value(const mvlm_field *field)
{
    json_t *list;
    switch (field->kind) {
    case MVLM_INTEGER:
        return json_integer(field->integer);
    case MVLM_REAL:
        return json_real(field->real);
    case MVLM_TEXT:
        return json_text(field->text);
    case MVLM_REALS:
        break;
    }
    list = json_array();
    for (size_t i = 0; i < field->n_reals; i++)
        json_push(&list, json_real(field->reals[i]));
    return list;
}

static json_t *description_json(const mvlm_model *model)
{
    json_t *description = json_object();
    mvlm_field field;
    for (size_t i = 0; mvlm_model_field(model, i, &field); i++)
        json_put(&description, field.key, field_value(&field));
    return description;
}

static json_t *tensors_json(const mvlm_model *model)
{
    json_t *list = json_array();
    mvlm_tensor t;
    for (size_t i = 0; mvlm_model_tensor(model, i, &t); i++)
        json_push(&list, json_pack("{s:s, s:s, s:[I, I], s:I, s:I, s:s}", "name", t.name, "type",
                                   t.type, "shape", (json_int_t)t.shape[0], (json_int_t)t.shape[1],
                                   "offset", (json_int_t)t.offset, "bytes", (json_int_t)t.n_bytes,
                                   "digest", t.digest));
    return list;
}

static mvlm_status print_json(const mvlm_model *model, const mvlm_model_info *info,
                              const mvlm_memory *memory, mvlm_error *error)
{
    return put_json(json_pack("{s:o, s:I, s:i, s:s, s:o, s:o, s:{s:I, s:I, s:I, s:I}}", "path",
                              json_text(info->path), "bytes", (json_int_t)info->n_bytes,
                              "format_version", (int)info->format_version, "model_digest",
                              info->digest, "description", description_json(model), "tensors",
                              tensors_json(model), "memory", "weights", (json_int_t)memory->weights,
                              "kv_cache", (json_int_t)memory->kv_cache, "scratch",
                              (json_int_t)memory->scratch, "total", (json_int_t)memory->total),
                    error);
}

static bool print_field(const mvlm_field *field)
{
    json_t *value = field_value(field);
    char *text = json_written(value, JSON_ENCODE_ANY | JSON_REAL_PRECISION(9));
    const bool good = text;
    if (good)
        printf("%-36s %s\n", field->key, text);
    free(text);
    json_decref(value);
    return good;
}

static mvlm_status print_text(const mvlm_model *model, const mvlm_model_info *info, size_t n_ctx,
                              const mvlm_memory *memory, mvlm_error *error)
{
    mvlm_field field;
    printf("%s: %.1f MB, format version %u, digest %s\n\n", info->path, (double)info->n_bytes / 1e6,
           info->format_version, info->digest);
    for (size_t i = 0; mvlm_model_field(model, i, &field); i++)
        if (!print_field(&field))
            return cli_fail(error, MVLM_NO_MEMORY, "out of memory for the output");
    printf("\n%zu tensors; %zu rows a picture\n", info->n_tensors, info->image_tokens);
    printf("memory for %zu positions: weights %.1f MB, key/value cache %.1f MB, scratch %.1f MB, "
           "in all %.1f MB\n",
           n_ctx, (double)memory->weights / 1e6, (double)memory->kv_cache / 1e6,
           (double)memory->scratch / 1e6, (double)memory->total / 1e6);
    if (fflush(stdout) != 0)
        return cli_fail(error, MVLM_BAD_OUTPUT, "standard output cannot be written");
    return MVLM_OK;
}

mvlm_status run_info(const struct values *values, mvlm_error *error)
{
    mvlm_model *model;
    mvlm_model_info info;
    mvlm_memory memory;
    mvlm_session_options options;
    mvlm_status status = open_model(values, &model, error);
    if (status != MVLM_OK)
        return status;
    mvlm_model_describe(model, &info);
    session_options_of(values, &options);
    status = mvlm_session_plan(model, &options, 0, info.image_tokens ? 1 : 0, 0, &memory, error);
    if (status == MVLM_OK)
        status = values->json
                     ? print_json(model, &info, &memory, error)
                     : print_text(model, &info, options.n_ctx ? options.n_ctx : info.context_size,
                                  &memory, error);
    mvlm_model_close(model);
    return status;
}
