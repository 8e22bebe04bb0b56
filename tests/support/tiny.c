#include "tiny.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "golden.h"
#include "pack.h"
#include "schema.h"
#include "weights.h"

enum { N_PIECES = 262 };

void tiny_describe(struct description *d)
{
    *d = (struct description){.name = "tiny"};
    d->image.size = 28;
    d->image.fit = IMAGE_PAD;
    d->image.pad_colour = (struct number_list){3, {122, 116, 104}};
    d->image.mean = (struct number_list){3, {0.5, 0.5, 0.5}};
    d->image.std = (struct number_list){3, {0.25, 0.25, 0.25}};
    d->vision.patch_size = 14;
    d->vision.width = 16;
    d->vision.ffn = 24;
    d->vision.n_layers = 1;
    d->vision.n_heads = 2;
    d->vision.norm_eps = 1e-5;
    d->vision.activation = ACTIVATION_QUICK_GELU;
    d->vision.class_token = d->vision.pre_norm = 1;
    d->projector.kind = PROJECTOR_LDPV2;
    d->projector.n_linear = 2;
    d->projector.grid = 2;
    d->decoder.hidden = 24;
    d->decoder.ffn = 40;
    d->decoder.n_layers = 2;
    d->decoder.n_heads = 4;
    d->decoder.n_kv_heads = 2;
    d->decoder.head_dim = d->decoder.rope_dims = 6;
    d->decoder.vocab = N_PIECES;
    d->decoder.norm_eps = 1e-6;
    d->decoder.activation = ACTIVATION_SILU;
    d->decoder.rope_theta = 1e4;
    d->decoder.rope_scale = 1;
    d->decoder.context = 256;
    d->tokenizer.eos_id = 2;
    d->tokenizer.bos_id = 1;
    d->tokenizer.pad_id = -1;
    d->tokenizer.add_bos = d->tokenizer.add_dummy_prefix = d->tokenizer.escape_whitespaces = 1;
    d->tokenizer.byte_fallback = 1;
    d->tokenizer.stop_ids = (struct number_list){1, {2}};
    d->prompt.present = 1;
    d->prompt.system_prefix = d->prompt.system = d->prompt.system_suffix = "";
    d->prompt.user_prefix = "U:";
    d->prompt.user_suffix = "A:";
    d->prompt.answer_prefix = " ";
    d->prompt.answer_suffix = "</s>";
}

/* <unk>, <s>, </s>, the 256 bytes, and three pieces with letters. */
static size_t put_pieces(uint8_t *out)
{
    static const char *const texts[] = {"<unk>",
                                        "<s>",
                                        "</s>",
                                        "\xe2\x96\x81",
                                        "a",
                                        ("\xe2\x96\x81"
                                         "a")};
    static const uint8_t types[] = {2, 3, 3, 1, 1, 1};
    const uint32_t n_pieces = N_PIECES;
    size_t n = sizeof n_pieces;
    memcpy(out, &n_pieces, sizeof n_pieces);
    for (unsigned id = 0; id < N_PIECES; id++) {
        char byte[8];
        snprintf(byte, sizeof byte, "<0x%02X>", (id - 3) & 255);
        const bool is_byte = id >= 3 && id < 259;
        const char *text = is_byte ? byte : texts[id < 3 ? id : id - 256];
        const uint8_t type = is_byte ? 6 : types[id < 3 ? id : id - 256];
        const struct format_piece head = {-(float)id, type, 0, (uint16_t)strlen(text)};
        memcpy(out + n, &head, sizeof head);
        memcpy(out + n + sizeof head, text, head.n_bytes);
        n += sizeof head + head.n_bytes;
    }
    return n;
}

/* Norm weights near 1, everything else small; packed as the converter does. */
static void fill(uint8_t *bytes, const struct format_tensor *t, const struct tensor_spec *spec,
                 unsigned *random)
{
    const bool norm = strstr(spec->name, "norm") && strstr(spec->name, ".weight");
    const size_t n_rows = (size_t)t->n_rows, n_cols = (size_t)t->n_cols;
    float *rows = calloc(n_rows * n_cols, sizeof *rows);
    float *scratch = calloc(pack_scratch(n_cols), sizeof *scratch);
    struct pack_error loss = {0};
    bool known;
    const struct kernels *kernels = kernels_choose(NULL, &known);
    assert_true(rows && scratch);
    for (size_t i = 0; i < n_rows * n_cols; i++) {
        *random = *random * 1664525u + 1013904223u;
        rows[i] = ((float)(*random >> 8) / 16777216.0f - 0.5f) * 0.6f + (norm ? 1.0f : 0.0f);
    }
    if (t->layout == LAYOUT_ROWS)
        pack_rows(kernels, t->type, rows, n_rows, n_cols, bytes, &loss);
    for (size_t r = 0; t->layout == LAYOUT_TILES && r < n_rows; r += FORMAT_TILE) {
        const size_t n = n_rows - r < FORMAT_TILE ? n_rows - r : FORMAT_TILE;
        pack_tile(kernels, t->type, rows + r * n_cols, n, n_cols, scratch,
                  bytes + r / FORMAT_TILE * tile_bytes(t->type, n_cols), &loss);
    }
    free(rows);
    free(scratch);
}

void tiny_write(const char *path, const struct description *description, enum tensor_type type,
                unsigned seed)
{
    static uint8_t pieces[N_PIECES * 32];
    const size_t n = schema_list(description, NULL);
    struct tensor_spec *specs = calloc(n, sizeof *specs);
    struct format_tensor *directory = calloc(n, sizeof *directory);
    assert_true(specs && directory);
    schema_list(description, specs);
    struct format_header h = {
        .version = FORMAT_VERSION, .header_bytes = FORMAT_HEADER_BYTES, .n_tensors = (uint32_t)n};
    memcpy(h.magic, FORMAT_MAGIC, 8);
    h.description = (struct format_range){192, description_encode(description, NULL)};
    h.tokenizer =
        (struct format_range){aligned(192 + h.description.n_bytes, 64), put_pieces(pieces)};
    h.directory = (struct format_range){aligned(h.tokenizer.offset + h.tokenizer.n_bytes, 64),
                                        n * sizeof *directory};
    h.data.offset = aligned(h.directory.offset + h.directory.n_bytes, FORMAT_SECTION_ALIGN);
    h.file_bytes =
        schema_place(specs, n, &(struct tensor_types){type, type, type}, h.data.offset, directory);
    h.data.n_bytes = h.file_bytes - h.data.offset;
    uint8_t *bytes = calloc(1, (size_t)h.file_bytes);
    assert_non_null(bytes);
    for (size_t i = 0; i < n; i++) {
        fill(bytes + directory[i].range.offset, &directory[i], &specs[i], &seed);
        digest_of(bytes + directory[i].range.offset, (size_t)directory[i].range.n_bytes,
                  directory[i].digest);
    }
    memcpy(bytes, &h, sizeof h);
    description_encode(description, bytes + h.description.offset);
    memcpy(bytes + h.tokenizer.offset, pieces, (size_t)h.tokenizer.n_bytes);
    memcpy(bytes + h.directory.offset, directory, n * sizeof *directory);
    tiny_reseal(bytes);
    file_save(path, bytes, (size_t)h.file_bytes);
    free(bytes);
    free(specs);
    free(directory);
}

void tiny_reseal(uint8_t *bytes)
{
    struct format_header h;
    memcpy(&h, bytes, sizeof h);
    digest_of_front(bytes, (size_t)h.data.offset, h.digest);
    memcpy(bytes, &h, sizeof h);
}
