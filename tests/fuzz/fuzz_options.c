/* Command lines of mobilevlm, each word ended by NUL; with a byte 1 in front, "NAME=value" texts are its environment
 * first. Nothing is run: only the tables, the parser and the help. */
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"

/* for its tables, which are its own */
#define main mobilevlm_main
int mobilevlm_main(int argc, char **argv);
#include "../../src/cli/main.c"
#undef main

enum { MOST_WORDS_HERE = 64 };

static void set_variables(char **words, int n, bool set)
{
    for (int i = 0; i < n; i++) {
        char *value = strchr(words[i], '=');
        if (strncmp(words[i], "MOBILEVLM_", 10) != 0 || !value)
            continue;
        *value = 0;
        if (set)
            setenv(words[i], value + 1, 1);
        else
            unsetenv(words[i]);
        *value = '=';
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    char *argv[MOST_WORDS_HERE + 2] = {program.name ? (char *)(uintptr_t)program.name : NULL};
    int argc = 1, first;
    if (n < 1 || n > 1 << 14)
        return 0;
    char *text = fuzz_text(bytes + 1, n - 1);
    for (char *at = text; at < text + n - 1 && argc <= MOST_WORDS_HERE; at += strlen(at) + 1)
        argv[argc++] = at;
    struct values values = {.max_tokens = 256};
    struct text_list words = {0};
    mvlm_error error = {0};
    if (bytes[0] == 1)
        set_variables(argv + 1, argc - 1, true);
    const struct command *command = find_command(&program, argc, argv, &first, &error);
    if (command) {
        error = (mvlm_error){0};
        fuzz_outcome(parse_options(&program, command, argc, argv, first, &values, &words, &error),
                     &error);
        free_options(&program, &values, &words);
    }
    if (bytes[0] == 1)
        set_variables(argv + 1, argc - 1, false);
    free(text);
    return 0;
}
