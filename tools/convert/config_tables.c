#include "config_tables.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../kernels/kernels.h"

static const struct family families[] = {
    {.model_types = {"mobilevlm", "mobilellama", "mobile_llama", "llama"},
     .norm = NORM_RMS,
     .eps_key = "rms_norm_eps",
     .norm_eps = 1e-6,
     .activation = "silu",
     .partial_rotary_factor = 1.0,
     .conv_mode = "v1"},
    {.model_types = {"imp", "phi", "phi-msft"}, /* Phi-2 */
     .norm = NORM_LAYER,
     .parallel_block = true,
     .plain_ffn = true,
     .qkv_bias = true,
     .out_bias = true,
     .ffn_bias = true,
     .head_bias = true,
     .eps_key = "layer_norm_eps",
     .norm_eps = 1e-5,
     .activation = "gelu_new",
     .partial_rotary_factor = 0.5,
     .conv_mode = "phi2"},
    {.model_types = {"imp_qwen2", "qwen2"},
     .norm = NORM_RMS,
     .qkv_bias = true,
     .eps_key = "rms_norm_eps",
     .norm_eps = 1e-6,
     .activation = "silu",
     .partial_rotary_factor = 1.0,
     .conv_mode = "qwen2"},
    {.model_types = {"imp_phi3", "phi3"},
     .norm = NORM_RMS,
     .eps_key = "rms_norm_eps",
     .norm_eps = 1e-5,
     .activation = "silu",
     .partial_rotary_factor = 1.0,
     .conv_mode = "phi3"},
};

const struct family *find_family(const char *model_type)
{
    for (size_t i = 0; i < sizeof families / sizeof *families; i++)
        for (size_t k = 0; families[i].model_types[k]; k++)
            if (strcmp(families[i].model_types[k], model_type) == 0)
                return &families[i];
    return NULL;
}

static const struct tower towers[] = {
    {.name = "siglip", /* google/siglip-so400m-patch14-384 */
     .only = "siglip-so400m-patch14-384",
     .image_size = 384,
     .patch_size = 14,
     .width = 1152,
     .ffn = 4304,
     .n_layers = 27,
     .n_heads = 16,
     .cut = true,
     .norm_eps = 1e-6,
     .activation = "gelu_pytorch_tanh",
     .patch_bias = true,
     .mean = {0.5, 0.5, 0.5},
     .std = {0.5, 0.5, 0.5},
     .square = IMAGE_SQUASH},
    {.name = "clip", /* openai/clip-vit-large-patch14-336 */
     .only = "clip-vit-large-patch14-336",
     .image_size = 336,
     .patch_size = 14,
     .width = 1024,
     .ffn = 4096,
     .n_layers = 24,
     .n_heads = 16,
     .norm_eps = 1e-5,
     .activation = "quick_gelu",
     .class_token = true,
     .pre_norm = true,
     .mean = {0.48145466, 0.4578275, 0.40821073},
     .std = {0.26862954, 0.26130258, 0.27577711},
     .square = IMAGE_CROP},
};

const struct tower *find_tower(const char *name)
{
    for (size_t i = 0; i < sizeof towers / sizeof *towers; i++)
        if (strstr(name, towers[i].name))
            return &towers[i];
    return NULL;
}

static const struct projector_source projectors[] = {
    {"ldpnet", PROJECTOR_LDP, 2, "model.mm_projector.model.mlp.%d", 1, 2},
    {"ldpnetv2", PROJECTOR_LDPV2, 2, "model.mm_projector.mlp.mlp.%d", 0, 2},
    {"linear", PROJECTOR_MLP, 1, "model.mm_projector", 0, 0},
    {"mlpx_gelu", PROJECTOR_MLP, 0, "model.mm_projector.%d", 0, 2},
};

const struct projector_source *find_projector(const char *type, int64_t *number)
{
    char plain[32];
    char *after;
    *number = 0;
    snprintf(plain, sizeof plain, "%s", type);
    if (strncmp(type, "mlp", 3) == 0 && strchr("123456789", type[3])) {
        *number = strtol(type + 3, &after, 10);
        snprintf(plain, sizeof plain, "mlp%s", after);
    }
    for (size_t i = 0; i < sizeof projectors / sizeof *projectors; i++)
        if (strcmp(projectors[i].type, plain) == 0 &&
            (projectors[i].n_linear != 0) == (*number == 0))
            return &projectors[i];
    return NULL;
}

/* Names of activations in config.json. */
static const struct {
    const char *name;
    enum activation activation;
} activations[] = {
    {"silu", ACTIVATION_SILU},
    {"swish", ACTIVATION_SILU},
    {"quick_gelu", ACTIVATION_QUICK_GELU},
    {"gelu", ACTIVATION_GELU},
    {"gelu_new", ACTIVATION_GELU_TANH},
    {"gelu_pytorch_tanh", ACTIVATION_GELU_TANH},
    {"relu", ACTIVATION_RELU},
};

int64_t find_activation(const char *name)
{
    for (size_t i = 0; i < sizeof activations / sizeof *activations; i++)
        if (strcmp(activations[i].name, name) == 0)
            return activations[i].activation;
    return -1;
}

#define VICUNA                                                                                     \
    "A chat between a curious user and an artificial intelligence assistant. "                     \
    "The assistant gives helpful, detailed, and polite answers to the user's questions."

#define VICUNA_TURNS                                                                               \
    {                                                                                              \
        1, "", VICUNA, " ", "USER: ", " ASSISTANT:", " ", "</s>"                                   \
    }

static const struct prompt_template templates[] = {
    {"v1", VICUNA_TURNS, "</s>"},
    {"phi2", VICUNA_TURNS, "</s>"},
    {"qwen2",
     {1, "<|im_start|>system\n", VICUNA, "<|im_end|>", "\n<|im_start|>user\n",
      "<|im_end|>\n<|im_start|>assistant\n", "", "<|im_end|>"},
     "<|im_end|>"},
    {"phi3",
     {1, "<|system|>\n", VICUNA, "<|end|>", "\n<|user|>\n", "<|end|>\n<|assistant|>\n", "",
      "<|end|>"},
     "<|end|>"},
    /* our own: a small model's prompt without the sentence that it would read each time */
    {"short", {1, "", "", "", "USER: ", " ASSISTANT:", " ", "</s>"}, "</s>"},
};

const struct prompt_template *find_template(const char *conv_mode)
{
    for (size_t i = 0; i < sizeof templates / sizeof *templates; i++)
        if (strcmp(templates[i].conv_mode, conv_mode) == 0)
            return &templates[i];
    return NULL;
}
