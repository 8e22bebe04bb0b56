#include "json_memory.h"

#include <setjmp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* jansson 2.14 goes on when its reader or writer gets no memory: it leaves parts out, and even writes beyond its buffers.
 * So within a guard a failed allocation never returns to it: all that it has allocated since is freed, and the guard is
 * left by longjmp. For that each of its blocks begins with a place in a list. */
union block {
    struct {
        union block *previous, *next; /* NULL: in no list */
    };
    max_align_t align;
};

static _Thread_local struct {
    bool on;
    jmp_buf left;
    union block first; /* of the ring of blocks allocated within the guard */
} guard;

static void unlink_block(union block *block)
{
    if (!block->next)
        return;
    block->previous->next = block->next;
    block->next->previous = block->previous;
    block->previous = block->next = NULL;
}

static void *allocate(size_t n)
{
    union block *block = n <= SIZE_MAX - sizeof *block ? malloc(sizeof *block + n) : NULL;
    if (!block && guard.on)
        longjmp(guard.left, 1);
    if (!block)
        return NULL;
    block->previous = block->next = NULL;
    if (guard.on) {
        block->previous = &guard.first;
        block->next = guard.first.next;
        block->next->previous = guard.first.next = block;
    }
    return block + 1;
}

static void release(void *bytes)
{
    if (!bytes)
        return;
    union block *block = (union block *)bytes - 1;
    unlink_block(block);
    free(block);
}

/* Before anything of jansson's is called. */
__attribute__((constructor)) static void install(void)
{
    json_set_alloc_funcs(allocate, release);
}

static void guard_begin(void)
{
    guard.first.previous = guard.first.next = &guard.first;
    guard.on = true;
}

/* Keeps what was allocated, or frees it. */
static void guard_end(bool keep)
{
    guard.on = false;
    while (guard.first.next != &guard.first) {
        union block *block = guard.first.next;
        unlink_block(block); /* NOLINT(clang-analyzer-unix.Malloc): each is in the ring once */
        if (!keep)
            free(block);
    }
}

json_t *json_read(const char *bytes, size_t n, size_t flags, json_error_t *where, bool *no_memory)
{
    *no_memory = true;
    guard_begin();
    if (setjmp(guard.left)) {
        guard_end(false);
        return NULL;
    }
    json_t *value = json_loadb(bytes, n, flags, where);
    guard_end(true);
    *no_memory = false;
    return value;
}

char *json_written(const json_t *value, size_t flags)
{
    if (!value)
        return NULL;
    guard_begin();
    if (setjmp(guard.left)) {
        guard_end(false);
        return NULL;
    }
    char *text = json_dumps(value, flags);
    guard_end(true);
    char *copy = text ? strdup(text) : NULL; /* for free() */
    release(text);
    return copy;
}

/* NULL: no memory, or no UTF-8. */
static json_t *string_of(const char *text, size_t n, bool *no_memory)
{
    *no_memory = true;
    guard_begin();
    if (setjmp(guard.left)) {
        guard_end(false);
        return NULL;
    }
    json_t *value = json_stringn(text, n);
    guard_end(true);
    *no_memory = false;
    return value;
}

bool json_can_hold(const char *text, size_t n, bool *no_memory)
{
    json_t *value = string_of(text, n, no_memory);
    json_decref(value);
    return value != NULL;
}

json_t *json_text(const char *text)
{
    bool no_memory;
    json_t *value = string_of(text, strlen(text), &no_memory);
    char *copy = value || no_memory ? NULL : strdup(text);
    if (!copy)
        return value;
    for (char *at = copy; *at; at++)
        if ((unsigned char)*at >= 0x80)
            *at = '?';
    value = json_string(copy);
    free(copy);
    return value;
}

/* Was it taken? */
static void keep(json_t **whole, int failed)
{
    if (!failed)
        return;
    json_decref(*whole);
    *whole = NULL;
}

void json_put(json_t **object, const char *key, json_t *value)
{
    keep(object, json_object_set_new(*object, key, value));
}

void json_push(json_t **array, json_t *value)
{
    keep(array, json_array_append_new(*array, value));
}
