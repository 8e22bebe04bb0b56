#include "batch_lines.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- One item --------------------------------------------------------------------------- */

static mvlm_error no_memory_at_all = {MVLM_NO_MEMORY, "out of memory for an item"};

void item_free(struct item *item)
{
    if (item->id != item->path)
        free(item->id);
    free(item->path);
    free(item->prompt);
    if (item->error != &no_memory_at_all)
        free(item->error);
    *item = (struct item){0};
}

void item_fail(struct item *item, mvlm_status status, const char *format, ...)
{
    va_list arguments;
    if (!item->error)
        item->error = calloc(1, sizeof *item->error);
    if (!item->error) {
        item->error = &no_memory_at_all;
        return;
    }
    va_start(arguments, format);
    cli_vfail(item->error, status, format, arguments);
    va_end(arguments);
}

void name_by_line(struct item *item)
{
    if (asprintf(&item->id, "line %zu", item->line) < 0)
        item->id = NULL;
}

/* ---- A line's object -------------------------------------------------------------------- */

static const struct {
    const char *key;
    json_type type;
    const char *wanted;
} fields[] = {{"id", JSON_STRING, "a text"},
              {"image", JSON_STRING, "a text"},
              {"prompt", JSON_STRING, "a text"},
              {"max_tokens", JSON_INTEGER, "a whole number from 1 to 1048576"}};
enum { N_FIELDS = sizeof fields / sizeof *fields };

static bool is_good(const json_t *value, json_type type)
{
    const json_int_t number = json_integer_value(value);
    return json_typeof(value) == type &&
           (type != JSON_INTEGER || (number >= 1 && number <= 1 << 20));
}

/* What is wrong with the object goes to the item's error. A misspelt "image" must not become a question without
 * a picture, so nothing unknown is passed over. */
static bool check_object(json_t *object, bool has_prompt, struct item *item)
{
    const char *key;
    json_t *value;
    json_object_foreach(object, key, value)
    {
        size_t i = 0;
        while (i < N_FIELDS && strcmp(key, fields[i].key) != 0)
            i++;
        if (i == N_FIELDS)
            item_fail(item, MVLM_USAGE,
                      "line %zu: \"%.60s\" is none of id, image, prompt, max_tokens", item->line,
                      key);
        else if (!is_good(value, fields[i].type))
            item_fail(item, MVLM_USAGE, "line %zu: \"%s\" is not %s", item->line, key,
                      fields[i].wanted);
    }
    if (item->error)
        return false;
    if (!json_object_get(object, "id") && !json_object_get(object, "image"))
        item_fail(item, MVLM_USAGE, "line %zu: has neither \"id\" nor \"image\"", item->line);
    else if (!json_object_get(object, "image") && !json_object_get(object, "prompt"))
        item_fail(item, MVLM_USAGE, "line %zu: has neither \"image\" nor a \"prompt\" of its own",
                  item->line);
    else if (!has_prompt && !json_object_get(object, "prompt"))
        item_fail(item, MVLM_USAGE, "line %zu: no prompt: neither the line nor -p has one",
                  item->line);
    return !item->error;
}

static char *copy_text(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text ? strdup(text) : NULL;
}

void parse_line(const char *text, size_t n, size_t line, bool has_prompt, struct item *item)
{
    json_error_t problem;
    bool no_memory;
    json_t *object = json_read(text, n, JSON_REJECT_DUPLICATES, &problem, &no_memory);
    *item = (struct item){.line = line};
    if (no_memory)
        item_fail(item, MVLM_NO_MEMORY, "out of memory for line %zu", line);
    else if (!object)
        item_fail(item, MVLM_USAGE, "line %zu: %.200s", line, problem.text);
    else if (!json_is_object(object))
        item_fail(item, MVLM_USAGE, "line %zu: is no object", line);
    else
        check_object(object, has_prompt, item);
    const char *id = json_string_value(json_object_get(object, "id"));
    item->id = id ? strdup(id) : NULL;
    if (!item->error) {
        item->path = copy_text(object, "image");
        item->prompt = copy_text(object, "prompt");
        item->max_tokens = json_integer_value(json_object_get(object, "max_tokens"));
        if (!id)
            item->id = item->path;
        if (!item->id || (json_object_get(object, "image") && !item->path) ||
            (json_object_get(object, "prompt") && !item->prompt))
            item_fail(item, MVLM_NO_MEMORY, "out of memory for line %zu", line);
    }
    if (!item->id)
        name_by_line(item);
    json_decref(object);
}

/* ---- Standard input --------------------------------------------------------------------- */

enum { FIRST_BYTES = 1 << 16 };

mvlm_status line_stream_open(struct line_stream *stream, mvlm_error *error)
{
    *stream = (struct line_stream){.wake = {-1, -1}};
    if (pipe2(stream->wake, O_CLOEXEC | O_NONBLOCK) != 0)
        return cli_fail(error, MVLM_NO_MEMORY, "no pipe can be made: %s", strerror(errno));
    return MVLM_OK;
}

void line_stream_close(struct line_stream *stream)
{
    for (int i = 0; i < 2; i++)
        close(stream->wake[i]);
    free(stream->buffer);
}

void line_stream_stop(struct line_stream *stream)
{
    atomic_store(&stream->stopped, true);
    if (write(stream->wake[1], "", 1) < 0)
        return; /* the pipe is full: it is awake */
}

/* Room for more behind what is there. */
static bool make_room(struct line_stream *stream)
{
    if (stream->begin)
        memmove(stream->buffer, stream->buffer + stream->begin, stream->end - stream->begin);
    stream->end -= stream->begin;
    stream->begin = 0;
    if (stream->capacity - stream->end >= FIRST_BYTES)
        return true;
    const size_t capacity = 2 * stream->capacity + FIRST_BYTES;
    char *more = realloc(stream->buffer, capacity);
    if (!more) {
        cli_fail(&stream->error, MVLM_NO_MEMORY, "out of memory for a line of standard input");
        return false;
    }
    stream->buffer = more;
    stream->capacity = capacity;
    return true;
}

/* More of standard input into the buffer; false at its end, with an error, or once it was stopped. */
static bool read_more(struct line_stream *stream)
{
    struct pollfd waiting[] = {{.fd = STDIN_FILENO, .events = POLLIN},
                               {.fd = stream->wake[0], .events = POLLIN}};
    if (!make_room(stream))
        return false;
    for (;;) {
        if (poll(waiting, 2, -1) < 0 && errno == EINTR)
            continue;
        if (waiting[1].revents)
            return false;
        const ssize_t n =
            read(STDIN_FILENO, stream->buffer + stream->end, stream->capacity - stream->end);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            cli_fail(&stream->error, MVLM_USAGE, "standard input cannot be read: %s",
                     strerror(errno));
        stream->end += n > 0 ? (size_t)n : 0;
        return n > 0;
    }
}

const char *line_stream_next(struct line_stream *stream, size_t *n)
{
    size_t looked = 0;
    for (;;) {
        const size_t there = stream->end - stream->begin;
        const char *newline =
            there > looked ? memchr(stream->buffer + stream->begin + looked, '\n', there - looked)
                           : NULL;
        looked = there;
        if (!newline && read_more(stream))
            continue;
        /* a last line without its newline counts, but not half of one whose rest could not be read */
        if (!newline && (there == 0 || stream->stopped || stream->error.status != MVLM_OK))
            return NULL;
        const char *line = stream->buffer + stream->begin;
        *n = newline ? (size_t)(newline - line) : there;
        stream->begin += *n + (newline != NULL);
        return line;
    }
}
