#include "status.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>

mvlm_status(fail)(mvlm_error *error, mvlm_status status, const char *format, ...)
{
    if (error) {
        va_list arguments;
        va_start(arguments, format);
        vsnprintf(error->message, sizeof error->message, format, arguments);
        va_end(arguments);
        for (char *at = error->message; *at; at++) /* names out of files hold anything */
            if (iscntrl((unsigned char)*at))
                *at = '?';
        error->status = status;
    }
    return status;
}

mvlm_status(fail_no_memory)(mvlm_error *error, const char *what, size_t bytes)
{
    return fail(error, MVLM_NO_MEMORY, "out of memory: %zu bytes for %s", bytes, what);
}

const char *mvlm_status_text(mvlm_status status)
{
    static const struct {
        mvlm_status status;
        const char *text;
    } texts[] = {
        {MVLM_OK, "done"},
        {MVLM_USAGE, "wrong use, or a prompt that does not fit"},
        {MVLM_BAD_MODEL, "model file cannot be used"},
        {MVLM_BAD_PICTURE, "picture cannot be used"},
        {MVLM_NO_MEMORY, "not enough memory"},
        {MVLM_UNSUPPORTED, "this processor lacks what was asked for"},
        {MVLM_OUT_OF_TIME, "out of time"},
        {MVLM_BAD_OUTPUT, "output cannot be written"},
        {MVLM_CANCELLED, "cancelled"},
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        if (texts[i].status == status)
            return texts[i].text;
    return "unknown status";
}
