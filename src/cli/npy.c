#include "npy.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "options.h"

enum { HEADER_BYTES = 128 };

static mvlm_status failed(const struct npy *npy, mvlm_error *error)
{
    return cli_fail(error, MVLM_BAD_OUTPUT, "%s: cannot be written: %s", npy->path,
                    strerror(errno));
}

/* "\x93NUMPY" 1 0, the length of the rest, then a Python dictionary, padded with spaces to a
 * newline. */
static bool write_header(const struct npy *npy)
{
    char header[HEADER_BYTES + 1], shape[96];
    size_t n = 0;
    for (int i = 0; i < npy->n_dims; i++)
        n += (size_t)snprintf(shape + n, sizeof shape - n, "%zu,%s", npy->shape[i],
                              i + 1 < npy->n_dims ? " " : "");
    if (npy->n_dims > 1)
        shape[n - 1] = 0; /* only a tuple of one ends with a comma */
    const int length =
        snprintf(header + 10, sizeof header - 10,
                 "{'descr': '%s', 'fortran_order': False, 'shape': (%s), }", npy->type, shape);
    memset(header + 10 + length, ' ', sizeof header - 10 - (size_t)length);
    memcpy(header, "\x93NUMPY\x01\x00", 8);
    header[8] = HEADER_BYTES - 10;
    header[9] = 0;
    header[HEADER_BYTES - 1] = '\n';
    return fwrite(header, 1, HEADER_BYTES, npy->file) == HEADER_BYTES;
}

static mvlm_status begin(struct npy *npy, const char *folder, const char *name, const char *type,
                         const size_t *shape, int n_dims, mvlm_error *error)
{
    if (asprintf(&npy->path, "%s/%s.npy", folder, name) < 0) {
        npy->path = NULL;
        return cli_fail(error, MVLM_NO_MEMORY, "out of memory");
    }
    npy->type = type;
    npy->n_dims = n_dims;
    memcpy(npy->shape, shape, (size_t)n_dims * sizeof *shape);
    npy->shape[0] = 0;
    npy->file = fopen(npy->path, "wb");
    return npy->file && write_header(npy) ? MVLM_OK : failed(npy, error);
}

mvlm_status npy_append(struct npy *npy, const char *folder, const char *name, const char *type,
                       const void *values, const size_t *shape, int n_dims, mvlm_error *error)
{
    if (!npy->path) {
        const mvlm_status status = begin(npy, folder, name, type, shape, n_dims, error);
        if (status != MVLM_OK)
            return status;
    }
    size_t n = 1;
    for (int i = 0; i < n_dims; i++)
        n *= shape[i];
    if (n && fwrite(values, 4, n, npy->file) != n)
        return failed(npy, error);
    npy->shape[0] += shape[0];
    return MVLM_OK;
}

mvlm_status npy_close(struct npy *npy, mvlm_error *error)
{
    mvlm_status status = MVLM_OK;
    if (npy->file) {
        if (fseek(npy->file, 0, SEEK_SET) != 0 || !write_header(npy))
            status = failed(npy, error);
        if (fclose(npy->file) != 0 && status == MVLM_OK)
            status = failed(npy, error);
    }
    free(npy->path);
    *npy = (struct npy){0};
    return status;
}
