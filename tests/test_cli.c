/* mobilevlm run, where it works: arguments -> mobilevlm -> standard output, as cli.md promises. */
#include "../kernels/kernels.h"
#include <pthread.h>
#include <sched.h>
#include <time.h>

#include "cli_fixture.h"

/* The prompt that the reference was given, whole. */
static void answers_raw_prompts(void **state)
{
    static const struct {
        const char *name, *images[2];
    } cases[] = {{"v1", {"@g/images/landscape.png", NULL}},
                 {"text", {NULL, NULL}},
                 {"two-images", {"@g/images/grey.png", "@g/images/tall.png"}}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        json_t *record = golden_record(cases[i].name);
        char model[64], count[32], *answer = expected_answer(cases[i].name);
        snprintf(model, sizeof model, "@t/%s.bin", cases[i].name);
        snprintf(count, sizeof count, "%d", (int)integer_of(record, "count"));
        const char *words[16] = {
            "-m", model, "--raw", "-n", count, "-p", text_of(record, "prompt")};
        for (size_t k = 0, n = 7; k < 2 && cases[i].images[k]; k++, n += 2) {
            words[n] = "-i";
            words[n + 1] = cases[i].images[k];
        }
        expect_output(cli(words, NULL, NULL, NULL), answer);
        free(answer);
        json_decref(record);
    }
}

/* However question, picture and model are given, the answer is the reference's. */
static void takes_the_same_question_in_many_ways(void **state)
{
    static const struct {
        const char *words[12], *script, *input, *variable;
    } ways[] = {
        {.words = {V1, PICTURE, QUESTION}},
        {.words = {"run", V1, PICTURE, QUESTION}},
        {.words = {V1, PICTURE, "-p", "<image>\nWhat is this?", "-n", "24"}},
        {.words = {V1, PICTURE, "--prompt=What is this?", "--max-tokens=24"}},
        {.words = {V1, PICTURE, "--prompt", "What is this?", "--predict", "24"}},
        {.words = {"--model=@t/v1.bin", "--image=@g/images/landscape.png", "-p", "What is this?",
                   "--n-predict", "24"}},
        {.words = {"--model", "@t/v1.bin", "--image", "@g/images/landscape.png", QUESTION}},
        {.words = {V1, PICTURE, "-f", "@t/question.txt", "-n", "24"}},
        {.words = {V1, PICTURE, "--file", "-", "-n", "24"}, .input = "What is this?\n"},
        {.words = {V1, PICTURE, "-f", "-", "-n", "24"}, .input = "What is this?"},
        {.words = {V1, "-i", "-", QUESTION},
         .script = "exec \"$0\" \"$@\" <@g/images/landscape.png"},
        {.words = {V1, "--image=-", QUESTION},
         .script = "cat @g/images/landscape.png | \"$0\" \"$@\""},
        {.words = {PICTURE, QUESTION}, .variable = "MOBILEVLM_MODEL=@t/v1.bin"},
        {.words = {V1, PICTURE, QUESTION}, .variable = "MOBILEVLM_MODEL=@t/no.bin"},
        {.words = {V1, PICTURE, QUESTION}, .variable = "MOBILEVLM_MODEL="},
        {.words = {V1, PICTURE, QUESTION}, .variable = "MOBILEVLM_FILE=@t/no.txt"},
        {.words = {V1, PICTURE, QUESTION}, .variable = "MOBILEVLM_PROMPT=something else"},
        {.words = {V1, PICTURE, "-p", "What is this?"}, .variable = "MOBILEVLM_MAX_TOKENS=24"},
        {.words = {V1, PICTURE, QUESTION}, .variable = "MOBILEVLM_MAX_TOKENS=3"},
        {.words = {V1, QUESTION}, .variable = "MOBILEVLM_IMAGE=@g/images/landscape.png"},
        {.words = {V1, PICTURE, QUESTION}, .variable = "MOBILEVLM_IMAGE=@g/images/grey.png"},
        {.words = {V1, PICTURE, QUESTION}, .variable = "MOBILEVLM_ISA=c"},
        {.words = {V1, PICTURE, QUESTION, "-t", "1"}},
        {.words = {V1, PICTURE, QUESTION, "-t", "3"}},
        {.words = {V1, PICTURE, QUESTION, "-c", "200"}},
        {.words = {V1, PICTURE, QUESTION, "--temp", "0", "--seed", "3"}},
        {.words = {V1, PICTURE, QUESTION, "--max-rss", "1G"}},
        {.words = {V1, PICTURE, QUESTION, "--kv-type", "f32", "-q"}},
    };
    char *answer = expected_answer("v1"), *path = expand("@t/question.txt");
    (void)state;
    file_save(path, "What is this?\n", 14);
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++)
        expect_output(cli(ways[i].words, ways[i].script, ways[i].input, ways[i].variable), answer);
    free(path);
    free(answer);
}

/* Without marks each picture comes first, followed by a newline. */
static void pictures_come_first_without_marks(void **state)
{
    (void)state;
    char *marked =
        good_output(cli(WORDS("-m", "@t/two-images.bin", "--raw", "-p", "<image>\n<image>\na?",
                              "-n", "9", "-i", "@g/images/grey.png", "-i", "@g/images/tall.png"),
                        NULL, NULL, NULL),
                    NULL);
    expect_output(cli(WORDS("-m", "@t/two-images.bin", "--raw", "-p", "a?", "-n", "9", "-i",
                            "@g/images/grey.png", "-i", "@g/images/tall.png"),
                      NULL, NULL, NULL),
                  marked);
    free(marked);
}

static void system_text_is_replaced(void **state)
{
    (void)state;
    char *raw =
        good_output(cli(WORDS(V1, "--raw", "-p", "Be brief. USER: Hi ASSISTANT:", "-n", "12"), NULL,
                        NULL, NULL),
                    NULL);
    expect_output(cli(WORDS(V1, "--system", "Be brief.", "-p", "Hi", "-n", "12"), NULL, NULL, NULL),
                  raw);
    free(raw);
}

/* Without --raw a user's "</s>" is four characters, with it one id. */
static void special_tokens_are_read_only_raw(void **state)
{
    static const char *const words[][6] = {{V1, "-p", "</s>", NULL},
                                           {V1, "-p", "</s>", "--raw", NULL}};
    static const json_int_t ids[] = {-1, 2}; /* BOS, and the end token; else more */
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        const char *all[10] = {"--json", "-n", "1"};
        for (size_t k = 0; words[i][k]; k++)
            all[3 + k] = words[i][k];
        json_t *json = good_json(cli(all, NULL, NULL, NULL));
        const json_int_t n = integer_of(json, "prompt_tokens");
        assert_true(ids[i] < 0 ? n > 4 : n == ids[i]);
        json_decref(json);
    }
}

/* The text of `words`' answer and how it ended. */
static void expect_record(const char *const *words, const char *text, const char *finish,
                          json_int_t n_tokens)
{
    json_t *json = good_json(cli(words, NULL, NULL, NULL));
    if (text)
        assert_string_equal(text_of(json, "text"), text);
    assert_string_equal(text_of(json, "finish_reason"), finish);
    if (n_tokens >= 0)
        assert_int_equal(integer_of(json, "generated_tokens"), n_tokens);
    json_decref(json);
}

static void answers_end_where_they_should(void **state)
{
    (void)state;
    expect_record(WORDS(TEXT, HORSES, "--json"), "There are 43.", "stop", 6);
    expect_record(WORDS(TEXT, HORSES, "--json", "-n", "6"), "There are 43.", "length", 6);
    expect_record(WORDS(TEXT, HORSES, "--json", "-n", "1"), "There", "length", 1);
    expect_record(WORDS(TEXT, HORSES, "--json", "--stop", "43"), "There are", "stop_text", -1);
    expect_record(WORDS(TEXT, HORSES, "--json", "--stop=no such", "--stop", "re a"), "The",
                  "stop_text", -1);
    expect_record(WORDS(TEXT, HORSES, "--json", "--stop", "T"), "", "stop_text", -1);
    expect_record(WORDS(TEXT, HORSES, "--json", "-c", "14"), NULL, "length", 3);
    expect_output(cli(WORDS(TEXT, HORSES, "--stop", "43"), NULL, NULL, NULL), "There are\n");
    expect_output(cli(WORDS(TEXT, HORSES, "--stop", "T"), NULL, NULL, NULL), "\n");
}

static void seeds_repeat_answers(void **state)
{
    char *answers[3];
    (void)state;
    for (size_t i = 0; i < 3; i++)
        answers[i] = good_output(
            cli(WORDS(V1, QUESTION, "--temp", "1", "--seed", i < 2 ? "7" : "8"), NULL, NULL, NULL),
            NULL);
    assert_string_equal(answers[0], answers[1]);
    assert_string_not_equal(answers[0], answers[2]);
    for (size_t i = 0; i < 3; i++)
        free(answers[i]);
    /* a random seed is named, and gives the answer again */
    json_t *json = good_json(cli(WORDS(V1, QUESTION, "--temp", "1", "--json"), NULL, NULL, NULL));
    char seed[32];
    snprintf(seed, sizeof seed, "%lld", (long long)integer_of(json, "seed"));
    json_t *again =
        good_json(cli(WORDS(V1, QUESTION, "--temp", "1", "--json", "-s", seed), NULL, NULL, NULL));
    assert_string_equal(text_of(json, "text"), text_of(again, "text"));
    json_decref(again);
    json_decref(json);
}

static void details_go_to_standard_error(void **state)
{
    (void)state;
    struct program_result result =
        cli(WORDS(TEXT, HORSES, "-v", "--seed", "4711"), NULL, NULL, NULL);
    assert_int_equal(result.code, 0);
    assert_string_equal(result.out, "There are 43.\n");
    assert_non_null(strstr(result.err, "seed 4711"));
    program_free(&result);
}

/* A lower rung is taken from the environment; the lowest is said to be slow. */
static void details_tell_the_kernels(void **state)
{
    static const char slow[] = "kernels c are slow";
    const char *isa;
    bool has;
    (void)state;
    for (size_t rung = 0; (isa = kernels_rung(rung, &has)); rung++) {
        char variable[64], expected[64];
        if (!has)
            continue;
        snprintf(variable, sizeof variable, "MOBILEVLM_ISA=%s", isa);
        snprintf(expected, sizeof expected, "kernels %s, ", isa);
        struct program_result result = cli(WORDS(TEXT, HORSES, "-v"), NULL, NULL, variable);
        assert_int_equal(result.code, 0);
        assert_string_equal(result.out, "There are 43.\n");
        assert_non_null(strstr(result.err, expected));
        assert_non_null(strstr(result.err, " threads, one a core; cores asked: "));
        assert_non_null(strstr(result.err, "; granted: "));
        assert_int_equal(strstr(result.err, slow) != NULL, strcmp(isa, "c") == 0);
        program_free(&result);
    }
}

/* The cores that are named are those that are used, and what was asked for on the command line wins. */
static void cores_can_be_chosen(void **state)
{
    char list[32], mask[32], range[32];
    cpu_set_t granted;
    int first = 0;
    assert_int_equal(sched_getaffinity(0, sizeof granted, &granted), 0);
    while (!CPU_ISSET((size_t)first, &granted))
        first++;
    snprintf(list, sizeof list, "%d", first);
    snprintf(mask, sizeof mask, "0x%x%0*d", 1 << first % 4, first / 4, 0);
    mask[3 + first / 4] = 0; /* no digit behind the first one for cores 0 to 3 */
    snprintf(range, sizeof range, "%d-%d", first, first);
    const struct {
        const char *words[2], *variable;
    } rows[] = {{{"--cores", list}, NULL},
                {{"-C", mask}, NULL},
                {{"-Cr", range}, NULL},
                {{"-C", mask}, "MOBILEVLM_CORES=all"}};
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const char *words[MAX_WORDS] = {TEXT, HORSES, "--json"};
        size_t n = 0;
        while (words[n])
            n++;
        words[n] = rows[i].words[0];
        words[n + 1] = rows[i].words[1];
        json_t *json = good_json(cli(words, NULL, NULL, rows[i].variable));
        const json_t *cores = json_object_get(json, "cores");
        assert_int_equal(json_array_size(cores), 1);
        assert_int_equal(json_integer_value(json_array_get(cores, 0)), first);
        assert_int_equal(integer_of(json, "threads"), 1);
        json_decref(json);
    }
    expect_error(cli(WORDS(TEXT, HORSES, "--cores", "9999"), NULL, NULL, NULL), 2, "--cores");
    expect_error(cli(WORDS(TEXT, HORSES, "--cores", "all", "-C", mask), NULL, NULL, NULL), 2,
                 "only one of them");
}

/* Big cores are used by themselves, and -v says by what sign; the first is the only one that this process is granted. */
static void big_cores_are_found(void **state)
{
    char *root = expand("@t/cores");
    cpu_set_t granted, one;
    char name[128], sign[128];
    int first = 0;
    (void)state;
    assert_int_equal(sched_getaffinity(0, sizeof granted, &granted), 0);
    while (!CPU_ISSET((size_t)first, &granted))
        first++;
    CPU_ZERO(&one);
    CPU_SET((size_t)first, &one);
    assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
    snprintf(name, sizeof name, "/sys/devices/system/cpu/cpu%d/cpu_capacity", first);
    make_files(root, (const char *const[]){name, "400", NULL});
    snprintf(sign, sizeof sign, "asked: %d (big, by cpu_capacity); granted: %d\n", first, first);
    struct program_result result =
        cli(WORDS(TEXT, HORSES, "-v"), NULL, NULL, "MOBILEVLM_ROOT=@t/cores");
    assert_int_equal(sched_setaffinity(0, sizeof granted, &granted), 0);
    if (!strstr(result.err, sign))
        fail_msg("%s\ndoes not say\n%s", result.err, sign);
    program_free(&result);
    result = cli(WORDS(TEXT, HORSES, "-v"), NULL, NULL, "MOBILEVLM_ROOT=@t/nothing");
    assert_non_null(strstr(result.err, "(all, for nothing in /sys tells them apart); granted:"));
    program_free(&result);
    free(root);
}

/* The only sensor cools down while the answer waits. */
static void *cool(void *root)
{
    nanosleep(&(struct timespec){.tv_sec = 1}, NULL);
    make_files(root, (const char *const[]){"/sys/class/thermal/thermal_zone0/temp", "50000", NULL});
    return NULL;
}

static void waits_for_a_hot_machine(void **state)
{
    char *root = expand("@t/hot");
    pthread_t cooler;
    struct timespec start, end;
    (void)state;
    make_files(root, (const char *const[]){"/sys/class/thermal/thermal_zone0/temp", "70000", NULL});
    clock_gettime(CLOCK_MONOTONIC, &start);
    assert_int_equal(pthread_create(&cooler, NULL, cool, root), 0);
    struct program_result result =
        cli(WORDS(TEXT, HORSES, "--max-temp", "60"), NULL, NULL, "MOBILEVLM_ROOT=@t/hot");
    pthread_join(cooler, NULL);
    clock_gettime(CLOCK_MONOTONIC, &end);
    assert_int_equal(result.code, 0);
    assert_string_equal(result.out, "There are 43.\n");
    assert_non_null(strstr(result.err, "hotter than --max-temp 60 degrees: pausing\n"));
    assert_true(end.tv_sec - start.tv_sec + (end.tv_nsec > start.tv_nsec) >= 1);
    program_free(&result);
    expect_output(cli(WORDS(TEXT, HORSES, "--max-temp", "60"), NULL, NULL, "MOBILEVLM_ROOT=@t/hot"),
                  "There are 43.\n");
    free(root);
}

static void json_holds_every_key(void **state)
{
    static const char *const stages[] = {"load",    "jpeg",    "preprocess", "encode",
                                         "project", "prefill", "generate"};
    json_t *json = good_json(
        cli(WORDS(V1, PICTURE, QUESTION, "--json", "--seed", "9", "-t", "2"), NULL, NULL, NULL));
    json_t *record = golden_record("v1");
    const json_int_t rows =
        json_integer_value(json_array_get(json_object_get(record, "image_tokens"), 0));
    (void)state;
    assert_string_equal(text_of(json, "text"), text_of(record, "text"));
    assert_string_equal(text_of(json, "finish_reason"), "length");
    assert_int_equal(integer_of(json, "prompt_tokens"),
                     json_array_size(json_object_get(record, "input_ids")) - 1);
    assert_int_equal(integer_of(json, "image_tokens"), rows);
    assert_int_equal(integer_of(json, "generated_tokens"), integer_of(record, "count"));
    for (size_t i = 0; i < sizeof stages / sizeof *stages; i++)
        assert_true(
            json_real_value(json_object_get(json_object_get(json, "timings_ms"), stages[i])) > 0);
    assert_true(is_digest(text_of(json, "model_digest")) &&
                is_digest(text_of(json, "options_digest")));
    assert_int_equal(integer_of(json, "seed"), 9);
    assert_int_equal(integer_of(json, "threads"), 2);
    assert_true(strlen(text_of(json, "isa")) > 0);
    assert_true(json_array_size(json_object_get(json, "cores")) > 0);
    assert_true(json_is_integer(json_array_get(json_object_get(json, "cores"), 0)));
    assert_true(integer_of(json, "peak_rss_bytes") > 0 && integer_of(json, "planned_bytes") > 0);
    assert_null(json_object_get(json, "choices"));
    json_decref(record);
    json_decref(json);
}

/* The digest in the record of one fixed question, with an option more. */
static char *options_digest(const char *name, const char *value)
{
    json_t *json = good_json(
        cli(WORDS(TEXT, "--json", "--temp=1", "-s", "1", "-n", "2", "-p", "a", name, value), NULL,
            NULL, NULL));
    char *digest = strdup(text_of(json, "options_digest"));
    json_decref(json);
    return digest;
}

/* Whatever the answer depends on is in it, and the threads are not. */
static void options_digest_covers_the_options(void **state)
{
    static const char *const changes[][2] = {
        {"-t", "1"},      {"-p", "b"},     {"--top-k", "3"},     {"--top-p", "0.5"},
        {"--min-p", "0"}, {"-n", "3"},     {"-c", "500"},        {"--stop", "q"},
        {"-s", "2"},      {"--temp", "2"}, {"--kv-type", "f16"}, {"--repeat-penalty", "1.1"}};
    enum { N = sizeof changes / sizeof *changes };
    char *digests[N];
    (void)state;
    for (size_t i = 0; i < N; i++) {
        digests[i] = options_digest(changes[i][0], changes[i][1]);
        for (size_t k = 0; k < i; k++)
            if (strcmp(digests[k], digests[i]) == 0)
                fail_msg("%s %s changes nothing", changes[i][0], changes[i][1]);
    }
    char *again = options_digest("-t", "2");
    assert_string_equal(again, digests[0]);
    free(again);
    for (size_t i = 0; i < N; i++)
        free(digests[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_raw_prompts),
        cmocka_unit_test(takes_the_same_question_in_many_ways),
        cmocka_unit_test(pictures_come_first_without_marks),
        cmocka_unit_test(system_text_is_replaced),
        cmocka_unit_test(special_tokens_are_read_only_raw),
        cmocka_unit_test(answers_end_where_they_should),
        cmocka_unit_test(seeds_repeat_answers),
        cmocka_unit_test(details_go_to_standard_error),
        cmocka_unit_test(details_tell_the_kernels),
        cmocka_unit_test(cores_can_be_chosen),
        cmocka_unit_test(big_cores_are_found),
        cmocka_unit_test(waits_for_a_hot_machine),
        cmocka_unit_test(json_holds_every_key),
        cmocka_unit_test(options_digest_covers_the_options),
    };
    return cmocka_run_group_tests(tests, cli_setup, cli_teardown);
}
