#include "line_input.h"

#include <errno.h>
#include <langinfo.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#ifdef HAVE_LIBEDIT
#include <histedit.h>
#endif

struct line_input {
    const char *prompt;
    bool terminal, continues; /* continues: this line belongs to the one before */
    bool failed;              /* the last line could not be read */
    char *line;               /* of getline */
    size_t line_bytes;
    struct buffer text;
#ifdef HAVE_LIBEDIT
    EditLine *editor; /* NULL: plain input */
    History *history;
#endif
};

/* ---- One line --------------------------------------------------------------------------- */

#ifdef HAVE_LIBEDIT
static char *shown_prompt(EditLine *editor)
{
    static char more[] = "... ";
    struct line_input *input;
    el_get(editor, EL_CLIENTDATA, &input);
    return input->continues ? more : (char *)(uintptr_t)input->prompt;
}

/* A terminal that can move its cursor; else input is plain. */
static void open_editor(struct line_input *input)
{
    const char *terminal = getenv("TERM");
    HistEvent event;
    if (!input->terminal || !terminal || strcmp(terminal, "dumb") == 0)
        return;
    /* in the C locale libedit would drop every letter that is not ASCII */
    if ((!setlocale(LC_CTYPE, "") || strcmp(nl_langinfo(CODESET), "UTF-8") != 0) &&
        !setlocale(LC_CTYPE, "C.UTF-8"))
        return;
    input->history = history_init();
    input->editor = input->history ? el_init("mobilevlm", stdin, stderr, stderr) : NULL;
    if (!input->editor)
        return;
    history(input->history, &event, H_SETSIZE, 1000);
    history(input->history, &event, H_SETUNIQUE, 1);
    el_set(input->editor, EL_CLIENTDATA, input);
    el_set(input->editor, EL_PROMPT, shown_prompt);
    el_set(input->editor, EL_EDITOR, "emacs");
    el_set(input->editor, EL_HIST, history, input->history);
}
#endif

static const char *read_plain(struct line_input *input, ssize_t *n)
{
    if (input->terminal)
        fprintf(stderr, "%s", input->continues ? "... " : input->prompt);
    errno = 0;
    *n = getline(&input->line, &input->line_bytes, stdin);
    input->failed = *n < 0 && !feof(stdin) && errno != EINTR; /* or there was no memory */
    if (*n < 0 && errno == EINTR)
        clearerr(stdin);
    return input->line;
}

/* A line with its newline; *n is -1 at the end and 0 when Ctrl-C was pressed. */
static const char *read_line(struct line_input *input, ssize_t *n)
{
    const char *line;
#ifdef HAVE_LIBEDIT
    if (input->editor) {
        int length;
        errno = 0;
        line = el_gets(input->editor, &length);
        *n = line ? length : -1;
    } else
#endif
        line = read_plain(input, n);
    if (*n <= 0 && errno == EINTR) {
        *n = 0;
        if (input->terminal)
            fprintf(stderr, "\n");
    }
    return line;
}

static void remember(struct line_input *input)
{
#ifdef HAVE_LIBEDIT
    HistEvent event;
    if (input->editor && input->text.n)
        history(input->history, &event, H_ENTER, input->text.bytes);
#else
    (void)input;
#endif
}

/* ---- Texts ------------------------------------------------------------------------------ */

static bool is_quotes(const char *line, size_t n)
{
    return n == 3 && memcmp(line, "\"\"\"", 3) == 0;
}

static enum line_kind no_memory(mvlm_error *error)
{
    cli_fail(error, MVLM_NO_MEMORY, "out of memory for a line");
    return LINE_BAD;
}

enum line_kind line_input_next(struct line_input *input, const char **text, mvlm_error *error)
{
    bool quoted = false;
    input->text.n = 0;
    input->continues = false;
    for (;;) {
        ssize_t n;
        const char *line = read_line(input, &n);
        if (n == 0)
            return LINE_INTERRUPTED;
        if (n < 0 && input->failed) {
            cli_fail(error, errno == ENOMEM ? MVLM_NO_MEMORY : MVLM_USAGE,
                     "standard input cannot be read: %s", strerror(errno));
            return LINE_FAILED;
        }
        if (n < 0 && input->text.n == 0)
            return LINE_END;
        size_t length = n < 0 ? 0 : (size_t)n;
        while (length && (line[length - 1] == '\n' || line[length - 1] == '\r'))
            length--;
        if (memchr(length ? line : "", 0, length)) {
            cli_fail(error, MVLM_USAGE, "a line holds a NUL byte, which no question may");
            return LINE_BAD;
        }
        const bool quotes = n > 0 && is_quotes(line, length), opens = quotes && !input->continues;
        const bool more = n > 0 && !quotes && (quoted || (length && line[length - 1] == '\\'));
        const size_t shown = more && !quoted ? length - 1 : length;
        if (!quotes && (!buffer_add(&input->text, line, shown) ||
                        (more && !buffer_add(&input->text, "\n", 1))))
            return no_memory(error);
        quoted = quoted ? !quotes && n > 0 : opens;
        if (!more && !quoted)
            break;
        input->continues = true;
    }
    if (input->text.n == 0 && !buffer_add(&input->text, "", 0))
        return no_memory(error);
    if (input->text.n && input->text.bytes[input->text.n - 1] == '\n') /* before closing quotes */
        input->text.bytes[--input->text.n] = 0;
    remember(input);
    *text = input->text.bytes;
    return LINE_TEXT;
}

/* ---- Opening ---------------------------------------------------------------------------- */

struct line_input *line_input_open(const char *prompt)
{
    struct line_input *input = calloc(1, sizeof *input);
    if (!input)
        return NULL;
    input->prompt = prompt;
    input->terminal = isatty(STDIN_FILENO) && isatty(STDERR_FILENO);
#ifdef HAVE_LIBEDIT
    open_editor(input);
#endif
    return input;
}

void line_input_close(struct line_input *input)
{
    if (!input)
        return;
#ifdef HAVE_LIBEDIT
    if (input->editor)
        el_end(input->editor);
    if (input->history)
        history_end(input->history);
#endif
    free(input->line);
    free(input->text.bytes);
    free(input);
}

bool line_input_is_terminal(const struct line_input *input)
{
    return input->terminal;
}
