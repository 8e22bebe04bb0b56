#include "answer.h"

#include <string.h>

enum { REPLACEMENT_BYTES = 3 }; /* a wrong byte becomes three */

void answer_layout(struct answer *answer, struct arena *arena, size_t n_bytes)
{
    answer->capacity = (n_bytes + 2) * REPLACEMENT_BYTES;
    answer->text = arena_take(arena, answer->capacity, 1);
}

void answer_start(struct answer *answer, const char *const *stops, size_t n_stops)
{
    answer->utf8 = (struct utf8_stream){.n_pending = 0};
    answer->n = answer->begin = answer->emitted = 0;
    answer->stops = stops;
    answer->n_stops = n_stops;
    answer->ended = false;
}

/* Moves the beginning behind white space. */
static void skip_leading_space(struct answer *answer)
{
    size_t length;
    while (answer->begin < answer->n &&
           utf8_is_space(answer->text + answer->begin, answer->n - answer->begin, &length))
        answer->begin += length;
    if (answer->emitted < answer->begin)
        answer->emitted = answer->begin;
}

static size_t find(const char *text, size_t n, const char *wanted, size_t from)
{
    const size_t length = strlen(wanted);
    for (size_t at = from; at + length <= n; at++)
        if (memcmp(text + at, wanted, length) == 0)
            return at;
    return n;
}

/* Cuts the text before the first stop text in it; only what was added since `old` can have
 * completed one. */
static void cut_at_stop(struct answer *answer, size_t old)
{
    size_t first = answer->n;
    for (size_t i = 0; i < answer->n_stops; i++) {
        const size_t length = strlen(answer->stops[i]);
        size_t from = old > length ? old - length : 0;
        if (from < answer->begin)
            from = answer->begin;
        const size_t at =
            length ? find(answer->text, answer->n, answer->stops[i], from) : answer->n;
        first = at < first ? at : first;
    }
    if (first < answer->n) {
        answer->n = first;
        answer->ended = true;
    }
}

bool answer_push(struct answer *answer, const char *bytes, size_t n_bytes)
{
    /* byte by byte, so that the stop text that is complete first wins, wherever tokens end */
    for (size_t i = 0; i < n_bytes && !answer->ended; i++) {
        const size_t old = answer->n;
        answer->n += utf8_push(&answer->utf8, (unsigned char)bytes[i], answer->text + answer->n);
        skip_leading_space(answer);
        cut_at_stop(answer, old);
    }
    return answer->ended;
}

/* The end without the white space before it. */
static size_t trimmed_end(const struct answer *answer, size_t end)
{
    return end > answer->begin
               ? answer->begin + utf8_trimmed(answer->text + answer->begin, end - answer->begin)
               : end;
}

/* The end without what may be the beginning of a stop text. */
static size_t before_partial_stop(const struct answer *answer)
{
    size_t end = answer->n;
    for (size_t i = 0; i < answer->n_stops; i++) {
        const size_t length = strlen(answer->stops[i]);
        size_t most = length ? length - 1 : 0; /* an empty one stops nothing */
        if (most > answer->n - answer->begin)
            most = answer->n - answer->begin;
        for (size_t n = most; n > 0; n--)
            if (memcmp(answer->text + answer->n - n, answer->stops[i], n) == 0) {
                end = answer->n - n < end ? answer->n - n : end;
                break;
            }
    }
    return end;
}

const char *answer_take(struct answer *answer, bool last, size_t *n_bytes)
{
    if (last && !answer->ended) {
        const size_t old = answer->n;
        answer->n += utf8_finish(&answer->utf8, answer->text + answer->n);
        cut_at_stop(answer, old); /* a half character's U+FFFD may complete one */
    }
    size_t end = trimmed_end(answer, last ? answer->n : before_partial_stop(answer));
    if (end < answer->emitted)
        end = answer->emitted;
    const char *text = answer->text + answer->emitted;
    *n_bytes = end - answer->emitted;
    answer->emitted = end;
    return text;
}
