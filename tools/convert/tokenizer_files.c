/* Source of the rules: transformers' slow tokenizers (of tokenizer.json: its fast ones). */
#include "tokenizer_files.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "status.h"
#include "json_file.h"
#include "text.h"
#include "tokenizer.h"

static const char config_name[] = "tokenizer_config.json", map_name[] = "special_tokens_map.json",
                  added_name[] = "added_tokens.json", decoder_key[] = "added_tokens_decoder",
                  additional[] = "additional_special_tokens";

/* ---- Classes ---------------------------------------------------------------------------- */

/* Special tokens that a class has by itself, in the order of `roles`. */
enum { ROLE_UNK, ROLE_BOS, ROLE_EOS, ROLE_PAD, N_ROLES };
static const char *const roles[N_ROLES] = {"unk_token", "bos_token", "eos_token", "pad_token"};

/* What the published tokenizers' classes do where tokenizer_config.json is silent. */
static const struct tokenizer_class {
    const char *names[2];
    enum tokenizer_kind kind;
    enum pre_tokenizer pre_tokenizer;
    bool nfc, add_bos, space_around_added, clean_up_spaces;
    const char *special[N_ROLES];
} classes[] = {
    {.names = {"LlamaTokenizer"},
     .kind = TOKENIZER_SENTENCEPIECE_BPE,
     .add_bos = true,
     .space_around_added = true,
     .special = {"<unk>", "<s>", "</s>", NULL}},
    {.names = {"CodeGenTokenizer", "GPT2Tokenizer"},
     .kind = TOKENIZER_BYTE_BPE,
     .pre_tokenizer = PRE_TOKENIZER_GPT2,
     .space_around_added = true,
     .clean_up_spaces = true,
     .special = {"<|endoftext|>", "<|endoftext|>", "<|endoftext|>", NULL}},
    {.names = {"Qwen2Tokenizer"},
     .kind = TOKENIZER_BYTE_BPE,
     .pre_tokenizer = PRE_TOKENIZER_QWEN2,
     .nfc = true,
     .special = {"<|endoftext|>", NULL, "<|endoftext|>", "<|endoftext|>"}},
};
/* tokenizer.json says itself what it does to a text. */
static const struct tokenizer_class fast_class = {.kind = TOKENIZER_BYTE_BPE,
                                                  .clean_up_spaces = true};

enum { MOST_ADDED = 4096 };

struct files {
    json_t *config, *map, *added; /* NULL: not there */
    const json_t *tokenizer;      /* tokenizer.json; NULL: not read */
    const struct tokenizer_class *class;
    struct vocabulary *v;
};

static mvlm_status find_class(struct files *f, mvlm_error *error)
{
    const char *name;
    TRY(json_text_field(config_name, f->config, "tokenizer_class", "", &name, error));
    size_t n = strlen(name);
    if (ends_with(name, "Fast"))
        n -= 4;
    if (f->v->settings.kind == TOKENIZER_SENTENCEPIECE_BPE)
        f->class = &classes[0]; /* tokenizer.model says the rest */
    else if (f->tokenizer)
        f->class = &fast_class;
    for (size_t i = 0; !f->class && i < sizeof classes / sizeof *classes; i++)
        for (size_t k = 0; k < 2 && classes[i].names[k]; k++)
            if (strncmp(classes[i].names[k], name, n) == 0 && classes[i].names[k][n] == 0 &&
                classes[i].kind == TOKENIZER_BYTE_BPE)
                f->class = &classes[i];
    if (!f->class)
        return fail(
            error, MVLM_BAD_MODEL,
            "%s: \"tokenizer_class\" \"%.60s\" is not supported with vocab.json (CodeGen's, "
            "GPT2's and Qwen2's are)",
            config_name, name);
    if (!f->tokenizer) {
        f->v->settings.pre_tokenizer = f->class->pre_tokenizer;
        f->v->settings.nfc = f->class->nfc;
    }
    return MVLM_OK;
}

/* ---- Special tokens --------------------------------------------------------------------- */

/* A token is written as its text, or as an object that holds it. */
static const char *text_of(const json_t *token)
{
    return json_string_value(json_is_object(token) ? json_object_get(token, "content") : token);
}

/* The text that plays a role; NULL: none. special_tokens_map.json counts where the configuration does not list
 * what was added. */
static const char *role_text(const struct files *f, size_t role)
{
    const json_t *token = json_object_get(f->config, roles[role]);
    if (!token && !json_object_get(f->config, decoder_key))
        token = json_object_get(f->map, roles[role]);
    return token ? text_of(token) : f->class->special[role];
}

static bool lists(const json_t *array, const char *text)
{
    for (size_t i = 0; i < json_array_size(array); i++) {
        const char *one = text_of(json_array_get(array, i));
        if (one && strcmp(one, text) == 0)
            return true;
    }
    return false;
}

/* Is it one of those that decoding leaves out? */
static bool is_hidden(const struct files *f, const char *text, bool special)
{
    if (f->tokenizer)
        return special;
    for (size_t role = 0; role < N_ROLES; role++) {
        const char *one = role_text(f, role);
        if (one && strcmp(one, text) == 0)
            return true;
    }
    const bool listed = json_object_get(f->config, decoder_key);
    return lists(json_object_get(f->config, additional), text) ||
           (!listed && lists(json_object_get(f->map, additional), text));
}

/* ---- Added tokens ----------------------------------------------------------------------- */

struct added {
    int64_t id;
    const char *text;
    bool strips_left, strips_right, special;
};

static mvlm_status bad_added(const char *file, const struct added *added, const char *why,
                             mvlm_error *error)
{
    return fail(error, MVLM_BAD_MODEL, "%s: added token \"%.60s\" (id %lld) %s", file,
                added->text ? added->text : "", (long long)added->id, why);
}

/* Of a piece that is there already, or is the next to come. */
static mvlm_status add_token(const char *file, const struct files *f, const struct added *added,
                             mvlm_error *error)
{
    struct vocabulary *v = f->v;
    const size_t n_bytes = added->text ? strlen(added->text) : 0;
    if (n_bytes == 0 || n_bytes > UINT16_MAX)
        return bad_added(file, added, "has no text of 1 to 65535 bytes", error);
    if (added->id < 0 || added->id > (int64_t)v->n_pieces)
        return bad_added(file, added, "leaves a hole in the ids", error);
    if (added->id == (int64_t)v->n_pieces) {
        TRY(vocabulary_reserve(v, v->n_pieces + 1, error));
        TRY(vocabulary_set_text(v, v->n_pieces, added->text, n_bytes, error));
        v->n_pieces++;
    }
    struct vocabulary_piece *piece = &v->pieces[added->id];
    if (piece->n_bytes != n_bytes || memcmp(piece->text, added->text, n_bytes) != 0)
        return bad_added(file, added, "stands where the vocabulary has another piece", error);
    const bool hidden = is_hidden(f, added->text, added->special);
    if (piece->type != PIECE_UNKNOWN && piece->type != PIECE_CONTROL)
        piece->type = hidden || added->special ? PIECE_CONTROL : PIECE_USER_DEFINED;
    piece->flags = (added->strips_left ? PIECE_STRIPS_LEFT : 0u) |
                   (added->strips_right ? PIECE_STRIPS_RIGHT : 0u) | (hidden ? 0u : PIECE_APART);
    if (piece->flags)
        v->settings.added_tokens = 1;
    return MVLM_OK;
}

/* {"content": text, "lstrip": ...}, as tokenizer_config.json and tokenizer.json write it. */
static mvlm_status read_added(const char *file, int64_t id, const json_t *entry,
                              struct added *added, mvlm_error *error)
{
    bool single_word;
    *added = (struct added){.id = id, .text = json_string_value(json_object_get(entry, "content"))};
    TRY(json_bool_field(file, entry, "lstrip", false, &added->strips_left, error));
    TRY(json_bool_field(file, entry, "rstrip", false, &added->strips_right, error));
    TRY(json_bool_field(file, entry, "special", false, &added->special, error));
    TRY(json_bool_field(file, entry, "single_word", false, &single_word, error));
    return single_word ? bad_added(file, added, "is read as a single word: not supported", error)
                       : MVLM_OK;
}

static int compare_added(const void *a, const void *b)
{
    const struct added *x = a, *y = b;
    return (x->id > y->id) - (x->id < y->id);
}

/* The id that a key spells; -1: none. */
static int64_t id_of_key(const char *key)
{
    char *end;
    const long long id = strtoll(key, &end, 10);
    return *key >= '0' && *key <= '9' && *end == 0 ? id : -1;
}

/* Lists are lists, and not too long: each of their tokens is looked for among the pieces. */
static mvlm_status check_lists(const struct files *f, mvlm_error *error)
{
    const json_t *decoder = json_object_get(f->config, decoder_key),
                 *array = json_object_get(f->tokenizer, "added_tokens");
    if (decoder && !json_is_object(decoder))
        return fail(error, MVLM_BAD_MODEL, "%s: \"%s\" is no object", config_name, decoder_key);
    if (array && !json_is_array(array))
        return fail(error, MVLM_BAD_MODEL, "tokenizer.json: \"added_tokens\" is no list");
    const json_t *const lists[] = {json_object_get(f->config, additional),
                                   json_object_get(f->map, additional)};
    for (size_t i = 0; i < 2; i++)
        if (lists[i] && !json_is_null(lists[i]) && !json_is_array(lists[i]))
            return fail(error, MVLM_BAD_MODEL, "%s: \"%s\" is no list", i ? map_name : config_name,
                        additional);
    for (size_t role = 0; role < N_ROLES; role++) {
        const json_t *token = json_object_get(f->config, roles[role]);
        if (token && !json_is_null(token) && !text_of(token))
            return fail(error, MVLM_BAD_MODEL, "%s: \"%s\" is no token", config_name, roles[role]);
    }
    if (json_object_size(decoder) > MOST_ADDED || json_array_size(array) > MOST_ADDED ||
        json_object_size(f->added) > MOST_ADDED || json_array_size(lists[0]) > MOST_ADDED ||
        json_array_size(lists[1]) > MOST_ADDED)
        return fail(error, MVLM_BAD_MODEL, "more than %d tokens are added", MOST_ADDED);
    return MVLM_OK;
}

/* All that are listed in one of the three places, by id. *list is the caller's to free. */
static mvlm_status list_added(const struct files *f, const char **file, struct added **list,
                              size_t *n, mvlm_error *error)
{
    json_t *decoder = json_object_get(f->config, decoder_key), *entry;
    const json_t *array = json_object_get(f->tokenizer, "added_tokens");
    const char *key;
    *n = 0;
    *list =
        calloc(json_array_size(array) + json_object_size(decoder) + json_object_size(f->added) + 1,
               sizeof **list);
    if (!*list)
        return fail_no_memory(error, "the added tokens", 0);
    *file = f->tokenizer ? "tokenizer.json" : decoder ? config_name : added_name;
    if (f->tokenizer)
        for (size_t i = 0; i < json_array_size(array); i++) {
            entry = json_array_get(array, i);
            const json_t *id = json_object_get(entry, "id");
            TRY(read_added(*file, json_is_integer(id) ? json_integer_value(id) : -1, entry,
                           &(*list)[(*n)++], error));
        }
    else if (decoder)
        json_object_foreach(decoder, key, entry)
            TRY(read_added(*file, id_of_key(key), entry, &(*list)[(*n)++], error));
    else
        json_object_foreach(f->added, key, entry)(*list)[(*n)++] =
            (struct added){.id = json_is_integer(entry) ? json_integer_value(entry) : -1,
                           .text = key,
                           .special = is_hidden(f, key, false)};
    qsort(*list, *n, sizeof **list, compare_added);
    return MVLM_OK;
}

static mvlm_status add_all(const struct files *f, mvlm_error *error)
{
    const char *file = added_name, *key;
    struct added *list = NULL;
    size_t n = 0;
    json_t *id;
    mvlm_status status = list_added(f, &file, &list, &n, error);
    for (size_t i = 0; i < n && status == MVLM_OK; i++)
        status = i && list[i].id == list[i - 1].id
                     ? bad_added(file, &list[i], "has another's id", error)
                     : add_token(file, f, &list[i], error);
    free(list);
    TRY(status);
    /* where two files list them, they must say the same */
    json_object_foreach(f->added, key, id)
    {
        const struct added added = {json_is_integer(id) ? json_integer_value(id) : -1, key, 0, 0,
                                    0};
        const int64_t found = vocabulary_find(f->v, key);
        if (found < 0 || found != added.id)
            return bad_added(added_name, &added, "is not among the tokenizer's pieces", error);
    }
    return MVLM_OK;
}

/* Special tokens that are pieces of the vocabulary, and listed nowhere. */
static mvlm_status mark_roles(const struct files *f, mvlm_error *error)
{
    struct tokenizer_settings *s = &f->v->settings;
    int64_t *const ids[N_ROLES] = {&s->unk_id, &s->bos_id, &s->eos_id, &s->pad_id};
    for (size_t role = 0; role < N_ROLES && s->kind == TOKENIZER_BYTE_BPE; role++) {
        const char *text = role_text(f, role);
        const int64_t id = text ? vocabulary_find(f->v, text) : -1;
        if (id >= 0) {
            *ids[role] = id;
            f->v->pieces[id].type = PIECE_CONTROL;
        } else if (role == ROLE_EOS && text && json_object_get(f->config, roles[role]))
            return fail(error, MVLM_BAD_MODEL, "%s: \"%s\" \"%.60s\" is no piece", config_name,
                        roles[role], text);
    }
    const json_t *more[] = {
        json_object_get(f->config, additional),
        json_object_get(f->config, decoder_key) ? NULL : json_object_get(f->map, additional)};
    for (size_t k = 0; k < 2; k++)
        for (size_t i = 0; i < json_array_size(more[k]); i++) {
            const char *text = text_of(json_array_get(more[k], i));
            const int64_t id = text ? vocabulary_find(f->v, text) : -1;
            if (id >= 0 && f->v->pieces[id].type == PIECE_NORMAL && s->kind == TOKENIZER_BYTE_BPE)
                f->v->pieces[id].type = PIECE_CONTROL;
        }
    return MVLM_OK;
}

/* ---- Settings --------------------------------------------------------------------------- */

static mvlm_status read_settings(const struct files *f, mvlm_error *error)
{
    bool add_bos, add_eos, legacy, clean_up, split, prefix;
    struct tokenizer_settings *s = &f->v->settings;
    TRY(json_bool_field(config_name, f->config, "add_bos_token", f->class->add_bos, &add_bos,
                        error));
    TRY(json_bool_field(config_name, f->config, "add_eos_token", false, &add_eos, error));
    TRY(json_bool_field(config_name, f->config, "legacy", true, &legacy,
                        error)); /* transformers' default */
    TRY(json_bool_field(config_name, f->config, "clean_up_tokenization_spaces",
                        f->class->clean_up_spaces, &clean_up, error));
    TRY(json_bool_field(config_name, f->config, "split_special_tokens", false, &split, error));
    TRY(json_bool_field(config_name, f->config, "add_prefix_space",
                        s->kind == TOKENIZER_SENTENCEPIECE_BPE, &prefix, error));
    if (split)
        return fail(error, MVLM_BAD_MODEL, "%s: \"split_special_tokens\": true is not supported",
                    config_name);
    if (prefix != (s->kind == TOKENIZER_SENTENCEPIECE_BPE))
        return fail(error, MVLM_BAD_MODEL, "%s: \"add_prefix_space\": %s is not supported",
                    config_name, prefix ? "true" : "false");
    if (add_eos)
        return fail(error, MVLM_BAD_MODEL, "%s: \"add_eos_token\": true is not supported",
                    config_name);
    if (s->kind == TOKENIZER_BYTE_BPE)
        legacy = false; /* nothing is put before a text */
    s->add_bos = add_bos && s->bos_id >= 0;
    s->legacy = legacy;
    s->clean_up_spaces = clean_up;
    s->space_around_added = f->class->space_around_added && s->added_tokens;
    return MVLM_OK;
}

mvlm_status tokenizer_files_read(const char *folder, const json_t *tokenizer, struct vocabulary *v,
                                 mvlm_error *error)
{
    struct files f = {.tokenizer = tokenizer, .v = v};
    mvlm_status status = json_file_load(folder, config_name, true, &f.config, error);
    if (status == MVLM_OK)
        status = json_file_load(folder, map_name, true, &f.map, error);
    if (status == MVLM_OK)
        status = json_file_load(folder, added_name, true, &f.added, error);
    if (status == MVLM_OK)
        status = check_lists(&f, error);
    if (status == MVLM_OK)
        status = find_class(&f, error);
    if (status == MVLM_OK)
        status = add_all(&f, error);
    if (status == MVLM_OK)
        status = mark_roles(&f, error);
    if (status == MVLM_OK)
        status = read_settings(&f, error);
    json_decref(f.config);
    json_decref(f.map);
    json_decref(f.added);
    return status;
}
