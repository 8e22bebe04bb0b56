/* The model that ships: models/tinyvlm-draw.bin on models/pictures, as README's first command runs it. */
#include <sys/stat.h>

#include "../kernels/kernels.h"
#include "cli_fixture.h"

#define MODEL    SOURCE_DIR "/models/tinyvlm-draw.bin"
#define PICTURES SOURCE_DIR "/models/pictures/"

/* What is true of the pictures, and the model says so. */
static const struct {
    const char *picture, *question, *answer;
} truths[] = {
    {"dog-and-umbrella.png", "What is on the left?", "a dog.\n"},
    {"dog-and-umbrella.png", "What is on the right?", "an umbrella.\n"},
    {"dog-and-umbrella.png", "What do you see?", "a dog and an umbrella.\n"},
    {"tiger.png", "What is this?", "a tiger.\n"},
    {"apples.png", "How many apples are there?", "three.\n"},
    {"apples.png", "What colour is the background?", "light blue.\n"},
    {"guitar.png", "What is in the picture?", "a guitar.\n"},
    {"shapes.png", "How many shapes are there?", "three.\n"},
    {"shapes.png", "What colour is the square?", "blue.\n"},
    {"shapes.png", "Which shape is red?", "a circle.\n"},
};
enum { N_TRUTHS = sizeof truths / sizeof *truths };

static void says_what_is_true(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_TRUTHS; i++) {
        char picture[512];
        snprintf(picture, sizeof picture, PICTURES "%s", truths[i].picture);
        expect_output(
            cli(WORDS("-m", MODEL, "-i", picture, "-p", truths[i].question), NULL, NULL, NULL),
            truths[i].answer);
    }
}

/* On every rung that this processor has, and for any number of threads. */
static void says_the_same_everywhere(void **state)
{
    const char *isa;
    bool has;
    (void)state;
    for (size_t rung = 0; (isa = kernels_rung(rung, &has)); rung++)
        for (int n_threads = 1; has && n_threads <= 3; n_threads += 2) {
            char threads[8];
            snprintf(threads, sizeof threads, "%d", n_threads);
            expect_output(cli(WORDS("-m", MODEL, "-i", PICTURES "tiger.png", "-p", "What is this?",
                                    "--isa", isa, "-t", threads),
                              NULL, NULL, NULL),
                          "a tiger.\n");
        }
}

static void is_whole_and_small(void **state)
{
    struct stat about;
    (void)state;
    expect_output(cli(WORDS("verify", "-q", "-m", MODEL), NULL, NULL, NULL), "");
    assert_int_equal(stat(MODEL, &about), 0);
    assert_true(about.st_size <= 10000000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(says_what_is_true),
        cmocka_unit_test(says_the_same_everywhere),
        cmocka_unit_test(is_whole_and_small),
    };
    return cmocka_run_group_tests_name("shipped", tests, NULL, NULL);
}
