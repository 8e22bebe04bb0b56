/* An adapter: adapter_config.json and the header of adapter_model.safetensors, whose values are zeros; merged into a
 * matrix of 8 x 8. */
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "lora.h"

static void put_tensors(const struct fuzz_part *header)
{
    enum { DATA = 4096 };
    uint8_t *file = calloc(1, 8 + header->n + DATA);
    fuzz_check(file != NULL);
    for (int i = 0; i < 8; i++)
        file[i] = (uint8_t)((uint64_t)header->n >> 8 * i);
    memcpy(file + 8, header->bytes, header->n);
    fuzz_file("adapter_model.safetensors", file, 8 + header->n + DATA);
    free(file);
}

static void merge(struct lora *lora)
{
    char name[] = "model.layers.0.self_attn.q_proj.weight";
    const struct source_tensor tensor = {
        .name = name, .n_dims = 2, .shape = {8, 8}, .stride = {8, 1}};
    float rows[64] = {0};
    struct lora_pair pair;
    mvlm_error error = {0};
    size_t n_ignored;
    if (fuzz_outcome(lora_find(lora, &tensor, &pair, &error), &error) && pair.a)
        fuzz_outcome(lora_add(lora, &pair, 0, 8, 8, rows, &error), &error);
    fuzz_outcome(lora_check_leftovers(lora, &n_ignored, &error), &error);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    struct fuzz_part parts[2];
    struct lora *lora;
    mvlm_error error = {0};
    if (fuzz_split(bytes, n, parts, 2) != 2)
        return 0;
    fuzz_file("adapter_config.json", parts[0].bytes, parts[0].n);
    put_tensors(&parts[1]);
    if (fuzz_outcome(lora_open(fuzz_folder(), &lora, &error), &error)) {
        merge(lora);
        lora_close(lora);
    }
    return 0;
}
