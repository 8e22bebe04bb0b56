/* The machine that runs a torch pickle; it knows the values of a state dict and no others. */
#ifndef CONVERT_PICKLE_MACHINE_H
#define CONVERT_PICKLE_MACHINE_H

#include "pickle.h"

enum kind { NONE, BOOL, INT, FLOAT, STRING, TUPLE, LIST, DICT, SET, CALLABLE, STORAGE, TENSOR };

enum callable { ORDERED_DICT, REBUILD_TENSOR, REBUILD_PARAMETER, STORAGE_TYPE };

struct value {
    enum kind kind;
    uint32_t n; /* bytes, items, pairs; the dtype of a storage type */
    union {
        int64_t integer;
        const char *text;
        uint32_t first;   /* TUPLE: in items; STORAGE and TENSOR: the arguments, likewise */
        uint32_t pair[2]; /* DICT: the first and last of its pairs */
        enum callable callable;
    };
};

struct pair {
    uint32_t key, value, next;
};

/* Values are numbered in the order of their making; stack, memo, items and pairs hold such numbers.
 */
struct machine {
    const struct source_file *file;
    mvlm_error *error;
    const uint8_t *bytes;
    size_t n_bytes, at, opcode_at;
    struct value *values;
    uint32_t *stack, *marks, *memo, *items;
    struct pair *pairs;
    uint32_t n_values, n_stack, n_marks, n_memo, n_items, n_pairs;
};

/* Allocates the machine's arrays for the pickle `bytes`, at most UINT32_MAX of them. To be freed
 * with machine_free, after an error too. */
mvlm_status machine_init(struct machine *m, const struct source_file *file, const uint8_t *bytes,
                         size_t n_bytes, mvlm_error *error);
void machine_free(struct machine *m);

/* Runs up to STOP, which must be the last byte and find one dict on the stack. A STORAGE has been
 * checked to hold ("storage", type, key, location, elements); a TENSOR's arguments have not. */
mvlm_status machine_run(struct machine *m, const struct value **root);

/* Item i of a TUPLE, or argument i of a STORAGE or TENSOR. */
const struct value *machine_item(const struct machine *m, const struct value *tuple, uint32_t i);

/* "a dict" and so on, for messages. */
const char *kind_name(enum kind kind);

#endif
