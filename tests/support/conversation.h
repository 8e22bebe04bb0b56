/* Golden cases through the public API: a case as a question, its model, and what was answered. */
#ifndef SUPPORT_CONVERSATION_H
#define SUPPORT_CONVERSATION_H

#include <jansson.h>

#include "mobilevlm.h"

struct conversation {
    json_t *expected; /* case.json */
    mvlm_picture *pictures;
    mvlm_turn *turns;
    mvlm_question question; /* greedy, as many tokens as the case has */
    const char *text;       /* the expected answer */
};

/* Reads a case's folder, with its pictures from `images`, or tests/golden/cases/NAME; fails the test
 * when that fails. */
void conversation_open_case(struct conversation *conversation, const char *folder,
                            const char *images);
void conversation_open(struct conversation *conversation, const char *name);
void conversation_close(struct conversation *conversation);

/* Converts the checkpoint of the case in `cases`/NAME to folder/NAME.type.bin unless that is there,
 * and opens it. `isa` may be NULL. conversation_model: of one of the project's own cases. */
mvlm_model *case_model(const char *folder, const char *cases, const char *name, const char *type,
                       const char *isa);
mvlm_model *conversation_model(const char *folder, const char *name, const char *type,
                               const char *isa);

/* Several of the project's own cases with their models, in a temporary folder. */
struct conversations {
    struct conversation cases[4];
    mvlm_model *models[4];
    size_t n;
    char *folder;
};
void conversations_open(struct conversations *all, const char *const *names, size_t n);
void conversations_close(struct conversations *all);

/* An answer's text; its address is mvlm_ask's `user`. */
struct reply {
    char text[8192]; /* ends with NUL */
    size_t n;
    int n_calls, stop_at; /* the call that says stop; 0: none */
};
int reply_add(void *user, const char *text, size_t n_bytes);

/* What mvlm_trace_fn was called with, all in one array; its address is `trace_user`. reply_free
 * frees. */
struct record {
    float *values;
    size_t n, capacity;
    size_t n_calls;
    struct {
        char stage[24];
        size_t picture, at, n; /* values[at .. at + n) */
        size_t n_columns;      /* of the last dimension */
    } calls[256];
};
int record_add(void *user, const char *stage, size_t picture, const float *values,
               const size_t *shape, int n_dims);
void record_free(struct record *record);

/* The values of a stage's calls that follow each other, from the first on; *n is their number. */
const float *record_stage(const struct record *record, const char *stage, size_t *n);

/* A session, else the test fails; the caller closes it. */
mvlm_session *conversation_session(mvlm_model *model, const mvlm_session_options *options);

/* One way to compute a case. */
struct manner {
    const char *type, *isa; /* isa may be NULL */
    mvlm_session_options options;
};

/* Records everything that the question of one of the project's own cases computes, up to eight
 * tokens of its answer. The model is conversation_model's. */
void record_run(struct record *record, const char *folder, const char *name,
                const struct manner *manner);

/* The same stages with the same bits, else the test fails, naming `what`. */
void assert_same_bits(const char *what, const struct record *a, const struct record *b);

/* Largest difference of the prompt's logits, relative to their largest magnitude in `a`; infinite
 * where one is not finite. */
double logits_differ_by(const struct record *a, const struct record *b);

#endif
