/* Files in, standard output out. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <fcntl.h>
#include <unistd.h>

#include "cli.h"

enum { FIRST_BYTES = 1 << 16 };

static mvlm_status read_all(int descriptor, struct file_bytes *file, const char *name,
                            mvlm_status status_if_bad, mvlm_error *error)
{
    size_t capacity = 0;
    for (;;) {
        if (capacity - file->n < 2) {
            capacity = capacity ? 2 * capacity : FIRST_BYTES;
            char *more = realloc(file->bytes, capacity);
            if (!more)
                return cli_fail(error, MVLM_NO_MEMORY, "%s: out of memory after %zu bytes", name,
                                file->n);
            file->bytes = more;
        }
        const ssize_t n = read(descriptor, file->bytes + file->n, capacity - file->n - 1);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return cli_fail(error, status_if_bad, "%s: cannot be read: %s", name, strerror(errno));
        if (n == 0)
            break;
        file->n += (size_t)n;
    }
    file->bytes[file->n] = 0;
    return MVLM_OK;
}

mvlm_status read_open_file(int descriptor, const char *name, mvlm_status status_if_bad,
                           struct file_bytes *file, mvlm_error *error)
{
    *file = (struct file_bytes){0};
    const mvlm_status status = read_all(descriptor, file, name, status_if_bad, error);
    if (status != MVLM_OK) {
        free(file->bytes);
        *file = (struct file_bytes){0};
    }
    return status;
}

mvlm_status read_file(const char *path, mvlm_status status_if_bad, struct file_bytes *file,
                      mvlm_error *error)
{
    const bool standard_input = strcmp(path, "-") == 0;
    struct stat about;
    *file = (struct file_bytes){0};
    const int descriptor = standard_input ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
    if (descriptor < 0)
        return cli_fail(error, status_if_bad, "%s: cannot be opened: %s", path, strerror(errno));
    mvlm_status status;
    if (fstat(descriptor, &about) == 0 && S_ISDIR(about.st_mode))
        status = cli_fail(error, status_if_bad, "%s: is a folder", path);
    else
        status = read_open_file(descriptor, standard_input ? "standard input" : path, status_if_bad,
                                file, error);
    if (!standard_input)
        close(descriptor);
    return status;
}

mvlm_status read_text_file(const char *path, struct file_bytes *file, mvlm_error *error)
{
    const mvlm_status status = read_file(path, MVLM_USAGE, file, error);
    if (status == MVLM_OK && file->n && file->bytes[file->n - 1] == '\n')
        file->bytes[--file->n] = 0;
    return status;
}

mvlm_status put_out(const void *bytes, size_t n_bytes, mvlm_error *error)
{
    const int problem = write_fully(STDOUT_FILENO, bytes, n_bytes);
    if (problem == EPIPE)
        _exit(141); /* nobody listens any more: end as if SIGPIPE had not been ignored */
    if (problem)
        return cli_fail(error, MVLM_BAD_OUTPUT, "standard output cannot be written: %s",
                        strerror(problem));
    return MVLM_OK;
}

mvlm_status put_json(json_t *value, mvlm_error *error)
{
    char *text = json_written(value, JSON_REAL_PRECISION(9));
    json_decref(value);
    if (!text)
        return cli_fail(error, MVLM_NO_MEMORY, "out of memory for the output");
    mvlm_status status = put_out(text, strlen(text), error);
    if (status == MVLM_OK)
        status = put_out("\n", 1, error);
    free(text);
    return status;
}

mvlm_status open_model(const struct values *values, mvlm_model **model, mvlm_error *error)
{
    const mvlm_model_options options = {.isa = values->isa};
    *model = NULL;
    if (!values->model)
        return cli_fail(error, MVLM_USAGE,
                        "no model named: -m FILE, or the variable MOBILEVLM_MODEL");
    return mvlm_model_open(values->model, &options, model, error);
}

uint64_t pixels_allowed(const struct values *values)
{
    enum {
        BYTES_A_PIXEL = 24
    }; /* of a PNG with 16 bits a channel: its rows twice, and two of RGB */
    const uint64_t most = (uint64_t)values->max_pixels, room = values->max_rss / BYTES_A_PIXEL;
    return values->max_rss && room < most ? room + 1 : most; /* 0 would be the default */
}

void session_options_of(const struct values *values, mvlm_session_options *options)
{
    *options = (mvlm_session_options){.n_threads = threads_wanted(values),
                                      .n_ctx = (size_t)values->context,
                                      .kv_type = (mvlm_kv_type)values->kv_type,
                                      .max_rss = values->max_rss,
                                      .max_pixels = pixels_allowed(values),
                                      .cache_folder = values->cache,
                                      .cache_bytes = values->cache_bytes};
}

bool buffer_add(struct buffer *text, const char *bytes, size_t n)
{
    if (text->n + n + 1 > text->capacity) {
        const size_t capacity = 2 * (text->n + n + 1);
        char *more = realloc(text->bytes, capacity);
        if (!more)
            return false;
        text->bytes = more;
        text->capacity = capacity;
    }
    if (n)
        memcpy(text->bytes + text->n, bytes, n);
    text->n += n;
    text->bytes[text->n] = 0;
    return true;
}
