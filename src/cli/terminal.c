#include "terminal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

enum { WIDTH = 30 };

void progress_start(struct progress_bar *bar, bool quiet)
{
    *bar = (struct progress_bar){.on = !quiet && isatty(STDERR_FILENO), .percent = -1};
}

void progress_show(struct progress_bar *bar, const char *what, double share)
{
    const int percent = (int)(100 * share);
    if (!bar->on || percent == bar->percent)
        return;
    bar->percent = percent;
    bar->drawn = true;
    fprintf(stderr, "\r%-10s [", what);
    for (int i = 0; i < WIDTH; i++)
        fputc(i * 100 < percent * WIDTH ? '=' : ' ', stderr);
    fprintf(stderr, "] %3d %%", percent);
    fflush(stderr);
}

void progress_clear(struct progress_bar *bar)
{
    if (bar->drawn)
        fprintf(stderr, "\r\033[K");
    bar->drawn = false;
    bar->percent = -1;
}

void hold_standard_files(void)
{
    for (int file = STDIN_FILENO; file <= STDERR_FILENO; file++)
        if (fcntl(file, F_GETFD) < 0 && errno == EBADF)
            open("/dev/null", file == STDIN_FILENO
                                  ? O_WRONLY
                                  : O_RDONLY); /* the lowest free number is this one */
}

int write_fully(int file, const void *bytes, size_t n_bytes)
{
    const char *at = bytes;
    while (n_bytes) {
        const ssize_t n = write(file, at, n_bytes);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno;
        at += n;
        n_bytes -= (size_t)n;
    }
    return 0;
}
