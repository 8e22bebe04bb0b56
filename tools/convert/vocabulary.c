#include "vocabulary.h"

#include <stdlib.h>
#include <string.h>

#include "status.h"
#include "byte_bpe_files.h"
#include "json_file.h"
#include "sentencepiece.h"
#include "source_file.h"
#include "tokenizer_files.h"

struct vocabulary_text {
    struct vocabulary_text *next;
    char text[];
};

mvlm_status vocabulary_reserve(struct vocabulary *v, size_t n, mvlm_error *error)
{
    if (n <= v->capacity)
        return MVLM_OK;
    struct vocabulary_piece *pieces = realloc(v->pieces, n * sizeof *pieces);
    if (!pieces)
        return fail_no_memory(error, "the vocabulary", n * sizeof *pieces);
    memset(pieces + v->capacity, 0, (n - v->capacity) * sizeof *pieces);
    v->pieces = pieces;
    v->capacity = n;
    return MVLM_OK;
}

mvlm_status vocabulary_set_text(struct vocabulary *v, size_t id, const char *text, size_t n_bytes,
                                mvlm_error *error)
{
    struct vocabulary_text *copy = malloc(sizeof *copy + n_bytes);
    if (!copy)
        return fail_no_memory(error, "a piece", n_bytes);
    memcpy(copy->text, text, n_bytes);
    copy->next = v->texts;
    v->texts = copy;
    v->pieces[id].text = copy->text;
    v->pieces[id].n_bytes = n_bytes;
    return MVLM_OK;
}

int64_t vocabulary_find(const struct vocabulary *v, const char *text)
{
    const size_t n_bytes = strlen(text);
    for (size_t id = 0; id < v->n_pieces; id++)
        if (v->pieces[id].n_bytes == n_bytes && memcmp(v->pieces[id].text, text, n_bytes) == 0)
            return (int64_t)id;
    return -1;
}

static mvlm_status open_files(const char *folder, struct vocabulary *v, mvlm_error *error)
{
    json_t *tokenizer = NULL; /* tokenizer.json, where it is all there is */
    mvlm_status status;
    if (source_file_exists(folder, "tokenizer.model"))
        status = sentencepiece_read(folder, v, error);
    else if (source_file_exists(folder, "vocab.json"))
        status = byte_bpe_read(folder, v, error);
    else if (source_file_exists(folder, "tokenizer.json"))
        status = byte_bpe_read_json(folder, v, &tokenizer, error);
    else
        return fail(error, MVLM_BAD_MODEL,
                    "%s: holds no tokenizer: neither tokenizer.model nor vocab.json nor "
                    "tokenizer.json",
                    folder);
    if (status == MVLM_OK)
        status = tokenizer_files_read(folder, tokenizer, v, error);
    json_decref(tokenizer);
    return status;
}

mvlm_status vocabulary_open(const char *folder, struct vocabulary *v, mvlm_error *error)
{
    *v = (struct vocabulary){0};
    const mvlm_status status = open_files(folder, v, error);
    if (status != MVLM_OK)
        vocabulary_close(v);
    return status;
}

void vocabulary_close(struct vocabulary *v)
{
    for (struct vocabulary_text *text = v->texts, *next; text; text = next) {
        next = text->next;
        free(text);
    }
    free(v->pieces);
    free(v->merges);
    free(v->bytes);
    memset(v, 0, sizeof *v);
}

/* Bytes behind those that are there; NULL only counts. */
static void put(uint8_t *out, size_t *n, const void *bytes, size_t n_bytes)
{
    if (out)
        memcpy(out + *n, bytes, n_bytes);
    *n += n_bytes;
}

size_t vocabulary_encode(const struct vocabulary *v, uint8_t *out)
{
    const uint32_t n_pieces = (uint32_t)v->n_pieces, n_merges = (uint32_t)v->n_merges;
    size_t n = 0;
    put(out, &n, &n_pieces, sizeof n_pieces);
    for (size_t i = 0; i < v->n_pieces; i++) {
        const struct vocabulary_piece *piece = &v->pieces[i];
        const struct format_piece head = {piece->score, (uint8_t)piece->type, (uint8_t)piece->flags,
                                          (uint16_t)piece->n_bytes};
        put(out, &n, &head, sizeof head);
        put(out, &n, piece->text, piece->n_bytes);
    }
    if (v->settings.kind == TOKENIZER_BYTE_BPE) {
        put(out, &n, &n_merges, sizeof n_merges);
        put(out, &n, v->merges, v->n_merges * sizeof *v->merges);
    }
    return n;
}
