/* What the machine tells of itself, from /proc and /sys. Nothing here is an error: what is not there
 * is not known. */
#include <glob.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bench.h"
#include "record.h"

/* ---- Files ------------------------------------------------------------------------------ */

/* The file's first line without its newline; "" when there is none. */
static void read_line(const char *path, char *line, size_t capacity)
{
    FILE *file = fopen(path, "re");
    line[0] = 0;
    if (file && fgets(line, (int)capacity, file))
        line[strcspn(line, "\n")] = 0;
    if (file)
        fclose(file);
}

static double read_value(const char *path)
{
    char line[64], *end;
    read_line(path, line, sizeof line);
    const double value = strtod(line, &end);
    return end == line ? NAN : value;
}

/* The line behind "key : " in a file such as /proc/cpuinfo. */
static bool read_key(const char *path, const char *key, char *value, size_t capacity)
{
    char line[256];
    FILE *file = fopen(path, "re");
    bool found = false;
    while (file && !found && fgets(line, sizeof line, file))
        if (strncmp(line, key, strlen(key)) == 0 && strchr(line, ':')) {
            const char *at = strchr(line, ':') + 1;
            at += strspn(at, " \t");
            snprintf(value, capacity, "%.*s", (int)strcspn(at, "\n"), at);
            found = true;
        }
    if (file)
        fclose(file);
    return found;
}

/* ---- The machine and its sensors -------------------------------------------------------- */

void machine_describe(struct machine *machine)
{
    *machine = (struct machine){.n_cores = 0};
    if (!read_key("/proc/cpuinfo", "model name", machine->cpu, sizeof machine->cpu))
        read_line("/proc/device-tree/model", machine->cpu, sizeof machine->cpu);
    machine->n_cores = granted_cores(machine->cores);
    if (machine->n_cores) {
        char path[96];
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/cpufreq/scaling_governor",
                 machine->cores[0]);
        read_line(path, machine->governor, sizeof machine->governor);
    }
}

static double fastest_core(const struct machine *machine)
{
    double most = NAN;
    for (size_t i = 0; i < machine->n_cores; i++) {
        char path[96];
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/cpufreq/scaling_cur_freq",
                 machine->cores[i]);
        most = fmax(most, read_value(path) / 1e3); /* fmax passes over NAN */
    }
    return most;
}

/* Zones named for the processor, where there are any; boards name others for batteries and skin. */
static double hottest_zone(void)
{
    static const char *const names[] = {"cpu", "pkg", "soc", "core"};
    double any = NAN, processor = NAN;
    glob_t zones;
    if (glob("/sys/class/thermal/thermal_zone*", 0, NULL, &zones) != 0)
        return NAN;
    for (size_t i = 0; i < zones.gl_pathc; i++) {
        char path[256], type[64];
        snprintf(path, sizeof path, "%s/temp", zones.gl_pathv[i]);
        const double celsius = read_value(path) / 1e3;
        snprintf(path, sizeof path, "%s/type", zones.gl_pathv[i]);
        read_line(path, type, sizeof type);
        any = fmax(any, celsius);
        for (size_t j = 0; j < sizeof names / sizeof *names; j++)
            if (strstr(type, names[j]))
                processor = fmax(processor, celsius);
    }
    globfree(&zones);
    return isnan(processor) ? any : processor;
}

void sensors_read(const struct machine *machine, struct sensors *sensors)
{
    *sensors = (struct sensors){.mhz = fastest_core(machine), .celsius = hottest_zone()};
}

/* ---- Energy ----------------------------------------------------------------------------- */

/* The sum of the values, in millionths, of `file` in the folders whose file `name` begins with
 * `prefix`; NAN when there is none that can be read. */
static double sum_of(const char *folders, const char *prefix, const char *file)
{
    double sum = NAN;
    glob_t found;
    if (glob(folders, 0, NULL, &found) != 0)
        return NAN;
    for (size_t i = 0; i < found.gl_pathc; i++) {
        char path[256], name[64];
        snprintf(path, sizeof path, "%s/name", found.gl_pathv[i]);
        read_line(path, name, sizeof name);
        snprintf(path, sizeof path, "%s/%s", found.gl_pathv[i], file);
        const double value = strncmp(name, prefix, strlen(prefix)) == 0 ? read_value(path) : NAN;
        if (!isnan(value))
            sum = (isnan(sum) ? 0 : sum) + 1e-6 * value;
    }
    globfree(&found);
    return sum;
}

/* Joules that the processor's packages have counted (RAPL). */
static double package_joules(const char *file)
{
    return sum_of("/sys/class/powercap/intel-rapl:*", "package", file);
}

/* Watts that a board's sensors (INA219 and its kin) show now. */
static double board_watts(void)
{
    return sum_of("/sys/class/hwmon/hwmon*", "ina", "power1_input");
}

void meter_start(struct meter *meter)
{
    meter->counter = package_joules("energy_uj");
    meter->watts = isnan(meter->counter) ? board_watts() : NAN;
    meter->seconds = monotonic_seconds();
}

void meter_stop(struct meter *meter)
{
    double joules;
    if (isnan(meter->counter)) {
        joules = (meter->watts + board_watts()) / 2 * (monotonic_seconds() - meter->seconds);
    } else {
        joules = package_joules("energy_uj") - meter->counter;
        if (joules < 0) /* the counter began anew */
            joules += package_joules("max_energy_range_uj");
    }
    meter->joules += joules;
}

/* ---- Memory ----------------------------------------------------------------------------- */

void peak_memory_reset(void)
{
    FILE *file = fopen("/proc/self/clear_refs", "we");
    if (file) {
        fputs("5", file);
        fclose(file);
    }
}

uint64_t peak_memory(void)
{
    char text[64];
    if (read_key("/proc/self/status", "VmHWM", text, sizeof text))
        return (uint64_t)strtoull(text, NULL, 10) * 1024;
    return peak_rss();
}
