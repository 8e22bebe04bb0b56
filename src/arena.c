#include "arena.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "status.h"

enum { ALIGN = 64 };

void *arena_take(struct arena *arena, size_t n, size_t size)
{
    size_t bytes, end;
    if (__builtin_mul_overflow(n, size, &bytes) ||
        __builtin_add_overflow(bytes, (size_t)ALIGN - 1, &bytes) ||
        __builtin_add_overflow(arena->used, bytes / ALIGN * ALIGN, &end))
        end = SIZE_MAX / ALIGN * ALIGN; /* a plan that no machine has: arena_open will refuse it */
    void *piece = arena->block ? arena->block + arena->used : NULL;
    arena->used = end;
    if (end > arena->most)
        arena->most = end;
    return piece;
}

void arena_rewind(struct arena *arena, size_t mark)
{
    arena->used = mark;
}

mvlm_status arena_open(struct arena *arena, size_t n_bytes, mvlm_error *error)
{
    memset(arena, 0, sizeof *arena);
    const size_t rounded =
        n_bytes > SIZE_MAX - ALIGN ? n_bytes : (n_bytes + ALIGN - 1) / ALIGN * ALIGN;
    arena->block = aligned_alloc(ALIGN, rounded ? rounded : ALIGN);
    arena->n_bytes = arena->block ? n_bytes : 0;
    return arena->block ? MVLM_OK : fail_no_memory(error, "the session", n_bytes);
}

void arena_close(struct arena *arena)
{
    free(arena->block);
    memset(arena, 0, sizeof *arena);
}
