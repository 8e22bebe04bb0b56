/* mobilevlm batch when things go wrong: nothing is lost, nothing is done twice, and what cannot be done
 * is refused before anything runs. */
#include "batch_fixture.h"

/* Runs until all of @t/p is in @t/out.jsonl; then each is there once, as an undisturbed run has it. */
static void finish_and_compare(void)
{
    expect_output(cli(WORDS(BATCH, ASKED, OUTPUT, "@t/p", "--resume"), NULL, NULL, NULL), "");
    expect_output(cli(WORDS(BATCH, ASKED, "-o", "@t/other.jsonl", "@t/p"), NULL, NULL, NULL), "");
    json_t *records = records_of("@t/out.jsonl"), *expected = records_of("@t/other.jsonl");
    const char *id;
    json_t *record;
    assert_int_equal(json_object_size(records), N_PICTURES);
    json_object_foreach(expected, id, record)
        assert_string_equal(answer_of(records, id), text_of(record, "text"));
    json_decref(records);
    json_decref(expected);
}

static size_t lines_in(const char *name)
{
    char *text = file_text(name);
    size_t n = 0;
    for (const char *at = text; (at = strchr(at, '\n')); at++)
        n++;
    free(text);
    return n;
}

/* Killed once there are n records: most runs leave some of them undone. */
static void goes_on_where_it_was_killed(void **state)
{
    size_t n_partial = 0;
    for (int i = 1; i < N_PICTURES; i++) {
        char *script;
        batch_begin(state);
        assert_true(asprintf(&script,
                             ": >@t/out.jsonl; \"$0\" \"$@\" & while kill -0 $! 2>/dev/null && "
                             "[ \"$(wc -l <@t/out.jsonl)\" -lt %d ]; do :; done; "
                             "kill -9 $! 2>/dev/null; wait $!; true",
                             i) > 0);
        struct program_result result = cli(
            WORDS(BATCH, ASKED, OUTPUT, "@t/p", "--resume", "--parallel", "2"), script, NULL, NULL);
        program_free(&result);
        const size_t n = lines_in("@t/out.jsonl");
        n_partial += n > 0 && n < N_PICTURES;
        finish_and_compare();
        free(script);
    }
    assert_true(n_partial > 0);
}

static void mends_a_torn_line(void **state)
{
    for (size_t cut = 1; cut < 400; cut += 97) {
        char *script;
        batch_begin(state);
        expect_output(cli(WORDS(BATCH, ASKED, OUTPUT, "@t/p"), NULL, NULL, NULL), "");
        assert_true(asprintf(&script, "truncate -s -%zu @t/out.jsonl", cut) > 0);
        expect_output(cli(WORDS(""), script, NULL, NULL), "");
        finish_and_compare();
        free(script);
    }
}

/* What is done is left out; a picture that changed, or that failed and is to be tried again, is not. */
static void leaves_out_what_is_done(void **state)
{
    batch_begin(state);
    expect_output(cli(WORDS(BATCH, ASKED, OUTPUT, "@t/p", "@t/late.png"),
                      "\"$0\" \"$@\"; test $? = 1", NULL, NULL),
                  "");
    assert_int_equal(lines_in("@t/out.jsonl"), N_PICTURES + 1);
    struct program_result result =
        cli(WORDS(BATCH, ASKED, OUTPUT, "@t/p", "@t/late.png", "--resume"), NULL, NULL, NULL);
    assert_int_equal(result.code, 0);
    program_free(&result);
    assert_int_equal(lines_in("@t/out.jsonl"), N_PICTURES + 1);
    expect_output(
        cli(WORDS(BATCH, ASKED, OUTPUT, "@t/p", "@t/late.png", "--resume", "--retry-failed"),
            "cp @t/p/odd.png @t/late.png; exec \"$0\" \"$@\"", NULL, NULL),
        "");
    assert_int_equal(lines_in("@t/out.jsonl"), N_PICTURES + 2);
    expect_output(cli(WORDS(BATCH, ASKED, OUTPUT, "@t/p", "@t/late.png", "--resume"),
                      "cp @t/p/tall.png @t/late.png; \"$0\" \"$@\"; rm @t/late.png", NULL, NULL),
                  "");
    assert_int_equal(lines_in("@t/out.jsonl"), N_PICTURES + 3);
}

static void refuses_what_would_be_mixed(void **state)
{
    batch_begin(state);
    expect_output(cli(WORDS(BATCH, ASKED, OUTPUT, "@t/p"), NULL, NULL, NULL), "");
    expect_error(cli(WORDS(BATCH, ASKED, OUTPUT, "@t/p"), NULL, NULL, NULL), 2,
                 "holds records already");
    expect_error(cli(WORDS(BATCH, "-p", "Why?", OUTPUT, "@t/p", "--resume"), NULL, NULL, NULL), 2,
                 "with other options");
    expect_error(
        cli(WORDS("batch", "-m", "@t/two-images.bin", "-q", ASKED, OUTPUT, "@t/p", "--resume"),
            NULL, NULL, NULL),
        2, "by another model");
    expect_error(cli(WORDS("batch", "-m", "@t/two-images.bin", "-q", ASKED, OUTPUT,
                           "@g/images/420.jpg", "--resume", "--retry-failed"),
                     NULL, NULL, NULL),
                 2, "by another model"); /* though no id is there twice */
    assert_int_equal(lines_in("@t/out.jsonl"), N_PICTURES);
    expect_output(
        cli(WORDS(BATCH, "-p", "Why?", OUTPUT, "@t/p", "--resume", "--force"), NULL, NULL, NULL),
        "");
    assert_int_equal(lines_in("@t/out.jsonl"), 2 * N_PICTURES);
}

static void one_process_writes(void **state)
{
    batch_begin(state);
    struct program_result result =
        cli(WORDS(BATCH, ASKED, OUTPUT, "--jsonl-in", "-"),
            "mkfifo @t/in; \"$0\" \"$@\" <@t/in & exec 3>@t/in; echo '{\"id\": \"1\", \"prompt\": "
            "\"Hi\"}' >&3; "
            "while ! test -s @t/out.jsonl; do sleep 0.05; done; "
            "\"$0\" \"$@\" --resume </dev/null; code=$?; exec 3>&-; wait; rm @t/in; exit $code",
            NULL, NULL);
    assert_int_equal(result.code, 8);
    assert_non_null(strstr(result.err, "another process is writing to it"));
    program_free(&result);
    assert_int_equal(lines_in("@t/out.jsonl"), 1);
}

/* The disk is full in the middle of a record: the last good one stays, and it can go on. */
static void a_full_disk_loses_nothing(void **state)
{
    /* of 512 bytes; a record has some 700 */
    for (int blocks = 2; blocks < 7; blocks += 2) {
        char *script;
        batch_begin(state);
        assert_true(asprintf(&script, "ulimit -f %d; exec \"$0\" \"$@\"", blocks) > 0);
        expect_error(cli(WORDS(BATCH, ASKED, OUTPUT, "@t/p"), script, NULL, NULL), 8, "out.jsonl");
        json_t *records = records_of("@t/out.jsonl");
        assert_true(json_object_size(records) < N_PICTURES);
        json_decref(records);
        finish_and_compare();
        free(script);
    }
    expect_error(cli(WORDS(BATCH, ASKED, "@t/p", "-o", "/dev/full"), NULL, NULL, NULL), 8,
                 "/dev/full");
    expect_error(cli(WORDS(BATCH, ASKED, "@t/p"), "exec \"$0\" \"$@\" >/dev/full", NULL, NULL), 8,
                 "standard output");
}

static void bad_pictures_become_records(void **state)
{
    static const struct {
        const char *path, *part;
    } rows[] = {{"@g/images/bad/half.jpg", "truncated JPEG"},
                {"@g/images/bad/text.jpg", "not a picture"},
                {"@t/none.png", "No such file"},
                {"@t/folder.png", "is a folder"}};
    batch_begin(state);
    expect_output(
        cli(WORDS(BATCH, ASKED, OUTPUT, "--jsonl-in", "-"),
            "mkdir -p @t/folder.png; for i in @g/images/bad/half.jpg @g/images/bad/text.jpg "
            "@t/none.png @t/folder.png @t/p/odd.png; do echo \"{\\\"image\\\": \\\"$i\\\"}\"; done "
            "| "
            "\"$0\" \"$@\"; test $? = 1",
            NULL, NULL),
        "");
    json_t *records = records_of("@t/out.jsonl");
    assert_int_equal(json_object_size(records), 5);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char *id = expand(rows[i].path);
        assert_int_equal(error_code_of(records, id), 4);
        const json_t *error = json_object_get(json_object_get(records, id), "error");
        if (!strstr(text_of(error, "message"), rows[i].part))
            fail_msg("%s: %s", id, text_of(error, "message"));
        free(id);
    }
    json_decref(records);
}

/* A picture of more pixels than are allowed; one that is replaced by another while the batch runs: what
 * was read is what the record is about. */
static void pictures_may_be_huge_or_change(void **state)
{
    batch_begin(state);
    expect_output(cli(WORDS(BATCH, ASKED, OUTPUT, "@t/p/odd.png", "--max-pixels", "10"),
                      "\"$0\" \"$@\"; test $? = 1", NULL, NULL),
                  "");
    json_t *records = records_of("@t/out.jsonl");
    char *id = expand("@t/p/odd.png");
    assert_int_equal(error_code_of(records, id), 4);
    json_decref(records);
    free(id);
    struct program_result result = cli(
        WORDS(BATCH, ASKED, "--jsonl-in", "-"),
        "mkfifo @t/in @t/answers; cp @t/p/odd.png @t/one.png; "
        "\"$0\" \"$@\" <@t/in >@t/answers & exec 3>@t/in 4<@t/answers\n"
        "for i in odd tall; do cp @t/p/$i.png @t/new.png; mv @t/new.png @t/one.png; "
        "echo \"{\\\"id\\\": \\\"$i\\\", \\\"image\\\": \\\"@t/one.png\\\"}\" >&3; "
        "read -r line <&4; echo \"$line\"; done; exec 3>&-; wait; rm @t/in @t/answers @t/one.png",
        NULL, NULL);
    records = records_in(result.out);
    const char *odd = text_of(json_object_get(records, "odd"), "image_digest"),
               *tall = text_of(json_object_get(records, "tall"), "image_digest");
    assert_string_not_equal(odd, tall);
    json_decref(records);
    program_free(&result);
}

/* Whoever reads the answers goes away: the end is silent. */
static void a_closed_pipe_ends_it(void **state)
{
    (void)state;
    expect_output(
        cli(WORDS(BATCH, ASKED, "@t/p"),
            "{ sleep 0.1; \"$0\" \"$@\"; echo $? >@t/code; } | true; while ! test -s @t/code; "
            "do sleep 0.05; done; cat @t/code; rm @t/code",
            NULL, NULL),
        "141\n");
}

static void lists_are_checked_first(void **state)
{
    static const struct {
        const char *words[6], *script, *part;
    } rows[] = {
        {{"@t/p/odd.png", "@t/p/odd.png"}, NULL, "two items have one id"},
        {{"@t/p", "@t/p/odd.png"}, NULL, "two items have one id"},
        {{"-"},
         "printf '@t/p/odd.png\\n\\n@t/p/odd.png\\n' | \"$0\" \"$@\"",
         "line 1 of - and line 3 of -"},
        {{"@@t/none.txt"}, NULL, "none.txt: cannot be opened"},
        {{"@t/empty"}, "mkdir -p @t/empty; exec \"$0\" \"$@\"", "there is no picture"},
        {{NULL}, NULL, "no pictures named"},
        {{"--jsonl-in", "@t/bad"},
         "printf '{\"id\": \"a\", \"prompt\": \"Hi\"}\\n\\n{\"id\": \"b\", }\\n' >@t/bad; exec "
         "\"$0\" \"$@\"",
         "line 3"},
        {{"--jsonl-in", "@t/none", "@t/p"}, NULL, "both --jsonl-in and"},
        {{"@t/p", "--shard", "3/3"}, NULL, "--shard"},
        {{"@t/p", "--shard", "1of3"}, NULL, "--shard"},
        {{"@t/p", "--choices", "a,,b"}, NULL, "choice 2 is empty"},
        {{"@t/p", "--choices", "a,b,a"}, NULL, "stands twice"},
        {{"@t/p", "--parallel", "0"}, NULL, "--parallel"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const char *words[MAX_WORDS] = {BATCH, ASKED, OUTPUT};
        for (size_t k = 0; k < 6 && rows[i].words[k]; k++)
            words[10 + k] = rows[i].words[k];
        batch_begin(state);
        expect_error(cli(words, rows[i].script, NULL, NULL), 2, rows[i].part);
        expect_output(cli(WORDS(""), "test ! -e @t/out.jsonl", NULL, NULL), ""); /* nothing ran */
    }
}

static void stops_when_told_to(void **state)
{
    static const struct {
        const char *words[2];
        int code;
    } rows[] = {{{"--deadline", "0.001"}, 7},
                {{"--max-errors", "2"}, 1},
                {{"--timeout-per-item", "0.000001"}, 1}};
    enum { N_LINES = 3 + 81 };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const char *words[MAX_WORDS] = {
            BATCH, ASKED, OUTPUT, "--jsonl-in", "-", rows[i].words[0], rows[i].words[1]};
        batch_begin(state);
        struct program_result result =
            cli(words,
                "{ for i in 1 2 3; do echo '{}'; done; for i in 1 2 3 4 5 6 7 8 9; do "
                "for k in 1 2 3 4 5 6 7 8 9; do "
                "echo \"{\\\"id\\\": \\\"$i$k\\\", \\\"prompt\\\": \\\"Hi\\\"}\"; done; done; } | "
                "\"$0\" \"$@\"",
                NULL, NULL);
        assert_int_equal(result.code, rows[i].code);
        json_t *records = records_of("@t/out.jsonl"); /* what was at hand is whole */
        if (i == 2)
            assert_int_equal(error_code_of(records, "11"), 7);
        else
            assert_true(json_object_size(records) < N_LINES);
        json_decref(records);
        program_free(&result);
    }
}

/* SIGTERM and SIGINT: the records at hand are finished, and no other is begun. The first of four answers is shorter,
 * but long enough for the others to be begun meanwhile; the signal comes when it is there. */
static void a_signal_finishes_the_records_at_hand(void **state)
{
    static const struct {
        const char *name;
        int code;
    } rows[] = {{"TERM", 143}, {"INT", 130}};
    for (size_t i = 0; i < 2; i++) {
        char *script;
        batch_begin(state);
        assert_true(
            asprintf(
                &script,
                "for i in $(seq 60); do echo \"{\\\"id\\\": \\\"$i\\\", \\\"prompt\\\": "
                "\\\"Hi $i\\\", \\\"max_tokens\\\": $((i == 1 ? 60 : 300))}\"; done >@t/lines; "
                "mkfifo @t/answers; \"$0\" \"$@\" >@t/answers & exec 3<@t/answers; "
                "read -r line <&3; kill -%s $!; printf '%%s\\n' \"$line\"; cat <&3; wait $!; "
                "code=$?; "
                "rm @t/answers; exit $code",
                rows[i].name) > 0);
        struct program_result result = cli(
            WORDS(BATCH, ASKED, "--jsonl-in", "@t/lines", "--parallel", "4"), script, NULL, NULL);
        assert_int_equal(result.code, rows[i].code);
        json_t *records = records_in(result.out);
        const size_t n = json_object_size(records);
        if (n < 2 || n > 20)
            fail_msg("%zu records: those at hand should be finished, and no others", n);
        json_decref(records);
        program_free(&result);
        free(script);
    }
}

/* What is no file of pictures is a failure of its own item, and never waited for. */
static void strange_files_hold_nothing_up(void **state)
{
    static const char *const names[] = {"-", "@t/pipe", "/dev/zero", "/dev/stdin"};
    batch_begin(state);
    struct program_result result =
        cli(WORDS(BATCH, ASKED, "--jsonl-in", "-"),
            "mkfifo @t/pipe; for i in - @t/pipe /dev/zero /dev/stdin @t/p/odd.png; do "
            "echo \"{\\\"image\\\": \\\"$i\\\"}\"; done | \"$0\" \"$@\"; code=$?; rm @t/pipe; exit "
            "$code",
            NULL, NULL);
    assert_int_equal(result.code, 1);
    json_t *records = records_in(result.out);
    assert_int_equal(json_object_size(records), 5);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char *id = expand(names[i]);
        assert_int_equal(error_code_of(records, id), 4);
        free(id);
    }
    json_decref(records);
    program_free(&result);
}

/* What was written by something else is not cut off; an answer may hold any character. */
static void other_files_stay_as_they_are(void **state)
{
    batch_begin(state);
    expect_error(cli(WORDS(BATCH, ASKED, OUTPUT, "@t/p", "--resume"),
                     "printf '[1, 2, 3]' >@t/out.jsonl; exec \"$0\" \"$@\"", NULL, NULL),
                 8, "line 1 is no record, and does not end");
    expect_output(cli(WORDS(""), "cat @t/out.jsonl", NULL, NULL), "[1, 2, 3]");
    expect_output(
        cli(WORDS(BATCH, ASKED, OUTPUT, "@t/p", "--resume"),
            "echo '{\"text\":\"a\\u0000b\",\"id\":\"x\"}' >@t/out.jsonl; exec \"$0\" \"$@\"", NULL,
            NULL),
        "");
    assert_int_equal(lines_in("@t/out.jsonl"), 1 + N_PICTURES);
}

/* What makes every item impossible is found before the first. */
static void what_cannot_be_is_refused_at_once(void **state)
{
    static const struct {
        const char *words[3];
        int code;
        const char *part;
    } rows[] = {
        {{"--max-rss", "1M"}, 5, "--max-rss allows 1.0 MB"},
        {{"--max-rss", "1M", "--parallel"}, 5, "--max-rss allows 1.0 MB"},
        {{"-c", "20"}, 2, "the context has 20"},
        {{"--sidecar-dir", "@t/sidecars"}, 2, "--sidecar-dir needs --sidecar"},
        {{"--sidecar", "png"}, 2, "is a picture"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const char *words[MAX_WORDS] = {BATCH, ASKED, OUTPUT, "@t/p"};
        for (size_t k = 0; k < 3; k++)
            words[11 + k] = rows[i].words[k];
        if (i == 1)
            words[14] = "2";
        batch_begin(state);
        expect_error(cli(words, NULL, NULL, NULL), rows[i].code, rows[i].part);
        expect_output(cli(WORDS(""), "test ! -e @t/out.jsonl", NULL, NULL), "");
    }
    expect_error(
        cli(WORDS(BATCH, ASKED, "--jsonl-in", "-"), "exec \"$0\" \"$@\" <@t/p", NULL, NULL), 2,
        "standard input cannot be read");
}

#define TEST(name) cmocka_unit_test_setup(name, batch_begin)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(goes_on_where_it_was_killed),
        TEST(mends_a_torn_line),
        TEST(leaves_out_what_is_done),
        TEST(refuses_what_would_be_mixed),
        TEST(one_process_writes),
        TEST(a_full_disk_loses_nothing),
        TEST(bad_pictures_become_records),
        TEST(lists_are_checked_first),
        TEST(pictures_may_be_huge_or_change),
        TEST(a_closed_pipe_ends_it),
        TEST(stops_when_told_to),
        TEST(a_signal_finishes_the_records_at_hand),
        TEST(strange_files_hold_nothing_up),
        TEST(other_files_stay_as_they_are),
        TEST(what_cannot_be_is_refused_at_once),
    };
    return cmocka_run_group_tests_name("batch faults", tests, batch_setup, cli_teardown);
}
