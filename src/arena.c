#include "arena.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "status.h"

enum { ALIGN = 64 };

/* Large blocks begin at a multiple of this and ask for pages of this size: rows of activations lie more than a small page
 * apart, so that nearly every row would miss the processor's table of pages (dear above all in a virtual machine). */
#define HUGE_PAGE ((size_t)2 << 20)

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
    const size_t align = n_bytes < HUGE_PAGE ? (size_t)ALIGN : HUGE_PAGE;
    void *block = NULL;
    if (posix_memalign(&block, align, n_bytes ? n_bytes : ALIGN) != 0)
        return fail_no_memory(error, "the session", n_bytes);
    arena->block = block;
    arena->n_bytes = n_bytes;
    if (align == HUGE_PAGE)
        madvise(block, n_bytes, MADV_HUGEPAGE); /* a wish */
    return MVLM_OK;
}

void arena_close(struct arena *arena)
{
    free(arena->block);
    memset(arena, 0, sizeof *arena);
}
