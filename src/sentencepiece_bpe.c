/* SentencePiece's text -> ids: normalise, split, merge, spell.
 * Source of the steps and their order: SentencePiece, src/normalizer.cc and src/bpe_model.cc. */
#include "bpe.h"

#include <stdlib.h>
#include <string.h>

#include "format.h"
#include "merge.h"
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
        if (id >= 0 && t->pieces[id].type == PIECE_USER_DEFINED &&
            !(t->pieces[id].flags & PIECE_APART))
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

struct encoder {
    const struct tokenizer *tokenizer;
    struct bytes text; /* normalised */
    struct merger merger;
    int32_t *split; /* [n_pieces]: left bytes of the pair that last made an unused piece; 0: none */
};

/* Two neighbours become one where their texts together are a piece. */
static bool match(void *user, const struct symbol *left, const struct symbol *right,
                  struct match *match)
{
    const struct encoder *e = user;
    const int32_t id =
        tokenizer_find(e->tokenizer, e->text.at + left->start, left->n_bytes + right->n_bytes);
    if (id < 0)
        return false;
    const struct piece *piece = &e->tokenizer->pieces[id];
    if (piece->flags & PIECE_APART ||
        (piece->type != PIECE_NORMAL && piece->type != PIECE_USER_DEFINED &&
         piece->type != PIECE_UNUSED))
        return false;
    if (piece->type == PIECE_UNUSED)
        e->split[id] = (int32_t)left->n_bytes;
    *match = (struct match){piece->score, id};
    return true;
}

static size_t split_text(const struct encoder *e)
{
    size_t n = 0;
    for (size_t i = 0; i < e->text.n; n++) {
        bool user_defined;
        const size_t length =
            unit_length(e->tokenizer, e->text.at + i, e->text.n - i, &user_defined);
        e->merger.symbols[n] = (struct symbol){
            .start = (uint32_t)i, .n_bytes = (uint32_t)length, .frozen = user_defined};
        i += length;
    }
    return n;
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
static mvlm_status add_symbol(const struct encoder *e, const struct symbol *symbol,
                              struct symbol *later, bool *after_unknown, struct id_list *list,
                              mvlm_error *error)
{
    const struct tokenizer *t = e->tokenizer;
    size_t n_later = 0;
    later[n_later++] = *symbol;
    while (n_later) {
        const struct symbol part = later[--n_later];
        const char *text = e->text.at + part.start;
        const int32_t id = tokenizer_find(t, text, part.n_bytes);
        if (id >= 0 && t->pieces[id].type == PIECE_UNUSED && e->split[id]) {
            const uint32_t left = (uint32_t)e->split[id];
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

static mvlm_status add_symbols(const struct encoder *e, struct symbol *later, struct id_list *list,
                               mvlm_error *error)
{
    const struct symbol *symbols = e->merger.symbols;
    bool after_unknown = false;
    for (int32_t i = 0; i >= 0; i = symbols[i].next)
        TRY(add_symbol(e, &symbols[i], later, &after_unknown, list, error));
    return MVLM_OK;
}

static mvlm_status encode_normalised(struct encoder *e, struct id_list *list, mvlm_error *error)
{
    const size_t n_pieces = e->tokenizer->n_pieces;
    TRY(merger_reserve(&e->merger, e->text.n, error));
    e->split = calloc(n_pieces, sizeof *e->split);
    struct symbol *later = malloc((e->text.n + 1) * sizeof *later);
    mvlm_status status = MVLM_OK;
    if (e->split && later) {
        merge(&e->merger, split_text(e));
        status = add_symbols(e, later, list, error);
    } else
        status = fail_no_memory(error, "a text's symbols", n_pieces * sizeof *e->split);
    free(later);
    free(e->split);
    return status;
}

mvlm_status sentencepiece_bpe_encode(const struct tokenizer *tokenizer, const char *text,
                                     size_t n_bytes, enum lead lead, struct id_list *list,
                                     mvlm_error *error)
{
    const size_t room = 3 * n_bytes + 2 * MARK_BYTES;
    struct encoder e = {.tokenizer = tokenizer, .text.at = malloc(room)};
    e.merger.match = match;
    e.merger.user = &e;
    mvlm_status status = MVLM_OK;
    if (!e.text.at)
        return fail_no_memory(error, "a text", room);
    normalise(tokenizer, text, n_bytes, lead, &e.text);
    if (e.text.n)
        status = encode_normalised(&e, list, error);
    merger_close(&e.merger);
    free(e.text.at);
    return status;
}
