/* The manual page and the shells' completions, from the option table. */
#ifndef CLI_MANUAL_H
#define CLI_MANUAL_H

#include "options.h"

/* "man", "bash" or "zsh" to `out`; false for any other kind. */
bool print_manual(const struct program *program, const char *kind, FILE *out);

#endif
