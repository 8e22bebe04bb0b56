/* The command line, where it refuses: every failure has its exit code, one line on standard error
 * that names what is wrong, and nothing on standard output. Then full devices, closed pipes and
 * signals. */
#include <sys/stat.h>
#include <unistd.h>

#include "cli_fixture.h"

struct refusal {
    const char *words[14];
    const char *part; /* of the message */
    const char *script, *input, *variable;
};

static void expect_errors(int code, const struct refusal *refusals, size_t n)
{
    for (size_t i = 0; i < n; i++)
        expect_error(
            cli(refusals[i].words, refusals[i].script, refusals[i].input, refusals[i].variable),
            code, refusals[i].part);
}

#define EXPECT_ERRORS(code, table) expect_errors(code, table, sizeof(table) / sizeof *(table))

static void save(const char *path, const char *text)
{
    char *expanded = expand(path);
    file_save(expanded, text, strlen(text));
    free(expanded);
}

/* ---- Usage ------------------------------------------------------------------------------ */

static void refuses_wrong_options(void **state)
{
    static const struct refusal refusals[] = {
        {{NULL}, .part = "--help"},
        {{"-p", "a"}, .part = "-m"},
        {{"info"}, .part = "-m"},
        {{"verify"}, .part = "-m"},
        {{"tokenize"}, .part = "-m"},
        {{"perplexity", "-f", "@g/text.txt"}, .part = "-m"},
        {{"trace", "-p", "a", "-o", "@t/trace"}, .part = "-m"},
        {{TEXT, "-p", "a", "--no-such"}, .part = "--no-such"},
        {{TEXT, "-p", "a", "--no-such=3"}, .part = "--no-such"},
        {{TEXT, "-p", "a", "-z"}, .part = "-z"},
        {{TEXT, "-p", "a", "-n5"}, .part = "-n5"},
        {{TEXT, "-p", "a", "--max"}, .part = "--max"},
        {{TEXT, "-p", "a", "--windows", "3"}, .part = "--windows is no option of run"},
        {{"info", TEXT, "--image=a.png"}, .part = "--image is no option of info"},
        {{"tokenize", TEXT, "-n", "3"}, .part = "-n is no option of tokenize"},
        {{TEXT, "-p"}, .part = "-p"},
        {{TEXT, "-p", "a", "--temp"}, .part = "--temp"},
        {{TEXT, "-p", "a", "--raw=1"}, .part = "--raw"},
        {{TEXT, "-p", "a", "-n", "many"}, .part = "-n: \"many\""},
        {{TEXT, "-p", "a", "-n", "12x"}, .part = "-n: \"12x\""},
        {{TEXT, "-p", "a", "-n", ""}, .part = "-n: \"\""},
        {{TEXT, "-p", "a", "-n", " 3"}, .part = "-n: \" 3\""},
        {{TEXT, "-p", "a", "-n", "1.5"}, .part = "-n: \"1.5\""},
        {{TEXT, "-p", "a", "-n", "0"}, .part = "-n: 0"},
        {{TEXT, "-p", "a", "--max-tokens=-4"}, .part = "--max-tokens: -4"},
        {{TEXT, "-p", "a", "-n", "99999999999999999999"}, .part = "-n: 99999999999999999999"},
        {{TEXT, "-p", "a", "--temp", "hot"}, .part = "--temp: \"hot\""},
        {{TEXT, "-p", "a", "--temp", "nan"}, .part = "--temp: nan"},
        {{TEXT, "-p", "a", "--temp", "-1"}, .part = "--temp: -1"},
        {{TEXT, "-p", "a", "--top-p", "1.5"}, .part = "--top-p: 1.5"},
        {{TEXT, "-p", "a", "--min-p", "-0.1"}, .part = "--min-p: -0.1"},
        {{TEXT, "-p", "a", "-t", "0"}, .part = "-t: 0"},
        {{TEXT, "-p", "a", "-c", "-1"}, .part = "-c: -1"},
        {{TEXT, "-p", "a", "--max-rss", "1Q"}, .part = "--max-rss: \"1Q\""},
        {{TEXT, "-p", "a", "--max-rss", "1GG"}, .part = "--max-rss: \"1GG\""},
        {{TEXT, "-p", "a", "--max-rss", "-1"}, .part = "--max-rss: -1"},
        {{TEXT, "-p", "a", "-ctk", "q3"}, .part = "-ctk: \"q3\""},
        {{TEXT, "-p", "a", "word"}, .part = "\"word\""},
        {{TEXT, "-p", "a", "--", "-n"}, .part = "\"-n\""},
        {{"no-such"}, .part = "\"no-such\""},
        {{"help", "no-such"}, .part = "\"no-such\""},
        {{TEXT, "-p", "a\nb", "two\nlines"}, .part = "two"},
        {{"-m", "@t/text.bin", "-n", "\033[31m"}, .part = "-n"},
        {{TEXT, "-p", "a"},
         .part = "MOBILEVLM_MAX_TOKENS: \"x\"",
         .variable = "MOBILEVLM_MAX_TOKENS=x"},
        {{TEXT, "-p", "a"}, .part = "MOBILEVLM_RAW: \"yes\"", .variable = "MOBILEVLM_RAW=yes"},
        {{TEXT, "-p", "a"}, .part = "this machine has c", .variable = "MOBILEVLM_ISA=z80"},
        {{"info", TEXT, "--isa", "z80"}, .part = "\"z80\": this machine has c"},
        {{"trace", TEXT, "-p", "a"}, .part = "-o"},
        {{"trace", TEXT, "-p", "a", "-o", "@t/trace", "--until", "dawn"},
         .part = "--until: \"dawn\""},
        {{"perplexity", TEXT}, .part = "-f"},
        {{"perplexity", TEXT, "-f", "@t/missing.txt"}, .part = "@t/missing.txt"},
        {{"perplexity", TEXT, "-f", "-"}, .part = "empty"},
        {{"perplexity", TEXT, "-f", "@t/", "-q"}, .part = "folder"},
        {{"tokenize", TEXT, "--decode"}, .part = "\"x\"", .input = "3 x 4"},
        {{"tokenize", TEXT, "--decode"}, .part = "470", .input = "470"},
        {{"tokenize", TEXT, "--decode"}, .part = "-3", .input = "-3"},
        {{"tokenize", TEXT}, .part = "UTF-8", .input = "a\xff"},
        {{"tokenize", TEXT, "--jsonl"}, .part = "line 1", .input = "3\n"},
        {{"tokenize", TEXT, "--jsonl"}, .part = "line 3", .input = "\n\n{\"text\": 3}"},
        {{"tokenize", TEXT, "--jsonl"}, .part = "line 1", .input = "{\"text\": \"a\"\n"},
        {{"tokenize", TEXT, "--jsonl", "--decode"},
         .part = "line 1",
         .input = "{\"text\": \"a\"}\n"},
        {{"tokenize", TEXT, "--jsonl", "--decode"}, .part = "line 1", .input = "[1.5]\n"},
        {{"tokenize", TEXT, "--jsonl", "--decode"}, .part = "line 1", .input = "[470]\n"},
    };
    (void)state;
    EXPECT_ERRORS(2, refusals);
}

static void refuses_wrong_prompts(void **state)
{
    static const struct refusal refusals[] = {
        {{TEXT}, .part = "-p"},
        {{V1, "-i", "@g/images/landscape.png"}, .part = "-p"},
        {{TEXT, "-p", "a", "-f", "@t/question.txt"}, .part = "-f"},
        {{TEXT, "-p", ""}, .part = "empty"},
        {{V1, "-p", ""}, .part = "empty"},
        {{TEXT, "-f", "-"}, .part = "empty"},
        {{TEXT, "-f", "@t/missing.txt"}, .part = "@t/missing.txt"},
        {{TEXT, "-f", "@t/"}, .part = "folder"},
        {{TEXT, "-p", "a\xff"}, .part = "UTF-8"},
        {{V1, "-p", "\xed\xa0\x80"}, .part = "UTF-8"},
        {{V1, "-p", "a", "--system", "\xc3"}, .part = "UTF-8"},
        {{TEXT, "-f", "-"}, .part = "NUL", .script = "printf 'a\\0b' | \"$0\" \"$@\""},
        {{V1, PICTURE, QUESTION, "-c", "50"}, .part = "103"},
        {{V1, PICTURE, QUESTION, "-c", "50"}, .part = "50"},
        {{TEXT, HORSES, "-c", "5"}, .part = "12"},
        {{V1, "-p", "<image> and <image>?", PICTURE}, .part = "2"},
        {{V1, "-p", "<image>?", PICTURE, PICTURE}, .part = "2"},
        {{V1, "-p", "<image>?"}, .part = "<image>"},
        {{V1, "--raw", "-p", "<image>?"}, .part = "<image>"},
        {{TEXT, "-p", "a", PICTURE}, .part = "picture"},
        {{TEXT, "-p", "<image>a", PICTURE}, .part = "picture"},
        {{V1, "-f", "-", "-i", "-"}, .part = "standard input", .input = "a"},
        {{V1, "-p", "a", "-i", "-", "-i", "-"}, .part = "standard input", .input = "a"},
    };
    (void)state;
    save("@t/question.txt", "a");
    EXPECT_ERRORS(2, refusals);
}

/* Longer than any context: by default too, with both numbers. */
static void refuses_a_prompt_beyond_the_context(void **state)
{
    enum { N = 9000 };
    char *prompt = calloc(1, N + 1);
    (void)state;
    for (size_t i = 0; i < N; i++)
        prompt[i] = "ab "[i % 3];
    expect_error(cli(WORDS(TEXT, "-f", "-"), NULL, prompt, NULL), 2, "2048");
    free(prompt);
}

/* ---- Model and pictures ----------------------------------------------------------------- */

static void refuses_wrong_models(void **state)
{
    static const struct refusal refusals[] = {
        {{"-m", "@t/missing.bin", "-p", "a"}, .part = "@t/missing.bin"},
        {{"-m", "@t/", "-p", "a"}, .part = "@t/"},
        {{"-m", "@g/text.txt", "-p", "a"}, .part = "@g/text.txt"},
        {{"-m", "@t/empty.bin", "-p", "a"}, .part = "@t/empty.bin"},
        {{"-m", "@t/short.bin", "-p", "a"}, .part = "@t/short.bin"},
        {{"-m", "/dev/null", "-p", "a"}, .part = "/dev/null"},
        {{"info", "-m", "@t/short.bin"}, .part = "@t/short.bin"},
        {{"verify", "-m", "@t/short.bin"}, .part = "@t/short.bin"},
        {{"tokenize", "-m", "@t/missing.bin"}, .part = "@t/missing.bin"},
        {{"perplexity", "-m", "@t/missing.bin", "-f", "@g/text.txt"}, .part = "@t/missing.bin"},
        {{"trace", "-m", "@t/missing.bin", "-p", "a", "-o", "@t/trace"}, .part = "@t/missing.bin"},
    };
    size_t n;
    char *good = expand("@t/text.bin"), *bad = expand("@t/short.bin"), *bytes = file_load(good, &n);
    (void)state;
    file_save(bad, bytes, n - 1);
    save("@t/empty.bin", "");
    EXPECT_ERRORS(3, refusals);
    /* the last byte of a tensor: the directory is right, only verify can tell */
    bytes[n - 1] ^= 1;
    file_save(bad, bytes, n);
    expect_error(cli(WORDS("verify", "-m", "@t/short.bin"), NULL, NULL, NULL), 3,
                 "@t/short.bin: tensor decoder.norm");
    free(bytes);
    free(good);
    free(bad);
}

static void refuses_wrong_pictures(void **state)
{
    static const char *const bad[] = {
        "animation.gif", "bomb.png",         "empty.jpg",      "half.jpg", "half.png",
        "heic.jpg",      "header-only.png",  "picture.tiff",   "text.jpg", "picture.webp",
        "soi-only.jpg",  "wide-huffman.jpg", "zero-width.png", "zip.png"};
    static const struct refusal refusals[] = {
        {{V1, "-p", "a", "-i", "@t/missing.png"}, .part = "@t/missing.png"},
        {{V1, "-p", "a", "-i", "@g/images"}, .part = "@g/images"},
        {{V1, "-p", "a", "-i", ""}, .part = ""},
        {{V1, "-p", "a", "-i", "@g/text.txt"}, .part = "@g/text.txt"},
        {{V1, "-p", "a", "-i", "-"}, .part = "standard input"},
        {{V1, "-p", "a", "-i", "-"}, .part = "standard input", .script = "exec \"$0\" \"$@\" <&-"},
        {{V1, "-p", "a", PICTURE, "-i", "@g/images/bad/half.png"},
         .part = "@g/images/bad/half.png"},
        {{V1, "-p", "a", PICTURE, "--max-pixels", "10"}, .part = "10"},
        {{V1, "-p", "a", "-i", "@g/images/bad/bomb.png", "--max-rss", "48M"},
         .part = "at most 2097153"},
        {{"trace", V1, "-p", "a", "-i", "@g/images/bad/half.jpg", "-o", "@t/trace"},
         .part = "half.jpg"},
    };
    (void)state;
    EXPECT_ERRORS(4, refusals);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char path[64];
        snprintf(path, sizeof path, "@g/images/bad/%s", bad[i]);
        expect_error(cli(WORDS(V1, "-p", "a", "-i", path), NULL, NULL, NULL), 4, path);
    }
}

static void refuses_what_needs_too_much_memory(void **state)
{
    static const struct refusal refusals[] = {
        {{V1, PICTURE, QUESTION, "--max-rss", "1K"}, .part = "1024"},
        {{V1, PICTURE, QUESTION, "--max-rss=1000000"}, .part = "1000000"},
        {{"perplexity", TEXT, "-f", "@g/text.txt", "--max-rss", "1K"}, .part = "1024"},
        {{V1, PICTURE, QUESTION}, .part = "1024", .variable = "MOBILEVLM_MAX_RSS=1K"},
    };
    (void)state;
    EXPECT_ERRORS(5, refusals);
}

/* ---- Outputs ---------------------------------------------------------------------------- */

static void full_devices_are_noticed(void **state)
{
    static const struct refusal refusals[] = {
        {{TEXT, HORSES}, .part = "standard output"},
        {{TEXT, HORSES, "--json"}, .part = "standard output"},
        {{"info", TEXT}, .part = "standard output"},
        {{"info", TEXT, "--json"}, .part = "standard output"},
        {{"verify", TEXT}, .part = "standard output"},
        {{"tokenize", TEXT}, .part = "standard output", .input = "a"},
        {{"tokenize", TEXT, "--jsonl"}, .part = "standard output", .input = "{\"text\": \"a\"}"},
        {{"tokenize", TEXT, "--decode"}, .part = "standard output", .input = "1 261"},
        {{"perplexity", TEXT, "-f", "@g/text.txt", "--windows", "1"}, .part = "standard output"},
        {{"trace", TEXT, HORSES, "-o", "@t/trace"}, .part = "standard output"},
        {{"--help"}, .part = "standard output"},
        {{"help", "run"}, .part = "standard output"},
        {{"--version"}, .part = "standard output"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++)
        for (int closed = 0; closed < 2; closed++)
            expect_error(cli(refusals[i].words,
                             closed ? "exec \"$0\" \"$@\" >&-" : "exec \"$0\" \"$@\" >/dev/full",
                             refusals[i].input, NULL),
                         8, refusals[i].part);
}

static void traces_need_a_folder(void **state)
{
    static const struct refusal refusals[] = {
        {{"trace", V1, PICTURE, QUESTION, "-o", "@t/v1.bin"}, .part = "@t/v1.bin"},
        {{"trace", V1, PICTURE, QUESTION, "-o", "@t/v1.bin/trace"}, .part = "@t/v1.bin/trace"},
        {{"trace", V1, PICTURE, QUESTION, "-o", "@t/no/such"}, .part = "@t/no/such"},
        {{"trace", V1, PICTURE, QUESTION, "-o", ""}, .part = ":"},
        {{"trace", V1, PICTURE, QUESTION, "-o", "@t/taken"}, .part = "@t/taken/vision.npy"},
        {{"trace", V1, PICTURE, QUESTION, "-o", "@t/full"}, .part = "@t/full/logits.npy"},
    };
    static const char *const folders[] = {"@t/taken", "@t/taken/vision.npy", "@t/full"};
    (void)state;
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
        char *path = expand(folders[i]);
        assert_int_equal(mkdir(path, 0777), 0);
        free(path);
    }
    char *link = expand("@t/full/logits.npy");
    assert_int_equal(symlink("/dev/full", link), 0);
    free(link);
    EXPECT_ERRORS(8, refusals);
}

static void traces_need_permission(void **state)
{
    (void)state;
    if (geteuid() == 0)
        skip();
    char *path = expand("@t/locked");
    assert_int_equal(mkdir(path, 0555), 0);
    free(path);
    expect_error(cli(WORDS("trace", TEXT, HORSES, "-o", "@t/locked"), NULL, NULL, NULL), 8,
                 "@t/locked");
}

/* The reader takes one byte and goes: the program ends silently, as by SIGPIPE. */
static void closed_pipes_end_it_silently(void **state)
{
    static const char script[] =
        "{ \"$0\" \"$@\"; echo $? >@t/code; } | head -c 1 >/dev/null; cat @t/code";
    static const char ignoring[] =
        "trap '' PIPE; { \"$0\" \"$@\"; echo $? >@t/code; } | head -c 1 >/dev/null; cat @t/code";
    (void)state;
    expect_output(cli(WORDS(V1, "-p", "cats", "-n", "100000", "-c", "200000"), script, NULL, NULL),
                  "141\n");
    expect_output(
        cli(WORDS(V1, "-p", "cats", "-n", "100000", "-c", "200000"), ignoring, NULL, NULL),
        "141\n");
}

/* ---- Signals ---------------------------------------------------------------------------- */

/* The signal comes once the answer has begun; what was said stays. */
static void signals_end_a_long_answer(void **state)
{
    static const struct {
        const char *name;
        int code;
    } signals[] = {{"INT", 130}, {"TERM", 143}};
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        char script[256];
        snprintf(script, sizeof script,
                 "rm -f @t/answer; \"$0\" \"$@\" >@t/answer & while ! [ -s @t/answer ]; do sleep "
                 "0.01; done; kill -s %s $!; wait $!",
                 signals[i].name);
        struct program_result result =
            cli(WORDS(V1, "-p", "cats", "-n", "100000", "-c", "200000"), script, NULL, NULL);
        assert_int_equal(result.code, signals[i].code);
        assert_string_equal(result.err, "");
        program_free(&result);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refuses_wrong_options),
        cmocka_unit_test(refuses_wrong_prompts),
        cmocka_unit_test(refuses_a_prompt_beyond_the_context),
        cmocka_unit_test(refuses_wrong_models),
        cmocka_unit_test(refuses_wrong_pictures),
        cmocka_unit_test(refuses_what_needs_too_much_memory),
        cmocka_unit_test(full_devices_are_noticed),
        cmocka_unit_test(traces_need_a_folder),
        cmocka_unit_test(traces_need_permission),
        cmocka_unit_test(closed_pipes_end_it_silently),
        cmocka_unit_test(signals_end_a_long_answer),
    };
    return cmocka_run_group_tests(tests, cli_setup, cli_teardown);
}
