/* What the converter writes of a vocabulary, the engine opens or refuses; a text is encoded with it. */
#ifndef FUZZ_WRITTEN_TOKENIZER_H
#define FUZZ_WRITTEN_TOKENIZER_H

#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "tokenizer.h"
#include "vocabulary.h"

static inline void use_written_tokenizer(const struct vocabulary *vocabulary,
                                         const struct description *description)
{
    static const char text[] = "A cat's 12, what is  this?";
    const size_t n = vocabulary_encode(vocabulary, NULL);
    uint8_t *bytes = malloc(n + 1);
    struct tokenizer *tokenizer;
    struct id_list ids = {0};
    mvlm_error error = {0};
    fuzz_check(bytes != NULL && vocabulary_encode(vocabulary, bytes) == n);
    if (fuzz_outcome(tokenizer_open("model", description, bytes, n, &tokenizer, &error), &error)) {
        fuzz_outcome(tokenizer_encode(tokenizer, text, strlen(text), LEAD_MARK, &ids, &error),
                     &error);
        tokenizer_close(tokenizer);
    }
    free(ids.ids);
    free(bytes);
}

#endif
