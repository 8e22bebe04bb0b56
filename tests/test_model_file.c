/* model.bin: what opening promises. Cut, damaged, hostile and impossible files get a clear error,
 * each its own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "golden.h"
#include "program.h"
#include "tiny.h"

/* A good tiny model's bytes, and a place to write changed ones. */
struct fixture {
    char *folder, *path;
    uint8_t *good, *bytes;
    size_t n;
};

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    struct description description;
    f->folder = temporary_folder();
    f->path = path_of(f->folder, "model.bin", NULL);
    tiny_describe(&description);
    tiny_write(f->path, &description, TENSOR_F32, 7);
    f->good = (uint8_t *)file_load(f->path, &f->n);
    f->bytes = malloc(f->n + 64);
    memcpy(f->bytes, f->good, f->n);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    remove_folder(f->folder);
    free(f->folder);
    free(f->path);
    free(f->good);
    free(f->bytes);
    free(f);
    return 0;
}

static void restore(struct fixture *f)
{
    memcpy(f->bytes, f->good, f->n);
}

static mvlm_status open_bytes(struct fixture *f, size_t n, mvlm_model **model, mvlm_error *error)
{
    *error = (mvlm_error){0};
    file_save(f->path, f->bytes, n);
    return mvlm_model_open(f->path, NULL, model, error);
}

/* The first n bytes are refused, with a message that names the file and holds `expected`. */
static void refused(struct fixture *f, size_t n, const char *expected)
{
    mvlm_model *model;
    mvlm_error error;
    const mvlm_status status = open_bytes(f, n, &model, &error);
    if (status != MVLM_BAD_MODEL || model ||
        strncmp(error.message, f->path, strlen(f->path)) != 0 || !strstr(error.message, expected))
        fail_msg("status %d, message \"%s\", expected \"%s\"", (int)status, error.message,
                 expected);
}

static struct format_header *header(struct fixture *f)
{
    return (struct format_header *)(void *)f->bytes;
}

static struct format_tensor *tensor(struct fixture *f, size_t index)
{
    return (struct format_tensor *)(void *)(f->bytes + header(f)->directory.offset) + index;
}

static void good_file(void **state)
{
    struct fixture *f = *state;
    mvlm_model *model;
    mvlm_error error;
    mvlm_model_info info;
    mvlm_tensor last;
    assert_int_equal(open_bytes(f, f->n, &model, &error), MVLM_OK);
    assert_int_equal(mvlm_model_verify(model, NULL, NULL, &error), MVLM_OK);
    mvlm_model_describe(model, &info);
    assert_int_equal(info.n_bytes, f->n);
    assert_int_equal(info.image_tokens, 4);
    assert_true(mvlm_model_tensor(model, info.n_tensors - 1, &last));
    assert_string_equal(last.name, "decoder.head.weight");
    assert_int_equal(last.offset + last.n_bytes, f->n);
    assert_false(mvlm_model_tensor(model, info.n_tensors, &last));
    mvlm_model_close(model);
}

static void cut_short(void **state)
{
    struct fixture *f = *state;
    const struct format_header *h = (const struct format_header *)(const void *)f->good;
    const size_t ends[] = {1,
                           8,
                           100,
                           191,
                           192,
                           (size_t)h->description.offset + 5,
                           (size_t)h->tokenizer.offset,
                           (size_t)h->tokenizer.offset + 9,
                           (size_t)h->directory.offset,
                           (size_t)h->directory.offset + 130,
                           (size_t)h->data.offset,
                           (size_t)h->data.offset + 64,
                           f->n - 1};
    refused(f, 0, "too few");
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
        refused(f, ends[i], ends[i] < 192 ? "too few" : "cut short");
    memset(f->bytes + f->n, 0, 64);
    refused(f, f->n + 64, "appended");
}

static void wrong_header(void **state)
{
    struct fixture *f = *state;
    f->bytes[0] = 'X';
    refused(f, f->n, "magic");
    restore(f);
    header(f)->version = 2;
    tiny_reseal(f->bytes);
    refused(f, f->n, "format version 2, this program reads version 1");
    restore(f);
    header(f)->header_bytes = 64;
    tiny_reseal(f->bytes);
    refused(f, f->n, "header of 64 bytes");
    restore(f);
    header(f)->required_features = 4;
    tiny_reseal(f->bytes);
    refused(f, f->n, "feature bits 0x4");
    restore(f);
    header(f)->reserved1[63] = 1;
    tiny_reseal(f->bytes);
    refused(f, f->n, "reserved bytes of the header");
    restore(f);
    tensor(f, 3)->reserved[0] = 1;
    tiny_reseal(f->bytes);
    refused(f, f->n, "reserved bytes are not zero");
    restore(f);
    header(f)->optional_features = 4; /* may be unknown */
    tiny_reseal(f->bytes);
    mvlm_model *model;
    mvlm_error error;
    assert_int_equal(open_bytes(f, f->n, &model, &error), MVLM_OK);
    mvlm_model_close(model);
    restore(f);
    f->bytes[f->n / 2] ^= 0; /* unchanged data, one bit of the directory */
    tensor(f, 3)->digest[0] ^= 1;
    refused(f, f->n, "digest does not match");
}

static void sizes_that_overflow(void **state)
{
    struct fixture *f = *state;
    const uint64_t huge[] = {UINT64_MAX, UINT64_MAX - 63, UINT64_C(1) << 63, UINT64_C(1) << 40};
    for (size_t i = 0; i < sizeof huge / sizeof *huge; i++) {
        tensor(f, 2)->n_rows = huge[i];
        tiny_reseal(f->bytes);
        refused(f, f->n, "out of range");
        restore(f);
        tensor(f, 2)->range.n_bytes = huge[i];
        tiny_reseal(f->bytes);
        refused(f, f->n, "bytes, expected");
        restore(f);
        tensor(f, 2)->range.offset = huge[i];
        tiny_reseal(f->bytes);
        refused(f, f->n, "leave a hole, overlap or pass the file's end");
        restore(f);
        header(f)->description.offset = huge[i] & ~UINT64_C(63);
        refused(f, f->n, "do not stand in order");
        restore(f);
        header(f)->tokenizer.n_bytes = huge[i];
        refused(f, f->n, "do not stand in order");
        restore(f);
        header(f)->data.offset = huge[i];
        refused(f, f->n, "does not end the file");
        restore(f);
    }
    header(f)->n_tensors = 0x7fffffff;
    tiny_reseal(f->bytes);
    refused(f, f->n, "directory of");
}

static void tensors_that_do_not_tile(void **state)
{
    struct fixture *f = *state;
    tensor(f, 2)->range.offset += 64;
    tiny_reseal(f->bytes);
    refused(f, f->n, "hole");
    restore(f);
    tensor(f, 2)->range.offset -= 64;
    tiny_reseal(f->bytes);
    refused(f, f->n, "overlap");
    restore(f);
    tensor(f, 1)->section = 2;
    tiny_reseal(f->bytes);
    refused(f, f->n, "hole");
    restore(f);
    tensor(f, 1)->type = 9;
    tiny_reseal(f->bytes);
    refused(f, f->n, "type code 9");
    restore(f);
    tensor(f, 1)->layout = 7;
    tiny_reseal(f->bytes);
    refused(f, f->n, "layout 7");
    restore(f);
    memset(tensor(f, 1)->name, 'x', FORMAT_NAME_BYTES);
    tiny_reseal(f->bytes);
    refused(f, f->n, "name");
}

/* Good bytes of a wrong model: what the description demands is not what is there. */
static void wrong_for_the_description(void **state)
{
    struct fixture *f = *state;
    struct format_tensor swapped = *tensor(f, 1);
    strcpy(tensor(f, 1)->name, "vision.something");
    tiny_reseal(f->bytes);
    refused(f, f->n, "stands where vision.class_embedding belongs");
    restore(f);
    swapped.n_rows = 8;
    swapped.n_cols = 2; /* the same bytes, another shape */
    *tensor(f, 1) = swapped;
    tiny_reseal(f->bytes);
    refused(f, f->n, "is 8 x 2, its description demands 16 x 1");
}

/* A field's value, by its place behind the key in the encoded description. */
static void *value_of(struct fixture *f, const char *key)
{
    uint8_t *at = f->bytes + header(f)->description.offset;
    const uint8_t *end = at + header(f)->description.n_bytes;
    for (; at + strlen(key) < end; at += 8)
        if (strcmp((char *)at, key) == 0)
            return at + (strlen(key) + 8) / 8 * 8;
    fail_msg("no field %s", key);
    return NULL;
}

static void wrong_description(void **state)
{
    struct fixture *f = *state;
    static const struct {
        const char *key;
        int64_t value;
        const char *expected;
    } wrong[] = {
        {"decoder.n_layers", 3, "tensors, its description demands"},
        {"decoder.n_layers", -1, "decoder.n_layers is -1"},
        {"decoder.hidden", 1 << 30, "decoder.hidden is"},
        {"decoder.n_kv_heads", 3, "no multiple of decoder.n_kv_heads 3"},
        {"decoder.rope_dims", 5, "odd"},
        {"decoder.vocab", 263, "its description demands"},
        {"vision.n_heads", 3, "no multiple of vision.n_heads 3"},
        {"vision.patch_size", 29, "image.size 28 is less than"},
        {"projector.grid", 0, "needs projector.grid"},
        {"projector.n_linear", 3, "tensors, its description demands"},
        {"tokenizer.bos_id", 99999, "beyond the vocabulary"},
        {"tokenizer.byte_fallback", 2, "tokenizer.byte_fallback is 2"},
        {"image.size", 0, "tensors, its description demands"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        memcpy(value_of(f, wrong[i].key), &wrong[i].value, 8);
        tiny_reseal(f->bytes);
        refused(f, f->n, i == 9 ? "two linear layers" : wrong[i].expected);
        restore(f);
    }
    memcpy(value_of(f, "vision.activation"), "quack_gelu", 10);
    tiny_reseal(f->bytes);
    refused(f, f->n, "\"quack_gelu\", which this program does not know");
    restore(f);
    memcpy((char *)value_of(f, "decoder.context") - 16, "decoder.cantext",
           15); /* an unknown key is passed over */
    tiny_reseal(f->bytes);
    refused(f, f->n, "decoder.context is missing");
    restore(f);
    header(f)->description.n_bytes -= 8;
    tiny_reseal(f->bytes);
    refused(f, f->n, "ends within a field");
}

static void wrong_tokenizer(void **state)
{
    struct fixture *f = *state;
    uint8_t *tokens = f->bytes + header(f)->tokenizer.offset;
    tokens[0]++;
    tiny_reseal(f->bytes);
    refused(f, f->n, "tokenizer ends within piece 262");
    restore(f);
    memset(tokens, 0xff, 4);
    tiny_reseal(f->bytes);
    refused(f, f->n, "cannot hold");
    restore(f);
    tokens[8] = 9; /* the first piece's type */
    tiny_reseal(f->bytes);
    refused(f, f->n, "piece 0 has type 9");
    restore(f);
    memcpy(tokens + 4 + 8 + 5 + 8, "<s>", 3);
    memcpy(tokens + 4 + 8 + 5 + 8 + 3 + 8, "<s>>", 4);
    tiny_reseal(f->bytes);
    mvlm_model *model;
    mvlm_error error;
    assert_int_equal(open_bytes(f, f->n, &model, &error), MVLM_OK); /* other texts are fine */
    mvlm_model_close(model);
    restore(f);
    memcpy(tokens + 4 + 8 + 5 + 8 + 3 + 8 + 4 + 8, "<0x01>", 6); /* twice */
    tiny_reseal(f->bytes);
    refused(f, f->n, "stands twice");
}

/* Pieces that are part of a character would leave an encoder standing inside one. */
static void pieces_that_are_no_text(void **state)
{
    struct fixture *f = *state;
    uint8_t *tokens = f->bytes + header(f)->tokenizer.offset;
    uint8_t *last = tokens + header(f)->tokenizer.n_bytes - 4; /* of 4 bytes: a mark and an a */
    static const char *const parts[] = {"\xe2\x96\x81\xe2", "\x81\x61\x61\x61", "\xf0\x9f\x98\x61",
                                        "aaa\xff"};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        memcpy(last, parts[i], 4);
        last[-4] = 4; /* user defined */
        tiny_reseal(f->bytes);
        refused(f, f->n, "piece 261 is no valid UTF-8");
        restore(f);
    }
}

struct notes {
    size_t n_fatal, n_odd;
    char last[512];
};

static void note(void *user, const char *line, bool fatal)
{
    struct notes *notes = user;
    notes->n_fatal += fatal;
    notes->n_odd += !fatal;
    snprintf(notes->last, sizeof notes->last, "%s", line);
}

/* Opens the changed file, and verifies it. */
static mvlm_status verify(struct fixture *f, struct notes *notes)
{
    mvlm_model *model;
    mvlm_error error;
    *notes = (struct notes){0};
    assert_int_equal(open_bytes(f, f->n, &model, &error), MVLM_OK);
    const mvlm_status status = mvlm_model_verify(model, note, notes, &error);
    mvlm_model_close(model);
    return status;
}

static void verify_reports(void **state)
{
    struct fixture *f = *state;
    struct notes notes;
    assert_int_equal(verify(f, &notes), MVLM_OK);
    f->bytes[f->n - 5000] ^= 4;
    assert_int_equal(verify(f, &notes), MVLM_BAD_MODEL);
    assert_int_equal(notes.n_fatal, 1);
    assert_non_null(strstr(notes.last, "tensor decoder."));
    assert_non_null(strstr(notes.last, "digest does not match"));
    restore(f);
    const struct format_tensor *t =
        tensor(f, 1); /* 16 values: 64 bytes, no gap; the embedding of 17 rows has one */
    f->bytes[header(f)->data.offset - 1] = 1;
    tiny_reseal(f->bytes);
    assert_int_equal(verify(f, &notes), MVLM_BAD_MODEL);
    assert_non_null(strstr(notes.last, "padding before the data"));
    restore(f);
    const float odd[] = {__builtin_nanf("")};
    memcpy(f->bytes + t->range.offset, odd, sizeof odd);
    struct format_tensor changed = *t;
    (void)changed;
    assert_int_equal(verify(f, &notes), MVLM_BAD_MODEL); /* the digest, and a note of the NaN */
    assert_int_equal(notes.n_odd, 1);
    assert_non_null(strstr(notes.last, "NaN"));
}

static void no_file(void **state)
{
    struct fixture *f = *state;
    mvlm_model *model;
    mvlm_error error;
    char *missing = path_of(f->folder, "missing.bin", NULL);
    assert_int_equal(mvlm_model_open(missing, NULL, &model, &error), MVLM_BAD_MODEL);
    assert_non_null(strstr(error.message, "No such file"));
    assert_int_equal(mvlm_model_open(f->folder, NULL, &model, &error), MVLM_BAD_MODEL);
    assert_non_null(strstr(error.message, "is a folder"));
    assert_int_equal(mvlm_model_open("/dev/null", NULL, &model, &error), MVLM_BAD_MODEL);
    assert_non_null(strstr(error.message, "no regular file"));
    assert_int_equal(mkfifo(missing, 0600), 0); /* which nobody writes to */
    assert_int_equal(mvlm_model_open(missing, NULL, &model, &error), MVLM_BAD_MODEL);
    assert_non_null(strstr(error.message, "no regular file"));
    free(missing);
    chmod(f->path, 0);
    chmod(f->folder, 0755);
    const uid_t user = geteuid();
    if (user == 0) /* root may read everything */
        assert_int_equal(seteuid(65534), 0);
    const mvlm_status status = mvlm_model_open(f->path, NULL, &model, &error);
    if (user == 0)
        assert_int_equal(seteuid(0), 0);
    assert_int_equal(status, MVLM_BAD_MODEL);
    assert_non_null(strstr(error.message, "Permission denied"));
}

/* "<image>" is text to a model without eyes; a template that holds one is refused, in whichever part. */
static void marks_and_pictures(void **state)
{
    struct fixture *f = *state;
    const mvlm_turn turn = {.question = "what is <image> in HTML?"};
    const mvlm_question question = {.turns = &turn, .n_turns = 1, .max_tokens = 2};
    struct description d;
    mvlm_model *model;
    mvlm_session *session;
    mvlm_error error = {0};
    size_t n;
    tiny_describe(&d);
    d.prompt.user_suffix = "<image>";
    tiny_write(f->path, &d, TENSOR_F32, 1);
    assert_int_equal(mvlm_model_open(f->path, NULL, &model, &error), MVLM_OK);
    const mvlm_turn plain = {.question = "a"};
    const mvlm_question about = {.turns = &plain, .n_turns = 1};
    assert_int_equal(mvlm_question_rows(model, &about, &n, &error), MVLM_BAD_MODEL);
    assert_non_null(strstr(error.message, "template makes 1 places of 0 pictures"));
    mvlm_model_close(model);
    tiny_describe(&d);
    memset(&d.image, 0, sizeof d.image);
    memset(&d.vision, 0, sizeof d.vision);
    memset(&d.projector, 0, sizeof d.projector);
    tiny_write(f->path, &d, TENSOR_F32, 1);
    assert_int_equal(mvlm_model_open(f->path, NULL, &model, &error), MVLM_OK);
    assert_int_equal(mvlm_question_rows(model, &question, &n, &error), MVLM_OK);
    assert_true(n > strlen("<image>")); /* its letters */
    assert_int_equal(mvlm_session_open(model, NULL, &session, &error), MVLM_OK);
    assert_int_equal(mvlm_ask(session, &question, NULL, NULL, &error), MVLM_OK);
    mvlm_session_close(session);
    mvlm_model_close(model);
}

static void instruction_sets(void **state)
{
    struct fixture *f = *state;
    mvlm_model *model;
    mvlm_error error;
    mvlm_model_options options = {.isa = "c"};
    file_save(f->path, f->good, f->n);
    assert_int_equal(mvlm_model_open(f->path, &options, &model, &error), MVLM_OK);
    mvlm_model_close(model);
    options.isa = "mmx";
    assert_int_equal(mvlm_model_open(f->path, &options, &model, &error), MVLM_USAGE);
    assert_non_null(strstr(error.message, "unknown instruction set \"mmx\": this machine has c"));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(good_file),
        TEST(cut_short),
        TEST(wrong_header),
        TEST(sizes_that_overflow),
        TEST(tensors_that_do_not_tile),
        TEST(wrong_for_the_description),
        TEST(wrong_description),
        TEST(wrong_tokenizer),
        TEST(pieces_that_are_no_text),
        TEST(verify_reports),
        TEST(no_file),
        TEST(marks_and_pictures),
        TEST(instruction_sets),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
