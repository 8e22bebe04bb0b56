/* Source of the steps: transformers' slow tokenizers. Added tokens that stand apart are cut out, the runs of others
 * between them decoded one by one, and all are joined, by spaces where the model says so. */
#include "detokenize.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "model.h"
#include "status.h"
#include "utf8.h"

/* ---- Cleaning up ------------------------------------------------------------------------ */

/* What tokenizer.clean_up_spaces replaces, one after the other in the whole text. Source: transformers'
 * clean_up_tokenization. */
static const struct {
    const char *text, *becomes;
} clean_ups[N_CLEAN_UPS] = {{" .", "."},     {" ?", "?"},     {" !", "!"},   {" ,", ","},
                            {" ' ", "'"},    {" n't", "n't"}, {" 'm", "'m"}, {" 's", "'s"},
                            {" 've", "'ve"}, {" 're", "'re"}};

struct output {
    struct detokenizer *d;
    char *bytes;
    size_t n;
};

/* Each replacement reads what the one before it gives, and holds back the beginning of a match. (No text's beginning
 * stands within it again but at its end, so what does not match is let go as a whole.) */
static void clean(struct output *out, size_t stage, char byte)
{
    if (stage == N_CLEAN_UPS) {
        out->bytes[out->n++] = byte;
        return;
    }
    const char *text = clean_ups[stage].text, *becomes = clean_ups[stage].becomes;
    unsigned char *held = &out->d->held[stage];
    if (*held && byte != text[*held]) {
        for (unsigned char i = 0; i < *held; i++)
            clean(out, stage + 1, text[i]);
        *held = 0;
    }
    if (byte != text[*held])
        clean(out, stage + 1, byte);
    else if (!text[++*held]) {
        for (; *becomes; becomes++)
            clean(out, stage + 1, *becomes);
        *held = 0;
    }
}

static void put(struct output *out, char byte)
{
    out->d->begun = true;
    clean(out, out->d->tokenizer->description->tokenizer.clean_up_spaces ? 0 : N_CLEAN_UPS, byte);
}

/* ---- Joining ---------------------------------------------------------------------------- */

/* Spaces that are dropped where a run of tokens begins: of the first that which encoding put there, as SentencePiece
 * does; of those behind a token that stands apart one by transformers, and by SentencePiece, which it has told of no dummy
 * prefix unless it works in its legacy way, another or all. (Answers lose all white space at their beginning.) */
static int spaces_to_drop(const struct tokenizer *t, bool first)
{
    const struct tokenizer_settings *settings = &t->description->tokenizer;
    if (settings->kind != TOKENIZER_SENTENCEPIECE_BPE)
        return 0;
    if (first)
        return tokenizer_adds_space(t);
    if (settings->remove_extra_whitespaces)
        return INT_MAX;
    return settings->legacy && settings->add_dummy_prefix ? 2 : 1;
}

static void put_join(struct output *out)
{
    if (out->d->begun && out->d->tokenizer->description->tokenizer.space_around_added)
        put(out, ' ');
}

void detokenizer_start(struct detokenizer *d, const struct tokenizer *tokenizer)
{
    *d = (struct detokenizer){.tokenizer = tokenizer, .n_dropped = spaces_to_drop(tokenizer, true)};
}

size_t detokenizer_push(struct detokenizer *d, int32_t id, char *bytes)
{
    const struct tokenizer *t = d->tokenizer;
    /* the piece's bytes lie behind those that are made of them */
    char *piece = bytes + DETOKENIZED_MORE;
    struct output out = {d, bytes, 0};
    const bool apart = tokenizer_is_apart(t, id);
    const size_t n_bytes = tokenizer_bytes(t, id, piece);
    const bool spelled = tokenizer_is_byte(t, id); /* a space that no mark stands for */
    if (apart) {
        put_join(&out);
        d->n_dropped = 0;
    }
    for (size_t i = 0; i < n_bytes; i++) {
        const char byte = piece[i];
        if (byte == ' ' && d->n_dropped > 0 && !spelled) {
            d->n_dropped--;
            continue;
        }
        d->n_dropped = 0;
        if (d->apart && !apart)
            put_join(&out);
        d->apart = false;
        put(&out, byte);
    }
    if (apart) {
        d->apart = true;
        d->n_dropped = spaces_to_drop(t, false);
    }
    return out.n;
}

size_t detokenizer_finish(struct detokenizer *d, char *bytes)
{
    struct output out = {d, bytes, 0};
    for (size_t stage = 0; stage < N_CLEAN_UPS; stage++) {
        const unsigned char n = d->held[stage];
        d->held[stage] = 0;
        for (unsigned char i = 0; i < n; i++)
            clean(&out, stage + 1, clean_ups[stage].text[i]);
    }
    return out.n;
}

/* ---- The public call -------------------------------------------------------------------- */

struct sink {
    char *text;
    size_t capacity, n; /* n counts what did not fit too */
    struct utf8_stream utf8;
};

static void sink_put(struct sink *sink, const char *bytes, size_t n_bytes)
{
    for (size_t i = 0; i < n_bytes; i++, sink->n++)
        if (sink->n < sink->capacity)
            sink->text[sink->n] = bytes[i];
}

static void sink_push(struct sink *sink, const char *bytes, size_t n_bytes)
{
    char out[UTF8_PUSHED];
    for (size_t i = 0; i < n_bytes; i++)
        sink_put(sink, out, utf8_push(&sink->utf8, (unsigned char)bytes[i], out));
}

mvlm_status mvlm_detokenize(const mvlm_model *model, const int32_t *ids, size_t n_ids, char *text,
                            size_t capacity, size_t *n_bytes, mvlm_error *error)
{
    struct sink sink = {.text = text, .capacity = capacity};
    struct detokenizer detokenizer;
    char out[UTF8_PUSHED];
    *n_bytes = 0;
    for (size_t i = 0; i < n_ids; i++)
        if (ids[i] < 0 || ids[i] >= model->description.decoder.vocab)
            return fail(error, MVLM_USAGE, "id %d is beyond the vocabulary of %lld", (int)ids[i],
                        (long long)model->description.decoder.vocab);
    const size_t room = model->tokenizer->longest + DETOKENIZED_MORE;
    char *bytes = malloc(room);
    if (!bytes)
        return fail_no_memory(error, "a token", room);
    detokenizer_start(&detokenizer, model->tokenizer);
    for (size_t i = 0; i < n_ids; i++)
        sink_push(&sink, bytes, detokenizer_push(&detokenizer, ids[i], bytes));
    sink_push(&sink, bytes, detokenizer_finish(&detokenizer, bytes));
    sink_put(&sink, out, utf8_finish(&sink.utf8, out));
    free(bytes);
    *n_bytes = sink.n;
    return weights_intact(&model->weights, error);
}
