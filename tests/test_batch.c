/* mobilevlm batch, where it works: every picture one record, and the answer that run gives. */
#include "batch_fixture.h"

/* What run answers about a picture. The caller frees it. */
static char *answer_alone(const char *picture)
{
    char *path;
    assert_true(asprintf(&path, "@t/p/%s", picture) > 0);
    char *answer =
        good_output(cli(WORDS("run", V1, "-q", "-i", path, ASKED), NULL, NULL, NULL), NULL);
    free(path);
    answer[strlen(answer) - 1] = 0; /* its newline */
    return answer;
}

/* The records of @t/p are run's answers. */
static void expect_answers(const json_t *records)
{
    assert_int_equal(json_object_size(records), N_PICTURES);
    for (size_t i = 0; i < N_PICTURES; i++) {
        char *id, *expected, *answer = answer_alone(pictures[i]);
        assert_true(asprintf(&id, "@t/p/%s", pictures[i]) > 0);
        expected = expand(id);
        assert_string_equal(answer_of(records, expected), answer);
        free(id);
        free(expected);
        free(answer);
    }
}

static void answers_are_those_of_run(void **state)
{
    static const char *const ways[][3] = {
        {"--parallel", "1"},     {"--parallel", "3"},     {NULL},
        {"--cache", "@t/cache"}, {"--cache", "@t/cache"}, {"-t", "3"}};
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        const char *words[MAX_WORDS] = {BATCH, ASKED, OUTPUT, "@t/p", ways[i][0], ways[i][1]};
        batch_begin(state);
        if (i == 4) /* the cache that the trial before left */
            expect_output(cli((const char *[]){BATCH, ASKED, "-o", "@t/other.jsonl", "@t/p",
                                               "--cache", "@t/cache", NULL},
                              NULL, NULL, NULL),
                          "");
        expect_output(cli(words, NULL, NULL, NULL), "");
        json_t *records = records_of("@t/out.jsonl");
        expect_answers(records);
        const char *id;
        json_t *record;
        json_object_foreach(records, id, record)
        {
            if (i == 4)
                assert_true(json_number_value(json_object_get(json_object_get(record, "timings_ms"),
                                                              "encode")) == 0);
            assert_string_equal(text_of(record, "path"), id);
            assert_true(is_digest(text_of(record, "image_digest")) &&
                        is_digest(text_of(record, "model_digest")) &&
                        is_digest(text_of(record, "options_digest")));
        }
        json_decref(records);
    }
}

/* Files, folders, lists with blank lines and CRLF, NUL lists, standard input: one and the same. */
static void takes_pictures_in_many_ways(void **state)
{
    static const struct {
        const char *words[4], *script;
    } ways[] = {
        {{"@t/p"}, NULL},
        {{"@t/p/"}, NULL},
        {{"-R", "@t/"}, NULL},
        {{NULL}, "exec \"$0\" \"$@\" @t/p/*"},
        {{"@@t/list"}, "ls @t/p/* | sed 's/$/\\r/; 3s/^/\\r\\n\\n/' >@t/list; exec \"$0\" \"$@\""},
        {{"-"}, "ls @t/p/* | \"$0\" \"$@\""},
        {{"-0", "-"}, "printf '%s\\0' @t/p/* | \"$0\" \"$@\""},
        {{"--jsonl-in", "-"},
         "for i in @t/p/*; do echo \"{\\\"image\\\": \\\"$i\\\"}\"; done | \"$0\" \"$@\""},
        {{"--jsonl-in", "@t/lines"},
         "for i in @t/p/*; do echo \"{\\\"image\\\": \\\"$i\\\"}\"; done >@t/lines; exec \"$0\" "
         "\"$@\""},
    };
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        const char *words[MAX_WORDS] = {BATCH, ASKED, ways[i].words[0], ways[i].words[1]};
        batch_begin(state);
        char *out = good_output(cli(words, ways[i].script, NULL, NULL), NULL);
        json_t *records = records_in(out);
        expect_answers(records);
        json_decref(records);
        free(out);
    }
}

/* Items of JSON lines have ids, prompts and lengths of their own; bad lines become records. */
static void lines_have_their_own_questions(void **state)
{
    static const char lines[] =
        "{\"id\": \"a\", \"image\": \"@t/p/odd.png\"}\n"
        "\n"
        "{\"id\": \"b\", \"image\": \"@t/p/odd.png\", \"prompt\": \"Why?\"}\r\n"
        "{\"id\": \"c\", \"prompt\": \"Hi\", \"max_tokens\": 2}\n"
        "nonsense\n"
        "{\"id\": \"a\", \"image\": \"@t/p/tall.png\"}\n"
        "{\"image\": 7}\n"
        "{\"id\": \"e\", \"imgae\": \"@t/p/odd.png\"}\n"
        "{\"id\": \"f\"}\n"
        "{\"id\": \"g\", \"image\": null}\n"
        "{\"id\": \"h\", \"image\": \"@t/p/odd.png\", \"image\": \"@t/p/tall.png\"}\n"
        "{\"id\": \"d\", \"image\": \"@t/p/none.png\"}";
    (void)state;
    struct program_result result = cli(WORDS(BATCH, ASKED, "--jsonl-in", "-"), NULL, lines, NULL);
    assert_int_equal(result.code, 1);
    json_t *records = records_in(result.out);
    char *a = answer_alone("odd.png"),
         *b = good_output(cli(WORDS("run", V1, "-q", "-i", "@t/p/odd.png", "-p", "Why?", "-n", "9"),
                              NULL, NULL, NULL),
                          NULL),
         *c = good_output(cli(WORDS("run", V1, "-q", "-p", "Hi", "-n", "2"), NULL, NULL, NULL),
                          NULL);
    b[strlen(b) - 1] = c[strlen(c) - 1] = 0;
    assert_int_equal(json_object_size(records), 11);
    assert_string_equal(answer_of(records, "a"), a);
    assert_string_equal(answer_of(records, "b"), b);
    assert_string_equal(answer_of(records, "c"), c);
    assert_int_equal(integer_of(json_object_get(records, "c"), "generated_tokens"), 2);
    assert_int_equal(error_code_of(records, "line 5"), 2);
    assert_int_equal(error_code_of(records, "line 6"), 2);
    assert_int_equal(error_code_of(records, "line 7"), 2);
    assert_int_equal(error_code_of(records, "d"), 4);
    assert_int_equal(error_code_of(records, "e"), 2);
    assert_int_equal(error_code_of(records, "f"), 2);
    assert_int_equal(error_code_of(records, "g"), 2);
    assert_int_equal(error_code_of(records, "line 11"), 2);
    assert_string_equal(text_of(json_object_get(records, "b"), "prompt"), "Why?");
    json_decref(records);
    program_free(&result);
    free(a);
    free(b);
    free(c);
}

/* The same lines again are all done, the bad ones too, and a line that asks something else is no line of these; shards of items with prompts of their own can be merged. */
static void lines_can_be_resumed_and_merged(void **state)
{
    static const char lines[] =
        "{\"id\": \"a\", \"prompt\": \"Hi\"}\nnonsense\n"
        "{\"id\": \"b\", \"prompt\": \"Why?\"}\n{\"id\": \"a\", \"prompt\": \"Ho\"}\n";
    batch_begin(state);
    for (int i = 0; i < 2; i++) {
        struct program_result result =
            cli(WORDS(BATCH, ASKED, OUTPUT, "--resume", "--jsonl-in", "-"), NULL, lines, NULL);
        assert_int_equal(result.code, i == 0);
        json_t *records = records_of("@t/out.jsonl"); /* fails for an id that stands twice */
        assert_int_equal(json_object_size(records), 4);
        json_decref(records);
        program_free(&result);
    }
    static const char changed[] = "{\"id\": \"b\", \"prompt\": \"When?\"}\n";
    expect_error(
        cli(WORDS(BATCH, ASKED, OUTPUT, "--resume", "--jsonl-in", "-"), NULL, changed, NULL), 2,
        "its record of b was made with other options");
    expect_output(
        cli(WORDS("batch", "-q", "--merge", "@t/other.jsonl", "@t/out.jsonl"), NULL, NULL, NULL),
        "");
}

/* As many together as can be asked for, each about another picture. */
static void sixty_four_together(void **state)
{
    batch_begin(state);
    char *out = good_output(
        cli(WORDS(BATCH, "-p", "What is this?", "-n", "2", "@t/many", "--parallel", "64"),
            "mkdir @t/many; for i in $(seq 100); do { printf "
            "'BM\\072\\0\\0\\0\\0\\0\\0\\0\\066\\0\\0\\0\\050\\0\\0\\0\\001\\0\\0\\0\\001\\0\\0\\0"
            "\\001\\0"
            "\\030\\0\\0\\0\\0\\0\\004\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0'; "
            "printf \"\\\\$(printf %03o $i)\\0\\0\\0\"; } >@t/many/$i.bmp; done; "
            "\"$0\" \"$@\"; code=$?; rm -r @t/many; exit $code",
            NULL, NULL),
        NULL);
    json_t *records = records_in(out);
    const char *id;
    json_t *record;
    assert_int_equal(json_object_size(records), 100);
    json_object_foreach(records, id, record)
        assert_true(json_is_string(json_object_get(record, "text")));
    json_decref(records);
    free(out);
}

/* A text model has no pictures to make room for. */
static void text_models_answer_too(void **state)
{
    (void)state;
    char *answer = good_output(
             cli(WORDS("run", TEXT, "-q", "-p", "Hi", "-n", "5"), NULL, NULL, NULL), NULL),
         *out = good_output(cli(WORDS("batch", TEXT, "-q", "-n", "5", "--jsonl-in", "-"), NULL,
                                "{\"id\": \"1\", \"prompt\": \"Hi\"}\n", NULL),
                            NULL);
    json_t *records = records_in(out);
    answer[strlen(answer) - 1] = 0;
    assert_string_equal(answer_of(records, "1"), answer);
    json_decref(records);
    free(answer);
    free(out);
}

/* A worker answers each line as it comes, while more may follow. */
static void a_worker_answers_at_once(void **state)
{
    (void)state;
    struct program_result result = cli(
        WORDS(BATCH, ASKED, "--jsonl-in", "-"),
        "mkfifo @t/in @t/answers; \"$0\" \"$@\" <@t/in >@t/answers & exec 3>@t/in 4<@t/answers\n"
        "for i in 1 2 3; do echo \"{\\\"id\\\": \\\"$i\\\", \\\"prompt\\\": \\\"Hi\\\"}\" >&3; "
        "read -r line <&4; "
        "echo \"$line\"; done; exec 3>&-; wait; rm @t/in @t/answers",
        NULL, NULL);
    assert_int_equal(result.code, 0);
    json_t *records = records_in(result.out);
    assert_int_equal(json_object_size(records), 3);
    json_decref(records);
    program_free(&result);
}

/* Every item is in one shard; merged, the shards are what one run writes. */
static void shards_make_up_the_whole(void **state)
{
    batch_begin(state);
    expect_output(cli(WORDS(BATCH, ASKED, OUTPUT, "@t/p"), NULL, NULL, NULL), "");
    for (int i = 0; i < 3; i++) {
        char shard[8], *script;
        snprintf(shard, sizeof shard, "%d/3", i);
        assert_true(
            asprintf(&script, "rm -f @t/s%d.jsonl; exec \"$0\" \"$@\" -o @t/s%d.jsonl", i, i) > 0);
        expect_output(cli(WORDS(BATCH, ASKED, "@t/p", "--shard", shard), script, NULL, NULL), "");
        free(script);
    }
    expect_output(cli(WORDS("batch", "-q", "--merge", "@t/other.jsonl", "--list", "@t/list",
                            "@t/s0.jsonl", "@t/s1.jsonl", "@t/s2.jsonl"),
                      "ls @t/p/* >@t/list; exec \"$0\" \"$@\"", NULL, NULL),
                  "");
    json_t *one = records_of("@t/out.jsonl"), *merged = records_of("@t/other.jsonl");
    const char *id;
    json_t *record;
    assert_int_equal(json_object_size(merged), N_PICTURES);
    json_object_foreach(one, id, record)
        assert_string_equal(answer_of(merged, id), text_of(record, "text"));
    json_decref(one);
    json_decref(merged);
    expect_error(
        cli(WORDS("batch", "-q", "--merge", "@t/two.jsonl", "--list", "@t/list", "@t/out.jsonl"),
            "echo one-more.png >>@t/list; exec \"$0\" \"$@\"", NULL, NULL),
        1, "one-more.png");
    expect_error(
        cli(WORDS("batch", "-q", "--merge", "@t/two.jsonl", "@t/out.jsonl", "@t/out.jsonl"), NULL,
            NULL, NULL),
        2, "is answered in both");
    expect_error(
        cli(WORDS("batch", "-q", "--merge", "@t/other.jsonl", "@t/s0.jsonl"), NULL, NULL, NULL), 2,
        "exists already");
}

static void writes_sidecars(void **state)
{
    batch_begin(state);
    expect_output(cli(WORDS(BATCH, ASKED, OUTPUT, "@t/p", "--sidecar", ".txt", "--sidecar-dir",
                            "@t/sidecars"),
                      "mkdir @t/sidecars; exec \"$0\" \"$@\"", NULL, NULL),
                  "");
    char *answer = answer_alone("odd.png"), *text = file_text("@t/sidecars/odd.txt"), *line;
    assert_true(asprintf(&line, "%s\n", answer) > 0);
    assert_string_equal(text, line);
    free(answer);
    free(text);
    free(line);
    expect_output(cli(WORDS(""), "test $(ls @t/sidecars | wc -l) = 7", NULL, NULL), "");
    expect_error(cli(WORDS(BATCH, ASKED, "--sidecar", "txt", "@t/p/odd.png", "@t/p/../p/odd.png",
                           "--sidecar-dir", "@t/sidecars"),
                     NULL, NULL, NULL),
                 2, "one sidecar");
}

/* A path that is no UTF-8 comes back byte by byte. */
static void paths_may_be_any_bytes(void **state)
{
    (void)state;
    struct program_result result =
        cli(WORDS(BATCH, ASKED, "-0", "-"),
            "mkdir -p @t/odd; cp @t/p/odd.png \"$(printf '@t/odd/n\\351\\nx.png')\"; cd @t/odd; "
            "printf 'n\\351\\nx.png\\0' | \"$0\" \"$@\"",
            NULL, NULL);
    assert_int_equal(result.code, 0);
    json_t *records = records_in(result.out);
    const json_t *record = json_object_get(records, "bytes:6ee90a782e706e67");
    assert_non_null(record);
    assert_string_equal(text_of(record, "path_bytes"), "6ee90a782e706e67");
    json_decref(records);
    program_free(&result);
}

static void chooses_the_likeliest(void **state)
{
    batch_begin(state);
    json_t *alone = good_json(cli(WORDS("run", V1, "-i", "@t/p/odd.png", "-p", "What is this?",
                                        "--choices", "a cat, a dog,none", "--json"),
                                  NULL, NULL, NULL));
    expect_output(
        cli(WORDS(BATCH, "-p", "What is this?", "--choices", "a cat, a dog,none", OUTPUT, "@t/p"),
            NULL, NULL, NULL),
        "");
    json_t *records = records_of("@t/out.jsonl");
    char *id = expand("@t/p/odd.png");
    const json_t *record = json_object_get(records, id);
    double sum = 0;
    const char *name, *best = NULL;
    json_t *value;
    assert_true(json_equal(json_object_get(alone, "choices"), json_object_get(record, "choices")));
    json_object_foreach(json_object_get(alone, "choices"), name, value)
    {
        sum += json_number_value(value);
        if (!best || json_number_value(value) > json_number_value(json_object_get(
                                                    json_object_get(alone, "choices"), best)))
            best = name;
    }
    char *short_answer = good_output(cli(WORDS(BATCH, "-p", "What is this?", "-n", "1", "--choices",
                                               "a cat, a dog,none", "@t/p/odd.png"),
                                         NULL, NULL, NULL),
                                     NULL); /* -n is no bound of theirs */
    json_t *short_records = records_in(short_answer);
    assert_true(json_equal(json_object_get(alone, "choices"),
                           json_object_get(json_object_get(short_records, id), "choices")));
    json_decref(short_records);
    free(short_answer);
    assert_true(sum > 0.999 && sum < 1.001);
    assert_string_equal(text_of(alone, "text"), best);
    assert_string_equal(answer_of(records, id), best);
    free(id);
    json_decref(alone);
    json_decref(records);
}

/* What a killed process left in the cache's folder goes after an hour. */
static void a_cache_is_swept(void **state)
{
    batch_begin(state);
    expect_output(
        cli(WORDS(BATCH, ASKED, OUTPUT, "--cache", "@t/cache", "@t/p"),
            "mkdir @t/cache; cd @t/cache; touch -d '2 hours ago' "
            "0123456789abcdef0123456789abcdef.rows.1.0.part other.part; "
            "touch 0123456789abcdef0123456789abcdef.rows.1.1.part; \"$0\" \"$@\"; ls *.part",
            NULL, NULL),
        "0123456789abcdef0123456789abcdef.rows.1.1.part\nother.part\n");
}

#define TEST(name) cmocka_unit_test_setup(name, batch_begin)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(answers_are_those_of_run),        TEST(takes_pictures_in_many_ways),
        TEST(lines_have_their_own_questions),  TEST(a_worker_answers_at_once),
        TEST(lines_can_be_resumed_and_merged), TEST(sixty_four_together),
        TEST(text_models_answer_too),          TEST(a_cache_is_swept),
        TEST(shards_make_up_the_whole),        TEST(writes_sidecars),
        TEST(paths_may_be_any_bytes),          TEST(chooses_the_likeliest),
    };
    return cmocka_run_group_tests_name("batch", tests, batch_setup, cli_teardown);
}
