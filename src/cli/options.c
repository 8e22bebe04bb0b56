#include "options.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

mvlm_status(cli_fail)(mvlm_error *error, mvlm_status status, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    cli_vfail(error, status, format, arguments);
    va_end(arguments);
    return status;
}

void cli_vfail(mvlm_error *error, mvlm_status status, const char *format, va_list arguments)
{
    vsnprintf(error->message, sizeof error->message, format, arguments);
    for (char *at = error->message; *at; at++) /* names hold anything */
        if (iscntrl((unsigned char)*at))
            *at = '?';
    error->status = status;
}

void put_message(const char *text)
{
    for (; *text; text++)
        fputc(iscntrl((unsigned char)*text) ? '?' : *text, stderr);
    fputc('\n', stderr);
}

void report_error(const struct program *program, const mvlm_error *error)
{
    fprintf(stderr, "%s: ", program->name);
    put_message(error->message);
}

bool text_list_add(struct text_list *list, const char *text)
{
    const char **items = realloc(list->items, (list->n + 1) * sizeof *items);
    if (!items)
        return false;
    list->items = items;
    list->items[list->n++] = text;
    return true;
}

bool is_variable(const char *value, const char *name)
{
    return value && value == getenv(name);
}

/* ---- Names ------------------------------------------------------------------------------ */

/* Is `word` (n bytes) one of the option's spellings? */
static bool is_spelling(const struct option *option, const char *word, size_t n)
{
    for (const char *at = option->names; *at;) {
        const size_t length = strcspn(at, " ");
        if (length == n && memcmp(at, word, n) == 0)
            return true;
        at += length + (at[length] == ' ');
    }
    return false;
}

static const struct option *find_option(const struct program *program, unsigned command,
                                        const char *word, size_t n)
{
    for (size_t i = 0; i < program->n_options; i++)
        if ((program->options[i].commands & command) && is_spelling(&program->options[i], word, n))
            return &program->options[i];
    return NULL;
}

void variable_name(const struct program *program, const struct option *option, char name[64])
{
    const char *longest = strstr(option->names, "--");
    size_t n = (size_t)snprintf(name, 64, "%s", program->variables);
    for (longest += 2; *longest && *longest != ' ' && n < 63; longest++)
        name[n++] = (char)(*longest == '-' ? '_' : toupper((unsigned char)*longest));
    name[n] = 0;
}

/* ---- Values ----------------------------------------------------------------------------- */

static mvlm_status out_of_range(const struct option *option, const char *name, const char *text,
                                mvlm_error *error)
{
    return cli_fail(error, MVLM_USAGE, "%s: %.60s is out of range: %.15g to %.15g", name, text,
                    option->least, option->most);
}

static mvlm_status store_number(const struct option *option, const char *name, const char *text,
                                void *place, mvlm_error *error)
{
    char *end;
    errno = 0;
    const bool integer = option->kind == OPTION_INTEGER;
    const long long whole = integer ? strtoll(text, &end, 10) : 0;
    const double value = integer ? (double)whole : strtod(text, &end);
    if (end == text || *end || isspace((unsigned char)*text))
        return cli_fail(error, MVLM_USAGE, "%s: \"%.60s\" is no %s", name, text,
                        integer ? "whole number" : "number");
    if (errno == ERANGE || !(value >= option->least && value <= option->most))
        return out_of_range(option, name, text, error);
    if (integer)
        *(int64_t *)place = whole;
    else
        *(double *)place = value;
    return MVLM_OK;
}

static mvlm_status store_bytes(const struct option *option, const char *name, const char *text,
                               uint64_t *place, mvlm_error *error)
{
    static const char units[] = "KMG";
    char *end;
    double value = strtod(text, &end);
    const char *unit = *end ? strchr(units, toupper((unsigned char)*end)) : NULL;
    if (end == text || (*end && (!unit || end[1])))
        return cli_fail(error, MVLM_USAGE, "%s: \"%.60s\" is no size (a number, then K, M or G)",
                        name, text);
    for (const char *u = units; unit && u <= unit; u++)
        value *= 1024;
    if (!(value >= option->least && value <= option->most))
        return out_of_range(option, name, text, error);
    *place = (uint64_t)value;
    return MVLM_OK;
}

static mvlm_status store_name(const struct option *option, const char *name, const char *text,
                              int *place, mvlm_error *error)
{
    char list[256] = "";
    for (int i = 0; option->choices[i]; i++) {
        if (strcmp(option->choices[i], text) == 0) {
            *place = i;
            return MVLM_OK;
        }
        const size_t n = strlen(list);
        snprintf(list + n, sizeof list - n, "%s%s", n ? ", " : "", option->choices[i]);
    }
    return cli_fail(error, MVLM_USAGE, "%s: \"%.60s\" is none of %s", name, text, list);
}

static mvlm_status store(const struct option *option, const char *name, const char *text,
                         void *values, mvlm_error *error)
{
    void *place = (char *)values + option->offset;
    switch (option->kind) {
    case OPTION_FLAG:
        *(bool *)place = true;
        break;
    case OPTION_TEXT:
        *(const char **)place = text;
        break;
    case OPTION_LIST:
        if (!text_list_add(place, text))
            return cli_fail(error, MVLM_NO_MEMORY, "out of memory");
        break;
    case OPTION_INTEGER:
    case OPTION_REAL:
        return store_number(option, name, text, place, error);
    case OPTION_BYTES:
        return store_bytes(option, name, text, place, error);
    case OPTION_NAME:
        return store_name(option, name, text, place, error);
    }
    return MVLM_OK;
}

/* ---- Parsing ---------------------------------------------------------------------------- */

static mvlm_status read_environment(const struct program *program, const struct command *command,
                                    void *values, mvlm_error *error)
{
    for (size_t i = 0; i < program->n_options; i++) {
        const struct option *option = &program->options[i];
        char name[64];
        variable_name(program, option, name);
        const char *text = getenv(name);
        if (!(option->commands & command->bit) || !text || !*text)
            continue;
        if (option->kind == OPTION_FLAG && strcmp(text, "0") == 0)
            continue;
        if (option->kind == OPTION_FLAG && strcmp(text, "1") != 0)
            return cli_fail(error, MVLM_USAGE, "%s: \"%.60s\" is neither 0 nor 1", name, text);
        const mvlm_status status = store(option, name, text, values, error);
        if (status != MVLM_OK)
            return status;
    }
    return MVLM_OK;
}

/* A list given on the command line replaces the one of the environment. */
static void forget_environment_list(const struct option *option, void *values, bool *seen)
{
    struct text_list *list = (struct text_list *)(void *)((char *)values + option->offset);
    if (option->kind == OPTION_LIST && !*seen)
        list->n = 0;
    *seen = true;
}

/* One option at argv[*at]; *at is moved to its last word. */
static mvlm_status parse_one(const struct program *program, const struct command *command, int argc,
                             char **argv, int *at, void *values, bool *seen, mvlm_error *error)
{
    const char *word = argv[*at];
    const size_t n = strcspn(word, "=");
    const bool attached = word[n] == '=' && word[1] == '-';
    const size_t length = attached ? n : strlen(word);
    const struct option *option = find_option(program, command->bit, word, length);
    if (!option && find_option(program, ~0u, word, length))
        return cli_fail(error, MVLM_USAGE, "%.*s is no option of %s", (int)length, word,
                        command->name);
    if (!option)
        return cli_fail(error, MVLM_USAGE, "unknown option %.*s; see %s --help", (int)length, word,
                        program->name);
    const char *value = attached ? word + n + 1 : NULL;
    if (option->kind == OPTION_FLAG && value)
        return cli_fail(error, MVLM_USAGE, "%.*s takes no value", (int)length, word);
    if (option->kind != OPTION_FLAG && !value) {
        if (*at + 1 >= argc)
            return cli_fail(error, MVLM_USAGE, "%s needs a value: %s", word, option->value);
        value = argv[++*at];
    }
    char name[64];
    snprintf(name, sizeof name, "%.*s", (int)length, word);
    forget_environment_list(option, values, &seen[option - program->options]);
    return store(option, name, value, values, error);
}

mvlm_status parse_options(const struct program *program, const struct command *command, int argc,
                          char **argv, int first, void *values, struct text_list *words,
                          mvlm_error *error)
{
    bool *seen = calloc(program->n_options, sizeof *seen);
    bool only_words = false;
    if (!seen)
        return cli_fail(error, MVLM_NO_MEMORY, "out of memory");
    mvlm_status status = read_environment(program, command, values, error);
    for (int i = first; i < argc && status == MVLM_OK; i++) {
        const bool word = only_words || argv[i][0] != '-' || argv[i][1] == 0;
        if (!only_words && strcmp(argv[i], "--") == 0)
            only_words = true;
        else if (word)
            status = text_list_add(words, argv[i])
                         ? MVLM_OK
                         : cli_fail(error, MVLM_NO_MEMORY, "out of memory");
        else
            status = parse_one(program, command, argc, argv, &i, values, seen, error);
    }
    free(seen);
    return status;
}

void free_options(const struct program *program, void *values, struct text_list *words)
{
    for (size_t i = 0; i < program->n_options; i++) {
        if (program->options[i].kind != OPTION_LIST)
            continue;
        struct text_list *list =
            (struct text_list *)(void *)((char *)values + program->options[i].offset);
        free(list->items);
        *list =
            (struct text_list){0}; /* an option that commands describe differently stands twice */
    }
    free(words->items);
}

const struct command *find_command(const struct program *program, int argc, char **argv, int *first,
                                   mvlm_error *error)
{
    *first = 1;
    if (argc < 2 || argv[1][0] == '-')
        return &program->commands[0];
    for (size_t i = 0; i < program->n_commands; i++)
        if (strcmp(argv[1], program->commands[i].name) == 0) {
            *first = 2;
            return &program->commands[i];
        }
    cli_fail(error, MVLM_USAGE, "unknown command \"%.60s\"; see %s --help", argv[1], program->name);
    return NULL;
}

/* ---- Help ------------------------------------------------------------------------------- */

static void print_option(const struct option *option, FILE *out)
{
    enum { COLUMN = 34 };
    int n = fprintf(out, "  ");
    for (const char *at = option->names; *at; at++)
        n += *at == ' ' ? fprintf(out, ", ") : fprintf(out, "%c", *at);
    if (option->value)
        n += fprintf(out, " %s", option->value);
    fprintf(out, "%*s%s\n", n < COLUMN ? COLUMN - n : 2, "", option->help);
}

static void print_options(const struct program *program, unsigned commands, FILE *out)
{
    for (size_t i = 0; i < program->n_options; i++)
        if (program->options[i].commands & commands)
            print_option(&program->options[i], out);
}

void print_help(const struct program *program, FILE *out)
{
    fprintf(out, "%s %s: %s\n\n", program->name, MVLM_VERSION, program->about);
    for (size_t i = 0; i < program->n_commands; i++) {
        const struct command *command = &program->commands[i];
        if (program->n_commands == 1)
            fprintf(out, "usage: %s %s\n", program->name, command->usage);
        else
            fprintf(out, "  %-11s %s\n", command->name, command->summary);
    }
    if (program->n_commands > 1)
        fprintf(out, "\n%s help COMMAND tells more. Without a command, %s is meant:\n",
                program->name, program->commands[0].name);
    fprintf(out, "\n");
    print_options(program, program->commands[0].bit, out);
    char variable[64];
    const char *longest = strstr(program->options[0].names, "--");
    variable_name(program, &program->options[0], variable);
    fprintf(out,
            "\nEvery option can be given as an environment variable, %s for %.*s; the command "
            "line wins.\n",
            variable, (int)strcspn(longest, " "), longest);
    fputs(program->notes, out);
}

void print_command_help(const struct program *program, const struct command *command, FILE *out)
{
    fprintf(out, "usage: %s %s %s\n\n%s\n\n", program->name, command->name, command->usage,
            command->summary);
    print_options(program, command->bit, out);
    fprintf(out, "\nexample:\n  %s\n", command->example);
}
