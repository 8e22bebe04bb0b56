/* tokenizer.model, SentencePiece's protobuf; what is read is written as model.bin holds it, and encodes a text. */
#include "written_tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    struct vocabulary vocabulary = {0};
    mvlm_error error = {0};
    fuzz_file("tokenizer.model", bytes, n);
    if (fuzz_outcome(vocabulary_open(fuzz_folder(), &vocabulary, &error), &error)) {
        const struct description description = {.tokenizer = vocabulary.settings,
                                                .decoder.vocab = (int64_t)vocabulary.n_pieces};
        use_written_tokenizer(&vocabulary, &description);
    }
    vocabulary_close(&vocabulary);
    return 0;
}
