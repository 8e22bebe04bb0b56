/* What the tests of the converter share: a checkpoint copied from tests/golden into a test's own
 * folder, means to damage it, and running mobilevlm-convert on it. */
#ifndef SUPPORT_CONVERT_FIXTURE_H
#define SUPPORT_CONVERT_FIXTURE_H

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <cmocka.h>
#include <jansson.h>

#include "checkpoint_builder.h"
#include "golden.h"
#include "program.h"

#define GOLDEN     SOURCE_DIR "/tests/golden"
#define WORDS(...) ((const char *const[]){__VA_ARGS__, NULL})

enum { MAX_WORDS = 16, MAX_TENSORS = 200 };

static char *root;                                        /* the test's own folder */
static char checkpoint[512], out_folder[512], model[600]; /* below it */

/* ---- Running ---------------------------------------------------------------------------- */

static inline struct program_result run(const char *const *argv, const char *variable)
{
    struct program_result result;
    program_run(&result, argv, NULL, 0, WORDS(variable));
    return result;
}

/* mobilevlm-convert checkpoint -o model `more`. */
static inline struct program_result convert_with(const char *const *more)
{
    const char *argv[MAX_WORDS] = {CONVERT_PROGRAM, checkpoint, "-o", model};
    for (size_t i = 0; more[i] && i < MAX_WORDS - 5; i++)
        argv[4 + i] = more[i];
    return run(argv, NULL);
}

/* A program must end well, with nothing on standard output unless `output` says what. */
static inline void expect_good(struct program_result result, const char *output)
{
    if (result.code != 0)
        fail_msg("exit code %d, said: %s", result.code, result.err);
    assert_string_equal(result.out, output);
    program_free(&result);
}

/* Converts, and returns the number that the file's description has under `key`; -1 when it has none. */
static inline double recorded(const char *key, const char *const *words)
{
    expect_good(convert_with(words), "");
    struct program_result result =
        run(WORDS(MOBILEVLM_PROGRAM, "info", "--json", "-m", model), NULL);
    json_t *json = json_loads(result.out, 0, NULL);
    const json_t *field = json_object_get(json_object_get(json, "description"), key);
    const double value = field ? json_number_value(field) : -1;
    json_decref(json);
    program_free(&result);
    return value;
}

static inline size_t count_files(const char *folder)
{
    DIR *directory = opendir(folder);
    size_t n = 0;
    assert_non_null(directory);
    for (const struct dirent *entry; (entry = readdir(directory));)
        n += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
    closedir(directory);
    return n;
}

/* Fails with `code` and one line that holds `part`; `n_left` files are in the output's folder then.
 */
static inline void expect_failure(struct program_result result, int code, const char *part,
                                  size_t n_left)
{
    const bool one_line = result.n_err && strchr(result.err, '\n') == result.err + result.n_err - 1;
    if (result.code != code || !one_line || strncmp(result.err, "mobilevlm-convert: ", 19) != 0 ||
        !strstr(result.err, part))
        fail_msg("exit code %d, said: %s; expected %d and: %s", result.code, result.err, code,
                 part);
    assert_string_equal(result.out, "");
    assert_int_equal(count_files(out_folder), n_left);
    program_free(&result);
}

/* The checkpoint is refused, and nothing is left behind. */
static inline void expect_refused(const char *part)
{
    expect_failure(convert_with(WORDS("--type", "f32")), 3, part, 0);
}

static inline void expect_same_files(const char *a, const char *b)
{
    expect_good(run(WORDS("cmp", a, b), NULL), "");
}

/* ---- The checkpoint --------------------------------------------------------------------- */

/* A fresh copy of a golden checkpoint. */
static inline void copy_checkpoint(const char *name)
{
    char source[512];
    snprintf(source, sizeof source, GOLDEN "/cases/%s/checkpoint", name);
    remove_folder(checkpoint);
    expect_good(run(WORDS("cp", "-R", source, checkpoint), NULL), "");
}

static inline void remove_file(const char *name)
{
    char path[600];
    snprintf(path, sizeof path, "%s/%s", checkpoint, name);
    assert_int_equal(remove(path), 0);
}

/* Sets a field of a JSON file of the checkpoint; "vision_config.patch_size" is one of an object
 * within. NULL removes it. The value is JSON. */
static inline void set_field(const char *file, const char *key, const char *value)
{
    char path[600];
    snprintf(path, sizeof path, "%s/%s", checkpoint, file);
    json_t *json = json_load_file(path, 0, NULL), *object = json;
    assert_non_null(json);
    if (strncmp(key, "vision_config.", 14) == 0) {
        object = json_object_get(json, "vision_config");
        key += 14;
    }
    json_t *new_value = value ? json_loads(value, JSON_DECODE_ANY, NULL) : NULL;
    assert_true(new_value || !value);
    if (new_value)
        json_object_set_new(object, key, new_value);
    else
        json_object_del(object, key);
    assert_int_equal(json_dump_file(json, path, 0), 0);
    json_decref(json);
}

static inline void write_text(const char *file, const char *text)
{
    file_write(checkpoint, file, text, strlen(text));
}

/* ---- Its tensors ------------------------------------------------------------------------ */

/* All tensors of the checkpoint as f32, to be changed and built into model.safetensors. */
struct tensors {
    struct built_tensor items[MAX_TENSORS];
    size_t n;
};

static inline void load_tensors(struct tensors *tensors)
{
    struct checkpoint *source;
    mvlm_error error = {0};
    if (checkpoint_open(checkpoint, &source, &error) != MVLM_OK)
        fail_msg("%s", error.message);
    tensors->n = checkpoint_count(source);
    assert_true(tensors->n < MAX_TENSORS);
    for (size_t i = 0; i < tensors->n; i++) {
        const struct source_tensor *t = checkpoint_tensor(source, i);
        struct built_tensor *item = &tensors->items[i];
        *item =
            (struct built_tensor){.name = strdup(t->name), .dtype = DTYPE_F32, .n_dims = t->n_dims};
        size_t n = 1;
        for (int d = 0; d < t->n_dims; d++)
            n *= (size_t)(item->shape[d] = t->shape[d]);
        float *values = calloc(n, sizeof *values);
        assert_int_equal(checkpoint_read(source, t, 0, t->shape[0], values, &error), MVLM_OK);
        item->data = values;
    }
    checkpoint_close(source);
}

static inline struct built_tensor *find_tensor(struct tensors *tensors, const char *name)
{
    for (size_t i = 0; i < tensors->n; i++)
        if (strcmp(tensors->items[i].name, name) == 0)
            return &tensors->items[i];
    fail_msg("no tensor %s", name);
    return NULL;
}

/* A tensor of zeros. */
static inline void add_tensor(struct tensors *tensors, const char *name, enum dtype dtype,
                              int64_t rows, int64_t columns)
{
    struct built_tensor *item = &tensors->items[tensors->n++];
    *item = (struct built_tensor){
        strdup(name), dtype, 2, {rows, columns}, calloc((size_t)(rows * columns), 8)};
}

static inline void forget_last_tensor(struct tensors *tensors)
{
    const struct built_tensor *last = &tensors->items[--tensors->n];
    free((void *)(uintptr_t)last->name);
    free((void *)(uintptr_t)last->data);
}

/* Builds model.safetensors and forgets the tensors. */
static inline void save_tensors(struct tensors *tensors)
{
    build_safetensors(checkpoint, "model.safetensors", tensors->items, tensors->n);
    while (tensors->n)
        forget_last_tensor(tensors);
}

/* Sends each signal to a conversion with this option, so many seconds after its file was begun, and
 * expects one file there until then and none afterwards. */
static inline void expect_signals_leave_nothing(const char *seconds, const char *option,
                                                const char *value)
{
    static const struct {
        const char *name;
        int code;
    } signals[] = {{"INT", 130}, {"TERM", 143}, {"HUP", 129}};
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) {
        char script[1800];
        snprintf(script, sizeof script,
                 "\"$0\" \"$@\" & while ! ls %s/* >%s/list 2>&1; do sleep 0.01; done; sleep %s; "
                 "ls %s | wc -l; kill -s %s $!; wait $!",
                 out_folder, root, seconds, out_folder, signals[i].name);
        struct program_result result = run(
            WORDS("/bin/sh", "-c", script, CONVERT_PROGRAM, checkpoint, "-o", model, option, value),
            NULL);
        assert_int_equal(result.code, signals[i].code);
        assert_string_equal(result.err, "");
        assert_int_equal(atoi(result.out), 1);
        assert_int_equal(count_files(out_folder), 0);
        program_free(&result);
    }
}

/* ---- Forms of it ------------------------------------------------------------------------ */

static inline size_t rows_of(const struct built_tensor *t)
{
    return (size_t)t->shape[0];
}

static inline size_t columns_of(const struct built_tensor *t)
{
    return t->n_dims > 1 ? (size_t)t->shape[1] : 1;
}

static inline void remove_shards(void)
{
    char command[1200];
    snprintf(command, sizeof command, "rm -f %s/*.safetensors* %s/*.bin", checkpoint, checkpoint);
    assert_int_equal(system(command), 0);
}

/* Cut off anywhere, or with a byte turned over: refused, or taken and opened. */
static inline void expect_survival(const char *folder, const char *file, const char *const *more)
{
    size_t n;
    char path[700];
    snprintf(path, sizeof path, "%s/%s", folder, file);
    char *bytes = file_load(path, &n);
    for (size_t i = 0; i < 24; i++) {
        const size_t at = (i + 1) * n / 25;
        for (int flipped = 0; flipped < 2; flipped++) {
            bytes[at] ^= flipped ? 0x55 : 0;
            file_write(folder, file, bytes, flipped ? n : at);
            bytes[at] ^= flipped ? 0x55 : 0;
            struct program_result result = convert_with(more);
            if (result.code == 0) {
                struct program_result info =
                    run(WORDS(MOBILEVLM_PROGRAM, "info", "-m", model), NULL);
                assert_int_equal(info.code, 0);
                program_free(&info);
                assert_int_equal(remove(model), 0);
            } else
                assert_int_equal(result.code, 3);
            assert_int_equal(count_files(out_folder), 0);
            program_free(&result);
        }
    }
    file_write(folder, file, bytes, n);
    free(bytes);
}

/* ---- cmocka's fixtures ------------------------------------------------------------------ */

static inline int convert_setup(void **state)
{
    (void)state;
    root = temporary_folder();
    snprintf(checkpoint, sizeof checkpoint, "%s/checkpoint", root);
    snprintf(out_folder, sizeof out_folder, "%s/out", root);
    snprintf(model, sizeof model, "%s/model.bin", out_folder);
    return mkdir(out_folder, 0777);
}

static inline int convert_teardown(void **state)
{
    (void)state;
    remove_folder(root);
    free(root);
    return 0;
}

#endif
