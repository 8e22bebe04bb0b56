/* A file of a megabyte that is made to keep a reader busy is refused, or read, in less than 100 ms of processor time: no
 * reader's work grows faster than its input. (What only decoding can show, a picture's wrong pixels, takes as long as decoding
 * them: max_pixels bounds that.) */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "checkpoint_builder.h"
#include "config.h"
#include "golden.h"
#include "image.h"
#include "program.h"
#include "vocabulary.h"

/* Where the time is not the program's own. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

enum { MEGABYTE = 1 << 20, MOST_MS = 100, TRIES = 3 };

enum reader { PICTURE, MODEL, SAFETENSORS, PICKLE, SENTENCEPIECE, TEXT_FILE };

/* Head, then the unit again and again; "%u" in the unit is a number that counts. */
static const struct input {
    const char *name;
    enum reader reader;
    const char *file; /* of TEXT_FILE */
    const char *head;
    size_t n_head;
    const char *unit;
    size_t n_unit;
} inputs[] = {
#define BYTES(text) text, sizeof text - 1
    {"PNG of empty chunks", PICTURE, NULL,
     BYTES("\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x08\0\0\0\x08\x08\0\0\0\0\xe1\x64\xe1\x57"),
     BYTES("\0\0\0\0tEXt\x96\x42\xc5\x85")},
    {"JPEG of comments", PICTURE, NULL, BYTES("\xff\xd8"), BYTES("\xff\xfe\0\2")},
    {"JPEG of fill bytes", PICTURE, NULL, BYTES("\xff\xd8"), BYTES("\xff")},
    {"JPEG of quantization tables", PICTURE, NULL, BYTES("\xff\xd8"),
     BYTES("\xff\xdb\0\x43\0++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++")},
    {"JPEG of EXIF", PICTURE, NULL, BYTES("\xff\xd8"),
     BYTES("\xff\xe1\0\x10"
           "Exif\0\0MM\0*\0\0\0\0")},
    {"BMP", PICTURE, NULL, BYTES("BM++++++++\x36\0\0\0\x28\0\0\0\xff\0\0\0\xff\0\0\0\1\0\x18\0"),
     BYTES("\xff")},
    {"model of ones", MODEL, NULL, BYTES("MOBILVLM"), BYTES("\xff")},
    {"nested lists", SAFETENSORS, NULL, BYTES("{\"a\":"), BYTES("[")},
    {"nested objects", SAFETENSORS, NULL, BYTES("{\"a\":"), BYTES("{\"a\":")},
    {"many tensors", SAFETENSORS, NULL,
     BYTES("{\"x\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}"),
     BYTES(",\"%08u\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}")},
    {"one name", SAFETENSORS, NULL, BYTES("{\"x\":1"), BYTES(",\"x\":1")},
    {"pickle of marks", PICKLE, NULL, BYTES("\x80\2"), BYTES("(")},
    {"pickle of dicts", PICKLE, NULL, BYTES("\x80\2"), BYTES("}")},
    {"pickle of tuples", PICKLE, NULL, BYTES("\x80\2NNNNNNNN"), BYTES("\x85")},
    {"pickle of memos", PICKLE, NULL, BYTES("\x80\2}"), BYTES("q\7")},
    {"pickle of the same memo", PICKLE, NULL, BYTES("\x80\2}q\0"), BYTES("h\0")},
    {"pickle of items", PICKLE, NULL, BYTES("\x80\2}("), BYTES("X\2\0\0\0ab(t")},
    {"pickle of one item set again", PICKLE, NULL, BYTES("\x80\2}"), BYTES("X\1\0\0\0aNs")},
    {"empty pieces", SENTENCEPIECE, NULL, BYTES(""), BYTES("\n\0")},
    {"pieces", SENTENCEPIECE, NULL, BYTES(""), BYTES("\n\4\n\2ab")},
    {"trainer settings", SENTENCEPIECE, NULL, BYTES("\n\4\n\2ab"), BYTES("\x12\2\x18\2")},
    {"nested configuration", TEXT_FILE, "config.json", BYTES("{\"a\":"), BYTES("[")},
    {"long numbers", TEXT_FILE, "config.json", BYTES("{\"a\":"), BYTES("9")},
    {"many stop ids", TEXT_FILE, "generation_config.json", BYTES("{\"eos_token_id\":[1"),
     BYTES(",%u")},
    {"many words", TEXT_FILE, "vocab.json", BYTES("{\"a\":0"), BYTES(",\"%08u\":1")},
    {"many merges", TEXT_FILE, "merges.txt", BYTES("#version\n"), BYTES("a b\n")},
    {"added tokens", TEXT_FILE, "added_tokens.json", BYTES("{\"x\":1"), BYTES(",\"y%07u\":7")},
    {"special tokens", TEXT_FILE, "special_tokens_map.json",
     BYTES("{\"additional_special_tokens\":[\"x\""), BYTES(",\"%u\"")},
    {"nested tokenizer", TEXT_FILE, "tokenizer_config.json", BYTES("{\"a\":"), BYTES("{\"a\":")},
#undef BYTES
};

static uint8_t *bytes;
static size_t n_bytes;

static void make(const struct input *input)
{
    const bool counts = memchr(input->unit, '%', input->n_unit) != NULL;
    memcpy(bytes, input->head, input->n_head);
    n_bytes = input->n_head;
    for (unsigned i = 0; n_bytes + input->n_unit + 16 < MEGABYTE; i++) {
        if (counts) { /* the compiler cannot see that these are formats with one number */
            char unit[128], number[16];
            const char *mark = strchr(input->unit, '%'), *end = strchr(mark, 'u') + 1;
            snprintf(number, sizeof number, end - mark > 2 ? "%08u" : "%u", i);
            n_bytes += (size_t)snprintf((char *)bytes + n_bytes, sizeof unit, "%.*s%s%s",
                                        (int)(mark - input->unit), input->unit, number, end);
        } else {
            memcpy(bytes + n_bytes, input->unit, input->n_unit);
            n_bytes += input->n_unit;
        }
    }
}

static void read_checkpoint_file(const char *name)
{
    struct checkpoint *checkpoint;
    mvlm_error error = {0};
    if (checkpoint_open_file(test_folder, name, &checkpoint, &error) == MVLM_OK)
        checkpoint_close(checkpoint);
}

/* A golden checkpoint's folder with this file in the place of its own. */
static void read_configuration(void)
{
    struct vocabulary vocabulary = {0};
    struct config config = {0};
    const struct config_changes changes = {0};
    mvlm_error error = {0};
    if (vocabulary_open(test_folder, &vocabulary, &error) == MVLM_OK &&
        config_open(test_folder, test_folder, &vocabulary, &changes, &config, &error) == MVLM_OK)
        config_close(&config);
    vocabulary_close(&vocabulary);
}

static void copy_golden(const char *name)
{
    char command[1024];
    snprintf(command, sizeof command,
             "rm -rf '%s'/* && cp " SOURCE_DIR "/tests/golden/cases/%s/checkpoint/*.[jmt]* '%s'",
             test_folder, name, test_folder);
    assert_int_equal(system(command), 0);
}

/* Puts the input where it is read from. */
static void prepare(const struct input *input)
{
    uint8_t length[8];
    switch (input->reader) {
    case SAFETENSORS:
        for (int i = 0; i < 8; i++)
            length[i] = (uint8_t)((uint64_t)n_bytes >> 8 * i);
        memmove(bytes + 8, bytes, n_bytes);
        memcpy(bytes, length, 8);
        file_write(test_folder, "model.safetensors", bytes, n_bytes + 8);
        break;
    case PICKLE:
        bytes[n_bytes] = '.';
        build_archive(test_folder, "pytorch_model.bin", bytes, n_bytes + 1, NULL, 0, 0);
        break;
    case SENTENCEPIECE:
        copy_golden("text");
        file_write(test_folder, "tokenizer.model", bytes, n_bytes);
        break;
    case TEXT_FILE:
        copy_golden("imp-phi2");
        file_write(test_folder, input->file, bytes, n_bytes);
        break;
    case MODEL:
        file_write(test_folder, "model.bin", bytes, n_bytes);
        break;
    case PICTURE:
        break;
    }
}

static void read_input(const struct input *input)
{
    char path[512];
    struct picture picture;
    mvlm_model *model;
    mvlm_error error = {0};
    switch (input->reader) {
    case PICTURE:
        if (picture_decode("a", bytes, n_bytes, 100000000, &picture, &error) == MVLM_OK)
            picture_free(&picture);
        break;
    case MODEL:
        snprintf(path, sizeof path, "%s/model.bin", test_folder);
        if (mvlm_model_open(path, NULL, &model, &error) == MVLM_OK)
            mvlm_model_close(model);
        break;
    case SAFETENSORS:
        read_checkpoint_file("model.safetensors");
        break;
    case PICKLE:
        read_checkpoint_file("pytorch_model.bin");
        break;
    case SENTENCEPIECE:
    case TEXT_FILE:
        read_configuration();
    }
}

static double processor_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return 1e3 * (double)now.tv_sec + 1e-6 * (double)now.tv_nsec;
}

static void a_megabyte_keeps_nobody_busy(void **state)
{
    (void)state;
    double slowest = 0;
    for (size_t i = 0; i < sizeof inputs / sizeof *inputs; i++) {
        double best = 1e9;
        make(&inputs[i]);
        prepare(&inputs[i]);
        for (int try = 0; try < TRIES; try++) {
            const double start = processor_ms();
            read_input(&inputs[i]);
            const double ms = processor_ms() - start;
            best = ms < best ? ms : best;
        }
        if (best > MOST_MS && !SANITIZED)
            fail_msg("%s: %.0f ms, at most %d", inputs[i].name, best, MOST_MS);
        slowest = best > slowest ? best : slowest;
    }
    printf("%zu files of 1 MB, the slowest is read or refused in %.1f ms\n",
           sizeof inputs / sizeof *inputs, slowest);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_megabyte_keeps_nobody_busy)};
    bytes = malloc(MEGABYTE + 64);
    const int failed = cmocka_run_group_tests(tests, open_test_folder, close_test_folder);
    free(bytes);
    return failed;
}
