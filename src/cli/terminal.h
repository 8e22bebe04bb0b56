/* Progress on standard error, drawn only when that is a terminal. */
#ifndef CLI_TERMINAL_H
#define CLI_TERMINAL_H

#include <stdbool.h>
#include <stddef.h>

struct progress_bar {
    bool on; /* standard error is a terminal, and nobody asked for quiet */
    bool drawn;
    int percent; /* shown last */
};

void progress_start(struct progress_bar *bar, bool quiet);
void progress_show(struct progress_bar *bar, const char *what, double share);
void progress_clear(struct progress_bar *bar);

/* Standard input, output and error that the caller closed are opened so that using them fails: else
 * the next file opened would take their place, and receive what is printed. */
void hold_standard_files(void);

/* Writes all bytes to a descriptor; 0, or the errno. */
int write_fully(int file, const void *bytes, size_t n_bytes);

#endif
