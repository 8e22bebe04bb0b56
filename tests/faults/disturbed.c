#include "disturbed.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MOST_WORDS = 32, MOST_SECONDS = 30 };

static int anonymous(const char *name)
{
    const int file = memfd_create(name, 0);
    assert_true(file >= 0);
    return file;
}

/* All that was written to it. Free it. */
static char *contents(int file)
{
    const off_t n = lseek(file, 0, SEEK_END);
    char *text = calloc(1, (size_t)n + 1);
    assert_non_null(text);
    assert_int_equal(pread(file, text, (size_t)n, 0), n);
    close(file);
    return text;
}

static _Noreturn void run_child(int (*program)(int, char **), const char *const *words,
                                const char *input, int out, int err, enum fault kind,
                                enum manner manner, long n)
{
    char *argv[MOST_WORDS + 1] = {0};
    int argc = 0;
    const int in = open(input ? input : "/dev/null", O_RDONLY);
    for (; words[argc] && argc < MOST_WORDS; argc++)
        argv[argc] = (char *)(uintptr_t)words[argc];
    dup2(in, STDIN_FILENO);
    dup2(out, STDOUT_FILENO);
    dup2(err, STDERR_FILENO);
    close(in);
    close(out);
    close(err);
    for (int number = 1; number < NSIG; number++) /* cmocka's handlers are not ours */
        signal(number, SIG_DFL);
    alarm(MOST_SECONDS);
    fault_plan(kind, manner, n); /* what was called until now was ours */
    exit(program(argc, argv));
}

void run_disturbed(int (*program)(int, char **), const char *const *words, const char *input,
                   enum fault kind, enum manner manner, long n, struct disturbed *result)
{
    const int out = anonymous("out"), err = anonymous("err");
    int status;
    fflush(NULL);
    fault_plan(FAULT_ALLOCATION, FAULT_FAILS, 0);
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0)
        run_child(program, words, input, out, err, kind, manner, n);
    assert_int_equal(waitpid(child, &status, 0), child);
    result->code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
    result->n_calls = fault_count(kind);
    fault_plan(FAULT_ALLOCATION, FAULT_FAILS, 0);
    result->out = contents(out);
    result->err = contents(err);
}

void disturbed_free(struct disturbed *result)
{
    free(result->out);
    free(result->err);
}
