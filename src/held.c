#include "held.h"

static size_t rows_of(const struct held *held, const struct held_id *id)
{
    return id->id == MVLM_IMAGE_ID ? held->image_tokens : 1;
}

void held_layout(struct held *held, struct arena *arena, size_t n_positions)
{
    held->ids = arena_take(arena, n_positions, sizeof *held->ids);
}

void held_add(struct held *held, struct held_id id)
{
    held->ids[held->n++] = id;
    held->n_rows += rows_of(held, &id);
}

void held_cut(struct held *held, size_t n)
{
    while (held->n > n)
        held->n_rows -= rows_of(held, &held->ids[--held->n]);
}

bool held_same(const struct held_id *a, const struct held_id *b)
{
    return a->id == b->id && XXH128_isEqual(a->picture, b->picture);
}
