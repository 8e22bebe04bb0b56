/* Command-line options from one table: parsing, environment variables and help (later the man page
 * and completions). */
#ifndef CLI_OPTIONS_H
#define CLI_OPTIONS_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "mobilevlm.h"

enum option_kind {
    OPTION_FLAG,    /* bool */
    OPTION_TEXT,    /* const char * */
    OPTION_LIST,    /* struct text_list: the option may stand more than once */
    OPTION_INTEGER, /* int64_t */
    OPTION_REAL,    /* double */
    OPTION_BYTES,   /* uint64_t: a number with K, M or G (powers of 1024) behind it */
    OPTION_NAME,    /* int: index into `names` */
};

struct text_list {
    const char **items; /* owned */
    size_t n;
};

struct option {
    const char *names; /* all spellings, separated by spaces; the first long one gives the
                          variable's name */
    enum option_kind kind;
    size_t offset;              /* of the value in the struct of values */
    const char *value;          /* what stands for it in the help; NULL for flags */
    double least, most;         /* of numbers */
    const char *const *choices; /* of OPTION_NAME, NULL at the end */
    unsigned commands;          /* bits of the commands that take it */
    const char *help;
};

struct command {
    const char *name;
    unsigned bit;
    const char *usage; /* what follows the program's name */
    const char *summary;
    const char *example;
};

struct program {
    const char *name;
    const char *variables;          /* the prefix of environment variables, "MOBILEVLM_" */
    const char *about;              /* a sentence */
    const char *notes;              /* the help's last lines */
    const struct command *commands; /* [n_commands]; the first is meant when none is named */
    size_t n_commands;
    const struct option *options; /* [n_options] */
    size_t n_options;
};

/* argv[1] if it names a command, else the first command; *first is the index of the first argument
 * behind it. NULL with a message for a word that is neither. */
const struct command *find_command(const struct program *program, int argc, char **argv, int *first,
                                   mvlm_error *error);

/* Environment, then arguments from `first` on, into `values`, which hold the defaults. Words that
 * are no options go to `words`. MVLM_USAGE. */
mvlm_status parse_options(const struct program *program, const struct command *command, int argc,
                          char **argv, int first, void *values, struct text_list *words,
                          mvlm_error *error);

/* Frees what parse_options allocated. */
void free_options(const struct program *program, void *values, struct text_list *words);

/* Of the option's first long spelling: "--ctx-size" -> "MOBILEVLM_CTX_SIZE". */
void variable_name(const struct program *program, const struct option *option, char name[64]);

void print_help(const struct program *program, FILE *out);
void print_command_help(const struct program *program, const struct command *command, FILE *out);

/* Does the value come from the environment? Then an option that says something else wins. */
bool is_variable(const char *value, const char *name);

/* Appends to the list; false when there is no memory. */
bool text_list_add(struct text_list *list, const char *text);

/* The text as one line on standard error: what a path or an argument holds that would break the line, or
 * drive the terminal, becomes '?'. */
void put_message(const char *text);

/* The message in the same way, behind the program's name. */
void report_error(const struct program *program, const mvlm_error *error);

/* Writes a message into `error` and returns `status`. */
__attribute__((format(printf, 3, 4))) mvlm_status cli_fail(mvlm_error *error, mvlm_status status,
                                                           const char *format, ...);
#ifdef __clang_analyzer__ /* it looks into no other file: that what failed is not MVLM_OK it has to be told */
#define cli_fail(error, status, ...) (cli_fail(error, status, __VA_ARGS__), status)
#endif
__attribute__((format(printf, 3, 0))) void cli_vfail(mvlm_error *error, mvlm_status status,
                                                     const char *format, va_list arguments);

#endif
