/* Runs a program as a user's shell would, and keeps what it says. */
#ifndef SUPPORT_PROGRAM_H
#define SUPPORT_PROGRAM_H

#include <stddef.h>

struct program_result {
    int code;        /* exit code, or 128 + signal */
    char *out, *err; /* standard output and error, with a NUL behind them; owned, program_free */
    size_t n_out, n_err;
};

/* argv ends with NULL; `input` (n_input bytes) is its standard input, NULL: /dev/null.
 * `environment` are "NAME=value" texts added to ours (NULL: none; ended by NULL). Fails the test
 * when the program cannot be started. */
void program_run(struct program_result *result, const char *const *argv, const void *input,
                 size_t n_input, const char *const *environment);
void program_free(struct program_result *result);

/* Our environment with these "NAME=value" texts (NULL: none; ended by NULL) in place of those of the same names; free() it. */
char **environment_with(const char *const *changes);

/* A fresh folder below the system's temporary folder, and its removal with all it holds. */
char *temporary_folder(void);
void remove_folder(const char *path);

/* The same as a test's setup and teardown. */
extern char *test_folder;
int open_test_folder(void **state);
int close_test_folder(void **state);

/* Below a folder, paths that begin with / and their text, by turns, ended by NULL; folders are made on the way. */
void make_files(const char *folder, const char *const *files);

#endif
