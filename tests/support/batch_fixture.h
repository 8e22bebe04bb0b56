/* What the tests of batch share: running it, and reading the records that it leaves. */
#ifndef SUPPORT_BATCH_FIXTURE_H
#define SUPPORT_BATCH_FIXTURE_H

#include "cli_fixture.h"

#define BATCH  "batch", V1, "-q"
#define ASKED  "-p", "What is this?", "-n", "9"
#define OUTPUT "-o", "@t/out.jsonl"

/* Pictures of tests/golden that every decoder reads. */
static const char *const pictures[] = {"420.jpg",  "alpha.png", "bmp24.bmp", "exif6.jpg",
                                       "grey.png", "odd.png",   "tall.png"};
enum { N_PICTURES = sizeof pictures / sizeof *pictures };

/* Records of a file or of a program's output, by their ids; fails the test for a line that is none, or
 * an id that stands twice. */
static inline json_t *records_in(const char *text)
{
    json_t *records = json_object();
    for (const char *end; (end = strchr(text, '\n')); text = end + 1) {
        json_error_t error;
        json_t *record =
            json_loadb(text, (size_t)(end - text), JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &error);
        if (!record)
            fail_msg("%s: %.*s", error.text, (int)(end - text), text);
        const char *id = text_of(record, "id");
        if (json_object_get(records, id))
            fail_msg("twice: %s", id);
        json_object_set_new(records, id, record);
    }
    assert_string_equal(text, ""); /* the last line is whole */
    return records;
}

static inline char *file_text(const char *name)
{
    char *path = expand(name), *text;
    size_t n;
    text = file_load(path, &n);
    free(path);
    return text;
}

static inline json_t *records_of(const char *name)
{
    char *text = file_text(name);
    json_t *records = records_in(text);
    free(text);
    return records;
}

/* Text of a record, which must be an answer. */
static inline const char *answer_of(const json_t *records, const char *id)
{
    const json_t *record = json_object_get(records, id);
    if (!record)
        fail_msg("no record of %s", id);
    return text_of(record, "text");
}

/* The code of a record that must be an error. */
static inline int error_code_of(const json_t *records, const char *id)
{
    const json_t *record = json_object_get(records, id);
    if (!record || json_object_get(record, "text"))
        fail_msg("no error record of %s", id);
    return (int)integer_of(json_object_get(record, "error"), "code");
}

/* @t/p: a folder of the pictures, under their names. */
static inline int batch_setup(void **state)
{
    cli_setup(state);
    for (size_t i = 0; i < N_PICTURES; i++) {
        char *script;
        assert_true(asprintf(&script, "mkdir -p @t/p && cp @g/images/%s @t/p/", pictures[i]) > 0);
        expect_output(cli(WORDS(""), script, NULL, NULL), "");
        free(script);
    }
    return 0;
}

/* Removes what an earlier test left. */
static inline int batch_begin(void **state)
{
    (void)state;
    expect_output(
        cli(WORDS(""), "rm -rf @t/out.jsonl @t/other.jsonl @t/cache @t/sidecars", NULL, NULL), "");
    return 0;
}

#endif
