/* batch --merge: the records of several runs, shards mostly, become one file. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "batch_items.h"
#include "batch_merge.h"
#include "batch_records.h"

/* Where the record of an id is that goes into the output. */
struct found {
    size_t file;
    struct record_line line;
    bool failed;
};

struct merge {
    const struct values *values;
    const struct text_list *inputs;
    int *files;          /* [inputs->n] */
    size_t reading;      /* the input that is being read */
    struct found *found; /* [n] in the order in which ids were met */
    size_t n, capacity, n_failed;
    json_t *places;  /* id -> index into found */
    json_t *digests; /* {"model_digest", "options_digest"}: those of the first record */
};

static mvlm_status no_memory(mvlm_error *error)
{
    return cli_fail(error, MVLM_NO_MEMORY, "out of memory for the records");
}

/* All records are of one model; and of the same options, but those that had a prompt or a length of their own. */
static mvlm_status check_digests(struct merge *m, const json_t *record,
                                 const struct record_line *line, mvlm_error *error)
{
    static const char *const keys[] = {"model_digest", "options_digest"};
    const bool own = json_object_get(record, "prompt") || json_object_get(record, "max_tokens");
    for (size_t i = 0; i < (own ? 1 : 2); i++) {
        json_t *ours = json_object_get(m->digests, keys[i]),
               *theirs = json_object_get(record, keys[i]);
        if (!ours && theirs && json_object_set(m->digests, keys[i], theirs) != 0)
            return no_memory(error);
        if (ours && theirs && !json_equal(ours, theirs) && !m->values->force)
            return cli_fail(error, MVLM_USAGE,
                            "%s: line %zu was made %s than the records before (--force joins them)",
                            m->inputs->items[m->reading], line->number,
                            i ? "with other options" : "by another model");
    }
    return MVLM_OK;
}

static mvlm_status add_found(struct merge *m, const char *id, const struct found *found,
                             mvlm_error *error)
{
    if (m->n == m->capacity) {
        const size_t capacity = 2 * m->capacity + 1024;
        struct found *more = realloc(m->found, capacity * sizeof *more);
        if (!more)
            return no_memory(error);
        m->found = more;
        m->capacity = capacity;
    }
    m->found[m->n] = *found;
    return json_object_set_new(m->places, id, json_integer((json_int_t)m->n++)) == 0
               ? MVLM_OK
               : no_memory(error);
}

/* Of the records of one id the last answer counts; where there is none, the last failure. */
static mvlm_status take_record(void *user, json_t *record, const struct record_line *line,
                               mvlm_error *error)
{
    struct merge *m = user;
    const char *id = json_string_value(json_object_get(record, "id"));
    const struct found found = {m->reading, *line, json_object_get(record, "error") != NULL};
    const json_t *place = json_object_get(m->places, id);
    const mvlm_status status = check_digests(m, record, line, error);
    if (status != MVLM_OK)
        return status;
    if (!place)
        return add_found(m, id, &found, error);
    struct found *before = &m->found[json_integer_value(place)];
    if (!found.failed && !before->failed && before->file != m->reading)
        return cli_fail(error, MVLM_USAGE, "%.300s is answered in both %s and %s", id,
                        m->inputs->items[before->file], m->inputs->items[m->reading]);
    if (!found.failed || before->failed)
        *before = found;
    return MVLM_OK;
}

/* All inputs stay open until their records are copied: there may be as many as shards. */
static void allow_many_files(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static mvlm_status read_inputs(struct merge *m, mvlm_error *error)
{
    allow_many_files();
    mvlm_status status = MVLM_OK;
    for (m->reading = 0; status == MVLM_OK && m->reading < m->inputs->n; m->reading++) {
        const char *path = m->inputs->items[m->reading];
        off_t n_bytes;
        m->files[m->reading] = open(path, O_RDONLY | O_CLOEXEC);
        if (m->files[m->reading] < 0)
            status = cli_fail(error, MVLM_USAGE, "%s: cannot be opened: %s", path, strerror(errno));
        else
            status = read_records(path, m->files[m->reading], take_record, m, &n_bytes, error);
    }
    for (size_t i = 0; i < m->n; i++)
        m->n_failed += m->found[i].failed;
    return status;
}

/* Is there a record of every item of --list? */
static mvlm_status check_list(const struct merge *m, mvlm_error *error)
{
    struct values values = *m->values;
    struct item_source source;
    struct item item;
    size_t n = 0, n_missing = 0;
    char *name = NULL, missing[300] = "";
    if (!m->values->list)
        return MVLM_OK;
    values.shard_count = 0;
    values.sidecar = NULL;
    if (asprintf(&name, "@%s", m->values->list) < 0)
        return no_memory(error);
    const char *const words[] = {name};
    const struct text_list list = {(const char **)(uintptr_t)words, 1};
    mvlm_status status = items_open(&source, &values, &list, error);
    for (; status == MVLM_OK && items_next(&source, &item); item_free(&item), n++)
        if (!json_object_get(m->places, item.id) && n_missing++ == 0)
            snprintf(missing, sizeof missing, "%s", item.id);
    items_close(&source);
    free(name);
    if (status == MVLM_OK && n_missing) {
        status =
            cli_fail(error, SOME_FAILED, "%zu of the %zu items of %s have no record, %s the first",
                     n_missing, n, m->values->list, missing);
        if (m->values->force) {
            put_message(error->message);
            return MVLM_OK;
        }
    }
    return status;
}

/* Copies one record. */
static mvlm_status copy_record(const struct merge *m, const struct found *found, FILE *out,
                               mvlm_error *error)
{
    char *line = malloc(found->line.n_bytes);
    if (!line)
        return no_memory(error);
    size_t n = 0;
    for (ssize_t more = 1; n < found->line.n_bytes && more != 0; n += more > 0 ? (size_t)more : 0) {
        more = pread(m->files[found->file], line + n, found->line.n_bytes - n,
                     found->line.offset + (off_t)n);
        if (more < 0 && errno != EINTR)
            break;
    }
    mvlm_status status = MVLM_OK;
    if (n < found->line.n_bytes)
        status = cli_fail(error, MVLM_BAD_OUTPUT, "%s: changed while it was read",
                          m->inputs->items[found->file]);
    else if (fwrite(line, 1, n, out) != n)
        status = cli_fail(error, MVLM_BAD_OUTPUT, "%s: cannot be written: %s", m->values->merge,
                          strerror(errno));
    free(line);
    return status;
}

static mvlm_status write_output(const struct merge *m, mvlm_error *error)
{
    const char *path = m->values->merge;
    char *part;
    mvlm_status status = MVLM_OK;
    if (!m->values->force && access(path, F_OK) == 0)
        return cli_fail(error, MVLM_USAGE, "%s: exists already (--force overwrites it)", path);
    if (asprintf(&part, "%s.%ld.part", path, (long)getpid()) < 0)
        return no_memory(error);
    FILE *out = fopen(part, "wxe");
    if (!out)
        status = cli_fail(error, MVLM_BAD_OUTPUT, "%s: cannot be made: %s", part, strerror(errno));
    for (size_t i = 0; status == MVLM_OK && i < m->n; i++)
        status = copy_record(m, &m->found[i], out, error);
    if (out) {
        bool good = fflush(out) == 0 && !ferror(out) && fsync(fileno(out)) == 0;
        good = fclose(out) == 0 && good;
        if (status == MVLM_OK && (!good || rename(part, path) != 0))
            status = cli_fail(error, MVLM_BAD_OUTPUT, "%s: cannot be written: %s", path,
                              strerror(errno));
        if (status != MVLM_OK)
            unlink(part);
    }
    free(part);
    return status;
}

mvlm_status merge_records(const struct values *values, mvlm_error *error)
{
    struct merge m = {.values = values,
                      .inputs = values->words,
                      .files = malloc((values->words->n + 1) * sizeof *m.files),
                      .places = json_object(),
                      .digests = json_object()};
    mvlm_status status = m.files && m.places && m.digests ? MVLM_OK : no_memory(error);
    for (size_t i = 0; m.files && i < values->words->n; i++)
        m.files[i] = -1;
    if (status == MVLM_OK && values->words->n == 0)
        status = cli_fail(error, MVLM_USAGE, "--merge %s: no files to join", values->merge);
    if (status == MVLM_OK)
        status = read_inputs(&m, error);
    if (status == MVLM_OK)
        status = check_list(&m, error);
    if (status == MVLM_OK)
        status = write_output(&m, error);
    if (status == MVLM_OK && !values->quiet)
        fprintf(stderr, "%s: %zu records, %zu of them failures\n", values->merge, m.n, m.n_failed);
    for (size_t i = 0; m.files && i < values->words->n; i++)
        if (m.files[i] >= 0)
            close(m.files[i]);
    free(m.files);
    free(m.found);
    json_decref(m.places);
    json_decref(m.digests);
    return status;
}
