/* folder -> single file, or index -> shards -> each file's directory -> one list sorted by name. */
#include "checkpoint.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "json_file.h"
#include "safetensors.h"
#include "source_file.h"
#include "source_tensor.h"
#include "status.h"
#include "tensor_read.h"
#include "text.h"
#include "torch_bin.h"

enum { MAX_INDEX = 100000000 };

#define LOOKED_FOR                                                                                 \
    "model.safetensors, model.safetensors.index.json, pytorch_model.bin, "                         \
    "pytorch_model.bin.index.json"

struct checkpoint {
    struct source_file *files;
    size_t n_files;
    struct tensor_list tensors; /* sorted by name once open */
};

/* Where the weights may be, first come, first taken. */
static const struct choice {
    const char *name;
    bool is_index;
    mvlm_status (*read)(const struct source_file *file, int file_index, struct tensor_list *list,
                        mvlm_error *error);
} choices[] = {
    {"model.safetensors", false, safetensors_read},
    {"model.safetensors.index.json", true, safetensors_read},
    {"pytorch_model.bin", false, torch_bin_read},
    {"pytorch_model.bin.index.json", true, torch_bin_read},
};

static mvlm_status choose(const char *folder, const struct choice **choice, mvlm_error *error)
{
    struct stat about;
    if (stat(folder, &about) != 0)
        return fail(error, MVLM_BAD_MODEL, "%s: %s; expected a checkpoint folder", folder,
                    strerror(errno));
    if (!S_ISDIR(about.st_mode))
        return fail(error, MVLM_BAD_MODEL,
                    "%s: not a folder; expected a checkpoint folder, with one of " LOOKED_FOR,
                    folder);
    for (size_t i = 0; i < sizeof choices / sizeof *choices; i++) {
        char *path;
        if (asprintf(&path, "%s/%s", folder, choices[i].name) < 0)
            return fail_no_memory(error, "a path", strlen(folder) + strlen(choices[i].name) + 2);
        /* A link that leads nowhere counts as there, so that opening it says which one it is. */
        const bool is_there = lstat(path, &about) == 0;
        free(path);
        if (is_there) {
            *choice = &choices[i];
            return MVLM_OK;
        }
    }
    return fail(error, MVLM_BAD_MODEL, "%s: no weights; looked for " LOOKED_FOR, folder);
}

static mvlm_status add_file(struct checkpoint *checkpoint, const char *folder, const char *name,
                            const struct choice *choice, mvlm_error *error)
{
    struct source_file *const files =
        reallocarray(checkpoint->files, checkpoint->n_files + 1, sizeof *files);
    if (!files)
        return fail_no_memory(error, "files", (checkpoint->n_files + 1) * sizeof *files);
    checkpoint->files = files;
    struct source_file *const file = &files[checkpoint->n_files];
    TRY(source_file_open(folder, name, file, error));
    checkpoint->n_files++;
    return choice->read(file, (int)checkpoint->n_files - 1, &checkpoint->tensors, error);
}

static int by_name(const void *left, const void *right)
{
    const struct source_tensor *const a = left, *const b = right;
    return strcmp(a->name, b->name);
}

static mvlm_status sort_tensors(struct checkpoint *checkpoint, mvlm_error *error)
{
    struct source_tensor *const items = checkpoint->tensors.items;
    if (checkpoint->tensors.n == 0)
        return source_file_fail(&checkpoint->files[0], error, "holds no tensors");
    qsort(items, checkpoint->tensors.n, sizeof *items, by_name);
    for (size_t i = 1; i < checkpoint->tensors.n; i++)
        if (strcmp(items[i - 1].name, items[i].name) == 0)
            return source_file_fail(&checkpoint->files[items[i].file], error,
                                    "tensor '%s' is also in %s", items[i].name,
                                    checkpoint_file(checkpoint, &items[i - 1]));
    return MVLM_OK;
}

/* ---- Index ------------------------------------------------------------------------------ */

static mvlm_status load_index(const struct source_file *file, json_t **index, mvlm_error *error)
{
    json_error_t reason;
    uint8_t *text;
    char near[QUOTE_SIZE];
    TRY(source_file_load(file, 0, file->n_bytes, MAX_INDEX, "index", &text, error));
    bool no_memory;
    *index = json_read((const char *)text, (size_t)file->n_bytes,
                       JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &reason, &no_memory);
    free(text);
    if (no_memory)
        return fail_no_memory(error, "an index", (size_t)file->n_bytes);
    if (!*index)
        return source_file_fail(file, error, "not JSON: %s (line %d)",
                                quote(near, reason.text, strlen(reason.text)), reason.line);
    if (json_object_size(json_object_get(*index, "weight_map")) > 0)
        return MVLM_OK;
    json_decref(*index);
    return source_file_fail(file, error, "weight_map is not an object with names in it");
}

/* A shard is a file beside its index: its name must not lead elsewhere. */
static mvlm_status check_shard(const struct source_file *index, const json_t *shard,
                               mvlm_error *error)
{
    char text[QUOTE_SIZE];
    if (!json_is_string(shard))
        return source_file_fail(index, error, "weight_map: a shard is not a string");
    const char *const name = json_string_value(shard);
    const size_t length = json_string_length(shard);
    bool plain =
        length > 0 && length < QUOTE_SIZE && strcmp(name, ".") != 0 && strcmp(name, "..") != 0;
    for (size_t i = 0; i < length; i++)
        plain = plain && name[i] != '/' && name[i] >= ' ' && name[i] <= '~';
    return plain ? MVLM_OK
                 : source_file_fail(index, error,
                                    "shard '%s': expected the name of a file in the same folder",
                                    quote(text, name, length));
}

static mvlm_status add_shard(struct checkpoint *checkpoint, const char *folder, const char *name,
                             const struct source_file *index, const struct choice *choice,
                             mvlm_error *error)
{
    char *path;
    if (asprintf(&path, "%s/%s", folder, name) < 0)
        return fail_no_memory(error, "a path", strlen(folder) + strlen(name) + 2);
    const bool is_there = access(path, F_OK) == 0;
    free(path);
    if (!is_there)
        return source_file_fail(index, error, "names shard %s, which is not in %s", name, folder);
    return add_file(checkpoint, folder, name, choice, error);
}

/* Opens every shard once, in the order in which the index names them first. */
static mvlm_status add_shards(struct checkpoint *checkpoint, const char *folder,
                              const struct source_file *index, json_t *weight_map,
                              const struct choice *choice, mvlm_error *error)
{
    const char *name;
    json_t *shard;
    json_t *const seen = json_object();
    mvlm_status status = seen ? MVLM_OK : fail_no_memory(error, "names of shards", 0);
    json_object_foreach(weight_map, name, shard)
    {
        if (status == MVLM_OK)
            status = check_shard(index, shard, error);
        if (status != MVLM_OK)
            break;
        const char *const file = json_string_value(shard);
        if (json_object_get(seen, file))
            continue;
        if (json_object_set(seen, file, shard) != 0)
            status = fail_no_memory(error, "names of shards", strlen(file));
        else
            status = add_shard(checkpoint, folder, file, index, choice, error);
    }
    json_decref(seen);
    return status;
}

static const struct source_tensor *find_tensor(const struct checkpoint *checkpoint,
                                               const char *name)
{
    const struct source_tensor key = {.name = (char *)(uintptr_t)name};
    return checkpoint->tensors.n == 0 ? NULL
                                      : bsearch(&key, checkpoint->tensors.items,
                                                checkpoint->tensors.n, sizeof key, by_name);
}

/* Index and shards must name the same tensors, each in the same file. */
static mvlm_status compare_index(const struct checkpoint *checkpoint,
                                 const struct source_file *index, json_t *weight_map,
                                 mvlm_error *error)
{
    char text[QUOTE_SIZE];
    const char *name;
    json_t *shard;
    json_object_foreach(weight_map, name, shard)
    {
        const struct source_tensor *const tensor = find_tensor(checkpoint, name);
        const char *const path = tensor ? checkpoint_file(checkpoint, tensor) : NULL;
        if (!path || strcmp(strrchr(path, '/') + 1, json_string_value(shard)) != 0)
            return source_file_fail(index, error, "tensor '%s' is not in shard %s",
                                    quote(text, name, strlen(name)), json_string_value(shard));
    }
    for (size_t i = 0; i < checkpoint->tensors.n; i++) {
        const struct source_tensor *const tensor = &checkpoint->tensors.items[i];
        if (!json_object_get(weight_map, tensor->name))
            return source_file_fail(index, error, "does not name tensor '%s' of %s", tensor->name,
                                    checkpoint_file(checkpoint, tensor));
    }
    return MVLM_OK;
}

static mvlm_status open_index(struct checkpoint *checkpoint, const char *folder,
                              const struct choice *choice, mvlm_error *error)
{
    struct source_file file;
    json_t *index = NULL;
    TRY(source_file_open(folder, choice->name, &file, error));
    mvlm_status status = load_index(&file, &index, error);
    if (status == MVLM_OK) {
        json_t *const weight_map = json_object_get(index, "weight_map");
        status = add_shards(checkpoint, folder, &file, weight_map, choice, error);
        if (status == MVLM_OK)
            status = sort_tensors(checkpoint, error);
        if (status == MVLM_OK)
            status = compare_index(checkpoint, &file, weight_map, error);
        json_decref(index);
    }
    source_file_close(&file);
    return status;
}

/* ---- Public ----------------------------------------------------------------------------- */

static mvlm_status open_single(struct checkpoint *checkpoint, const char *folder,
                               const struct choice *choice, mvlm_error *error)
{
    TRY(add_file(checkpoint, folder, choice->name, choice, error));
    return sort_tensors(checkpoint, error);
}

static mvlm_status open_choice(const char *folder, const struct choice *choice,
                               struct checkpoint **out, mvlm_error *error)
{
    struct checkpoint *const checkpoint = calloc(1, sizeof *checkpoint);
    if (!checkpoint)
        return fail_no_memory(error, "a checkpoint", sizeof *checkpoint);
    const mvlm_status status = choice->is_index ? open_index(checkpoint, folder, choice, error)
                                                : open_single(checkpoint, folder, choice, error);
    if (status == MVLM_OK)
        *out = checkpoint;
    else
        checkpoint_close(checkpoint);
    return status;
}

mvlm_status checkpoint_open(const char *folder, struct checkpoint **out, mvlm_error *error)
{
    const struct choice *choice = NULL;
    *out = NULL;
    TRY(choose(folder, &choice, error));
    return open_choice(folder, choice, out, error);
}

mvlm_status checkpoint_open_file(const char *folder, const char *name, struct checkpoint **out,
                                 mvlm_error *error)
{
    const bool zip = ends_with(name, ".bin");
    const struct choice choice = {name, false, zip ? torch_bin_read : safetensors_read};
    *out = NULL;
    return open_choice(folder, &choice, out, error);
}

void checkpoint_close(struct checkpoint *checkpoint)
{
    if (!checkpoint)
        return;
    for (size_t i = 0; i < checkpoint->n_files; i++)
        source_file_close(&checkpoint->files[i]);
    free(checkpoint->files);
    tensor_list_free(&checkpoint->tensors);
    free(checkpoint);
}

size_t checkpoint_count(const struct checkpoint *checkpoint)
{
    return checkpoint->tensors.n;
}

const struct source_tensor *checkpoint_tensor(const struct checkpoint *checkpoint, size_t index)
{
    return index < checkpoint->tensors.n ? &checkpoint->tensors.items[index] : NULL;
}

const struct source_tensor *checkpoint_find(struct checkpoint *checkpoint, const char *name)
{
    const struct source_tensor *const found = find_tensor(checkpoint, name);
    if (found)
        checkpoint->tensors.items[found - checkpoint->tensors.items].used = true;
    return found;
}

const char *checkpoint_file(const struct checkpoint *checkpoint, const struct source_tensor *tensor)
{
    return checkpoint->files[tensor->file].path;
}

uint64_t checkpoint_bytes(const struct checkpoint *checkpoint)
{
    uint64_t n_bytes = 0;
    for (size_t i = 0; i < checkpoint->tensors.n; i++) {
        const struct source_tensor *const tensor = &checkpoint->tensors.items[i];
        n_bytes += (uint64_t)source_tensor_count(tensor) * dtype_size(tensor->dtype);
    }
    return n_bytes;
}

mvlm_status checkpoint_read(const struct checkpoint *checkpoint, const struct source_tensor *tensor,
                            int64_t first, int64_t n_rows, float *out, mvlm_error *error)
{
    return tensor_read(&checkpoint->files[tensor->file], tensor, first, n_rows, out, error);
}
