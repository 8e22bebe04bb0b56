/* Lists of numbers and times on bench's command line. */
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"

enum { MOST_ITEMS = 1000 };

/* Digits only: no sign, no space. */
static bool parse_number(const char **at, size_t *number)
{
    char *end;
    if (!isdigit((unsigned char)**at))
        return false;
    errno = 0;
    const unsigned long long value = strtoull(*at, &end, 10);
    *at = end;
    *number = (size_t)value;
    return errno == 0 && value <= SIZE_MAX;
}

/* first, first-last, first-last+step, first-last*factor. false: it is none of them, or has no end. */
static bool parse_item(const char *at, size_t *first, size_t *last, char *operation, size_t *step)
{
    *operation = '+';
    *step = 1;
    if (!parse_number(&at, first))
        return false;
    *last = *first;
    if (*at == '-') {
        at++;
        if (!parse_number(&at, last) || *last < *first)
            return false;
        if (*at == '+' || *at == '*') {
            *operation = *at++;
            if (!parse_number(&at, step))
                return false;
        }
    }
    const bool ends = *operation == '+' ? *step > 0 : *step > 1 && *first > 0;
    return *at == 0 && ends;
}

static mvlm_status append(struct numbers *numbers, size_t number, const char *option,
                          mvlm_error *error)
{
    if (numbers->n == MOST_ITEMS)
        return cli_fail(error, MVLM_USAGE, "%s: more than %d numbers", option, MOST_ITEMS);
    size_t *more = realloc(numbers->items, (numbers->n + 1) * sizeof *more);
    if (!more)
        return cli_fail(error, MVLM_NO_MEMORY, "out of memory for a list");
    numbers->items = more;
    numbers->items[numbers->n++] = number;
    return MVLM_OK;
}

static mvlm_status read_item(const char *option, const char *item, size_t least, size_t most,
                             struct numbers *numbers, mvlm_error *error)
{
    size_t first, last, step;
    char operation;
    if (!parse_item(item, &first, &last, &operation, &step))
        return cli_fail(error, MVLM_USAGE,
                        "%s: \"%.60s\" is no number and no range (such as 1-8, 1-8+2, 1-8*2)",
                        option, item);
    if (first < least || last > most)
        return cli_fail(error, MVLM_USAGE, "%s: \"%.60s\" is out of range: %zu to %zu", option,
                        item, least, most);
    mvlm_status status = MVLM_OK;
    for (size_t n = first; n <= last && status == MVLM_OK;) {
        status = append(numbers, n, option, error);
        const size_t next = operation == '+' ? n + step : n * step;
        if (next <= n || step > most) /* beyond what a number can hold */
            break;
        n = next;
    }
    return status;
}

mvlm_status read_numbers(const char *option, const struct text_list *texts, size_t least,
                         size_t most, struct numbers *numbers, mvlm_error *error)
{
    mvlm_status status = MVLM_OK;
    for (size_t i = 0; i < texts->n && status == MVLM_OK; i++)
        for (const char *at = texts->items[i]; status == MVLM_OK; at++) {
            char item[80];
            const size_t n = strcspn(at, ",");
            snprintf(item, sizeof item, "%.*s", (int)(n < sizeof item ? n : sizeof item - 1), at);
            status = read_item(option, item, least, most, numbers, error);
            at += n;
            if (*at == 0)
                break;
        }
    return status;
}

mvlm_status read_duration(const char *option, const char *text, double *seconds, mvlm_error *error)
{
    char *end;
    const double number = strtod(text, &end);
    const double unit = *end == 0 || strcmp(end, "s") == 0 ? 1
                        : strcmp(end, "m") == 0            ? 60
                        : strcmp(end, "h") == 0            ? 3600
                                                           : 0;
    if (end == text || unit == 0 || !(number > 0 && number * unit <= 1e7))
        return cli_fail(error, MVLM_USAGE, "%s: \"%.60s\" is no time (such as 30s, 10m, 1h)",
                        option, text);
    *seconds = number * unit;
    return MVLM_OK;
}
