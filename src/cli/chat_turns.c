#include "chat_turns.h"

#include <stdlib.h>
#include <string.h>

static const char mark[] = "<image>";

static mvlm_status no_memory(mvlm_error *error)
{
    return cli_fail(error, MVLM_NO_MEMORY, "out of memory for the conversation");
}

static size_t marks_in(const char *text)
{
    size_t n = 0;
    for (; (text = strstr(text, mark)); text += sizeof mark - 1)
        n++;
    return n;
}

/* n marks, each on a line of its own, before the text. */
static char *marked(const char *text, size_t n)
{
    const size_t step = sizeof mark, length = strlen(text);
    char *out = malloc(n * step + length + 1);
    if (!out)
        return NULL;
    for (size_t i = 0; i < n; i++) {
        memcpy(out + i * step, mark, step - 1);
        out[i * step + step - 1] = '\n';
    }
    memcpy(out + n * step, text, length + 1);
    return out;
}

mvlm_status chat_add_image(struct chat_turns *chat, mvlm_image *image, const char *name,
                           mvlm_error *error)
{
    const size_t n = chat->n_images + 1;
    mvlm_image **images = realloc(chat->images, n * sizeof *images);
    if (images)
        chat->images = images;
    char **names = realloc(chat->names, n * sizeof *names), *copy = strdup(name);
    if (names)
        chat->names = names;
    if (!images || !names || !copy) {
        free(copy);
        mvlm_image_close(image);
        return no_memory(error);
    }
    chat->images[chat->n_images] = image;
    chat->names[chat->n_images++] = copy;
    return MVLM_OK;
}

mvlm_status chat_ask(struct chat_turns *chat, const char *text, mvlm_error *error)
{
    const size_t n_waiting = chat->n_images - chat->n_asked, n_marks = marks_in(text);
    if (n_marks && n_marks != n_waiting)
        return cli_fail(error, MVLM_USAGE, "%zu marks %s, but %zu new pictures", n_marks, mark,
                        n_waiting);
    if (chat->n == chat->capacity) {
        const size_t capacity = 2 * chat->capacity + 16;
        struct chat_turn *turns = realloc(chat->turns, capacity * sizeof *turns);
        if (turns)
            chat->turns = turns;
        mvlm_turn *asked = realloc(chat->asked, capacity * sizeof *asked);
        if (asked)
            chat->asked = asked;
        if (!turns || !asked)
            return no_memory(error);
        chat->capacity = capacity;
    }
    char *question = marked(text, n_marks ? 0 : n_waiting);
    if (!question)
        return no_memory(error);
    chat->turns[chat->n++] = (struct chat_turn){.question = question, .n_images = n_waiting};
    chat->n_asked = chat->n_images;
    return MVLM_OK;
}

mvlm_status chat_answer(struct chat_turns *chat, const char *text, size_t n_bytes,
                        mvlm_error *error)
{
    struct chat_turn *turn = &chat->turns[chat->n - 1];
    free(turn->answer);
    turn->answer = strndup(n_bytes ? text : "", n_bytes);
    return turn->answer ? MVLM_OK : no_memory(error);
}

void chat_take_back(struct chat_turns *chat)
{
    struct chat_turn *turn = &chat->turns[--chat->n];
    chat->n_asked -= turn->n_images;
    free(turn->question);
    free(turn->answer);
}

mvlm_status chat_drop_first(struct chat_turns *chat, mvlm_error *error)
{
    struct chat_turn *first = &chat->turns[0], *second = &chat->turns[1];
    char *question = marked(second->question, first->n_images);
    if (!question)
        return no_memory(error);
    free(second->question);
    second->question = question;
    second->n_images += first->n_images;
    free(first->question);
    free(first->answer);
    memmove(first, second, --chat->n * sizeof *first);
    return MVLM_OK;
}

char *chat_last_alone(const struct chat_turns *chat)
{
    const struct chat_turn *last = &chat->turns[chat->n - 1];
    return marked(last->question, chat->n_asked - last->n_images);
}

mvlm_status chat_fill(struct chat_turns *chat, mvlm_question *question, mvlm_error *error)
{
    if (chat->n == 0)
        return cli_fail(error, MVLM_USAGE, "nothing was asked yet");
    for (size_t i = 0; i < chat->n; i++)
        chat->asked[i] = (mvlm_turn){.question = chat->turns[i].question,
                                     .answer = i + 1 < chat->n ? chat->turns[i].answer : NULL};
    question->turns = chat->asked;
    question->n_turns = chat->n;
    question->images = chat->images;
    question->n_pictures = chat->n_asked;
    return MVLM_OK;
}

void chat_clear(struct chat_turns *chat)
{
    for (size_t i = 0; i < chat->n; i++) {
        free(chat->turns[i].question);
        free(chat->turns[i].answer);
    }
    for (size_t i = 0; i < chat->n_images; i++) {
        mvlm_image_close(chat->images[i]);
        free(chat->names[i]);
    }
    free(chat->turns);
    free(chat->asked);
    free(chat->images);
    free(chat->names);
    *chat = (struct chat_turns){0};
}
