/* Questions: a byte of flags, then system text, questions and answers, as files of an input are parted. */
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"

enum { MOST_PARTS = 8, RAW = 1, SYSTEM = 2, PHI2 = 4, PICTURES_SHIFT = 4 };

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    static mvlm_model *models[2];
    if (!models[0]) {
        models[0] = fuzz_golden_model("v1");
        models[1] = fuzz_golden_model("imp-phi2");
    }
    if (n < 1 || n > 1 << 14)
        return 0;
    struct fuzz_part parts[MOST_PARTS];
    char *texts[MOST_PARTS];
    const size_t n_parts = fuzz_split(bytes + 1, n - 1, parts, MOST_PARTS);
    for (size_t i = 0; i < n_parts; i++)
        texts[i] = fuzz_text(parts[i].bytes, parts[i].n);
    const size_t first = bytes[0] & SYSTEM && n_parts > 1;
    mvlm_turn turns[MOST_PARTS];
    mvlm_question question = {.turns = turns,
                              .system = first ? texts[0] : NULL,
                              .raw = bytes[0] & RAW,
                              .n_pictures = bytes[0] >> PICTURES_SHIFT};
    for (size_t i = first; i < n_parts; i += 2)
        turns[question.n_turns++] = (mvlm_turn){texts[i], i + 2 < n_parts ? texts[i + 1] : NULL};
    size_t n_rows;
    mvlm_error error = {0};
    const mvlm_model *model = models[bytes[0] & PHI2 ? 1 : 0];
    if (fuzz_outcome(mvlm_question_rows(model, &question, &n_rows, &error), &error)) {
        mvlm_model_info info;
        mvlm_model_describe(model, &info);
        fuzz_check(n_rows >= question.n_pictures * info.image_tokens);
    }
    for (size_t i = 0; i < n_parts; i++)
        free(texts[i]);
    return 0;
}
