#include "seed.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <stdlib.h>
#include <time.h>

static uint64_t seed, state;

void seed_choose(void)
{
    const char *given = getenv("TEST_SEED");
    seed = given ? strtoull(given, NULL, 0) : (uint64_t)time(NULL);
    state = seed;
    print_message("TEST_SEED=%llu\n", seed_value());
}

int seed_restart(void **unused)
{
    (void)unused;
    state = seed;
    return 0;
}

unsigned long long seed_value(void)
{
    return (unsigned long long)seed;
}

/* splitmix64 (Steele, Lea and Flood, 2014) */
uint64_t random_bits(void)
{
    uint64_t z = state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

float random_float(float most)
{
    return (float)((double)random_bits() * 0x1p-63 - 1) * most;
}

void random_floats(float *x, uint64_t n, float most)
{
    for (uint64_t i = 0; i < n; i++)
        x[i] = random_float(most);
}
