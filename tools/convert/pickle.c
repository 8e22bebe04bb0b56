/* pickle -> machine -> dict of name: tensor -> list of tensors. */
#include "pickle.h"

#include <stdlib.h>

#include "pickle_machine.h"
#include "status.h"

/* A tuple of n integers of 0 or more. */
static bool read_integers(const struct machine *m, const struct value *tuple, int n, int64_t *out)
{
    if (tuple->kind != TUPLE || tuple->n != (uint32_t)n)
        return false;
    for (uint32_t i = 0; i < tuple->n; i++) {
        out[i] = machine_item(m, tuple, i)->integer;
        if (machine_item(m, tuple, i)->kind != INT || out[i] < 0)
            return false;
    }
    return true;
}

/* (storage, offset, shape, stride, requires_grad, hooks[, metadata]); hooks and metadata empty: the
 * metadata of a negated or conjugated tensor would change its values. */
static mvlm_status read_tensor(const struct machine *m, const char *name, const struct value *call,
                               struct pickle_tensor *tensor)
{
    if (call->n < 6 || call->n > 7)
        return source_file_fail(m->file, m->error, "tensor '%s': %u arguments, expected 6 or 7",
                                name, call->n);
    const struct value *const storage = machine_item(m, call, 0), *const offset =
                                                                      machine_item(m, call, 1);
    const struct value *const shape = machine_item(m, call, 2), *const stride =
                                                                    machine_item(m, call, 3);
    const struct value *const hooks = machine_item(m, call, 5), *const last = machine_item(
                                                                    m, call, call->n - 1);
    if (storage->kind != STORAGE || machine_item(m, call, 4)->kind != BOOL || hooks->kind != DICT ||
        hooks->n || (last->kind != DICT && last->kind != NONE) || last->n)
        return source_file_fail(m->file, m->error,
                                "tensor '%s': hooks, metadata or wrong kinds of arguments", name);
    if (shape->n > MAX_DIMS)
        return source_file_fail(m->file, m->error, "tensor '%s': %u dimensions, at most %d", name,
                                shape->n, MAX_DIMS);
    tensor->n_dims = (int)shape->n;
    if (!read_integers(m, shape, tensor->n_dims, tensor->shape) ||
        !read_integers(m, stride, tensor->n_dims, tensor->stride) || offset->kind != INT ||
        offset->integer < 0)
        return source_file_fail(m->file, m->error,
                                "tensor '%s': offset, shape and stride are not integers of 0 or "
                                "more, one per dimension",
                                name);
    tensor->offset = offset->integer;
    tensor->dtype = (enum dtype)machine_item(m, storage, 1)->n;
    tensor->storage =
        (struct pickle_text){machine_item(m, storage, 2)->text, machine_item(m, storage, 2)->n};
    tensor->storage_count = machine_item(m, storage, 4)->integer;
    return MVLM_OK;
}

static mvlm_status read_dict(const struct machine *m, const struct value *dict,
                             struct pickle_tensor **tensors, size_t *n_tensors)
{
    struct pickle_tensor *const list = calloc(dict->n ? dict->n : 1, sizeof *list);
    if (!list)
        return fail_no_memory(m->error, "the list of tensors", dict->n * sizeof *list);
    mvlm_status status = MVLM_OK;
    uint32_t at = dict->pair[0];
    for (uint32_t i = 0; i < dict->n && status == MVLM_OK; i++, at = m->pairs[at].next) {
        const struct value *const key = &m->values[m->pairs[at].key];
        const struct value *const value = &m->values[m->pairs[at].value];
        char name[QUOTE_SIZE] = "";
        if (key->kind != STRING) {
            status = source_file_fail(m->file, m->error, "entry %u of the state dict: key is %s", i,
                                      kind_name(key->kind));
            break;
        }
        list[i].name = (struct pickle_text){key->text, key->n};
        quote(name, key->text, key->n);
        status = value->kind == TENSOR
                     ? read_tensor(m, name, value, &list[i])
                     : source_file_fail(m->file, m->error, "'%s' is %s, expected a tensor", name,
                                        kind_name(value->kind));
    }
    if (status != MVLM_OK) {
        free(list);
        return status;
    }
    *tensors = list;
    *n_tensors = dict->n;
    return MVLM_OK;
}

mvlm_status pickle_read(const struct source_file *file, const uint8_t *bytes, size_t n_bytes,
                        struct pickle_tensor **tensors, size_t *n_tensors, mvlm_error *error)
{
    struct machine machine;
    const struct value *root = NULL;
    *tensors = NULL;
    *n_tensors = 0;
    mvlm_status status = machine_init(&machine, file, bytes, n_bytes, error);
    if (status == MVLM_OK)
        status = machine_run(&machine, &root);
    if (status == MVLM_OK)
        status = read_dict(&machine, root, tensors, n_tensors);
    machine_free(&machine);
    return status;
}
