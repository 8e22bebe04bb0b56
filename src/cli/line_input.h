/* Lines from whoever sits at the terminal, with editing and history; or from a pipe, as they are. */
#ifndef CLI_LINE_INPUT_H
#define CLI_LINE_INPUT_H

#include "cli.h"

struct line_input;

/* `prompt` is shown at a terminal; "... " where a line goes on. NULL without memory. */
struct line_input *line_input_open(const char *prompt);
void line_input_close(struct line_input *input);

/* Is anybody there to read what is printed between answers? */
bool line_input_is_terminal(const struct line_input *input);

enum line_kind { LINE_TEXT, LINE_INTERRUPTED, LINE_BAD, LINE_FAILED, LINE_END };

/* The next text, without its end, valid until the next call: a line; several where lines end with a
 * backslash, or between lines of three quotes. LINE_INTERRUPTED: Ctrl-C, what was typed is gone. LINE_BAD: a
 * line with a NUL byte, or one for which there is no memory, says *error. LINE_FAILED: nothing more can be read, says
 * it too. */
enum line_kind line_input_next(struct line_input *input, const char **text, mvlm_error *error);

#endif
