#include "pre_tokenize.h"

#include <stdbool.h>
#include <string.h>
#include <utf8proc.h>

#include "utf8.h"

/* What the expressions tell apart. */
enum char_class { CLASS_END, CLASS_LETTER, CLASS_NUMBER, CLASS_SPACE, CLASS_OTHER };

/* Where a word is looked for. */
struct place {
    const char *at, *end;
};

/* Unicode's White_Space, which is what \s means to the `regex` module: its category Z and six
 * controls. */
static bool is_white_space(uint32_t character, utf8proc_category_t category)
{
    return (character >= 0x09 && character <= 0x0d) || character == 0x85 ||
           (category >= UTF8PROC_CATEGORY_ZS && category <= UTF8PROC_CATEGORY_ZP);
}

/* The class of the character at `place`, whose length goes to *length. */
static enum char_class class_at(const struct place *place, size_t *length)
{
    *length = 0;
    if (place->at >= place->end)
        return CLASS_END;
    const uint32_t character = utf8_character(place->at, length);
    const utf8proc_category_t category = utf8proc_category((utf8proc_int32_t)character);
    if (category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO)
        return CLASS_LETTER;
    if (category >= UTF8PROC_CATEGORY_ND && category <= UTF8PROC_CATEGORY_NO)
        return CLASS_NUMBER;
    return is_white_space(character, category) ? CLASS_SPACE : CLASS_OTHER;
}

/* Moves over characters of one class; returns how many bytes that were. */
static size_t skip_class(struct place *place, enum char_class wanted)
{
    const char *begin = place->at;
    for (size_t length; class_at(place, &length) == wanted;)
        place->at += length;
    return (size_t)(place->at - begin);
}

static bool is_line_end(const struct place *place)
{
    return place->at < place->end && (*place->at == '\r' || *place->at == '\n');
}

static void skip_line_ends(struct place *place)
{
    while (is_line_end(place))
        place->at++;
}

/* 's 't 're 've 'm 'll 'd; with `any_case` as (?i:) of the `regex` module reads them, to which U+017F
 * is an s. 0: none stands there. */
static size_t contraction_length(const struct place *place, bool any_case)
{
    static const char *const endings[] = {"s", "t", "re", "ve", "m", "ll", "d"};
    const size_t left = (size_t)(place->end - place->at);
    if (left < 2 || *place->at != '\'')
        return 0;
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
        const size_t n = strlen(endings[i]);
        size_t same = 0;
        while (same < n && same + 1 < left &&
               (place->at[same + 1] == endings[i][same] ||
                (any_case && (place->at[same + 1] | 0x20) == endings[i][same])))
            same++;
        if (same == n)
            return 1 + n;
    }
    return any_case && left > 2 && memcmp(place->at + 1, "\xc5\xbf", 2) == 0 ? 3 : 0;
}

/* ` ?` and then characters of one class: moves behind them if there are any. */
static bool skip_with_space(struct place *place, enum char_class wanted)
{
    struct place word = *place;
    if (word.at < word.end && *word.at == ' ')
        word.at++;
    if (!skip_class(&word, wanted))
        return false;
    *place = word;
    return true;
}

/* \s+(?!\S)|\s+: all white space, but for its last character where a word follows, unless that is the
 * only one. */
static void skip_space(struct place *place)
{
    const char *begin = place->at, *last = begin;
    for (size_t length; class_at(place, &length) == CLASS_SPACE; place->at += length)
        last = place->at;
    if (place->at < place->end && last > begin)
        place->at = last;
}

static void skip_gpt2_word(struct place *place)
{
    if (!skip_with_space(place, CLASS_LETTER) && !skip_with_space(place, CLASS_NUMBER) &&
        !skip_with_space(place, CLASS_OTHER))
        skip_space(place);
}

/* [^\r\n\p{L}\p{N}]?\p{L}+ */
static bool skip_letters(struct place *place)
{
    struct place word = *place;
    size_t length;
    const enum char_class first = class_at(&word, &length);
    if (first != CLASS_LETTER && first != CLASS_NUMBER && !is_line_end(&word))
        word.at += length;
    if (!skip_class(&word, CLASS_LETTER))
        return false;
    *place = word;
    return true;
}

/* \s*[\r\n]+: up to the last line end of the white space that stands there. */
static bool skip_to_line_end(struct place *place)
{
    struct place space = *place;
    const char *last = NULL;
    for (size_t length; class_at(&space, &length) == CLASS_SPACE; space.at += length)
        if (is_line_end(&space))
            last = space.at + 1;
    if (last)
        place->at = last;
    return last;
}

static void skip_qwen2_word(struct place *place)
{
    size_t length;
    if (skip_letters(place))
        return;
    if (class_at(place, &length) == CLASS_NUMBER)
        place->at += length;
    else if (skip_with_space(place, CLASS_OTHER))
        skip_line_ends(place);
    else if (!skip_to_line_end(place))
        skip_space(place);
}

size_t pre_token_length(enum pre_tokenizer kind, const char *text, size_t n_bytes)
{
    struct place place = {text, text + n_bytes};
    const bool qwen2 = kind == PRE_TOKENIZER_QWEN2;
    const size_t contraction = contraction_length(&place, qwen2);
    if (contraction)
        return contraction;
    if (qwen2)
        skip_qwen2_word(&place);
    else
        skip_gpt2_word(&place);
    return (size_t)(place.at - text);
}
