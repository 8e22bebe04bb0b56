/* A question as the options put it: texts and pictures read, and the answer's JSON record. */
#ifndef CLI_ASK_H
#define CLI_ASK_H

#include "choices.h"

struct ask {
    const struct values *values;
    mvlm_model *model;
    mvlm_session *session;
    mvlm_question question;
    mvlm_turn turn;
    mvlm_picture *pictures;           /* [n] */
    struct file_bytes *picture_files; /* [n] */
    struct file_bytes prompt_file;
    struct progress_bar bar;
    double load_ms;
    int64_t seed;
    struct choices choices;
    struct buffer text; /* the answer so far, for --json */
};

/* The prompt that the options give, whose memory, where it needs any, goes to `bytes`: free it, also
 * after an error. MVLM_USAGE when there is none. */
mvlm_status prompt_of_options(const struct values *values, struct file_bytes *bytes,
                              const char **text, mvlm_error *error);

/* A question under the options; pictures and turns are still to be put in. */
mvlm_question question_of(const struct values *values, int64_t seed);

/* A question's progress on `bar`, a struct progress_bar. */
int show_progress(void *bar, const char *stage, double share);

/* That of the options, or one drawn by the system. */
int64_t seed_of(const struct values *values);

/* Opens the model, reads prompt and pictures, opens the session. ask_close also after an error. */
mvlm_status ask_open(struct ask *ask, const struct values *values, mvlm_error *error);
void ask_close(struct ask *ask);

/* Keeps text for the JSON record. */
mvlm_status ask_keep(struct ask *ask, const char *text, size_t n_bytes, mvlm_error *error);

/* Prints the record that cli.md describes. */
mvlm_status ask_print_json(const struct ask *ask, mvlm_finish finish, mvlm_error *error);

/* With -v: timings, memory, seed, kernels, on standard error. */
void ask_print_details(const struct ask *ask);

#endif
