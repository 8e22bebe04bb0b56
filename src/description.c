/* One table of fields drives reading, writing and checking a description. */
#include "description.h"

#include <math.h>
#include <string.h>

#include "format.h"
#include "status.h"
#include "utf8.h"

enum form { FORM_INTEGER, FORM_REAL, FORM_TEXT, FORM_NUMBERS, FORM_NAME };
enum group {
    GROUP_ALWAYS,
    GROUP_PICTURES,
    GROUP_PROMPT,
    GROUP_BALANCED,
    GROUP_CALIBRATED,
    GROUP_VARIANT /* integers and names that are 0 where they are absent */
};

static const char *const fit_names[] = {"pad", "crop", "squash", NULL};
static const char *const activation_names[] = {
    "none", "quick_gelu", "gelu", "gelu_tanh", "silu", "relu", "hardswish", "hardsigmoid", NULL};
static const char *const projector_names[] = {"mlp", "ldp", "ldpv2", NULL};
static const char *const tokenizer_names[] = {"sentencepiece_bpe", "byte_bpe", NULL};
static const char *const pre_tokenizer_names[] = {"none", "gpt2", "qwen2", NULL};
static const char *const norm_names[] = {"rms_norm", "layer_norm", NULL};

/* Bounds keep every product of a few sizes far below 2^63. */
static const struct field {
    const char *key;
    enum form form;
    enum group group;
    size_t offset;
    double least, most; /* of the value; of each number of a list */
    const char *const *names;
} fields[] = {
#define AT(member) offsetof(struct description, member)
    {"name", FORM_TEXT, GROUP_ALWAYS, AT(name), 0, 0, NULL},
    {"image.size", FORM_INTEGER, GROUP_ALWAYS, AT(image.size), 0, 4096, NULL},
    {"image.fit", FORM_NAME, GROUP_PICTURES, AT(image.fit), 0, 0, fit_names},
    {"image.pad_colour", FORM_NUMBERS, GROUP_PICTURES, AT(image.pad_colour), 0, 255, NULL},
    {"image.mean", FORM_NUMBERS, GROUP_PICTURES, AT(image.mean), -10, 10, NULL},
    {"image.std", FORM_NUMBERS, GROUP_PICTURES, AT(image.std), 1e-6, 100, NULL},
    {"vision.patch_size", FORM_INTEGER, GROUP_PICTURES, AT(vision.patch_size), 1, 1024, NULL},
    {"vision.width", FORM_INTEGER, GROUP_PICTURES, AT(vision.width), 1, 65536, NULL},
    {"vision.ffn", FORM_INTEGER, GROUP_PICTURES, AT(vision.ffn), 1, 262144, NULL},
    {"vision.n_layers", FORM_INTEGER, GROUP_PICTURES, AT(vision.n_layers), 0, 1024, NULL},
    {"vision.n_heads", FORM_INTEGER, GROUP_PICTURES, AT(vision.n_heads), 1, 1024, NULL},
    {"vision.norm_eps", FORM_REAL, GROUP_PICTURES, AT(vision.norm_eps), 0, 1, NULL},
    {"vision.activation", FORM_NAME, GROUP_PICTURES, AT(vision.activation), 0, 0, activation_names},
    {"vision.class_token", FORM_INTEGER, GROUP_PICTURES, AT(vision.class_token), 0, 1, NULL},
    {"vision.pre_norm", FORM_INTEGER, GROUP_PICTURES, AT(vision.pre_norm), 0, 1, NULL},
    {"vision.patch_bias", FORM_INTEGER, GROUP_PICTURES, AT(vision.patch_bias), 0, 1, NULL},
    {"projector.kind", FORM_NAME, GROUP_PICTURES, AT(projector.kind), 0, 0, projector_names},
    {"projector.n_linear", FORM_INTEGER, GROUP_PICTURES, AT(projector.n_linear), 1, MAX_LINEAR,
     NULL},
    {"projector.grid", FORM_INTEGER, GROUP_PICTURES, AT(projector.grid), 0, 256, NULL},
    {"projector.squeeze", FORM_INTEGER, GROUP_PICTURES, AT(projector.squeeze), 0, 65536, NULL},
    {"projector.norm_eps", FORM_REAL, GROUP_PICTURES, AT(projector.norm_eps), 0, 1, NULL},
    {"decoder.hidden", FORM_INTEGER, GROUP_ALWAYS, AT(decoder.hidden), 1, 65536, NULL},
    {"decoder.ffn", FORM_INTEGER, GROUP_ALWAYS, AT(decoder.ffn), 1, 262144, NULL},
    {"decoder.n_layers", FORM_INTEGER, GROUP_ALWAYS, AT(decoder.n_layers), 1, 1024, NULL},
    {"decoder.n_heads", FORM_INTEGER, GROUP_ALWAYS, AT(decoder.n_heads), 1, 1024, NULL},
    {"decoder.n_kv_heads", FORM_INTEGER, GROUP_ALWAYS, AT(decoder.n_kv_heads), 1, 1024, NULL},
    {"decoder.head_dim", FORM_INTEGER, GROUP_ALWAYS, AT(decoder.head_dim), 2, 1024, NULL},
    {"decoder.vocab", FORM_INTEGER, GROUP_ALWAYS, AT(decoder.vocab), 1, 4194304, NULL},
    {"decoder.norm_eps", FORM_REAL, GROUP_ALWAYS, AT(decoder.norm_eps), 0, 1, NULL},
    {"decoder.activation", FORM_NAME, GROUP_ALWAYS, AT(decoder.activation), 0, 0, activation_names},
    {"decoder.rope_theta", FORM_REAL, GROUP_ALWAYS, AT(decoder.rope_theta), 1, 1e12, NULL},
    {"decoder.rope_scale", FORM_REAL, GROUP_ALWAYS, AT(decoder.rope_scale), 1e-3, 1e3, NULL},
    {"decoder.rope_dims", FORM_INTEGER, GROUP_ALWAYS, AT(decoder.rope_dims), 0, 1024, NULL},
    {"decoder.context", FORM_INTEGER, GROUP_ALWAYS, AT(decoder.context), 1, 1048576, NULL},
    {"decoder.tied_head", FORM_INTEGER, GROUP_ALWAYS, AT(decoder.tied_head), 0, 1, NULL},
    {"tokenizer.kind", FORM_NAME, GROUP_ALWAYS, AT(tokenizer.kind), 0, 0, tokenizer_names},
    {"tokenizer.unk_id", FORM_INTEGER, GROUP_ALWAYS, AT(tokenizer.unk_id), -1, 4194304, NULL},
    {"tokenizer.bos_id", FORM_INTEGER, GROUP_ALWAYS, AT(tokenizer.bos_id), -1, 4194304, NULL},
    {"tokenizer.eos_id", FORM_INTEGER, GROUP_ALWAYS, AT(tokenizer.eos_id), -1, 4194304, NULL},
    {"tokenizer.pad_id", FORM_INTEGER, GROUP_ALWAYS, AT(tokenizer.pad_id), -1, 4194304, NULL},
    {"tokenizer.add_bos", FORM_INTEGER, GROUP_ALWAYS, AT(tokenizer.add_bos), 0, 1, NULL},
    {"tokenizer.legacy", FORM_INTEGER, GROUP_ALWAYS, AT(tokenizer.legacy), 0, 1, NULL},
    {"tokenizer.add_dummy_prefix", FORM_INTEGER, GROUP_ALWAYS, AT(tokenizer.add_dummy_prefix), 0, 1,
     NULL},
    {"tokenizer.remove_extra_whitespaces", FORM_INTEGER, GROUP_ALWAYS,
     AT(tokenizer.remove_extra_whitespaces), 0, 1, NULL},
    {"tokenizer.escape_whitespaces", FORM_INTEGER, GROUP_ALWAYS, AT(tokenizer.escape_whitespaces),
     0, 1, NULL},
    {"tokenizer.whitespace_as_suffix", FORM_INTEGER, GROUP_ALWAYS,
     AT(tokenizer.whitespace_as_suffix), 0, 1, NULL},
    {"tokenizer.byte_fallback", FORM_INTEGER, GROUP_ALWAYS, AT(tokenizer.byte_fallback), 0, 1,
     NULL},
    {"tokenizer.stop_ids", FORM_NUMBERS, GROUP_ALWAYS, AT(tokenizer.stop_ids), 0, 4194304, NULL},
    {"prompt.present", FORM_INTEGER, GROUP_ALWAYS, AT(prompt.present), 0, 1, NULL},
    {"prompt.system_prefix", FORM_TEXT, GROUP_PROMPT, AT(prompt.system_prefix), 0, 0, NULL},
    {"prompt.system", FORM_TEXT, GROUP_PROMPT, AT(prompt.system), 0, 0, NULL},
    {"prompt.system_suffix", FORM_TEXT, GROUP_PROMPT, AT(prompt.system_suffix), 0, 0, NULL},
    {"prompt.user_prefix", FORM_TEXT, GROUP_PROMPT, AT(prompt.user_prefix), 0, 0, NULL},
    {"prompt.user_suffix", FORM_TEXT, GROUP_PROMPT, AT(prompt.user_suffix), 0, 0, NULL},
    {"prompt.answer_prefix", FORM_TEXT, GROUP_PROMPT, AT(prompt.answer_prefix), 0, 0, NULL},
    {"prompt.answer_suffix", FORM_TEXT, GROUP_PROMPT, AT(prompt.answer_suffix), 0, 0, NULL},
    {"convert.norm_balance", FORM_REAL, GROUP_BALANCED, AT(convert.norm_balance), 0, 1, NULL},
    {"decoder.norm", FORM_NAME, GROUP_VARIANT, AT(decoder.norm), 0, 0, norm_names},
    {"decoder.parallel_block", FORM_INTEGER, GROUP_VARIANT, AT(decoder.parallel_block), 0, 1, NULL},
    {"decoder.plain_ffn", FORM_INTEGER, GROUP_VARIANT, AT(decoder.plain_ffn), 0, 1, NULL},
    {"decoder.qkv_bias", FORM_INTEGER, GROUP_VARIANT, AT(decoder.qkv_bias), 0, 1, NULL},
    {"decoder.out_bias", FORM_INTEGER, GROUP_VARIANT, AT(decoder.out_bias), 0, 1, NULL},
    {"decoder.ffn_bias", FORM_INTEGER, GROUP_VARIANT, AT(decoder.ffn_bias), 0, 1, NULL},
    {"decoder.head_bias", FORM_INTEGER, GROUP_VARIANT, AT(decoder.head_bias), 0, 1, NULL},
    {"decoder.composite_attention", FORM_INTEGER, GROUP_VARIANT, AT(decoder.composite_attention), 0,
     1, NULL},
    {"tokenizer.pre_tokenizer", FORM_NAME, GROUP_VARIANT, AT(tokenizer.pre_tokenizer), 0, 0,
     pre_tokenizer_names},
    {"tokenizer.nfc", FORM_INTEGER, GROUP_VARIANT, AT(tokenizer.nfc), 0, 1, NULL},
    {"tokenizer.added_tokens", FORM_INTEGER, GROUP_VARIANT, AT(tokenizer.added_tokens), 0, 1, NULL},
    {"tokenizer.space_around_added", FORM_INTEGER, GROUP_VARIANT, AT(tokenizer.space_around_added),
     0, 1, NULL},
    {"tokenizer.clean_up_spaces", FORM_INTEGER, GROUP_VARIANT, AT(tokenizer.clean_up_spaces), 0, 1,
     NULL},
    {"convert.calibration", FORM_INTEGER, GROUP_CALIBRATED, AT(convert.calibration), 0, 1e9, NULL},
#undef AT
};
enum { N_FIELDS = sizeof fields / sizeof *fields };

static const char *name_of(const char *const *names, int64_t value)
{
    for (int64_t i = 0; names[i]; i++)
        if (i == value)
            return names[i];
    return NULL;
}

const char *activation_name(int64_t activation)
{
    return name_of(activation_names, activation);
}

const char *projector_kind_name(int64_t kind)
{
    return name_of(projector_names, kind);
}

/* Must the field be there? */
static bool is_present(const struct description *d, const struct field *field)
{
    switch (field->group) {
    case GROUP_ALWAYS:
        break;
    case GROUP_PICTURES:
        return d->image.size > 0;
    case GROUP_PROMPT:
        return d->prompt.present;
    case GROUP_BALANCED:
        return d->convert.norm_balance > 0;
    case GROUP_CALIBRATED:
        return d->convert.calibration > 0;
    case GROUP_VARIANT:
        return *(const int64_t *)(const void *)((const char *)d + field->offset) != 0;
    }
    return true;
}

bool description_varies(const struct description *description)
{
    for (size_t i = 0; i < N_FIELDS; i++)
        if (fields[i].group == GROUP_VARIANT && is_present(description, &fields[i]))
            return true;
    return description->tokenizer.kind != TOKENIZER_SENTENCEPIECE_BPE;
}

/* ---- Reading ---------------------------------------------------------------------------- */

struct entry {
    struct format_field head;
    const char *key;
    const uint8_t *value; /* at a multiple of 8 */
};

static size_t padded(size_t n)
{
    return (n + 7) / 8 * 8;
}

/* The entry at *at, which is moved past it; false when there is no whole entry left. */
static bool next_entry(const uint8_t *bytes, size_t n_bytes, size_t *at, struct entry *entry)
{
    if (n_bytes - *at < sizeof entry->head)
        return false;
    memcpy(&entry->head, bytes + *at, sizeof entry->head);
    const size_t key_space = padded((size_t)entry->head.key_bytes + 1);
    const size_t length = key_space + padded(entry->head.value_bytes);
    if (length > n_bytes - *at - sizeof entry->head || entry->head.reserved)
        return false;
    entry->key = (const char *)bytes + *at + sizeof entry->head;
    entry->value = (const uint8_t *)entry->key + key_space;
    if (entry->key[entry->head.key_bytes] != 0)
        return false;
    *at += sizeof entry->head + length;
    return true;
}

/* A text value: UTF-8, one NUL, and that at its end. */
static bool is_text(const struct entry *entry)
{
    const size_t n = entry->head.value_bytes;
    size_t at;
    return entry->head.kind == MVLM_TEXT && n > 0 &&
           memchr(entry->value, 0, n) == entry->value + n - 1 &&
           utf8_valid((const char *)entry->value, n - 1, &at);
}

static mvlm_status bad_field(const char *name, const char *key, const char *why, mvlm_error *error)
{
    return fail(error, MVLM_BAD_MODEL, "%s: field %s %s", name, key, why);
}

static mvlm_status store_numbers(const char *name, const struct field *field,
                                 const struct entry *entry, struct number_list *list,
                                 mvlm_error *error)
{
    const size_t n = entry->head.value_bytes / sizeof(double);
    if (entry->head.kind != MVLM_REALS || entry->head.value_bytes % sizeof(double) ||
        n > MAX_STOP_IDS)
        return bad_field(name, field->key, "is no list of at most 8 numbers", error);
    list->n = n;
    memcpy(list->value, entry->value, n * sizeof(double));
    for (size_t i = 0; i < n; i++)
        if (!(list->value[i] >= field->least && list->value[i] <= field->most))
            return fail(error, MVLM_BAD_MODEL, "%s: field %s is %g, expected %g to %g", name,
                        field->key, list->value[i], field->least, field->most);
    return MVLM_OK;
}

static mvlm_status store_number(const char *name, const struct field *field,
                                const struct entry *entry, void *place, mvlm_error *error)
{
    const bool integer = field->form == FORM_INTEGER;
    if (entry->head.kind != (integer ? MVLM_INTEGER : MVLM_REAL) || entry->head.value_bytes != 8)
        return bad_field(name, field->key, integer ? "is no integer" : "is no number", error);
    memcpy(place, entry->value, 8);
    const double value = integer ? (double)*(int64_t *)place : *(double *)place;
    if (!(value >= field->least && value <= field->most))
        return fail(error, MVLM_BAD_MODEL, "%s: field %s is %g, expected %g to %g", name,
                    field->key, value, field->least, field->most);
    return MVLM_OK;
}

static mvlm_status store_name(const char *name, const struct field *field,
                              const struct entry *entry, int64_t *place, mvlm_error *error)
{
    if (!is_text(entry))
        return bad_field(name, field->key, "is no text", error);
    for (*place = 0; field->names[*place]; ++*place)
        if (strcmp(field->names[*place], (const char *)entry->value) == 0)
            return MVLM_OK;
    return fail(error, MVLM_BAD_MODEL,
                "%s: field %s is \"%.40s\", which this program does not know", name, field->key,
                (const char *)entry->value);
}

static mvlm_status store(const char *name, const struct field *field, const struct entry *entry,
                         struct description *description, mvlm_error *error)
{
    void *place = (char *)description + field->offset;
    switch (field->form) {
    case FORM_INTEGER:
    case FORM_REAL:
        return store_number(name, field, entry, place, error);
    case FORM_NUMBERS:
        return store_numbers(name, field, entry, place, error);
    case FORM_NAME:
        return store_name(name, field, entry, place, error);
    case FORM_TEXT:
        break;
    }
    if (!is_text(entry))
        return bad_field(name, field->key, "is no text", error);
    *(const char **)place = (const char *)entry->value;
    return MVLM_OK;
}

mvlm_status description_decode(const char *name, const uint8_t *bytes, size_t n_bytes,
                               struct description *description, mvlm_error *error)
{
    bool seen[N_FIELDS] = {false};
    struct entry entry;
    size_t at = 0;
    memset(description, 0, sizeof *description);
    while (next_entry(bytes, n_bytes, &at, &entry))
        for (size_t i = 0; i < N_FIELDS; i++)
            if (strcmp(entry.key, fields[i].key) == 0) {
                if (seen[i])
                    return bad_field(name, fields[i].key, "stands twice", error);
                seen[i] = true;
                TRY(store(name, &fields[i], &entry, description, error));
            }
    if (at != n_bytes)
        return fail(error, MVLM_BAD_MODEL,
                    "%s: description ends within a field, at byte %zu of %zu", name, at, n_bytes);
    for (size_t i = 0; i < N_FIELDS; i++)
        if (!seen[i] && is_present(description, &fields[i]))
            return bad_field(name, fields[i].key, "is missing", error);
    return description_check(name, description, error);
}

bool description_field(const uint8_t *bytes, size_t n_bytes, size_t index, mvlm_field *field)
{
    struct entry entry;
    size_t at = 0;
    for (size_t i = 0; i <= index; i++)
        if (!next_entry(bytes, n_bytes, &at, &entry))
            return false;
    *field = (mvlm_field){.key = entry.key};
    const size_t n = entry.head.value_bytes;
    if (entry.head.kind == MVLM_INTEGER && n == 8)
        memcpy(&field->integer, entry.value, 8);
    else if (entry.head.kind == MVLM_REAL && n == 8) {
        field->kind = MVLM_REAL;
        memcpy(&field->real, entry.value, 8);
    } else if (entry.head.kind == MVLM_REALS) {
        field->kind = MVLM_REALS;
        field->reals = (const double *)(const void *)entry.value;
        field->n_reals = n / sizeof(double);
    } else {
        field->kind = MVLM_TEXT;
        field->text = is_text(&entry) ? (const char *)entry.value : "";
    }
    return true;
}

/* ---- Writing ---------------------------------------------------------------------------- */

static size_t put_entry(uint8_t *bytes, const char *key, uint8_t kind, const void *value,
                        size_t value_bytes)
{
    const struct format_field head = {
        .kind = kind, .key_bytes = (uint8_t)strlen(key), .value_bytes = (uint32_t)value_bytes};
    const size_t key_space = padded((size_t)head.key_bytes + 1);
    const size_t length = key_space + padded(value_bytes);
    if (bytes) {
        memset(bytes, 0, sizeof head + length);
        memcpy(bytes, &head, sizeof head);
        memcpy(bytes + sizeof head, key, head.key_bytes);
        memcpy(bytes + sizeof head + key_space, value, value_bytes);
    }
    return sizeof head + length;
}

static size_t put_field(const struct description *description, const struct field *field,
                        uint8_t *bytes)
{
    const void *place = (const char *)description + field->offset;
    const struct number_list *list = place;
    const char *text;
    switch (field->form) {
    case FORM_INTEGER:
        return put_entry(bytes, field->key, MVLM_INTEGER, place, 8);
    case FORM_REAL:
        return put_entry(bytes, field->key, MVLM_REAL, place, 8);
    case FORM_NUMBERS:
        return put_entry(bytes, field->key, MVLM_REALS, list->value, list->n * sizeof(double));
    case FORM_NAME:
        text = name_of(field->names, *(const int64_t *)place);
        break;
    default:
        text = *(const char *const *)place;
    }
    return put_entry(bytes, field->key, MVLM_TEXT, text, strlen(text) + 1);
}

size_t description_encode(const struct description *description, uint8_t *bytes)
{
    size_t n = 0;
    for (size_t i = 0; i < N_FIELDS; i++)
        if (is_present(description, &fields[i]))
            n += put_field(description, &fields[i], bytes ? bytes + n : NULL);
    return n;
}
