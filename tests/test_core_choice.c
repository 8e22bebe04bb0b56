/* Which cores are big, on trees like /sys of devices that people have; and how cores are named. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "../src/cli/cli.h"
#include "program.h"

#define COUNT(a) (sizeof(a) / sizeof *(a))

/* ---- Devices ---------------------------------------------------------------------------- */

/* n cores alike; 0: the kernel does not say. */
struct cluster {
    int n, capacity, megahertz;
    unsigned midr;
};

static const struct device {
    const char *name;
    struct cluster clusters[5];
    const char *granted, *big, *sign;
} devices[] = {
    {"Snapdragon 888: 4 small, 3 middle, 1 large",
     {{4, 325, 1804, 0x412fd050}, {3, 871, 2419, 0x411fd410}, {1, 1024, 2841, 0x411fd440}},
     "0-7",
     "4-7",
     "cpu_capacity"},
    {"Snapdragon 8 Gen 3",
     {{2, 328, 2265, 0x411fd801},
      {3, 855, 3148, 0x411fd4d0},
      {2, 813, 2956, 0x411fd4d0},
      {1, 1024, 3302, 0x411fd4e0}},
     "0-7",
     "2-7",
     "cpu_capacity"},
    {"Orin: 12 alike", {{12, 1024, 2201, 0x410fd421}}, "0-11", "0-11", "cpu_capacity"},
    {"RK3588: 4 small, 4 large",
     {{4, 530, 1800, 0x412fd050}, {4, 1024, 2400, 0x414fd0b0}},
     "0-7",
     "4-7",
     "cpu_capacity"},
    {"RK3588 without capacities",
     {{4, 0, 1800, 0x412fd050}, {4, 0, 2400, 0x414fd0b0}},
     "0-7",
     "4-7",
     "cpuinfo_max_freq"},
    {"RK3588 without frequencies either",
     {{4, 0, 0, 0x412fd050}, {4, 0, 0, 0x414fd0b0}},
     "0-7",
     "4-7",
     "midr_el1"},
    {"a kernel that says nothing", {{8, 0, 0, 0}}, "0-7", "0-7", NULL},
    {"small cores only", {{4, 0, 0, 0x410fd034}}, "0-3", "0-3", "midr_el1"},
    {"Snapdragon 888, a cpuset with two small and one middle",
     {{4, 325, 1804, 0}, {3, 871, 2419, 0}, {1, 1024, 2841, 0}},
     "0,1,4",
     "4",
     "cpu_capacity"},
    {"Snapdragon 888, a cpuset of small cores",
     {{4, 325, 1804, 0}, {3, 871, 2419, 0}, {1, 1024, 2841, 0}},
     "0-3",
     "0-3",
     "cpu_capacity"},
    {"Snapdragon 888, large and some middle cores offline",
     {{4, 325, 1804, 0}, {3, 871, 2419, 0}, {1, 1024, 2841, 0}},
     "0-5",
     "4,5",
     "cpu_capacity"},
    {"one core", {{1, 1024, 2000, 0}}, "0", "0", "cpu_capacity"},
    {"more cores granted than described", {{4, 325, 1804, 0}}, "0-7", "0-7", NULL},
};

static void put(int core, const char *file, const char *format, unsigned value)
{
    static const char *const folders[] = {"cpufreq", "regs", "regs/identification"};
    char path[512];
    const int n = snprintf(path, sizeof path, "%s/devices/system/cpu/cpu%d/", test_folder, core);
    for (size_t i = 0; i < COUNT(folders); i++) {
        snprintf(path + n, sizeof path - (size_t)n, "%s", folders[i]);
        mkdir(path, 0755);
    }
    snprintf(path + n, sizeof path - (size_t)n, "%s", file);
    remove(path);
    if (value == 0)
        return;
    FILE *stream = fopen(path, "w");
    assert_non_null(stream);
    fprintf(stream, format, value);
    assert_int_equal(fclose(stream), 0);
}

static void make_tree(const struct device *device)
{
    static const char *const folders[] = {"devices", "devices/system", "devices/system/cpu"};
    char path[512];
    int core = 0;
    for (size_t i = 0; i < COUNT(folders); i++) {
        snprintf(path, sizeof path, "%s/%s", test_folder, folders[i]);
        mkdir(path, 0755);
    }
    for (const struct cluster *c = device->clusters; c->n > 0; c++)
        for (int i = 0; i < c->n; i++, core++) {
            snprintf(path, sizeof path, "%s/devices/system/cpu/cpu%d", test_folder, core);
            mkdir(path, 0755);
            put(core, "cpu_capacity", "%u\n", (unsigned)c->capacity);
            put(core, "cpufreq/cpuinfo_max_freq", "%u\n", 1000 * (unsigned)c->megahertz);
            put(core, "regs/identification/midr_el1", "0x%016x\n", c->midr);
        }
}

/* "0-3,5" -> cores; returns how many. */
static size_t cores_in(const char *text, int *cores)
{
    size_t n = 0;
    while (*text) {
        char *end;
        long first = strtol(text, &end, 10), last = first;
        if (*end == '-')
            last = strtol(end + 1, &end, 10);
        while (first <= last)
            cores[n++] = (int)first++;
        text = *end == ',' ? end + 1 : end;
    }
    return n;
}

static void expect_cores(const char *what, const int *cores, size_t n, const char *wanted)
{
    int expected[64];
    const size_t n_expected = cores_in(wanted, expected);
    if (n != n_expected || memcmp(cores, expected, n * sizeof *cores) != 0)
        fail_msg("%s: %zu cores from %d on, expected %s", what, n, n ? cores[0] : -1, wanted);
}

static void finds_big_cores(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(devices); i++) {
        int granted[64], big[64];
        open_test_folder(NULL);
        make_tree(&devices[i]);
        const size_t n = cores_in(devices[i].granted, granted);
        const char *sign;
        expect_cores(devices[i].name, big, big_cores(test_folder, granted, n, big, &sign),
                     devices[i].big);
        assert_true(devices[i].sign ? sign && strcmp(sign, devices[i].sign) == 0 : !sign);
        close_test_folder(NULL);
    }
}

static void reads_nothing_from_strange_files(void **state)
{
    int granted[8], big[8];
    (void)state;
    make_tree(&devices[0]);
    put(3, "cpu_capacity", "many %u\n", 1); /* so frequencies decide */
    put(7, "cpufreq/cpuinfo_max_freq", "%u\n", 9999999);
    const size_t n = cores_in("0-7", granted);
    const char *sign;
    expect_cores("frequencies", big, big_cores(test_folder, granted, n, big, &sign), "7");
    assert_string_equal(sign, "cpuinfo_max_freq");
    expect_cores("no /sys", big, big_cores("/nowhere", granted, n, big, &sign), "0-7");
    assert_null(sign);
}

/* ---- How cores are asked for ------------------------------------------------------------ */

static void takes_what_is_asked_for(void **state)
{
    static const struct {
        const char *names, *mask, *range, *chosen, *message;
    } rows[] = {
        {NULL, NULL, NULL, "4-7", NULL},
        {"big", NULL, NULL, "4-7", NULL},
        {"all", NULL, NULL, "0-7", NULL},
        {"0,2-4", NULL, NULL, "0,2-4", NULL},
        {"6-20", NULL, NULL, "6-7", NULL},
        {NULL, "0xf0", NULL, "4-7", NULL},
        {NULL, "81", NULL, "0,7", NULL},
        {NULL, "0XFFFFFFFFFF", NULL, "0-7", NULL},
        {NULL, NULL, "2-5", "2-5", NULL},
        {NULL, NULL, "6-", "6,7", NULL},
        {NULL, NULL, "-2", "0-2", NULL},
        {NULL, "0x81", "3-4", "0,3,4,7", NULL},
        {"all", "0xf0", NULL, NULL, "--cores, and -C and -Cr: only one of them can be given"},
        {"all", NULL, "4-5", NULL, "--cores, and -C and -Cr: only one of them can be given"},
        {"large", NULL, NULL, NULL, "--cores: \"large\" is not big, all, or a list such as 0,2-4"},
        {"", NULL, NULL, NULL, "--cores: \"\" is not"},
        {"3-1", NULL, NULL, NULL, "--cores: \"3-1\" is not"},
        {"1,", NULL, NULL, NULL, "--cores: \"1,\" is not"},
        {"1,,2", NULL, NULL, NULL, "--cores: \"1,,2\" is not"},
        {"-1", NULL, NULL, NULL, "--cores: \"-1\" is not"},
        {"1 2", NULL, NULL, NULL, "--cores: \"1 2\" is not"},
        {"0-99999999999999999999", NULL, NULL, NULL, "is not big, all, or a list"},
        {"9", NULL, NULL, NULL, "--cores 9: this process may use none of these cores"},
        {NULL, "", NULL, NULL, "-C: \"\" is not a mask in hexadecimal, such as 0xf0"},
        {NULL, "0x", NULL, NULL, "-C: \"0x\" is not"},
        {NULL, "f0g", NULL, NULL, "-C: \"f0g\" is not"},
        {NULL, "0", NULL, NULL, "-C 0: this process may use none of these cores"},
        {NULL, NULL, "4", NULL, "-Cr: \"4\" is not a range such as 4-7"},
        {NULL, NULL, "0-1,3-4", NULL, "-Cr: \"0-1,3-4\" is not"},
        {NULL, NULL, "-", NULL, "-Cr: \"-\" is not"},
        {NULL, NULL, "5-2", NULL, "-Cr: \"5-2\" is not"},
        {NULL, NULL, "2-3-", NULL, "-Cr: \"2-3-\" is not"},
    };
    int granted[8], chosen[8];
    (void)state;
    make_tree(&devices[0]);
    const size_t n = cores_in("0-7", granted);
    for (size_t i = 0; i < COUNT(rows); i++) {
        mvlm_error error = {.message = ""};
        size_t n_chosen;
        const char *why;
        const struct core_wish wish = {rows[i].names, rows[i].mask, rows[i].range, 0};
        const mvlm_status status =
            choose_cores(test_folder, &wish, granted, n, chosen, &n_chosen, &why, &error);
        assert_int_equal(status, rows[i].message ? MVLM_USAGE : MVLM_OK);
        if (!rows[i].message)
            expect_cores("asked for", chosen, n_chosen, rows[i].chosen);
        else if (!strstr(error.message, rows[i].message))
            fail_msg("%s\ndoes not say\n%s", error.message, rows[i].message);
    }
}

/* Unless big ones were asked for by name. */
static void more_threads_than_big_cores_take_all(void **state)
{
    static const struct {
        struct core_wish wish;
        const char *chosen, *why;
    } rows[] = {{{NULL, NULL, NULL, 4}, "4-7", "big, by cpu_capacity"},
                {{NULL, NULL, NULL, 5}, "0-7", "all, for more threads than big ones"},
                {{"big", NULL, NULL, 5}, "4-7", "big, by cpu_capacity"},
                {{"1-2", NULL, NULL, 5}, "1-2", "as asked for"}};
    int granted[8], chosen[8];
    (void)state;
    make_tree(&devices[0]);
    for (size_t i = 0; i < COUNT(rows); i++) {
        mvlm_error error;
        size_t n_chosen;
        const char *why;
        assert_int_equal(choose_cores(test_folder, &rows[i].wish, granted, cores_in("0-7", granted),
                                      chosen, &n_chosen, &why, &error),
                         MVLM_OK);
        expect_cores("more threads", chosen, n_chosen, rows[i].chosen);
        assert_string_equal(why, rows[i].why);
    }
}

/* ---- A system that refuses -------------------------------------------------------------- */

/* In place of the C library's: four cores, and no others may be asked for. */
int sched_getaffinity(pid_t pid, size_t size, cpu_set_t *cores)
{
    (void)pid;
    CPU_ZERO_S(size, cores);
    for (size_t i = 0; i < 4; i++)
        CPU_SET_S(i, size, cores);
    return 0;
}

int sched_setaffinity(pid_t pid, size_t size, const cpu_set_t *cores)
{
    (void)pid, (void)size, (void)cores;
    errno = EPERM;
    return -1;
}

/* -t, or as many threads as there are cores to be had that were asked for. */
static void goes_on_where_it_is_refused(void **state)
{
    static const struct device device = {
        .clusters = {{2, 325, 1804, 0}, {2, 1024, 2841, 0}, {0, 0, 0, 0}}};
    struct values values = {.quiet = true};
    mvlm_error error;
    const int *asked;
    const char *why;
    int granted[MOST_CORES];
    char sys[600];
    (void)state;
    snprintf(sys, sizeof sys, "%s/sys", test_folder);
    assert_int_equal(mkdir(sys, 0755), 0);
    char *const root = test_folder;
    test_folder = sys;
    make_tree(&device);
    test_folder = root;
    assert_int_equal(setenv("MOBILEVLM_ROOT", root, 1), 0);
    assert_int_equal(take_cores(&values, 0, &error), MVLM_OK);
    assert_int_equal(granted_cores(granted), 4);
    size_t n = asked_cores(&asked, &why);
    expect_cores("asked", asked, n, "2-3");
    assert_string_equal(why, "big, by cpu_capacity");
    assert_int_equal(threads_wanted(&values), 2);
    values.threads = 3;
    assert_int_equal(take_cores(&values, 3, &error), MVLM_OK);
    n = asked_cores(&asked, &why);
    expect_cores("asked", asked, n, "0-3");
    assert_int_equal(threads_wanted(&values), 3);
    values.threads = 0;
    values.cores = "all";
    assert_int_equal(take_cores(&values, 0, &error), MVLM_OK);
    assert_int_equal(threads_wanted(&values), 0); /* none was withheld: as many as suit */
    unsetenv("MOBILEVLM_ROOT");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(finds_big_cores),
        cmocka_unit_test_setup_teardown(reads_nothing_from_strange_files, open_test_folder,
                                        close_test_folder),
        cmocka_unit_test_setup_teardown(takes_what_is_asked_for, open_test_folder,
                                        close_test_folder),
        cmocka_unit_test_setup_teardown(more_threads_than_big_cores_take_all, open_test_folder,
                                        close_test_folder),
        cmocka_unit_test_setup_teardown(goes_on_where_it_is_refused, open_test_folder,
                                        close_test_folder),
    };
    return cmocka_run_group_tests_name("core_choice", tests, NULL, NULL);
}
