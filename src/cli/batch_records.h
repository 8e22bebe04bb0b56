/* A batch's output: JSON lines that are appended whole, never lost, and read again to go on. */
#ifndef CLI_BATCH_RECORDS_H
#define CLI_BATCH_RECORDS_H

#include "cli.h"

struct records {
    const char *path; /* "standard output" without -o */
    int file;
    bool regular; /* a file that can be locked, synced and mended */
    const char *model_digest;
    char options_digest[33]; /* "": items have options of their own */
    bool resumes, forced;
    json_t *there; /* id -> what its last record says: see note_record */
    size_t n_there, n_unsynced;
    bool mended; /* a torn last line was cut off */
};

/* Opens the output, for this process alone, and with --resume reads what is there. options_digest "": each item has its
 * own. MVLM_BAD_OUTPUT; MVLM_USAGE when there is something and neither --resume nor --force was given, or something of
 * another model or of other options, and no --force. */
mvlm_status records_open(struct records *records, const struct values *values,
                         const char *model_digest, const char *options_digest, mvlm_error *error);

/* Syncs and closes; returns `status`, or why that failed. */
mvlm_status records_close(struct records *records, mvlm_status status, mvlm_error *error);

/* Appends a record with one write, and takes the reference. On error (disk full) nothing of it is left
 * behind. */
mvlm_status records_put(struct records *records, json_t *record, mvlm_error *error);

/* Is the item done already? With --retry-failed an error is not; with another picture under its name it is not. Digests may
 * be "": not known. MVLM_USAGE when its record was made with other options, unless --force, which has it done again. */
mvlm_status records_find(const struct records *records, const struct values *values, const char *id,
                         const char *image_digest, const char *options_digest, bool *done,
                         mvlm_error *error);

/* Reads a file's records, handing each line that is complete to `each`; *n_bytes is their length.
 * MVLM_BAD_OUTPUT for a line that is no record. */
struct record_line {
    size_t number; /* from 1 */
    off_t offset;
    size_t n_bytes; /* with its newline */
};
typedef mvlm_status (*record_fn)(void *user, json_t *record, const struct record_line *line,
                                 mvlm_error *error);
mvlm_status read_records(const char *path, int file, record_fn each, void *user, off_t *n_bytes,
                         mvlm_error *error);

/* A sidecar: written under a temporary name, then renamed. */
mvlm_status write_sidecar(const char *path, const char *text, size_t n_bytes, mvlm_error *error);

#endif
