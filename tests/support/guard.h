/* Memory for kernels under test, between two pages that nobody may touch:
 *
 *     [ no access ][ data, poison ...          ][ no access ]   GUARD_FRONT
 *     [ no access ][          ... poison, data ][ no access ]   GUARD_BACK
 *
 * A read or write beyond the data's flush edge faults; a write beyond the other edge spoils the
 * poison. */
#ifndef SUPPORT_GUARD_H
#define SUPPORT_GUARD_H

#include <stdbool.h>
#include <stddef.h>

enum guard_side { GUARD_FRONT, GUARD_BACK };

struct guard {
    unsigned char *map; /* the front guard page */
    size_t room;        /* bytes between the guards, whole pages */
    unsigned char *data;
    size_t n_bytes; /* of the data placed last */
    enum guard_side side;
};

/* Room for at least n_bytes of data. Fails the test when there is no memory. */
void guard_open(struct guard *guard, size_t n_bytes);
void guard_close(struct guard *guard);

/* A place for n_bytes (0 too) flush against `side`, filled with poison like the margin beside it.
 */
void *guard_place(struct guard *guard, enum guard_side side, size_t n_bytes);

/* Is the margin as guard_place left it? */
bool guard_intact(const struct guard *guard);

#endif
