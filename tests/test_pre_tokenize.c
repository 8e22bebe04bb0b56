/* Words of texts against the published expressions (tests/golden/words.jsonl, made by tools/reference/make_words.py). */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <jansson.h>

#include "guard.h"
#include "pre_tokenize.h"

/* One kind's words of a text, which ends where memory does. */
static void expect_words(enum pre_tokenizer kind, const json_t *lengths, const json_t *text)
{
    const size_t n = json_string_length(text);
    struct guard guard;
    size_t at = 0, i;
    json_t *expected;
    guard_open(&guard, n);
    const char *copy = memcpy(guard_place(&guard, GUARD_BACK, n), json_string_value(text), n);
    json_array_foreach(lengths, i, expected)
    {
        assert_true(at < n);
        const size_t length = pre_token_length(kind, copy + at, n - at);
        if ((json_int_t)length != json_integer_value(expected))
            fail_msg("word %zu of \"%s\" has %zu bytes and not %lld", i, json_string_value(text),
                     length, (long long)json_integer_value(expected));
        at += length;
    }
    assert_int_equal(at, n);
    guard_close(&guard);
}

static void words_are_the_published_ones(void **state)
{
    (void)state;
    FILE *file = fopen(SOURCE_DIR "/tests/golden/words.jsonl", "r");
    assert_non_null(file);
    size_t n = 0;
    for (json_t *line; (line = json_loadf(file, JSON_DISABLE_EOF_CHECK | JSON_ALLOW_NUL, NULL));
         n++) {
        const json_t *text = json_object_get(line, "text");
        expect_words(PRE_TOKENIZER_GPT2, json_object_get(line, "gpt2"), text);
        expect_words(PRE_TOKENIZER_QWEN2, json_object_get(line, "qwen2"), text);
        json_decref(line);
    }
    fclose(file);
    assert_true(n > 500);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(words_are_the_published_ones)};
    return cmocka_run_group_tests_name("pre_tokenize", tests, NULL, NULL);
}
