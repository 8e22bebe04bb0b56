/* mobilevlm bench: lists of tests, the machine's sensors, running, printing. */
#ifndef CLI_BENCH_H
#define CLI_BENCH_H

#include "bench_machine.h"
#include "cli.h"

/* ---- Lists ------------------------------------------------------------------------------ */

struct numbers {
    size_t *items; /* owned */
    size_t n;
};

/* Lists and ranges as llama-bench has them: "128,176", "1-4", "1-8+2", "1-8*2"; several texts are one
 * list. Each number must lie from `least` to `most`: MVLM_USAGE, naming option and item. */
mvlm_status read_numbers(const char *option, const struct text_list *texts, size_t least,
                         size_t most, struct numbers *numbers, mvlm_error *error);

/* "30s", "10m", "1h" or a number of seconds; more than 0. */
mvlm_status read_duration(const char *option, const char *text, double *seconds, mvlm_error *error);

/* ---- Results ---------------------------------------------------------------------------- */

struct result {
    char test[64];
    size_t n_prompt, n_gen, n_depth, n_threads;
    size_t n_tokens; /* that a repetition reads or generates; 0: only its time is of interest */
    double picture_macs, decoder_macs, bytes; /* of one repetition */
    bool limited, limited_by_reading;
    double *ns, *limit_ns; /* [n] of [capacity]; owned */
    size_t n, capacity;
    struct sensors before, after, lowest;
    double joules;   /* of all repetitions; NAN: not known */
    double paused_s; /* to cool down */
    uint64_t peak_rss;
    char time[32];    /* when it began, UTC */
    double elapsed_s; /* of a sustained run; NAN: none */
};

/* The bench as it stands while one number of threads is under test. */
struct bench {
    const struct values *values;
    struct numbers n_prompt, n_gen, n_depth, n_picture, n_threads;
    double sustain_seconds; /* 0: no */
    mvlm_model *model;
    mvlm_session *session;
    mvlm_session_options options;
    mvlm_model_info info;
    mvlm_work work;
    struct machine machine;
    struct sensors lowest; /* of all repetitions */
    bool tells_energy;
    struct file_bytes picture_file;
    mvlm_picture picture;
    char question[256]; /* <image> and TEXT_TOKENS tokens of text */
    int32_t *ids;       /* [options.n_ctx], random */
    size_t threads;     /* of the session */
    size_t n_printed;
    char notes[8192]; /* lines behind the results */
    struct progress_bar bar;
};

enum { TEXT_TOKENS = 30, MAX_RESULTS = 5 };

/* One thing that is repeated, and what its repetitions tell. */
struct test {
    mvlm_status (*run)(struct bench *bench, const struct test *test, double *ns, mvlm_error *error);
    void (*note)(const struct test *test, char *note, size_t capacity); /* NULL: none */
    size_t n, depth;
    struct result results[MAX_RESULTS]; /* in the order of run's ns */
    size_t n_results;
};

/* A picture of n rows with composite attention and with full. */
void add_composite(const struct bench *bench, struct test *test, size_t n);

/* All tests for the session's threads, into new memory; free_tests. */
mvlm_status list_tests(const struct bench *bench, struct test **tests, size_t *n_tests,
                       mvlm_error *error);
void free_tests(struct test *tests, size_t n_tests);

/* Positions that the longest test needs. */
size_t positions_needed(const struct bench *bench);

/* Makes ready, warms up, and finds what limits each result. */
mvlm_status test_start(struct bench *bench, struct test *test, mvlm_error *error);
/* One repetition, with its limits before it. */
mvlm_status test_repeat(struct bench *bench, struct test *test, mvlm_error *error);
/* Forgets the repetitions; sensors are read, and the time is now. */
void test_reset(const struct bench *bench, struct test *test);
/* Reads the sensors and prints the results. */
mvlm_status test_print(struct bench *bench, struct test *test, double elapsed_s, mvlm_error *error);

/* Of n > 0 values, which are put in order. */
double median_of(double *values, size_t n);

enum bench_output { BENCH_MD, BENCH_JSON, BENCH_JSONL, BENCH_CSV };
mvlm_status print_start(const struct bench *bench, mvlm_error *error);
mvlm_status print_result(struct bench *bench, const struct result *result, mvlm_error *error);
mvlm_status print_end(const struct bench *bench, mvlm_error *error);

#endif
