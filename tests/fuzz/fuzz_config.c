/* A checkpoint's JSON and text files: tokenizer, configuration and what stands beside it. What they make is written as
 * model.bin holds it and must be read back by the engine. */
#include <stdlib.h>

#include "config.h"
#include "written_tokenizer.h"

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

static void describe(const struct vocabulary *vocabulary, struct config *config)
{
    const size_t n = description_encode(&config->description, NULL);
    uint8_t *bytes = malloc(n + 1);
    struct description again;
    mvlm_error error = {0};
    fuzz_check(bytes != NULL && description_encode(&config->description, bytes) == n);
    if (fuzz_outcome(description_decode("model", bytes, n, &again, &error), &error))
        use_written_tokenizer(vocabulary, &again);
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
