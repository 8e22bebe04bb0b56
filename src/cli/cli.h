/* What the commands of mobilevlm share. They see only the public header. */
#ifndef CLI_CLI_H
#define CLI_CLI_H

#include <signal.h>

#include "core_choice.h"
#include "json_memory.h"
#include "mobilevlm.h"
#include "options.h"
#include "process.h"
#include "terminal.h"

struct values {
    const char *model, *isa;
    struct text_list images, stops;
    const char *prompt, *file, *system, *output;
    bool raw, json, verbose, quiet, help, version;
    int64_t max_tokens, top_k, seed, context, threads, max_pixels, window, windows;
    double temperature, top_p, min_p, repeat_penalty;
    const char *choices, *cache, *cores, *core_mask, *core_range;
    uint64_t max_rss, cache_bytes;
    int kv_type, until;
    bool bos, jsonl, decode;
    /* bench */
    struct text_list n_prompt, n_gen, n_depth, n_picture, n_threads;
    int64_t repetitions;
    int bench_output;
    bool limits;
    const char *sustain;
    double max_celsius; /* 0: as hot as it gets */
    /* batch */
    const struct text_list *words; /* what is no option */
    const char *jsonl_in, *sidecar, *sidecar_dir, *shard, *merge, *list;
    bool recurse, nul_list, resume, retry_failed, force, progress_json;
    int64_t parallel, max_errors, shard_index, shard_count;
    double item_seconds, deadline;
};

/* The commands; each prints what it has to say on standard output and returns a status with a
 * message. */
mvlm_status run_info(const struct values *values, mvlm_error *error);
mvlm_status run_verify(const struct values *values, mvlm_error *error);
mvlm_status run_tokenize(const struct values *values, mvlm_error *error);
mvlm_status run_perplexity(const struct values *values, mvlm_error *error);
mvlm_status run_bench(const struct values *values, mvlm_error *error);
mvlm_status run_chat(const struct values *values, mvlm_error *error);
mvlm_status run_batch(const struct values *values, mvlm_error *error);

/* The exit code of a batch of which some items failed; the others are enum mvlm_status. */
#define SOME_FAILED ((mvlm_status)1)

/* Opens the model that the options name. */
mvlm_status open_model(const struct values *values, mvlm_model **model, mvlm_error *error);
/* --max-pixels, or fewer where decoding as many would take more than --max-rss. */
uint64_t pixels_allowed(const struct values *values);
void session_options_of(const struct values *values, mvlm_session_options *options);

/* A whole file, or standard input for "-", into new memory with a NUL behind it. */
struct file_bytes {
    char *bytes;
    size_t n;
};
mvlm_status read_file(const char *path, mvlm_status status_if_bad, struct file_bytes *file,
                      mvlm_error *error);

/* The same of a file that is open; `name` is for messages. */
mvlm_status read_open_file(int descriptor, const char *name, mvlm_status status_if_bad,
                           struct file_bytes *file, mvlm_error *error);

/* A file's bytes as read_file gives them, without one final newline. */
mvlm_status read_text_file(const char *path, struct file_bytes *file, mvlm_error *error);

/* Writes to standard output. A closed pipe ends the program with 141; else MVLM_BAD_OUTPUT. */
mvlm_status put_out(const void *bytes, size_t n_bytes, mvlm_error *error);

/* Writes the value and a newline to standard output, and takes the reference. */
mvlm_status put_json(json_t *value, mvlm_error *error);

/* The cores that this process may use, lowest first; returns how many there are. */
size_t granted_cores(int cores[MOST_CORES]);

/* With --max-temp waits until the machine is no hotter or a signal comes, but no more than a minute; returns the seconds. */
double wait_until_cool(const struct values *values);

/* The same of this machine, between tokens. */
void pace(const struct values *values);

/* Moves the process to the cores that --cores, -C or -Cr name, or else to the big ones, unless they are fewer than
 * `n_threads` (0: as many as suit). A system that refuses is no error: what it grants is what granted_cores says.
 * To be called before a session starts its threads. MVLM_USAGE as choose_cores. */
mvlm_status take_cores(const struct values *values, size_t n_threads, mvlm_error *error);

/* -t, or as many threads as suit the cores that take_cores asked for. */
int threads_wanted(const struct values *values);

/* What it asked for, and what they are: "big, by cpu_capacity". */
size_t asked_cores(const int **cores, const char **why);

/* "what 0 1 2" */
void print_cores(FILE *out, const char *what, const int *cores, size_t n_cores);

/* Their numbers as an array. */
json_t *cores_json(const int *cores, size_t n_cores);

/* A text that grows; bytes is NULL until something was added, and then ends with a NUL behind its n bytes. Freed by its
 * owner. */
struct buffer {
    char *bytes;
    size_t n, capacity;
};
/* False without memory; the text is then what it was. */
bool buffer_add(struct buffer *text, const char *bytes, size_t n);

/* SIGINT and SIGTERM stop the session; stopped_by tells which it was. */
extern volatile sig_atomic_t stopped_by;
void catch_signals(mvlm_session *session);

/* From now on no SIGINT ends the program, be they as many as they may. */
void keep_interrupts(void);

#endif
