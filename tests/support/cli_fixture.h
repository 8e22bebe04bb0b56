/* What the tests of the command line share: golden checkpoints, converted once, and running
 * mobilevlm on them.
 *
 * In every argument, script, variable and input "@t/" stands for the test's own folder (which holds
 * v1.bin, text.bin and two-images.bin) and "@g/" for tests/golden. */
#ifndef SUPPORT_CLI_FIXTURE_H
#define SUPPORT_CLI_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "golden.h"
#include "program.h"

#define GOLDEN     SOURCE_DIR "/tests/golden"
#define WORDS(...) ((const char *const[]){__VA_ARGS__, NULL})

#define V1       "-m", "@t/v1.bin"
#define TEXT     "-m", "@t/text.bin"
#define PICTURE  "-i", "@g/images/landscape.png"
#define QUESTION "-p", "What is this?", "-n", "24"
#define HORSES   "-p", "How many horses are there?"

enum { MAX_WORDS = 32 };

static char *cli_folder;

static inline char *expand(const char *text)
{
    char *out = NULL;
    size_t n;
    FILE *stream = open_memstream(&out, &n);
    assert_non_null(stream);
    for (; *text; text++) {
        const bool folder = strncmp(text, "@t/", 3) == 0, golden = strncmp(text, "@g/", 3) == 0;
        if (folder || golden)
            fputs(folder ? cli_folder : GOLDEN, stream);
        else
            fputc(*text, stream);
        text += folder || golden;
    }
    fclose(stream);
    return out;
}

/* Runs mobilevlm with `words`; within `script`, a shell's, it is "$0" "$@". The other arguments may
 * be NULL too. */
static inline struct program_result cli(const char *const *words, const char *script,
                                        const char *input, const char *variable)
{
    struct program_result result;
    const char *argv[MAX_WORDS] = {"/bin/sh", "-c", script, MOBILEVLM_PROGRAM};
    char *copies[MAX_WORDS + 1] = {0};
    const size_t first = script ? 0 : 3;
    size_t n = 4;
    for (; *words && n < MAX_WORDS - 1; words++)
        argv[n++] = *words;
    for (size_t i = first; i < n; i++)
        argv[i] = copies[i] = expand(argv[i]);
    char *bytes = input ? expand(input) : NULL, *set = variable ? expand(variable) : NULL;
    program_run(&result, argv + first, bytes, bytes ? strlen(bytes) : 0, WORDS(set));
    for (size_t i = 0; i < n; i++)
        free(copies[i]);
    free(bytes);
    free(set);
    return result;
}

/* Ends well, having said nothing on standard error; returns what it wrote. The caller frees it. */
static inline char *good_output(struct program_result result, size_t *n_bytes)
{
    if (result.code != 0 || result.n_err)
        fail_msg("exit code %d, said: %s", result.code, result.err);
    char *out = result.out;
    if (n_bytes)
        *n_bytes = result.n_out;
    free(result.err);
    return out;
}

static inline void expect_output(struct program_result result, const char *expected)
{
    size_t n;
    char *out = good_output(result, &n);
    assert_string_equal(out, expected);
    assert_int_equal(n, strlen(expected));
    free(out);
}

/* Fails with `code`, one line on standard error that holds `part`, and nothing on standard output.
 */
static inline void expect_error(struct program_result result, int code, const char *part)
{
    char *expected = expand(part);
    const bool one_line = result.n_err && strchr(result.err, '\n') == result.err + result.n_err - 1;
    if (result.code != code || !one_line || strncmp(result.err, "mobilevlm: ", 11) != 0 ||
        !strstr(result.err, expected))
        fail_msg("exit code %d, said: %s; expected %d and: %s", result.code, result.err, code,
                 expected);
    assert_string_equal(result.out, "");
    free(expected);
    program_free(&result);
}

/* A program's output that is one JSON object on one line. The caller frees it. */
static inline json_t *good_json(struct program_result result)
{
    json_error_t error;
    size_t n;
    char *out = good_output(result, &n);
    assert_true(n > 0 && strchr(out, '\n') == out + n - 1);
    json_t *json = json_loadb(out, n, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &error);
    if (!json)
        fail_msg("%s: %s", error.text, out);
    free(out);
    return json;
}

static inline json_t *golden_record(const char *name)
{
    char *path = path_of(GOLDEN "/cases", name, "expected/case.json");
    json_t *record = json_load_test(path);
    free(path);
    return record;
}

static inline json_int_t integer_of(const json_t *json, const char *key)
{
    const json_t *value = json_object_get(json, key);
    if (!json_is_integer(value))
        fail_msg("\"%s\" is missing, or no integer", key);
    return json_integer_value(value);
}

static inline const char *text_of(const json_t *json, const char *key)
{
    const char *value = json_string_value(json_object_get(json, key));
    if (!value)
        fail_msg("\"%s\" is missing, or no text", key);
    return value;
}

static inline bool is_digest(const char *text)
{
    return strlen(text) == 32 && strspn(text, "0123456789abcdef") == 32;
}

/* "The case's text\n". The caller frees it. */
static inline char *expected_answer(const char *name)
{
    char *answer;
    json_t *record = golden_record(name);
    assert_true(asprintf(&answer, "%s\n", text_of(record, "text")) > 0);
    json_decref(record);
    return answer;
}

static inline int cli_setup(void **state)
{
    static const char *const names[] = {"v1", "text", "two-images"};
    (void)state;
    cli_folder = temporary_folder();
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char *checkpoint = path_of(GOLDEN "/cases", names[i], "checkpoint"), *model;
        assert_true(asprintf(&model, "%s/%s.bin", cli_folder, names[i]) > 0);
        convert_test(checkpoint, model, "f32");
        free(checkpoint);
        free(model);
    }
    return 0;
}

static inline int cli_teardown(void **state)
{
    (void)state;
    remove_folder(cli_folder);
    free(cli_folder);
    return 0;
}

#endif
