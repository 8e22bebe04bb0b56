/* How each kernel is called for a comparison of two tables of kernels: tests/test_kernels.c. */
#ifndef SUPPORT_KERNEL_CASES_H
#define SUPPORT_KERNEL_CASES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../kernels/kernels.h"

enum { MAX_BUFFERS = 8, MAX_NUMBERS = 3 };

/* What a buffer holds; BYTES are written by a case's `prepare`, SCRATCH is left as it is found and
 * nobody compares what becomes of it. */
enum content { FLOATS, HALVES, INTS, BYTES, SCRATCH };

struct buffer {
    enum content content;
    size_t n; /* values */
};

enum pattern {
    RANDOM,
    ZEROS,
    NEGATIVE_ZEROS,
    EQUAL,
    ALTERNATING,
    LARGE,
    TINY,
    MIXED,
    NOT_FINITE,
    N_PATTERNS
};

/* How one kernel is called: the sizes of its buffers for the numbers `n` of a shape, and the call.
 * Variants are 0 to n_variants - 1; what they mean is the kernel's matter. */
struct kernel_case {
    const size_t (*shapes)[MAX_NUMBERS];
    size_t n_shapes;
    unsigned n_variants;
    void (*measure)(const size_t *n, unsigned variant, struct buffer *buffers);
    void (*call)(const struct kernels *kernels, const size_t *n, unsigned variant, void *const *p);
    /* writes BYTES, and what in a buffer depends on another one; may be NULL */
    void (*prepare)(const size_t *n, unsigned variant, enum pattern pattern, void *const *p);
    bool not_finite; /* is the pattern NOT_FINITE for it too? */
};

/* One for each kernel of the list: a kernel without its case does not link. */
#define KERNEL_CASE(type, name, parameters) extern const struct kernel_case case_##name;
KERNEL_LIST(KERNEL_CASE)
#undef KERNEL_CASE

extern const char *const pattern_names[N_PATTERNS];

/* The pattern's i-th value. */
float pattern_float(enum pattern pattern, size_t i);
uint16_t pattern_half(enum pattern pattern, size_t i);
/* Of integers, EQUAL is `most`, NEGATIVE_ZEROS `least`, LARGE one of the two at random, TINY close
 * to their middle. */
int32_t pattern_int(enum pattern pattern, size_t i, int32_t least, int32_t most);

#define FLOAT_BUFFER(...)                                                                          \
    (struct buffer)                                                                                \
    {                                                                                              \
        FLOATS, __VA_ARGS__                                                                        \
    }
#define HALF_BUFFER(...)                                                                           \
    (struct buffer)                                                                                \
    {                                                                                              \
        HALVES, __VA_ARGS__                                                                        \
    }
#define INT_BUFFER(...)                                                                            \
    (struct buffer)                                                                                \
    {                                                                                              \
        INTS, __VA_ARGS__                                                                          \
    }
#define BYTE_BUFFER(...)                                                                           \
    (struct buffer)                                                                                \
    {                                                                                              \
        BYTES, __VA_ARGS__                                                                         \
    }
#define SHAPES(array) array, sizeof array / sizeof *array

/* Values of n_rows rows of n, the last one without what fills it up to the stride. */
static inline size_t rows_of(size_t n_rows, size_t stride, size_t n)
{
    return n_rows ? (n_rows - 1) * stride + n : 0;
}

#endif
