/* --cache: a picture that was seen before is not encoded again, and nothing else changes. */
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli_fixture.h"

#define ASK   "run", V1, "-q", "-p", "What is this?", "-n", "9", "--json"
#define CACHE "--cache", "@t/cache"

/* The text of a question about a picture of tests/golden/images, and whether it had to be encoded; the
 * caller frees the text. cache: NULL, or what --cache-size says. */
static char *ask(const char *picture, const char *size, bool *encoded)
{
    char *path;
    assert_true(asprintf(&path, "@g/images/%s", picture) > 0);
    json_t *record =
        good_json(size ? cli(WORDS(ASK, "-i", path, CACHE, "--cache-size", size), NULL, NULL, NULL)
                       : cli(WORDS(ASK, "-i", path), NULL, NULL, NULL));
    const json_t *ms = json_object_get(record, "timings_ms");
    char *text = strdup(text_of(record, "text"));
    *encoded = json_number_value(json_object_get(ms, "encode")) > 0;
    json_decref(record);
    free(path);
    return text;
}

static void expect_answer(const char *picture, const char *size, bool encoded)
{
    bool was;
    char *plain = ask(picture, NULL, &was), *cached = ask(picture, size, &was);
    assert_string_equal(cached, plain);
    assert_int_equal(was, encoded);
    free(plain);
    free(cached);
}

/* Files of the cache; the last one's path in `path` [512], and its bytes. */
static size_t list_cache(char *path, off_t *n_bytes)
{
    char *folder = expand("@t/cache");
    DIR *entries = opendir(folder);
    size_t n = 0;
    for (const struct dirent *d; entries && (d = readdir(entries));) {
        struct stat about;
        if (d->d_name[0] == '.')
            continue;
        snprintf(path, 512, "%s/%s", folder, d->d_name);
        assert_int_equal(stat(path, &about), 0);
        *n_bytes = about.st_size;
        n++;
    }
    if (entries)
        closedir(entries);
    free(folder);
    return n;
}

static int begin(void **state)
{
    (void)state;
    expect_output(cli(WORDS(""), "rm -rf @t/cache", NULL, NULL), "");
    return 0;
}

static void encodes_a_picture_once(void **state)
{
    char path[512];
    off_t n_bytes;
    (void)state;
    expect_answer("landscape.png", "1G", true);
    expect_answer("landscape.png", "1G", false);
    expect_answer("grey.png", "1G", true);
    assert_int_equal(list_cache(path, &n_bytes), 2);
    expect_answer("landscape.png", "1G", false);
}

/* Another file of the same pixels is the same picture; another model's rows are others. */
static void knows_pictures_by_their_pixels(void **state)
{
    char *copy = expand("@t/copy.png"), *q8 = expand("@t/q8.bin"),
         *checkpoint = path_of(GOLDEN "/cases", "v1", "checkpoint");
    (void)state;
    expect_answer("grey.png", "1G", true);
    expect_output(cli(WORDS(""), "cp @g/images/grey.png @t/copy.png", NULL, NULL), "");
    json_t *record = good_json(cli(WORDS(ASK, "-i", copy, CACHE), NULL, NULL, NULL));
    assert_true(
        json_number_value(json_object_get(json_object_get(record, "timings_ms"), "encode")) == 0);
    json_decref(record);
    convert_test(checkpoint, q8, "q8");
    record = good_json(cli(
        WORDS("run", "-m", q8, "-q", "-p", "What is this?", "-n", "9", "--json", "-i", copy, CACHE),
        NULL, NULL, NULL));
    assert_true(
        json_number_value(json_object_get(json_object_get(record, "timings_ms"), "encode")) > 0);
    json_decref(record);
    free(checkpoint);
    free(q8);
    free(copy);
}

static void change_entry(const char *path, off_t n_bytes, int how)
{
    FILE *file = fopen(path, "r+b");
    assert_non_null(file);
    if (how <= 0) { /* one bit, of the byte so far from the end, or of the header's first */
        const off_t at = how == 0 ? 0 : n_bytes + how;
        assert_int_equal(fseeko(file, at, SEEK_SET), 0);
        const int byte = fgetc(file);
        assert_int_equal(fseeko(file, at, SEEK_SET), 0);
        fputc(byte ^ 1, file);
    } else if (how == 1) {
        assert_int_equal(fseeko(file, 0, SEEK_END), 0);
        fputc(0, file);
    }
    assert_int_equal(fclose(file), 0);
    if (how > 1)
        assert_int_equal(truncate(path, how == 2 ? 0 : n_bytes - how), 0);
}

/* An entry of other bytes, shorter, longer or empty is made anew. */
static void believes_no_damaged_entry(void **state)
{
    static const int changes[] = {0, -1, -1000, 1, 2, 3, 1000};
    char path[512];
    off_t n_bytes;
    (void)state;
    expect_answer("grey.png", "1G", true);
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        assert_int_equal(list_cache(path, &n_bytes), 1);
        change_entry(path, n_bytes, changes[i]);
        expect_answer("grey.png", "1G", true);
        expect_answer("grey.png", "1G", false);
    }
}

/* What was not used for longest goes first: by years, and by less than a second. */
static void stays_within_its_size(void **state)
{
    char path[512], size[32];
    off_t n_bytes;
    (void)state;
    expect_answer("grey.png", "1G", true);
    assert_int_equal(list_cache(path, &n_bytes), 1);
    snprintf(size, sizeof size, "%lld", (long long)n_bytes * 5 / 2);
    const struct timespec years_ago[2] = {{.tv_sec = 1700000000}, {.tv_sec = 1700000000}};
    assert_int_equal(utimensat(AT_FDCWD, path, years_ago, 0), 0);
    expect_answer("landscape.png", size, true);
    expect_answer("odd.png", size, true); /* and grey.png goes */
    expect_answer("landscape.png", size, false);
    expect_answer("grey.png", "1", true); /* room for none */
    expect_answer("grey.png", "1G", true);
    assert_int_equal(list_cache(path, &n_bytes), 1);
    snprintf(size, sizeof size, "%lld", (long long)n_bytes * 5 / 2); /* room for two */
    expect_answer("landscape.png", size, true);
    expect_answer("grey.png", size, false);
    expect_answer("odd.png", size, true); /* and landscape.png goes */
    assert_int_equal(list_cache(path, &n_bytes), 2);
    expect_answer("grey.png", size, false);
    expect_answer("odd.png", size, false);
    expect_answer("landscape.png", size, true);
    expect_answer("grey.png", "1", true); /* room for none */
    assert_int_equal(list_cache(path, &n_bytes), 0);
}

/* A cache that cannot be written loses nothing but time; one that cannot be there is an error. */
static void faults_lose_nothing(void **state)
{
    char path[512];
    off_t n_bytes;
    bool encoded;
    (void)state;
    char *plain = ask("grey.png", NULL, &encoded), *answer;
    assert_true(asprintf(&answer, "%s\n", plain) > 0);
    expect_output(cli(WORDS("run", V1, "-q", "-p", "What is this?", "-n", "9", "-i",
                            "@g/images/grey.png", CACHE),
                      "ulimit -f 2; \"$0\" \"$@\" | cat", NULL, NULL),
                  answer);
    assert_int_equal(list_cache(path, &n_bytes), 0);
    expect_error(cli(WORDS("run", V1, "-q", "-p", "Why?", "-i", "@g/images/grey.png", "--cache",
                           "@t/v1.bin"),
                     NULL, NULL, NULL),
                 8, "v1.bin: is no folder");
    expect_error(cli(WORDS("run", V1, "-q", "-p", "Why?", "-i", "@g/images/grey.png", "--cache",
                           "@t/none/cache"),
                     NULL, NULL, NULL),
                 8, "none/cache: cannot be made");
    free(plain);
    free(answer);
}

/* Several processes at once, of which each finds or makes whole entries only. */
static void processes_share_it(void **state)
{
    char path[512], *text;
    off_t n_bytes;
    bool encoded;
    (void)state;
    char *plain = ask("grey.png", NULL, &encoded), *expected;
    assert_true(asprintf(&expected, "%s\n%s\n%s\n%s\n", plain, plain, plain, plain) > 0);
    text = good_output(cli(WORDS("run", V1, "-q", "-p", "What is this?", "-n", "9", "-i",
                                 "@g/images/grey.png", CACHE),
                           "for i in 1 2 3 4; do \"$0\" \"$@\" >@t/said$i & done; wait; "
                           "cat @t/said1 @t/said2 @t/said3 @t/said4",
                           NULL, NULL),
                       NULL);
    assert_string_equal(text, expected);
    assert_int_equal(list_cache(path, &n_bytes), 1);
    expect_answer("grey.png", "1G", false);
    free(text);
    free(plain);
    free(expected);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(encodes_a_picture_once, begin),
        cmocka_unit_test_setup(knows_pictures_by_their_pixels, begin),
        cmocka_unit_test_setup(believes_no_damaged_entry, begin),
        cmocka_unit_test_setup(stays_within_its_size, begin),
        cmocka_unit_test_setup(faults_lose_nothing, begin),
        cmocka_unit_test_setup(processes_share_it, begin),
    };
    return cmocka_run_group_tests_name("image_cache", tests, cli_setup, cli_teardown);
}
