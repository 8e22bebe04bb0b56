/* A checkpoint's JSON and text files: tokenizer, configuration and what stands beside it. What they make is written as
 * model.bin holds it and must be read back by the engine. */
#include <stdlib.h>
#include <string.h>

#include "config.h"
#include "fuzz.h"
#include "tokenizer.h"
#include "vocabulary.h"

static const char *const names[] = {
    "config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "generation_config.json",
    "preprocessor_config.json",
    "tokenizer.json",
};
enum { N_NAMES = sizeof names / sizeof *names };

/* What the converter wrote, the engine opens. */
static void open_tokenizer(const struct vocabulary *vocabulary, struct description *description)
{
    const size_t n = vocabulary_encode(vocabulary, NULL);
    uint8_t *bytes = malloc(n + 1);
    struct tokenizer *tokenizer;
    struct id_list ids = {0};
    mvlm_error error = {0};
    fuzz_check(bytes != NULL && vocabulary_encode(vocabulary, bytes) == n);
    if (fuzz_outcome(tokenizer_open("model", description, bytes, n, &tokenizer, &error), &error)) {
        fuzz_outcome(tokenizer_encode(tokenizer, "A cat's 12", 10, LEAD_MODEL, &ids, &error),
                     &error);
        tokenizer_close(tokenizer);
    }
    free(ids.ids);
    free(bytes);
}

static void describe(const struct vocabulary *vocabulary, struct config *config)
{
    const size_t n = description_encode(&config->description, NULL);
    uint8_t *bytes = malloc(n + 1);
    struct description again;
    mvlm_error error = {0};
    fuzz_check(bytes != NULL && description_encode(&config->description, bytes) == n);
    if (fuzz_outcome(description_decode("model", bytes, n, &again, &error), &error))
        open_tokenizer(vocabulary, &again);
    free(bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    struct fuzz_part parts[N_NAMES];
    const size_t n_parts = fuzz_split(bytes, n, parts, N_NAMES);
    struct vocabulary vocabulary = {0};
    struct config config = {0};
    const struct config_changes changes = {0};
    mvlm_error error = {0};
    for (size_t i = 0; i < N_NAMES; i++) {
        const bool there = i < n_parts && parts[i].n;
        fuzz_file(names[i], there ? parts[i].bytes : NULL, there ? parts[i].n : 0);
    }
    const char *folder = fuzz_folder();
    if (fuzz_outcome(vocabulary_open(folder, &vocabulary, &error), &error) &&
        fuzz_outcome(config_open(folder, folder, &vocabulary, &changes, &config, &error), &error)) {
        describe(&vocabulary, &config);
        config_close(&config);
    }
    vocabulary_close(&vocabulary);
    return 0;
}
