/* Byte-level byte-pair encoding, GPT-2's: text -> words -> bytes -> pieces, merged by rank within a
 * word. Pieces are spelled in characters that stand for bytes. */
#include "bpe.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>
#include <xxhash.h>

#include "format.h"
#include "merge.h"
#include "pre_tokenize.h"
#include "status.h"

enum { MOST_MERGES = 1 << 24 }; /* ranks are exact in a float */

static bool prints(unsigned byte)
{
    return (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
}

int byte_of_character(uint32_t character)
{
    if (character < 256)
        return prints(character) ? (int)character : -1;
    uint32_t left = character - 256;
    for (unsigned byte = 0; byte < 256; byte++)
        if (!prints(byte) && left-- == 0)
            return (int)byte;
    return -1;
}

/* ---- Merges ----------------------------------------------------------------------------- */

static struct format_merge merge_at(const struct tokenizer *t, size_t rank)
{
    struct format_merge merge;
    memcpy(&merge, t->merges + rank * sizeof merge, sizeof merge);
    return merge;
}

/* The slot of that pair: its rank + 1, or 0 where it is to be entered. */
static uint32_t *merge_slot(const struct tokenizer *t, struct format_merge wanted)
{
    size_t slot =
        (size_t)XXH3_64bits_withSeed(&wanted, sizeof wanted, t->seed) & (t->n_merge_slots - 1);
    for (; t->merge_slots[slot]; slot = (slot + 1) & (t->n_merge_slots - 1)) {
        const struct format_merge merge = merge_at(t, t->merge_slots[slot] - 1);
        if (merge.left == wanted.left && merge.right == wanted.right)
            break;
    }
    return &t->merge_slots[slot];
}

/* The piece that a merge makes; -1: there is none. `text` has room for two of the longest pieces. */
static int32_t merged_piece(const struct tokenizer *t, struct format_merge merge, char *text)
{
    if (merge.left >= t->n_pieces || merge.right >= t->n_pieces)
        return -1;
    const struct piece *left = &t->pieces[merge.left], *right = &t->pieces[merge.right];
    memcpy(text, left->text, left->n_bytes);
    memcpy(text + left->n_bytes, right->text, right->n_bytes);
    const int32_t id = tokenizer_find(t, text, (size_t)left->n_bytes + right->n_bytes);
    const bool normal = id >= 0 && left->type == PIECE_NORMAL && right->type == PIECE_NORMAL &&
                        t->pieces[id].type == PIECE_NORMAL;
    return normal ? id : -1;
}

static mvlm_status enter_merges(const char *name, struct tokenizer *t, mvlm_error *error)
{
    char *text = malloc(2 * t->longest);
    if (!text)
        return fail_no_memory(error, "a piece", 2 * t->longest);
    mvlm_status status = MVLM_OK;
    for (size_t rank = 0; rank < t->n_merges && status == MVLM_OK; rank++) {
        const struct format_merge merge = merge_at(t, rank);
        uint32_t *slot = merge_slot(t, merge);
        t->merged[rank] = merged_piece(t, merge, text);
        if (t->merged[rank] < 0 || *slot)
            status = fail(error, MVLM_BAD_MODEL, "%s: tokenizer: merge %zu of %u and %u %s", name,
                          rank, merge.left, merge.right,
                          *slot ? "stands twice" : "makes no piece of two pieces");
        *slot = (uint32_t)rank + 1;
    }
    free(text);
    return status;
}

mvlm_status byte_bpe_open(const char *name, struct tokenizer *t, const uint8_t *bytes,
                          size_t n_bytes, mvlm_error *error)
{
    uint32_t n_merges = 0;
    if (n_bytes >= sizeof n_merges)
        memcpy(&n_merges, bytes, sizeof n_merges);
    if (n_bytes < sizeof n_merges || n_merges > MOST_MERGES ||
        n_bytes - sizeof n_merges != (size_t)n_merges * sizeof(struct format_merge))
        return fail(error, MVLM_BAD_MODEL,
                    "%s: tokenizer: %zu bytes after its last piece cannot hold %u merges", name,
                    n_bytes, n_merges);
    t->merges = bytes + sizeof n_merges;
    t->n_merges = n_merges;
    for (t->n_merge_slots = 16; t->n_merge_slots < 2 * (size_t)n_merges;)
        t->n_merge_slots *= 2;
    t->merge_slots = calloc(t->n_merge_slots, sizeof *t->merge_slots);
    t->merged = calloc((size_t)n_merges + 1, sizeof *t->merged);
    if (!t->merge_slots || !t->merged)
        return fail_no_memory(error, "the tokenizer's merges",
                              t->n_merge_slots * sizeof *t->merge_slots);
    return enter_merges(name, t, error);
}

/* ---- Encoding --------------------------------------------------------------------------- */

static bool match(void *user, const struct symbol *left, const struct symbol *right,
                  struct match *match)
{
    const struct tokenizer *t = user;
    const uint32_t slot =
        *merge_slot(t, (struct format_merge){(uint32_t)left->id, (uint32_t)right->id});
    if (slot)
        *match = (struct match){-(float)slot, t->merged[slot - 1]};
    return slot;
}

static mvlm_status encode_word(const struct tokenizer *t, struct merger *merger, const char *word,
                               size_t n_bytes, struct id_list *list, mvlm_error *error)
{
    TRY(merger_reserve(merger, n_bytes, error));
    for (size_t i = 0; i < n_bytes; i++)
        merger->symbols[i] = (struct symbol){
            .start = (uint32_t)i, .n_bytes = 1, .id = t->byte_ids[(unsigned char)word[i]]};
    merge(merger, n_bytes);
    for (int32_t i = 0; i >= 0; i = merger->symbols[i].next)
        TRY(id_list_add(list, merger->symbols[i].id, error));
    return MVLM_OK;
}

static mvlm_status encode_words(const struct tokenizer *t, const char *text, size_t n_bytes,
                                struct id_list *list, mvlm_error *error)
{
    const enum pre_tokenizer kind = (enum pre_tokenizer)t->description->tokenizer.pre_tokenizer;
    struct merger merger = {.match = match, .user = (void *)(uintptr_t)t};
    mvlm_status status = MVLM_OK;
    for (size_t at = 0, n; at < n_bytes && status == MVLM_OK; at += n) {
        n = pre_token_length(kind, text + at, n_bytes - at);
        status = encode_word(t, &merger, text + at, n, list, error);
    }
    merger_close(&merger);
    return status;
}

mvlm_status byte_bpe_encode(const struct tokenizer *t, const char *text, size_t n_bytes,
                            enum lead lead, struct id_list *list, mvlm_error *error)
{
    (void)lead;
    if (!t->description->tokenizer.nfc)
        return encode_words(t, text, n_bytes, list, error);
    utf8proc_uint8_t *composed = NULL;
    const utf8proc_ssize_t n =
        utf8proc_map((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)n_bytes, &composed,
                     UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    const mvlm_status status =
        n < 0 ? fail(error, n == UTF8PROC_ERROR_NOMEM ? MVLM_NO_MEMORY : MVLM_USAGE,
                     "a text of %zu bytes cannot be composed: %s", n_bytes, utf8proc_errmsg(n))
              : encode_words(t, (const char *)composed, (size_t)n, list, error);
    free(composed);
    return status;
}
