/* tokenizer.model, SentencePiece's protobuf; what is read is written as model.bin holds it, and encodes a text. */
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "tokenizer.h"
#include "vocabulary.h"

static void encode(const struct vocabulary *vocabulary)
{
    struct description description = {.tokenizer = vocabulary->settings};
    const size_t n = vocabulary_encode(vocabulary, NULL);
    uint8_t *bytes = malloc(n + 1);
    struct tokenizer *tokenizer;
    struct id_list ids = {0};
    mvlm_error error = {0};
    fuzz_check(bytes != NULL && vocabulary_encode(vocabulary, bytes) == n);
    description.decoder.vocab = (int64_t)vocabulary->n_pieces;
    if (fuzz_outcome(tokenizer_open("model", &description, bytes, n, &tokenizer, &error), &error)) {
        fuzz_outcome(tokenizer_encode(tokenizer, "what is  this?", 14, LEAD_MARK, &ids, &error),
                     &error);
        tokenizer_close(tokenizer);
    }
    free(ids.ids);
    free(bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    struct vocabulary vocabulary = {0};
    mvlm_error error = {0};
    fuzz_file("tokenizer.model", bytes, n);
    if (fuzz_outcome(vocabulary_open(fuzz_folder(), &vocabulary, &error), &error))
        encode(&vocabulary);
    vocabulary_close(&vocabulary);
    return 0;
}
