/* A question as the options put it: texts and pictures read, and the answer's JSON record. */
#ifndef CLI_ASK_H
#define CLI_ASK_H

#include "cli.h"

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
    char *text; /* the answer so far, for --json */
    size_t n_text;
};

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
