/* What a batch is about: files, folders, lists and JSON lines, one item after the other. */
#ifndef CLI_BATCH_ITEMS_H
#define CLI_BATCH_ITEMS_H

#include "batch_lines.h"
#include "record.h"

struct item_source {
    const struct values *values;
    const struct text_list *words;
    bool has_prompt;    /* for lines that have none of their own */
    struct item *items; /* all of them, unless they come line by line */
    size_t n, capacity, next;
    size_t list, line; /* the word, and of JSON lines the line, that is being read */
    char *buffer;      /* of getline */
    size_t buffer_bytes;
    bool streams; /* --jsonl-in -: the items come line by line */
    struct line_stream stream;
    atomic_bool stopped;
    json_t *seen; /* names of ids, pictures and sidecars -> place; NULL once all are listed */
    size_t n_of_other_shards;
};

/* Lists the items that the words and options name. MVLM_USAGE for a list that cannot be read, two items
 * of one id or one sidecar, or a file of JSON lines with a bad one: nothing has run then. */
mvlm_status items_open(struct item_source *source, const struct values *values,
                       const struct text_list *words, mvlm_error *error);
void items_close(struct item_source *source);

/* The next item of this shard, which the caller owns; false when there is none (then source->stream.error may say why
 * standard input ended too early). Waits for standard input where items come from there; a bad line is an item with an
 * error. */
bool items_next(struct item_source *source, struct item *item);

/* Ends items_next's waiting, now and later; from any thread. */
void items_stop(struct item_source *source);

/* What is asked: the item's own prompt and length, or those of the options. False without a prompt. */
bool item_asked(const struct values *values, const char *prompt, const struct item *item,
                struct asked *asked);

/* The sidecar of a picture, owned by the caller; NULL without memory. */
char *sidecar_path(const struct values *values, const char *path);

/* A path as an id: itself, or, when it is no UTF-8, "bytes:" and its bytes in hexadecimal. */
char *path_id(const char *path);

#endif
