#include "prompt.h"

#include <stdlib.h>
#include <string.h>

#include "format.h"
#include "status.h"
#include "utf8.h"

static const char image_mark[] = "<image>";
enum { IMAGE_MARK_BYTES = sizeof image_mark - 1 };

/* Text under construction; each byte is marked with what may be read in it. */
enum trust {
    PLAIN,
    MARKS /* <image> is read */,
    SPECIAL /* special tokens and <image> are read */
};

struct text {
    char *bytes;
    unsigned char *trust; /* [n], enum trust */
    size_t n, capacity;
};

static mvlm_status text_add(struct text *text, const char *bytes, enum trust trust,
                            mvlm_error *error)
{
    const size_t n = strlen(bytes);
    if (text->capacity - text->n <= n) { /* never NULL, even when there is no text */
        const size_t capacity = 2 * (text->n + n) + 64;
        char *more_bytes = realloc(text->bytes, capacity);
        if (more_bytes)
            text->bytes = more_bytes;
        unsigned char *more_trust = realloc(text->trust, capacity);
        if (more_trust)
            text->trust = more_trust;
        if (!more_bytes || !more_trust)
            return fail_no_memory(error, "the prompt", capacity);
        text->capacity = capacity;
    }
    memcpy(text->bytes + text->n, bytes, n);
    memset(text->trust + text->n, (int)trust, n);
    text->n += n;
    return MVLM_OK;
}

static void text_close(struct text *text)
{
    free(text->bytes);
    free(text->trust);
}

static size_t count_marks(const char *text)
{
    size_t n = 0;
    for (const char *at = text; (at = strstr(at, image_mark)) != NULL; at += IMAGE_MARK_BYTES)
        n++;
    return n;
}

/* The questions' texts, and their marks (where marks are read) against the pictures. *n_first is
 * how many pictures stand before the first question because there are no marks at all. */
static mvlm_status check_question(const mvlm_question *question, bool marks_read, size_t *n_first,
                                  mvlm_error *error)
{
    size_t n_marks = 0, at;
    if (question->n_turns == 0 || question->turns[question->n_turns - 1].answer)
        return fail(error, MVLM_USAGE, "the last turn must be a question without an answer");
    for (size_t i = 0; i < question->n_turns; i++) {
        const mvlm_turn *turn = &question->turns[i];
        if (!turn->question || (i + 1 < question->n_turns && !turn->answer))
            return fail(error, MVLM_USAGE, "turn %zu lacks its question or its answer", i + 1);
        if (!*turn->question && !question->raw)
            return fail(error, MVLM_USAGE, "the prompt is empty");
        if (!utf8_valid(turn->question, strlen(turn->question), &at))
            return fail(error, MVLM_USAGE, "the prompt is no valid UTF-8: byte 0x%02x at %zu",
                        (unsigned char)turn->question[at], at);
        if (turn->answer && !utf8_valid(turn->answer, strlen(turn->answer), &at))
            return fail(error, MVLM_USAGE, "answer %zu is no valid UTF-8 at byte %zu", i + 1, at);
        n_marks += marks_read ? count_marks(turn->question) : 0;
    }
    if (question->system && !utf8_valid(question->system, strlen(question->system), &at))
        return fail(error, MVLM_USAGE, "the system text is no valid UTF-8 at byte %zu", at);
    *n_first = n_marks ? 0 : question->n_pictures;
    if (n_marks && n_marks != question->n_pictures)
        return fail(error, MVLM_USAGE, "%zu %s marks in the prompt, but %zu pictures", n_marks,
                    image_mark, question->n_pictures);
    return MVLM_OK;
}

static mvlm_status add_first_pictures(size_t n, struct text *text, mvlm_error *error)
{
    for (size_t i = 0; i < n; i++)
        TRY(text_add(text, "<image>\n", MARKS, error));
    return MVLM_OK;
}

static mvlm_status add_turn(const struct description *d, const mvlm_turn *turn, size_t n_first,
                            struct text *text, mvlm_error *error)
{
    TRY(text_add(text, d->prompt.user_prefix, SPECIAL, error));
    TRY(add_first_pictures(n_first, text, error));
    TRY(text_add(text, turn->question, takes_pictures(d) ? MARKS : PLAIN, error));
    TRY(text_add(text, d->prompt.user_suffix, SPECIAL, error));
    if (!turn->answer)
        return MVLM_OK;
    TRY(text_add(text, d->prompt.answer_prefix, SPECIAL, error));
    TRY(text_add(text, turn->answer, PLAIN, error));
    return text_add(text, d->prompt.answer_suffix, SPECIAL, error);
}

/* The whole conversation as one text. */
static mvlm_status compose(const struct mvlm_model *model, const mvlm_question *question,
                           struct text *text, mvlm_error *error)
{
    const struct description *d = &model->description;
    size_t n_first;
    TRY(check_question(question, question->raw || takes_pictures(d), &n_first, error));
    if (question->raw || !d->prompt.present) {
        if (question->n_turns != 1)
            return fail(error, MVLM_USAGE, "%zu turns, but a prompt without a template is one text",
                        question->n_turns);
        if (!question->raw && question->system)
            return fail(error, MVLM_USAGE, "a system text, but this base model has no template");
        TRY(add_first_pictures(n_first, text, error));
        return text_add(text, question->turns[0].question,
                        question->raw       ? SPECIAL
                        : takes_pictures(d) ? MARKS
                                            : PLAIN,
                        error);
    }
    TRY(text_add(text, d->prompt.system_prefix, SPECIAL, error));
    if (question->system)
        TRY(text_add(text, question->system, PLAIN, error));
    else
        TRY(text_add(text, d->prompt.system, SPECIAL, error));
    TRY(text_add(text, d->prompt.system_suffix, SPECIAL, error));
    for (size_t i = 0; i < question->n_turns; i++)
        TRY(add_turn(d, &question->turns[i], i ? 0 : n_first, text, error));
    return MVLM_OK;
}

/* How many bytes from `at` on are at least so trusted? At most `most` are counted. */
static size_t trusted(const struct text *text, size_t at, size_t most, enum trust trust)
{
    size_t n = 0;
    while (n < most && at + n < text->n && text->trust[at + n] >= trust)
        n++;
    return n;
}

/* The id that is cut out at `at` (MVLM_IMAGE_ID for a mark); -1: none. */
static int32_t cut_at(const struct tokenizer *tokenizer, const struct text *text, size_t at,
                      size_t *length)
{
    const size_t left = text->n - at;
    if (left >= IMAGE_MARK_BYTES && memcmp(text->bytes + at, image_mark, IMAGE_MARK_BYTES) == 0 &&
        trusted(text, at, IMAGE_MARK_BYTES, MARKS) == IMAGE_MARK_BYTES) {
        *length = IMAGE_MARK_BYTES;
        return MVLM_IMAGE_ID;
    }
    if (!tokenizer_begins_cut(tokenizer, text->bytes[at]))
        return -1;
    return tokenizer_cut_at(tokenizer, text->bytes + at, left,
                            trusted(text, at, tokenizer->longest, SPECIAL), length);
}

/* How white space is treated in a text that begins a chunk, and in one behind a token that was cut out. */
struct leads {
    enum lead first, later;
};

/* As transformers' tokenizer does it. With the `legacy` flag each text gets a dummy prefix, else only one that
 * begins a chunk; byte_bpe knows none. */
static struct leads leads_of(const struct tokenizer *tokenizer)
{
    const bool legacy = tokenizer->description->tokenizer.legacy;
    if (tokenizer->description->tokenizer.kind == TOKENIZER_BYTE_BPE)
        return (struct leads){LEAD_NONE, LEAD_NONE};
    return legacy ? (struct leads){LEAD_MODEL, LEAD_MODEL} : (struct leads){LEAD_MARK, LEAD_NONE};
}

/* A text between two cuts, with a token behind it whose flags are these. */
static mvlm_status encode_between(const struct tokenizer *tokenizer, const char *text,
                                  size_t n_bytes, enum lead lead, unsigned flags,
                                  struct id_list *list, mvlm_error *error)
{
    size_t n = n_bytes;
    if (flags & PIECE_STRIPS_LEFT)
        n = utf8_trimmed(text, n_bytes);
    if (n)
        return tokenizer_encode(tokenizer, text, n, lead, list, error);
    /* the dummy prefix stays before what transformers does not count among the special tokens */
    if (lead == LEAD_MARK && flags & PIECE_APART)
        return tokenizer_encode(tokenizer, " ", 1, LEAD_NONE, list, error);
    return MVLM_OK;
}

/* Text -> ids, as transformers' tokenizer encodes each chunk between pictures: tokens that are cut out by
 * their ids, the text between them each on its own. */
static mvlm_status encode(const struct tokenizer *tokenizer, const struct text *text,
                          struct leads leads, struct id_list *list, mvlm_error *error)
{
    size_t begin = 0, length;
    bool chunk_begins = true;
    for (size_t at = 0; at <= text->n; at += length) {
        length = 1;
        const bool end = at == text->n;
        const int32_t id = end ? -1 : cut_at(tokenizer, text, at, &length);
        if (!end && id == -1)
            continue;
        const unsigned flags = id < 0 ? 0 : tokenizer->pieces[id].flags;
        TRY(encode_between(tokenizer, text->bytes + begin, at - begin,
                           chunk_begins ? leads.first : leads.later, flags, list, error));
        if (id != -1)
            TRY(id_list_add(list, id, error));
        chunk_begins = id == MVLM_IMAGE_ID;
        size_t space;
        while (flags & PIECE_STRIPS_RIGHT && at + length < text->n &&
               utf8_is_space(text->bytes + at + length, text->n - at - length, &space))
            length += space;
        begin = at + length;
    }
    return MVLM_OK;
}

/* The question's marks have been counted; a template could hold another, or make one with what stands beside it. */
static mvlm_status check_places(const struct mvlm_model *model, const mvlm_question *question,
                                const struct id_list *list, mvlm_error *error)
{
    size_t n = 0;
    for (size_t i = 0; i < list->n; i++)
        n += list->ids[i] == MVLM_IMAGE_ID;
    return n == question->n_pictures
               ? MVLM_OK
               : fail(error, MVLM_BAD_MODEL, "%s: its template makes %zu places of %zu pictures",
                      model->weights.path, n, question->n_pictures);
}

mvlm_status prompt_ids(const struct mvlm_model *model, const mvlm_question *question,
                       struct id_list *list, mvlm_error *error)
{
    const struct description *d = &model->description;
    struct text text = {0};
    if (question->n_pictures && !takes_pictures(d))
        return fail(error, MVLM_USAGE, "%zu pictures, but %s is a text-only model",
                    question->n_pictures, model->weights.path);
    mvlm_status status = compose(model, question, &text, error);
    if (status == MVLM_OK && d->tokenizer.add_bos)
        status = id_list_add(list, (int32_t)d->tokenizer.bos_id, error);
    if (status == MVLM_OK)
        status = encode(model->tokenizer, &text, leads_of(model->tokenizer), list, error);
    if (status == MVLM_OK)
        status = check_places(model, question, list, error);
    text_close(&text);
    return status;
}

mvlm_status mvlm_question_rows(const mvlm_model *model, const mvlm_question *question,
                               size_t *n_rows, mvlm_error *error)
{
    struct id_list list = {0};
    const mvlm_status status = prompt_ids(model, question, &list, error);
    *n_rows = 0;
    for (size_t i = 0; status == MVLM_OK && i < list.n; i++)
        *n_rows += list.ids[i] == MVLM_IMAGE_ID ? image_tokens(&model->description) : 1;
    free(list.ids);
    TRY(weights_intact(&model->weights, error)); /* or the text is not at fault */
    return status;
}

static mvlm_status tokenize_text(const struct mvlm_model *model, const char *bytes, size_t n_bytes,
                                 int flags, struct id_list *list, mvlm_error *error)
{
    const struct tokenizer *tokenizer = model->tokenizer;
    size_t at;
    if (!utf8_valid(bytes, n_bytes, &at))
        return fail(error, MVLM_USAGE, "text is no valid UTF-8: byte 0x%02x at %zu",
                    (unsigned char)bytes[at], at);
    if ((flags & MVLM_ADD_BOS) && model->description.tokenizer.bos_id >= 0)
        TRY(id_list_add(list, (int32_t)model->description.tokenizer.bos_id, error));
    const bool special = flags & MVLM_READ_SPECIAL;
    unsigned char *trust = malloc(n_bytes + 1);
    if (!trust)
        return fail_no_memory(error, "the text", n_bytes);
    memset(trust, special ? SPECIAL : PLAIN, n_bytes + 1);
    const struct text text = {(char *)(uintptr_t)bytes, trust, n_bytes, n_bytes};
    const struct leads plain = {LEAD_MODEL, LEAD_MODEL};
    const mvlm_status status =
        encode(tokenizer, &text, special ? leads_of(tokenizer) : plain, list, error);
    free(trust);
    return status;
}

mvlm_status mvlm_tokenize(const mvlm_model *model, const char *text, size_t n_bytes, int flags,
                          int32_t *ids, size_t capacity, size_t *n_ids, mvlm_error *error)
{
    struct id_list list = {0};
    *n_ids = 0;
    const mvlm_status status = tokenize_text(model, text, n_bytes, flags, &list, error);
    if (status == MVLM_OK) {
        *n_ids = list.n;
        if (list.n && capacity)
            memcpy(ids, list.ids, (list.n < capacity ? list.n : capacity) * sizeof *ids);
    }
    free(list.ids);
    TRY(weights_intact(&model->weights, error));
    return status;
}
