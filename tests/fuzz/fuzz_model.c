/* model.bin: open, verify, describe, plan, and two tokens about a picture.
 *
 * Input: a byte of flags, then the file; with REPAIR only what stands before its data, whose lengths and digest are then
 * made right, so that the checks behind them are reached. */
#include <stdlib.h>
#include <string.h>

#include "format.h"
#include "fuzz.h"
#include "schema.h"
#include "weights.h"

enum { REPAIR = 1, RANDOM_DATA = 2, MOST_BYTES = 1 << 19 };

static const uint8_t bmp[] = {'B', 'M', 0, 0, 0, 0, 0, 0, 0,  0, 54, 0, 0, 0, 40, 0,  0,   0, 1, 0,
                              0,   0,   1, 0, 0, 0, 1, 0, 24, 0, 0,  0, 0, 0, 0,  0,  0,   0, 0, 0,
                              0,   0,   0, 0, 0, 0, 0, 0, 0,  0, 0,  0, 0, 0, 9,  99, 200, 0};

/* The length of a file whose directory says so, as far as it may be believed. */
static size_t file_bytes(const uint8_t *bytes, size_t n, const struct format_header *h)
{
    uint64_t end = h->data.offset;
    for (uint32_t i = 0; i < h->n_tensors; i++) {
        struct format_tensor t;
        const uint64_t at = h->directory.offset + (uint64_t)i * sizeof t;
        if (at > n || n - at < sizeof t)
            break;
        memcpy(&t, bytes + at, sizeof t);
        if (t.range.offset <= MOST_BYTES && t.range.n_bytes <= MOST_BYTES &&
            t.range.offset + t.range.n_bytes > end)
            end = t.range.offset + t.range.n_bytes;
    }
    return (size_t)(end < MOST_BYTES ? end : MOST_BYTES);
}

/* Values as they may be, or zeros. */
static void fill(uint8_t *bytes, size_t n, bool random)
{
    uint32_t state = 1;
    for (size_t i = 0; random && i + 4 <= n; i += 4) {
        state = state * 1664525u + 1013904223u;
        const float value = ((float)(state >> 8) / 16777216.0f - 0.5f) * 0.6f;
        memcpy(bytes + i, &value, sizeof value);
    }
}

static uint8_t *repaired(const uint8_t *front, size_t n, bool random, size_t *n_bytes)
{
    struct format_header h;
    if (n < sizeof h)
        return NULL;
    memcpy(&h, front, sizeof h);
    if (h.data.offset < sizeof h || h.data.offset > MOST_BYTES)
        return NULL;
    *n_bytes = file_bytes(front, n, &h);
    uint8_t *bytes = calloc(1, *n_bytes + 1);
    fuzz_check(bytes != NULL);
    const size_t n_front = (size_t)h.data.offset;
    fill(bytes + n_front, *n_bytes - n_front, random);
    memcpy(bytes, front, n < n_front ? n : n_front);
    memcpy(h.magic, FORMAT_MAGIC, sizeof h.magic);
    h.version = FORMAT_VERSION;
    h.header_bytes = FORMAT_HEADER_BYTES;
    h.file_bytes = *n_bytes;
    h.data.n_bytes = *n_bytes - n_front;
    memcpy(bytes, &h, sizeof h);
    digest_of_front(bytes, n_front, h.digest);
    memcpy(bytes, &h, sizeof h);
    return bytes;
}

/* Work that a description asks for and a small file can hold: a tower's attention grows with the square of its rows. */
static bool is_small(const mvlm_model *model, const mvlm_model_info *info)
{
    mvlm_field field;
    double size = 0, patch = 1;
    for (size_t i = 0; mvlm_model_field(model, i, &field); i++) {
        if (strcmp(field.key, "image.size") == 0)
            size = (double)field.integer;
        if (strcmp(field.key, "vision.patch_size") == 0)
            patch = (double)field.integer;
    }
    return info->image_tokens < 600 && size < 2000 && size / patch < 40;
}

static void ask(mvlm_model *model, const mvlm_model_info *info)
{
    const mvlm_session_options options = {.n_threads = 1, .max_rss = UINT64_C(1) << 28};
    const mvlm_picture picture = {"a.bmp", bmp, sizeof bmp};
    const mvlm_turn turn = {.question = "a cat"};
    mvlm_question question = {.turns = &turn, .n_turns = 1, .max_tokens = 2};
    mvlm_session *session;
    mvlm_error error = {0};
    mvlm_memory memory;
    if (info->image_tokens) {
        question.pictures = &picture;
        question.n_pictures = 1;
    }
    fuzz_outcome(mvlm_session_plan(model, &options, 0, 1, 4, &memory, &error), &error);
    if (!fuzz_outcome(mvlm_session_open(model, &options, &session, &error), &error))
        return;
    fuzz_outcome(mvlm_ask(session, &question, NULL, NULL, &error), &error);
    mvlm_session_close(session);
}

static void use(mvlm_model *model)
{
    mvlm_model_info info;
    mvlm_field field;
    mvlm_tensor tensor;
    mvlm_error error = {0};
    size_t n = 0;
    mvlm_model_describe(model, &info);
    while (mvlm_model_field(model, n, &field))
        n++;
    fuzz_check(n == info.n_fields);
    for (n = 0; mvlm_model_tensor(model, n, &tensor); n++)
        fuzz_check(tensor.offset + tensor.n_bytes <= info.n_bytes);
    fuzz_check(n == info.n_tensors);
    fuzz_outcome(mvlm_model_verify(model, NULL, NULL, &error), &error);
    if (is_small(model, &info))
        ask(model, &info);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    mvlm_model *model;
    mvlm_error error = {0};
    uint8_t *file = NULL;
    if (n < 1)
        return 0;
    const uint8_t flags = *bytes++;
    size_t n_file = --n;
    if (flags & REPAIR && !(file = repaired(bytes, n, flags & RANDOM_DATA, &n_file)))
        return 0;
    const char *path = fuzz_file("model.bin", file ? file : bytes, n_file);
    free(file);
    if (fuzz_outcome(mvlm_model_open(path, NULL, &model, &error), &error)) {
        use(model);
        mvlm_model_close(model);
    } else
        fuzz_check(!model);
    return 0;
}
