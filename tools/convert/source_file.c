/* folder + name -> descriptor and length -> exact reads at offsets. */
#include "source_file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "status.h"

mvlm_status(source_file_fail)(const struct source_file *file, mvlm_error *error, const char *format,
                              ...)
{
    char message[sizeof error->message];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    return fail(error, MVLM_BAD_MODEL, "%s: %s", file->path, message);
}

const char *quote(char out[QUOTE_SIZE], const void *bytes, size_t n_bytes)
{
    const char *const text = bytes;
    size_t n = 0;
    for (; n < n_bytes && n < QUOTE_SIZE - 1; n++)
        out[n] = text[n];
    if (n < n_bytes)
        memcpy(out + n - 3, "...", 3);
    for (size_t i = 0; i < n; i++)
        if (out[i] < ' ' || out[i] > '~')
            out[i] = '?';
    out[n] = '\0';
    return out;
}

/* A clone without git-lfs leaves text files of some hundred bytes where the weights should be. */
static mvlm_status refuse_pointer(const struct source_file *file, mvlm_error *error)
{
    static const char pointer[] = "version https://git-lfs";
    char start[sizeof pointer - 1];
    if (file->n_bytes < sizeof start)
        return MVLM_OK;
    TRY(source_file_read(file, 0, start, sizeof start, error));
    if (memcmp(start, pointer, sizeof start) == 0)
        return source_file_fail(file, error,
                                "a git-lfs pointer, not the weights: fetch them with git lfs pull");
    return MVLM_OK;
}

mvlm_status source_file_open(const char *folder, const char *name, struct source_file *file,
                             mvlm_error *error)
{
    mvlm_status status = MVLM_BAD_MODEL;
    *file = (struct source_file){.fd = -1};
    if (asprintf(&file->path, "%s/%s", folder, name) < 0) {
        file->path = NULL;
        return fail_no_memory(error, "a path", strlen(folder) + strlen(name) + 2);
    }
    struct stat about;
    /* Without O_NONBLOCK, opening a named pipe would wait for a writer. */
    file->fd = open(file->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (file->fd < 0 || fstat(file->fd, &about) != 0) {
        source_file_fail(file, error, "cannot be opened: %s", strerror(errno));
        goto fail;
    }
    if (!S_ISREG(about.st_mode)) {
        source_file_fail(file, error, "not a regular file");
        goto fail;
    }
    file->n_bytes = (uint64_t)about.st_size;
    status = refuse_pointer(file, error);
    if (status == MVLM_OK)
        return MVLM_OK;
fail:
    source_file_close(file);
    return status;
}

bool source_file_exists(const char *folder, const char *name)
{
    char path[PATH_MAX]; /* a longer one names no file */
    const int n = snprintf(path, sizeof path, "%s/%s", folder, name);
    return n > 0 && n < (int)sizeof path && access(path, F_OK) == 0;
}

void source_file_close(struct source_file *file)
{
    if (file->fd >= 0)
        close(file->fd);
    free(file->path);
    *file = (struct source_file){.fd = -1};
}

mvlm_status source_file_read(const struct source_file *file, uint64_t offset, void *out,
                             size_t n_bytes, mvlm_error *error)
{
    uint8_t *const bytes = out;
    if (offset > file->n_bytes || n_bytes > file->n_bytes - offset)
        return source_file_fail(file, error, "%zu bytes wanted at %llu, file has %llu", n_bytes,
                                (unsigned long long)offset, (unsigned long long)file->n_bytes);
    for (size_t done = 0; done < n_bytes;) {
        const ssize_t n = pread(file->fd, bytes + done, n_bytes - done, (off_t)(offset + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return source_file_fail(file, error, "cannot be read: %s", strerror(errno));
        if (n == 0)
            return source_file_fail(file, error, "became shorter while it was read");
        done += (size_t)n;
    }
    return MVLM_OK;
}

mvlm_status source_file_load(const struct source_file *file, uint64_t offset, uint64_t n_bytes,
                             uint64_t limit, const char *what, uint8_t **out, mvlm_error *error)
{
    *out = NULL;
    if (n_bytes > limit)
        return source_file_fail(file, error, "%s of %llu bytes, at most %llu", what,
                                (unsigned long long)n_bytes, (unsigned long long)limit);
    if (offset > file->n_bytes || n_bytes > file->n_bytes - offset)
        return source_file_fail(file, error, "%s of %llu bytes at %llu, file has %llu: truncated?",
                                what, (unsigned long long)n_bytes, (unsigned long long)offset,
                                (unsigned long long)file->n_bytes);
    uint8_t *const bytes = malloc((size_t)n_bytes + 1);
    if (!bytes)
        return fail_no_memory(error, what, (size_t)n_bytes + 1);
    const mvlm_status status = source_file_read(file, offset, bytes, (size_t)n_bytes, error);
    if (status != MVLM_OK) {
        free(bytes);
        return status;
    }
    bytes[n_bytes] = '\0';
    *out = bytes;
    return MVLM_OK;
}
