#include <stddef.h>

#include "cli.h"

volatile sig_atomic_t stopped_by;
static mvlm_session *volatile running;

static volatile sig_atomic_t interrupts_go_on;

/* The first signal asks the session to stop; the second ends the program at once. */
static void on_signal(int number)
{
    stopped_by = number;
    if (running)
        mvlm_session_cancel(running);
    if (number != SIGINT || !interrupts_go_on)
        signal(number, SIG_DFL);
}

void keep_interrupts(void)
{
    interrupts_go_on = 1;
}

void catch_signals(mvlm_session *session)
{
    struct sigaction action = {.sa_handler = on_signal};
    running = session;
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}
