/* What energy a machine takes, where it says so. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "bench_machine.h"
#include "system_files.h"
#include "process.h"

/* The sum of the values of all folders that have one; NAN where none has. */
struct sum {
    double (*value)(const char *folder);
    double sum;
};

static void add_folder(void *user, const char *folder)
{
    struct sum *sum = user;
    const double one = sum->value(folder);
    if (!isnan(one))
        sum->sum = (isnan(sum->sum) ? 0 : sum->sum) + one;
}

static double sum_of(const char *root, const char *folders, double (*value)(const char *folder))
{
    struct sum sum = {value, NAN};
    each_path(root, folders, add_folder, &sum);
    return sum.sum;
}

/* ---- RAPL ------------------------------------------------------------------------------- */

struct packages {
    double *joules, *ranges; /* [MOST_PACKAGES] */
    size_t n;
};

static void read_package(void *user, const char *folder)
{
    struct packages *p = user;
    char name[64];
    read_line(name, sizeof name, "%s/name", folder);
    if (p->n == MOST_PACKAGES || strncmp(name, "package", 7) != 0)
        return;
    p->joules[p->n] =
        1e-6 * read_value("%s/energy_uj", folder); /* root's to read on most systems */
    p->ranges[p->n] = 1e-6 * read_value("%s/max_energy_range_uj", folder);
    if (!isnan(p->joules[p->n]))
        p->n++;
}

/* What the packages have counted, each in its place; returns how many there are. Their cores are counted in them. */
static size_t read_packages(const char *root, double joules[MOST_PACKAGES],
                            double ranges[MOST_PACKAGES])
{
    struct packages packages = {joules, ranges, 0};
    each_path(root, "/sys/class/powercap/intel-rapl:*", read_package, &packages);
    return packages.n;
}

/* ---- A board's sensors ------------------------------------------------------------------ */

/* Watts of a channel: of the older driver in milliwatts, of hwmon in microwatts, or volts times amperes. */
static double channel_watts(const char *folder, int channel)
{
    const double old = read_value("%s/in_power%d_input", folder, channel - 1), /* mW, from 0 on */
        power = read_value("%s/power%d_input", folder, channel),               /* uW */
        volts = 1e-3 * read_value("%s/in%d_input", folder, channel),           /* mV */
        amperes = 1e-3 * read_value("%s/curr%d_input", folder, channel);       /* mA */
    return !isnan(old) ? 1e-3 * old : !isnan(power) ? 1e-6 * power : volts * amperes;
}

static void channel_name(const char *folder, int channel, char *name, size_t capacity)
{
    read_line(name, capacity, "%s/in%d_label", folder, channel);
    if (!*name)
        read_line(name, capacity, "%s/rail_name_%d", folder, channel - 1);
}

/* The channel through which a board is fed counts all others. */
static bool is_inlet(const char *name)
{
    static const char *const inlets[] = {"VDD_IN", "POM_5V_IN", "5V_IN"};
    for (size_t i = 0; i < sizeof inlets / sizeof *inlets; i++)
        if (strcmp(name, inlets[i]) == 0)
            return true;
    return false;
}

/* Of a chip's three channels: the inlets, or all. */
static double chip_watts(const char *folder, bool inlets)
{
    char name[64];
    double sum = NAN;
    read_line(name, sizeof name, "%s/name", folder);
    if (strncmp(name, "ina", 3) != 0)
        return NAN;
    for (int channel = 1; channel <= 3; channel++) {
        const double watts = channel_watts(folder, channel);
        channel_name(folder, channel, name, sizeof name);
        if (!isnan(watts) && (!inlets || is_inlet(name)))
            sum = (isnan(sum) ? 0 : sum) + watts;
    }
    return sum;
}

static double inlet_watts(const char *folder)
{
    return chip_watts(folder, true);
}

static double rail_watts(const char *folder)
{
    return chip_watts(folder, false);
}

/* ---- A battery -------------------------------------------------------------------------- */

/* What it gives; what it takes while it is charged is no measure of our work. */
static double battery_watts(const char *folder)
{
    char type[32], status[32];
    read_line(type, sizeof type, "%s/type", folder);
    read_line(status, sizeof status, "%s/status", folder);
    if (strcmp(type, "Battery") != 0 || strcmp(status, "Discharging") != 0)
        return NAN;
    const double amperes = 1e-6 *
                           read_value("%s/current_now", folder), /* uA; makers differ in the sign */
        volts = 1e-6 * read_value("%s/voltage_now", folder);
    return fabs(amperes) * volts;
}

/* ---- The meter -------------------------------------------------------------------------- */

static double watts_now(const char *root)
{
    static const char hwmon[] = "/sys/class/hwmon/hwmon*",
                      iio[] = "/sys/bus/i2c/drivers/ina3221x/*/iio:device*";
    static const struct {
        const char *folders;
        double (*value)(const char *folder);
    } sources[] = {{hwmon, inlet_watts},
                   {iio, inlet_watts},
                   {hwmon, rail_watts},
                   {iio, rail_watts},
                   {"/sys/class/power_supply/*", battery_watts}};
    double watts = NAN;
    for (size_t i = 0; i < sizeof sources / sizeof *sources && isnan(watts); i++)
        watts = sum_of(root, sources[i].folders, sources[i].value);
    return watts;
}

/* Adds the energy since the last look. */
static void look(struct meter *meter)
{
    const double watts = watts_now(meter->root), seconds = monotonic_seconds();
    meter->joules += (meter->watts + watts) / 2 * (seconds - meter->seconds);
    meter->watts = watts;
    meter->seconds = seconds;
}

static void *watch(void *user)
{
    struct meter *meter = user;
    struct timespec next;
    clock_gettime(CLOCK_REALTIME, &next); /* sem_timedwait's */
    do {
        next.tv_nsec += 100000000;
        next.tv_sec += next.tv_nsec / 1000000000;
        next.tv_nsec %= 1000000000;
        look(meter);
    } while (sem_timedwait(&meter->stopping, &next) != 0);
    return NULL;
}

bool meter_works(const char *root)
{
    double packages[MOST_PACKAGES], ranges[MOST_PACKAGES];
    return read_packages(root, packages, ranges) > 0 || !isnan(watts_now(root));
}

void meter_start(struct meter *meter, const char *root)
{
    double ranges[MOST_PACKAGES];
    meter->root = root;
    meter->n_packages = read_packages(root, meter->packages, ranges);
    meter->watts = meter->n_packages ? NAN : watts_now(root);
    meter->seconds = monotonic_seconds();
    meter->watched = !isnan(meter->watts) && sem_init(&meter->stopping, 0, 0) == 0 &&
                     pthread_create(&meter->watcher, NULL, watch, meter) == 0;
}

void meter_stop(struct meter *meter)
{
    double now[MOST_PACKAGES], ranges[MOST_PACKAGES];
    if (meter->watched) {
        sem_post(&meter->stopping);
        pthread_join(meter->watcher, NULL);
        sem_destroy(&meter->stopping);
    }
    if (meter->n_packages == 0) {
        look(meter);
        return;
    }
    const bool same = read_packages(meter->root, now, ranges) == meter->n_packages;
    for (size_t i = 0; i < meter->n_packages; i++) {
        const double joules = now[i] - meter->packages[i];
        meter->joules +=
            same ? joules + (joules < 0 ? ranges[i] : 0) : NAN; /* a counter that began anew */
    }
}
