/* The directory of a ZIP or ZIP64 archive whose records are stored, as torch.save writes it. */
#ifndef CONVERT_ZIP_H
#define CONVERT_ZIP_H

#include "source_file.h"

struct zip_record {
    const char *name; /* name_length bytes, not ended by NUL; in the archive's directory */
    size_t name_length;
    uint64_t offset, n_bytes; /* of the data, in the file */
    uint64_t header;          /* offset of the local header */
};

struct zip {
    uint8_t *directory;
    struct zip_record *records; /* sorted by name */
    size_t n_records;
};

/* Reads end record, central directory and every local header. Each record has been checked: stored,
 * not encrypted, inside the file, apart from the others, its name used once. Checksums are not
 * looked at: torch can be told to write none. On error *zip is empty. */
mvlm_status zip_open(const struct source_file *file, struct zip *zip, mvlm_error *error);
void zip_close(struct zip *zip);

/* NULL when there is none. */
const struct zip_record *zip_find(const struct zip *zip, const char *name, size_t name_length);

#endif
