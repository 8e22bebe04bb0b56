/* What the fields of a description demand of each other, and the sizes that follow from them. */
#include <math.h>
#include <string.h>

#include "description.h"
#include "status.h"

bool takes_pictures(const struct description *description)
{
    return description->image.size > 0;
}

size_t patches_a_side(const struct description *description)
{
    return (size_t)(description->image.size /
                    description->vision.patch_size); /* pixels left over are dropped */
}

size_t vision_rows(const struct description *description)
{
    const size_t side = patches_a_side(description);
    return side * side + (size_t)description->vision.class_token;
}

size_t projector_out_side(const struct description *description)
{
    const size_t side = patches_a_side(description);
    switch ((enum projector_kind)description->projector.kind) {
    case PROJECTOR_LDP:
        return (side - 1) / 2 + 1; /* a 3 x 3 convolution with stride 2 and padding 1 */
    case PROJECTOR_LDPV2:
        return (size_t)description->projector.grid;
    case PROJECTOR_MLP:
        break;
    }
    return side;
}

size_t image_tokens(const struct description *description)
{
    if (!takes_pictures(description))
        return 0;
    const size_t side = projector_out_side(description);
    return side * side;
}

void image_recipe_of(const struct description *description, struct image_recipe *recipe)
{
    recipe->side = (int)description->image.size;
    recipe->fit = (enum image_fit)description->image.fit;
    for (int channel = 0; channel < 3; channel++) {
        recipe->pad_colour[channel] = (uint8_t)description->image.pad_colour.value[channel];
        recipe->mean[channel] = (float)description->image.mean.value[channel];
        recipe->std[channel] = (float)description->image.std.value[channel];
    }
}

static mvlm_status check_pictures(const char *name, const struct description *d, mvlm_error *error)
{
    if (d->image.pad_colour.n != 3 || d->image.mean.n != 3 || d->image.std.n != 3)
        return fail(error, MVLM_BAD_MODEL,
                    "%s: image.pad_colour, image.mean and image.std need three numbers each", name);
    if (d->image.size < d->vision.patch_size)
        return fail(error, MVLM_BAD_MODEL,
                    "%s: image.size %lld is less than vision.patch_size %lld", name,
                    (long long)d->image.size, (long long)d->vision.patch_size);
    if (d->vision.width % d->vision.n_heads)
        return fail(error, MVLM_BAD_MODEL,
                    "%s: vision.width %lld is no multiple of vision.n_heads %lld", name,
                    (long long)d->vision.width, (long long)d->vision.n_heads);
    const bool ldp = d->projector.kind == PROJECTOR_LDP,
               ldpv2 = d->projector.kind == PROJECTOR_LDPV2;
    if (ldp && d->projector.squeeze < 1)
        return fail(error, MVLM_BAD_MODEL, "%s: projector ldp needs projector.squeeze", name);
    if (ldpv2 && d->projector.grid < 1)
        return fail(error, MVLM_BAD_MODEL, "%s: projector ldpv2 needs projector.grid", name);
    if ((ldp || ldpv2) && d->projector.n_linear != 2)
        return fail(error, MVLM_BAD_MODEL, "%s: projector %s has two linear layers, not %lld", name,
                    projector_kind_name(d->projector.kind), (long long)d->projector.n_linear);
    return MVLM_OK;
}

static mvlm_status check_decoder(const char *name, const struct description *d, mvlm_error *error)
{
    if (d->decoder.n_heads % d->decoder.n_kv_heads)
        return fail(error, MVLM_BAD_MODEL,
                    "%s: decoder.n_heads %lld is no multiple of decoder.n_kv_heads %lld", name,
                    (long long)d->decoder.n_heads, (long long)d->decoder.n_kv_heads);
    if (d->decoder.rope_dims > d->decoder.head_dim || d->decoder.rope_dims % 2)
        return fail(error, MVLM_BAD_MODEL,
                    "%s: decoder.rope_dims %lld is odd or more than decoder.head_dim %lld", name,
                    (long long)d->decoder.rope_dims, (long long)d->decoder.head_dim);
    return MVLM_OK;
}

static mvlm_status check_tokenizer(const char *name, const struct description *d, mvlm_error *error)
{
    const int64_t ids[] = {d->tokenizer.unk_id, d->tokenizer.bos_id, d->tokenizer.eos_id,
                           d->tokenizer.pad_id};
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++)
        if (ids[i] >= d->decoder.vocab)
            return fail(error, MVLM_BAD_MODEL,
                        "%s: special id %lld is beyond the vocabulary of %lld", name,
                        (long long)ids[i], (long long)d->decoder.vocab);
    for (size_t i = 0; i < d->tokenizer.stop_ids.n; i++) {
        const double id = d->tokenizer.stop_ids.value[i];
        if (id != floor(id) || id >= (double)d->decoder.vocab)
            return fail(error, MVLM_BAD_MODEL, "%s: stop id %g is no id of the vocabulary of %lld",
                        name, id, (long long)d->decoder.vocab);
    }
    const bool bytes = d->tokenizer.kind == TOKENIZER_BYTE_BPE;
    if (d->tokenizer.nfc && !bytes)
        return fail(error, MVLM_BAD_MODEL, "%s: tokenizer.nfc is of byte_bpe alone", name);
    if (bytes != (d->tokenizer.pre_tokenizer != PRE_TOKENIZER_NONE))
        return fail(error, MVLM_BAD_MODEL,
                    bytes ? "%s: tokenizer byte_bpe needs tokenizer.pre_tokenizer"
                          : "%s: tokenizer.pre_tokenizer is of byte_bpe alone",
                    name);
    if (d->tokenizer.add_bos && d->tokenizer.bos_id < 0)
        return fail(error, MVLM_BAD_MODEL, "%s: tokenizer.add_bos without tokenizer.bos_id", name);
    return MVLM_OK;
}

mvlm_status description_check(const char *name, const struct description *description,
                              mvlm_error *error)
{
    if (takes_pictures(description))
        TRY(check_pictures(name, description, error));
    TRY(check_decoder(name, description, error));
    return check_tokenizer(name, description, error);
}
