#include "batch_items.h"

#include <ctype.h>
#include <errno.h>
#include <fts.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <xxhash.h>

static mvlm_status no_memory(mvlm_error *error)
{
    return cli_fail(error, MVLM_NO_MEMORY, "out of memory for the list of pictures");
}

char *path_id(const char *path)
{
    const size_t n = strlen(path);
    bool no_memory;
    if (json_can_hold(path, n, &no_memory))
        return strdup(path);
    char *id = no_memory ? NULL : malloc(2 * n + 7);
    if (!id)
        return NULL;
    strcpy(id, "bytes:");
    for (size_t i = 0; i < n; i++)
        snprintf(id + 6 + 2 * i, 3, "%02x", (unsigned char)path[i]);
    return id;
}

/* photo.jpg -> photo.EXT, beside it or under --sidecar-dir. */
char *sidecar_path(const struct values *values, const char *path)
{
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    const char *dot = strrchr(name, '.'), *extension = values->sidecar;
    const size_t stem = dot && dot != name ? (size_t)(dot - name) : strlen(name);
    char *out;
    extension += *extension == '.';
    int n;
    if (values->sidecar_dir)
        n = asprintf(&out, "%s/%.*s.%s", values->sidecar_dir, (int)stem, name, extension);
    else
        n = asprintf(&out, "%.*s%.*s.%s", (int)(name - path), path, (int)stem, name, extension);
    return n < 0 ? NULL : out;
}

bool item_asked(const struct values *values, const char *prompt, const struct item *item,
                struct asked *asked)
{
    /* a seed that is drawn anew each time would make every run another one's */
    *asked = (struct asked){.prompt = item->prompt ? item->prompt : prompt,
                            .max_tokens = item->max_tokens ? item->max_tokens : values->max_tokens,
                            .seed = values->seed < 0 ? 0 : values->seed};
    return asked->prompt != NULL;
}

/* ---- One item --------------------------------------------------------------------------- */

static bool of_this_shard(const struct item_source *source, const char *id)
{
    const struct values *v = source->values;
    return v->shard_count == 0 ||
           XXH3_64bits(id, strlen(id)) % (uint64_t)v->shard_count == (uint64_t)v->shard_index;
}

/* Where an item came from: its list's number and line, or, negative, how many items there were before. */
static json_int_t place_of(const struct item_source *source, const struct item *item)
{
    return item->line ? (json_int_t)source->list << 40 | (json_int_t)item->line
                      : -(json_int_t)(source->n + source->n_of_other_shards + 1);
}

static void describe_place(const struct item_source *source, json_int_t place, char text[300])
{
    const size_t list = place > 0 ? (size_t)(place >> 40) : 0;
    const char *name = source->values->jsonl_in  ? source->values->jsonl_in
                       : list < source->words->n ? source->words->items[list]
                                                 : "";
    if (place > 0)
        snprintf(text, 300, "line %lld of %.200s", (long long)(place & (((json_int_t)1 << 40) - 1)),
                 name);
    else
        snprintf(text, 300, "item %lld", -(long long)place);
}

/* Who has the name of this kind; NULL: nobody. */
static const json_t *find_claim(const struct item_source *source, const char *kind,
                                const char *name, char **key)
{
    if (asprintf(key, "%s %s", kind, name) < 0)
        *key = NULL;
    return *key ? json_object_get(source->seen, *key) : NULL;
}

/* Notes the name of an id, or of a file that is read or written. MVLM_USAGE when another item has it as one of `kind` or of
 * `other`, which may be NULL. */
static mvlm_status claim(struct item_source *source, const char *kind, const char *other,
                         const char *name, json_int_t place, mvlm_error *error)
{
    char *key, *other_key = NULL, here[300], there[300];
    const json_t *holder = find_claim(source, kind, name, &key), *foreign = NULL;
    mvlm_status status = key ? MVLM_OK : no_memory(error);
    if (other)
        foreign = find_claim(source, other, name, &other_key);
    if (holder || foreign) {
        describe_place(source, place, here);
        describe_place(source, json_integer_value(holder ? holder : foreign), there);
        status = holder ? cli_fail(error, MVLM_USAGE, "two items have one %s, %.600s: %s and %s",
                                   kind, name, there, here)
                        : cli_fail(error, MVLM_USAGE, "%.600s is a %s (%s) and a %s (%s)", name,
                                   other, there, kind, here);
    }
    if (status == MVLM_OK &&
        json_object_set_new_nocheck(source->seen, key, json_integer(place)) != 0)
        status = no_memory(error);
    free(key);
    free(other_key);
    return status;
}

/* No two items write one sidecar, and none is written over a picture. */
static mvlm_status check_sidecar(struct item_source *source, const struct item *item,
                                 json_int_t place, mvlm_error *error)
{
    char *sidecar = sidecar_path(source->values, item->path),
         *name = sidecar ? path_id(sidecar) : NULL, *picture = path_id(item->path);
    mvlm_status status = name && picture ? MVLM_OK : no_memory(error);
    if (status == MVLM_OK)
        status = claim(source, "picture", "sidecar", picture, place, error);
    if (status == MVLM_OK)
        status = claim(source, "sidecar", "picture", name, place, error);
    free(name);
    free(sidecar);
    free(picture);
    return status;
}

/* Its id is nobody else's, nor is its sidecar. Items of one id are of one shard, which alone has to remember it: of millions. */
static mvlm_status check_item(struct item_source *source, const struct item *item,
                              mvlm_error *error)
{
    const json_int_t place = place_of(source, item);
    mvlm_status status = of_this_shard(source, item->id)
                             ? claim(source, "id", NULL, item->id, place, error)
                             : MVLM_OK;
    if (status == MVLM_OK && source->values->sidecar && item->path)
        status = check_sidecar(source, item, place, error);
    return status;
}

/* Takes the item, which is emptied. */
static mvlm_status add_item(struct item_source *source, struct item *item, mvlm_error *error)
{
    mvlm_status status = item->id ? check_item(source, item, error) : no_memory(error);
    if (status == MVLM_OK && !of_this_shard(source, item->id)) {
        source->n_of_other_shards++;
        item_free(item);
        return MVLM_OK;
    }
    if (status == MVLM_OK && source->n == source->capacity) {
        const size_t capacity = source->capacity ? 2 * source->capacity : 64;
        struct item *more = realloc(source->items, capacity * sizeof *more);
        if (more) {
            source->items = more;
            source->capacity = capacity;
        } else
            status = no_memory(error);
    }
    if (status == MVLM_OK)
        source->items[source->n++] = *item;
    else
        item_free(item);
    *item = (struct item){0};
    return status;
}

static mvlm_status add_path(struct item_source *source, const char *path, size_t line,
                            mvlm_error *error)
{
    struct item item = {.path = strdup(path), .line = line};
    item.id = item.path ? path_id(path) : NULL;
    if (item.id && strcmp(item.id, item.path) == 0) { /* there may be millions */
        free(item.id);
        item.id = item.path;
    }
    return add_item(source, &item, error);
}

/* ---- Folders ---------------------------------------------------------------------------- */

static bool is_picture_name(const char *name)
{
    static const char *const extensions[] = {".jpg", ".jpeg", ".png", ".bmp"};
    const char *dot = strrchr(name, '.');
    for (size_t i = 0; dot && i < sizeof extensions / sizeof *extensions; i++)
        if (strcasecmp(dot, extensions[i]) == 0)
            return true;
    return false;
}

static int by_name(const FTSENT **a, const FTSENT **b)
{
    return strcmp((*a)->fts_name, (*b)->fts_name);
}

/* A folder's entry: pictures are added, folders below are entered with -R, names with a dot passed
 * over. */
static mvlm_status add_entry(struct item_source *source, FTS *tree, FTSENT *entry,
                             mvlm_error *error)
{
    const bool hidden = entry->fts_level > 0 && entry->fts_name[0] == '.';
    switch (entry->fts_info) {
    case FTS_D:
        if (hidden || (entry->fts_level > 0 && !source->values->recurse))
            fts_set(tree, entry, FTS_SKIP);
        return MVLM_OK;
    case FTS_DNR:
    case FTS_ERR:
    case FTS_NS:
        return cli_fail(error, MVLM_USAGE, "%s: cannot be read: %s", entry->fts_path,
                        strerror(entry->fts_errno));
    case FTS_F:
    case FTS_SL: /* to a picture, perhaps; opening it will tell */
        return hidden || !is_picture_name(entry->fts_name)
                   ? MVLM_OK
                   : add_path(source, entry->fts_path, 0, error);
    default:
        return MVLM_OK;
    }
}

static mvlm_status add_folder(struct item_source *source, const char *path, mvlm_error *error)
{
    char *copy = strdup(path);
    mvlm_status status = MVLM_OK;
    if (!copy)
        return no_memory(error);
    for (size_t n = strlen(copy); n > 1 && copy[n - 1] == '/';)
        copy[--n] = 0; /* or each path would have two slashes */
    char *const roots[] = {copy, NULL};
    FTS *tree = fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR | FTS_COMFOLLOW, by_name);
    if (!tree)
        status = cli_fail(error, MVLM_USAGE, "%s: cannot be read: %s", path, strerror(errno));
    for (FTSENT *entry; status == MVLM_OK && (entry = fts_read(tree));)
        status = add_entry(source, tree, entry, error);
    if (tree)
        fts_close(tree);
    free(copy);
    return status;
}

/* ---- Lists ------------------------------------------------------------------------------ */

/* One path a line, or up to each NUL with -0; blank lines are passed over. */
static mvlm_status add_list(struct item_source *source, const char *name, mvlm_error *error)
{
    const int end = source->values->nul_list ? 0 : '\n';
    FILE *file = strcmp(name, "-") == 0 ? stdin : fopen(name, "re");
    mvlm_status status = MVLM_OK;
    ssize_t n;
    if (!file)
        return cli_fail(error, MVLM_USAGE, "%s: cannot be opened: %s", name, strerror(errno));
    for (size_t line = 1;
         status == MVLM_OK && (n = getdelim(&source->buffer, &source->buffer_bytes, end, file)) > 0;
         line++) {
        char *text = source->buffer;
        if (text[n - 1] == end)
            text[--n] = 0;
        if (end && n && text[n - 1] == '\r')
            text[--n] = 0;
        if (strlen(text) != (size_t)n)
            status = cli_fail(error, MVLM_USAGE,
                              "%s: line %zu holds a NUL byte (-0 reads lists of them)", name, line);
        else if (n)
            status = add_path(source, text, line, error);
    }
    if (status == MVLM_OK && !feof(file)) /* or there was no memory for a line */
        status = cli_fail(error, MVLM_USAGE, "%s: cannot be read: %s", name, strerror(errno));
    if (file != stdin)
        fclose(file);
    return status;
}

/* Makes an item of a line, unless it is blank. */
static bool take_line(struct item_source *source, const char *line, size_t n, struct item *item)
{
    source->line++;
    while (n && isspace((unsigned char)line[n - 1]))
        n--;
    if (n)
        parse_line(line, n, source->line, source->has_prompt, item);
    return n > 0;
}

/* A file of JSON lines is read whole, so that a bad line is known before anything runs. */
static mvlm_status add_json_lines(struct item_source *source, const char *name, mvlm_error *error)
{
    FILE *file = fopen(name, "re");
    struct item item;
    mvlm_status status = MVLM_OK;
    if (!file)
        return cli_fail(error, MVLM_USAGE, "%s: cannot be opened: %s", name, strerror(errno));
    for (ssize_t n;
         status == MVLM_OK && (n = getline(&source->buffer, &source->buffer_bytes, file)) > 0;) {
        if (!take_line(source, source->buffer, (size_t)n, &item))
            continue;
        if (item.error) {
            status = cli_fail(error, item.error->status, "%s: %.300s", name, item.error->message);
            item_free(&item);
        } else
            status = add_item(source, &item, error);
    }
    if (status == MVLM_OK && !feof(file)) /* or there was no memory for a line */
        status = cli_fail(error, MVLM_USAGE, "%s: cannot be read: %s", name, strerror(errno));
    fclose(file);
    return status;
}

/* ---- All of it -------------------------------------------------------------------------- */

static mvlm_status add_word(struct item_source *source, const char *word, mvlm_error *error)
{
    struct stat about;
    if (strcmp(word, "-") == 0)
        return add_list(source, word, error);
    if (word[0] == '@')
        return add_list(source, word + 1, error);
    if (stat(word, &about) == 0 && S_ISDIR(about.st_mode))
        return add_folder(source, word, error);
    return add_path(source, word, 0, error);
}

mvlm_status items_open(struct item_source *source, const struct values *values,
                       const struct text_list *words, mvlm_error *error)
{
    const char *lines = values->jsonl_in;
    mvlm_status status = MVLM_OK;
    *source = (struct item_source){.values = values,
                                   .words = words,
                                   .has_prompt = values->prompt || values->file,
                                   .seen = json_object()};
    if (!source->seen)
        return no_memory(error);
    if (lines && words->n)
        return cli_fail(error, MVLM_USAGE,
                        "both --jsonl-in and \"%.200s\" say what to caption: use one",
                        words->items[0]);
    if (lines && strcmp(lines, "-") == 0) {
        status = line_stream_open(&source->stream, error);
        source->streams = status == MVLM_OK;
    }
    if (status == MVLM_OK && lines && !source->streams)
        status = add_json_lines(source, lines, error);
    for (source->list = 0; status == MVLM_OK && source->list < words->n; source->list++)
        status = add_word(source, words->items[source->list], error);
    if (status == MVLM_OK && !lines && words->n == 0)
        status = cli_fail(error, MVLM_USAGE,
                          "no pictures named: files, folders, @list, - or --jsonl-in");
    if (status == MVLM_OK && !source->streams && source->n + source->n_of_other_shards == 0)
        status = cli_fail(error, MVLM_USAGE, "there is no picture in what was named");
    if (!source->streams) { /* all claims are made, and there may be millions */
        json_decref(source->seen);
        source->seen = NULL;
    }
    return status;
}

void items_close(struct item_source *source)
{
    for (size_t i = source->next; i < source->n; i++)
        item_free(&source->items[i]);
    free(source->items);
    free(source->buffer);
    json_decref(source->seen);
    if (source->streams)
        line_stream_close(&source->stream);
    *source = (struct item_source){0};
}

/* An item from standard input: one with an id that was there before becomes an error too. */
static bool next_line(struct item_source *source, struct item *item)
{
    mvlm_error error;
    const char *line;
    for (size_t n; (line = line_stream_next(&source->stream, &n));) {
        if (!take_line(source, line, n, item))
            continue;
        if (!item->id) {
            no_memory(&source->stream.error);
            item_free(item);
            return false;
        }
        if (!of_this_shard(source, item->id)) {
            source->n_of_other_shards++;
            item_free(item);
            continue;
        }
        if (check_item(source, item, &error) != MVLM_OK) {
            item_free(item); /* its record must not be taken for that of the other one */
            item->line = source->line;
            item_fail(item, error.status, "%s", error.message);
            name_by_line(item);
        }
        return true;
    }
    return false;
}

void items_stop(struct item_source *source)
{
    atomic_store(&source->stopped, true);
    if (source->streams)
        line_stream_stop(&source->stream);
}

bool items_next(struct item_source *source, struct item *item)
{
    if (atomic_load(&source->stopped))
        return false;
    if (source->streams)
        return next_line(source, item);
    if (source->next == source->n)
        return false;
    *item = source->items[source->next];
    source->items[source->next++] = (struct item){0};
    return true;
}
