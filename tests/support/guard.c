#include "guard.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum {
    POISON = 0xa5,
    MARGIN = 4096, /* poisoned bytes beside the data: the furthest stray write that is found */
};

static size_t page_bytes(void)
{
    return (size_t)sysconf(_SC_PAGESIZE);
}

void guard_open(struct guard *guard, size_t n_bytes)
{
    const size_t page = page_bytes();
    guard->room = (n_bytes + MARGIN + page - 1) / page * page;
    void *map = mmap(NULL, guard->room + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED)
        fail_msg("no memory for %zu guarded bytes", n_bytes);
    guard->map = map;
    assert_int_equal(mprotect(guard->map + page, guard->room, PROT_READ | PROT_WRITE), 0);
}

void guard_close(struct guard *guard)
{
    munmap(guard->map, guard->room + 2 * page_bytes());
    memset(guard, 0, sizeof *guard);
}

static unsigned char *margin_of(const struct guard *guard)
{
    return guard->side == GUARD_FRONT ? guard->data + guard->n_bytes : guard->data - MARGIN;
}

void *guard_place(struct guard *guard, enum guard_side side, size_t n_bytes)
{
    assert_true(n_bytes + MARGIN <= guard->room);
    unsigned char *front = guard->map + page_bytes();
    guard->side = side;
    guard->n_bytes = n_bytes;
    guard->data = side == GUARD_FRONT ? front : front + guard->room - n_bytes;
    memset(guard->data, POISON, n_bytes);
    memset(margin_of(guard), POISON, MARGIN);
    return guard->data;
}

bool guard_intact(const struct guard *guard)
{
    const unsigned char *margin = margin_of(guard);
    for (size_t i = 0; i < MARGIN; i++)
        if (margin[i] != POISON)
            return false;
    return true;
}
