/* mobilevlm bench on tiny models: what is printed in each format, which tests a command line asks
 * for, and what is refused. How long anything takes is not tested. */
#include "cli_fixture.h"

/* Few and small tests, one thread: quick on a busy machine. */
#define QUICK "bench", "-t", "1", "-r", "2", "-p", "5", "-n", "3", "-d", "0,4"

/* The records of -o jsonl, as an array. */
static json_t *records_of(struct program_result result)
{
    size_t n;
    char *out = good_output(result, &n);
    json_t *list = json_array();
    assert_true(n > 0 && out[n - 1] == '\n');
    for (char *at = out, *end; *at; at = end + 1) {
        end = strchr(at, '\n');
        json_t *record = json_loadb(at, (size_t)(end - at), JSON_REJECT_DUPLICATES, NULL);
        assert_non_null(record);
        json_array_append_new(list, record);
    }
    free(out);
    return list;
}

static double real_of(const json_t *record, const char *key)
{
    const json_t *value = json_object_get(record, key);
    if (!json_is_number(value))
        fail_msg("%s: \"%s\" is missing, or no number", text_of(record, "test"), key);
    return json_number_value(value);
}

static void expect_null(const json_t *record, const char *key)
{
    if (!json_is_null(json_object_get(record, key)))
        fail_msg("%s: \"%s\" is not null", text_of(record, "test"), key);
}

/* `names` end with NULL. */
static void expect_tests(const json_t *records, const char *const *names)
{
    size_t n = 0;
    for (; names[n]; n++)
        assert_string_equal(text_of(json_array_get(records, n), "test"), names[n]);
    assert_int_equal(json_array_size(records), n);
}

static const json_t *find_test(const json_t *records, const char *name)
{
    for (size_t i = 0; i < json_array_size(records); i++)
        if (strcmp(text_of(json_array_get(records, i), "test"), name) == 0)
            return json_array_get(records, i);
    fail_msg("no test \"%s\"", name);
    return NULL;
}

static void expect_record(const json_t *record, const char *model)
{
    static const char *const whole[] = {
        "model_size", "model_n_params", "n_prompt", "n_gen",     "n_depth",   "bytes_read",
        "macs",       "stddev_ns",      "avg_ns",   "median_ns", "n_threads", "peak_rss_bytes"};
    const json_t *samples = json_object_get(record, "samples_ns");
    const bool tokens =
        !strncmp(text_of(record, "test"), "pp", 2) || !strncmp(text_of(record, "test"), "tg", 2);
    for (size_t i = 0; i < sizeof whole / sizeof *whole; i++)
        assert_true(integer_of(record, whole[i]) >= 0);
    assert_int_equal(json_array_size(samples), 2);
    const double a = json_number_value(json_array_get(samples, 0)),
                 b = json_number_value(json_array_get(samples, 1));
    assert_true(a > 0 && b > 0);
    assert_true(real_of(record, "avg_ns") >= (a + b) / 2 - 1 &&
                real_of(record, "avg_ns") <= (a + b) / 2 + 1);
    assert_string_equal(text_of(record, "model_filename"), model);
    assert_true(is_digest(text_of(record, "model_digest")));
    assert_true(strlen(text_of(record, "isa")) > 0 && strlen(text_of(record, "test_time")) == 20);
    assert_int_equal(integer_of(record, "n_threads"), 1);
    assert_true(json_array_size(json_object_get(record, "cores_granted")) > 0);
    assert_string_equal(text_of(record, "type_k"), "f32");
    assert_true(integer_of(record, "peak_rss_bytes") > 0);
    if (tokens) {
        const double n = (double)(integer_of(record, "n_prompt") + integer_of(record, "n_gen"));
        const double expected = (n / a + n / b) / 2 * 1e9, got = real_of(record, "avg_ts");
        assert_true(got > 0.999 * expected && got < 1.001 * expected);
        assert_int_equal(json_array_size(json_object_get(record, "samples_ts")), 2);
    } else {
        expect_null(record, "avg_ts");
    }
}

static void records_have_every_field(void **state)
{
    static const char *const tests[] = {"load",     "jpeg", "preprocess", "encode",
                                        "project",  "pp5",  "pp5 @ d4",   "tg3 @ d0",
                                        "tg3 @ d4", "ttft", NULL};
    char *model = expand("@t/v1.bin");
    json_t *records = records_of(cli(WORDS(QUICK, V1, PICTURE, "-o", "jsonl"), NULL, NULL, NULL));
    (void)state;
    expect_tests(records, tests);
    for (size_t i = 0; tests[i]; i++) {
        expect_record(json_array_get(records, i), model);
        assert_null(json_object_get(json_array_get(records, i), "share"));
    }
    assert_int_equal(integer_of(find_test(records, "tg3 @ d4"), "n_depth"), 4);
    assert_int_equal(integer_of(find_test(records, "pp5"), "n_gen"), 0);
    /* an answer reads all weights for each token, a prompt once; a deeper one multiplies more */
    assert_true(integer_of(find_test(records, "tg3 @ d0"), "bytes_read") >
                2 * integer_of(find_test(records, "pp5"), "bytes_read"));
    assert_true(integer_of(find_test(records, "pp5 @ d4"), "macs") >
                integer_of(find_test(records, "pp5"), "macs"));
    assert_true(integer_of(find_test(records, "ttft"), "macs") >
                integer_of(find_test(records, "encode"), "macs"));
    assert_int_equal(integer_of(find_test(records, "ttft"), "n_prompt"), 9 + 30);
    assert_int_equal(integer_of(find_test(records, "load"), "macs"), 0);
    json_decref(records);
    free(model);
}

/* How often `part` stands in `text`. */
static size_t count_of(const char *text, const char *part)
{
    size_t n = 0;
    for (; (text = strstr(text, part)); text += strlen(part))
        n++;
    return n;
}

/* Whether one of the names between commas is `name`. */
static bool is_column(const char *names, const char *name)
{
    const size_t n = strlen(name);
    for (const char *at = names; at; at = strchr(at, ',')) {
        at += *at == ',';
        if (strncmp(at, name, n) == 0 && (at[n] == ',' || at[n] == 0))
            return true;
    }
    return false;
}

static void all_formats_say_the_same(void **state)
{
    json_error_t error;
    (void)state;
    char *json = good_output(cli(WORDS(QUICK, TEXT, "-o", "json"), NULL, NULL, NULL), NULL);
    json_t *records = json_loads(json, JSON_REJECT_DUPLICATES, &error);
    if (!records)
        fail_msg("%s", error.text);
    expect_tests(records, WORDS("load", "pp5", "pp5 @ d4", "tg3 @ d0", "tg3 @ d4"));
    char *csv = good_output(cli(WORDS(QUICK, TEXT, "-o", "csv"), NULL, NULL, NULL), NULL);
    assert_int_equal(count_of(csv, "\n"), 1 + 5);
    char *end = strchr(csv, '\n');
    *end = 0;
    const size_t n_fields =
        count_of(csv, ",") +
        1; /* those of sensors that are not there are empty, and absent in JSON */
    const char *name;
    json_t *value;
    json_object_foreach(json_array_get(records, 0), name, value)
    {
        if (strncmp(name, "samples", 7) != 0 && !is_column(csv, name))
            fail_msg("%s is no column of %s", name, csv);
    }
    assert_int_equal(count_of(end + 1, "\""), 2 * 5 * n_fields);
    assert_int_equal(count_of(end + 1, "\",\""), 5 * (n_fields - 1));
    assert_int_equal(strncmp(end + 1, "\"load\",", 7), 0);
    char *md = good_output(cli(WORDS(QUICK, TEXT), NULL, NULL, NULL), NULL);
    char *table = strchr(md, '|');
    assert_non_null(table);
    assert_int_equal(count_of(table, "\n"), 2 + 5);
    assert_int_equal(count_of(table, "|"), 8 * (2 + 5)); /* seven columns */
    assert_non_null(strstr(table, " tg3 @ d4 |"));
    assert_non_null(strstr(md, "isa:"));
    assert_true(count_of(md, "\xc2\xb1") >= 5); /* plus-minus */
    json_decref(records);
    free(json);
    free(csv);
    free(md);
}

/* Tiny models stay in the cache, where kernels may read faster than the limit's loop: for answers
 * nothing is said of how large the share may be. */
static void limits_give_shares(void **state)
{
    (void)state;
    json_t *records =
        records_of(cli(WORDS(QUICK, V1, "--limits", "-o", "jsonl"), NULL, NULL, NULL));
    const json_t *both = find_test(records, "encode + project");
    assert_int_equal(integer_of(both, "macs"),
                     integer_of(find_test(records, "encode"), "macs") +
                         integer_of(find_test(records, "project"), "macs"));
    for (size_t i = 0; i < json_array_size(records); i++) {
        const json_t *r = json_array_get(records, i);
        const char *name = text_of(r, "test");
        if (!strcmp(name, "load") || !strcmp(name, "jpeg") || !strcmp(name, "preprocess")) {
            expect_null(r, "limit");
            expect_null(r, "share");
            continue;
        }
        assert_true(real_of(r, "limit") > 0 && real_of(r, "share") > 0);
        if (strcmp(text_of(r, "limited_by"), "macs") == 0 && real_of(r, "share") > 1.2)
            fail_msg("%s: share %g", name, real_of(r, "share"));
    }
    json_decref(records);
    char *md = good_output(cli(WORDS(QUICK, TEXT, "--limits"), NULL, NULL, NULL), NULL);
    assert_non_null(strstr(md, "share"));
    assert_true(count_of(md, " % |") == 4);
    free(md);
}

/* Of a machine with all sensors, and of one with none, whose fields are absent. */
static void sensors_are_told(void **state)
{
    static const char *const names[] = {"temperature_c_start", "temperature_c_end",
                                        "temperature_c_lowest", "energy_j"};
    char *root = expand("@t/machine");
    (void)state;
    make_files(root, (const char *const[]){"/sys/class/thermal/thermal_zone0/type", "cpu-thermal",
                                           "/sys/class/thermal/thermal_zone0/temp", "48500",
                                           "/sys/class/hwmon/hwmon0/name", "ina3221",
                                           "/sys/class/hwmon/hwmon0/in1_label", "VDD_IN",
                                           "/sys/class/hwmon/hwmon0/in1_input", "5000",
                                           "/sys/class/hwmon/hwmon0/curr1_input", "2000", NULL});
    json_t *records =
        records_of(cli(WORDS(QUICK, TEXT, "-o", "jsonl"), NULL, NULL, "MOBILEVLM_ROOT=@t/machine"));
    const json_t *answer = find_test(records, "tg3 @ d0");
    assert_true(real_of(answer, "temperature_c_lowest") == 48.5);
    const double watts = real_of(answer, "energy_j") / (1e-9 * real_of(answer, "avg_ns")),
                 tokens = real_of(answer, "energy_j") * real_of(answer, "tokens_per_joule");
    assert_true(watts >= 9.9); /* ten, and what it takes to look */
    assert_true(tokens > 2.999 && tokens < 3.001);
    json_decref(records);
    char *md = good_output(cli(WORDS(QUICK, TEXT), NULL, NULL, "MOBILEVLM_ROOT=@t/machine"), NULL);
    assert_non_null(strstr(md, "      t/J |"));
    assert_non_null(strstr(md, "at the end: 48 degrees C; lowest: 48 degrees C"));
    free(md);
    records =
        records_of(cli(WORDS(QUICK, TEXT, "-o", "jsonl"), NULL, NULL, "MOBILEVLM_ROOT=@t/nothing"));
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        assert_null(json_object_get(json_array_get(records, 0), names[i]));
    assert_null(json_object_get(json_array_get(records, 0), "governor"));
    json_decref(records);
    free(root);
}

/* A picture's stages are measured together: what each took is not known. */
static void energy_of_one_is_told_of_one(void **state)
{
    (void)state;
    json_t *records = records_of(
        cli(WORDS(QUICK, V1, PICTURE, "-o", "jsonl"), NULL, NULL, "MOBILEVLM_ROOT=@t/machine"));
    assert_null(json_object_get(find_test(records, "encode"), "energy_j"));
    assert_non_null(json_object_get(find_test(records, "ttft"), "energy_j"));
    json_decref(records);
}

static void lists_and_ranges(void **state)
{
    (void)state;
    json_t *records = records_of(cli(WORDS("bench", TEXT, "-r", "1", "-p", "1-7+3", "-p", "2-9*2,6",
                                           "-n", "0", "-o", "jsonl", "-t", "1-2"),
                                     NULL, NULL, NULL));
    expect_tests(records, WORDS("load", "pp1", "pp4", "pp7", "pp2", "pp4", "pp8", "pp6", "load",
                                "pp1", "pp4", "pp7", "pp2", "pp4", "pp8", "pp6"));
    for (size_t i = 0; i < 16; i++)
        assert_int_equal(integer_of(json_array_get(records, i), "n_threads"), 1 + i / 8);
    json_decref(records);
    records = records_of(cli(WORDS("bench", TEXT, "-r", "1", "-o", "jsonl", "-t", "1"), NULL, NULL,
                             "MOBILEVLM_N_GEN=2"));
    expect_tests(records, WORDS("load", "pp176", "tg2 @ d0", "tg2 @ d512"));
    json_decref(records);
}

static void sustains(void **state)
{
    (void)state;
    json_t *records =
        records_of(cli(WORDS(QUICK, TEXT, "--sustain", "0.5s", "-o", "jsonl"), NULL, NULL, NULL));
    expect_tests(records, WORDS("pp5", "pp5 @ d4", "tg3 @ d0", "tg3 @ d4"));
    for (size_t i = 0; i < 4; i++)
        assert_true(real_of(json_array_get(records, i), "elapsed_s") >= 0.5);
    json_decref(records);
}

static void refuses(void **state)
{
    static const struct {
        const char *words[6];
        int code;
        const char *part;
    } cases[] = {
        {{"-p", "128,x"}, 2, "-p: \"x\""},
        {{"-p", "5,"}, 2, "-p: \"\""},
        {{"-n", "3-1"}, 2, "-n: \"3-1\""},
        {{"-n", "1-8+0"}, 2, "-n: \"1-8+0\""},
        {{"-n", "1-8*1"}, 2, "-n: \"1-8*1\""},
        {{"-d", "-5"}, 2, "-d: \"-5\""},
        {{"-d", "0-8*2"}, 2, "-d: \"0-8*2\""},
        {{"-p", "99999999999999999999"}, 2, "-p: \"99999999999999999999\""},
        {{"-p", "1-1048577"}, 2, "out of range"},
        {{"-p", "1-2000"}, 2, "more than 1000"},
        {{"-t", "0"}, 2, "-t: \"0\""},
        {{"-t", "1-300"}, 2, "-t: \"1-300\""},
        {{"-r", "0"}, 2, "-r"},
        {{"-o", "xml"}, 2, "xml"},
        {{"--sustain", "10d"}, 2, "--sustain: \"10d\""},
        {{"--sustain", "0"}, 2, "--sustain: \"0\""},
        {{"-i", "a.png", "-i", "b.png"}, 2, "one picture"},
        {{"-i", "@t/none.png"}, 4, "none.png"},
        {{"--isa", "sse9"}, 2, "sse9"},
        {{"--max-rss", "1K", "-p", "5"}, 5, "budget"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *words[12] = {"bench", V1};
        memcpy(words + 3, cases[i].words, sizeof cases[i].words);
        struct program_result result = cli(words, NULL, NULL, NULL);
        if (cases[i].code == 5) /* the table's head is printed by then */
            result.out[0] = 0;
        expect_error(result, cases[i].code, cases[i].part);
    }
    expect_error(cli(WORDS("bench", TEXT, PICTURE), NULL, NULL, NULL), 2, "takes no pictures");
    expect_error(cli(WORDS("bench"), NULL, NULL, NULL), 2, "no model named");
}

/* Full and composite attention by turns; what that saves stands behind the table. */
static void composite_attention_is_compared(void **state)
{
    (void)state;
    json_t *records = records_of(
        cli(WORDS(QUICK, TEXT, "--n-picture", "7,0,40", "-o", "jsonl"), NULL, NULL, NULL));
    expect_tests(records, WORDS("load", "pp5", "pp5 @ d4", "tg3 @ d0", "tg3 @ d4", "full 7",
                                "composite 7", "full 40", "composite 40"));
    /* 2 layers of 4 heads of 16: no q of 40 rows, no scores of 40 x 41 / 2 pairs */
    assert_int_equal(integer_of(find_test(records, "full 40"), "macs") -
                         integer_of(find_test(records, "composite 40"), "macs"),
                     2 * 64 * 64 * 40 + 2 * 2 * 64 * 40 * 41 / 2);
    json_decref(records);
    char *md = good_output(cli(WORDS(QUICK, TEXT, "--n-picture", "40"), NULL, NULL, NULL), NULL);
    assert_non_null(strstr(md, "a picture of 40 rows, then 30 of text: composite attention is "));
    free(md);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(records_have_every_field),
        cmocka_unit_test(all_formats_say_the_same),
        cmocka_unit_test(limits_give_shares),
        cmocka_unit_test(sensors_are_told),
        cmocka_unit_test(energy_of_one_is_told_of_one),
        cmocka_unit_test(lists_and_ranges),
        cmocka_unit_test(sustains),
        cmocka_unit_test(composite_attention_is_compared),
        cmocka_unit_test(refuses),
    };
    return cmocka_run_group_tests(tests, cli_setup, cli_teardown);
}
