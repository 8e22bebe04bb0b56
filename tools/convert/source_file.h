/* One file of a checkpoint, read by offset; never mapped, so that it does not count as resident. */
#ifndef CONVERT_SOURCE_FILE_H
#define CONVERT_SOURCE_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mobilevlm.h"

struct source_file {
    char *path; /* owned */
    int fd;
    uint64_t n_bytes;
};

/* Opens folder/name, which must be a regular file that is not a git-lfs pointer. */
mvlm_status source_file_open(const char *folder, const char *name, struct source_file *file,
                             mvlm_error *error);
bool source_file_exists(const char *folder, const char *name);
void source_file_close(struct source_file *file);

/* Reads exactly n_bytes at `offset`; from any thread. */
mvlm_status source_file_read(const struct source_file *file, uint64_t offset, void *out,
                             size_t n_bytes, mvlm_error *error);

/* Reads n_bytes, at most `limit`, into new memory with a NUL behind them; the caller frees *out.
 * `what` names the part in messages. */
mvlm_status source_file_load(const struct source_file *file, uint64_t offset, uint64_t n_bytes,
                             uint64_t limit, const char *what, uint8_t **out, mvlm_error *error);

/* MVLM_BAD_MODEL with "<path>: " before the message. */
__attribute__((format(printf, 3, 4))) mvlm_status
source_file_fail(const struct source_file *file, mvlm_error *error, const char *format, ...);

#ifdef __clang_analyzer__ /* as in status.h */
#define source_file_fail(...) (source_file_fail(__VA_ARGS__), MVLM_BAD_MODEL)
#endif

/* Bytes of a file made fit for a message: cut to the size, '?' for all but printable ASCII.
 * Returns `out`. */
enum { QUOTE_SIZE = 128 };
const char *quote(char out[QUOTE_SIZE], const void *bytes, size_t n_bytes);

/* Little-endian integers at any address. */
static inline uint16_t load_u16(const uint8_t *bytes)
{
    return (uint16_t)(bytes[0] | bytes[1] << 8);
}

static inline uint32_t load_u32(const uint8_t *bytes)
{
    return (uint32_t)load_u16(bytes) | (uint32_t)load_u16(bytes + 2) << 16;
}

static inline uint64_t load_u64(const uint8_t *bytes)
{
    return (uint64_t)load_u32(bytes) | (uint64_t)load_u32(bytes + 4) << 32;
}

#endif
