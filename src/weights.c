#include "weights.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#define XXH_STATIC_LINKING_ONLY /* the streaming state on the stack */
#include <xxhash.h>

#include "schema.h"
#include "status.h"

void digest_text(const uint8_t digest[16], char text[33])
{
    static const char digits[] = "0123456789abcdef";
    for (int i = 0; i < 16; i++) {
        text[2 * i] = digits[digest[i] >> 4];
        text[2 * i + 1] = digits[digest[i] & 15];
    }
    text[32] = 0;
}

static void canonical(XXH128_hash_t hash, uint8_t digest[16])
{
    XXH128_canonical_t bytes;
    XXH128_canonicalFromHash(&bytes, hash);
    memcpy(digest, bytes.digest, 16);
}

void digest_of(const void *bytes, size_t n, uint8_t digest[16])
{
    canonical(XXH3_128bits(bytes, n), digest);
}

void digest_of_front(const uint8_t *front, size_t n, uint8_t digest[16])
{
    static const uint8_t zeros[16] = {0};
    const size_t at = offsetof(struct format_header, digest);
    XXH3_state_t state;
    XXH3_128bits_reset(&state);
    XXH3_128bits_update(&state, front, at);
    XXH3_128bits_update(&state, zeros, sizeof zeros);
    XXH3_128bits_update(&state, front + at + 16, n - at - 16);
    canonical(XXH3_128bits_digest(&state), digest);
}

static mvlm_status map_file(const char *path, struct weights *weights, mvlm_error *error)
{
    const int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* or a named pipe would wait */
    if (file < 0)
        return fail(error, MVLM_BAD_MODEL, "%s: cannot be opened: %s", path, strerror(errno));
    struct stat about;
    mvlm_status status = MVLM_OK;
    if (fstat(file, &about) != 0)
        status = fail(error, MVLM_BAD_MODEL, "%s: %s", path, strerror(errno));
    else if (S_ISDIR(about.st_mode))
        status = fail(error, MVLM_BAD_MODEL,
                      "%s: is a folder; a model is one file, made by mobilevlm-convert", path);
    else if (!S_ISREG(about.st_mode))
        status = fail(error, MVLM_BAD_MODEL, "%s: is no regular file", path);
    else if (about.st_size < FORMAT_HEADER_BYTES)
        status = fail(error, MVLM_BAD_MODEL, "%s: %lld bytes are too few for a model file", path,
                      (long long)about.st_size);
    else if (!(weights->mapping = mapping_open(file, (size_t)about.st_size)))
        status = fail(error, MVLM_NO_MEMORY, "%s: cannot be mapped: %s", path, strerror(errno));
    close(file);
    if (status == MVLM_OK) {
        weights->bytes = mapping_bytes(weights->mapping);
        weights->n_bytes = (size_t)about.st_size;
        memcpy(&weights->header, weights->bytes, sizeof weights->header);
    }
    return status;
}

/* A part before the data: behind `after`, aligned, and ending before the data. */
static bool part_fits(struct format_range part, uint64_t after, uint64_t front)
{
    return part.offset >= after && part.offset % FORMAT_ALIGN == 0 && part.offset <= front &&
           part.n_bytes <= front - part.offset;
}

static mvlm_status check_identity(const struct weights *weights, mvlm_error *error)
{
    const struct format_header *h = &weights->header;
    const char *path = weights->path;
    if (memcmp(h->magic, FORMAT_MAGIC, sizeof h->magic) != 0)
        return fail(error, MVLM_BAD_MODEL, "%s: is no mobilevlm model file (wrong magic number)",
                    path);
    if (h->version != FORMAT_VERSION)
        return fail(error, MVLM_BAD_MODEL, "%s: format version %u, this program reads version %u",
                    path, h->version, (unsigned)FORMAT_VERSION);
    if (h->header_bytes != FORMAT_HEADER_BYTES)
        return fail(error, MVLM_BAD_MODEL, "%s: header of %u bytes, expected %u", path,
                    h->header_bytes, (unsigned)FORMAT_HEADER_BYTES);
    if (h->required_features & ~FORMAT_KNOWN_FEATURES)
        return fail(error, MVLM_BAD_MODEL,
                    "%s: needs feature bits 0x%llx, which this program does not know", path,
                    (unsigned long long)(h->required_features & ~FORMAT_KNOWN_FEATURES));
    if (h->file_bytes != weights->n_bytes)
        return fail(error, MVLM_BAD_MODEL, "%s: %zu bytes long, but its header says %llu: %s", path,
                    weights->n_bytes, (unsigned long long)h->file_bytes,
                    weights->n_bytes < h->file_bytes ? "the file is cut short"
                                                     : "something was appended");
    return MVLM_OK;
}

static mvlm_status check_parts(const struct weights *weights, mvlm_error *error)
{
    const struct format_header *h = &weights->header;
    static const uint8_t zeros[sizeof h->reserved1];
    if (h->reserved0 || memcmp(h->reserved1, zeros, sizeof zeros) != 0)
        return fail(error, MVLM_BAD_MODEL, "%s: reserved bytes of the header are not zero",
                    weights->path);
    const uint64_t front = h->data.offset;
    if (front > weights->n_bytes || front % FORMAT_SECTION_ALIGN ||
        h->data.n_bytes != weights->n_bytes - front)
        return fail(error, MVLM_BAD_MODEL,
                    "%s: data section of %llu bytes at %llu does not end the file", weights->path,
                    (unsigned long long)h->data.n_bytes, (unsigned long long)front);
    if (!part_fits(h->description, FORMAT_HEADER_BYTES, front) ||
        !part_fits(h->tokenizer, h->description.offset + h->description.n_bytes, front) ||
        !part_fits(h->directory, h->tokenizer.offset + h->tokenizer.n_bytes, front))
        return fail(error, MVLM_BAD_MODEL,
                    "%s: description, tokenizer and directory do not stand in order before the "
                    "data",
                    weights->path);
    if (h->directory.n_bytes != (uint64_t)h->n_tensors * sizeof(struct format_tensor))
        return fail(error, MVLM_BAD_MODEL,
                    "%s: directory of %llu bytes for %u tensors, expected %llu", weights->path,
                    (unsigned long long)h->directory.n_bytes, h->n_tensors,
                    (unsigned long long)h->n_tensors * sizeof(struct format_tensor));
    uint8_t digest[16];
    digest_of_front(weights->bytes, (size_t)front, digest);
    if (memcmp(digest, h->digest, sizeof digest) != 0)
        return fail(error, MVLM_BAD_MODEL, "%s: header damaged: its digest does not match",
                    weights->path);
    return MVLM_OK;
}

/* The tensor's own fields; sizes are bounded so that no later product overflows. */
static mvlm_status check_tensor(const struct weights *weights, const struct format_tensor *t,
                                mvlm_error *error)
{
    const uint64_t most = UINT64_C(1) << 24;
    if (t->name[0] == 0 || t->name[FORMAT_NAME_BYTES - 1] != 0)
        return fail(error, MVLM_BAD_MODEL, "%s: a tensor's name is empty or too long",
                    weights->path);
    if (t->type > TENSOR_Q4)
        return fail(error, MVLM_BAD_MODEL,
                    "%s: tensor %s: type code %u, which this program does not know", weights->path,
                    t->name, t->type);
    if (t->type == TENSOR_Q4 && t->layout == LAYOUT_ROWS)
        return fail(error, MVLM_BAD_MODEL, "%s: tensor %s: there are no rows of q4, only tiles",
                    weights->path, t->name);
    if (t->layout > LAYOUT_TILES || t->section >= SECTION_COUNT)
        return fail(error, MVLM_BAD_MODEL, "%s: tensor %s: unknown layout %u or section %u",
                    weights->path, t->name, t->layout, t->section);
    if (t->n_rows < 1 || t->n_cols < 1 || t->n_rows > most || t->n_cols > most)
        return fail(error, MVLM_BAD_MODEL, "%s: tensor %s: %llu x %llu values is out of range",
                    weights->path, t->name, (unsigned long long)t->n_rows,
                    (unsigned long long)t->n_cols);
    if (t->type >= TENSOR_Q8 && t->n_cols > FORMAT_MOST_QUANTIZED)
        return fail(error, MVLM_BAD_MODEL,
                    "%s: tensor %s: %llu columns, at most %d in %s: sums are of 32 bits",
                    weights->path, t->name, (unsigned long long)t->n_cols, FORMAT_MOST_QUANTIZED,
                    tensor_type_name(t->type));
    static const uint8_t zeros[sizeof t->reserved];
    if (memcmp(t->reserved, zeros, sizeof zeros) != 0)
        return fail(error, MVLM_BAD_MODEL, "%s: tensor %s: reserved bytes are not zero",
                    weights->path, t->name);
    const uint64_t expected = tensor_bytes(t->type, t->layout, t->n_rows, t->n_cols);
    if (t->range.n_bytes != expected)
        return fail(error, MVLM_BAD_MODEL, "%s: tensor %s: %llu bytes, expected %llu",
                    weights->path, t->name, (unsigned long long)t->range.n_bytes,
                    (unsigned long long)expected);
    return MVLM_OK;
}

/* Each tensor begins where the one before ends, rounded up; the last ends the file. */
static mvlm_status check_tiling(struct weights *weights, mvlm_error *error)
{
    const struct format_header *h = &weights->header;
    uint64_t end = h->data.offset;
    uint8_t section = 0;
    for (uint32_t i = 0; i < h->n_tensors; i++) {
        const struct format_tensor *t = &weights->tensors[i];
        TRY(check_tensor(weights, t, error));
        const uint64_t align =
            i == 0 || t->section != section ? FORMAT_SECTION_ALIGN : FORMAT_ALIGN;
        const uint64_t expected = aligned(end, align);
        if (t->section < section || t->range.offset != expected || expected > weights->n_bytes ||
            t->range.n_bytes > weights->n_bytes - expected)
            return fail(error, MVLM_BAD_MODEL,
                        "%s: tensor %s: %llu bytes at %llu leave a hole, overlap or pass the "
                        "file's end (expected at "
                        "%llu of %zu)",
                        weights->path, t->name, (unsigned long long)t->range.n_bytes,
                        (unsigned long long)t->range.offset, (unsigned long long)expected,
                        weights->n_bytes);
        section = t->section;
        end = t->range.offset + t->range.n_bytes;
        for (size_t s = section; s < SECTION_COUNT; s++)
            weights->section_end[s] = (size_t)end;
    }
    if (end != weights->n_bytes)
        return fail(error, MVLM_BAD_MODEL, "%s: tensors end at %llu, the file at %zu",
                    weights->path, (unsigned long long)end, weights->n_bytes);
    return MVLM_OK;
}

mvlm_status weights_open(const char *path, struct weights *weights, mvlm_error *error)
{
    memset(weights, 0, sizeof *weights);
    weights->path = strdup(path);
    if (!weights->path)
        return fail_no_memory(error, "the path", strlen(path));
    mvlm_status status = map_file(path, weights, error);
    if (status == MVLM_OK)
        status = check_identity(weights, error);
    if (status == MVLM_OK)
        status = check_parts(weights, error);
    if (status == MVLM_OK) {
        weights->tensors =
            (const struct format_tensor *)(const void *)(weights->bytes +
                                                         weights->header.directory.offset);
        status = check_tiling(weights, error);
    }
    if (status == MVLM_OK)
        digest_text(weights->header.digest, weights->digest);
    else
        weights_close(weights);
    return status;
}

void weights_close(struct weights *weights)
{
    mapping_close(weights->mapping);
    free(weights->path);
    memset(weights, 0, sizeof *weights);
}

void weights_give_back(const void *bytes, size_t n_bytes)
{
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), from = (uintptr_t)bytes;
    const uintptr_t first = aligned(from, page), end = (from + n_bytes) / page * page;
    if (end > first)
        madvise((void *)first, end - first, MADV_DONTNEED);
}

size_t weights_before(const struct weights *weights, enum section end, const void **bytes)
{
    const size_t front = (size_t)weights->header.data.offset;
    *bytes = weights->bytes + front;
    return end > 0 && weights->section_end[end - 1] > front ? weights->section_end[end - 1] - front
                                                            : 0;
}

mvlm_status weights_intact(const struct weights *weights, mvlm_error *error)
{
    size_t offset;
    if (!mapping_lost(weights->mapping, &offset))
        return MVLM_OK;
    return fail(error, MVLM_BAD_MODEL,
                "%s: byte %zu of %zu cannot be read: the file was cut while in use, or its disk "
                "fails",
                weights->path, offset, weights->n_bytes);
}
