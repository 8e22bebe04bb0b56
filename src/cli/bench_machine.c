/* What the machine tells of itself, from /proc and /sys. Nothing here is an error: what is not there
 * is not known. */
#include <math.h>
#include <string.h>
#include <time.h>

#include "bench_machine.h"
#include "cli.h"
#include "process.h"
#include "system_files.h"

/* ---- The machine and its sensors -------------------------------------------------------- */

void machine_describe(struct machine *machine, const char *root)
{
    *machine = (struct machine){.root = root};
    char path[256];
    snprintf(path, sizeof path, "%s/proc/cpuinfo", root);
    if (!read_key(path, "model name", machine->cpu, sizeof machine->cpu))
        read_line(machine->cpu, sizeof machine->cpu, "%s/proc/device-tree/model", root);
    machine->n_cores = granted_cores(machine->cores);
    if (machine->n_cores)
        read_line(machine->governor, sizeof machine->governor,
                  "%s/sys/devices/system/cpu/cpu%d/cpufreq/scaling_governor", root,
                  machine->cores[0]);
}

static double fastest_core(const struct machine *machine)
{
    double most = NAN;
    for (size_t i = 0; i < machine->n_cores; i++) {
        const double kilohertz =
            read_value("%s/sys/devices/system/cpu/cpu%d/cpufreq/scaling_cur_freq", machine->root,
                       machine->cores[i]);
        most = fmax(most, kilohertz / 1e3); /* fmax passes over NAN */
    }
    return most;
}

/* Degrees; kernels say thousandths, old ones of phones tenths or degrees. A sensor that is switched off says nonsense. */
static double celsius_of(double value)
{
    const double celsius = value > 1500 ? value / 1e3 : value > 150 ? value / 10 : value;
    return celsius > 0 && celsius <= 150 ? celsius : NAN;
}

struct hottest {
    double any, processor; /* degrees; NAN: none is known */
};

static void look_at_zone(void *user, const char *zone)
{
    static const char *const names[] = {"cpu", "CPU", "pkg", "soc", "core"};
    struct hottest *hottest = user;
    char type[64];
    read_line(type, sizeof type, "%s/type", zone);
    if (strcmp(type, "soc") == 0)
        return;
    const double celsius = celsius_of(read_value("%s/temp", zone));
    hottest->any = fmax(hottest->any, celsius);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strstr(type, names[i]))
            hottest->processor = fmax(hottest->processor, celsius);
}

/* Zones named for the processor, where there are any; boards name others for batteries and skin. The zone "soc" of
 * Snapdragons is a battery's state of charge. */
double temperature(const char *root)
{
    struct hottest hottest = {NAN, NAN};
    each_path(root, "/sys/class/thermal/thermal_zone*", look_at_zone, &hottest);
    return isnan(hottest.processor) ? hottest.any : hottest.processor;
}

struct sensors sensors_read(const struct machine *machine)
{
    return (struct sensors){.mhz = fastest_core(machine), .celsius = temperature(machine->root)};
}

double cool_down(const char *root, double most, double until, const volatile sig_atomic_t *stopped)
{
    const double start = monotonic_seconds();
    while (!*stopped && monotonic_seconds() < until && temperature(root) > most)
        nanosleep(&(struct timespec){.tv_nsec = 200000000}, NULL);
    return monotonic_seconds() - start;
}
