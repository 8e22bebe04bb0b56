/* Byte-level tokenizers in all their published forms: what is read alike, and what is refused. */
#include "convert_fixture.h"

#include "json_file.h"

static json_t *load_json(const char *name)
{
    json_t *json;
    mvlm_error error = {0};
    if (json_file_load(checkpoint, name, false, &json, &error) != MVLM_OK)
        fail_msg("%s", error.message);
    return json;
}

static void save_json(json_t *json, const char *name)
{
    char path[700];
    snprintf(path, sizeof path, "%s/%s", checkpoint, name);
    assert_int_equal(json_dump_file(json, path, 0), 0);
    json_decref(json);
}

static void refuses_wrong_vocabularies(void **state)
{
    static const struct {
        const char *piece, *id, *part;
    } rows[] = {
        {"he", "9999", "\"he\" has no id"},  {"he", "-1", "\"he\" has no id"},
        {"he", "1.5", "\"he\" has no id"},   {"he", "null", "\"he\" has no id"},
        {"he", "5", "have the same id 5"},   {"he", "[]", "\"he\" has no id"},
        {"new", "401", "\"new\" has no id"}, {"", "300", "0 bytes"},
    };
    static const struct {
        const char *merges, *part;
    } texts[] = {
        {"", "0 merges for 400 pieces"},
        {"#version: 0.2\nh e\n", "1 merges for 400 pieces"},
        {"#version: 0.2\nh e\nxyzzy q\n", "merge 2: \"xyzzy\" is no piece"},
        {"h e\nt z\n", "merge 1: \"tz\" is no piece"},
        {"t\n", "merge 0: \"t\" is no two pieces"},
        {"t h e\n", "merge 0: \"t h e\" is no two pieces"},
        {" t\n", "is no two pieces"},
        {"t \n", "is no two pieces"},

    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        copy_checkpoint("imp-phi2");
        json_t *json = load_json("vocab.json");
        assert_true(i > 5 || json_object_get(json, rows[i].piece));
        json_object_set_new(json, rows[i].piece, json_loads(rows[i].id, JSON_DECODE_ANY, NULL));
        if (i == 7) /* that many as before */
            json_object_del(json, "ehi");
        save_json(json, "vocab.json");
        expect_refused(rows[i].part);
    }
    copy_checkpoint("imp-phi2");
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        write_text("merges.txt", texts[i].merges);
        expect_refused(texts[i].part);
    }
    file_write(checkpoint, "merges.txt", "t\0h\n", 4);
    expect_refused("holds a NUL");
    remove_file("merges.txt");
    expect_refused("merges.txt");
    remove_file("vocab.json");
    expect_refused("no tokenizer");
}

/* imp-phi2, without its model_max_length of 1e30, written as an integer, which is too large for the jansson of tests. */
static void copy_phi2(void)
{
    copy_checkpoint("imp-phi2");
    json_t *config = load_json("tokenizer_config.json");
    json_object_set_new(config, "model_max_length", json_integer(2048));
    save_json(config, "tokenizer_config.json");
}

static void refuses_wrong_added_tokens(void **state)
{
    static const struct {
        const char *file, *key, *value, *part;
    } rows[] = {
        {"tokenizer_config.json", "tokenizer_class", "\"WhisperTokenizer\"",
         "\"WhisperTokenizer\""},
        {"tokenizer_config.json", "tokenizer_class", NULL, "tokenizer_class"},
        {"tokenizer_config.json", "add_eos_token", "true", "add_eos_token"},
        {"tokenizer_config.json", "add_prefix_space", "true", "add_prefix_space"},
        {"tokenizer_config.json", "split_special_tokens", "true", "split_special_tokens"},
        {"tokenizer_config.json", "eos_token", "5", "eos_token"},
        {"tokenizer_config.json", "eos_token", "\"<end>\"", "\"<end>\" is no piece"},
        {"tokenizer_config.json", "additional_special_tokens", "{}", "additional_special_tokens"},
        {"tokenizer_config.json", "added_tokens_decoder", "[]", "added_tokens_decoder"},
        {"tokenizer_config.json", "clean_up_tokenization_spaces", "1", "clean_up"},
        {"tokenizer_config.json", "added_tokens_decoder", "{\"5\": {\"content\": \"other\"}}",
         "another piece"},
        {"tokenizer_config.json", "added_tokens_decoder", "{\"5\": {\"content\": \"z\"}}",
         "another piece"},
        {"special_tokens_map.json", "additional_special_tokens", "{}",
         "special_tokens_map.json: \"additional_special_tokens\" is no list"},
        {"tokenizer_config.json", "added_tokens_decoder", "{\"900\": {\"content\": \"other\"}}",
         "hole"},
        {"tokenizer_config.json", "added_tokens_decoder", "{\"x\": {\"content\": \"other\"}}",
         "hole"},
        {"tokenizer_config.json", "added_tokens_decoder", "{\"400\": {\"content\": \"\"}}",
         "no text"},
        {"tokenizer_config.json", "added_tokens_decoder",
         "{\"400\": {\"content\": \"<x>\", \"single_word\": true}}", "single word"},
        {"tokenizer_config.json", "added_tokens_decoder",
         "{\"400\": {\"content\": \"<x>\", \"rstrip\": 3}}", "rstrip"},
        {"tokenizer_config.json", "added_tokens_decoder", "{}", "not among the tokenizer's pieces"},
        {"added_tokens.json", "</s>", "7", "\"</s>\" (id 7)"},
        {"added_tokens.json", "<new>", "441", "\"<new>\" (id 441)"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        copy_phi2();
        set_field(rows[i].file, rows[i].key, rows[i].value);
        expect_refused(rows[i].part);
    }
}

static const char qwen2_pattern[] =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| "
    "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

/* A pre_tokenizer: with a split before it, or none (NULL). */
static json_t *words_of(const char *split, const char *behavior, bool invert)
{
    json_t *bytes = json_pack("{s:s, s:b, s:b}", "type", "ByteLevel", "add_prefix_space", 0,
                              "use_regex", !split);
    json_t *words = split ? json_pack("{s:s, s:[{s:s, s:{s:s}, s:s, s:b}, o]}", "type", "Sequence",
                                      "pretokenizers", "type", "Split", "pattern", "Regex", split,
                                      "behavior", behavior, "invert", invert, bytes)
                          : bytes;
    assert_non_null(words);
    return words;
}

/* tokenizer.json out of vocab.json and merges.txt, which are removed; pairs: merges as newer files have them. */
static void make_tokenizer_json(bool pairs, bool qwen2)
{
    size_t n;
    char path[700], line[300];
    json_t *merges = json_array(), *added = json_array(), *entry;
    const char *id;
    snprintf(path, sizeof path, "%s/merges.txt", checkpoint);
    char *text = file_load(path, &n), *rest = text;
    for (const char *at; (at = strsep(&rest, "\n")) != NULL;)
        if (*at && *at != '#') {
            snprintf(line, sizeof line, "%s", at);
            char *right = strchr(line, ' ');
            *right++ = 0;
            json_array_append_new(merges,
                                  pairs ? json_pack("[s, s]", line, right) : json_string(at));
        }
    free(text);
    json_t *config = load_json("tokenizer_config.json");
    json_object_foreach(json_object_get(config, "added_tokens_decoder"), id, entry)
    {
        json_object_set_new(entry, "id", json_integer(atoi(id)));
        json_array_append(added, entry);
    }
    json_t *json =
        json_pack("{s:{s:s, s:o, s:o}, s:o, s:o, s:o}", "model", "type", "BPE", "vocab",
                  load_json("vocab.json"), "merges", merges, "added_tokens", added, "pre_tokenizer",
                  words_of(qwen2 ? qwen2_pattern : NULL, "Isolated", false), "normalizer",
                  qwen2 ? json_pack("{s:s}", "type", "NFC") : json_null());
    assert_non_null(json);
    save_json(json, "tokenizer.json");
    json_decref(config);
    remove_file("vocab.json");
    remove_file("merges.txt");
}

static char *ids_of_text(void)
{
    static const char text[] = "It's  a\t\tcat, isn't it?\n\n  1234 na\xc3\xafve e\xcc\x81 IT'S   ";
    struct program_result result;
    program_run(&result, WORDS(MOBILEVLM_PROGRAM, "tokenize", "-m", model), text, sizeof text - 1,
                NULL);
    assert_int_equal(result.code, 0);
    char *ids = strdup(result.out);
    program_free(&result);
    return ids;
}

/* So does a class by its other name, and a post_processor that changes no ids. */
static void tokenizer_json_says_the_same(void **state)
{
    (void)state;
    copy_phi2();
    set_field("tokenizer_config.json", "tokenizer_class", "\"CodeGenTokenizerFast\"");
    expect_good(convert_with(WORDS("--type", "f32", "-q")), "");
    char *expected = ids_of_text();
    for (int pairs = 0; pairs < 2; pairs++) {
        copy_phi2();
        make_tokenizer_json(pairs, false);
        if (pairs)
            set_field("tokenizer.json", "post_processor",
                      "{\"type\": \"Sequence\", \"processors\": [{\"type\": \"ByteLevel\"}]}");
        expect_good(convert_with(WORDS("--type", "f32", "-q", "--force")), "");
        char *ids = ids_of_text();
        assert_string_equal(ids, expected);
        free(ids);
    }
    free(expected);
}

/* Qwen2's: of the shared case, and as another class of the vocabulary that is here. */
static void qwen2_tokenizer_json_says_the_same(void **state)
{
    static const char source[] = SHARED_DIR "/reference/family/cases/imp-qwen/checkpoint";
    (void)state;
    for (int shared = 0; shared < 1 + path_exists(source); shared++) {
        if (shared) {
            expect_good(run(WORDS("rm", "-r", checkpoint), NULL), "");
            expect_good(run(WORDS("cp", "-R", source, checkpoint), NULL), "");
            expect_good(run(WORDS("chmod", "-R", "u+w", checkpoint), NULL), "");
        } else {
            copy_phi2();
            set_field("tokenizer_config.json", "tokenizer_class", "\"Qwen2Tokenizer\"");
        }
        expect_good(convert_with(WORDS("--type", "f32", "-q", "--force")), "");
        char *expected = ids_of_text();
        make_tokenizer_json(true, true);
        expect_good(convert_with(WORDS("--type", "f32", "-q", "--force")), "");
        char *ids = ids_of_text();
        assert_string_equal(ids, expected);
        free(ids);
        free(expected);
    }
}

static void refuses_wrong_tokenizer_json(void **state)
{
    static const struct {
        const char *object, *key, *value, *part;
    } rows[] = {
        {"model", "type", "\"Unigram\"", "\"Unigram\""},
        {"model", "byte_fallback", "true", "tokenizer.model is read"},
        {"model", "ignore_merges", "true", "ignore_merges"},
        {"model", "dropout", "0.1", "dropout"},
        {"model", "merges", "{}", "\"merges\" is no list"},
        {"model", "merges", "[]", "0 merges"},
        {NULL, "added_tokens", "{}", "added_tokens"},
        {NULL, "post_processor", "{\"type\": \"TemplateProcessing\"}", "\"TemplateProcessing\""},
        {NULL, "post_processor", "{\"type\": \"Sequence\", \"processors\": [{\"type\": \"Bert\"}]}",
         "\"Bert\""},
        {"model", "merges", "[[\"t\"]]", "merge 1 is no pair"},
        {"model", "merges", "[3]", "merge 1 is no pair"},
        {"model", "merges", "[\"t xyzzy\"]", "\"xyzzy\" is no piece"},
        {"model", "vocab", "{}", "0 pieces"},
        {"model", "vocab", "3", "0 pieces"},
        {"pre_tokenizer", "type", "\"Whitespace\"", "\"Whitespace\""},
        {"pre_tokenizer", "add_prefix_space", "true", "\"ByteLevel\""},
        {"pre_tokenizer", "use_regex", "false", "\"ByteLevel\""},
        {NULL, "normalizer", "{\"type\": \"Lowercase\"}", "\"Lowercase\""},
        {NULL, "added_tokens", "[{\"content\": \"x\"}]", "hole"},
    };
    (void)state;
    copy_phi2();
    make_tokenizer_json(false, false);
    json_t *good = load_json("tokenizer.json");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        json_t *json = json_deep_copy(good),
               *object = rows[i].object ? json_object_get(json, rows[i].object) : json;
        json_object_set_new(object, rows[i].key, json_loads(rows[i].value, JSON_DECODE_ANY, NULL));
        save_json(json, "tokenizer.json");
        expect_refused(rows[i].part);
    }
    static const struct {
        const char *pattern, *behavior;
        bool invert;
    } splits[] = {{"\\s+", "Isolated", false},
                  {qwen2_pattern, "Removed", false},
                  {qwen2_pattern, "Isolated", true}};
    for (size_t i = 0; i < sizeof splits / sizeof *splits; i++) {
        json_object_set_new(good, "pre_tokenizer",
                            words_of(splits[i].pattern, splits[i].behavior, splits[i].invert));
        save_json(json_incref(good), "tokenizer.json");
        expect_refused("\"Sequence\" is neither GPT-2's nor Qwen2's");
    }
    json_decref(good);
}

static void survives_damaged_files(void **state)
{
    static const char *const files[] = {"vocab.json", "merges.txt", "tokenizer_config.json",
                                        "added_tokens.json", "special_tokens_map.json"};
    (void)state;
    copy_checkpoint("imp-phi2");
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        expect_survival(checkpoint, files[i], WORDS("--type", "f32", "-q"));
    make_tokenizer_json(true, false);
    expect_survival(checkpoint, "tokenizer.json", WORDS("--type", "f32", "-q"));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, convert_setup, convert_teardown)
    const struct CMUnitTest tests[] = {
        TEST(refuses_wrong_vocabularies),   TEST(refuses_wrong_added_tokens),
        TEST(tokenizer_json_says_the_same), TEST(qwen2_tokenizer_json_says_the_same),
        TEST(refuses_wrong_tokenizer_json), TEST(survives_damaged_files),
    };
    return cmocka_run_group_tests_name("tokenizer", tests, NULL, NULL);
}
