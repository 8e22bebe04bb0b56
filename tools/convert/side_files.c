#include "side_files.h"

#include <math.h>
#include <string.h>

#include "json_file.h"
#include "status.h"

/* ---- End of an answer ---------------------------------------------------------------------------- */

static mvlm_status add_stop_id(const char *name, const json_t *id, struct number_list *list,
                               mvlm_error *error)
{
    if (!json_is_integer(id) || json_integer_value(id) < 0)
        return fail(error, MVLM_BAD_MODEL, "%s: \"eos_token_id\" is no id or list of ids", name);
    if (list->n == MAX_STOP_IDS)
        return fail(error, MVLM_BAD_MODEL, "%s: more than %d end tokens", name, MAX_STOP_IDS);
    list->value[list->n++] = (double)json_integer_value(id);
    return MVLM_OK;
}

static mvlm_status read_stop_ids(const char *name, const json_t *json, struct number_list *list,
                                 mvlm_error *error)
{
    const json_t *ids = json_object_get(json, "eos_token_id");
    if (!json_is_array(ids))
        return ids && !json_is_null(ids) ? add_stop_id(name, ids, list, error) : MVLM_OK;
    for (size_t i = 0; i < json_array_size(ids); i++)
        TRY(add_stop_id(name, json_array_get(ids, i), list, error));
    return MVLM_OK;
}

/* generation_config.json decides what ends an answer, then config.json, then the tokenizer itself. */
static mvlm_status read_stops(const char *folder, const json_t *config, struct description *d,
                              mvlm_error *error)
{
    static const char file[] = "generation_config.json";
    json_t *json;
    TRY(json_file_load(folder, file, true, &json, error));
    const mvlm_status status = read_stop_ids(file, json, &d->tokenizer.stop_ids, error);
    json_decref(json);
    TRY(status);
    if (d->tokenizer.stop_ids.n == 0)
        TRY(read_stop_ids("config.json", config, &d->tokenizer.stop_ids, error));
    if (d->tokenizer.stop_ids.n == 0 && d->tokenizer.eos_id >= 0)
        d->tokenizer.stop_ids = (struct number_list){1, {(double)d->tokenizer.eos_id}};
    return MVLM_OK;
}

/* ---- Pictures ---------------------------------------------------------------------------- */

/* A list that must hold these three numbers, if it is there. */
static mvlm_status demand_three(const char *file, const json_t *json, const char *key,
                                const double *demanded, mvlm_error *error)
{
    const json_t *list = json_object_get(json, key);
    bool same = json_array_size(list) == 3;
    for (size_t i = 0; i < 3 && same; i++)
        same = fabs(json_number_value(json_array_get(list, i)) - demanded[i]) < 1e-6;
    if (list && !same)
        return fail(error, MVLM_BAD_MODEL, "%s: \"%s\" other than the tower's is not supported",
                    file, key);
    return MVLM_OK;
}

/* A side of the picture: a number, or an object with it under one of several names. */
static mvlm_status demand_side(const char *file, const json_t *json, const char *key, int64_t side,
                               mvlm_error *error)
{
    static const char *const names[] = {"shortest_edge", "height", "width"};
    const json_t *value = json_object_get(json, key);
    bool same = !value || (json_is_integer(value) && json_integer_value(value) == side);
    for (size_t i = 0; json_is_object(value) && i < sizeof names / sizeof *names; i++) {
        const json_t *edge = json_object_get(value, names[i]);
        same = (i == 0 || same) && (!edge || json_integer_value(edge) == side);
    }
    if (!same)
        return fail(error, MVLM_BAD_MODEL, "%s: \"%s\" is not the tower's %lld pixels", file, key,
                    (long long)side);
    return MVLM_OK;
}

static mvlm_status check_preprocessor(const char *file, const json_t *json,
                                      const struct description *d, mvlm_error *error)
{
    static const char *const steps[] = {"do_resize", "do_center_crop", "do_rescale",
                                        "do_normalize"};
    const int64_t bicubic = 3;
    int64_t resample;
    TRY(demand_three(file, json, "image_mean", d->image.mean.value, error));
    TRY(demand_three(file, json, "image_std", d->image.std.value, error));
    TRY(demand_side(file, json, "size", d->image.size, error));
    TRY(demand_side(file, json, "crop_size", d->image.size, error));
    TRY(json_integer_field(file, json, "resample", bicubic, bicubic, &bicubic, &resample, error));
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        bool done;
        TRY(json_bool_field(file, json, steps[i], true, &done, error));
        const bool crops = strcmp(steps[i], "do_center_crop") == 0;
        if (!done && !(crops && d->image.fit != IMAGE_CROP)) /* a square has nothing to be cut */
            return fail(error, MVLM_BAD_MODEL, "%s: \"%s\": false is not supported", file,
                        steps[i]);
    }
    return MVLM_OK;
}

/* The published checkpoints leave it to the tower's own repository; where it is given, it must say the same. */
static mvlm_status read_preprocessor(const char *folder, const struct description *d,
                                     mvlm_error *error)
{
    static const char file[] = "preprocessor_config.json";
    json_t *json;
    TRY(json_file_load(folder, file, true, &json, error));
    const mvlm_status status = json ? check_preprocessor(file, json, d, error) : MVLM_OK;
    json_decref(json);
    return status;
}

mvlm_status read_side_files(const char *folder, const json_t *config,
                            struct description *description, mvlm_error *error)
{
    TRY(read_stops(folder, config, description, error));
    return takes_pictures(description) ? read_preprocessor(folder, description, error) : MVLM_OK;
}
