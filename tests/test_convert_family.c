/* Imp's checkpoints in all their published forms, byte-level tokenizers, LoRA adapters: what is read alike, and what
 * is refused. */
#include "convert_fixture.h"

#include "format.h"
#include "golden.h"
#include "json_file.h"
#include "tiny.h"

/* ---- Names and slices ------------------------------------------------------------------- */

static size_t rows_of(const struct built_tensor *t)
{
    return (size_t)t->shape[0];
}

static size_t columns_of(const struct built_tensor *t)
{
    return t->n_dims > 1 ? (size_t)t->shape[1] : 1;
}

/* One tensor of several, one above the other; the parts are forgotten. */
static void fuse(struct tensors *tensors, const char *fused, const char *const *parts, size_t n)
{
    struct built_tensor whole = *find_tensor(tensors, parts[0]);
    const size_t columns = columns_of(&whole);
    size_t rows = 0;
    float *values = NULL;
    for (size_t i = 0; i < n; i++) {
        struct built_tensor *part = find_tensor(tensors, parts[i]);
        const size_t more = rows_of(part) * columns;
        values = realloc(values, (rows * columns + more) * sizeof *values);
        assert_non_null(values);
        memcpy(values + rows * columns, part->data, more * sizeof *values);
        rows += rows_of(part);
        free((void *)(uintptr_t)part->name);
        free((void *)(uintptr_t)part->data);
        *part = tensors->items[--tensors->n];
    }
    whole.name = strdup(fused);
    whole.shape[0] = (int64_t)rows;
    whole.data = values;
    tensors->items[tensors->n++] = whole;
}

static void rename_tensor(struct built_tensor *t, const char *part, const char *by)
{
    const char *at = strstr(t->name, part);
    char *name;
    if (!at)
        return;
    assert_true(asprintf(&name, "%.*s%s%s", (int)(at - t->name), t->name, by, at + strlen(part)) >
                0);
    free((void *)(uintptr_t)t->name);
    t->name = name;
}

/* The first releases of Imp: other names, q, k and v in one tensor. */
static void use_old_names(struct tensors *tensors)
{
    static const char *const names[][2] = {{"lm_head.", "lm_head.linear."},
                                           {"model.final_layernorm", "lm_head.ln"},
                                           {"model.embed_tokens", "transformer.embd.wte"},
                                           {".input_layernorm", ".ln"},
                                           {".self_attn.dense", ".mixer.out_proj"},
                                           {"model.layers.", "transformer.h."},
                                           {"model.vision_tower", "transformer.vision_tower"},
                                           {"model.mm_projector", "transformer.mm_projector"}};
    for (int layer = 0; layer < 2; layer++)
        for (int bias = 0; bias < 2; bias++) {
            static const char *const kinds[] = {"q", "k", "v"};
            char parts[3][80], fused[80];
            const char *pointers[3];
            for (int i = 0; i < 3; i++) {
                snprintf(parts[i], sizeof parts[i], "model.layers.%d.self_attn.%s_proj.%s", layer,
                         kinds[i], bias ? "bias" : "weight");
                pointers[i] = parts[i];
            }
            snprintf(fused, sizeof fused, "transformer.h.%d.mixer.Wqkv.%s", layer,
                     bias ? "bias" : "weight");
            fuse(tensors, fused, pointers, 3);
        }
    for (size_t i = 0; i < tensors->n; i++)
        for (size_t k = 0; k < sizeof names / sizeof *names; k++)
            if (!strstr(tensors->items[i].name, "vision_model") || k == 6)
                rename_tensor(&tensors->items[i], names[k][0], names[k][1]);
}

static void remove_shards(void)
{
    char command[1200];
    snprintf(command, sizeof command, "rm -f %s/*.safetensors* %s/*.bin", checkpoint, checkpoint);
    assert_int_equal(system(command), 0);
}

/* Whatever a checkpoint calls its tensors and fields, the same file comes out. */
static void old_names_make_the_same_file(void **state)
{
    static const char *const fields[][2] = {{"hidden_size", "n_embd"},
                                            {"intermediate_size", "n_inner"},
                                            {"num_hidden_layers", "n_layer"},
                                            {"num_attention_heads", "n_head"},
                                            {"max_position_embeddings", "n_positions"},
                                            {"layer_norm_eps", "layer_norm_epsilon"}};
    struct tensors tensors;
    char first[700], path[700];
    (void)state;
    copy_checkpoint("imp-phi2");
    load_tensors(&tensors);
    remove_shards();
    save_tensors(&tensors);
    expect_good(convert_with(WORDS("--type", "f32", "-q")), "");
    snprintf(first, sizeof first, "%s/first.bin", root);
    assert_int_equal(rename(model, first), 0);

    load_tensors(&tensors);
    use_old_names(&tensors);
    save_tensors(&tensors);
    snprintf(path, sizeof path, "%s/config.json", checkpoint);
    json_t *json = json_load_file(path, 0, NULL);
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        json_object_set(json, fields[i][1], json_object_get(json, fields[i][0]));
        json_object_del(json, fields[i][0]);
    }
    json_object_set_new(json, "rotary_dim", json_integer(8));
    json_object_del(json, "partial_rotary_factor");
    json_object_del(json, "num_key_value_heads");
    assert_int_equal(json_dump_file(json, path, 0), 0);
    json_decref(json);
    expect_good(convert_with(WORDS("--type", "f32", "-q")), "");
    expect_same_files(first, model);
}

static void expect_fields(const char *name, const char *const (*rows)[3], size_t n)
{
    for (size_t i = 0; i < n; i++) {
        copy_checkpoint(name);
        set_field("config.json", rows[i][0], rows[i][1]);
        expect_refused(rows[i][2]);
    }
}

static void refuses_what_its_graph_cannot(void **state)
{
    static const char *const phi2[][3] = {
        {"partial_rotary_factor", "0.25", "rotates 5 of a head's 20"},
        {"partial_rotary_factor", "0", "partial_rotary_factor"},
        {"qk_layernorm", "true", "qk_layernorm"},
        {"rope_scaling", "{\"type\": \"dynamic\", \"factor\": 2.0}", "\"dynamic\""},
        {"vocab_size", "440", "\"vocab_size\" 440"},
        {"num_experts", "8", "a mixture of experts (\"num_experts\")"},
        {"num_experts", "\"8\"", "a mixture of experts (\"num_experts\")"},
        {"n_embd", "9223372036854775807", "n_embd"},
        {"rope_parameters", "{\"rope_type\": \"default\", \"partial_rotary_factor\": 0.25}",
         "rotates 5"},
        {"conv_mode", "\"chatml\"", "\"chatml\""},
        {"mm_vision_tower", "\"facebook/dinov2\"", "\"facebook/dinov2\""},
    };
    static const char *const phi3[][3] = {
        {"rope_scaling", "{\"type\": \"longrope\", \"short_factor\": [1.0]}", "\"longrope\""},
        {"rope_scaling", "{\"type\": \"su\", \"long_factor\": [1.0]}", "\"su\""},
        {"use_sliding_window", "true", "use_sliding_window"},
        {"sliding_window", "-3", "sliding_window"},
        {"num_local_experts", "16", "a mixture of experts (\"num_local_experts\")"},
        {"num_key_value_heads", "1", "qkv_proj"},
        {"attention_bias", "true", "attention_bias"},
    };
    (void)state;
    expect_fields("imp-phi2", phi2, sizeof phi2 / sizeof *phi2);
    expect_fields("imp-phi3", phi3, sizeof phi3 / sizeof *phi3);
    copy_checkpoint("imp-phi3");
    expect_failure(convert_with(WORDS("--rope-scale", "4")), 2, "a window of 2047", 0);
    /* attention looks back no further than that */
    assert_true(recorded("decoder.context", WORDS("--type", "f32", "-q", "--force")) == 2047);
}

/* ---- Byte-level tokenizers -------------------------------------------------------------- */

static json_t *load_json(const char *name)
{
    json_t *json;
    mvlm_error error = {0};
    if (json_file_load(checkpoint, name, false, &json, &error) != MVLM_OK)
        fail_msg("%s", error.message);
    return json;
}

static void save_json(json_t *json, const char *name)
{
    char path[700];
    snprintf(path, sizeof path, "%s/%s", checkpoint, name);
    assert_int_equal(json_dump_file(json, path, 0), 0);
    json_decref(json);
}

static void refuses_wrong_vocabularies(void **state)
{
    static const struct {
        const char *piece, *id, *part;
    } rows[] = {
        {"he", "9999", "\"he\" has no id"},  {"he", "-1", "\"he\" has no id"},
        {"he", "1.5", "\"he\" has no id"},   {"he", "null", "\"he\" has no id"},
        {"he", "5", "have the same id 5"},   {"he", "[]", "\"he\" has no id"},
        {"new", "401", "\"new\" has no id"}, {"", "300", "0 bytes"},
    };
    static const struct {
        const char *merges, *part;
    } texts[] = {
        {"", "0 merges for 400 pieces"},
        {"#version: 0.2\nh e\n", "1 merges for 400 pieces"},
        {"#version: 0.2\nh e\nxyzzy q\n", "merge 2: \"xyzzy\" is no piece"},
        {"h e\nt z\n", "merge 1: \"tz\" is no piece"},
        {"t\n", "merge 0: \"t\" is no two pieces"},
        {"t h e\n", "merge 0: \"t h e\" is no two pieces"},
        {" t\n", "is no two pieces"},
        {"t \n", "is no two pieces"},

    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        copy_checkpoint("imp-phi2");
        json_t *json = load_json("vocab.json");
        assert_true(i > 5 || json_object_get(json, rows[i].piece));
        json_object_set_new(json, rows[i].piece, json_loads(rows[i].id, JSON_DECODE_ANY, NULL));
        if (i == 7) /* that many as before */
            json_object_del(json, "ehi");
        save_json(json, "vocab.json");
        expect_refused(rows[i].part);
    }
    copy_checkpoint("imp-phi2");
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        write_text("merges.txt", texts[i].merges);
        expect_refused(texts[i].part);
    }
    file_write(checkpoint, "merges.txt", "t\0h\n", 4);
    expect_refused("holds a NUL");
    remove_file("merges.txt");
    expect_refused("merges.txt");
    remove_file("vocab.json");
    expect_refused("no tokenizer");
}

static void refuses_wrong_added_tokens(void **state)
{
    static const struct {
        const char *file, *key, *value, *part;
    } rows[] = {
        {"tokenizer_config.json", "tokenizer_class", "\"WhisperTokenizer\"",
         "\"WhisperTokenizer\""},
        {"tokenizer_config.json", "tokenizer_class", NULL, "tokenizer_class"},
        {"tokenizer_config.json", "add_eos_token", "true", "add_eos_token"},
        {"tokenizer_config.json", "add_prefix_space", "true", "add_prefix_space"},
        {"tokenizer_config.json", "split_special_tokens", "true", "split_special_tokens"},
        {"tokenizer_config.json", "eos_token", "5", "eos_token"},
        {"tokenizer_config.json", "eos_token", "\"<end>\"", "\"<end>\" is no piece"},
        {"tokenizer_config.json", "additional_special_tokens", "{}", "additional_special_tokens"},
        {"tokenizer_config.json", "added_tokens_decoder", "[]", "added_tokens_decoder"},
        {"tokenizer_config.json", "clean_up_tokenization_spaces", "1", "clean_up"},
        {"tokenizer_config.json", "added_tokens_decoder", "{\"5\": {\"content\": \"other\"}}",
         "another piece"},
        {"tokenizer_config.json", "added_tokens_decoder", "{\"900\": {\"content\": \"other\"}}",
         "hole"},
        {"tokenizer_config.json", "added_tokens_decoder", "{\"x\": {\"content\": \"other\"}}",
         "hole"},
        {"tokenizer_config.json", "added_tokens_decoder", "{\"400\": {\"content\": \"\"}}",
         "no text"},
        {"tokenizer_config.json", "added_tokens_decoder",
         "{\"400\": {\"content\": \"<x>\", \"single_word\": true}}", "single word"},
        {"tokenizer_config.json", "added_tokens_decoder",
         "{\"400\": {\"content\": \"<x>\", \"rstrip\": 3}}", "rstrip"},
        {"tokenizer_config.json", "added_tokens_decoder", "{}", "not among the tokenizer's pieces"},
        {"added_tokens.json", "</s>", "7", "\"</s>\" (id 7)"},
        {"added_tokens.json", "<new>", "441", "\"<new>\" (id 441)"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        copy_checkpoint("imp-phi2");
        json_t *json = load_json("tokenizer_config.json"); /* its model_max_length is 1e30 */
        json_object_set_new(json, "model_max_length", json_integer(2048));
        save_json(json, "tokenizer_config.json");
        set_field(rows[i].file, rows[i].key, rows[i].value);
        expect_refused(rows[i].part);
    }
}

/* tokenizer.json out of vocab.json and merges.txt, which are removed; pairs: merges as newer files have them. */
static void make_tokenizer_json(bool pairs, bool qwen2)
{
    size_t n;
    char path[700], line[300];
    json_t *merges = json_array(), *added = json_array(), *entry;
    const char *id;
    snprintf(path, sizeof path, "%s/merges.txt", checkpoint);
    char *text = file_load(path, &n), *rest = text;
    for (const char *at; (at = strsep(&rest, "\n")) != NULL;)
        if (*at && *at != '#') {
            snprintf(line, sizeof line, "%s", at);
            char *right = strchr(line, ' ');
            *right++ = 0;
            json_array_append_new(merges,
                                  pairs ? json_pack("[s, s]", line, right) : json_string(at));
        }
    free(text);
    json_t *config = load_json("tokenizer_config.json");
    json_object_foreach(json_object_get(config, "added_tokens_decoder"), id, entry)
    {
        json_object_set_new(entry, "id", json_integer(atoi(id)));
        json_array_append(added, entry);
    }
    static const char pattern[] =
        "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| "
        "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
    json_t *bytes = json_pack("{s:s, s:b, s:b}", "type", "ByteLevel", "add_prefix_space", 0,
                              "use_regex", !qwen2);
    json_t *words = qwen2 ? json_pack("{s:s, s:[{s:s, s:{s:s}, s:s, s:b}, o]}", "type", "Sequence",
                                      "pretokenizers", "type", "Split", "pattern", "Regex", pattern,
                                      "behavior", "Isolated", "invert", 0, bytes)
                          : bytes;
    assert_non_null(words);
    json_t *json =
        json_pack("{s:{s:s, s:o, s:o}, s:o, s:o, s:o}", "model", "type", "BPE", "vocab",
                  load_json("vocab.json"), "merges", merges, "added_tokens", added, "pre_tokenizer",
                  words, "normalizer", qwen2 ? json_pack("{s:s}", "type", "NFC") : json_null());
    assert_non_null(json);
    save_json(json, "tokenizer.json");
    json_decref(config);
    remove_file("vocab.json");
    remove_file("merges.txt");
}

static char *ids_of_text(void)
{
    static const char text[] = "It's  a\t\tcat, isn't it?\n\n  1234 na\xc3\xafve e\xcc\x81 IT'S   ";
    struct program_result result;
    program_run(&result, WORDS(MOBILEVLM_PROGRAM, "tokenize", "-m", model), text, sizeof text - 1,
                NULL);
    assert_int_equal(result.code, 0);
    char *ids = strdup(result.out);
    program_free(&result);
    return ids;
}

static void tokenizer_json_says_the_same(void **state)
{
    (void)state;
    copy_checkpoint("imp-phi2");
    expect_good(convert_with(WORDS("--type", "f32", "-q")), "");
    char *expected = ids_of_text();
    for (int pairs = 0; pairs < 2; pairs++) {
        copy_checkpoint("imp-phi2");
        json_t *json = load_json("tokenizer_config.json");
        json_object_set_new(json, "model_max_length", json_integer(2048));
        save_json(json, "tokenizer_config.json");
        make_tokenizer_json(pairs, false);
        expect_good(convert_with(WORDS("--type", "f32", "-q", "--force")), "");
        char *ids = ids_of_text();
        assert_string_equal(ids, expected);
        free(ids);
    }
    free(expected);
}

/* Qwen2's, of the shared case. */
static void qwen2_tokenizer_json_says_the_same(void **state)
{
    static const char source[] = SHARED_DIR "/reference/family/cases/imp-qwen/checkpoint";
    (void)state;
    if (!path_exists(source))
        skip();
    expect_good(run(WORDS("cp", "-R", source, checkpoint), NULL), "");
    expect_good(run(WORDS("chmod", "-R", "u+w", checkpoint), NULL), "");
    expect_good(convert_with(WORDS("--type", "f32", "-q")), "");
    char *expected = ids_of_text();
    make_tokenizer_json(true, true);
    expect_good(convert_with(WORDS("--type", "f32", "-q", "--force")), "");
    char *ids = ids_of_text();
    assert_string_equal(ids, expected);
    free(ids);
    free(expected);
}

static void refuses_wrong_tokenizer_json(void **state)
{
    static const struct {
        const char *object, *key, *value, *part;
    } rows[] = {
        {"model", "type", "\"Unigram\"", "\"Unigram\""},
        {"model", "byte_fallback", "true", "tokenizer.model is read"},
        {"model", "ignore_merges", "true", "ignore_merges"},
        {"model", "dropout", "0.1", "dropout"},
        {"model", "merges", "{}", "\"merges\" is no list"},
        {"model", "merges", "[]", "0 merges"},
        {NULL, "added_tokens", "{}", "added_tokens"},
        {NULL, "post_processor", "{\"type\": \"TemplateProcessing\"}", "\"TemplateProcessing\""},
        {NULL, "post_processor", "{\"type\": \"Sequence\", \"processors\": [{\"type\": \"Bert\"}]}",
         "\"Bert\""},
        {"model", "merges", "[[\"t\"]]", "merge 1 is no pair"},
        {"model", "merges", "[3]", "merge 1 is no pair"},
        {"model", "merges", "[\"t xyzzy\"]", "\"xyzzy\" is no piece"},
        {"model", "vocab", "{}", "0 pieces"},
        {"model", "vocab", "3", "0 pieces"},
        {"pre_tokenizer", "type", "\"Whitespace\"", "\"Whitespace\""},
        {"pre_tokenizer", "add_prefix_space", "true", "\"ByteLevel\""},
        {"pre_tokenizer", "use_regex", "false", "\"ByteLevel\""},
        {NULL, "normalizer", "{\"type\": \"Lowercase\"}", "\"Lowercase\""},
        {NULL, "added_tokens", "[{\"content\": \"x\"}]", "hole"},
    };
    (void)state;
    copy_checkpoint("imp-phi2");
    json_t *config = load_json("tokenizer_config.json");
    json_object_set_new(config, "model_max_length", json_integer(2048));
    save_json(config, "tokenizer_config.json");
    make_tokenizer_json(false, false);
    json_t *good = load_json("tokenizer.json");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        json_t *json = json_deep_copy(good),
               *object = rows[i].object ? json_object_get(json, rows[i].object) : json;
        json_object_set_new(object, rows[i].key, json_loads(rows[i].value, JSON_DECODE_ANY, NULL));
        save_json(json, "tokenizer.json");
        expect_refused(rows[i].part);
    }
    json_decref(good);
}

/* Cut off anywhere, or with a byte turned over: refused, or taken and opened. */
static void expect_survival(const char *folder, const char *file, const char *const *more)
{
    size_t n;
    char path[700];
    snprintf(path, sizeof path, "%s/%s", folder, file);
    char *bytes = file_load(path, &n);
    for (size_t i = 0; i < 24; i++) {
        const size_t at = (i + 1) * n / 25;
        for (int flipped = 0; flipped < 2; flipped++) {
            bytes[at] ^= flipped ? 0x55 : 0;
            file_write(folder, file, bytes, flipped ? n : at);
            bytes[at] ^= flipped ? 0x55 : 0;
            struct program_result result = convert_with(more);
            if (result.code == 0) {
                struct program_result info =
                    run(WORDS(MOBILEVLM_PROGRAM, "info", "-m", model), NULL);
                assert_int_equal(info.code, 0);
                program_free(&info);
                assert_int_equal(remove(model), 0);
            } else
                assert_int_equal(result.code, 3);
            assert_int_equal(count_files(out_folder), 0);
            program_free(&result);
        }
    }
    file_write(folder, file, bytes, n);
    free(bytes);
}

static void survives_damaged_files(void **state)
{
    static const char *const files[] = {"vocab.json", "merges.txt", "tokenizer_config.json",
                                        "added_tokens.json", "special_tokens_map.json"};
    (void)state;
    copy_checkpoint("imp-phi2");
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        expect_survival(checkpoint, files[i], WORDS("--type", "f32", "-q"));
    make_tokenizer_json(true, false);
    expect_survival(checkpoint, "tokenizer.json", WORDS("--type", "f32", "-q"));
}

/* ---- LoRA ------------------------------------------------------------------------------- */

enum { RANK = 3 };
#define ADAPTED "model.layers.1.mlp.up_proj.weight"
#define PREFIX  "base_model.model."

static float *numbers(size_t n, float scale)
{
    float *values = malloc(n * sizeof *values);
    assert_non_null(values);
    for (size_t i = 0; i < n; i++)
        values[i] = scale * (float)((i * 37 + 11) % 101 - 50);
    return values;
}

/* The adapter: W += 2 B A of one matrix, and a bias in the place of another; `more` keys of zeros. */
static void make_adapter(struct tensors *base, const char *folder, const char *more)
{
    const struct built_tensor *w = find_tensor(base, ADAPTED),
                              *bias = find_tensor(base, "model.mm_projector.0.bias");
    const size_t rows = rows_of(w), columns = columns_of(w), n = rows_of(bias);
    struct built_tensor pair[3] = {{PREFIX "model.layers.1.mlp.up_proj.lora_A.weight",
                                    DTYPE_F32,
                                    2,
                                    {RANK, (int64_t)columns},
                                    numbers(RANK * columns, 0.001f)},
                                   {PREFIX "model.layers.1.mlp.up_proj.lora_B.weight",
                                    DTYPE_F32,
                                    2,
                                    {(int64_t)rows, RANK},
                                    numbers(rows * RANK, 0.002f)},
                                   {more, DTYPE_F32, 2, {RANK, 4}, numbers(RANK * 4, 0)}};
    float *replaced = numbers(n, 0.1f);
    const struct built_storage storage = {DTYPE_F32, replaced, n};
    const struct built_view view = {
        PREFIX "model.mm_projector.0.bias", 0, 0, 1, {(int64_t)n}, {1}, true};
    mkdir(folder, 0777);
    build_safetensors(folder, "adapter_model.safetensors", pair, more ? 3 : 2);
    build_torch(folder, "non_lora_trainables.bin", &view, 1, &storage, 1, PLAIN_DICT);
    static const char config[] =
        "{\"peft_type\": \"LORA\", \"r\": 3, \"lora_alpha\": 6, \"bias\": \"none\"}";
    file_write(folder, "adapter_config.json", config, sizeof config - 1);
    for (size_t i = 0; i < 3; i++)
        free((void *)(uintptr_t)pair[i].data);
    free(replaced);
}

/* W += 2 B A, in the converter's order of sums. */
static void add_product(struct built_tensor *w, const float *a, const float *b)
{
    const size_t rows = rows_of(w), columns = columns_of(w);
    float *values = (float *)(uintptr_t)w->data;
    for (size_t r = 0; r < rows; r++)
        for (size_t i = 0; i < columns; i++) {
            float sum = 0;
            for (size_t k = 0; k < RANK; k++)
                sum += b[r * RANK + k] * a[k * columns + i];
            values[r * columns + i] += 2.0f * sum;
        }
}

/* The checkpoint as the adapter makes it. */
static void merge_by_hand(struct tensors *base)
{
    struct built_tensor *w = find_tensor(base, ADAPTED);
    float *a = numbers(RANK * columns_of(w), 0.001f), *b = numbers(rows_of(w) * RANK, 0.002f);
    add_product(w, a, b);
    free(a);
    free(b);
    struct built_tensor *bias = find_tensor(base, "model.mm_projector.0.bias");
    free((void *)(uintptr_t)bias->data);
    bias->data = numbers(rows_of(bias), 0.1f);
}

static void open_base(struct tensors *tensors, char folder[600])
{
    copy_checkpoint("composite");
    load_tensors(tensors);
    remove_shards();
    build_safetensors(checkpoint, "model.safetensors", tensors->items, tensors->n);
    snprintf(folder, 600, "%s/adapter", root);
}

static void forget(struct tensors *tensors)
{
    while (tensors->n)
        forget_last_tensor(tensors);
}

static void adapters_are_merged(void **state)
{
    static const char tower[] =
        PREFIX "model.vision_tower.vision_tower.vision_model.encoder.layers.0.self_attn.q_proj"
               ".lora_A.weight";
    struct tensors tensors;
    char folder[600], merged[700];
    (void)state;
    open_base(&tensors, folder);
    make_adapter(&tensors, folder, tower);
    struct program_result result = convert_with(WORDS("--type", "f32", "--lora", folder));
    assert_int_equal(result.code, 0);
    assert_non_null(strstr(result.err, "1 tensors of the adapter are of the vision tower"));
    program_free(&result);
    snprintf(merged, sizeof merged, "%s/merged.bin", root);
    assert_int_equal(rename(model, merged), 0);
    merge_by_hand(&tensors);
    save_tensors(&tensors);
    expect_good(convert_with(WORDS("--type", "f32", "-q")), "");
    expect_same_files(merged, model);
}

static void expect_adapter_refused(const char *folder, const char *part)
{
    expect_failure(convert_with(WORDS("--type", "f32", "--lora", folder)), 3, part, 0);
}

static void refuses_wrong_adapters(void **state)
{
    static const char *const configs[][2] = {
        {"{}", "peft_type"},
        {"{\"peft_type\": \"IA3\"}", "\"IA3\""},
        {"{\"peft_type\": \"LORA\", \"lora_alpha\": 6}", "\"r\" is missing"},
        {"{\"peft_type\": \"LORA\", \"r\": 3}", "lora_alpha"},
        {"{\"peft_type\": \"LORA\", \"r\": 4, \"lora_alpha\": 6}", "rank 4 do not fit"},
        {"{\"peft_type\": \"LORA\", \"r\": 3, \"lora_alpha\": 6, \"bias\": \"all\"}", "\"bias\""},
        {"{\"peft_type\": \"LORA\", \"r\": 3, \"lora_alpha\": 6, \"use_dora\": true}", "use_dora"},
        {"{\"peft_type\": \"LORA\", \"r\": 3, \"lora_alpha\": 6, \"use_rslora\": true}",
         "use_rslora"},
        {"{\"peft_type\": \"LORA\", \"r\": 3, \"lora_alpha\": 6, \"init_lora_weights\": \"pissa\"}",
         "\"pissa\""},
        {"{\"peft_type\": \"LORA\", \"r\": 3, \"lora_alpha\": 6, \"modules_to_save\": "
         "[\"lm_head\"]}",
         "modules_to_save"},
        {"{\"peft_type\": \"LORA\", \"r\": 3, \"lora_alpha\": 6, \"rank_pattern\": {\"a\": 1}}",
         "rank_pattern"},
        {"{\"peft_type\": \"LORA\", \"r\": 3, \"lora_alpha\": 6, \"fan_in_fan_out\": true}",
         "fan_in_fan_out"},
        {"[]", "adapter_config.json"},
    };
    static const char *const strangers[][2] = {
        {PREFIX "model.layers.0.self_attn.q_proj.lora_A.weight", "has no other half"},
        {PREFIX "model.layers.9.self_attn.q_proj.lora_A.weight", "has no place in this model"},
        {PREFIX "model.layers.0.self_attn.q_proj.lora_embedding_A", "has no place in this model"},
        {"q_proj.lora_A.weight", "has no place in this model"},
    };
    struct tensors tensors;
    char folder[600];
    (void)state;
    open_base(&tensors, folder);
    expect_adapter_refused(folder, "adapter_config.json");
    for (size_t i = 0; i < sizeof strangers / sizeof *strangers; i++) {
        make_adapter(&tensors, folder, strangers[i][0]);
        expect_adapter_refused(folder, strangers[i][1]);
    }
    make_adapter(&tensors, folder, NULL);
    for (size_t i = 0; i < sizeof configs / sizeof *configs; i++) {
        file_write(folder, "adapter_config.json", configs[i][0], strlen(configs[i][0]));
        expect_adapter_refused(folder, configs[i][1]);
    }
    make_adapter(&tensors, folder, NULL);
    file_write(folder, "non_lora_trainables.bin", "no zip", 6);
    expect_adapter_refused(folder, "non_lora_trainables.bin");
    file_write(folder, "adapter_model.bin", "no zip", 6);
    expect_adapter_refused(folder, "holds both");
    expect_failure(
        run(WORDS(CONVERT_PROGRAM, "--random", "v2-1.7b", "-o", model, "--lora", folder), NULL), 2,
        "random weights have no base", 0);
    forget(&tensors);
}

static void survives_damaged_adapters(void **state)
{
    static const char *const files[] = {"adapter_config.json", "adapter_model.safetensors",
                                        "non_lora_trainables.bin"};
    struct tensors tensors;
    char folder[600];
    (void)state;
    open_base(&tensors, folder);
    make_adapter(&tensors, folder, NULL);
    forget(&tensors);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        expect_survival(folder, files[i], WORDS("--type", "f32", "-q", "--lora", folder));
}

/* Of a matrix that holds q, k and v: each gets its rows of B. */
static void adapters_of_fused_matrices(void **state)
{
    static const char fused[] = "model.layers.0.self_attn.qkv_proj.weight";
    static const char config[] = "{\"peft_type\": \"LORA\", \"r\": 3, \"lora_alpha\": 6}";
    struct tensors tensors;
    char folder[600], merged[700];
    (void)state;
    copy_checkpoint("imp-phi3");
    load_tensors(&tensors);
    remove_shards();
    build_safetensors(checkpoint, "model.safetensors", tensors.items, tensors.n);
    struct built_tensor *w = find_tensor(&tensors, fused);
    const size_t rows = rows_of(w), columns = columns_of(w);
    float *a = numbers(RANK * columns, 0.001f), *b = numbers(rows * RANK, 0.002f);
    const struct built_tensor pair[] = {{PREFIX "model.layers.0.self_attn.qkv_proj.lora_A.weight",
                                         DTYPE_F32,
                                         2,
                                         {RANK, (int64_t)columns},
                                         a},
                                        {PREFIX "model.layers.0.self_attn.qkv_proj.lora_B.weight",
                                         DTYPE_F32,
                                         2,
                                         {(int64_t)rows, RANK},
                                         b}};
    snprintf(folder, sizeof folder, "%s/adapter", root);
    mkdir(folder, 0777);
    build_safetensors(folder, "adapter_model.safetensors", pair, 2);
    file_write(folder, "adapter_config.json", config, sizeof config - 1);
    expect_good(convert_with(WORDS("--type", "f32", "-q", "--lora", folder)), "");
    snprintf(merged, sizeof merged, "%s/merged.bin", root);
    assert_int_equal(rename(model, merged), 0);
    add_product(w, a, b);
    free(a);
    free(b);
    save_tensors(&tensors);
    expect_good(convert_with(WORDS("--type", "f32", "-q")), "");
    expect_same_files(merged, model);
}

static void adapters_need_their_base(void **state)
{
    struct tensors tensors;
    char folder[600];
    (void)state;
    open_base(&tensors, folder);
    make_adapter(&tensors, folder, NULL);
    forget(&tensors);
    copy_checkpoint("v1"); /* 112 wide where composite is 96 */
    expect_adapter_refused(folder, "do not fit 112 x 64");
}

/* ---- Options ---------------------------------------------------------------------------- */

static void positions_are_scaled(void **state)
{
    (void)state;
    copy_checkpoint("v1");
    const char *const *words = WORDS("--type", "f32", "-q", "--force", "--rope-scale", "4");
    assert_true(recorded("decoder.rope_scale", words) == 4);
    assert_true(recorded("decoder.context", words) == 8192);
    copy_checkpoint("linear-last-layer"); /* by 2 already, for 4096 positions */
    assert_true(recorded("decoder.context", words) == 8192);
    expect_failure(convert_with(WORDS("--rope-scale", "0.5", "--force")), 2, "rope-scale", 1);
}

/* 8192 positions, read into a cache of eight bits; and not one more. */
static void long_contexts_are_read(void **state)
{
    enum { N = 8192 };
    static int32_t ids[N + 1];
    mvlm_model *opened;
    mvlm_session *session;
    mvlm_memory plan;
    mvlm_error error = {0};
    const mvlm_session_options options = {.n_threads = 2};
    (void)state;
    copy_checkpoint("v1");
    expect_good(convert_with(WORDS("--type", "q8", "-q", "--rope-scale", "4")), "");
    assert_int_equal(mvlm_model_open(model, NULL, &opened, &error), MVLM_OK);
    assert_int_equal(mvlm_session_plan(opened, &options, N, 0, 1, &plan, &error), MVLM_OK);
    /* 2 layers of 4 heads of 16 values, padded to 32, for keys and values; a scale for each */
    assert_true(plan.kv_cache >= (uint64_t)N * 2 * 4 * 2 * (32 + 4));
    for (int i = 0; i < N + 1; i++)
        ids[i] = 3 + i * 7 % 400;
    assert_int_equal(mvlm_session_open(opened, &options, &session, &error), MVLM_OK);
    assert_int_equal(mvlm_read(session, 0, ids, N, &error), MVLM_OK);
    assert_int_equal(mvlm_read(session, N, ids, 1, &error), MVLM_USAGE);
    assert_int_equal(mvlm_read(session, 0, ids, N + 1, &error), MVLM_USAGE);
    mvlm_session_close(session);
    mvlm_model_close(opened);
}

static void attention_is_chosen(void **state)
{
    (void)state;
    copy_checkpoint("v1");
    assert_true(recorded("decoder.composite_attention",
                         WORDS("--type", "f32", "-q", "--attention", "composite")) == 1);
    assert_true(recorded("decoder.composite_attention",
                         WORDS("--type", "f32", "-q", "--force", "--attention", "full")) == -1);
    copy_checkpoint("text");
    expect_failure(convert_with(WORDS("--attention", "composite", "--force")), 2, "no pictures", 1);
}

/* A reader that does not know the variants must not take such a file for a plain one. */
static void variants_need_their_feature(void **state)
{
    size_t n;
    mvlm_model *opened;
    mvlm_error error = {0};
    (void)state;
    copy_checkpoint("composite");
    expect_good(convert_with(WORDS("--type", "f32", "-q")), "");
    uint8_t *bytes = (uint8_t *)file_load(model, &n);
    struct format_header header;
    memcpy(&header, bytes, sizeof header);
    assert_true(header.required_features == FORMAT_VARIANTS);
    header.required_features = 0;
    memcpy(bytes, &header, sizeof header);
    tiny_reseal(bytes);
    file_save(model, bytes, n);
    assert_int_equal(mvlm_model_open(model, NULL, &opened, &error), MVLM_BAD_MODEL);
    assert_non_null(strstr(error.message, "variants"));
    free(bytes);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, convert_setup, convert_teardown)
    const struct CMUnitTest tests[] = {
        TEST(old_names_make_the_same_file),
        TEST(refuses_what_its_graph_cannot),
        TEST(refuses_wrong_vocabularies),
        TEST(refuses_wrong_added_tokens),
        TEST(tokenizer_json_says_the_same),
        TEST(refuses_wrong_tokenizer_json),
        TEST(qwen2_tokenizer_json_says_the_same),
        TEST(survives_damaged_files),
        TEST(adapters_are_merged),
        TEST(refuses_wrong_adapters),
        TEST(adapters_need_their_base),
        TEST(survives_damaged_adapters),
        TEST(adapters_of_fused_matrices),
        TEST(positions_are_scaled),
        TEST(long_contexts_are_read),
        TEST(attention_is_chosen),
        TEST(variants_need_their_feature),
    };
    return cmocka_run_group_tests_name("family", tests, NULL, NULL);
}
