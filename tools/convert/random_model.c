#include "random_model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "status.h"
#include "text.h"

/* ---- Shapes ----------------------------------------------------------------------------- */

#define MOBILEVLM        "mobilevlm", "openai/clip-vit-large-patch14-336", "pad"
#define IMP(llm, aspect) llm, "google/siglip-so400m-patch14-384", aspect, "mlp2x_gelu"

/* What differs between the config.json of the published models. */
static const struct shape {
    const char *name, *model_type, *tower, *aspect, *projector;
    int hidden, ffn, n_layers, n_heads, vocab, context;
    double norm_eps, partial_rotary_factor, rope_theta;
    int tower_positions; /* 0: the tower's own */
} shapes[] = {
    {"v1-1.7b", MOBILEVLM, "ldpnet", 2048, 5632, 24, 16, 32000, 2048, 1e-6, 1.0, 1e4, 0},
    {"v2-1.7b", MOBILEVLM, "ldpnetv2", 2048, 5632, 24, 16, 32000, 2048, 1e-6, 1.0, 1e4, 0},
    {"v1-3b", MOBILEVLM, "ldpnet", 2560, 6912, 32, 32, 32000, 2048, 1e-6, 1.0, 1e4, 0},
    {"v2-3b", MOBILEVLM, "ldpnetv2", 2560, 6912, 32, 32, 32000, 2048, 1e-6, 1.0, 1e4, 0},
    {"v2-7b", MOBILEVLM, "ldpnetv2", 4096, 11008, 32, 32, 32000, 4096, 1e-5, 1.0, 1e4, 0},
    {"imp-v1-3b", IMP("imp", "square"), 2560, 10240, 32, 32, 51200, 2048, 1e-5, 0.4, 1e4, 0},
    {"imp-v1.5-3b-196", IMP("imp", "square"), 2560, 10240, 32, 32, 51200, 2048, 1e-5, 0.4, 1e4,
     196},
    {"imp-v1.5-2b", IMP("imp_qwen2", "square"), 2048, 5504, 24, 16, 151936, 32768, 1e-6, 1.0, 1e6,
     0},
    {"imp-v1.5-4b", IMP("imp_phi3", "pad"), 3072, 8192, 32, 32, 32064, 4096, 1e-5, 1.0, 1e4, 0},
};
enum { N_SHAPES = sizeof shapes / sizeof *shapes, N_PIECES = 32000 };

static const struct shape *find_shape(const char *name, mvlm_error *error)
{
    char list[200] = "";
    for (size_t i = 0; i < N_SHAPES; i++) {
        if (strcmp(shapes[i].name, name) == 0)
            return &shapes[i];
        const size_t n = strlen(list);
        snprintf(list + n, sizeof list - n, "%s%s", n ? ", " : "", shapes[i].name);
    }
    fail(error, MVLM_USAGE, "no model \"%.40s\" is known: there are %s", name, list);
    return NULL;
}

/* What a published config.json says, as far as it is read. */
static json_t *config_of(const struct shape *shape)
{
    const int tower_width = strstr(shape->tower, "siglip") ? 1152 : 1024;
    return json_pack(
        "{s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:f, s:f, s:f, s:f, s:i, s:s, s:s, s:s, s:i, s:s, "
        "s:i}",
        "model_type", shape->model_type, "vocab_size", shape->vocab, "hidden_size", shape->hidden,
        "intermediate_size", shape->ffn, "num_hidden_layers", shape->n_layers,
        "num_attention_heads", shape->n_heads, "max_position_embeddings", shape->context,
        "rms_norm_eps", shape->norm_eps, "layer_norm_eps", shape->norm_eps, "partial_rotary_factor",
        shape->partial_rotary_factor, "rope_theta", shape->rope_theta, "eos_token_id", 2,
        "image_aspect_ratio", shape->aspect, "mm_projector_type", shape->projector,
        "mm_vision_tower", shape->tower, "mm_hidden_size", tower_width, "mm_vision_select_feature",
        "patch", "mm_vision_select_layer", -2);
}

/* ---- Vocabulary ------------------------------------------------------------------------- */

enum { UNKNOWN, BEGIN, END, FIRST_BYTE, FIRST_WORD = FIRST_BYTE + 256, PIECE_BYTES = 8 };
enum { TYPE_NORMAL = 1, TYPE_UNKNOWN = 2, TYPE_CONTROL = 3, TYPE_BYTE = 6 };

/* Piece `id`; its text goes to `text`. Words are a space and four letters that count upwards: none
 * can be built from shorter pieces, for there are no shorter ones but the bytes. */
static struct vocabulary_piece make_piece(int id, char text[PIECE_BYTES])
{
    static const char *const specials[] = {"<unk>", "<s>", "</s>"};
    struct vocabulary_piece piece = {.text = text};
    if (id < FIRST_BYTE) {
        strcpy(text, specials[id]);
        piece.type = id == UNKNOWN ? TYPE_UNKNOWN : TYPE_CONTROL;
    } else if (id < FIRST_WORD) {
        snprintf(text, PIECE_BYTES, "<0x%02X>", (unsigned)(id - FIRST_BYTE) & 255);
        piece.type = TYPE_BYTE;
    } else {
        int rest = id - FIRST_WORD;
        memcpy(text, "\xe2\x96\x81", 3);
        for (int i = 6; i >= 3; i--, rest /= 26)
            text[i] = (char)('a' + rest % 26);
        text[7] = 0;
        piece.type = TYPE_NORMAL;
        piece.score = -(float)(id - FIRST_WORD);
    }
    piece.n_bytes = strlen(text);
    return piece;
}

/* The settings of LLaMA's tokenizer.model. */
static mvlm_status make_vocabulary(struct vocabulary *tokenizer, mvlm_error *error)
{
    tokenizer->settings = (struct tokenizer_settings){.kind = TOKENIZER_SENTENCEPIECE_BPE,
                                                      .unk_id = UNKNOWN,
                                                      .bos_id = BEGIN,
                                                      .eos_id = END,
                                                      .pad_id = -1,
                                                      .add_dummy_prefix = 1,
                                                      .escape_whitespaces = 1,
                                                      .byte_fallback = 1};
    TRY(vocabulary_reserve(tokenizer, N_PIECES, error));
    tokenizer->bytes = malloc((size_t)N_PIECES * PIECE_BYTES);
    if (!tokenizer->bytes)
        return fail_no_memory(error, "the vocabulary", (size_t)N_PIECES * PIECE_BYTES);
    tokenizer->n_pieces = N_PIECES;
    for (int id = 0; id < N_PIECES; id++)
        tokenizer->pieces[id] = make_piece(id, (char *)tokenizer->bytes + id * PIECE_BYTES);
    return MVLM_OK;
}

mvlm_status random_model_open(const char *name, struct vocabulary *tokenizer,
                              const struct config_changes *changes, struct config *config,
                              mvlm_error *error)
{
    char full_name[64];
    struct config_changes own = *changes;
    const struct shape *shape = find_shape(name, error);
    memset(tokenizer, 0, sizeof *tokenizer);
    memset(config, 0, sizeof *config);
    if (!shape)
        return MVLM_USAGE;
    TRY(make_vocabulary(tokenizer, error));
    own.tower_positions = shape->tower_positions;
    snprintf(full_name, sizeof full_name, "random-%s", shape->name);
    return config_open_json(config_of(shape), full_name, tokenizer, &own, config, error);
}

/* ---- Weights ---------------------------------------------------------------------------- */

/* The counter-th draw of a sequence: the finishing steps of SplitMix64 on a counter. */
static uint64_t draw(uint64_t key, uint64_t counter)
{
    uint64_t z = key + counter * UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

/* Close to normal with the deviation 1, within 3.5: a sum of four uniform numbers, which needs no
 * library function that may round otherwise elsewhere. */
static float normal(uint64_t key, uint64_t counter)
{
    const int mean = 4 * 65535 / 2;
    const float deviation = 37837.227f; /* 65536 sqrt(4 / 12) */
    const uint64_t bits = draw(key, counter);
    const int sum = (int)(bits & 0xffff) + (int)(bits >> 16 & 0xffff) + (int)(bits >> 32 & 0xffff) +
                    (int)(bits >> 48);
    return (float)(sum - mean) / deviation;
}

static float deviation_of(const struct tensor_spec *spec)
{
    if (spec->kind == TENSOR_MATRIX)
        return 1.0f / sqrtf((float)spec->n_cols);
    if (ends_with(spec->pattern, "taps")) /* [9, channels]: nine inputs */
        return 1.0f / 3.0f;
    return 0.02f;
}

void random_rows(const struct tensor_spec *spec, uint64_t seed, size_t first, size_t n_rows,
                 float *out)
{
    const uint64_t key = XXH3_64bits_withSeed(spec->name, strlen(spec->name), seed);
    const size_t n_cols = (size_t)spec->n_cols, n = n_rows * n_cols;
    const float deviation = deviation_of(spec);
    const bool ones = strstr(spec->pattern, "norm") && ends_with(spec->pattern, ".weight");
    for (size_t i = 0; i < n; i++)
        out[i] = ones ? 1.0f : deviation * normal(key, first * n_cols + i);
}
