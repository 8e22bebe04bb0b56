/* --choices: no free text, but which of several answers is the likeliest. */
#ifndef CLI_CHOICES_H
#define CLI_CHOICES_H

#include "cli.h"

struct choices {
    char *text;            /* owned */
    const char **items;    /* [n], within text; owned */
    double *probabilities; /* [n] */
    size_t n;
};

/* Splits --choices at its commas; white space around a choice is dropped. MVLM_USAGE for an empty
 * choice or one that stands twice. Without the option there are none. */
mvlm_status choices_open(struct choices *choices, const struct values *values, mvlm_error *error);
void choices_close(struct choices *choices);

/* Asks sequence `index` of the session; the probabilities are filled. */
mvlm_status choices_ask(struct choices *choices, mvlm_session *session, size_t index,
                        const mvlm_question *question, mvlm_error *error);

/* The likeliest; the first of several. */
const char *choices_best(const struct choices *choices);

/* {"cat": 0.93, ...}, in the order given. */
json_t *choices_json(const struct choices *choices);

#endif
