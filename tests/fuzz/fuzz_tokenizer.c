/* Text -> ids -> text, and any ids -> text, by each kind of tokenizer: the first byte chooses; and text -> words. */
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "pre_tokenize.h"
#include "utf8.h"

enum { N_KINDS = 3 };
static const char *const cases[N_KINDS] = {"v1", "imp-phi2", "imp-phi3"};
static mvlm_model *models[N_KINDS];
enum { SPECIAL = 4, MOST_BYTES = 4096 };

static char text[64 * MOST_BYTES];
static int32_t ids[4 * MOST_BYTES];

static void decode(const mvlm_model *model, size_t n_ids)
{
    mvlm_error error = {0};
    size_t n = 0;
    if (fuzz_outcome(mvlm_detokenize(model, ids, n_ids, text, sizeof text, &n, &error), &error))
        fuzz_check(n <= sizeof text);
}

/* Whole words of whole characters, whoever reads them. */
static void split(enum pre_tokenizer kind, const char *bytes, size_t n)
{
    size_t invalid;
    for (size_t at = 0, length; at < n; at += length) {
        length = pre_token_length(kind, bytes + at, n - at);
        fuzz_check(length > 0 && length <= n - at && utf8_valid(bytes + at, length, &invalid));
    }
}

static void encode(const mvlm_model *model, int flags, const char *bytes, size_t n)
{
    mvlm_model_info info;
    mvlm_error error = {0};
    size_t n_ids = 0, at;
    const mvlm_status status =
        mvlm_tokenize(model, bytes, n, flags, ids, sizeof ids / sizeof *ids, &n_ids, &error);
    fuzz_check((status == MVLM_OK) == utf8_valid(bytes, n, &at));
    if (!fuzz_outcome(status, &error))
        return;
    split(PRE_TOKENIZER_GPT2, bytes, n);
    split(PRE_TOKENIZER_QWEN2, bytes, n);
    fuzz_check(n_ids <= sizeof ids / sizeof *ids);
    mvlm_model_describe(model, &info);
    for (size_t i = 0; i < n_ids; i++) {
        fuzz_check((ids[i] >= 0 && (size_t)ids[i] < info.vocab_size) || ids[i] == MVLM_IMAGE_ID);
        if (ids[i] == MVLM_IMAGE_ID)
            return; /* no text stands for it */
    }
    decode(model, n_ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    if (!models[0])
        for (size_t i = 0; i < N_KINDS; i++)
            models[i] = fuzz_golden_model(cases[i]);
    if (n < 1 || n > MOST_BYTES)
        return 0;
    const size_t kind = (bytes[0] & 3) % N_KINDS;
    char *copy = fuzz_text(bytes + 1, n - 1); /* exactly as long: a byte read behind it is seen */
    encode(models[kind], bytes[0] & SPECIAL ? MVLM_READ_SPECIAL : 0, copy, n - 1);
    free(copy);
    size_t n_ids = 0;
    for (size_t i = 1; i + 2 <= n; i += 2)
        ids[n_ids++] = (int32_t)(bytes[i] | bytes[i + 1] << 8) - (bytes[0] >> 6);
    decode(models[kind], n_ids);
    return 0;
}
