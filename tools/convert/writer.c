#include "writer.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "status.h"

enum { START_BYTES = 32 << 20 };

static mvlm_status write_failed(const struct writer *writer, const char *what, mvlm_error *error)
{
    return fail(error, MVLM_BAD_OUTPUT, "%s: cannot be %s: %s", writer->path, what,
                strerror(errno));
}

mvlm_status writer_open(struct writer *writer, const char *path, bool force,
                        const volatile sig_atomic_t *stop, mvlm_error *error)
{
    struct stat about;
    *writer = (struct writer){.file = -1, .stop = stop};
    const bool exists = lstat(path, &about) == 0;
    if (exists && S_ISDIR(about.st_mode))
        return fail(error, MVLM_BAD_OUTPUT, "%s: is a folder, expected the name of the model file",
                    path);
    if (exists && !force)
        return fail(error, MVLM_USAGE, "%s: exists already; --force overwrites it", path);
    if (exists && !S_ISREG(about.st_mode) && !S_ISLNK(about.st_mode))
        return fail(error, MVLM_BAD_OUTPUT, "%s: is no regular file", path);
    writer->path = strdup(path);
    if (!writer->path || asprintf(&writer->temporary, "%s.XXXXXX", path) < 0) {
        writer->temporary = NULL;
        return fail_no_memory(error, "a path", strlen(path));
    }
    writer->file = mkostemp(writer->temporary, O_CLOEXEC);
    if (writer->file < 0)
        return write_failed(writer, "created", error);
    const mode_t mask = umask(0);
    umask(mask);
    fchmod(writer->file, 0666 & ~mask); /* mkstemp's are private, a model is not */
    return MVLM_OK;
}

static mvlm_status write_all(struct writer *writer, const void *bytes, size_t n_bytes,
                             mvlm_error *error)
{
    const char *at = bytes;
    while (n_bytes) {
        if (writer->stop && *writer->stop)
            return fail(error, MVLM_CANCELLED, "stopped; %s was not written", writer->path);
        const ssize_t n = write(writer->file, at, n_bytes < (8u << 20) ? n_bytes : 8u << 20);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return write_failed(writer, "written", error);
        at += n;
        n_bytes -= (size_t)n;
    }
    return MVLM_OK;
}

mvlm_status writer_append(struct writer *writer, const void *bytes, size_t n_bytes,
                          mvlm_error *error)
{
    TRY(write_all(writer, bytes, n_bytes, error));
    writer->position += n_bytes;
    /* the disk begins now, so that the sync at the end has little left to wait for */
    if (writer->position - writer->started >= START_BYTES) {
        sync_file_range(writer->file, (off_t)writer->started,
                        (off_t)(writer->position - writer->started), SYNC_FILE_RANGE_WRITE);
        writer->started = writer->position;
    }
    return MVLM_OK;
}

mvlm_status writer_pad(struct writer *writer, uint64_t position, mvlm_error *error)
{
    static const char zeros[4096];
    while (writer->position < position) {
        const uint64_t left = position - writer->position;
        TRY(writer_append(writer, zeros, left < sizeof zeros ? (size_t)left : sizeof zeros, error));
    }
    return MVLM_OK;
}

mvlm_status writer_seek(struct writer *writer, uint64_t position, mvlm_error *error)
{
    if (lseek(writer->file, (off_t)position, SEEK_SET) < 0)
        return write_failed(writer, "written", error);
    writer->position = writer->started = position;
    return MVLM_OK;
}

mvlm_status writer_read(const struct writer *writer, uint64_t position, void *bytes, size_t n_bytes,
                        mvlm_error *error)
{
    char *at = bytes;
    while (n_bytes) {
        const ssize_t n = pread(writer->file, at, n_bytes, (off_t)position);
        if (n < 0 && errno == EINTR)
            continue;
        if (n == 0)
            errno = EIO; /* somebody has cut the file */
        if (n <= 0)
            return write_failed(writer, "read back", error);
        at += n;
        position += (uint64_t)n;
        n_bytes -= (size_t)n;
    }
    return MVLM_OK;
}

/* Makes the rename last: the folder's own entry is synced. */
static void sync_folder(const char *path)
{
    char *copy = strdup(path);
    if (!copy)
        return;
    const int folder = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder >= 0) {
        fsync(folder);
        close(folder);
    }
    free(copy);
}

mvlm_status writer_finish(struct writer *writer, const void *front, size_t n_bytes,
                          mvlm_error *error)
{
    TRY(writer_seek(writer, 0, error));
    TRY(write_all(writer, front, n_bytes, error));
    if (fsync(writer->file) != 0)
        return write_failed(writer, "synced", error);
    const int closed = close(writer->file);
    writer->file = -1;
    if (closed != 0)
        return write_failed(writer, "closed", error);
    if (rename(writer->temporary, writer->path) != 0)
        return write_failed(writer, "renamed", error);
    free(writer->temporary);
    writer->temporary = NULL;
    sync_folder(writer->path);
    return MVLM_OK;
}

void writer_close(struct writer *writer)
{
    if (writer->file >= 0)
        close(writer->file);
    if (writer->temporary)
        unlink(writer->temporary);
    free(writer->temporary);
    free(writer->path);
    *writer = (struct writer){.file = -1};
}
