/* Golden cases: reading what the reference made, and finding where the cases lie. */
#ifndef SUPPORT_GOLDEN_H
#define SUPPORT_GOLDEN_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "mobilevlm.h"

/* A .npy file of f32 or i32; the values are in C order here, whatever the file has. */
struct array {
    char type; /* 'f' or 'i' */
    int n_dims;
    size_t shape[4], n; /* n values in all */
    float *floats;      /* [n] or NULL */
    int32_t *integers;  /* [n] or NULL */
};

/* Fails the test when the file is missing or something else. */
void array_load(struct array *array, const char *path);
void array_free(struct array *array);

/* A JSON file; fails the test when it cannot be read. */
json_t *json_load_test(const char *path);

/* folder/a/b in new memory. */
char *path_of(const char *folder, const char *a, const char *b);
bool path_exists(const char *path);

/* Reads a file into new memory with a NUL behind it; fails the test when it cannot. */
char *file_load(const char *path, size_t *n_bytes);
void file_save(const char *path, const void *bytes, size_t n_bytes);

/* Calls each(folder of a case, its name, user) for every case below `cases`; returns how many there
 * were. */
size_t for_each_case(const char *cases,
                     void (*each)(const char *folder, const char *name, void *user), void *user);

/* Converts a checkpoint in this process to what --type gives, or "q4-plain", which is q4 without
 * calibration; fails the test when that fails. */
void convert_test(const char *checkpoint, const char *path, const char *type);

/* The same of a case's checkpoint, with its adapter merged into it where it has one. */
void convert_case(const char *case_folder, const char *path, const char *type);

/* Mean loss a token, natural logarithm, of the text that a case's "perplexity" names, in its
 * windows of BOS and the next ids: what `mobilevlm perplexity` says. */
double text_loss(mvlm_model *model, const json_t *perplexity);

/* |a - b| <= 1e-4 x b's largest magnitude for every value, else the test fails, naming `what`.
 * Returns the largest relative difference. */
double assert_close(const char *what, const float *a, const float *b, size_t n);

#endif
