/* What the fuzz targets share. Each target is one file with LLVMFuzzerTestOneInput: built with libFuzzer by the preset
 * "fuzz", and in every other build with replay.c, which runs the kept corpus as a test.
 *
 * A target aborts (fuzz_check) where a promise is broken that no sanitizer sees. */
#ifndef FUZZ_FUZZ_H
#define FUZZ_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mobilevlm.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

/* Ends the program, as a finding, unless `holds`. */
#define fuzz_check(holds) fuzz_check_((holds), #holds, __FILE__, __LINE__)
void fuzz_check_(bool holds, const char *what, const char *file, int line);

/* What every failing call must leave: its status in the error, and a message of one line. Returns whether it is MVLM_OK. */
bool fuzz_outcome(mvlm_status status, const mvlm_error *error);

/* A folder of this process, in memory where there is such a file system, gone at its end. */
const char *fuzz_folder(void);

/* Writes folder/name, in place of what it held; bytes NULL removes it. Returns its path, valid until the next call. */
const char *fuzz_file(const char *name, const void *bytes, size_t n);

/* Several files in one input: texts between lines of four percent signs. The last of `most` parts holds the rest. Returns
 * their number. */
struct fuzz_part {
    const uint8_t *bytes;
    size_t n;
};
size_t fuzz_split(const uint8_t *bytes, size_t n, struct fuzz_part *parts, size_t most);

/* A copy of the bytes with a NUL behind them; free() it. */
char *fuzz_text(const uint8_t *bytes, size_t n);

/* A golden checkpoint of the tests ("v1", "imp-phi2", ...), converted once; closed at the end. */
mvlm_model *fuzz_golden_model(const char *name);

#endif
