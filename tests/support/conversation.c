#include "conversation.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "golden.h"
#include "program.h"

#define CASES SOURCE_DIR "/tests/golden/cases"

mvlm_session *conversation_session(mvlm_model *model, const mvlm_session_options *options)
{
    mvlm_session *session;
    mvlm_error error;
    if (mvlm_session_open(model, options, &session, &error) != MVLM_OK)
        fail_msg("%s", error.message);
    return session;
}

static void load_pictures(struct conversation *c, const char *images)
{
    const json_t *names = json_object_get(c->expected, "images");
    const size_t n = json_array_size(names);
    c->pictures = calloc(n + 1, sizeof *c->pictures);
    assert_non_null(c->pictures);
    for (size_t i = 0; i < n; i++) {
        const char *name = json_string_value(json_array_get(names, i));
        char *path = path_of(images, name, NULL);
        c->pictures[i].name = name;
        c->pictures[i].bytes = file_load(path, &c->pictures[i].n_bytes);
        free(path);
    }
    c->question.pictures = c->pictures;
    c->question.n_pictures = n;
}

static void load_turns(struct conversation *c)
{
    const json_t *turns = json_object_get(c->expected, "turns");
    const size_t n = json_is_array(turns) ? json_array_size(turns) : 1;
    c->turns = calloc(n, sizeof *c->turns);
    assert_non_null(c->turns);
    c->turns[0].question = json_string_value(json_object_get(c->expected, "prompt"));
    for (size_t i = 0; i < json_array_size(turns); i++) {
        c->turns[i].question = json_string_value(json_array_get(json_array_get(turns, i), 0));
        c->turns[i].answer = json_string_value(json_array_get(json_array_get(turns, i), 1));
    }
    c->question.turns = c->turns;
    c->question.n_turns = n;
}

void conversation_open_case(struct conversation *c, const char *folder, const char *images)
{
    memset(c, 0, sizeof *c);
    char *path = path_of(folder, "expected", "case.json");
    c->expected = json_load_test(path);
    free(path);
    load_pictures(c, images);
    load_turns(c);
    c->question.max_tokens = (size_t)json_integer_value(json_object_get(c->expected, "count"));
    c->text = json_string_value(json_object_get(c->expected, "text"));
    assert_non_null(c->text);
}

void conversation_open(struct conversation *c, const char *name)
{
    char *folder = path_of(CASES, name, NULL);
    conversation_open_case(c, folder, SOURCE_DIR "/tests/golden/images");
    free(folder);
}

void conversations_open(struct conversations *all, const char *const *names, size_t n)
{
    all->folder = temporary_folder();
    all->n = n;
    for (size_t i = 0; i < n; i++) {
        conversation_open(&all->cases[i], names[i]);
        all->models[i] = conversation_model(all->folder, names[i], "f32", NULL);
    }
}

void conversations_close(struct conversations *all)
{
    for (size_t i = 0; i < all->n; i++) {
        mvlm_model_close(all->models[i]);
        conversation_close(&all->cases[i]);
    }
    remove_folder(all->folder);
    free(all->folder);
}

void conversation_close(struct conversation *c)
{
    for (size_t i = 0; i < c->question.n_pictures; i++)
        free((void *)(uintptr_t)c->pictures[i].bytes);
    free(c->pictures);
    free(c->turns);
    json_decref(c->expected);
    memset(c, 0, sizeof *c);
}

mvlm_model *case_model(const char *folder, const char *cases, const char *name, const char *type,
                       const char *isa)
{
    char file[64];
    mvlm_model *model;
    mvlm_error error;
    const mvlm_model_options options = {.isa = isa};
    snprintf(file, sizeof file, "%s.%s.bin", name, type);
    char *path = path_of(folder, file, NULL), *case_folder = path_of(cases, name, NULL);
    if (!path_exists(path))
        convert_case(case_folder, path, type);
    if (mvlm_model_open(path, &options, &model, &error) != MVLM_OK)
        fail_msg("%s: %s", name, error.message);
    free(path);
    free(case_folder);
    return model;
}

mvlm_model *conversation_model(const char *folder, const char *name, const char *type,
                               const char *isa)
{
    return case_model(folder, CASES, name, type, isa);
}

int reply_add(void *user, const char *text, size_t n_bytes)
{
    struct reply *reply = user;
    assert_true(n_bytes > 0 && reply->n + n_bytes < sizeof reply->text);
    memcpy(reply->text + reply->n, text, n_bytes);
    reply->n += n_bytes;
    reply->text[reply->n] = 0;
    return ++reply->n_calls == reply->stop_at;
}

int record_add(void *user, const char *stage, size_t picture, const float *values,
               const size_t *shape, int n_dims)
{
    struct record *r = user;
    size_t n = 1;
    for (int i = 0; i < n_dims; i++)
        n *= shape[i];
    if (r->capacity - r->n < n) {
        r->capacity = 2 * (r->n + n);
        r->values = realloc(r->values, r->capacity * sizeof *r->values);
        assert_non_null(r->values);
    }
    assert_true(r->n_calls < sizeof r->calls / sizeof *r->calls);
    memcpy(r->values + r->n, values, n * sizeof *values);
    snprintf(r->calls[r->n_calls].stage, sizeof r->calls->stage, "%s", stage);
    r->calls[r->n_calls].picture = picture;
    r->calls[r->n_calls].at = r->n;
    r->calls[r->n_calls].n = n;
    r->calls[r->n_calls].n_columns = shape[n_dims - 1];
    r->n_calls++;
    r->n += n;
    return 0;
}

void record_free(struct record *record)
{
    free(record->values);
    memset(record, 0, sizeof *record);
}

const float *record_stage(const struct record *record, const char *stage, size_t *n)
{
    const float *first = NULL;
    *n = 0;
    for (size_t i = 0; i < record->n_calls; i++)
        if (strcmp(record->calls[i].stage, stage) == 0) {
            first = first ? first : record->values + record->calls[i].at;
            *n += record->calls[i].n;
        }
    assert_non_null(first);
    return first;
}

void record_run(struct record *record, const char *folder, const char *name,
                const struct manner *manner)
{
    struct conversation c;
    mvlm_session *session;
    mvlm_error error;
    mvlm_model *model = conversation_model(folder, name, manner->type, manner->isa);
    conversation_open(&c, name);
    memset(record, 0, sizeof *record);
    c.question.trace = record_add;
    c.question.trace_user = record;
    c.question.max_tokens = 8;
    if (mvlm_session_open(model, &manner->options, &session, &error) != MVLM_OK ||
        mvlm_ask(session, &c.question, NULL, NULL, &error) != MVLM_OK)
        fail_msg("%s: %s", name, error.message);
    mvlm_session_close(session);
    conversation_close(&c);
    mvlm_model_close(model);
}

void assert_same_bits(const char *what, const struct record *a, const struct record *b)
{
    assert_int_equal(a->n_calls, b->n_calls);
    for (size_t i = 0; i < a->n_calls; i++) {
        assert_string_equal(a->calls[i].stage, b->calls[i].stage);
        assert_int_equal(a->calls[i].n, b->calls[i].n);
        if (memcmp(a->values + a->calls[i].at, b->values + b->calls[i].at,
                   a->calls[i].n * sizeof *a->values) != 0)
            fail_msg("%s: %s, call %zu, differs", what, a->calls[i].stage, i);
    }
}

double logits_differ_by(const struct record *a, const struct record *b)
{
    size_t n, n_b;
    const float *x = record_stage(a, "logits", &n), *y = record_stage(b, "logits", &n_b);
    double most = 0, difference = 0;
    assert_int_equal(n, n_b);
    for (size_t i = 0; i < n; i++) {
        if (!isfinite(x[i]) || !isfinite(y[i]))
            return INFINITY;
        most = fmax(most, fabs((double)x[i]));
        difference = fmax(difference, fabs((double)x[i] - (double)y[i]));
    }
    return difference / most;
}
