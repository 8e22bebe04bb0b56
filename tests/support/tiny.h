/* A tiny random model, written straight as model.bin, and means to damage it. */
#ifndef SUPPORT_TINY_H
#define SUPPORT_TINY_H

#include "description.h"
#include "format.h"

/* A description of about 100 KB of weights: 28 x 28 pictures, LDPv2, two decoder layers, 262
 * pieces. Change what the test is about before tiny_write. */
void tiny_describe(struct description *description);

/* Writes the model with weights from `seed`; matrices of `type`. Fails the test when it cannot. */
void tiny_write(const char *path, const struct description *description, enum tensor_type type,
                unsigned seed);

/* Recomputes the digest of what stands before the data, after a test has changed it: `bytes` is the
 * whole file. */
void tiny_reseal(uint8_t *bytes);

#endif
