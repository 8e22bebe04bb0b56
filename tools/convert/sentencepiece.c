/* Protocol buffers as far as this file needs them: fields of varints, floats and nested messages.
 * Field numbers and defaults: sentencepiece_model.proto. */
#include "sentencepiece.h"

#include <stdlib.h>
#include <string.h>

#include "status.h"
#include "source_file.h"

enum { MAX_BYTES = 256 * 1024 * 1024, MODEL_TYPE_BPE = 2, TYPE_NORMAL = 1, TYPE_BYTE = 6 };

/* ---- Protocol buffers ------------------------------------------------------------------- */

enum wire { WIRE_VARINT = 0, WIRE_64 = 1, WIRE_BYTES = 2, WIRE_32 = 5 };

struct message {
    const uint8_t *at, *end;
};

struct field {
    uint64_t number;
    enum wire wire;
    uint64_t value;          /* of a varint; the bits of a fixed32 */
    struct message contents; /* of WIRE_BYTES */
};

static bool read_varint(struct message *message, uint64_t *value)
{
    *value = 0;
    for (unsigned shift = 0; shift < 64 && message->at < message->end; shift += 7) {
        const uint8_t byte = *message->at++;
        if (shift == 63 && byte > 1) /* more than 64 bits */
            return false;
        *value |= (uint64_t)(byte & 0x7f) << shift;
        if (!(byte & 0x80))
            return true;
    }
    return false;
}

/* The next field; false at the end or at a fault, which *fault tells apart. */
static bool read_field(struct message *message, struct field *field, bool *fault)
{
    uint64_t tag, length = 0;
    if (message->at == message->end)
        return false;
    *fault = true;
    if (!read_varint(message, &tag))
        return false;
    field->number = tag >> 3;
    field->wire = (enum wire)(tag & 7);
    field->value = 0;
    const size_t left = (size_t)(message->end - message->at);
    if (field->wire == WIRE_VARINT) {
        if (!read_varint(message, &field->value))
            return false;
    } else if (field->wire == WIRE_64 || field->wire == WIRE_32) {
        length = field->wire == WIRE_64 ? 8 : 4;
        if (left < length)
            return false;
        memcpy(&field->value, message->at, (size_t)length);
    } else if (field->wire == WIRE_BYTES) {
        if (!read_varint(message, &length) || length > (uint64_t)(message->end - message->at))
            return false;
        field->contents = (struct message){message->at, message->at + length};
    } else
        return false;
    message->at += length;
    *fault = false;
    return true;
}

/* ---- The model -------------------------------------------------------------------------- */

struct model {
    int64_t model_type;
    struct tokenizer_settings settings; /* what the file itself says of them */
    size_t normalization_bytes;         /* of a character map, which this program does not apply */
    struct vocabulary_piece *pieces;    /* NULL: they are only counted */
    size_t n_pieces;
};

/* Varint fields of a nested message and where their values go. */
struct setting {
    uint64_t number;
    size_t offset;
};

#define AT(member) offsetof(struct model, member)
static const struct setting trainer_settings[] = {
    {3, AT(model_type)},
    {24, AT(settings.whitespace_as_suffix)},
    {35, AT(settings.byte_fallback)},
    {40, AT(settings.unk_id)},
    {41, AT(settings.bos_id)},
    {42, AT(settings.eos_id)},
    {43, AT(settings.pad_id)},
    {0, 0},
};
static const struct setting normalizer_settings[] = {
    {3, AT(settings.add_dummy_prefix)},
    {4, AT(settings.remove_extra_whitespaces)},
    {5, AT(settings.escape_whitespaces)},
    {0, 0},
};
#undef AT
enum { PIECES = 1, TRAINER = 2, NORMALIZER = 3, NORMALIZER_MAP = 2 };

static bool read_settings(struct model *t, struct message message, const struct setting *settings)
{
    struct field field;
    bool fault = false;
    while (read_field(&message, &field, &fault)) {
        for (const struct setting *s = settings; s->number; s++)
            if (s->number == field.number &&
                field.wire == WIRE_VARINT) /* an int32: negative ones are sign-extended */
                *(int64_t *)(void *)((char *)t + s->offset) = (int64_t)field.value;
        if (settings == normalizer_settings && field.number == NORMALIZER_MAP &&
            field.wire == WIRE_BYTES)
            t->normalization_bytes = (size_t)(field.contents.end - field.contents.at);
    }
    return !fault;
}

static bool read_piece(struct vocabulary_piece *piece, struct message message)
{
    struct field field;
    bool fault = false;
    *piece = (struct vocabulary_piece){.type = TYPE_NORMAL};
    while (read_field(&message, &field, &fault)) {
        if (field.number == 1 && field.wire == WIRE_BYTES) {
            piece->text = (const char *)field.contents.at;
            piece->n_bytes = (size_t)(field.contents.end - field.contents.at);
        } else if (field.number == 2 && field.wire == WIRE_32) {
            const uint32_t bits = (uint32_t)field.value;
            memcpy(&piece->score, &bits, sizeof bits);
        } else if (field.number == 3 && field.wire == WIRE_VARINT)
            piece->type = (int64_t)field.value;
    }
    return !fault && piece->n_bytes > 0 && piece->n_bytes <= UINT16_MAX &&
           piece->type >= TYPE_NORMAL && piece->type <= TYPE_BYTE;
}

/* Counts pieces, or reads them once there is memory for them. */
static bool read_model(struct model *t, struct message message)
{
    struct field field;
    bool fault = false, good = true;
    t->n_pieces = 0;
    while (good && read_field(&message, &field, &fault)) {
        if (field.wire != WIRE_BYTES)
            continue;
        if (field.number == PIECES) {
            if (t->pieces)
                good = read_piece(&t->pieces[t->n_pieces], field.contents);
            t->n_pieces++;
        } else if (field.number == TRAINER)
            good = read_settings(t, field.contents, trainer_settings);
        else if (field.number == NORMALIZER)
            good = read_settings(t, field.contents, normalizer_settings);
    }
    return good && !fault;
}

static mvlm_status check(const struct model *t, const char *path, mvlm_error *error)
{
    const int64_t ids[] = {t->settings.unk_id, t->settings.bos_id, t->settings.eos_id,
                           t->settings.pad_id};
    if (t->model_type != MODEL_TYPE_BPE)
        return fail(error, MVLM_BAD_MODEL,
                    "%s: is no BPE model (type %lld; unigram, word and character models are not "
                    "supported)",
                    path, (long long)t->model_type);
    if (t->normalization_bytes)
        return fail(error, MVLM_BAD_MODEL,
                    "%s: normalises characters by a map of %zu bytes, which is not supported", path,
                    t->normalization_bytes);
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++)
        if (ids[i] < -1 || ids[i] >= (int64_t)t->n_pieces)
            return fail(error, MVLM_BAD_MODEL, "%s: special id %lld, but there are %zu pieces",
                        path, (long long)ids[i], t->n_pieces);
    return MVLM_OK;
}

static mvlm_status parse(struct vocabulary *v, const char *path, size_t n_bytes, mvlm_error *error)
{
    const struct message message = {v->bytes, v->bytes + n_bytes};
    struct model model = {.model_type = 1,
                          .settings = {.kind = TOKENIZER_SENTENCEPIECE_BPE,
                                       .bos_id = 1,
                                       .eos_id = 2,
                                       .pad_id = -1,
                                       .add_dummy_prefix = 1,
                                       .remove_extra_whitespaces = 1,
                                       .escape_whitespaces = 1}};
    if (!read_model(&model, message) || model.n_pieces == 0)
        return fail(error, MVLM_BAD_MODEL, "%s: is no SentencePiece model, or damaged", path);
    TRY(vocabulary_reserve(v, model.n_pieces, error));
    model.pieces = v->pieces;
    if (!read_model(&model, message))
        return fail(error, MVLM_BAD_MODEL, "%s: piece %zu is damaged", path, model.n_pieces - 1);
    v->n_pieces = model.n_pieces;
    v->settings = model.settings;
    return check(&model, path, error);
}

mvlm_status sentencepiece_read(const char *folder, struct vocabulary *v, mvlm_error *error)
{
    struct source_file file;
    TRY(source_file_open(folder, "tokenizer.model", &file, error));
    mvlm_status status =
        source_file_load(&file, 0, file.n_bytes, MAX_BYTES, "tokenizer", &v->bytes, error);
    if (status == MVLM_OK)
        status = parse(v, file.path, (size_t)file.n_bytes, error);
    source_file_close(&file);
    return status;
}
