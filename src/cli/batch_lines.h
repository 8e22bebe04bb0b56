/* JSON lines that say what is to be done, from a file or as they come through standard input. */
#ifndef CLI_BATCH_LINES_H
#define CLI_BATCH_LINES_H

#include <stdatomic.h>

#include "cli.h"

/* One question about one picture, from the input to its record. */
struct item {
    char *id, *path;    /* owned, and may be one text; path NULL: a question without a picture */
    char *prompt;       /* owned; NULL: that of the options */
    int64_t max_tokens; /* 0: that of the options */
    size_t line;       /* of the list that it comes from, from 1; 0: the command line or a folder */
    mvlm_error *error; /* owned; NULL, or all that becomes of it */
};
void item_free(struct item *item);

/* Sets item->error; where there is no memory for it, to one that says so. */
__attribute__((format(printf, 3, 4))) void item_fail(struct item *item, mvlm_status status,
                                                     const char *format, ...);

/* A name for an item that cannot have the one that it was given: "line 7". */
void name_by_line(struct item *item);

/* {"id", "image", "prompt", "max_tokens"} -> item; what is wrong with it becomes its error. `has_prompt`: there is one
 * for lines that have none of their own. */
void parse_line(const char *text, size_t n, size_t line, bool has_prompt, struct item *item);

/* Standard input, line by line. */
struct line_stream {
    char *buffer;                /* owned */
    size_t capacity, begin, end; /* begin to end: read, but not yet taken */
    int wake[2];                 /* a pipe: a byte in it ends the waiting */
    atomic_bool stopped;
    mvlm_error error; /* why it ended, other than at its end */
};
mvlm_status line_stream_open(struct line_stream *stream, mvlm_error *error);
void line_stream_close(struct line_stream *stream);

/* The next line without its end, valid until the next one; the last may lack a newline. NULL at the end, on an error,
 * and once line_stream_stop was called, from any thread. */
const char *line_stream_next(struct line_stream *stream, size_t *n);
void line_stream_stop(struct line_stream *stream);

#endif
