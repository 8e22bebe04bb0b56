/* spawn -> bytes to standard input, bytes from output and error, all at once by poll -> exit
 * code. */
#include "program.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

enum { LIMIT_SECONDS = 120, READ_BYTES = 65536 };

/* ---- Files ------------------------------------------------------------------------------ */

char *temporary_folder(void)
{
    const char *parent = getenv("TMPDIR");
    char *path;
    assert_true(asprintf(&path, "%s/mobilevlm-test-XXXXXX", parent && *parent ? parent : "/tmp") >
                0);
    assert_non_null(mkdtemp(path));
    return path;
}

static int remove_one(const char *path, const struct stat *about, int kind, struct FTW *walk)
{
    (void)about;
    (void)kind;
    (void)walk;
    return remove(path);
}

void remove_folder(const char *path)
{
    nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* ---- The child -------------------------------------------------------------------------- */

struct child {
    pid_t pid;
    int in, out, err; /* our ends; -1: closed */
};

char **environment_with(const char *const *changes)
{
    size_t n = 0, n_changes = 0;
    while (environ[n])
        n++;
    while (changes && changes[n_changes])
        n_changes++;
    char **all = calloc(n + n_changes + 1, sizeof *all);
    assert_non_null(all);
    n = 0;
    for (size_t i = 0; i < n_changes; i++)
        all[n++] = (char *)(uintptr_t)changes[i];
    for (char **old = environ; *old; old++) {
        const size_t name = strcspn(*old, "=") + 1;
        bool changed = false;
        for (size_t i = 0; i < n_changes; i++)
            changed = changed || strncmp(changes[i], *old, name) == 0;
        if (!changed)
            all[n++] = *old;
    }
    return all;
}

/* Not by fork, which a process with threads had better not call. In a group of its own, so that the time limit ends a shell's children too. */
static pid_t spawn(const char *const *argv, const char *const *environment, const int ends[3])
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t defaults;
    pid_t pid;
    char **all = environment_with(environment);
    posix_spawn_file_actions_init(&actions);
    for (int i = 0; i < 3; i++)
        posix_spawn_file_actions_adddup2(&actions, ends[i], i);
    posix_spawnattr_init(&attributes);
    sigemptyset(&defaults);
    sigaddset(&defaults, SIGPIPE);
    posix_spawnattr_setsigdefault(&attributes, &defaults);
    posix_spawnattr_setpgroup(&attributes, 0);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);
    const int code =
        posix_spawnp(&pid, argv[0], &actions, &attributes, (char *const *)(uintptr_t)argv, all);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    free(all);
    if (code)
        fail_msg("%s cannot be started: %s", argv[0], strerror(code));
    return pid;
}

/* pipe[0] is read from, pipe[1] written to; neither is inherited, and neither is 0, 1 or 2, which
 * dup2 fills. */
static void make_pipe(int ends[2])
{
    int low[2];
    assert_int_equal(pipe(low), 0);
    for (int i = 0; i < 2; i++) {
        ends[i] = fcntl(low[i], F_DUPFD_CLOEXEC, 3);
        assert_true(ends[i] >= 3);
        close(low[i]);
    }
}

static void start(struct child *child, const char *const *argv, bool with_input,
                  const char *const *environment)
{
    int in[2], out[2], err[2];
    make_pipe(in);
    make_pipe(out);
    make_pipe(err);
    if (!with_input) {
        close(in[0]);
        in[0] = open("/dev/null", O_RDONLY | O_CLOEXEC);
    }
    fflush(NULL);
    child->pid = spawn(argv, environment, (const int[]){in[0], out[1], err[1]});
    const int theirs[] = {in[0], out[1], err[1]};
    for (size_t i = 0; i < sizeof theirs / sizeof *theirs; i++)
        close(theirs[i]);
    *child = (struct child){child->pid, in[1], out[0], err[0]};
    fcntl(child->in, F_SETFL, O_NONBLOCK);
}

/* ---- Its pipes -------------------------------------------------------------------------- */

static void close_end(int *end)
{
    if (*end >= 0)
        close(*end);
    *end = -1;
}

static void feed(int *end, const char **input, size_t *left)
{
    const ssize_t n = *left ? write(*end, *input, *left) : 0;
    if (n > 0) {
        *input += n;
        *left -= (size_t)n;
    }
    if (*left == 0 ||
        (n < 0 && errno != EAGAIN && errno != EINTR)) /* a program need not read all */
        close_end(end);
}

static void take(int *end, char **text, size_t *n_bytes)
{
    *text = realloc(*text, *n_bytes + READ_BYTES + 1);
    assert_non_null(*text);
    const ssize_t n = read(*end, *text + *n_bytes, READ_BYTES);
    if (n > 0)
        *n_bytes += (size_t)n;
    else if (n == 0 || errno != EINTR)
        close_end(end);
    (*text)[*n_bytes] = 0;
}

static int milliseconds_left(time_t deadline)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec < deadline ? (int)(deadline - now.tv_sec) * 1000 : 0;
}

/* Until both outputs are closed; false when the time is up. */
static bool exchange(struct child *child, struct program_result *result, const char *input,
                     size_t n_input, time_t deadline)
{
    while (child->out >= 0 || child->err >= 0) {
        struct pollfd ends[] = {
            {child->in, POLLOUT, 0}, {child->out, POLLIN, 0}, {child->err, POLLIN, 0}};
        const int left = milliseconds_left(deadline);
        if (left == 0)
            return false;
        if (poll(ends, 3, left) <= 0)
            continue;
        if (ends[0].revents)
            feed(&child->in, &input, &n_input);
        if (ends[1].revents)
            take(&child->out, &result->out, &result->n_out);
        if (ends[2].revents)
            take(&child->err, &result->err, &result->n_err);
    }
    return true;
}

/* Its status, or -1 when the time is up. */
static int wait_for(pid_t pid, time_t deadline)
{
    int status;
    for (;;) {
        if (waitpid(pid, &status, WNOHANG) == pid)
            return status;
        if (milliseconds_left(deadline) == 0)
            return -1;
        poll(NULL, 0, 2);
    }
}

void program_run(struct program_result *result, const char *const *argv, const void *input,
                 size_t n_input, const char *const *environment)
{
    struct child child;
    struct timespec now;
    *result = (struct program_result){.out = calloc(1, 1), .err = calloc(1, 1)};
    assert_true(result->out && result->err);
    clock_gettime(CLOCK_MONOTONIC, &now);
    const time_t deadline = now.tv_sec + LIMIT_SECONDS;
    void (*const before)(int) = signal(SIGPIPE, SIG_IGN);
    start(&child, argv, input != NULL, environment);
    const bool closed = exchange(&child, result, input, n_input, deadline);
    const int status = closed ? wait_for(child.pid, deadline) : -1;
    signal(SIGPIPE, before);
    close_end(&child.in);
    close_end(&child.out);
    close_end(&child.err);
    if (status < 0) {
        kill(-child.pid, SIGKILL);
        waitpid(child.pid, NULL, 0);
        program_free(result);
        fail_msg("%s did not end within %d seconds", argv[0], LIMIT_SECONDS);
    }
    result->code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

void program_free(struct program_result *result)
{
    free(result->out);
    free(result->err);
    *result = (struct program_result){0};
}

char *test_folder;

int open_test_folder(void **state)
{
    (void)state;
    test_folder = temporary_folder();
    return 0;
}

int close_test_folder(void **state)
{
    (void)state;
    remove_folder(test_folder);
    free(test_folder);
    return 0;
}

void make_files(const char *folder, const char *const *files)
{
    for (; *files; files += 2) {
        char path[512];
        snprintf(path, sizeof path, "%s%s", folder, files[0]);
        for (char *at = path + strlen(folder); (at = strchr(at, '/')); at++) {
            *at = 0;
            mkdir(path, 0755);
            *at = '/';
        }
        FILE *stream = fopen(path, "w");
        assert_non_null(stream);
        fprintf(stream, "%s\n", files[1]);
        assert_int_equal(fclose(stream), 0);
    }
}
