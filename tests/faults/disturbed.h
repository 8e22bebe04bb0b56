/* A program's run in a process of its own, with one fault in it. */
#ifndef FAULTS_DISTURBED_H
#define FAULTS_DISTURBED_H

#include "faults.h"

/* The programs' main functions, under names of their own. */
int mobilevlm_main(int argc, char **argv);
int convert_main(int argc, char **argv);

struct disturbed {
    int code;        /* exit code, or 128 + signal */
    long n_calls;    /* of the kind that was to be disturbed */
    char *out, *err; /* owned; disturbed_free */
};

/* Runs `program` with the words (ended by NULL, argv[0] first). Input is the file at `input`; NULL: /dev/null. Leaks end
 * the process with LeakSanitizer's own code, where it is linked in, and half a minute with SIGALRM. */
void run_disturbed(int (*program)(int, char **), const char *const *words, const char *input,
                   enum fault kind, enum manner manner, long n, struct disturbed *result);
void disturbed_free(struct disturbed *result);

#endif
