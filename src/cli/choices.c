#include "choices.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

static char *trimmed(char *text)
{
    size_t n;
    while (isspace((unsigned char)*text))
        text++;
    for (n = strlen(text); n && isspace((unsigned char)text[n - 1]); n--)
        ;
    text[n] = 0;
    return text;
}

static mvlm_status add_choice(struct choices *c, const char *choice, mvlm_error *error)
{
    if (!*choice)
        return cli_fail(error, MVLM_USAGE, "--choices: choice %zu is empty", c->n + 1);
    for (size_t i = 0; i < c->n; i++)
        /* NOLINTNEXTLINE(clang-analyzer-core.NonNullParamChecker): the first n are set below */
        if (strcmp(c->items[i], choice) == 0)
            return cli_fail(error, MVLM_USAGE, "--choices: \"%.100s\" stands twice", choice);
    c->items[c->n++] = choice;
    return MVLM_OK;
}

mvlm_status choices_open(struct choices *choices, const struct values *values, mvlm_error *error)
{
    size_t most = 1;
    mvlm_status status = MVLM_OK;
    *choices = (struct choices){0};
    if (!values->choices)
        return MVLM_OK;
    for (const char *at = values->choices; *at; at++)
        most += *at == ',';
    choices->text = strdup(values->choices);
    choices->items = calloc(most, sizeof *choices->items);
    choices->probabilities = calloc(most, sizeof *choices->probabilities);
    if (!choices->text || !choices->items || !choices->probabilities)
        return cli_fail(error, MVLM_NO_MEMORY, "out of memory");
    char *rest = choices->text;
    for (char *one; status == MVLM_OK && (one = strsep(&rest, ","));)
        status = add_choice(choices, trimmed(one), error);
    return status;
}

void choices_close(struct choices *choices)
{
    free(choices->text);
    free(choices->items);
    free(choices->probabilities);
    *choices = (struct choices){0};
}

mvlm_status choices_ask(struct choices *choices, mvlm_session *session, size_t index,
                        const mvlm_question *question, mvlm_error *error)
{
    return mvlm_sequence_choose(session, index, question, choices->items, choices->n,
                                choices->probabilities, error);
}

const char *choices_best(const struct choices *choices)
{
    size_t best = 0;
    for (size_t i = 1; i < choices->n; i++)
        if (choices->probabilities[i] > choices->probabilities[best])
            best = i;
    return choices->items[best];
}

json_t *choices_json(const struct choices *choices)
{
    json_t *object = json_object();
    for (size_t i = 0; i < choices->n; i++)
        json_put(&object, choices->items[i], json_real(choices->probabilities[i]));
    return object;
}
