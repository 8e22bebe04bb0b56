/* Random numbers that a failed run can be repeated with. */
#ifndef SUPPORT_SEED_H
#define SUPPORT_SEED_H

#include <stdint.h>

/* Takes the seed from the environment's TEST_SEED, else from the clock, and prints it. */
void seed_choose(void);

/* Starts the sequence over: call it before each test, so that a test alone draws what it draws
 * among all. It has a cmocka setup function's form. */
int seed_restart(void **state);

unsigned long long seed_value(void);

uint64_t random_bits(void);

/* Uniform in [-most, most). */
float random_float(float most);
void random_floats(float *x, uint64_t n, float most);

#endif
