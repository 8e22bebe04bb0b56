/* A conversation: its turns, its pictures, and which of them still fit the context. */
#ifndef CLI_CHAT_TURNS_H
#define CLI_CHAT_TURNS_H

#include "cli.h"

struct chat_turn {
    char *question; /* with a mark for each of its pictures; owned */
    char *answer;   /* owned; NULL: not answered yet */
    size_t n_images;
};

struct chat_turns {
    struct chat_turn *turns; /* [n] */
    size_t n, capacity;
    mvlm_image *
        *images;  /* [n_images]: those of the turns, in order, then those that wait for the next */
    char **names; /* of their files */
    size_t n_images, n_asked; /* n_asked of them belong to turns */
    mvlm_turn *asked;         /* what mvlm_question.turns points to, [n] */
};

/* Takes the picture; it belongs to the next turn. */
mvlm_status chat_add_image(struct chat_turns *chat, mvlm_image *image, const char *name,
                           mvlm_error *error);

/* A new turn about all pictures that wait: `<image>` in the text marks where they stand; without marks
 * they come first. MVLM_USAGE when marks and pictures are not equally many. */
mvlm_status chat_ask(struct chat_turns *chat, const char *text, mvlm_error *error);

/* Sets the last turn's answer. */
mvlm_status chat_answer(struct chat_turns *chat, const char *text, size_t n_bytes,
                        mvlm_error *error);

/* Takes the last turn back; its pictures wait again. */
void chat_take_back(struct chat_turns *chat);

/* Forgets the first turn; its pictures go over to the second one. */
mvlm_status chat_drop_first(struct chat_turns *chat, mvlm_error *error);

/* The last turn's question as it would be if all turns before it were forgotten, with their pictures' marks;
 * owned by the caller, NULL without memory. */
char *chat_last_alone(const struct chat_turns *chat);

/* Puts turns and pictures into the question; what it points to stays until the chat changes. */
mvlm_status chat_fill(struct chat_turns *chat, mvlm_question *question, mvlm_error *error);

/* Forgets everything. */
void chat_clear(struct chat_turns *chat);

#endif
