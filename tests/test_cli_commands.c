/* The other commands of the command line, where they work: info, verify, tokenize, perplexity,
 * trace, help. */
#include <dirent.h>
#include <math.h>

#include "cli_fixture.h"
#include "format.h"
#include "json_file.h"

/* ---- info and verify -------------------------------------------------------------------- */

static void expect_tiling(const json_t *tensors, json_int_t n_bytes)
{
    json_int_t end = 0;
    assert_true(json_array_size(tensors) > 0);
    for (size_t i = 0; i < json_array_size(tensors); i++) {
        const json_t *t = json_array_get(tensors, i), *shape = json_object_get(t, "shape");
        const json_int_t offset = integer_of(t, "offset"),
                         rows = json_integer_value(json_array_get(shape, 0)),
                         columns = json_integer_value(json_array_get(shape, 1));
        assert_string_equal(text_of(t, "type"), "f32");
        assert_true(strlen(text_of(t, "name")) > 0 && json_array_size(shape) == 2);
        assert_true(integer_of(t, "bytes") >= 4 * rows * columns); /* tiles are whole */
        assert_true(
            offset >= end &&
            (i == 0 || offset < end + FORMAT_SECTION_ALIGN)); /* nothing but padding between */
        end = offset + integer_of(t, "bytes");
    }
    assert_int_equal(end, n_bytes);
}

static void info_describes_the_file(void **state)
{
    static const char *const parts[] = {"weights", "kv_cache", "scratch"};
    char *model = expand("@t/v1.bin");
    size_t n_bytes;
    free(file_load(model, &n_bytes));
    json_t *json = good_json(cli(WORDS("info", V1, "--json"), NULL, NULL, NULL));
    const json_t *memory = json_object_get(json, "memory"),
                 *description = json_object_get(json, "description");
    json_int_t total = 0;
    (void)state;
    assert_string_equal(text_of(json, "path"), model);
    assert_int_equal(integer_of(json, "bytes"), n_bytes);
    assert_int_equal(integer_of(json, "format_version"), 1);
    assert_true(is_digest(text_of(json, "model_digest")));
    assert_int_equal(integer_of(description, "decoder.hidden"), 64);
    assert_int_equal(integer_of(description, "image.size"), 70);
    assert_int_equal(integer_of(description, "vision.n_layers"), 2);
    assert_string_equal(text_of(description, "projector.kind"), "ldp");
    expect_tiling(json_object_get(json, "tensors"), (json_int_t)n_bytes);
    for (size_t i = 0; i < 3; i++) {
        assert_true(integer_of(memory, parts[i]) > 0);
        total += integer_of(memory, parts[i]);
    }
    assert_int_equal(integer_of(memory, "total"), total);
    char *text = good_output(cli(WORDS("info", V1), NULL, NULL, NULL), NULL);
    assert_non_null(strstr(text, text_of(json, "model_digest")));
    assert_non_null(strstr(text, "decoder.hidden"));
    free(text);
    json_decref(json);
    free(model);
}

static void verify_finds_a_good_file(void **state)
{
    (void)state;
    char *text = good_output(cli(WORDS("verify", V1), NULL, NULL, NULL), NULL);
    assert_non_null(strstr(text, "good"));
    free(text);
    expect_output(cli(WORDS("verify", V1, "-q"), NULL, NULL, NULL), "");
}

/* ---- tokenize and perplexity ------------------------------------------------------------ */

static void tokenizes(void **state)
{
    static const struct {
        const char *words[4], *input, *output;
    } cases[] = {
        {{NULL}, "   a", "264 385 261\n"},
        {{NULL}, "   a\n", "264 385 261\n"},
        {{NULL}, "\n\n", "385 13\n"},
        {{NULL}, "", "\n"},
        {{"--bos"}, "", "1\n"},
        {{"--bos"}, "   a", "1 264 385 261\n"},
        {{"--jsonl"}, "{\"text\": \"   a\"}\n{\"text\": \"\"}\n", "[264, 385, 261]\n[]\n"},
        {{"--jsonl", "--bos"}, "{\"text\": \"\\n\"}", "[1, 385, 13]\n"},
        {{"--decode"}, "264 385 261\n", "   a\n"},
        {{"--decode"}, "1 264\t385\n261 2", "   a\n"},
        {{"--decode"}, "", "\n"},
        {{"--decode", "--jsonl"},
         "[264, 385, 261]\n[]\n",
         "{\"text\": \"   a\"}\n{\"text\": \"\"}\n"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *words[8] = {"tokenize", TEXT};
        memcpy(words + 3, cases[i].words, sizeof cases[i].words);
        expect_output(cli(words, NULL, cases[i].input, NULL), cases[i].output);
    }
    char *plain = good_output(cli(WORDS("tokenize", V1), NULL, "a<image></s>", NULL), NULL);
    char *raw = good_output(cli(WORDS("tokenize", V1, "--raw"), NULL, "a<image></s>", NULL), NULL);
    assert_null(strstr(plain, "-200"));
    assert_string_equal(raw, "261 -200 2\n");
    free(plain);
    free(raw);
}

/* What SentencePiece writes for a space comes back as one, also where the text itself held it. */
static void unescape_spaces(char *text)
{
    for (char *at; (at = strstr(text, "\u2581"));) {
        *at = ' ';
        memmove(at + 1, at + 3, strlen(at + 3) + 1);
    }
}

/* Every golden text to ids, and back to itself; with a NUL, too. */
static void token_lines_go_there_and_back(void **state)
{
    static const char first[] = "{\"text\": \"a\\u0000b\"}\n";
    size_t n;
    char *golden = file_load(GOLDEN "/tokens/tokenizer.jsonl", &n),
         *lines = malloc(n + sizeof first), *at = lines;
    (void)state;
    at = stpcpy(at, first);
    for (char *line = strtok(golden, "\n"); line; line = strtok(NULL, "\n")) {
        json_t *json = json_loads(line, JSON_ALLOW_NUL, NULL);
        json_t *text = json_pack("{s:O}", "text", json_object_get(json, "text"));
        char *dumped = json_written(text, 0);
        at += sprintf(at, "%s\n", dumped);
        free(dumped);
        json_decref(text);
        json_decref(json);
    }
    char *ids = good_output(cli(WORDS("tokenize", TEXT, "--jsonl"), NULL, lines, NULL), NULL);
    assert_memory_equal(ids, "[261, 3, ", 9); /* "a", byte 0 */
    unescape_spaces(lines);
    expect_output(cli(WORDS("tokenize", TEXT, "--jsonl", "--decode"), NULL, ids, NULL), lines);
    free(ids);
    free(lines);
    free(golden);
}

static void perplexity_is_the_references(void **state)
{
    json_t *record = golden_record("text"), *expected = json_object_get(record, "perplexity");
    json_t *json =
        good_json(cli(WORDS("perplexity", TEXT, "-f", "@g/text.txt", "--windows", "10", "--json"),
                      NULL, NULL, NULL));
    const double nll = json_real_value(json_object_get(json, "nll"));
    (void)state;
    assert_int_equal(integer_of(json, "tokens"), integer_of(expected, "tokens"));
    assert_true(fabs(nll - json_real_value(json_object_get(expected, "nll"))) < 1e-5);
    assert_true(fabs(json_real_value(json_object_get(json, "perplexity")) - exp(nll)) < 1e-6);
    char line[128];
    snprintf(line, sizeof line, "tokens %d, nll %.6f, perplexity %.4f\n",
             (int)integer_of(json, "tokens"), nll, exp(nll));
    expect_output(cli(WORDS("perplexity", TEXT, "--file", "-", "--window=256", "--windows", "10"),
                      "exec \"$0\" \"$@\" <@g/text.txt", NULL, NULL),
                  line);
    json_decref(json);
    json_decref(record);
}

/* ---- trace ------------------------------------------------------------------------------ */

struct traced {
    const char *name;
    char type;
    size_t shape[3];
};

/* The folder holds these arrays and nothing else. */
static void expect_arrays(const char *folder, const struct traced *arrays, size_t n)
{
    DIR *directory = opendir(folder);
    size_t n_files = 0;
    assert_non_null(directory);
    for (const struct dirent *entry; (entry = readdir(directory));)
        n_files += entry->d_name[0] != '.';
    closedir(directory);
    assert_int_equal(n_files, n);
    for (size_t i = 0; i < n; i++) {
        struct array array;
        char *path = path_of(folder, arrays[i].name, NULL);
        array_load(&array, path);
        assert_int_equal(array.type, arrays[i].type);
        for (int d = 0; d < 3; d++)
            assert_int_equal(d < array.n_dims ? array.shape[d] : 0, arrays[i].shape[d]);
        array_free(&array);
        free(path);
    }
}

/* Traces into a folder that is not there yet. */
static void trace(const char *const *more, const char *output, const struct traced *arrays,
                  size_t n)
{
    char *folder = expand("@t/trace");
    const char *words[MAX_WORDS] = {"trace", "-o", folder};
    for (size_t i = 0; more[i]; i++)
        words[3 + i] = more[i];
    expect_output(cli(words, NULL, NULL, NULL), output);
    expect_arrays(folder, arrays, n);
    remove_folder(folder);
    free(folder);
}

static const struct traced all_stages[] = {
    {"input_ids.npy", 'i', {95}},
    {"pixels.npy", 'f', {3, 70, 70}},
    {"vision.npy", 'f', {25, 48}},
    {"projector.npy", 'f', {9, 64}},
    {"logits.npy", 'f', {103, 470}},
    {"generated_ids.npy", 'i', {24}},
    {"generated_logits.npy", 'f', {24, 470}},
};

static void traces_every_stage(void **state)
{
    static const struct traced text[] = {{"input_ids.npy", 'i', {12}},
                                         {"logits.npy", 'f', {12, 470}},
                                         {"generated_ids.npy", 'i', {6}},
                                         {"generated_logits.npy", 'f', {7, 470}}};
    char *answer = expected_answer("v1");
    (void)state;
    trace(WORDS(V1, PICTURE, QUESTION), answer, all_stages, 7);
    trace(WORDS(TEXT, HORSES), "There are 43.\n", text, 4);
    free(answer);
}

static void trace_stops_where_told(void **state)
{
    static const char *const stages[] = {"pixels", "vision", "projector", "logits"};
    static const struct traced two[] = {
        {"input_ids.npy", 'i', {4}},        {"pixels.npy", 'f', {3, 70, 70}},
        {"pixels.1.npy", 'f', {3, 70, 70}}, {"vision.npy", 'f', {25, 40}},
        {"vision.1.npy", 'f', {25, 40}},    {"projector.npy", 'f', {25, 64}},
        {"projector.1.npy", 'f', {25, 64}}};
    (void)state;
    for (size_t i = 0; i < 4; i++)
        trace(WORDS(V1, PICTURE, QUESTION, "--until", stages[i]), "", all_stages, 2 + i);
    trace(WORDS("-m", "@t/two-images.bin", "--raw", "-p", "<image><image>a", "-i",
                "@g/images/grey.png", "-i", "@g/images/tall.png", "--until=projector", "--json"),
          "", two, 7);
}

/* ---- Help ------------------------------------------------------------------------------- */

/* How often `name` stands alone before the options' explanations. */
static size_t count_spelling(const char *help, const char *name)
{
    size_t n = 0;
    for (const char *at = help; (at = strstr(at, name)); at += strlen(name)) {
        const char *line = at;
        while (line > help && line[-1] != '\n')
            line--;
        const char *explained = strncmp(line, "  -", 3) == 0 ? strstr(line + 3, "  ") : NULL;
        n += explained && at < explained && at[-1] == ' ' && strchr(", ", at[strlen(name)]);
    }
    return n;
}

static void help_names_every_option_once(void **state)
{
    static const char common[] = "-m --model --isa -v --verbose -q --quiet -h --help --version";
    static const char ask[] =
        "-i --image -p --prompt -f --file --system --raw -n --max-tokens --predict --n-predict "
        "--temp --top-k --top-p --min-p --repeat-penalty -s --seed --stop -c --ctx-size --kv-type "
        "-ctk -ctv -t --threads --max-rss --max-pixels --json";
    static const struct {
        const char *command, *options, *more;
    } commands[] = {
        {"run", ask, ""},
        {"trace", ask, "-o --output --until"},
        {"info", "-c --ctx-size --kv-type -ctk -ctv -t --threads --json", ""},
        {"verify", "", ""},
        {"tokenize", "--raw --bos --jsonl --decode", ""},
        {"perplexity", "-f --file -c --ctx-size --kv-type -ctk -ctv -t --threads --max-rss --json",
         "--window --windows"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        char *help = good_output(cli(WORDS("help", commands[i].command), NULL, NULL, NULL), NULL),
             *list;
        assert_true(asprintf(&list, "%s %s %s", common, commands[i].options, commands[i].more) > 0);
        for (char *name = strtok(list, " "); name; name = strtok(NULL, " "))
            if (count_spelling(help, name) != 1)
                fail_msg("help %s names %s %zu times", commands[i].command, name,
                         count_spelling(help, name));
        expect_output(cli(WORDS(commands[i].command, "--help"), NULL, NULL, NULL), help);
        free(list);
        free(help);
    }
}

static void help_and_version_need_no_model(void **state)
{
    (void)state;
    char *help = good_output(cli(WORDS("--help"), NULL, NULL, NULL), NULL);
    assert_non_null(strstr(help, "perplexity"));
    expect_output(cli(WORDS("-h"), NULL, NULL, NULL), help);
    expect_output(cli(WORDS("help"), NULL, NULL, NULL), help);
    expect_output(cli(WORDS("--version"), NULL, NULL, NULL), "mobilevlm " MVLM_VERSION "\n");
    free(help);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(info_describes_the_file),
        cmocka_unit_test(verify_finds_a_good_file),
        cmocka_unit_test(tokenizes),
        cmocka_unit_test(token_lines_go_there_and_back),
        cmocka_unit_test(perplexity_is_the_references),
        cmocka_unit_test(traces_every_stage),
        cmocka_unit_test(trace_stops_where_told),
        cmocka_unit_test(help_names_every_option_once),
        cmocka_unit_test(help_and_version_need_no_model),
    };
    return cmocka_run_group_tests(tests, cli_setup, cli_teardown);
}
