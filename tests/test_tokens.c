/* Text <-> ids against SentencePiece's own (tokens/NAME.jsonl), and whole conversations against the
 * published tokenizer (tokens/chat.json, both values of its `legacy` flag). */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "golden.h"
#include "model.h"
#include "program.h"
#include "prompt.h"

/* A model whose tokenizer is the one under test; only its ids matter. */
static mvlm_model *open_with_tokenizer(const char *checkpoint, const char *tokenizer, int legacy)
{
    char command[2048], *folder = temporary_folder(), *path = path_of(folder, "model.bin", NULL);
    mvlm_model *model;
    mvlm_error error = {0};
    snprintf(command, sizeof command,
             "cp -r '%s' '%s/checkpoint' && chmod -R u+w '%s/checkpoint'%s%s%s%s%s", checkpoint,
             folder, folder, tokenizer ? " && cp '" : "", tokenizer ? tokenizer : "",
             tokenizer ? "' '" : "", tokenizer ? folder : "",
             tokenizer ? "/checkpoint/tokenizer.model'" : "");
    assert_int_equal(system(command), 0);
    char *copy = path_of(folder, "checkpoint", NULL),
         *settings = path_of(copy, "tokenizer_config.json", NULL);
    if (legacy >= 0) {
        json_t *json = json_load_test(settings);
        json_object_set_new(json, "legacy", json_boolean(legacy));
        assert_int_equal(json_dump_file(json, settings, 0), 0);
        json_decref(json);
    }
    convert_test(copy, path, "f32");
    if (mvlm_model_open(path, NULL, &model, &error) != MVLM_OK)
        fail_msg("%s", error.message);
    remove_folder(folder); /* the mapping outlives the file */
    free(folder);
    free(path);
    free(copy);
    free(settings);
    return model;
}

static void compare(const char *what, const char *text, const int32_t *ids, size_t n_ids,
                    const json_t *expected)
{
    bool same = n_ids == json_array_size(expected);
    for (size_t i = 0; same && i < n_ids; i++)
        same = ids[i] == json_integer_value(json_array_get(expected, i));
    if (!same)
        fail_msg("%s: ids of \"%s\" differ", what, text);
}

/* Typed marks come back as spaces, white space may have been removed, characters composed, spaces cleaned up: then
 * decoding cannot give the text back. */
static bool comes_back(const mvlm_model *model, const char *text, size_t n_bytes)
{
    const struct tokenizer_settings *t = &model->description.tokenizer;
    return !memmem(text, n_bytes, "\xe2\x96\x81", 3) && !t->remove_extra_whitespaces && !t->nfc &&
           !t->clean_up_spaces;
}

/* White space at both ends does not count: an answer has none. */
static void check_decoded(const mvlm_model *model, const char *what, const json_t *line)
{
    const json_t *list = json_object_get(line, "ids");
    const char *expected = json_string_value(json_object_get(line, "decoded"));
    int32_t ids[64];
    char text[1024];
    size_t n = 0;
    mvlm_error error = {0};
    assert_in_range(json_array_size(list), 0, 64);
    for (size_t i = 0; i < json_array_size(list); i++)
        ids[i] = (int32_t)json_integer_value(json_array_get(list, i));
    assert_int_equal(
        mvlm_detokenize(model, ids, json_array_size(list), text, sizeof text, &n, &error), MVLM_OK);
    assert_true(n < sizeof text);
    size_t begin = 0;
    while (begin < n && strchr(" \t\n", text[begin]))
        begin++;
    while (n > begin && strchr(" \t\n", text[n - 1]))
        n--;
    if (n - begin != strlen(expected) || memcmp(text + begin, expected, n - begin) != 0)
        fail_msg("%s: \"%.*s\", expected \"%s\"", what, (int)(n - begin), text + begin, expected);
}

static void check_line(const mvlm_model *model, const char *what, const json_t *line)
{
    const json_t *value = json_object_get(line, "text");
    if (json_object_get(line, "decoded")) {
        check_decoded(model, what, line);
        return;
    }
    const char *text = json_string_value(value);
    const size_t length = json_string_length(value);
    int32_t *ids = malloc((4 * length + 8) * sizeof *ids);
    char *back = malloc(4 * length + 8);
    size_t n_ids, n_bytes;
    mvlm_error error = {0};
    assert_int_equal(mvlm_tokenize(model, text, length, 0, ids, 4 * length + 8, &n_ids, &error),
                     MVLM_OK);
    compare(what, text, ids, n_ids, json_object_get(line, "ids"));
    assert_int_equal(mvlm_detokenize(model, ids, n_ids, back, 4 * length + 8, &n_bytes, &error),
                     MVLM_OK);
    if (comes_back(model, text, length) && (n_bytes != length || memcmp(back, text, length) != 0))
        fail_msg("%s: \"%s\" does not come back from its ids", what, text);
    free(ids);
    free(back);
}

static void check_lines(const mvlm_model *model, const char *path)
{
    size_t n_bytes, n_lines = 0;
    char *bytes = file_load(path, &n_bytes);
    for (char *at = bytes, *end; (end = strchr(at, '\n')) != NULL; at = end + 1) {
        json_t *line = json_loadb(at, (size_t)(end - at), JSON_ALLOW_NUL, NULL);
        assert_non_null(line);
        check_line(model, path, line);
        json_decref(line);
        n_lines++;
    }
    print_message("  %s: %zu lines\n", path, n_lines);
    assert_true(n_lines >= 100);
    free(bytes);
}

static void check_file(const char *tokenizer, const char *path)
{
    const char *checkpoint = SOURCE_DIR "/tests/golden/cases/text/checkpoint";
    /* the decoder's vocabulary need not be the tokenizer's: a larger case serves the 32,000 pieces
     */
    if (strstr(tokenizer, "32k"))
        checkpoint = SHARED_DIR "/reference/cases/llama-vocabulary/checkpoint";
    else if (strstr(tokenizer, "tok512"))
        checkpoint = SHARED_DIR "/reference/cases/v1/checkpoint";
    mvlm_model *model = open_with_tokenizer(checkpoint, tokenizer, -1);
    check_lines(model, path);
    mvlm_model_close(model);
}

static void own_tokens(void **state)
{
    (void)state;
    check_file(SOURCE_DIR "/tests/golden/tokenizer.model",
               SOURCE_DIR "/tests/golden/tokens/tokenizer.jsonl");
    check_file(SOURCE_DIR "/tests/golden/tokenizer-spaces.model",
               SOURCE_DIR "/tests/golden/tokens/tokenizer-spaces.jsonl");
}

static void shared_tokens(void **state)
{
    (void)state;
    if (!path_exists(SHARED_DIR "/reference/tokens"))
        skip();
    check_file(SHARED_DIR "/weights/tok512.model", SHARED_DIR "/reference/tokens/tok512.jsonl");
    check_file(SHARED_DIR "/weights/llama-32k-tokenizer.model",
               SHARED_DIR "/reference/tokens/llama-32k.jsonl");
}

/* Byte-level BPE, and SentencePiece with added tokens. */
static void own_family_tokens(void **state)
{
    (void)state;
    static const char *const names[] = {"imp-phi2", "imp-phi3"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char lines[300], checkpoint[300];
        snprintf(lines, sizeof lines, SOURCE_DIR "/tests/golden/tokens/%s.jsonl", names[i]);
        snprintf(checkpoint, sizeof checkpoint, SOURCE_DIR "/tests/golden/cases/%s/checkpoint",
                 names[i]);
        mvlm_model *model = open_with_tokenizer(checkpoint, NULL, -1);
        check_lines(model, lines);
        mvlm_model_close(model);
    }
}

/* Byte-level BPE, with the published vocabularies. */
static void shared_byte_tokens(void **state)
{
    static const struct {
        const char *checkpoint, *lines;
    } rows[] = {{SHARED_DIR "/reference/family/cases/imp-phi2-vocabulary/checkpoint",
                 SHARED_DIR "/reference/tokens/phi-2.jsonl"},
                {SHARED_DIR "/reference/family/cases/imp-qwen-vocabulary/checkpoint",
                 SHARED_DIR "/reference/tokens/qwen1.5.jsonl"}};
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (!path_exists(rows[i].lines))
            skip();
        mvlm_model *model = open_with_tokenizer(rows[i].checkpoint, NULL, -1);
        check_lines(model, rows[i].lines);
        mvlm_model_close(model);
    }
}

/* A conversation as turns, and its whole text read raw: both give the published ids. */
static void check_conversation(const mvlm_model *model, const json_t *chat)
{
    static const mvlm_picture none[8];
    const json_t *pairs = json_object_get(chat, "turns");
    const char *prompt = json_string_value(json_object_get(chat, "prompt"));
    mvlm_turn turns[8] = {{0}};
    mvlm_question question = {.pictures = none, .turns = turns, .n_turns = json_array_size(pairs)};
    mvlm_error error = {0};
    struct id_list list = {0};
    for (size_t i = 0; i < question.n_turns; i++) {
        turns[i].question = json_string_value(json_array_get(json_array_get(pairs, i), 0));
        turns[i].answer = json_string_value(json_array_get(json_array_get(pairs, i), 1));
        for (const char *at = turns[i].question; (at = strstr(at, "<image>")) != NULL; at++)
            question.n_pictures++;
    }
    /* typed special tokens are plain text in turns, by design: the published tokenizer reads them
     */
    const char *const special[] = {"<s>", "</s>", "<unk>"};
    bool typed = false;
    for (size_t i = 0; i < question.n_turns; i++)
        for (size_t k = 0; k < 3; k++)
            typed = typed || strstr(turns[i].question, special[k]) ||
                    (turns[i].answer && strstr(turns[i].answer, special[k]));
    if (prompt_ids(model, &question, &list, &error) != MVLM_OK)
        fail_msg("%s", error.message);
    if (!typed)
        compare("turns", prompt, list.ids, list.n, json_object_get(chat, "ids"));
    int32_t ids[4096];
    size_t n_ids;
    assert_int_equal(mvlm_tokenize(model, prompt, strlen(prompt), MVLM_ADD_BOS | MVLM_READ_SPECIAL,
                                   ids, 4096, &n_ids, &error),
                     MVLM_OK);
    compare("raw", prompt, ids, n_ids, json_object_get(chat, "ids"));
    free(list.ids);
}

static void check_chats(const char *path, const char *checkpoint)
{
    json_t *chats = json_load_test(path);
    for (int legacy = 0; legacy < 2; legacy++) {
        mvlm_model *model = open_with_tokenizer(checkpoint, NULL, legacy);
        size_t n = 0;
        for (size_t i = 0; i < json_array_size(chats); i++) {
            const json_t *chat = json_array_get(chats, i);
            if (json_is_true(json_object_get(chat, "legacy")) != legacy)
                continue;
            check_conversation(model, chat);
            n++;
        }
        assert_true(n >= 5);
        mvlm_model_close(model);
    }
    json_decref(chats);
}

static void own_chats(void **state)
{
    (void)state;
    check_chats(SOURCE_DIR "/tests/golden/tokens/chat.json",
                SOURCE_DIR "/tests/golden/cases/v1/checkpoint");
}

static void shared_chats(void **state)
{
    (void)state;
    if (!path_exists(SHARED_DIR "/reference/tokens/chat.json"))
        skip();
    check_chats(SHARED_DIR "/reference/tokens/chat.json",
                SHARED_DIR "/reference/cases/llama-vocabulary/checkpoint");
}

static void refuses(const mvlm_model *model, const mvlm_question *question, const char *expected)
{
    struct id_list list = {0};
    mvlm_error error = {0};
    assert_int_equal(prompt_ids(model, question, &list, &error), MVLM_USAGE);
    if (!strstr(error.message, expected))
        fail_msg("message \"%s\" lacks \"%s\"", error.message, expected);
    free(list.ids);
}

/* What a user types is plain text but for <image>; marks and pictures must agree. */
static void prompts(void **state)
{
    (void)state;
    mvlm_model *model =
        open_with_tokenizer(SOURCE_DIR "/tests/golden/cases/v1/checkpoint", NULL, -1);
    const mvlm_picture pictures[3] = {{0}};
    mvlm_turn turn = {.question = "a </s> b"};
    mvlm_question question = {.turns = &turn, .n_turns = 1, .pictures = pictures};
    mvlm_error error = {0};
    struct id_list list = {0};
    assert_int_equal(prompt_ids(model, &question, &list, &error), MVLM_OK);
    for (size_t i = 1; i < list.n; i++)
        assert_true(list.ids[i] > 2); /* no end token but the BOS in front */
    list.n = 0;

    question.n_pictures = 2;
    turn.question = "which?";
    assert_int_equal(prompt_ids(model, &question, &list, &error), MVLM_OK);
    size_t n_images = 0;
    for (size_t i = 0; i < list.n; i++)
        n_images += list.ids[i] == MVLM_IMAGE_ID;
    assert_int_equal(n_images, 2);
    free(list.ids);

    turn.question = "<image> and?";
    refuses(model, &question, "1 <image> marks");
    question.n_pictures = 0;
    refuses(model, &question, "0 pictures");
    turn.question = "";
    refuses(model, &question, "empty");
    turn.question = "a\xff";
    refuses(model, &question, "UTF-8: byte 0xff at 1");
    turn = (mvlm_turn){"a", "b"};
    refuses(model, &question, "last turn");
    mvlm_model_close(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(own_tokens),        cmocka_unit_test(shared_tokens),
        cmocka_unit_test(own_family_tokens), cmocka_unit_test(shared_byte_tokens),
        cmocka_unit_test(own_chats),         cmocka_unit_test(shared_chats),
        cmocka_unit_test(prompts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
