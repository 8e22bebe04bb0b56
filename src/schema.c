#include "schema.h"

#include <stdio.h>
#include <string.h>

/* Sizes that shapes are made of. */
enum size {
    ONE,
    NINE,
    VISION_WIDTH,
    VISION_FFN,
    VISION_ROWS,
    PATCH_VALUES,
    HIDDEN,
    FFN,
    Q_ROWS,
    KV_ROWS,
    VOCAB,
    SQUEEZE,
    PROJECTOR_IN, /* of the projector's n-th linear layer */
};

/* When a tensor is there: a field of the description is not zero, or is. */
enum condition {
    ALWAYS,
    WITH_CLASS_TOKEN,
    WITH_PRE_NORM,
    WITH_PATCH_BIAS,
    WITH_TIED_HEAD,
    WITH_OWN_HEAD,
    WITH_NORM_BIAS,
    WITH_FFN_NORM,
    WITH_FFN_NORM_BIAS,
    WITH_GATE,
    WITH_GATE_BIAS,
    WITH_QKV_BIAS,
    WITH_OUT_BIAS,
    WITH_FFN_BIAS,
    WITH_HEAD_BIAS,
};

#define F(field) offsetof(struct description, field)
static const struct {
    size_t set, unset; /* fields; 0, which is the name's place: none */
} conditions[] = {
    [ALWAYS] = {0, 0},
    [WITH_CLASS_TOKEN] = {F(vision.class_token), 0},
    [WITH_PRE_NORM] = {F(vision.pre_norm), 0},
    [WITH_PATCH_BIAS] = {F(vision.patch_bias), 0},
    [WITH_TIED_HEAD] = {F(decoder.tied_head), 0},
    [WITH_OWN_HEAD] = {0, F(decoder.tied_head)},
    [WITH_NORM_BIAS] = {F(decoder.norm), 0}, /* NORM_LAYER */
    [WITH_FFN_NORM] = {0, F(decoder.parallel_block)},
    [WITH_FFN_NORM_BIAS] = {F(decoder.norm), F(decoder.parallel_block)},
    [WITH_GATE] = {0, F(decoder.plain_ffn)},
    [WITH_GATE_BIAS] = {F(decoder.ffn_bias), F(decoder.plain_ffn)},
    [WITH_QKV_BIAS] = {F(decoder.qkv_bias), 0},
    [WITH_OUT_BIAS] = {F(decoder.out_bias), 0},
    [WITH_FFN_BIAS] = {F(decoder.ffn_bias), 0},
    [WITH_HEAD_BIAS] = {F(decoder.head_bias), 0},
};
#undef F

struct row {
    const char *pattern;
    enum tensor_kind kind;
    enum size n_rows, n_cols;
    enum condition condition;
    size_t offset;
};

/* clang-format off */
#define WEIGHT(pattern, rows, cols, condition, place) \
    {pattern ".weight", TENSOR_MATRIX, rows, cols, condition, (place) + offsetof(struct linear, weight)}
#define BIAS(pattern, rows, condition, place) \
    {pattern ".bias", TENSOR_VECTOR, rows, ONE, condition, (place) + offsetof(struct linear, bias)}
#define LINEAR(pattern, rows, cols, bias_condition, place) \
    WEIGHT(pattern, rows, cols, ALWAYS, place), BIAS(pattern, rows, bias_condition, place)
#define NORM(pattern, width, condition, bias_condition, place) \
    {pattern ".weight", TENSOR_VECTOR, width, ONE, condition, (place) + offsetof(struct norm, weight)}, \
    {pattern ".bias", TENSOR_VECTOR, width, ONE, bias_condition, (place) + offsetof(struct norm, bias)}
#define LAYER_NORM(pattern, width, condition, place) NORM(pattern, width, condition, condition, place)
/* clang-format on */

#define P(member) offsetof(struct parameters, member)
#define V(member) offsetof(struct vision_layer, member)
#define B(member) offsetof(struct ldp_block, member)
#define D(member) offsetof(struct decoder_layer, member)

static const struct row vision_rows_before[] = {
    {"vision.patch.weight", TENSOR_MATRIX, VISION_WIDTH, PATCH_VALUES, ALWAYS,
     P(vision.patch.weight)},
    {"vision.patch.bias", TENSOR_VECTOR, VISION_WIDTH, ONE, WITH_PATCH_BIAS, P(vision.patch.bias)},
    {"vision.class_embedding", TENSOR_VECTOR, VISION_WIDTH, ONE, WITH_CLASS_TOKEN,
     P(vision.class_embedding)},
    {"vision.position", TENSOR_VECTOR, VISION_ROWS, VISION_WIDTH, ALWAYS, P(vision.position)},
    LAYER_NORM("vision.pre_norm", VISION_WIDTH, WITH_PRE_NORM, P(vision.pre_norm)),
};

static const struct row vision_layer_rows[] = {
    LAYER_NORM("vision.layers.%d.norm1", VISION_WIDTH, ALWAYS, V(norm1)),
    LINEAR("vision.layers.%d.q", VISION_WIDTH, VISION_WIDTH, ALWAYS, V(q)),
    LINEAR("vision.layers.%d.k", VISION_WIDTH, VISION_WIDTH, ALWAYS, V(k)),
    LINEAR("vision.layers.%d.v", VISION_WIDTH, VISION_WIDTH, ALWAYS, V(v)),
    LINEAR("vision.layers.%d.out", VISION_WIDTH, VISION_WIDTH, ALWAYS, V(out)),
    LAYER_NORM("vision.layers.%d.norm2", VISION_WIDTH, ALWAYS, V(norm2)),
    LINEAR("vision.layers.%d.fc1", VISION_FFN, VISION_WIDTH, ALWAYS, V(fc1)),
    LINEAR("vision.layers.%d.fc2", VISION_WIDTH, VISION_FFN, ALWAYS, V(fc2)),
};

static const struct row projector_linear_rows[] = {
    LINEAR("projector.linear.%d", HIDDEN, PROJECTOR_IN, ALWAYS, P(projector.linear)),
};

static const struct row ldp_block_rows[] = {
    {"projector.block.%d.taps", TENSOR_VECTOR, NINE, HIDDEN, ALWAYS, B(taps)},
    LAYER_NORM("projector.block.%d.norm1", HIDDEN, ALWAYS, B(norm1)),
    LINEAR("projector.block.%d.squeeze", SQUEEZE, HIDDEN, ALWAYS, B(squeeze)),
    LINEAR("projector.block.%d.excite", HIDDEN, SQUEEZE, ALWAYS, B(excite)),
    WEIGHT("projector.block.%d.pointwise", HIDDEN, HIDDEN, ALWAYS, B(pointwise)),
    LAYER_NORM("projector.block.%d.norm2", HIDDEN, ALWAYS, B(norm2)),
};

static const struct row peg_rows[] = {
    {"projector.peg.taps", TENSOR_VECTOR, NINE, HIDDEN, ALWAYS, P(projector.peg_taps)},
    {"projector.peg.bias", TENSOR_VECTOR, HIDDEN, ONE, ALWAYS, P(projector.peg_bias)},
};

static const struct row decoder_rows_before[] = {
    {"decoder.embedding.weight", TENSOR_TABLE, VOCAB, HIDDEN, WITH_OWN_HEAD, P(decoder.embedding)},
    /* as the head's matrix it lies in tiles */
    {"decoder.embedding.weight", TENSOR_MATRIX, VOCAB, HIDDEN, WITH_TIED_HEAD,
     P(decoder.embedding)},
};

static const struct row decoder_layer_rows[] = {
    NORM("decoder.layers.%d.attention_norm", HIDDEN, ALWAYS, WITH_NORM_BIAS, D(attention_norm)),
    LINEAR("decoder.layers.%d.q", Q_ROWS, HIDDEN, WITH_QKV_BIAS, D(q)),
    LINEAR("decoder.layers.%d.k", KV_ROWS, HIDDEN, WITH_QKV_BIAS, D(k)),
    LINEAR("decoder.layers.%d.v", KV_ROWS, HIDDEN, WITH_QKV_BIAS, D(v)),
    LINEAR("decoder.layers.%d.out", HIDDEN, Q_ROWS, WITH_OUT_BIAS, D(out)),
    NORM("decoder.layers.%d.ffn_norm", HIDDEN, WITH_FFN_NORM, WITH_FFN_NORM_BIAS, D(ffn_norm)),
    WEIGHT("decoder.layers.%d.gate", FFN, HIDDEN, WITH_GATE, D(gate)),
    BIAS("decoder.layers.%d.gate", FFN, WITH_GATE_BIAS, D(gate)),
    LINEAR("decoder.layers.%d.up", FFN, HIDDEN, WITH_FFN_BIAS, D(up)),
    LINEAR("decoder.layers.%d.down", HIDDEN, FFN, WITH_FFN_BIAS, D(down)),
};

static const struct row decoder_rows_after[] = {
    NORM("decoder.norm", HIDDEN, ALWAYS, WITH_NORM_BIAS, P(decoder.norm)),
    WEIGHT("decoder.head", VOCAB, HIDDEN, WITH_OWN_HEAD, P(decoder.head)),
    BIAS("decoder.head", VOCAB, WITH_HEAD_BIAS, P(decoder.head)),
};

static int64_t field_at(const struct description *d, size_t offset)
{
    return *(const int64_t *)(const void *)((const char *)d + offset);
}

static bool condition_holds(const struct description *d, enum condition condition)
{
    const size_t set = conditions[condition].set, unset = conditions[condition].unset;
    return (!set || field_at(d, set)) && (!unset || !field_at(d, unset));
}

static int64_t size_value(const struct description *d, enum size size, int number)
{
    switch (size) {
    case ONE:
        break;
    case NINE:
        return 9;
    case VISION_WIDTH:
        return d->vision.width;
    case VISION_FFN:
        return d->vision.ffn;
    case VISION_ROWS:
        return (int64_t)vision_rows(d);
    case PATCH_VALUES:
        return 3 * d->vision.patch_size * d->vision.patch_size;
    case HIDDEN:
        return d->decoder.hidden;
    case FFN:
        return d->decoder.ffn;
    case Q_ROWS:
        return d->decoder.n_heads * d->decoder.head_dim;
    case KV_ROWS:
        return d->decoder.n_kv_heads * d->decoder.head_dim;
    case VOCAB:
        return d->decoder.vocab;
    case SQUEEZE:
        return d->projector.squeeze;
    case PROJECTOR_IN:
        return number == 0 ? d->vision.width : d->decoder.hidden;
    }
    return 1;
}

void schema_name(char *name, size_t capacity, const char *pattern, int number)
{
    const char *mark = strstr(pattern, "%d");
    if (mark)
        snprintf(name, capacity, "%.*s%d%s", (int)(mark - pattern), pattern, number, mark + 2);
    else
        snprintf(name, capacity, "%s", pattern);
}

/* The list under construction. */
struct list {
    const struct description *description;
    struct tensor_spec *specs; /* NULL: only count */
    size_t n;
};

/* Appends rows; `number` stands for %d, and each row's place is moved by `shift` bytes. */
static void append(struct list *list, enum section section, enum tensor_base base, int number,
                   size_t shift, const struct row *rows, size_t n_rows)
{
    for (size_t i = 0; i < n_rows; i++) {
        const struct row *row = &rows[i];
        if (!condition_holds(list->description, row->condition))
            continue;
        if (list->specs) {
            struct tensor_spec *spec = &list->specs[list->n];
            *spec =
                (struct tensor_spec){.pattern = row->pattern, .number = number, .kind = row->kind};
            schema_name(spec->name, sizeof spec->name, row->pattern, number);
            spec->section = section;
            spec->n_rows = size_value(list->description, row->n_rows, number);
            spec->n_cols = size_value(list->description, row->n_cols, number);
            spec->base = base;
            spec->offset = row->offset + shift;
        }
        list->n++;
    }
}

#define APPEND(section, base, number, shift, rows)                                                 \
    append(list, section, base, number, shift, rows, sizeof(rows) / sizeof *(rows))

static void append_vision(struct list *list)
{
    APPEND(SECTION_VISION, BASE_PARAMETERS, -1, 0, vision_rows_before);
    for (int layer = 0; layer < list->description->vision.n_layers; layer++)
        APPEND(SECTION_VISION, BASE_VISION_LAYER, layer, 0, vision_layer_rows);
}

static void append_projector(struct list *list)
{
    for (int i = 0; i < list->description->projector.n_linear; i++)
        APPEND(SECTION_PROJECTOR, BASE_PARAMETERS, i, (size_t)i * sizeof(struct linear),
               projector_linear_rows);
    if (list->description->projector.kind == PROJECTOR_LDP)
        for (int i = 0; i < 2; i++)
            APPEND(SECTION_PROJECTOR, BASE_PARAMETERS, i,
                   offsetof(struct parameters, projector.block) +
                       (size_t)i * sizeof(struct ldp_block),
                   ldp_block_rows);
    if (list->description->projector.kind == PROJECTOR_LDPV2)
        APPEND(SECTION_PROJECTOR, BASE_PARAMETERS, -1, 0, peg_rows);
}

static void append_decoder(struct list *list)
{
    APPEND(SECTION_DECODER, BASE_PARAMETERS, -1, 0, decoder_rows_before);
    for (int layer = 0; layer < list->description->decoder.n_layers; layer++)
        APPEND(SECTION_DECODER, BASE_DECODER_LAYER, layer, 0, decoder_layer_rows);
    APPEND(SECTION_DECODER, BASE_PARAMETERS, -1, 0, decoder_rows_after);
}

size_t schema_list(const struct description *description, struct tensor_spec *specs)
{
    struct list list = {.description = description, .specs = specs};
    if (takes_pictures(description)) {
        append_vision(&list);
        append_projector(&list);
    }
    append_decoder(&list);
    return list.n;
}

bool is_quantized(enum tensor_type type)
{
    return type == TENSOR_Q8 || type == TENSOR_Q4;
}

size_t tiles_of(size_t n)
{
    return (n + FORMAT_TILE - 1) / FORMAT_TILE;
}

size_t tile_bytes(enum tensor_type type, size_t n_cols)
{
    switch (type) {
    case TENSOR_Q8:
        return q8_tile_bytes(n_cols);
    case TENSOR_Q4:
        return q4_tile_bytes(n_cols);
    case TENSOR_F32:
    case TENSOR_F16:
        break;
    }
    return n_cols * FORMAT_TILE * tensor_value_bytes(type);
}

/* Of q8: a scale, then a byte a value, up to a multiple of four. */
size_t row_bytes(enum tensor_type type, size_t n_cols)
{
    if (is_quantized(type))
        return sizeof(float) + aligned(n_cols, sizeof(float));
    return n_cols * tensor_value_bytes(type);
}

uint64_t tensor_bytes(enum tensor_type type, enum tensor_layout layout, uint64_t n_rows,
                      uint64_t n_cols)
{
    if (layout == LAYOUT_TILES)
        return tiles_of(n_rows) * tile_bytes(type, n_cols);
    return n_rows * row_bytes(type, n_cols);
}

static enum tensor_type type_of(const struct tensor_spec *spec, const struct tensor_types *types)
{
    if (spec->kind == TENSOR_VECTOR)
        return TENSOR_F32;
    /* small, and pixels have eight bits already: a second rounding of them would be the tower's largest error */
    if (strcmp(spec->pattern, "vision.patch.weight") == 0 && is_quantized(types->vision))
        return TENSOR_F32;
    if (spec->section != SECTION_DECODER)
        return types->vision;
    if (spec->base == BASE_DECODER_LAYER)
        return types->decoder;
    return spec->kind == TENSOR_TABLE && types->head == TENSOR_Q4 ? TENSOR_Q8 : types->head;
}

uint64_t schema_place(const struct tensor_spec *specs, size_t n, const struct tensor_types *types,
                      uint64_t data, struct format_tensor *directory)
{
    uint64_t end = data;
    for (size_t i = 0; i < n; i++) {
        const struct tensor_spec *spec = &specs[i];
        const bool new_section = i == 0 || spec->section != specs[i - 1].section;
        struct format_tensor *t = &directory[i];
        *t = (struct format_tensor){
            .type = (uint8_t)type_of(spec, types),
            .layout = spec->kind == TENSOR_MATRIX ? LAYOUT_TILES : LAYOUT_ROWS,
            .section = (uint8_t)spec->section,
            .n_rows = (uint64_t)spec->n_rows,
            .n_cols = (uint64_t)spec->n_cols,
        };
        memcpy(t->name, spec->name, sizeof t->name);
        t->range.offset = aligned(end, new_section ? FORMAT_SECTION_ALIGN : FORMAT_ALIGN);
        t->range.n_bytes = tensor_bytes(t->type, t->layout, t->n_rows, t->n_cols);
        end = t->range.offset + t->range.n_bytes;
    }
    return end;
}

const char *tensor_type_name(enum tensor_type type)
{
    static const char *const names[] = {"f32", "f16", "q8", "q4"};
    return names[type];
}

size_t tensor_value_bytes(enum tensor_type type)
{
    return type == TENSOR_F16 ? 2 : 4;
}
