/* Text <-> ids: byte-pair encoding as SentencePiece does it or as GPT-2 does, with every choice read
 * from the model's own fields. SentencePiece: normalise (white space), split into characters, merge the
 * best-scored adjacent pair until none is left, spell what is no piece in bytes. GPT-2: split into words,
 * these into bytes, merge the adjacent pair that stands first in a list of merges until none is left. */
#ifndef SRC_TOKENIZER_H
#define SRC_TOKENIZER_H

#include "description.h"
#include "mobilevlm.h"

/* SentencePiece's ModelProto.SentencePiece.Type. */
enum piece_type {
    PIECE_NORMAL = 1,
    PIECE_UNKNOWN,
    PIECE_CONTROL,
    PIECE_USER_DEFINED,
    PIECE_UNUSED,
    PIECE_BYTE
};

struct piece {
    const char *text; /* in the mapped file, no NUL */
    uint32_t n_bytes;
    enum piece_type type;
    unsigned flags; /* enum piece_flags */
    float score;
};

struct tokenizer {
    const struct description *description;
    struct piece *pieces; /* [n_pieces] */
    size_t n_pieces;
    uint64_t
        seed; /* of the hash tables: drawn anew, so that no file can be made to fill one place */
    uint32_t *slots;       /* open hash table over texts: id + 1, 0 for empty */
    size_t n_slots;        /* a power of two */
    int32_t byte_ids[256]; /* -1: no such piece */
    size_t longest;        /* bytes of the longest piece */
    size_t longest_user;
    /* pieces that are cut out of a text before it is encoded: special tokens, and those that stand
       apart; by their first byte, and then the longest first */
    int32_t *cuts; /* [n_cuts] */
    size_t n_cuts;
    size_t cut_end[256]; /* where those that begin with that byte, or a lower one, end */
    /* of byte_bpe */
    const uint8_t
        *merges; /* [n_merges] of struct format_merge, in the mapped file, at any address */
    size_t n_merges;
    int32_t *merged;       /* [n_merges]: the piece that each makes */
    uint32_t *merge_slots; /* open hash table over pairs: rank + 1, 0 for empty */
    size_t n_merge_slots;  /* a power of two */
};

/* Reads the tokenizer section, whose memory must outlive the tokenizer. MVLM_BAD_MODEL; `name`
 * stands in messages. */
mvlm_status tokenizer_open(const char *name, const struct description *description,
                           const uint8_t *bytes, size_t n_bytes, struct tokenizer **tokenizer,
                           mvlm_error *error);
void tokenizer_close(struct tokenizer *tokenizer);

/* A growing list of ids, owned by the caller: free(ids). */
struct id_list {
    int32_t *ids;
    size_t n, capacity;
};
mvlm_status id_list_add(struct id_list *list, int32_t id, mvlm_error *error);

/* How white space at the beginning is treated. */
enum lead {
    LEAD_MODEL, /* as SentencePiece itself does: the model's dummy prefix, white space removed if
                   the model says so */
    LEAD_MARK,  /* transformers' non-legacy way for the first text: one dummy prefix, white space
                   after it is kept */
    LEAD_NONE,  /* the same for text after a special token: no prefix, white space kept */
};

/* Appends the ids of plain text: nothing is cut out of it. The text must be valid UTF-8. */
mvlm_status tokenizer_encode(const struct tokenizer *tokenizer, const char *text, size_t n_bytes,
                             enum lead lead, struct id_list *list, mvlm_error *error);

/* Does any piece that is cut out begin with that byte? */
bool tokenizer_begins_cut(const struct tokenizer *tokenizer, char first);

/* The piece that is cut out where `text` begins, the longest one there; its length goes to *length. -1:
 * none. Special tokens (control and unknown) only within the first n_trusted bytes. */
int32_t tokenizer_cut_at(const struct tokenizer *tokenizer, const char *text, size_t n_bytes,
                         size_t n_trusted, size_t *length);

/* Has the id no bytes? Control and unknown pieces but for those that stand apart, and ids without a piece. */
bool tokenizer_is_special(const struct tokenizer *tokenizer, int32_t id);

/* Is the id a byte that SentencePiece spelled a text with? */
bool tokenizer_is_byte(const struct tokenizer *tokenizer, int32_t id);

/* Does the id stand apart in decoded text? */
bool tokenizer_is_apart(const struct tokenizer *tokenizer, int32_t id);

/* The bytes that an id stands for: a byte, or the piece as it stands in a text. At most `longest` bytes
 * (and at least one are needed) are written to `out`; returns their number. Special tokens give none. */
size_t tokenizer_bytes(const struct tokenizer *tokenizer, int32_t id, char *out);

/* Does a decoded text begin with a space that encoding put there? */
bool tokenizer_adds_space(const struct tokenizer *tokenizer);

#endif
