#include "batch_records.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SYNC_EVERY = 16 }; /* records */

/* ---- Reading ---------------------------------------------------------------------------- */

/* Is this how a record begins, as far as it goes? What anybody else wrote is not ours to cut off. */
static bool may_be_torn(const char *line, size_t n)
{
    static const char *const beginnings[] = {"{\"text\":", "{\"error\":"};
    for (size_t i = 0; i < sizeof beginnings / sizeof *beginnings; i++) {
        const size_t length = strlen(beginnings[i]);
        if (memcmp(line, beginnings[i], n < length ? n : length) == 0)
            return true;
    }
    return false;
}

mvlm_status read_records(const char *path, int file, record_fn each, void *user, off_t *n_bytes,
                         mvlm_error *error)
{
    const int copy = dup(file);
    FILE *stream = copy >= 0 ? fdopen(copy, "re") : NULL;
    char *line = NULL;
    size_t capacity = 0;
    ssize_t n = 0;
    mvlm_status status = MVLM_OK;
    *n_bytes = 0;
    if (!stream)
        return cli_fail(error, MVLM_BAD_OUTPUT, "%s: cannot be read: %s", path, strerror(errno));
    rewind(stream);
    for (size_t i = 1; status == MVLM_OK && (n = getline(&line, &capacity, stream)) > 0; i++) {
        if (line[n - 1] != '\n') {
            if (!may_be_torn(line, (size_t)n))
                status = cli_fail(error, MVLM_BAD_OUTPUT,
                                  "%s: line %zu is no record, and does not end", path, i);
            break;
        }
        bool no_memory;
        json_t *record = /* an answer may hold a NUL */
            json_read(line, (size_t)n, JSON_ALLOW_NUL, NULL, &no_memory);
        if (no_memory)
            status = cli_fail(error, MVLM_NO_MEMORY, "%s: out of memory for line %zu", path, i);
        else if (!json_is_string(json_object_get(record, "id")))
            status = cli_fail(error, MVLM_BAD_OUTPUT, "%s: line %zu is no record", path, i);
        else
            status = each(user, record, &(struct record_line){i, *n_bytes, (size_t)n}, error);
        json_decref(record);
        *n_bytes += n;
    }
    if (status == MVLM_OK && n < 0 && !feof(stream)) /* or there was no memory for a line */
        status = cli_fail(error, MVLM_BAD_OUTPUT, "%s: cannot be read: %s", path, strerror(errno));
    free(line);
    fclose(stream);
    return status;
}

/* What resuming has to know of a record, as one text: digests of the picture and of the options, dashes where it does not
 * say, and F for a failure. */
enum { DIGEST = 32, NOTE = 2 * DIGEST + 1 };

static void put_digest(char *note, const char *digest)
{
    memset(note, '-', DIGEST);
    if (digest && strlen(digest) == DIGEST)
        memcpy(note, digest, DIGEST);
}

/* Are both known, and not the same? */
static bool differ(const char *a, const char *b)
{
    return *a && *b && *a != '-' && *b != '-' && strncmp(a, b, DIGEST) != 0;
}

static const char *text_in(const json_t *record, const char *key)
{
    const char *text = json_string_value(json_object_get(record, key));
    return text ? text : "";
}

/* The record's place among those that are there. One of another model or with other options is refused, or with --force
 * as good as none. */
static mvlm_status note_record(void *user, json_t *record, const struct record_line *line,
                               mvlm_error *error)
{
    struct records *records = user;
    const char *id = text_in(record, "id"), *model = text_in(record, "model_digest"),
               *options = text_in(record, "options_digest");
    const bool other_model = differ(model, records->model_digest),
               other_options = differ(options, records->options_digest);
    char note[NOTE + 1];
    records->n_there++;
    if (!records->resumes)
        return MVLM_OK;
    if ((other_model || other_options) && !records->forced)
        return cli_fail(
            error, MVLM_USAGE,
            "%s: line %zu was made %s (%s there, %s now): --force does such items again",
            records->path, line->number, other_model ? "by another model" : "with other options",
            other_model ? model : options,
            other_model ? records->model_digest : records->options_digest);
    put_digest(note, text_in(record, "image_digest"));
    put_digest(note + DIGEST, options);
    note[2 * DIGEST] = json_object_get(record, "error") ? 'F' : 'A';
    note[NOTE] = 0;
    if (other_model || other_options)
        json_object_del(records->there, id);
    else if (json_object_set_new(records->there, id, json_string(note)) != 0)
        return cli_fail(error, MVLM_NO_MEMORY, "out of memory for the records that are there");
    return MVLM_OK;
}

/* ---- Opening ---------------------------------------------------------------------------- */

static mvlm_status resume(struct records *records, off_t length, mvlm_error *error)
{
    off_t whole;
    mvlm_status status =
        read_records(records->path, records->file, note_record, records, &whole, error);
    if (status != MVLM_OK || whole == length)
        return status;
    records->mended = true;
    return ftruncate(records->file, whole) == 0
               ? MVLM_OK
               : cli_fail(error, MVLM_BAD_OUTPUT, "%s: its torn last line cannot be cut off: %s",
                          records->path, strerror(errno));
}

static mvlm_status open_file(struct records *records, const struct values *values,
                             mvlm_error *error)
{
    struct stat about;
    records->path = values->output;
    records->file = open(values->output, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (records->file < 0 || fstat(records->file, &about) != 0)
        return cli_fail(error, MVLM_BAD_OUTPUT, "%s: cannot be opened: %s", values->output,
                        strerror(errno));
    records->regular = S_ISREG(about.st_mode);
    if (!records->regular)
        return MVLM_OK;
    if (flock(records->file, LOCK_EX | LOCK_NB) != 0) {
        if (errno == EWOULDBLOCK)
            return cli_fail(error, MVLM_BAD_OUTPUT, "%s: another process is writing to it",
                            values->output);
        if (!values->quiet) /* some shared file systems have no locks */
            fprintf(stderr, "%s: cannot be locked (%s): see that nobody else writes to it\n",
                    values->output, strerror(errno));
    }
    if (fstat(records->file, &about) != 0) /* it may have grown before it was ours */
        return cli_fail(error, MVLM_BAD_OUTPUT, "%s: %s", values->output, strerror(errno));
    if (about.st_size && !values->resume && !values->force)
        return cli_fail(
            error, MVLM_USAGE,
            "%s: holds records already: --resume goes on with them, --force adds to them",
            values->output);
    return about.st_size ? resume(records, about.st_size, error) : MVLM_OK;
}

mvlm_status records_open(struct records *records, const struct values *values,
                         const char *model_digest, const char *options_digest, mvlm_error *error)
{
    *records = (struct records){.path = "standard output",
                                .file = STDOUT_FILENO,
                                .model_digest = model_digest,
                                .resumes = values->resume,
                                .forced = values->force,
                                .there = json_object()};
    snprintf(records->options_digest, sizeof records->options_digest, "%s", options_digest);
    if (!records->there)
        return cli_fail(error, MVLM_NO_MEMORY, "out of memory");
    if (values->output)
        return open_file(records, values, error);
    return values->resume ? cli_fail(error, MVLM_USAGE, "--resume needs the output's name: -o FILE")
                          : MVLM_OK;
}

static mvlm_status sync_records(struct records *records, mvlm_error *error)
{
    if (records->regular && records->n_unsynced && fsync(records->file) != 0)
        return cli_fail(error, MVLM_BAD_OUTPUT, "%s: cannot be written: %s", records->path,
                        strerror(errno));
    records->n_unsynced = 0;
    return MVLM_OK;
}

mvlm_status records_close(struct records *records, mvlm_status status, mvlm_error *error)
{
    mvlm_error closing;
    /* a reason to stop early is no reason to keep silent about what was lost */
    if (records->path && sync_records(records, &closing) != MVLM_OK && status != MVLM_BAD_OUTPUT)
        status = cli_fail(error, closing.status, "%s", closing.message);
    if (records->path && records->file > STDERR_FILENO)
        close(records->file);
    json_decref(records->there);
    *records = (struct records){0};
    return status;
}

/* ---- Writing ---------------------------------------------------------------------------- */

/* One write; where the disk is full in the middle of it, the file ends where it ended before. */
static mvlm_status append(struct records *records, const char *line, size_t n, mvlm_error *error)
{
    struct stat before;
    if (!records->regular && records->file == STDOUT_FILENO)
        return put_out(line, n, error);
    const bool known = records->regular && fstat(records->file, &before) == 0;
    const int problem = write_fully(records->file, line, n);
    if (!problem)
        return MVLM_OK;
    if (known && ftruncate(records->file, before.st_size) != 0)
        return cli_fail(error, MVLM_BAD_OUTPUT, "%s: cannot be written: %s; its last line is torn",
                        records->path, strerror(problem));
    return cli_fail(error, MVLM_BAD_OUTPUT, "%s: cannot be written: %s", records->path,
                    strerror(problem));
}

mvlm_status records_put(struct records *records, json_t *record, mvlm_error *error)
{
    char *text = json_written(record, JSON_REAL_PRECISION(9) | JSON_COMPACT);
    json_decref(record);
    const size_t n = text ? strlen(text) : 0;
    char *line = text ? realloc(text, n + 2) : NULL;
    if (!line) {
        free(text);
        return cli_fail(error, MVLM_NO_MEMORY, "out of memory for a record");
    }
    memcpy(line + n, "\n", 2);
    mvlm_status status = append(records, line, n + 1, error);
    free(line);
    if (status == MVLM_OK && ++records->n_unsynced >= SYNC_EVERY)
        status = sync_records(records, error);
    return status;
}

/* ---- What is done ----------------------------------------------------------------------- */

mvlm_status records_find(const struct records *records, const struct values *values, const char *id,
                         const char *image_digest, const char *options_digest, bool *done,
                         mvlm_error *error)
{
    const char *note = json_string_value(json_object_get(records->there, id));
    *done = false;
    if (!note || (values->retry_failed && note[2 * DIGEST] == 'F'))
        return MVLM_OK;
    if (differ(note + DIGEST, options_digest))
        return records->forced ? MVLM_OK
                               : cli_fail(error, MVLM_USAGE,
                                          "%s: its record of %.300s was made with other options "
                                          "(--force does it again)",
                                          records->path, id);
    *done = !differ(note, image_digest);
    return MVLM_OK;
}

/* ---- Sidecars --------------------------------------------------------------------------- */

mvlm_status write_sidecar(const char *path, const char *text, size_t n_bytes, mvlm_error *error)
{
    const char *slash = strrchr(path, '/');
    char *part; /* with a short name: the picture's may be as long as names can be */
    if (asprintf(&part, "%.*s.mobilevlm.%ld.part", slash ? (int)(slash + 1 - path) : 0, path,
                 (long)getpid()) < 0)
        return cli_fail(error, MVLM_NO_MEMORY, "out of memory");
    const int file = open(part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    int problem = file < 0 ? errno : write_fully(file, text, n_bytes);
    if (!problem)
        problem = write_fully(file, "\n", 1);
    if (!problem && fdatasync(file) != 0) /* its record will say that it is there */
        problem = errno;
    if (file >= 0 && close(file) != 0 && !problem)
        problem = errno;
    if (!problem && rename(part, path) != 0)
        problem = errno;
    if (problem && file >= 0)
        unlink(part);
    free(part);
    return problem ? cli_fail(error, MVLM_BAD_OUTPUT, "%s: cannot be written: %s", path,
                              strerror(problem))
                   : MVLM_OK;
}
