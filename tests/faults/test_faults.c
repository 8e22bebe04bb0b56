/* Every allocation and every call of the system fails once, reads and writes are short and interrupted too: one process a
 * fault. Each ends with a clear error or the right answer, leaks nothing, and leaves no half-written file.
 *
 *     test_faults PROGRAM memory|system [STEP]     the n-th for every n, or every STEP-th n; prints how many */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <dirent.h>
#include <jansson.h>
#include <unistd.h>

#include "disturbed.h"
#include "golden.h"
#include "program.h"
#include "tiny.h"

/* ---- What is run ------------------------------------------------------------------------ */

#define MODEL   "tiny.bin"
#define IMAGES  SOURCE_DIR "/tests/golden/images/"
#define PICTURE IMAGES "alpha.png"
#define ASKED   "-p", "a cat", "-n", "3", "-t", "1", "--max-rss", "100M"

enum { MOST_LEFT = 4, CODES = 8 };

struct run {
    const char *name;
    int (*program)(int, char **);
    const char *words[24];
    const char *input;           /* of standard input, a file of the folder; NULL: none */
    const char *left[MOST_LEFT]; /* files that it makes; none but these, nor part of them */
    bool records;                /* the first of them is a batch's, which failed runs may leave */
    bool begun;                  /* and is there before, with a record and a torn one */
};

#define MOBILEVLM(...) .program = mobilevlm_main, .words = {"mobilevlm", __VA_ARGS__}
#define BATCH                                                                                      \
    MOBILEVLM("batch", "-m", MODEL, IMAGES "422.jpg", PICTURE, ASKED, "-o", "out.jsonl",           \
              "--resume", "--sidecar", "txt", "--sidecar-dir", "."),                               \
        .left = {"out.jsonl", "422.txt", "alpha.txt"}, .records = true
#define CONVERT(checkpoint, ...)                                                                   \
    .program = convert_main,                                                                       \
    .words = {"mobilevlm-convert",                                                                 \
              SOURCE_DIR "/tests/golden/cases/" checkpoint "/checkpoint",                          \
              "-o",                                                                                \
              "new.bin",                                                                           \
              "-q",                                                                                \
              "-t",                                                                                \
              "1",                                                                                 \
              __VA_ARGS__},                                                                        \
    .left = {"new.bin"}

static const struct run runs[] = {
    {.name = "run", MOBILEVLM("-m", MODEL, "-i", PICTURE, ASKED)},
    {.name = "threads", MOBILEVLM("-m", MODEL, "-i", PICTURE, "-p", "a cat", "-n", "3", "-t", "3")},
    {.name = "json", MOBILEVLM("-m", MODEL, "-i", PICTURE, ASKED, "--json", "--choices", "a,b")},
    /* a folder without room, so that it is cleared; and one that holds the picture since the first run */
    {.name = "cache",
     MOBILEVLM("-m", MODEL, "-i", PICTURE, ASKED, "--cache", "cache", "--cache-size", "1")},
    {.name = "cached", MOBILEVLM("-m", MODEL, "-i", PICTURE, ASKED, "--cache", "kept")},
    {.name = "batch", BATCH},
    {.name = "resumed", BATCH, .begun = true},
    {.name = "lines",
     MOBILEVLM("batch", "-m", MODEL, "--jsonl-in", "-", "-n", "2", "-t", "1", "-o", "out.jsonl",
               "--resume"),
     .input = "lines.jsonl",
     .left = {"out.jsonl"},
     .records = true},
    {.name = "merge",
     MOBILEVLM("batch", "--merge", "merged.jsonl", "shard.jsonl"),
     .left = {"merged.jsonl"}},
    {.name = "chat",
     MOBILEVLM("chat", "-m", MODEL, "-n", "3", "-t", "1", "-i", PICTURE),
     .input = "chat.txt"},
    {.name = "verify", MOBILEVLM("verify", "-m", MODEL)},
    {.name = "tokenize", MOBILEVLM("tokenize", "-m", MODEL), .input = "chat.txt"},
    {.name = "info", MOBILEVLM("info", "-m", MODEL, "--json")},
    {.name = "perplexity",
     MOBILEVLM("perplexity", "-m", MODEL, "-f", "chat.txt", "--window", "8", "-t", "1")},
    {.name = "convert", CONVERT("text", "--calibrate", "8")},
    {.name = "shards", CONVERT("v2", "--type", "q8")},
    {.name = "words", CONVERT("imp-phi2", "--type", "f16")},
};

/* ---- What it must leave ----------------------------------------------------------------- */

static struct disturbed good; /* without a fault */
static size_t good_records;   /* of it */
static json_t *good_ids;
static size_t n_struck, n_failed;

static bool is_expected(const struct run *run, const char *name)
{
    static const char *const ours[] = {MODEL,   "lines.jsonl", "chat.txt", "shard.jsonl",
                                       "cache", "kept",        ".",        ".."};
    for (size_t i = 0; i < sizeof ours / sizeof *ours; i++)
        if (strcmp(name, ours[i]) == 0)
            return true;
    for (size_t i = 0; i < MOST_LEFT && run->left[i]; i++)
        if (strcmp(name, run->left[i]) == 0)
            return true;
    return false;
}

/* No temporary file is left behind, nor part of a cache's entry. */
static void check_folder(const struct run *run)
{
    static const char *const folders[] = {".", "cache", "kept"};
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
        DIR *folder = opendir(folders[i]);
        for (const struct dirent *entry; folder && (entry = readdir(folder));)
            if (i == 0 ? !is_expected(run, entry->d_name) : strstr(entry->d_name, "part") != NULL)
                fail_msg("%s/%s is left behind", folders[i], entry->d_name);
        if (folder)
            closedir(folder);
    }
}

/* What the undisturbed run made, byte for byte. */
static struct {
    char *bytes;
    size_t n;
} made[MOST_LEFT];

static void keep_outputs(const struct run *run)
{
    for (size_t i = 0; i < MOST_LEFT && run->left[i]; i++)
        made[i].bytes = file_load(run->left[i], &made[i].n);
}

/* What there is of a batch's sidecars, after a failure too; all else only without one. */
static void check_outputs(const struct run *run)
{
    for (size_t i = run->records; i < MOST_LEFT && run->left[i]; i++) {
        size_t n;
        if (run->records && access(run->left[i], F_OK) != 0)
            continue;
        char *bytes = file_load(run->left[i], &n);
        if (n != made[i].n || memcmp(bytes, made[i].bytes, n) != 0)
            fail_msg("%s is another than without the fault", run->left[i]);
        free(bytes);
    }
}

/* All lines are whole records; returns how many. */
static size_t check_records(const char *path)
{
    FILE *file = fopen(path, "r");
    char *line = NULL;
    size_t capacity = 0, n = 0;
    for (ssize_t length; file && (length = getline(&line, &capacity, file)) > 0; n++) {
        json_t *record = json_loadb(line, (size_t)length, 0, NULL);
        if (line[length - 1] != '\n' || !json_is_string(json_object_get(record, "id")))
            fail_msg("%s holds a torn record: %s", path, line);
        json_decref(record);
    }
    free(line);
    if (file)
        fclose(file);
    return n;
}

/* Of the batch that is to go on: its first record, and TORN bytes of the next. */
enum { TORN = 20 };
static char *begun;
static size_t n_begun;

static void keep_begun(const struct run *run)
{
    const char *const end = memchr(made[0].bytes, '\n', made[0].n);
    assert_non_null(end);
    n_begun = (size_t)(end + 1 - made[0].bytes) + TORN;
    assert_true(n_begun < made[0].n && run->records);
    begun = malloc(n_begun);
    assert_non_null(begun);
    memcpy(begun, made[0].bytes, n_begun);
}

/* Has the run not touched it? The record that was there must be there in any case. */
static bool is_as_begun(const char *path)
{
    size_t n;
    if (!begun)
        return false;
    char *bytes = file_load(path, &n);
    if (n < n_begun - TORN || memcmp(bytes, begun, n_begun - TORN) != 0)
        fail_msg("%s has lost its record", path);
    const bool same = n == n_begun && memcmp(bytes, begun, n) == 0;
    free(bytes);
    return same;
}

static void restore(const struct run *run)
{
    for (size_t i = 0; i < MOST_LEFT && run->left[i]; i++)
        unlink(run->left[i]);
    remove_folder("cache");
    if (begun)
        file_save(run->left[0], begun, n_begun);
}

/* Of a run that failed: one clear line, an exit code that says what it is, no file that is not whole. */
static void check_failure(const struct run *run, const struct disturbed *result, enum fault kind)
{
    static const int memory[CODES] = {1, 5}, system[CODES] = {1, 2, 3, 4, 5, 8};
    const int *codes = kind == FAULT_ALLOCATION ? memory : system;
    bool known = false;
    for (size_t i = 0; i < CODES; i++)
        known |= codes[i] && result->code == codes[i];
    if (!known || (result->code == 1 && !run->records))
        fail_msg("exit code %d, said: %s", result->code, result->err);
    if (!*result->err || result->err[strlen(result->err) - 1] != '\n')
        fail_msg("exit code %d, but said: %s", result->code, result->err);
    for (size_t i = 0; i < MOST_LEFT && run->left[i]; i++)
        if (!run->records && access(run->left[i], F_OK) == 0)
            fail_msg("%s stands there after exit code %d: %s", run->left[i], result->code,
                     result->err);
}

/* The ids that have a record. */
static json_t *ids_of(const char *path)
{
    FILE *file = fopen(path, "r");
    char *line = NULL;
    size_t capacity = 0;
    json_t *ids = json_object();
    while (file && getline(&line, &capacity, file) > 0) {
        json_t *record = json_loads(line, 0, NULL);
        json_object_set_new(ids, json_string_value(json_object_get(record, "id")), json_true());
        json_decref(record);
    }
    free(line);
    if (file)
        fclose(file);
    return ids;
}

/* A batch that failed goes on where it stood, and then all is there. */
static void check_resume(const struct run *run)
{
    struct disturbed again;
    run_disturbed(run->program, run->words, run->input, FAULT_ALLOCATION, FAULT_FAILS, 0, &again);
    if (again.code != 0 && again.code != 1)
        fail_msg("exit code %d when it went on: %s", again.code, again.err);
    check_records(run->left[0]);
    json_t *ids = ids_of(run->left[0]);
    const char *id;
    json_t *value;
    json_object_foreach(good_ids, id, value) if (!json_object_get(ids, id))
        fail_msg("%s has no record after going on", id);
    json_decref(ids);
    disturbed_free(&again);
}

/* Are all fields of the one in the other, of the same kinds? Their numbers may be timings. */
static bool same_fields(const json_t *a, const json_t *b)
{
    const char *key;
    json_t *value;
    size_t i;
    if (json_typeof(a) != json_typeof(b) && !(json_is_number(a) && json_is_number(b)))
        return false;
    if (json_object_size(a) != json_object_size(b) || json_array_size(a) != json_array_size(b))
        return false;
    json_object_foreach((json_t *)(uintptr_t)a, key, value)
    {
        const json_t *other = json_object_get(b, key);
        if (!other || !same_fields(value, other))
            return false;
    }
    json_array_foreach(a, i, value) if (!same_fields(value, json_array_get(b, i))) return false;
    return true;
}

/* A run that a fault did not end has said what it says without one; lines of JSON as far as their fields go. */
static void check_output(const struct disturbed *result)
{
    json_t *expected = json_loads(good.out, 0, NULL), *got = json_loads(result->out, 0, NULL);
    if (expected && (!got || !same_fields(expected, got)))
        fail_msg("said %s and not %s", result->out, good.out);
    if (!expected)
        assert_string_equal(result->out, good.out);
    json_decref(expected);
    json_decref(got);
}

/* One fault; false once there was no n-th call. */
static bool strike(const struct run *run, enum fault kind, enum manner manner, long n)
{
    struct disturbed result;
    restore(run);
    run_disturbed(run->program, run->words, run->input, kind, manner, n, &result);
    const bool struck = result.n_calls >= n;
    if (struck) {
        n_struck++;
        n_failed += result.code != 0;
        if (result.code != 0)
            check_failure(run, &result, kind);
        else
            check_output(&result);
        if (result.code == 0 || run->records)
            check_outputs(run);
        if ((manner == FAULT_SHORT || manner == FAULT_INTERRUPTED) && result.code != 0)
            fail_msg("a short or interrupted call is no error, but exit code %d: %s", result.code,
                     result.err);
        check_folder(run);
        const size_t n_records =
            run->records && !is_as_begun(run->left[0]) ? check_records(run->left[0]) : 0;
        if (result.code == 0 && n_records != good_records)
            fail_msg("%zu records and not %zu, but exit code 0", n_records, good_records);
        if (run->records && result.code != 0 && n % 8 == 1)
            check_resume(run);
    }
    disturbed_free(&result);
    return struck;
}

/* ---- The tests -------------------------------------------------------------------------- */

static const struct run *chosen;
static bool of_memory;
static long step = 1;

static void sweep(enum fault kind, enum manner manner, const char *what)
{
    const size_t before = n_struck, failed_before = n_failed;
    long n = 1;
    while (strike(chosen, kind, manner, n))
        n += step;
    printf("%s: %s: %zu faults, %zu of them ended the run\n", chosen->name, what, n_struck - before,
           n_failed - failed_before);
}

static void undisturbed(void)
{
    restore(chosen);
    run_disturbed(chosen->program, chosen->words, chosen->input, FAULT_ALLOCATION, FAULT_FAILS, 0,
                  &good);
    if (good.code != 0)
        fail_msg("exit code %d without a fault: %s", good.code, good.err);
    for (size_t i = 0; i < MOST_LEFT && chosen->left[i]; i++)
        if (access(chosen->left[i], F_OK) != 0)
            fail_msg("%s was not made", chosen->left[i]);
    keep_outputs(chosen);
    good_records = chosen->records ? check_records(chosen->left[0]) : 0;
    good_ids = chosen->records ? ids_of(chosen->left[0]) : NULL;
    if (chosen->begun)
        keep_begun(chosen);
}

static void every_fault(void **state)
{
    (void)state;
    undisturbed();
    if (of_memory)
        sweep(FAULT_ALLOCATION, FAULT_FAILS, "allocations fail");
    else {
        sweep(FAULT_OPEN, FAULT_FAILS, "files cannot be opened");
        sweep(FAULT_READ, FAULT_FAILS, "reads fail");
        sweep(FAULT_READ, FAULT_SHORT, "reads are short");
        sweep(FAULT_READ, FAULT_INTERRUPTED, "reads are interrupted");
        sweep(FAULT_WRITE, FAULT_FAILS, "writes fail");
        sweep(FAULT_WRITE, FAULT_SHORT, "writes are short");
        sweep(FAULT_WRITE, FAULT_INTERRUPTED, "writes are interrupted");
        sweep(FAULT_WRITE, FAULT_FULL, "the disk is full from a write on");
        sweep(FAULT_MAP, FAULT_FAILS, "files cannot be mapped");
        sweep(FAULT_SYNC, FAULT_FAILS, "syncs fail");
        sweep(FAULT_RENAME, FAULT_FAILS, "renames fail");
        sweep(FAULT_STATUS, FAULT_FAILS, "status, seek, truncation, close fail");
        sweep(FAULT_THREAD, FAULT_FAILS, "threads cannot be started");
    }
    disturbed_free(&good);
    for (size_t i = 0; i < MOST_LEFT; i++)
        free(made[i].bytes);
    free(begun);
    json_decref(good_ids);
    assert_true(n_struck > 0);
}

static int setup(void **state)
{
    static const char lines[] = "{\"id\":\"1\",\"image\":\"" PICTURE "\",\"prompt\":\"a\"}\n"
                                "{\"id\":\"2\",\"image\":\"" IMAGES "420.jpg\",\"prompt\":\"b\"}\n";
    static const char chat[] = "a cat is a cat, and this is a line of text\nand a cat?\n";
    static const char shard[] = "{\"text\":\"a\",\"id\":\"1\"}\n{\"text\":\"b\",\"id\":\"2\"}\n";
    struct description description;
    open_test_folder(state);
    assert_int_equal(chdir(test_folder), 0);
    tiny_describe(&description);
    tiny_write(MODEL, &description, TENSOR_Q8, 1);
    file_save("lines.jsonl", lines, strlen(lines));
    file_save("chat.txt", chat, strlen(chat));
    file_save("shard.jsonl", shard, strlen(shard));
    return 0;
}

static int teardown(void **state)
{
    assert_int_equal(chdir("/"), 0);
    return close_test_folder(state);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_fault)};
    for (size_t i = 0; argc >= 3 && i < sizeof runs / sizeof *runs; i++)
        if (strcmp(runs[i].name, argv[1]) == 0)
            chosen = &runs[i];
    if (!chosen) {
        fprintf(stderr, "test_faults PROGRAM memory|system [STEP]\n");
        return 2;
    }
    of_memory = strcmp(argv[2], "memory") == 0;
    step = argc > 3 ? atol(argv[3]) : 1;
    return cmocka_run_group_tests(tests, setup, teardown);
}
