/* Text -> ids: normalise, split, merge, spell.
 * Source of the steps and their order: SentencePiece, src/normalizer.cc and src/bpe_model.cc. */
#include "bpe.h"

#include <stdlib.h>
#include <string.h>

#include "status.h"
#include "utf8.h"

/* ---- Normalising ------------------------------------------------------------------------ */

struct bytes {
    char *at;
    size_t n;
};

/* The length of what is not to be taken apart at `text`: a user-defined piece, else a character. */
static size_t unit_length(const struct tokenizer *t, const char *text, size_t n_bytes,
                          bool *user_defined)
{
    *user_defined = true;
    for (size_t n = n_bytes < t->longest_user ? n_bytes : t->longest_user; n > 0; n--) {
        const int32_t id = tokenizer_find(t, text, n);
        if (id >= 0 && t->pieces[id].type == PIECE_USER_DEFINED)
            return n;
    }
    *user_defined = false;
    const size_t length = utf8_length(text);
    return length < n_bytes ? length : n_bytes; /* the text is valid: only as a second lock */
}

static void put_byte(struct bytes *out, char byte, bool escape)
{
    if (byte == ' ' && escape) {
        memcpy(out->at + out->n, SPACE_MARK, MARK_BYTES);
        out->n += MARK_BYTES;
    } else
        out->at[out->n++] = byte;
}

static void trim_end(struct bytes *out, bool escape)
{
    const char *space = escape ? SPACE_MARK : " ";
    const size_t length = strlen(space);
    while (out->n >= length && memcmp(out->at + out->n - length, space, length) == 0)
        out->n -= length;
}

/* `out` has room for three times the text and two marks. */
static void normalise(const struct tokenizer *t, const char *text, size_t n_bytes, enum lead lead,
                      struct bytes *out)
{
    const bool escape = t->description->tokenizer.escape_whitespaces;
    const bool remove = t->description->tokenizer.remove_extra_whitespaces;
    const bool as_suffix = t->description->tokenizer.whitespace_as_suffix;
    const bool dummy = lead == LEAD_MODEL && t->description->tokenizer.add_dummy_prefix;
    size_t i = 0;
    if (lead == LEAD_MODEL && remove)
        while (i < n_bytes && text[i] == ' ')
            i++;
    if (i == n_bytes)
        return;
    if (lead == LEAD_MARK || (dummy && !as_suffix))
        put_byte(out, ' ', escape);
    bool after_space = lead == LEAD_MODEL && remove;
    while (i < n_bytes) {
        bool user_defined;
        const char *unit = text + i;
        size_t length = unit_length(t, unit, n_bytes - i, &user_defined);
        i += length;
        /* transformers' non-legacy way turns a typed mark into a space first */
        if (lead != LEAD_MODEL && length == MARK_BYTES &&
            memcmp(unit, SPACE_MARK, MARK_BYTES) == 0) {
            unit = " ";
            length = 1;
        }
        for (; after_space && length && *unit == ' '; length--)
            unit++;
        for (size_t k = 0; k < length; k++)
            put_byte(out, unit[k], escape);
        if (length)
            after_space = remove && unit[length - 1] == ' ';
    }
    if (remove)
        trim_end(out, escape);
    if (dummy && as_suffix)
        put_byte(out, ' ', escape);
}

/* ---- Merging ---------------------------------------------------------------------------- */

/* A run of the normalised text; merged symbols grow to the right, and swallowed ones have no bytes.
 */
struct symbol {
    int32_t previous, next; /* -1: none */
    uint32_t start, n_bytes;
    bool frozen; /* a user-defined piece is never merged */
};

/* Two neighbours whose texts together are a piece. */
struct pair {
    float score;
    int32_t left, right;
    uint32_t n_bytes; /* of both, to recognise a pair that is no longer there */
};

struct merger {
    const struct tokenizer *tokenizer;
    struct bytes text;
    struct symbol *symbols;
    struct pair *heap; /* best first; room for three pairs a symbol: one at the start and two for
                          each merge */
    size_t n_heap;
    int32_t *split; /* [n_pieces]: left bytes of the pair that last made an unused piece; 0: none */
};

static bool better(const struct pair *a, const struct pair *b)
{
    return a->score > b->score || (a->score == b->score && a->left < b->left);
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
    if (left < 0 || right < 0 || m->symbols[left].frozen || m->symbols[right].frozen)
        return;
    const struct symbol *l = &m->symbols[left];
    const uint32_t n_bytes = l->n_bytes + m->symbols[right].n_bytes;
    const int32_t id = tokenizer_find(m->tokenizer, m->text.at + l->start, n_bytes);
    if (id < 0)
        return;
    const struct piece *piece = &m->tokenizer->pieces[id];
    if (piece->type != PIECE_NORMAL && piece->type != PIECE_USER_DEFINED &&
        piece->type != PIECE_UNUSED)
        return;
    heap_push(m, (struct pair){piece->score, left, right, n_bytes});
    if (piece->type == PIECE_UNUSED)
        m->split[id] = (int32_t)l->n_bytes;
}

static size_t split_text(struct merger *m)
{
    size_t n = 0;
    for (size_t i = 0; i < m->text.n; n++) {
        bool user_defined;
        const size_t length =
            unit_length(m->tokenizer, m->text.at + i, m->text.n - i, &user_defined);
        const bool last = i + length == m->text.n;
        m->symbols[n] = (struct symbol){(int32_t)n - 1, last ? -1 : (int32_t)n + 1, (uint32_t)i,
                                        (uint32_t)length, user_defined};
        i += length;
    }
    return n;
}

static void merge_all(struct merger *m, size_t n_symbols)
{
    for (size_t i = 1; i < n_symbols; i++)
        offer_pair(m, (int32_t)i - 1, (int32_t)i);
    while (m->n_heap) {
        const struct pair pair = heap_pop(m);
        struct symbol *left = &m->symbols[pair.left], *right = &m->symbols[pair.right];
        if (left->n_bytes == 0 || right->n_bytes == 0 ||
            left->n_bytes + right->n_bytes != pair.n_bytes)
            continue; /* one of them has been merged since */
        left->n_bytes = pair.n_bytes;
        left->next = right->next;
        if (right->next >= 0)
            m->symbols[right->next].previous = pair.left;
        right->n_bytes = 0;
        offer_pair(m, left->previous, pair.left);
        offer_pair(m, pair.left, left->next);
    }
}

/* ---- Spelling --------------------------------------------------------------------------- */

/* What no piece stands for: its bytes, or one unknown id for a whole run. */
static mvlm_status add_unknown(const struct tokenizer *t, const char *text, size_t n_bytes,
                               bool after_unknown, struct id_list *list, mvlm_error *error)
{
    if (t->description->tokenizer.byte_fallback) {
        for (size_t i = 0; i < n_bytes; i++)
            TRY(id_list_add(list, t->byte_ids[(unsigned char)text[i]], error));
        return MVLM_OK;
    }
    return after_unknown ? MVLM_OK
                         : id_list_add(list, (int32_t)t->description->tokenizer.unk_id, error);
}

/* One merged symbol -> ids. An unused piece is taken apart again into the pair that it was made of;
 * the parts still to come wait in `later`, which has room for as many as the text has bytes. */
static mvlm_status add_symbol(const struct merger *m, const struct symbol *symbol,
                              struct symbol *later, bool *after_unknown, struct id_list *list,
                              mvlm_error *error)
{
    const struct tokenizer *t = m->tokenizer;
    size_t n_later = 0;
    later[n_later++] = *symbol;
    while (n_later) {
        const struct symbol part = later[--n_later];
        const char *text = m->text.at + part.start;
        const int32_t id = tokenizer_find(t, text, part.n_bytes);
        if (id >= 0 && t->pieces[id].type == PIECE_UNUSED && m->split[id]) {
            const uint32_t left = (uint32_t)m->split[id];
            later[n_later++] =
                (struct symbol){.start = part.start + left, .n_bytes = part.n_bytes - left};
            later[n_later++] = (struct symbol){.start = part.start, .n_bytes = left};
            continue;
        }
        const bool unknown = id < 0 || t->pieces[id].type == PIECE_UNKNOWN;
        if (unknown)
            TRY(add_unknown(t, text, part.n_bytes, *after_unknown, list, error));
        else
            TRY(id_list_add(list, id, error));
        *after_unknown = unknown;
    }
    return MVLM_OK;
}

static mvlm_status add_symbols(const struct merger *m, struct symbol *later, struct id_list *list,
                               mvlm_error *error)
{
    bool after_unknown = false;
    for (int32_t i = 0; i >= 0; i = m->symbols[i].next)
        TRY(add_symbol(m, &m->symbols[i], later, &after_unknown, list, error));
    return MVLM_OK;
}

mvlm_status tokenizer_encode(const struct tokenizer *tokenizer, const char *text, size_t n_bytes,
                             enum lead lead, struct id_list *list, mvlm_error *error)
{
    const size_t room = 3 * n_bytes + 2 * MARK_BYTES;
    if (n_bytes > INT32_MAX / 8)
        return fail(error, MVLM_USAGE, "text of %zu bytes is too long to be encoded at once",
                    n_bytes);
    struct merger m = {.tokenizer = tokenizer, .text.at = malloc(room)};
    mvlm_status status = MVLM_OK;
    struct symbol *later = NULL;
    if (m.text.at)
        normalise(tokenizer, text, n_bytes, lead, &m.text);
    if (m.text.at && m.text.n) {
        m.symbols = malloc(m.text.n * sizeof *m.symbols);
        m.heap = malloc(3 * m.text.n * sizeof *m.heap);
        m.split = calloc(tokenizer->n_pieces, sizeof *m.split);
        later = malloc((m.text.n + 1) * sizeof *later);
    }
    if (!m.text.at || (m.text.n && (!m.symbols || !m.heap || !m.split || !later)))
        status = fail_no_memory(error, "a text's symbols", room);
    else if (m.text.n) {
        merge_all(&m, split_text(&m));
        status = add_symbols(&m, later, list, error);
    }
    free(m.text.at);
    free(m.symbols);
    free(m.heap);
    free(m.split);
    free(later);
    return status;
}
