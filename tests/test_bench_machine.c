/* What bench reads of a machine, on trees like /sys and /proc of devices that people have. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../src/cli/bench_machine.h"
#include "../src/cli/process.h"
#include "program.h"

#define TREE(...) make_files(test_folder, (const char *const[]){__VA_ARGS__, NULL})
#define HWMON     "/sys/class/hwmon/hwmon"
#define OLD       "/sys/bus/i2c/drivers/ina3221x/1-0040/iio:device0/"
#define BATTERY   "/sys/class/power_supply/battery/"
#define RAPL      "/sys/class/powercap/intel-rapl:0/"
#define RAPL_1    "/sys/class/powercap/intel-rapl:1/"

/* Joules of ten seconds. */
static double ten_seconds(void)
{
    struct meter meter = {.joules = 0};
    meter_start(&meter, test_folder);
    assert_int_equal(meter_works(test_folder), meter.watched || meter.n_packages > 0);
    if (meter.watched) { /* no look in between */
        sem_post(&meter.stopping);
        pthread_join(meter.watcher, NULL);
    }
    meter.watched = false;
    meter.seconds -= 10;
    meter_stop(&meter);
    return meter.joules;
}

static void expect_watts(double watts)
{
    const double joules = ten_seconds();
    if (!(fabs(joules - 10 * watts) < 0.5 * watts)) /* the test itself takes time */
        fail_msg("%g joules in ten seconds, expected %g", joules, 10 * watts);
}

/* ---- Energy ----------------------------------------------------------------------------- */

static void a_machine_without_sensors(void **state)
{
    struct machine machine;
    (void)state;
    machine_describe(&machine, test_folder);
    const struct sensors sensors = sensors_read(&machine);
    assert_string_equal(machine.cpu, "");
    assert_string_equal(machine.governor, "");
    assert_true(isnan(sensors.mhz) && isnan(sensors.celsius) && isnan(ten_seconds()));
}

static void orin_nano_has_an_inlet(void **state)
{
    (void)state;
    TREE(HWMON "0/name", "tmp451", HWMON "0/power1_input", "99000000", HWMON "1/name", "ina3221",
         HWMON "1/in1_label", "VDD_IN", HWMON "1/in1_input", "5000", HWMON "1/curr1_input", "2000",
         HWMON "1/in2_label", "VDD_CPU_GPU_CV", HWMON "1/in2_input", "5000", HWMON "1/curr2_input",
         "1000");
    expect_watts(10);
}

/* The inlet's chip is not the first, and the rails of others are behind it. */
static void an_inlet_counts_all_chips(void **state)
{
    (void)state;
    TREE(HWMON "0/name", "ina3221", HWMON "0/in1_label", "VDD_SYS_GPU", HWMON "0/in1_input", "5000",
         HWMON "0/curr1_input", "600", HWMON "1/name", "ina3221", HWMON "1/in1_label", "VDD_IN",
         HWMON "1/in1_input", "5000", HWMON "1/curr1_input", "2000");
    expect_watts(10);
}

static void agx_orin_has_rails(void **state)
{
    (void)state;
    TREE(HWMON "1/name", "ina3221", HWMON "1/in1_label", "VDD_GPU_SOC", HWMON "1/in1_input",
         "20000", HWMON "1/curr1_input", "400", HWMON "1/in2_label", "VDD_CPU_CV",
         HWMON "1/in2_input", "20000", HWMON "1/curr2_input", "600", HWMON "2/name", "ina3221",
         HWMON "2/in2_input", "5000", HWMON "2/curr2_input", "1000");
    expect_watts(8 + 12 + 5);
}

static void old_jetsons_count_milliwatts(void **state)
{
    (void)state;
    TREE(OLD "name", "ina3221x", OLD "rail_name_0", "POM_5V_IN", OLD "in_power0_input", "7000",
         OLD "rail_name_1", "POM_5V_CPU", OLD "in_power1_input", "3000");
    expect_watts(7);
}

static void a_board_with_an_ina219(void **state)
{
    (void)state;
    TREE(HWMON "3/name", "ina219", HWMON "3/power1_input", "4500000");
    expect_watts(4.5);
}

static void batteries_that_give(void **state)
{
    (void)state;
    TREE("/sys/class/power_supply/usb/type", "USB", "/sys/class/power_supply/usb/current_now",
         "500000", BATTERY "type", "Battery", BATTERY "status", "Discharging",
         BATTERY "current_now", "-1500000", BATTERY "voltage_now", "4000000");
    expect_watts(6);
    TREE(BATTERY "status", "Charging");
    assert_true(isnan(ten_seconds()));
}

static void packages_count(void **state)
{
    struct meter meter = {.joules = 1};
    (void)state;
    TREE(RAPL "name", "package-0", RAPL "energy_uj", "3000000", RAPL "max_energy_range_uj",
         "10000000", "/sys/class/powercap/intel-rapl:0:0/name", "core",
         "/sys/class/powercap/intel-rapl:0:0/energy_uj", "99");
    meter_start(&meter, test_folder);
    TREE(RAPL "energy_uj", "8000000");
    meter_stop(&meter);
    assert_true(fabs(meter.joules - 6) < 1e-9);
    meter_start(&meter, test_folder);
    assert_int_equal(meter.n_packages, 1);
    TREE(RAPL "energy_uj", "1000000"); /* it began anew: 2 J to the end of its range, 1 J since */
    meter_stop(&meter);
    assert_true(fabs(meter.joules - 9) < 1e-9);
    TREE(RAPL_1 "name", "package-1", RAPL_1 "energy_uj", "5000000", RAPL_1 "max_energy_range_uj",
         "90000000");
    meter_start(&meter, test_folder);
    TREE(RAPL "energy_uj", "0", RAPL_1 "energy_uj", "7000000"); /* one of two: 9 J and 2 J */
    meter_stop(&meter);
    assert_true(fabs(meter.joules - 20) < 1e-9);
}

/* ---- The machine ------------------------------------------------------------------------ */

static void names_itself(void **state)
{
    struct machine machine;
    (void)state;
    TREE("/proc/cpuinfo", "processor : 0\nBogoMIPS : 38.40", "/proc/device-tree/model",
         "NVIDIA Jetson Orin Nano");
    machine_describe(&machine, test_folder);
    assert_string_equal(machine.cpu, "NVIDIA Jetson Orin Nano");
    TREE("/proc/cpuinfo", "processor : 0\nmodel name : Some CPU @ 3 GHz");
    machine_describe(&machine, test_folder);
    assert_string_equal(machine.cpu, "Some CPU @ 3 GHz");
}

static void reads_speed_and_heat(void **state)
{
    char governor[96], speed[96];
    struct machine machine;
    (void)state;
    machine_describe(&machine, "");
    snprintf(governor, sizeof governor, "/sys/devices/system/cpu/cpu%d/cpufreq/scaling_governor",
             machine.cores[0]);
    snprintf(speed, sizeof speed, "/sys/devices/system/cpu/cpu%d/cpufreq/scaling_cur_freq",
             machine.cores[0]);
#define ZONE "/sys/class/thermal/thermal_zone"
    TREE(governor, "schedutil", speed, "2419200", ZONE "0/type", "battery", ZONE "0/temp", "61000",
         ZONE "1/type", "cpu-1-3-usr", ZONE "1/temp", "48500", ZONE "2/type", "CPU-therm",
         ZONE "2/temp", "47000", ZONE "3/type", "cpuss-off", ZONE "3/temp", "-273000");
    machine_describe(&machine, test_folder);
    assert_string_equal(machine.governor, "schedutil");
    const struct sensors sensors = sensors_read(&machine);
    assert_true(fabs(sensors.mhz - 2419.2) < 1e-6);
    assert_true(fabs(sensors.celsius - 48.5) < 1e-6);
    TREE(ZONE "1/temp", "521", ZONE "2/temp", "51"); /* tenths, and degrees */
    assert_true(fabs(sensors_read(&machine).celsius - 52.1) < 1e-6);
    TREE(ZONE "4/type", "soc", ZONE "4/temp", "97"); /* a Snapdragon's battery: 97 % */
    assert_true(fabs(temperature(machine.root) - 52.1) < 1e-6);
    volatile sig_atomic_t stopped = 0;
    assert_true(cool_down(machine.root, 60, INFINITY, &stopped) < 0.2);
    const double paused = cool_down(machine.root, 40, monotonic_seconds() + 0.3, &stopped);
    assert_true(paused >= 0.3 && paused < 30);
    stopped = SIGINT;
    assert_true(cool_down(machine.root, 40, INFINITY, &stopped) < 0.2);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, open_test_folder, close_test_folder)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_machine_without_sensors),
        TEST(orin_nano_has_an_inlet),
        TEST(an_inlet_counts_all_chips),
        TEST(agx_orin_has_rails),
        TEST(old_jetsons_count_milliwatts),
        TEST(a_board_with_an_ina219),
        TEST(batteries_that_give),
        TEST(packages_count),
        TEST(names_itself),
        TEST(reads_speed_and_heat),
    };
    return cmocka_run_group_tests_name("bench_machine", tests, NULL, NULL);
}
