/* The vocabulary: reading it, finding pieces by text, an id -> bytes. Encoding is in sentencepiece_bpe.c and
 * byte_bpe.c. */
#include "tokenizer.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <xxhash.h>

#include "bpe.h"
#include "format.h"
#include "status.h"
#include "utf8.h"

enum { MOST_CUTS = 4096 };

static bool same_text(const struct piece *piece, const char *text, size_t n_bytes)
{
    return piece->n_bytes == n_bytes && memcmp(piece->text, text, n_bytes) == 0;
}

static size_t first_slot(const struct tokenizer *t, const char *text, size_t n_bytes)
{
    return (size_t)XXH3_64bits_withSeed(text, n_bytes, t->seed) & (t->n_slots - 1);
}

int32_t tokenizer_find(const struct tokenizer *t, const char *text, size_t n_bytes)
{
    for (size_t slot = first_slot(t, text, n_bytes); t->slots[slot];
         slot = (slot + 1) & (t->n_slots - 1))
        if (same_text(&t->pieces[t->slots[slot] - 1], text, n_bytes))
            return (int32_t)t->slots[slot] - 1;
    return -1;
}

static bool is_special(const struct piece *piece)
{
    return piece->type == PIECE_CONTROL || piece->type == PIECE_UNKNOWN;
}

static bool is_cut(const struct piece *piece)
{
    return is_special(piece) || piece->flags & PIECE_APART;
}

/* Of byte_bpe: a piece of one character; of SentencePiece: <0x00> to <0xFF>. */
static bool is_byte_piece(const struct tokenizer *t, const struct piece *piece, unsigned *byte)
{
    if (t->description->tokenizer.kind == TOKENIZER_BYTE_BPE) {
        size_t length;
        const int value = byte_of_character(utf8_character(piece->text, &length));
        *byte = (unsigned)value;
        return piece->type == PIECE_NORMAL && length == piece->n_bytes && value >= 0;
    }
    char digits[3] = {0};
    if (piece->type != PIECE_BYTE || piece->n_bytes != 6 || memcmp(piece->text, "<0x", 3) != 0 ||
        piece->text[5] != '>' || !isxdigit((unsigned char)piece->text[3]) ||
        !isxdigit((unsigned char)piece->text[4]))
        return false;
    memcpy(digits, piece->text + 3, 2);
    *byte = (unsigned)strtoul(digits, NULL, 16);
    return true;
}

/* Enters piece `id` into the tables. */
static mvlm_status enter(const char *name, struct tokenizer *t, size_t id, mvlm_error *error)
{
    const struct piece *piece = &t->pieces[id];
    unsigned byte;
    if (tokenizer_find(t, piece->text, piece->n_bytes) >= 0)
        return fail(error, MVLM_BAD_MODEL, "%s: tokenizer: piece %zu \"%.*s\" stands twice", name,
                    id, (int)piece->n_bytes, piece->text);
    size_t slot = first_slot(t, piece->text, piece->n_bytes);
    while (t->slots[slot])
        slot = (slot + 1) & (t->n_slots - 1);
    t->slots[slot] = (uint32_t)id + 1;
    if (is_byte_piece(t, piece, &byte))
        t->byte_ids[byte] = (int32_t)id;
    t->n_cuts += is_cut(piece);
    if (piece->n_bytes > t->longest)
        t->longest = piece->n_bytes;
    if (piece->type == PIECE_USER_DEFINED && !(piece->flags & PIECE_APART) &&
        piece->n_bytes > t->longest_user)
        t->longest_user = piece->n_bytes;
    return MVLM_OK;
}

/* Can a piece be of that type, and have those flags, in this tokenizer? */
static bool head_fits(const struct tokenizer *t, const struct format_piece *head)
{
    const struct tokenizer_settings *settings = &t->description->tokenizer;
    const bool normal = head->type == PIECE_NORMAL;
    const unsigned known = PIECE_STRIPS_LEFT | PIECE_STRIPS_RIGHT | PIECE_APART;
    if (head->n_bytes == 0 || head->type < PIECE_NORMAL || head->type > PIECE_BYTE ||
        head->flags & ~known || (head->flags && (normal || !settings->added_tokens)))
        return false;
    return settings->kind != TOKENIZER_BYTE_BPE || normal || head->type == PIECE_CONTROL ||
           (head->type == PIECE_USER_DEFINED && head->flags & PIECE_APART);
}

/* Is a normal piece of byte_bpe spelled in the characters that stand for bytes? */
static bool is_spelled(const struct tokenizer *t, const struct piece *piece)
{
    if (t->description->tokenizer.kind != TOKENIZER_BYTE_BPE || piece->type != PIECE_NORMAL)
        return true;
    for (size_t i = 0, length; i < piece->n_bytes; i += length)
        if (byte_of_character(utf8_character(piece->text + i, &length)) < 0)
            return false;
    return true;
}

/* Reads the pieces; *end is where they end. */
static mvlm_status read_pieces(const char *name, struct tokenizer *t, const uint8_t *bytes,
                               size_t n_bytes, size_t *end, mvlm_error *error)
{
    size_t at = sizeof(uint32_t);
    for (size_t id = 0; id < t->n_pieces; id++) {
        struct format_piece head;
        if (n_bytes - at < sizeof head)
            return fail(error, MVLM_BAD_MODEL, "%s: tokenizer ends within piece %zu of %zu", name,
                        id, t->n_pieces);
        memcpy(&head, bytes + at, sizeof head);
        at += sizeof head;
        if (n_bytes - at < head.n_bytes || !head_fits(t, &head))
            return fail(error, MVLM_BAD_MODEL,
                        "%s: tokenizer: piece %zu has type %u, flags %u and %u bytes", name, id,
                        head.type, head.flags, head.n_bytes);
        struct piece *piece = &t->pieces[id];
        *piece = (struct piece){(const char *)bytes + at, head.n_bytes, (enum piece_type)head.type,
                                head.flags, head.score};
        size_t wrong;
        if (!utf8_valid(piece->text, piece->n_bytes, &wrong))
            return fail(error, MVLM_BAD_MODEL, "%s: tokenizer: piece %zu is no valid UTF-8", name,
                        id);
        if (!is_spelled(t, piece))
            return fail(error, MVLM_BAD_MODEL,
                        "%s: tokenizer: piece %zu \"%.*s\" is not spelled in bytes", name, id,
                        (int)piece->n_bytes, piece->text);
        at += head.n_bytes;
        TRY(enter(name, t, id, error));
    }
    *end = at;
    return MVLM_OK;
}

/* By their first byte, then longest first, then in their order. */
static int compare_cuts(const void *a, const void *b, void *tokenizer)
{
    const struct piece *pieces = ((const struct tokenizer *)tokenizer)->pieces;
    const int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    const unsigned char a_first = (unsigned char)*pieces[x].text,
                        b_first = (unsigned char)*pieces[y].text;
    if (a_first != b_first)
        return a_first < b_first ? -1 : 1;
    if (pieces[x].n_bytes != pieces[y].n_bytes)
        return pieces[x].n_bytes < pieces[y].n_bytes ? 1 : -1;
    return (x > y) - (x < y);
}

static mvlm_status list_cuts(const char *name, struct tokenizer *t, mvlm_error *error)
{
    if (t->n_cuts > MOST_CUTS) /* each is looked for at every byte that begins one */
        return fail(error, MVLM_BAD_MODEL, "%s: tokenizer has %zu special tokens, at most %d", name,
                    t->n_cuts, MOST_CUTS);
    t->cuts = calloc(t->n_cuts + 1, sizeof *t->cuts);
    if (!t->cuts)
        return fail_no_memory(error, "the list of special tokens", t->n_cuts * sizeof *t->cuts);
    t->n_cuts = 0;
    for (size_t id = 0; id < t->n_pieces; id++)
        if (is_cut(&t->pieces[id])) {
            t->cuts[t->n_cuts++] = (int32_t)id;
            t->cut_end[(unsigned char)*t->pieces[id].text]++;
        }
    for (size_t byte = 1; byte < 256; byte++)
        t->cut_end[byte] += t->cut_end[byte - 1];
    qsort_r(t->cuts, t->n_cuts, sizeof *t->cuts, compare_cuts, t);
    return MVLM_OK;
}

/* What follows the pieces: merges, or nothing. */
static mvlm_status read_rest(const char *name, struct tokenizer *t, const uint8_t *bytes,
                             size_t n_bytes, mvlm_error *error)
{
    TRY(list_cuts(name, t, error));
    if (t->description->tokenizer.kind == TOKENIZER_BYTE_BPE)
        return byte_bpe_open(name, t, bytes, n_bytes, error);
    return n_bytes ? fail(error, MVLM_BAD_MODEL, "%s: tokenizer: %zu bytes after its last piece",
                          name, n_bytes)
                   : MVLM_OK;
}

/* Every character must be encodable: by bytes, or by an unknown piece. */
static mvlm_status check(const char *name, const struct tokenizer *t, mvlm_error *error)
{
    const struct description *d = t->description;
    const bool bytes = d->tokenizer.kind == TOKENIZER_BYTE_BPE || d->tokenizer.byte_fallback;
    for (int byte = 0; byte < 256 && bytes; byte++)
        if (t->byte_ids[byte] < 0)
            return fail(error, MVLM_BAD_MODEL,
                        "%s: tokenizer: text is spelled in bytes, but there is no piece for 0x%02X",
                        name, (unsigned)byte);
    if (!bytes && d->tokenizer.unk_id < 0)
        return fail(error, MVLM_BAD_MODEL,
                    "%s: tokenizer has neither byte fallback nor an unknown piece", name);
    if (t->n_pieces > (size_t)d->decoder.vocab)
        return fail(error, MVLM_BAD_MODEL, "%s: tokenizer has %zu pieces, the decoder %lld", name,
                    t->n_pieces, (long long)d->decoder.vocab);
    return MVLM_OK;
}

mvlm_status tokenizer_open(const char *name, const struct description *description,
                           const uint8_t *bytes, size_t n_bytes, struct tokenizer **out,
                           mvlm_error *error)
{
    uint32_t n_pieces = 0;
    *out = NULL;
    if (n_bytes >= sizeof n_pieces)
        memcpy(&n_pieces, bytes, sizeof n_pieces);
    if (n_pieces == 0 || n_pieces > n_bytes / sizeof(struct format_piece))
        return fail(error, MVLM_BAD_MODEL, "%s: tokenizer of %zu bytes cannot hold %u pieces", name,
                    n_bytes, n_pieces);
    struct tokenizer *t = calloc(1, sizeof *t);
    if (!t)
        return fail_no_memory(error, "the tokenizer", sizeof *t);
    t->description = description;
    t->n_pieces = n_pieces;
    if (getrandom(&t->seed, sizeof t->seed, GRND_NONBLOCK) < 0)
        t->seed = (uintptr_t)t; /* early in a system's start */
    t->longest = 1;
    for (t->n_slots = 16; t->n_slots < 2 * (size_t)n_pieces;)
        t->n_slots *= 2;
    memset(t->byte_ids, -1, sizeof t->byte_ids);
    t->pieces = calloc(n_pieces, sizeof *t->pieces);
    t->slots = calloc(t->n_slots, sizeof *t->slots);
    mvlm_status status = MVLM_OK;
    if (!t->pieces || !t->slots)
        status = fail_no_memory(error, "the tokenizer", n_pieces * sizeof *t->pieces);
    size_t end = 0;
    if (status == MVLM_OK)
        status = read_pieces(name, t, bytes, n_bytes, &end, error);
    if (status == MVLM_OK)
        status = read_rest(name, t, bytes + end, n_bytes - end, error);
    if (status == MVLM_OK)
        status = check(name, t, error);
    if (status == MVLM_OK)
        *out = t;
    else
        tokenizer_close(t);
    return status;
}

void tokenizer_close(struct tokenizer *tokenizer)
{
    if (!tokenizer)
        return;
    free(tokenizer->pieces);
    free(tokenizer->slots);
    free(tokenizer->cuts);
    free(tokenizer->merged);
    free(tokenizer->merge_slots);
    free(tokenizer);
}

mvlm_status id_list_add(struct id_list *list, int32_t id, mvlm_error *error)
{
    if (list->n == list->capacity) {
        const size_t capacity = list->capacity ? 2 * list->capacity : 64;
        int32_t *ids = realloc(list->ids, capacity * sizeof *ids);
        if (!ids)
            return fail_no_memory(error, "a list of tokens", capacity * sizeof *ids);
        list->ids = ids;
        list->capacity = capacity;
    }
    list->ids[list->n++] = id;
    return MVLM_OK;
}

mvlm_status tokenizer_encode(const struct tokenizer *tokenizer, const char *text, size_t n_bytes,
                             enum lead lead, struct id_list *list, mvlm_error *error)
{
    if (n_bytes > INT32_MAX / 8)
        return fail(error, MVLM_USAGE, "text of %zu bytes is too long to be encoded at once",
                    n_bytes);
    if (tokenizer->description->tokenizer.kind == TOKENIZER_BYTE_BPE)
        return byte_bpe_encode(tokenizer, text, n_bytes, lead, list, error);
    return sentencepiece_bpe_encode(tokenizer, text, n_bytes, lead, list, error);
}

bool tokenizer_begins_cut(const struct tokenizer *t, char first)
{
    const unsigned char byte = (unsigned char)first;
    return t->cut_end[byte] > (byte ? t->cut_end[byte - 1] : 0);
}

int32_t tokenizer_cut_at(const struct tokenizer *t, const char *text, size_t n_bytes,
                         size_t n_trusted, size_t *length)
{
    const unsigned char first = (unsigned char)*text;
    for (size_t i = first ? t->cut_end[first - 1] : 0; i < t->cut_end[first]; i++) {
        const struct piece *piece = &t->pieces[t->cuts[i]];
        if (piece->n_bytes <= (is_special(piece) ? n_trusted : n_bytes) &&
            memcmp(piece->text, text, piece->n_bytes) == 0) {
            *length = piece->n_bytes;
            return t->cuts[i];
        }
    }
    return -1;
}

bool tokenizer_is_special(const struct tokenizer *t, int32_t id)
{
    if (id < 0 || (size_t)id >= t->n_pieces)
        return true;
    return is_special(&t->pieces[id]) && !tokenizer_is_apart(t, id);
}

bool tokenizer_is_apart(const struct tokenizer *t, int32_t id)
{
    return id >= 0 && (size_t)id < t->n_pieces && t->pieces[id].flags & PIECE_APART;
}

bool tokenizer_is_byte(const struct tokenizer *t, int32_t id)
{
    return id >= 0 && (size_t)id < t->n_pieces && t->pieces[id].type == PIECE_BYTE;
}

/* A normal piece of SentencePiece: marks are spaces. */
static size_t unmark(const struct piece *piece, char *out)
{
    size_t n = 0;
    for (size_t i = 0; i < piece->n_bytes;) {
        if (piece->n_bytes - i >= MARK_BYTES &&
            memcmp(piece->text + i, SPACE_MARK, MARK_BYTES) == 0) {
            out[n++] = ' ';
            i += MARK_BYTES;
        } else
            out[n++] = piece->text[i++];
    }
    return n;
}

/* A normal piece of byte_bpe: characters are bytes. */
static size_t unspell(const struct piece *piece, char *out)
{
    size_t n = 0;
    for (size_t i = 0, length; i < piece->n_bytes; i += length)
        out[n++] = (char)byte_of_character(utf8_character(piece->text + i, &length));
    return n;
}

size_t tokenizer_bytes(const struct tokenizer *t, int32_t id, char *out)
{
    if (tokenizer_is_special(t, id))
        return 0;
    const struct piece *piece = &t->pieces[id];
    unsigned byte;
    if (is_byte_piece(t, piece, &byte)) {
        *out = (char)byte;
        return 1;
    }
    if (!tokenizer_is_apart(t, id))
        return t->description->tokenizer.kind == TOKENIZER_BYTE_BPE ? unspell(piece, out)
                                                                    : unmark(piece, out);
    memcpy(out, piece->text, piece->n_bytes);
    return piece->n_bytes;
}

bool tokenizer_adds_space(const struct tokenizer *t)
{
    return t->description->tokenizer.add_dummy_prefix &&
           !t->description->tokenizer.whitespace_as_suffix;
}
