/* mobilevlm chat: through pipes, and at a terminal of the test's own. */
#include <errno.h>
#include <poll.h>
#include <fcntl.h>
#include <spawn.h>
#include <signal.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "cli_fixture.h"

#define CHAT "chat", V1, "-n", "9"
#define SYSTEM                                                                                     \
    "A chat between a curious user and an artificial intelligence assistant. The assistant "       \
    "gives helpful, detailed, and polite answers to the user's questions. "

/* What run answers to a prompt that is given whole; picture may be NULL. The caller frees it. */
static char *answer_raw(const char *prompt, const char *picture, const char *other)
{
    const char *words[MAX_WORDS] = {"run", V1, "-q", "-n", "9", "--raw", "-p", prompt};
    size_t n = 9;
    const char *const files[] = {picture, other};
    for (size_t i = 0; i < 2; i++)
        if (files[i]) {
            words[n++] = "-i";
            words[n++] = files[i];
        }
    char *answer = good_output(cli(words, NULL, NULL, NULL), NULL);
    answer[strlen(answer) - 1] = 0;
    return answer;
}

static char *text(const char *format, const char *a, const char *b)
{
    char *out;
    assert_true(asprintf(&out, format, a, b) > 0);
    return out;
}

/* Each turn's prompt is the template's, with all turns before; pictures stand where they were given. */
static void turns_follow_the_template(void **state)
{
    (void)state;
    char *first = answer_raw(
        SYSTEM "USER: <image>\nWhat is this? ASSISTANT:", "@g/images/landscape.png", NULL);
    char *prompt = text(
        SYSTEM "USER: <image>\nWhat is this? ASSISTANT: %s</s>USER: Why?%s ASSISTANT:", first, "");
    char *second = answer_raw(prompt, "@g/images/landscape.png", NULL);
    free(prompt);
    prompt = text(SYSTEM "USER: <image>\nWhat is this? ASSISTANT: %s</s>USER: Why? ASSISTANT: "
                         "%s</s>USER: <image>\nAnd this? ASSISTANT:",
                  first, second);
    char *third = answer_raw(prompt, "@g/images/landscape.png", "@g/images/grey.png");
    char *expected;
    assert_true(asprintf(&expected, "%s\n%s\n%s\n", first, second, third) > 0);
    expect_output(cli(WORDS(CHAT, "-q", "-i", "@g/images/landscape.png"), NULL,
                      "What is this?\nWhy?\n/image @g/images/grey.png\nAnd this?\n", NULL),
                  expected);
    free(prompt);
    free(first);
    free(second);
    free(third);
    free(expected);
}

/* Several lines are one text. */
static void lines_may_go_on(void **state)
{
    (void)state;
    char *expected = answer_raw(SYSTEM "USER: one\ntwo\n three ASSISTANT:", NULL, NULL), *line;
    assert_true(asprintf(&line, "%s\n", expected) > 0);
    expect_output(cli(WORDS(CHAT, "-q"), NULL, "one\\\ntwo\\\n three\n", NULL), line);
    expect_output(cli(WORDS(CHAT, "-q"), NULL, "\"\"\"\none\ntwo\n three\n\"\"\"\n", NULL), line);
    expect_output(cli(WORDS(CHAT, "-q"), NULL, "\n  \none\\\r\ntwo\\\r\n three", NULL), line);
    free(expected);
    free(line);
}

static void commands_do_what_they_say(void **state)
{
    (void)state;
    char *hello = answer_raw(SYSTEM "USER: Hello ASSISTANT:", NULL, NULL), *twice, *saved,
         *path = expand("@t/saved.txt");
    size_t n;
    assert_true(asprintf(&twice, "%s\n%s\n", hello, hello) > 0);
    expect_output(cli(WORDS(CHAT, "-q"), NULL,
                      "Hello\n/clear\nHello\n/save @t/saved.txt\n/quit\nnever asked\n", NULL),
                  twice);
    char *text_saved = file_load(path, &n);
    assert_true(asprintf(&saved, "USER: Hello\nASSISTANT: %s\n", hello) > 0);
    assert_string_equal(text_saved, saved);
    struct program_result result = cli(WORDS(CHAT), NULL, "Hello\n/retry\n/help\n", NULL);
    assert_int_equal(result.code, 0);
    assert_int_equal(strncmp(result.out, hello, strlen(hello)), 0);
    assert_non_null(strstr(result.err, "another answer to the last question"));
    program_free(&result);
    free(hello);
    free(twice);
    free(saved);
    free(path);
    free(text_saved);
}

/* A script cannot see that something went wrong, and would take the next answer for one about the picture. */
static void trouble_ends_a_script(void **state)
{
    static const struct {
        const char *input;
        int code;
        const char *part;
    } rows[] = {
        {"/image @t/none.png\nWhat is this?\n", 4, "none.png: cannot be opened"},
        {"/image @g/images/bad/half.jpg \nWhat is this?\n", 4, "half.jpg: truncated JPEG"},
        {"/image -\nWhat is this?\n", 2, "the conversation is there"},
        {"/image\n", 2, "/image FILE"},
        {"/save\n", 2, "/save FILE"},
        {"/save @t/no/where\n", 8, "no/where: cannot be written"},
        {"/retry\n", 2, "nothing was asked yet"},
        {"/frob it\n", 2, "/frob is no command"},
        {"<image> what?\n", 2, "1 marks <image>, but 0 new pictures"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        expect_error(cli(WORDS(CHAT, "-q"), NULL, rows[i].input, NULL), rows[i].code, rows[i].part);
    expect_error(cli(WORDS(CHAT, "-q"), "printf 'a\\0b\\n' | \"$0\" \"$@\"", NULL, NULL), 2,
                 "a NUL byte");
}

/* When the context is full the oldest turns go; the picture stays, and answers go on. */
static void old_turns_go_and_pictures_stay(void **state)
{
    enum { N = 12 };
    char input[64 * N] = "";
    (void)state;
    for (int i = 0; i < N; i++)
        strcat(input, "Tell me more about it, please.\n");
    struct program_result result =
        cli(WORDS("chat", V1, "-n", "20", "-c", "420", "-i", "@g/images/landscape.png"), NULL,
            input, NULL);
    size_t n_lines = 0;
    assert_int_equal(result.code, 0);
    for (const char *at = result.out; (at = strchr(at, '\n')); at++)
        n_lines++;
    assert_true(n_lines >= N);
    assert_non_null(strstr(result.err, "forgotten"));
    program_free(&result);
    expect_error(cli(WORDS("chat", V1, "-n", "20", "-c", "60", "-q"), NULL,
                     "A question that is much longer than a context of so few positions could ever "
                     "hold, and so nobody will answer it at all, whatever it may be about.\n",
                     NULL),
                 2, "the context has 60");
}

/* ---- At a terminal ---------------------------------------------------------------------- */

/* at the beginning of a line: a model of random weights may say anything in the middle of one */
#define PROMPT "\n> "

struct terminal {
    int file;
    pid_t child;
    bool edits; /* lines are edited, in raw mode */
    char said[65536];
    size_t n;
};

static void open_terminal(struct terminal *t, const char *kind)
{
    char *model = expand("@t/v1.bin"), name[128], term[64];
    snprintf(term, sizeof term, "TERM=%s", kind);
    char **environment =
        environment_with((const char *const[]){term, "LC_ALL=C", NULL}); /* as in a container */
    const char *const argv[] = {
        MOBILEVLM_PROGRAM, "chat", "-m", model, "-n", "200", "-c", "300", NULL};
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    t->n = 0;
    t->edits = strcmp(kind, "dumb") != 0;
    t->file = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    assert_true(t->file >= 0 && grantpt(t->file) == 0 && unlockpt(t->file) == 0);
    assert_int_equal(ptsname_r(t->file, name, sizeof name), 0);
    posix_spawnattr_init(&attributes); /* the first terminal that a session opens is its own */
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSID);
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 0, name, O_RDWR, 0);
    posix_spawn_file_actions_adddup2(&actions, 0, 1);
    posix_spawn_file_actions_adddup2(&actions, 0, 2);
    assert_int_equal(posix_spawn(&t->child, argv[0], &actions, &attributes,
                                 (char *const *)(uintptr_t)argv, environment),
                     0);
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
    free(environment);
    free(model);
}

/* Waits so long until `part` was said after position `from`; returns the position behind it, or 0. */
static size_t said_within(struct terminal *t, int tenths_of_a_second, size_t from, const char *part)
{
    for (int i = 0; i < tenths_of_a_second; i++) {
        struct pollfd waiting = {.fd = t->file, .events = POLLIN};
        t->said[t->n] = 0;
        const char *found = strstr(t->said + from, part);
        if (found)
            return (size_t)(found - t->said) + strlen(part);
        if (poll(&waiting, 1, 100) > 0) {
            const ssize_t n = read(t->file, t->said + t->n, sizeof t->said - 1 - t->n);
            if (n > 0)
                t->n += (size_t)n;
        }
    }
    return 0;
}

static size_t wait_for(struct terminal *t, size_t from, const char *part)
{
    const size_t at = said_within(t, 600, from, part);
    if (!at)
        fail_msg("not said: %s in %s", part, t->said + from);
    return at;
}

/* The editor turns to raw mode behind its prompt: a key that comes between them is lost, as everywhere. */
static size_t wait_for_prompt(struct terminal *t, size_t from)
{
    const size_t at = wait_for(t, from, PROMPT);
    struct termios mode;
    for (int i = 0; i < 600 && t->edits; i++) {
        if (tcgetattr(t->file, &mode) == 0 && !(mode.c_lflag & ICANON))
            break;
        usleep(100000);
    }
    return at;
}

static void type(const struct terminal *t, const char *keys)
{
    assert_int_equal(write(t->file, keys, strlen(keys)), (ssize_t)strlen(keys));
}

/* Ctrl-C empties the terminal's queue, and with it what was typed before it and not yet read: so it is typed again. */
static size_t type_until(struct terminal *t, const char *keys, size_t from, const char *part)
{
    size_t at = 0;
    for (int i = 0; i < 20 && !at; i++) {
        type(t, keys);
        at = said_within(t, 30, from, part);
    }
    if (!at)
        fail_msg("not said: %s in %s", part, t->said + from);
    return at;
}

/* Ctrl-D at a prompt ends the program; Ctrl-U before it, for what may stand in the line. */
static void end_input(struct terminal *t)
{
    int status;
    pid_t ended = 0;
    for (int i = 0; i < 600 && ended == 0; i++) {
        if (write(t->file, "\025\004", 2) < 0)
            assert_int_equal(errno, EIO); /* it has let go of the terminal */
        said_within(t, 1, t->n, "nothing of the kind");
        usleep(50000);
        ended = waitpid(t->child, &status, WNOHANG);
    }
    if (ended != t->child)
        fail_msg("Ctrl-D does not end it: %s", t->said + (t->n > 500 ? t->n - 500 : 0));
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    close(t->file);
}

/* Ctrl-C stops an answer, clears a line, and never ends the program; Ctrl-D does. */
static void control_c_stops_the_answer(void **state)
{
    static const char *const kinds[] = {"xterm", "dumb"};
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        static struct terminal t;
        open_terminal(&t, kinds[i]);
        size_t at = wait_for_prompt(&t, 0);
        type(&t, "Hello there\r");
        at = wait_for(&t, at, "prefill"); /* the answer is under way */
        at = type_until(&t, "\003", at, PROMPT);
        at = type_until(&t, "half a line\003", at, PROMPT);
        at = type_until(&t, "/help\r", at, "/retry");
        wait_for_prompt(&t, at);
        end_input(&t);
    }
}

/* What is wrong is told, and nothing is lost: neither letters, nor the conversation before. */
static void a_terminal_forgives(void **state)
{
    static const char *const kinds[] = {"xterm", "dumb"};
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        static struct terminal t;
        open_terminal(&t, kinds[i]);
        size_t at = wait_for_prompt(&t, 0);
        type(&t, "caf\303\251?\r");
        at = wait_for_prompt(&t, wait_for(&t, at, "\303\251?"));
        type(
            &t,
            "/image /none\033.png\r"); /* an escape drives no terminal: it is no part of what is said */
        at = wait_for_prompt(&t, wait_for(&t, at, "cannot be opened"));
        for (int k = 0; k < 40; k++)
            type(&t, "and this and that and ");
        type(&t, "?\r");
        at = wait_for_prompt(&t, wait_for(&t, at, "the context has 300"));
        char *path = expand("@t/forgiven.txt"), *line;
        size_t n;
        assert_true(asprintf(&line, "/save %s\r", path) > 0);
        type(&t, line);
        at = wait_for_prompt(&t, wait_for(&t, at, "(saved)"));
        char *saved = file_load(path, &n);
        assert_non_null(strstr(saved, "USER: caf\303\251?\n"));
        assert_null(strstr(saved, "and this and that"));
        end_input(&t);
        free(saved);
        free(path);
        free(line);
    }
}

static void refuses_what_cannot_chat(void **state)
{
    (void)state;
    expect_error(cli(WORDS("chat", "-q"), NULL, NULL, NULL), 2, "no model named");
    expect_error(cli(WORDS(CHAT, "-i", "@t/none.png"), NULL, NULL, NULL), 4, "none.png");
    expect_error(cli(WORDS("chat", TEXT, "-i", "@g/images/grey.png"), NULL, NULL, NULL), 2,
                 "base model");
    expect_error(cli(WORDS(CHAT, "--raw"), NULL, NULL, NULL), 2, "--raw");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(turns_follow_the_template),
        cmocka_unit_test(lines_may_go_on),
        cmocka_unit_test(commands_do_what_they_say),
        cmocka_unit_test(old_turns_go_and_pictures_stay),
        cmocka_unit_test(control_c_stops_the_answer),
        cmocka_unit_test(trouble_ends_a_script),
        cmocka_unit_test(a_terminal_forgives),
        cmocka_unit_test(refuses_what_cannot_chat),
    };
    return cmocka_run_group_tests_name("chat", tests, cli_setup, cli_teardown);
}
