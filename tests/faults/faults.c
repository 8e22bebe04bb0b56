#include "faults.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static enum fault planned;
static enum manner manner;
static long wanted;
static atomic_long *counts; /* [FAULT_KINDS], shared with child processes */

void *__real_mmap(void *at, size_t n, int protection, int flags, int file, off_t offset);

void fault_plan(enum fault kind, enum manner how, long n)
{
    if (!counts) {
        counts = __real_mmap(NULL, FAULT_KINDS * sizeof *counts, PROT_READ | PROT_WRITE,
                             MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        if (counts == MAP_FAILED)
            abort();
    }
    for (int i = 0; i < FAULT_KINDS; i++)
        atomic_store(&counts[i], 0);
    planned = kind;
    manner = how;
    wanted = n;
}

long fault_count(enum fault kind)
{
    return atomic_load(&counts[kind]);
}

/* Is this the call? */
static bool struck(enum fault kind)
{
    return counts && atomic_fetch_add(&counts[kind], 1) + 1 == wanted && kind == planned;
}

/* Is the disk full since then? */
static bool is_full(enum fault kind)
{
    return counts && manner == FAULT_FULL && kind == planned && wanted &&
           atomic_load(&counts[kind]) >= wanted;
}

static bool fails(enum fault kind, int why)
{
    if (!struck(kind))
        return false;
    errno = why;
    return true;
}

/* ---- Functions that fail or not --------------------------------------------------------- */

/* Defines the wrapper of a function, which fails with `bad`. */
#define WRAP(kind, why, bad, type, name, parameters, arguments)                                    \
    type __real_##name parameters;                                                                 \
    type __wrap_##name parameters;                                                                 \
    type __wrap_##name parameters                                                                  \
    {                                                                                              \
        return fails(kind, why) ? (bad) : __real_##name arguments;                                 \
    }

WRAP(FAULT_ALLOCATION, ENOMEM, NULL, void *, malloc, (size_t n), (n))
WRAP(FAULT_ALLOCATION, ENOMEM, NULL, void *, calloc, (size_t n, size_t size), (n, size))
WRAP(FAULT_ALLOCATION, ENOMEM, NULL, void *, realloc, (void *block, size_t n), (block, n))
WRAP(FAULT_ALLOCATION, ENOMEM, NULL, void *, aligned_alloc, (size_t align, size_t n), (align, n))
WRAP(FAULT_ALLOCATION, ENOMEM, ENOMEM, int, posix_memalign, (void **block, size_t align, size_t n),
     (block, align, n))
WRAP(FAULT_ALLOCATION, ENOMEM, NULL, char *, strdup, (const char *text), (text))
WRAP(FAULT_ALLOCATION, ENOMEM, NULL, char *, strndup, (const char *text, size_t n), (text, n))
WRAP(FAULT_ALLOCATION, ENOMEM, NULL, FILE *, open_memstream, (char **text, size_t *n), (text, n))
WRAP(FAULT_MAP, ENOMEM, MAP_FAILED, void *, mmap,
     (void *at, size_t n, int protection, int flags, int file, off_t offset),
     (at, n, protection, flags, file, offset))
WRAP(FAULT_SYNC, EIO, -1, int, fsync, (int file), (file))
WRAP(FAULT_SYNC, EIO, -1, int, fdatasync, (int file), (file))
WRAP(FAULT_RENAME, EIO, -1, int, rename, (const char *from, const char *to), (from, to))
WRAP(FAULT_OPEN, EMFILE, NULL, FILE *, fopen, (const char *path, const char *mode), (path, mode))
WRAP(FAULT_OPEN, EMFILE, NULL, FILE *, fdopen, (int file, const char *mode), (file, mode))
WRAP(FAULT_OPEN, EMFILE, -1, int, mkostemp, (char *path, int flags), (path, flags))
WRAP(FAULT_OPEN, EMFILE, -1, int, dup, (int file), (file))
WRAP(FAULT_OPEN, EMFILE, -1, int, pipe2, (int *files, int flags), (files, flags))
WRAP(FAULT_OPEN, EACCES, NULL, DIR *, opendir, (const char *path), (path))
WRAP(FAULT_OPEN, EACCES, NULL, FTS *, fts_open,
     (char *const *roots, int flags, int (*order)(const FTSENT **, const FTSENT **)),
     (roots, flags, order))
WRAP(FAULT_OPEN, EACCES, -1, int, mkdir, (const char *path, mode_t mode), (path, mode))
WRAP(FAULT_STATUS, EIO, -1, int, fstat, (int file, struct stat *about), (file, about))
WRAP(FAULT_STATUS, EIO, -1, int, ftruncate, (int file, off_t n), (file, n))
WRAP(FAULT_STATUS, EIO, -1, off_t, lseek, (int file, off_t n, int from), (file, n, from))
WRAP(FAULT_THREAD, EAGAIN, EAGAIN, int, pthread_create,
     (pthread_t * thread, const pthread_attr_t *attributes, void *(*body)(void *), void *argument),
     (thread, attributes, body, argument))

/* It closes in any case, as Linux does. */
int __real_close(int file);
int __wrap_close(int file);
int __wrap_close(int file)
{
    const bool failed = struck(FAULT_STATUS);
    const int result = __real_close(file);
    if (failed)
        errno = EIO;
    return failed ? -1 : result;
}

int __real_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...)
{
    va_list arguments;
    va_start(arguments, flags);
    const mode_t mode = flags & O_CREAT ? va_arg(arguments, mode_t) : 0;
    va_end(arguments);
    return fails(FAULT_OPEN, EMFILE) ? -1 : __real_open(path, flags, mode);
}

/* ---- Formatted texts -------------------------------------------------------------------- */

int __wrap_asprintf(char **text, const char *format, ...);
int __wrap_vasprintf(char **text, const char *format, va_list arguments);
int __wrap___asprintf_chk(char **text, int flag, const char *format, ...);
int __real_vasprintf(char **text, const char *format, va_list arguments);

int __wrap_vasprintf(char **text, const char *format, va_list arguments)
{
    return fails(FAULT_ALLOCATION, ENOMEM) ? -1 : __real_vasprintf(text, format, arguments);
}

int __wrap_asprintf(char **text, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    const int n = __wrap_vasprintf(text, format, arguments);
    va_end(arguments);
    return n;
}

/* What a hardened build calls. */
int __wrap___asprintf_chk(char **text, int flag, const char *format, ...)
{
    va_list arguments;
    (void)flag;
    va_start(arguments, format);
    const int n = __wrap_vasprintf(text, format, arguments);
    va_end(arguments);
    return n;
}

/* ---- Reading and writing ---------------------------------------------------------------- */

/* The bytes that a transfer of n may move; -1: it fails. */
static ssize_t granted(enum fault kind, size_t n)
{
    const bool full = is_full(kind), now = struck(kind);
    if (!now && !full)
        return (ssize_t)n;
    if (now && (manner == FAULT_SHORT || manner == FAULT_FULL))
        return (ssize_t)(n > 1 ? n / 2 : n);
    errno = manner == FAULT_INTERRUPTED ? EINTR : kind == FAULT_WRITE ? ENOSPC : EIO;
    return -1;
}

#define WRAP_TRANSFER(kind, name, parameters, arguments)                                           \
    ssize_t __real_##name parameters;                                                              \
    ssize_t __wrap_##name parameters;                                                              \
    ssize_t __wrap_##name parameters                                                               \
    {                                                                                              \
        const ssize_t n = granted(kind, n_bytes);                                                  \
        return n < 0 ? -1 : __real_##name arguments;                                               \
    }

WRAP_TRANSFER(FAULT_READ, read, (int file, void *bytes, size_t n_bytes), (file, bytes, (size_t)n))
WRAP_TRANSFER(FAULT_READ, pread, (int file, void *bytes, size_t n_bytes, off_t at),
              (file, bytes, (size_t)n, at))
WRAP_TRANSFER(FAULT_WRITE, write, (int file, const void *bytes, size_t n_bytes),
              (file, bytes, (size_t)n))

ssize_t __wrap___read_chk(int file, void *bytes, size_t n_bytes, size_t room);
ssize_t __wrap___read_chk(int file, void *bytes, size_t n_bytes, size_t room)
{
    return n_bytes > room ? -1 : __wrap_read(file, bytes, n_bytes);
}

/* The C library starts such calls again by itself: they fail or not. */
static bool stream_fails(enum fault kind)
{
    if (is_full(kind)) {
        errno = ENOSPC;
        return true;
    }
    return (manner == FAULT_FAILS || manner == FAULT_FULL) &&
           fails(kind, kind == FAULT_WRITE ? ENOSPC : EIO);
}

#define WRAP_STREAM(kind, bad, type, name, parameters, arguments)                                  \
    type __real_##name parameters;                                                                 \
    type __wrap_##name parameters;                                                                 \
    type __wrap_##name parameters                                                                  \
    {                                                                                              \
        return stream_fails(kind) ? (bad) : __real_##name arguments;                               \
    }

WRAP_STREAM(FAULT_READ, -1, ssize_t, getdelim, (char **line, size_t *n, int end, FILE *file),
            (line, n, end, file))
/* what an optimised build makes of getline */
WRAP_STREAM(FAULT_READ, -1, ssize_t, __getdelim, (char **line, size_t *n, int end, FILE *file),
            (line, n, end, file))
WRAP_STREAM(FAULT_READ, -1, ssize_t, getline, (char **line, size_t *n, FILE *file), (line, n, file))
WRAP_STREAM(FAULT_READ, 0, size_t, fread, (void *bytes, size_t size, size_t n, FILE *file),
            (bytes, size, n, file))
WRAP_STREAM(FAULT_WRITE, 0, size_t, fwrite, (const void *bytes, size_t size, size_t n, FILE *file),
            (bytes, size, n, file))

int __real_fclose(FILE *file);
int __wrap_fclose(FILE *file);
int __wrap_fclose(FILE *file)
{
    const bool failed = stream_fails(FAULT_WRITE);
    const int result = __real_fclose(file);
    return failed ? EOF : result;
}
