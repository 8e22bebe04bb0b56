/* chat: a conversation in the terminal, or through pipes. The session's cache is kept, so that a turn
 * reads only what is new. */
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "ask.h"
#include "chat_turns.h"
#include "line_input.h"

struct chat {
    const struct values *values;
    mvlm_model *model;
    mvlm_session *session;
    mvlm_model_info info;
    struct chat_turns turns;
    struct line_input *input;
    struct progress_bar bar;
    struct buffer text; /* of the answer under way */
    int64_t seed;
    bool terminal, ended;
};

enum { MOST_ANSWER_SHARE = 4 }; /* an answer has room for at least this part of the context */

/* For whoever sits there, between answers. */
__attribute__((format(printf, 2, 3))) static void say(const struct chat *chat, const char *format,
                                                      ...)
{
    va_list arguments;
    if (chat->values->quiet)
        return;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
}

/* What went wrong is told to whoever sits there, and the conversation goes on; a script could not know, and ends. */
static mvlm_status complain(const struct chat *chat, const mvlm_error *problem, mvlm_error *error)
{
    if (!chat->terminal)
        return cli_fail(error, problem->status, "%s", problem->message);
    put_message(problem->message);
    return MVLM_OK;
}

/* ---- Pictures --------------------------------------------------------------------------- */

static mvlm_status add_picture(struct chat *chat, const char *path, mvlm_error *error)
{
    struct file_bytes file;
    mvlm_image *image;
    if (strcmp(path, "-") == 0)
        return cli_fail(error, MVLM_USAGE,
                        "a picture from standard input: the conversation is there");
    mvlm_status status = read_file(path, MVLM_BAD_PICTURE, &file, error);
    if (status != MVLM_OK)
        return status;
    const mvlm_picture picture = {.name = path, .bytes = file.bytes, .n_bytes = file.n};
    status = mvlm_image_open(chat->model, &picture, pixels_allowed(chat->values), &image, error);
    free(file.bytes);
    return status == MVLM_OK ? chat_add_image(&chat->turns, image, path, error) : status;
}

/* ---- Answers ---------------------------------------------------------------------------- */

/* A question that does not even fit alone, with all pictures, is refused before anything is forgotten. */
static mvlm_status check_last(const struct chat *chat, const mvlm_question *question,
                              size_t context, mvlm_error *error)
{
    size_t n_rows;
    mvlm_question alone = *question;
    mvlm_turn turn = {.question = chat_last_alone(&chat->turns)};
    if (!turn.question)
        return cli_fail(error, MVLM_NO_MEMORY, "out of memory for the conversation");
    alone.turns = &turn;
    alone.n_turns = 1;
    mvlm_status status = mvlm_question_rows(chat->model, &alone, &n_rows, error);
    if (status == MVLM_OK && n_rows > context)
        status = cli_fail(error, MVLM_USAGE,
                          "the question takes %zu positions, the context has %zu", n_rows, context);
    free((char *)(uintptr_t)turn.question);
    return status;
}

/* Drops the oldest turns until the prompt leaves room for an answer; pictures stay. */
static mvlm_status make_room(struct chat *chat, mvlm_question *question, mvlm_error *error)
{
    const size_t context =
        chat->values->context ? (size_t)chat->values->context : chat->info.context_size;
    size_t room = context / MOST_ANSWER_SHARE, n_rows, n_dropped = 0;
    if (room > question->max_tokens)
        room = question->max_tokens;
    for (;; n_dropped++) {
        mvlm_status status = chat_fill(&chat->turns, question, error);
        if (status == MVLM_OK)
            status = mvlm_question_rows(chat->model, question, &n_rows, error);
        if (status != MVLM_OK)
            return status;
        if (n_rows + room <= context || chat->turns.n == 1)
            break;
        if (n_dropped == 0 && (status = check_last(chat, question, context, error)) != MVLM_OK)
            return status;
        if ((status = chat_drop_first(&chat->turns, error)) != MVLM_OK)
            return status;
    }
    if (n_dropped)
        say(chat, "(the context of %zu positions is full: %zu old turn%s forgotten)\n", context,
            n_dropped, n_dropped == 1 ? " is" : "s are");
    return MVLM_OK;
}

static mvlm_status stream(struct chat *chat, const mvlm_question *question, mvlm_error *error)
{
    mvlm_piece piece = {.finish = MVLM_UNFINISHED};
    mvlm_status status = mvlm_begin(chat->session, question, error);
    progress_clear(&chat->bar);
    while (status == MVLM_OK && piece.finish == MVLM_UNFINISHED) {
        pace(chat->values);
        status = mvlm_next(chat->session, &piece, error);
        if (status == MVLM_OK)
            status = put_out(piece.text, piece.n_bytes, error);
        if (status == MVLM_OK && !buffer_add(&chat->text, piece.text, piece.n_bytes))
            status = cli_fail(error, MVLM_NO_MEMORY, "out of memory for the answer");
    }
    return status;
}

/* Answers the last turn. Ctrl-C ends the answer, and what there is of it stays; what fails takes the
 * turn back. Returns what ends the program. */
static mvlm_status answer_turn(struct chat *chat, double temperature, mvlm_error *error)
{
    mvlm_question question = question_of(chat->values, chat->seed);
    mvlm_error problem;
    question.sampling.temperature = (float)temperature;
    question.progress = show_progress;
    question.progress_user = &chat->bar;
    chat->text.n = 0;
    if (stopped_by == SIGINT)
        stopped_by = 0;
    catch_signals(chat->session);
    mvlm_status status = make_room(chat, &question, &problem);
    if (status == MVLM_OK)
        status = stream(chat, &question, &problem);
    if (status == MVLM_CANCELLED &&
        !stopped_by) /* by a Ctrl-C at the very end of the answer before */
        status = stream(chat, &question, &problem);
    catch_signals(NULL);
    const bool interrupted = status == MVLM_CANCELLED && stopped_by == SIGINT;
    if (status == MVLM_BAD_OUTPUT || (status == MVLM_CANCELLED && !interrupted))
        return cli_fail(error, status, "%s", problem.message);
    if (status != MVLM_OK && !interrupted) {
        if (!chat->turns.turns[chat->turns.n - 1]
                 .answer) /* else a retry: the answer before stays */
            chat_take_back(&chat->turns);
        return complain(chat, &problem, error);
    }
    if (interrupted)
        say(chat, " (stopped)");
    status = put_out("\n", 1, error);
    return status == MVLM_OK ? chat_answer(&chat->turns, chat->text.bytes, chat->text.n, error)
                             : status;
}

/* ---- Commands --------------------------------------------------------------------------- */

static mvlm_status do_image(struct chat *chat, const char *path, mvlm_error *error)
{
    mvlm_error problem;
    mvlm_status status = *path ? add_picture(chat, path, &problem)
                               : cli_fail(&problem, MVLM_USAGE, "/image FILE: which?");
    if (status != MVLM_OK)
        return complain(chat, &problem, error);
    say(chat, "(picture %zu: ask about it)\n", chat->turns.n_images);
    return MVLM_OK;
}

static mvlm_status do_clear(struct chat *chat, const char *rest, mvlm_error *error)
{
    (void)rest;
    (void)error;
    chat_clear(&chat->turns);
    say(chat, "(a new conversation, without pictures)\n");
    return MVLM_OK;
}

/* Greedy, the same answer would come again: then it is drawn. */
static mvlm_status do_retry(struct chat *chat, const char *rest, mvlm_error *error)
{
    const double drawn = 0.7;
    (void)rest;
    if (chat->turns.n == 0) {
        mvlm_error problem;
        cli_fail(&problem, MVLM_USAGE, "/retry: nothing was asked yet");
        return complain(chat, &problem, error);
    }
    chat->seed++;
    return answer_turn(chat, chat->values->temperature > 0 ? chat->values->temperature : drawn,
                       error);
}

static mvlm_status do_save(struct chat *chat, const char *path, mvlm_error *error)
{
    const struct chat_turns *t = &chat->turns;
    mvlm_error problem;
    FILE *file = *path ? fopen(path, "we") : NULL;
    if (!file && *path)
        cli_fail(&problem, MVLM_BAD_OUTPUT, "%s: cannot be written: %s", path, strerror(errno));
    else if (!file)
        cli_fail(&problem, MVLM_USAGE, "/save FILE: which?");
    if (!file)
        return complain(chat, &problem, error);
    for (size_t i = 0; i < t->n_images; i++)
        fprintf(file, "[picture %zu: %s]\n", i + 1, t->names[i]);
    for (size_t i = 0; i < t->n; i++)
        fprintf(file, "USER: %s\nASSISTANT: %s\n", t->turns[i].question,
                t->turns[i].answer ? t->turns[i].answer : "");
    const bool bad = ferror(file) != 0;
    if (fclose(file) != 0 || bad) {
        cli_fail(&problem, MVLM_BAD_OUTPUT, "%s: cannot be written", path);
        return complain(chat, &problem, error);
    }
    say(chat, "(saved)\n");
    return MVLM_OK;
}

static mvlm_status do_quit(struct chat *chat, const char *rest, mvlm_error *error)
{
    (void)rest;
    (void)error;
    chat->ended = true;
    return MVLM_OK;
}

static mvlm_status do_help(struct chat *chat, const char *rest, mvlm_error *error);

static const struct {
    const char *name, *help;
    mvlm_status (*run)(struct chat *, const char *rest, mvlm_error *);
} chat_commands[] = {
    {"/image", "FILE   a picture, for the next question", do_image},
    {"/retry", "       another answer to the last question", do_retry},
    {"/clear", "       forgets the conversation and its pictures", do_clear},
    {"/save", "FILE   writes the conversation as text", do_save},
    {"/help", "       this list", do_help},
    {"/quit", "       or Ctrl-D", do_quit},
};

enum { N_COMMANDS = sizeof chat_commands / sizeof *chat_commands };

static mvlm_status do_help(struct chat *chat, const char *rest, mvlm_error *error)
{
    (void)chat;
    (void)rest;
    (void)error;
    for (size_t i = 0; i < N_COMMANDS; i++)
        fprintf(stderr, "  %-7s %s\n", chat_commands[i].name, chat_commands[i].help);
    fprintf(stderr,
            "A line that ends with \\ goes on in the next one; so does all between lines of "
            "\"\"\". Ctrl-C stops an answer.\n");
    return MVLM_OK;
}

/* "/image cat.jpg " -> the command and "cat.jpg". */
static mvlm_status run_chat_command(struct chat *chat, const char *text, mvlm_error *error)
{
    mvlm_error problem;
    const size_t length = strcspn(text, " \t\n");
    const char *start = text + length + strspn(text + length, " \t\n");
    size_t n_rest = strlen(start);
    while (n_rest && strchr(" \t\n", start[n_rest - 1]))
        n_rest--;
    char *rest = strndup(start, n_rest);
    if (!rest)
        return cli_fail(error, MVLM_NO_MEMORY, "out of memory");
    size_t i = 0;
    while (i < N_COMMANDS && (strlen(chat_commands[i].name) != length ||
                              memcmp(text, chat_commands[i].name, length) != 0))
        i++;
    cli_fail(&problem, MVLM_USAGE, "%.*s is no command; /help lists them", (int)length, text);
    const mvlm_status status =
        i < N_COMMANDS ? chat_commands[i].run(chat, rest, error) : complain(chat, &problem, error);
    free(rest);
    return status;
}

static mvlm_status run_line(struct chat *chat, const char *text, mvlm_error *error)
{
    mvlm_error problem;
    if (text[strspn(text, " \t\n")] == 0)
        return MVLM_OK;
    if (text[0] == '/')
        return run_chat_command(chat, text, error);
    if (chat_ask(&chat->turns, text, &problem) != MVLM_OK)
        return complain(chat, &problem, error);
    return answer_turn(chat, chat->values->temperature, error);
}

/* ---- The conversation ------------------------------------------------------------------- */

static mvlm_status open_chat(struct chat *chat, mvlm_error *error)
{
    const struct values *v = chat->values;
    mvlm_session_options options;
    session_options_of(v, &options);
    options.keep_cache = options.keep_tower = true;
    mvlm_status status = open_model(v, &chat->model, error);
    if (status != MVLM_OK)
        return status;
    mvlm_model_describe(chat->model, &chat->info);
    if (!chat->info.has_template)
        return cli_fail(error, MVLM_USAGE, "%s: is a base model, without a template for chats",
                        v->model);
    status = mvlm_session_open(chat->model, &options, &chat->session, error);
    for (size_t i = 0; status == MVLM_OK && i < v->images.n; i++)
        status = add_picture(chat, v->images.items[i], error);
    chat->input = line_input_open("> ");
    if (status == MVLM_OK && !chat->input)
        status = cli_fail(error, MVLM_NO_MEMORY, "out of memory");
    chat->terminal = chat->input && line_input_is_terminal(chat->input);
    chat->seed = seed_of(v);
    if (v->verbose)
        fprintf(stderr, "kernels %s, seed %lld\n", chat->info.isa, (long long)chat->seed);
    return status;
}

static mvlm_status converse(struct chat *chat, mvlm_error *error)
{
    const char *text;
    mvlm_error problem;
    mvlm_status status = MVLM_OK;
    if (chat->terminal) {
        keep_interrupts();
        say(chat, "/help lists the commands, /quit or Ctrl-D ends.\n");
    }
    while (status == MVLM_OK && !chat->ended && stopped_by != SIGTERM) {
        catch_signals(NULL); /* Ctrl-C clears the line */
        const enum line_kind kind = line_input_next(chat->input, &text, &problem);
        if (kind == LINE_END || (kind == LINE_INTERRUPTED && !chat->terminal))
            break;
        if (kind == LINE_TEXT)
            status = run_line(chat, text, error);
        else if (kind == LINE_FAILED)
            status = cli_fail(error, problem.status, "%s", problem.message);
        else if (kind == LINE_BAD)
            status = complain(chat, &problem, error);
    }
    if (status == MVLM_OK && (stopped_by == SIGTERM || (stopped_by && !chat->terminal)))
        status = cli_fail(error, MVLM_CANCELLED, "stopped");
    return status;
}

mvlm_status run_chat(const struct values *values, mvlm_error *error)
{
    struct chat chat = {.values = values};
    progress_start(&chat.bar, values->quiet);
    mvlm_status status = open_chat(&chat, error);
    if (status == MVLM_OK)
        status = converse(&chat, error);
    line_input_close(chat.input);
    chat_clear(&chat.turns);
    free(chat.text.bytes);
    mvlm_session_close(chat.session);
    mvlm_model_close(chat.model);
    return status;
}
