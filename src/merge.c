#include "merge.h"

#include <stdlib.h>

#include "status.h"

mvlm_status merger_reserve(struct merger *merger, size_t n, mvlm_error *error)
{
    if (n <= merger->capacity)
        return MVLM_OK;
    const size_t capacity = n < 64 ? 64 : n + n / 2;
    merger_close(merger);
    merger->symbols = malloc(capacity * sizeof *merger->symbols);
    merger->heap = malloc(3 * capacity * sizeof *merger->heap);
    if (!merger->symbols || !merger->heap)
        return fail_no_memory(error, "a text's symbols", 3 * capacity * sizeof *merger->heap);
    merger->capacity = capacity;
    return MVLM_OK;
}

void merger_close(struct merger *merger)
{
    free(merger->symbols);
    free(merger->heap);
    merger->symbols = NULL;
    merger->heap = NULL;
    merger->capacity = 0;
}

static bool better(const struct pair *a, const struct pair *b)
{
    return a->match.score > b->match.score ||
           (a->match.score == b->match.score && a->left < b->left);
}

static void heap_push(struct merger *m, struct pair pair)
{
    size_t i = m->n_heap++;
    for (; i > 0 && better(&pair, &m->heap[(i - 1) / 2]); i = (i - 1) / 2)
        m->heap[i] = m->heap[(i - 1) / 2];
    m->heap[i] = pair;
}

static struct pair heap_pop(struct merger *m)
{
    const struct pair top = m->heap[0], last = m->heap[--m->n_heap];
    size_t i = 0;
    for (size_t child; (child = 2 * i + 1) < m->n_heap; i = child) {
        if (child + 1 < m->n_heap && better(&m->heap[child + 1], &m->heap[child]))
            child++;
        if (!better(&m->heap[child], &last))
            break;
        m->heap[i] = m->heap[child];
    }
    m->heap[i] = last;
    return top;
}

static void offer_pair(struct merger *m, int32_t left, int32_t right)
{
    struct pair pair = {.left = left, .right = right};
    if (left < 0 || right < 0)
        return;
    const struct symbol *l = &m->symbols[left], *r = &m->symbols[right];
    pair.n_bytes = l->n_bytes + r->n_bytes;
    if (!l->frozen && !r->frozen && m->match(m->user, l, r, &pair.match))
        heap_push(m, pair);
}

void merge(struct merger *m, size_t n)
{
    m->n_heap = 0;
    for (size_t i = 0; i < n; i++) {
        m->symbols[i].previous = (int32_t)i - 1;
        m->symbols[i].next = i + 1 < n ? (int32_t)i + 1 : -1;
    }
    for (size_t i = 1; i < n; i++)
        offer_pair(m, (int32_t)i - 1, (int32_t)i);
    while (m->n_heap) {
        const struct pair pair = heap_pop(m);
        struct symbol *left = &m->symbols[pair.left], *right = &m->symbols[pair.right];
        if (left->n_bytes == 0 || right->n_bytes == 0 ||
            left->n_bytes + right->n_bytes != pair.n_bytes)
            continue; /* one of them has been merged since */
        left->n_bytes = pair.n_bytes;
        left->id = pair.match.id;
        left->next = right->next;
        if (right->next >= 0)
            m->symbols[right->next].previous = pair.left;
        right->n_bytes = 0;
        offer_pair(m, left->previous, pair.left);
        offer_pair(m, pair.left, left->next);
    }
}
