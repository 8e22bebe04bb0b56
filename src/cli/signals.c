#include <stddef.h>

#include "cli.h"

volatile sig_atomic_t stopped_by;
static mvlm_session *volatile running;

/* The first signal asks the session to stop; the second ends the program at once. */
static void on_signal(int number)
{
    stopped_by = number;
    if (running)
        mvlm_session_cancel(running);
    signal(number, SIG_DFL);
}

void catch_signals(mvlm_session *session)
{
    struct sigaction action = {.sa_handler = on_signal};
    running = session;
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}
