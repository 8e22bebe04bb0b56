#include "byte_bpe_files.h"

#include <stdlib.h>
#include <string.h>

#include "status.h"
#include "json_file.h"
#include "source_file.h"
#include "tokenizer.h"

enum { MOST_MERGES = 1 << 24, MOST_PIECES = 4194304, MOST_FILE = 64 * 1024 * 1024 };

/* Before other files have said what they know. */
static const struct tokenizer_settings no_settings = {
    .kind = TOKENIZER_BYTE_BPE, .unk_id = -1, .bos_id = -1, .eos_id = -1, .pad_id = -1};

/* ---- Pieces ----------------------------------------------------------------------------- */

static mvlm_status add_piece(const char *file, const char *text, const json_t *id,
                             struct vocabulary *v, mvlm_error *error)
{
    const size_t n_bytes = strlen(text);
    const json_int_t value = json_is_integer(id) ? json_integer_value(id) : -1;
    if (value < 0 || value >= (json_int_t)v->n_pieces)
        return fail(error, MVLM_BAD_MODEL,
                    "%s: \"%.60s\" has no id from 0 to %zu: ids have holes, or are none", file,
                    text, v->n_pieces - 1);
    struct vocabulary_piece *piece = &v->pieces[value];
    if (piece->text)
        return fail(error, MVLM_BAD_MODEL, "%s: \"%.*s\" and \"%.60s\" have the same id %lld", file,
                    (int)(piece->n_bytes < 60 ? piece->n_bytes : 60), piece->text, text,
                    (long long)value);
    if (n_bytes == 0 || n_bytes > UINT16_MAX)
        return fail(error, MVLM_BAD_MODEL, "%s: piece %lld has %zu bytes, expected 1 to %d", file,
                    (long long)value, n_bytes, UINT16_MAX);
    piece->type = PIECE_NORMAL;
    return vocabulary_set_text(v, (size_t)value, text, n_bytes, error);
}

/* {"text": id, ...} */
static mvlm_status read_pieces(const char *file, json_t *texts, struct vocabulary *v,
                               mvlm_error *error)
{
    const char *text;
    json_t *id;
    const size_t n = json_object_size(texts);
    if (n == 0 || n > MOST_PIECES)
        return fail(error, MVLM_BAD_MODEL, "%s: %zu pieces, expected 1 to %d", file, n,
                    MOST_PIECES);
    TRY(vocabulary_reserve(v, n, error));
    v->n_pieces = n;
    json_object_foreach(texts, text, id) TRY(add_piece(file, text, id, v, error));
    return MVLM_OK;
}

/* ---- Merges ----------------------------------------------------------------------------- */

struct half {
    const char *text;
    size_t n_bytes;
};

static mvlm_status find_piece(const char *file, size_t line, const json_t *texts, struct half half,
                              uint32_t *id, mvlm_error *error)
{
    char name[QUOTE_SIZE];
    const json_t *found = json_object_getn(texts, half.text, half.n_bytes);
    if (!found)
        return fail(error, MVLM_BAD_MODEL, "%s: merge %zu: \"%s\" is no piece of the vocabulary",
                    file, line, quote(name, half.text, half.n_bytes));
    *id = (uint32_t)json_integer_value(found);
    return MVLM_OK;
}

static mvlm_status add_merge(const char *file, size_t line, const json_t *texts, struct half left,
                             struct half right, struct vocabulary *v, mvlm_error *error)
{
    const size_t n_bytes = left.n_bytes + right.n_bytes;
    struct format_merge *merge = &v->merges[v->n_merges];
    uint32_t merged;
    TRY(find_piece(file, line, texts, left, &merge->left, error));
    TRY(find_piece(file, line, texts, right, &merge->right, error));
    char *text = malloc(n_bytes + 1);
    if (!text)
        return fail_no_memory(error, "a piece", n_bytes);
    memcpy(text, left.text, left.n_bytes);
    memcpy(text + left.n_bytes, right.text, right.n_bytes);
    const mvlm_status status =
        find_piece(file, line, texts, (struct half){text, n_bytes}, &merged, error);
    free(text);
    v->n_merges += status == MVLM_OK;
    return status;
}

static mvlm_status reserve_merges(const char *file, size_t n, struct vocabulary *v,
                                  mvlm_error *error)
{
    if (n > MOST_MERGES)
        return fail(error, MVLM_BAD_MODEL, "%s: %zu merges, at most %d", file, n, MOST_MERGES);
    v->merges = calloc(n + 1, sizeof *v->merges);
    return v->merges ? MVLM_OK : fail_no_memory(error, "merges", n * sizeof *v->merges);
}

/* "left right", as merges.txt and older tokenizer.json write it. */
static mvlm_status add_merge_line(const char *file, size_t line, const json_t *texts,
                                  const char *text, size_t n_bytes, struct vocabulary *v,
                                  mvlm_error *error)
{
    char whole[QUOTE_SIZE];
    const char *space = memchr(text, ' ', n_bytes);
    const size_t left = space ? (size_t)(space - text) : 0, right = n_bytes - left - 1;
    if (left == 0 || right == 0 || memchr(space + 1, ' ', right))
        return fail(error, MVLM_BAD_MODEL,
                    "%s: merge %zu: \"%s\" is no two pieces with a space between", file, line,
                    quote(whole, text, n_bytes));
    return add_merge(file, line, texts, (struct half){text, left}, (struct half){space + 1, right},
                     v, error);
}

/* Lines of a file; the first may say its version. */
static mvlm_status read_merge_lines(const char *file, const char *text, const json_t *texts,
                                    struct vocabulary *v, mvlm_error *error)
{
    static const char version[] = "#version";
    size_t n = 1, line = 0;
    for (const char *at = text; (at = strchr(at, '\n')) != NULL; at++)
        n++;
    TRY(reserve_merges(file, n, v, error));
    for (const char *at = text; *at; line++) {
        size_t n_bytes = strcspn(at, "\n");
        const char *next = at + n_bytes + (at[n_bytes] == '\n');
        if (n_bytes && at[n_bytes - 1] == '\r')
            n_bytes--;
        const bool first = line == 0 && strncmp(at, version, sizeof version - 1) == 0;
        if (n_bytes && !first)
            TRY(add_merge_line(file, line, texts, at, n_bytes, v, error));
        at = next;
    }
    return MVLM_OK;
}

static mvlm_status read_merges_txt(const char *folder, const json_t *texts, struct vocabulary *v,
                                   mvlm_error *error)
{
    static const char name[] = "merges.txt";
    struct source_file file;
    uint8_t *bytes = NULL;
    TRY(source_file_open(folder, name, &file, error));
    mvlm_status status =
        source_file_load(&file, 0, file.n_bytes, MOST_FILE, "merges", &bytes, error);
    if (status == MVLM_OK && memchr(bytes, 0, (size_t)file.n_bytes))
        status = fail(error, MVLM_BAD_MODEL, "%s: holds a NUL", name);
    if (status == MVLM_OK)
        status = read_merge_lines(name, (const char *)bytes, texts, v, error);
    free(bytes);
    source_file_close(&file);
    return status;
}

/* Nearly all pieces of several characters are made by a merge (in the published tokenizers all are): a list that was cut
 * off would spell texts in single bytes. */
static mvlm_status check_merges(const char *file, const struct vocabulary *v, mvlm_error *error)
{
    const size_t most = v->n_pieces > 256 ? v->n_pieces - 256 : 0;
    if (v->n_merges < most - most / 16)
        return fail(error, MVLM_BAD_MODEL, "%s: %zu merges for %zu pieces: is it cut off?", file,
                    v->n_merges, v->n_pieces);
    return MVLM_OK;
}

mvlm_status byte_bpe_read(const char *folder, struct vocabulary *v, mvlm_error *error)
{
    static const char file[] = "vocab.json";
    json_t *texts;
    v->settings = no_settings;
    TRY(json_file_load(folder, file, false, &texts, error));
    mvlm_status status = read_pieces(file, texts, v, error);
    if (status == MVLM_OK)
        status = read_merges_txt(folder, texts, v, error);
    if (status == MVLM_OK)
        status = check_merges("merges.txt", v, error);
    json_decref(texts);
    return status;
}

/* ---- tokenizer.json --------------------------------------------------------------------- */

static const char json_name[] = "tokenizer.json";

static const char *type_of(const json_t *json)
{
    const char *type = json_string_value(json_object_get(json, "type"));
    return type ? type : "";
}

/* Merges as "left right" or as ["left", "right"]. */
static mvlm_status read_json_merges(const json_t *merges, const json_t *texts, struct vocabulary *v,
                                    mvlm_error *error)
{
    if (!json_is_array(merges))
        return fail(error, MVLM_BAD_MODEL, "%s: \"merges\" is no list", json_name);
    TRY(reserve_merges(json_name, json_array_size(merges), v, error));
    for (size_t i = 0; i < json_array_size(merges); i++) {
        const json_t *merge = json_array_get(merges, i), *left = json_array_get(merge, 0),
                     *right = json_array_get(merge, 1);
        if (json_is_string(merge))
            TRY(add_merge_line(json_name, i + 1, texts, json_string_value(merge),
                               json_string_length(merge), v, error));
        else if (json_array_size(merge) == 2 && json_is_string(left) && json_is_string(right))
            TRY(add_merge(json_name, i + 1, texts,
                          (struct half){json_string_value(left), json_string_length(left)},
                          (struct half){json_string_value(right), json_string_length(right)}, v,
                          error));
        else
            return fail(error, MVLM_BAD_MODEL, "%s: merge %zu is no pair of pieces", json_name,
                        i + 1);
    }
    return MVLM_OK;
}

/* What a model of bytes must not have: fields that change how it merges, when they are set. */
static mvlm_status check_json_model(const json_t *model, mvlm_error *error)
{
    static const char *const unset[] = {"dropout",
                                        "continuing_subword_prefix",
                                        "end_of_word_suffix",
                                        "byte_fallback",
                                        "ignore_merges",
                                        NULL};
    if (strcmp(type_of(model), "BPE") != 0 && *type_of(model))
        return fail(error, MVLM_BAD_MODEL, "%s: model \"%.60s\" is not supported, only BPE",
                    json_name, type_of(model));
    for (size_t i = 0; unset[i]; i++) {
        const json_t *value = json_object_get(model, unset[i]);
        const bool empty = !value || json_is_null(value) || json_is_false(value) ||
                           (json_is_string(value) && json_string_length(value) == 0);
        if (!empty)
            return fail(error, MVLM_BAD_MODEL,
                        "%s: a model with \"%s\" is not supported (of LLaMA's kind tokenizer.model "
                        "is read)",
                        json_name, unset[i]);
    }
    return MVLM_OK;
}

/* Qwen2's expression, as its tokenizer.json spells it. */
static const char qwen2_pattern[] =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| "
    "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

/* The step that turns words into the characters that stand for bytes; with `splits` it also splits as GPT-2 does. */
static bool is_byte_level(const json_t *step, bool splits)
{
    const json_t *prefix = json_object_get(step, "add_prefix_space"),
                 *regex = json_object_get(step, "use_regex");
    return strcmp(type_of(step), "ByteLevel") == 0 && json_is_false(prefix) &&
           (regex ? json_is_true(regex) : true) == splits;
}

static bool is_qwen2_split(const json_t *step)
{
    const char *pattern =
        json_string_value(json_object_get(json_object_get(step, "pattern"), "Regex"));
    const char *behavior = json_string_value(json_object_get(step, "behavior"));
    return strcmp(type_of(step), "Split") == 0 && pattern && strcmp(pattern, qwen2_pattern) == 0 &&
           behavior && strcmp(behavior, "Isolated") == 0 &&
           !json_is_true(json_object_get(step, "invert"));
}

/* What is done to the ids: nothing. (ByteLevel only moves offsets.) */
static mvlm_status check_json_ending(const json_t *step, mvlm_error *error)
{
    const json_t *steps = json_object_get(step, "processors");
    if (!step || json_is_null(step) || strcmp(type_of(step), "ByteLevel") == 0)
        return MVLM_OK;
    if (strcmp(type_of(step), "Sequence") != 0)
        return fail(error, MVLM_BAD_MODEL, "%s: post_processor \"%.60s\" is not supported",
                    json_name, type_of(step));
    for (size_t i = 0; i < json_array_size(steps); i++)
        if (strcmp(type_of(json_array_get(steps, i)), "ByteLevel") != 0)
            return fail(error, MVLM_BAD_MODEL, "%s: post_processor \"%.60s\" is not supported",
                        json_name, type_of(json_array_get(steps, i)));
    return MVLM_OK;
}

static mvlm_status read_json_steps(const json_t *json, struct tokenizer_settings *settings,
                                   mvlm_error *error)
{
    const json_t *words = json_object_get(json, "pre_tokenizer"),
                 *steps = json_object_get(words, "pretokenizers"),
                 *normalizer = json_object_get(json, "normalizer");
    if (is_byte_level(words, true))
        settings->pre_tokenizer = PRE_TOKENIZER_GPT2;
    else if (strcmp(type_of(words), "Sequence") == 0 && json_array_size(steps) == 2 &&
             is_qwen2_split(json_array_get(steps, 0)) &&
             is_byte_level(json_array_get(steps, 1), false))
        settings->pre_tokenizer = PRE_TOKENIZER_QWEN2;
    else
        return fail(error, MVLM_BAD_MODEL,
                    "%s: its pre_tokenizer \"%.60s\" is neither GPT-2's nor Qwen2's", json_name,
                    type_of(words));
    TRY(check_json_ending(json_object_get(json, "post_processor"), error));
    settings->nfc = strcmp(type_of(normalizer), "NFC") == 0;
    if (!settings->nfc && normalizer && !json_is_null(normalizer))
        return fail(error, MVLM_BAD_MODEL, "%s: normalizer \"%.60s\" is not supported, only NFC",
                    json_name, type_of(normalizer));
    return MVLM_OK;
}

mvlm_status byte_bpe_read_json(const char *folder, struct vocabulary *v, json_t **json,
                               mvlm_error *error)
{
    v->settings = no_settings;
    TRY(json_file_load(folder, json_name, false, json, error));
    const json_t *model = json_object_get(*json, "model");
    json_t *texts = json_object_get(model, "vocab");
    TRY(check_json_model(model, error));
    TRY(read_json_steps(*json, &v->settings, error));
    TRY(read_pieces(json_name, texts, v, error));
    TRY(read_json_merges(json_object_get(model, "merges"), texts, v, error));
    return check_merges(json_name, v, error);
}
