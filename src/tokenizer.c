/* The vocabulary: reading it, finding pieces by text, ids -> bytes. Encoding is in bpe.c. */
#include "tokenizer.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "bpe.h"
#include "format.h"
#include "model.h"
#include "status.h"
#include "utf8.h"

static bool same_text(const struct piece *piece, const char *text, size_t n_bytes)
{
    return piece->n_bytes == n_bytes && memcmp(piece->text, text, n_bytes) == 0;
}

static size_t first_slot(const struct tokenizer *t, const char *text, size_t n_bytes)
{
    return (size_t)XXH3_64bits(text, n_bytes) & (t->n_slots - 1);
}

int32_t tokenizer_find(const struct tokenizer *t, const char *text, size_t n_bytes)
{
    for (size_t slot = first_slot(t, text, n_bytes); t->slots[slot];
         slot = (slot + 1) & (t->n_slots - 1))
        if (same_text(&t->pieces[t->slots[slot] - 1], text, n_bytes))
            return (int32_t)t->slots[slot] - 1;
    return -1;
}

static bool is_byte_piece(const struct piece *piece, unsigned *byte)
{
    char digits[3] = {0};
    if (piece->type != PIECE_BYTE || piece->n_bytes != 6 || memcmp(piece->text, "<0x", 3) ||
        piece->text[5] != '>')
        return false;
    memcpy(digits, piece->text + 3, 2);
    char *end;
    *byte = (unsigned)strtoul(digits, &end, 16);
    return end == digits + 2;
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
    if (is_byte_piece(piece, &byte))
        t->byte_ids[byte] = (int32_t)id;
    const bool special = piece->type == PIECE_CONTROL || piece->type == PIECE_UNKNOWN;
    if (piece->n_bytes > t->longest)
        t->longest = piece->n_bytes;
    if (special && piece->n_bytes > t->longest_special)
        t->longest_special = piece->n_bytes;
    if (piece->type == PIECE_USER_DEFINED && piece->n_bytes > t->longest_user)
        t->longest_user = piece->n_bytes;
    return MVLM_OK;
}

static mvlm_status read_pieces(const char *name, struct tokenizer *t, const uint8_t *bytes,
                               size_t n_bytes, mvlm_error *error)
{
    size_t at = sizeof(uint32_t);
    for (size_t id = 0; id < t->n_pieces; id++) {
        struct format_piece head;
        if (n_bytes - at < sizeof head)
            return fail(error, MVLM_BAD_MODEL, "%s: tokenizer ends within piece %zu of %zu", name,
                        id, t->n_pieces);
        memcpy(&head, bytes + at, sizeof head);
        at += sizeof head;
        if (n_bytes - at < head.n_bytes || head.n_bytes == 0 || head.type < PIECE_NORMAL ||
            head.type > PIECE_BYTE)
            return fail(error, MVLM_BAD_MODEL, "%s: tokenizer: piece %zu has type %u and %u bytes",
                        name, id, head.type, head.n_bytes);
        size_t wrong;
        if (!utf8_valid((const char *)bytes + at, head.n_bytes, &wrong) || head.reserved)
            return fail(error, MVLM_BAD_MODEL, "%s: tokenizer: piece %zu is no valid UTF-8", name,
                        id);
        t->pieces[id] = (struct piece){(const char *)bytes + at, head.n_bytes,
                                       (enum piece_type)head.type, head.score};
        at += head.n_bytes;
        TRY(enter(name, t, id, error));
    }
    if (at != n_bytes)
        return fail(error, MVLM_BAD_MODEL, "%s: tokenizer: %zu bytes after its last piece", name,
                    n_bytes - at);
    return MVLM_OK;
}

/* Every character must be encodable: by bytes, or by an unknown piece. */
static mvlm_status check(const char *name, const struct tokenizer *t, mvlm_error *error)
{
    const struct description *d = t->description;
    if (d->tokenizer.byte_fallback)
        for (int byte = 0; byte < 256; byte++)
            if (t->byte_ids[byte] < 0)
                return fail(error, MVLM_BAD_MODEL,
                            "%s: tokenizer: byte fallback without a piece <0x%02X>", name, byte);
    if (!d->tokenizer.byte_fallback && d->tokenizer.unk_id < 0)
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
    t->longest = 1;
    for (t->n_slots = 16; t->n_slots < 2 * (size_t)n_pieces;)
        t->n_slots *= 2;
    memset(t->byte_ids, -1, sizeof t->byte_ids);
    t->pieces = calloc(n_pieces, sizeof *t->pieces);
    t->slots = calloc(t->n_slots, sizeof *t->slots);
    mvlm_status status = MVLM_OK;
    if (!t->pieces || !t->slots)
        status = fail_no_memory(error, "the tokenizer", n_pieces * sizeof *t->pieces);
    if (status == MVLM_OK)
        status = read_pieces(name, t, bytes, n_bytes, error);
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

int32_t tokenizer_special_at(const struct tokenizer *t, const char *text, size_t n_bytes,
                             size_t *length)
{
    for (size_t n = n_bytes < t->longest_special ? n_bytes : t->longest_special; n > 0; n--) {
        const int32_t id = tokenizer_find(t, text, n);
        if (id >= 0 && tokenizer_is_special(t, id)) {
            *length = n;
            return id;
        }
    }
    return -1;
}

bool tokenizer_is_special(const struct tokenizer *t, int32_t id)
{
    if (id < 0 || (size_t)id >= t->n_pieces)
        return true;
    return t->pieces[id].type == PIECE_CONTROL || t->pieces[id].type == PIECE_UNKNOWN;
}

size_t tokenizer_bytes(const struct tokenizer *t, int32_t id, char *out)
{
    if (tokenizer_is_special(t, id))
        return 0;
    const struct piece *piece = &t->pieces[id];
    unsigned byte;
    if (is_byte_piece(piece, &byte)) {
        *out = (char)byte;
        return 1;
    }
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

bool tokenizer_adds_space(const struct tokenizer *t)
{
    return t->description->tokenizer.add_dummy_prefix &&
           !t->description->tokenizer.whitespace_as_suffix;
}

/* ---- Ids -> text ------------------------------------------------------------------------ */

struct sink {
    char *text;
    size_t capacity, n; /* n counts what did not fit too */
};

static void sink_put(struct sink *sink, const char *bytes, size_t n_bytes)
{
    for (size_t i = 0; i < n_bytes; i++, sink->n++)
        if (sink->n < sink->capacity)
            sink->text[sink->n] = bytes[i];
}

static void detokenize(const struct tokenizer *t, const int32_t *ids, size_t n_ids, char *bytes,
                       struct sink *sink)
{
    struct utf8_stream utf8 = {.n_pending = 0};
    bool skip_space = tokenizer_adds_space(t);
    char out[8];
    for (size_t i = 0; i < n_ids; i++) {
        const size_t n_bytes = tokenizer_bytes(t, ids[i], bytes);
        for (size_t k = 0; k < n_bytes; k++) {
            const bool skipped = skip_space && bytes[k] == ' ';
            skip_space = false;
            if (!skipped)
                sink_put(sink, out, utf8_push(&utf8, (unsigned char)bytes[k], out));
        }
    }
    sink_put(sink, out, utf8_finish(&utf8, out));
}

mvlm_status mvlm_detokenize(const mvlm_model *model, const int32_t *ids, size_t n_ids, char *text,
                            size_t capacity, size_t *n_bytes, mvlm_error *error)
{
    struct sink sink = {text, capacity, 0};
    *n_bytes = 0;
    for (size_t i = 0; i < n_ids; i++)
        if (ids[i] < 0 || ids[i] >= model->description.decoder.vocab)
            return fail(error, MVLM_USAGE, "id %d is beyond the vocabulary of %lld", (int)ids[i],
                        (long long)model->description.decoder.vocab);
    char *bytes = malloc(model->tokenizer->longest);
    if (!bytes)
        return fail_no_memory(error, "a token", model->tokenizer->longest);
    detokenize(model->tokenizer, ids, n_ids, bytes, &sink);
    free(bytes);
    *n_bytes = sink.n;
    return MVLM_OK;
}
