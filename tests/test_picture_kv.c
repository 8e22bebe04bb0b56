/* Composite attention: a picture's keys and values come out of the folder of --cache, for another question at the same
 * position, and nothing changes but the time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <dirent.h>
#include <cmocka.h>

#include "conversation.h"
#include "golden.h"
#include "program.h"

enum { TOKENS = 25 /* of a picture of the case */ };

/* What an answer was, and what it took. */
struct asked {
    struct reply reply;
    mvlm_counters counters;
};

static uint64_t cache_bytes; /* of the folder; 0: as many as it has by default */

static void ask(mvlm_model *model, const char *folder, mvlm_kv_type kv_type, const char *system,
                const char *text, size_t n_pictures, struct asked *asked)
{
    struct conversation c;
    const mvlm_session_options options = {
        .cache_folder = folder, .cache_bytes = cache_bytes, .kv_type = kv_type, .n_threads = 2};
    mvlm_session *session;
    mvlm_error error = {0};
    memset(asked, 0, sizeof *asked);
    conversation_open(&c, "composite");
    const mvlm_turn turn = {.question = text};
    mvlm_question question = c.question;
    question.turns = &turn;
    question.system = system;
    question.n_pictures = n_pictures;
    question.max_tokens = 12;
    if (mvlm_session_open(model, &options, &session, &error) != MVLM_OK ||
        mvlm_ask(session, &question, reply_add, &asked->reply, &error) != MVLM_OK)
        fail_msg("%s", error.message);
    mvlm_session_counters(session, &asked->counters);
    mvlm_session_close(session);
    conversation_close(&c);
}

/* Asks with the folder and without: the same text, and so many rows that need not be read. */
static void expect(mvlm_model *model, const char *folder, mvlm_kv_type kv_type, const char *system,
                   const char *text, size_t n_pictures, size_t n_reused)
{
    static struct asked plain, cached;
    ask(model, NULL, kv_type, system, text, n_pictures, &plain);
    ask(model, folder, kv_type, system, text, n_pictures, &cached);
    assert_string_equal(cached.reply.text, plain.reply.text);
    assert_int_equal(plain.counters.reused_rows, 0);
    assert_int_equal(cached.counters.reused_rows, n_reused);
}

static size_t n_tokens(mvlm_model *model, const char *text)
{
    size_t n;
    mvlm_error error;
    assert_int_equal(mvlm_tokenize(model, text, strlen(text), 0, NULL, 0, &n, &error), MVLM_OK);
    return n;
}

/* Another text that has as many tokens. */
static const char *same_length(mvlm_model *model, const char *text)
{
    static char other[64];
    strcpy(other, "x");
    while (n_tokens(model, other) < n_tokens(model, text)) {
        assert_true(strlen(other) + 2 < sizeof other);
        strcat(other, strlen(other) % 2 ? "7" : "x");
    }
    assert_int_equal(n_tokens(model, other), n_tokens(model, text));
    return other;
}

static void keeps_keys_and_values(void **state)
{
    static const mvlm_kv_type types[] = {MVLM_KV_Q8, MVLM_KV_F16, MVLM_KV_F32};
    (void)state;
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        mvlm_model *model = conversation_model(test_folder, "composite", i ? "f32" : "q8", NULL);
        char name[32];
        snprintf(name, sizeof name, "kept-%zu", i);
        char *folder = path_of(test_folder, name, NULL);
        expect(model, folder, types[i], NULL, "<image>\nWhat is this?", 1, 0);
        expect(model, folder, types[i], NULL, "<image>\nWho is there, and why?", 1, TOKENS);
        expect(model, folder, types[i], NULL, "<image>\n<image>\nWhich?", 2, TOKENS);
        expect(model, folder, types[i], NULL, "<image>\n<image>\nWhich of them?", 2, 2 * TOKENS);
        /* another position, and then that one too */
        expect(model, folder, types[i], "Be brief.", "<image>\nWhat is this?", 1, 0);
        expect(model, folder, types[i], "Be brief.", "<image>\nAnd now?", 1, TOKENS);
        /* other text of as many tokens before it */
        expect(model, folder, types[i], same_length(model, "Be brief."), "<image>\nAnd now?", 1,
               TOKENS);
        free(folder);
        mvlm_model_close(model);
    }
}

/* Turns a byte over in every file of the folder. */
static void damage(const char *folder)
{
    DIR *entries = opendir(folder);
    assert_non_null(entries);
    for (const struct dirent *d; (d = readdir(entries));) {
        size_t n;
        if (d->d_name[0] == '.')
            continue;
        char *path = path_of(folder, d->d_name, NULL), *bytes = file_load(path, &n);
        bytes[n - 3] ^= 0x40;
        file_save(path, bytes, n);
        free(bytes);
        free(path);
    }
    closedir(entries);
}

static void damaged_entries_are_none(void **state)
{
    (void)state;
    mvlm_model *model = conversation_model(test_folder, "composite", "q8", NULL);
    char *folder = path_of(test_folder, "damaged", NULL);
    expect(model, folder, MVLM_KV_Q8, NULL, "<image>\nWhat is this?", 1, 0);
    damage(folder);
    expect(model, folder, MVLM_KV_Q8, NULL, "<image>\nWhat is that?", 1, 0);
    expect(model, folder, MVLM_KV_Q8, NULL, "<image>\nWhat is this?", 1, TOKENS);
    mvlm_model_close(model);
    free(folder);
}

/* Files of the folder whose name ends so, and all files' bytes. */
static size_t n_files(const char *folder, const char *ending, uint64_t *n_bytes)
{
    size_t n = 0;
    DIR *entries = opendir(folder);
    assert_non_null(entries);
    *n_bytes = 0;
    for (const struct dirent *d; (d = readdir(entries));) {
        struct stat about;
        const char *point = strrchr(d->d_name, '.');
        if (d->d_name[0] == '.')
            continue;
        char *path = path_of(folder, d->d_name, NULL);
        assert_int_equal(stat(path, &about), 0);
        *n_bytes += (uint64_t)about.st_size;
        n += point && strcmp(point, ending) == 0;
        free(path);
    }
    closedir(entries);
    return n;
}

/* Where the folder is full they go before the rows, though those of the second picture were used longer ago. */
static void they_go_before_rows(void **state)
{
    (void)state;
    char system[64] = "";
    uint64_t n_bytes;
    mvlm_model *model = conversation_model(test_folder, "composite", "q8", NULL);
    char *folder = path_of(test_folder, "full-folder", NULL);
    cache_bytes = 80000;
    expect(model, folder, MVLM_KV_Q8, NULL, "<image>\n<image>\nWhich?", 2, 0);
    assert_int_equal(n_files(folder, ".more", &n_bytes), 2);
    for (int i = 0; i < 20; i++) {
        strcat(system, "a ");
        expect(model, folder, MVLM_KV_Q8, system, "<image>\nWhat is this?", 1, 0);
        assert_int_equal(n_files(folder, ".rows", &n_bytes), 2);
        assert_true(n_bytes <= cache_bytes);
    }
    const size_t n_more = n_files(folder, ".more", &n_bytes);
    assert_true(n_more > 2 && n_more < 20);
    cache_bytes = 0;
    mvlm_model_close(model);
    free(folder);
}

/* Where attention is full what stands before a picture matters: nothing of it is kept but its rows. */
static void full_attention_keeps_rows_only(void **state)
{
    (void)state;
    mvlm_model *model = conversation_model(test_folder, "two-images", "q8", NULL);
    char *folder = path_of(test_folder, "full", NULL);
    expect(model, folder, MVLM_KV_Q8, NULL, "<image>\nWhat is this?", 1, 0);
    expect(model, folder, MVLM_KV_Q8, NULL, "<image>\nWhat is that?", 1, 0);
    mvlm_model_close(model);
    free(folder);
}

/* The memory on the way to the folder is planned. */
static void it_is_planned(void **state)
{
    mvlm_memory with, without;
    mvlm_error error;
    (void)state;
    mvlm_model *model = conversation_model(test_folder, "composite", "q8", NULL);
    const mvlm_session_options plain = {.n_threads = 1},
                               cached = {.n_threads = 1, .cache_folder = test_folder};
    assert_int_equal(mvlm_session_plan(model, &plain, 100, 1, 10, &without, &error), MVLM_OK);
    assert_int_equal(mvlm_session_plan(model, &cached, 100, 1, 10, &with, &error), MVLM_OK);
    /* 25 positions of 2 layers of 2 heads of 16 values, padded to 32, keys and values, and scales */
    assert_true(with.scratch >= without.scratch + 25 * 2 * 2 * (2 * 32 + 8));
    mvlm_model_close(model);
}

/* Where it does not fit the budget the question is answered without. */
static void a_budget_goes_before_it(void **state)
{
    static struct asked asked;
    mvlm_memory without;
    mvlm_error error = {0};
    struct conversation c;
    mvlm_session *session;
    (void)state;
    mvlm_model *model = conversation_model(test_folder, "composite", "q8", NULL);
    char *folder = path_of(test_folder, "budget", NULL);
    mvlm_session_options options = {.n_threads = 1};
    const mvlm_turn turn = {.question = "<image>\nWhat is this?"};
    conversation_open(&c, "composite");
    mvlm_question question = c.question;
    question.turns = &turn;
    question.n_pictures = 1;
    question.max_tokens = 4;
    size_t n_rows;
    assert_int_equal(mvlm_question_rows(model, &question, &n_rows, &error), MVLM_OK);
    assert_int_equal(mvlm_session_plan(model, &options, n_rows, 1, 4, &without, &error), MVLM_OK);
    options.max_rss = without.total;
    options.cache_folder = folder;
    for (size_t i = 0; i < 2; i++) {
        memset(&asked, 0, sizeof asked);
        assert_int_equal(mvlm_session_open(model, &options, &session, &error), MVLM_OK);
        if (mvlm_ask(session, &question, reply_add, &asked.reply, &error) != MVLM_OK)
            fail_msg("%s", error.message);
        mvlm_session_counters(session, &asked.counters);
        assert_int_equal(asked.counters.reused_rows, 0);
        assert_int_equal(asked.counters.cached_pictures, i);
        mvlm_session_close(session);
    }
    conversation_close(&c);
    mvlm_model_close(model);
    free(folder);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, open_test_folder, close_test_folder)
    const struct CMUnitTest tests[] = {
        TEST(keeps_keys_and_values),          TEST(damaged_entries_are_none),
        TEST(full_attention_keeps_rows_only), TEST(it_is_planned),
        TEST(a_budget_goes_before_it),        TEST(they_go_before_rows),
    };
    return cmocka_run_group_tests_name("picture_kv", tests, NULL, NULL);
}
