#include "core_choice.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "options.h"
#include "system_files.h"

/* ---- Big cores -------------------------------------------------------------------------- */

/* The file's number of each core, and the largest of them; false unless it is known of all. */
static bool read_all(const char *sys, const char *file, const int *cores, size_t n, double *numbers,
                     double *most)
{
    *most = 0;
    for (size_t i = 0; i < n; i++) {
        numbers[i] = read_value("%s/devices/system/cpu/cpu%d/%s", sys, cores[i], file);
        if (!(numbers[i] >= 0))
            return false;
        *most = numbers[i] > *most ? numbers[i] : *most;
    }
    return n > 0;
}

/* Main ID register: the implementer in bits 24 to 31, the part in 4 to 15. */
static bool is_small(double midr)
{
    static const struct {
        unsigned implementer, part;
    } small[] = {
        {0x41, 0xd01}, {0x41, 0xd02}, {0x41, 0xd03},
        {0x41, 0xd04}, {0x41, 0xd05},                /* Cortex-A32, A34, A53, A35, A55 */
        {0x41, 0xd46}, {0x41, 0xd80},                /* A510, A520 */
        {0x51, 0x801}, {0x51, 0x803}, {0x51, 0x805}, /* Kryo 2xx, 3xx, 4xx Silver */
    };
    const uint64_t id = (uint64_t)midr;
    for (size_t i = 0; i < sizeof small / sizeof *small; i++)
        if ((id >> 24 & 0xff) == small[i].implementer && (id >> 4 & 0xfff) == small[i].part)
            return true;
    return false;
}

size_t big_cores(const char *sys, const int *cores, size_t n, int *big, const char **sign_name)
{
    static const struct {
        const char *file, *name;
        double share; /* of the largest; 0: a main ID register */
    } signs[] = {{"cpu_capacity", "cpu_capacity", 0.6},
                 {"cpufreq/cpuinfo_max_freq", "cpuinfo_max_freq", 0.8},
                 {"regs/identification/midr_el1", "midr_el1", 0}};
    double numbers[MOST_CORES], most;
    size_t n_big = 0, sign = 0;
    while (sign < 3 && !read_all(sys, signs[sign].file, cores, n, numbers, &most))
        sign++;
    for (size_t i = 0; sign < 3 && i < n; i++)
        if (signs[sign].share > 0 ? numbers[i] >= signs[sign].share * most : !is_small(numbers[i]))
            big[n_big++] = cores[i];
    *sign_name = sign < 3 ? signs[sign].name : NULL;
    if (n_big == 0) {
        memcpy(big, cores, n * sizeof *cores);
        n_big = n;
    }
    return n_big;
}

/* ---- What was asked for ----------------------------------------------------------------- */

/* "0,2-4" -> wanted[], beside those that are there. False when it is no such list. */
static bool read_list(const char *text, bool wanted[MOST_CORES])
{
    while (isdigit((unsigned char)*text)) {
        char *end;
        const unsigned long first = strtoul(text, &end, 10);
        unsigned long last = first;
        if (*end == '-' && isdigit((unsigned char)end[1]))
            last = strtoul(end + 1, &end, 10);
        if (last < first || last >= MOST_CORES)
            return false;
        for (unsigned long core = first; core <= last; core++)
            wanted[core] = true;
        if (*end == 0)
            return true;
        if (*end != ',')
            return false;
        text = end + 1;
    }
    return false;
}

/* "0xf0" -> wanted[], beside those that are there: the last digit is cores 0 to 3. */
static bool read_mask(const char *text, bool wanted[MOST_CORES])
{
    if (text[0] == '0' && tolower((unsigned char)text[1]) == 'x')
        text += 2;
    const size_t n = strlen(text);
    if (n == 0 || n > MOST_CORES / 4 || strspn(text, "0123456789abcdefABCDEF") != n)
        return false;
    for (size_t i = 0; i < n; i++) {
        const char digit[] = {text[n - 1 - i], 0};
        const unsigned long bits = strtoul(digit, NULL, 16);
        for (size_t k = 0; k < 4; k++)
            wanted[4 * i + k] |= bits >> k & 1;
    }
    return true;
}

/* "4-7", "4-" or "-7" -> wanted[]. */
static bool read_range(const char *text, bool wanted[MOST_CORES])
{
    const char *dash = strchr(text, '-');
    char whole[64];
    const int n = snprintf(whole, sizeof whole, "%s%s", text == dash ? "0" : "", text);
    if (!dash || !text[1] || n < 0 || (size_t)n + 8 > sizeof whole || strchr(text, ','))
        return false;
    if (!dash[1])
        snprintf(whole + n, sizeof whole - (size_t)n, "%d", MOST_CORES - 1);
    return read_list(whole, wanted);
}

/* Names of what nobody named. */
static const char *why_big(const char *sign)
{
    static char text[64];
    if (!sign)
        return "all, for nothing in /sys tells them apart";
    snprintf(text, sizeof text, "big, by %s", sign);
    return text;
}

mvlm_status choose_cores(const char *sys, const struct core_wish *wish, const int *granted,
                         size_t n, int *chosen, size_t *n_chosen, const char **why,
                         mvlm_error *error)
{
    const struct {
        const char *option, *text, *form;
        bool (*read)(const char *, bool[MOST_CORES]);
    } ways[] = {{"--cores", wish->names, "big, all, or a list such as 0,2-4", read_list},
                {"-C", wish->mask, "a mask in hexadecimal, such as 0xf0", read_mask},
                {"-Cr", wish->range, "a range such as 4-7", read_range}};
    const char *text = NULL, *option = NULL, *sign;
    bool wanted[MOST_CORES] = {false};
    const bool any = wish->names || wish->mask || wish->range;
    *n_chosen = 0;
    *why = "as asked for";
    if (wish->names && (wish->mask || wish->range))
        return cli_fail(error, MVLM_USAGE,
                        "--cores, and -C and -Cr: only one of them can be given");
    if (!any || (wish->names && strcmp(wish->names, "big") == 0)) {
        *n_chosen = big_cores(sys, granted, n, chosen, &sign);
        *why = why_big(sign);
        if (!any && wish->n_threads > *n_chosen && *n_chosen < n) {
            *why = "all, for more threads than big ones";
            memcpy(chosen, granted, n * sizeof *granted);
            *n_chosen = n;
        }
        return MVLM_OK;
    }
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        if (!ways[i].text)
            continue;
        text = ways[i].text;
        option = ways[i].option;
        if (wish->names && strcmp(wish->names, "all") == 0)
            memset(wanted, true, sizeof wanted);
        else if (!ways[i].read(text, wanted))
            return cli_fail(error, MVLM_USAGE, "%s: \"%.60s\" is not %s", option, text,
                            ways[i].form);
    }
    for (size_t i = 0; i < n; i++)
        if (wanted[granted[i]])
            chosen[(*n_chosen)++] = granted[i];
    if (*n_chosen == 0)
        return cli_fail(error, MVLM_USAGE, "%s %.60s: this process may use none of these cores",
                        option, text);
    return MVLM_OK;
}
