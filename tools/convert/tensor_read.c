/* rows -> axes, merged where they are contiguous, the largest stride in the file first
 *      -> halved until the bytes that a part spans fit a buffer -> pread -> f32. */
#include "tensor_read.h"

#include <stdlib.h>
#include <string.h>

#include "status.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the files are little-endian, and are read as they are"
#endif

/* Half of a small second-level cache: the bytes are still there when they are converted. */
enum { BUFFER_SIZE = 256 * 1024 };

/* A part of which fewer than one element in SPARSE is wanted is read piece by piece, down to pieces
 * of PIECE_SIZE, which take about as long to copy as another call takes to begin. */
enum { SPARSE = 8, PIECE_SIZE = 4096 };

/* One dimension of the part that is read; strides in elements. */
struct axis {
    int64_t count;
    int64_t source; /* stride in the file */
    int64_t target; /* stride in the output */
};

typedef void (*convert_fn)(const void *source, float *out, int64_t n);

struct reader {
    const struct source_file *file;
    convert_fn convert;
    size_t size; /* of an element in the file */
    void *buffer;
    mvlm_error *error;
};

static void convert_f32(const void *source, float *out, int64_t n)
{
    memcpy(out, source, (size_t)n * sizeof *out);
}

static void convert_bf16(const void *source, float *out, int64_t n)
{
    const uint16_t *const restrict half = source;
    for (int64_t i = 0; i < n; i++) {
        const uint32_t bits = (uint32_t)half[i] << 16;
        memcpy(&out[i], &bits, sizeof bits);
    }
}

/* Normal numbers: the exponent is moved from bias 15 to 127. Infinity and NaN: moved once more, to
 * all ones. Subnormal ones: an integer times 2^-24. Masks, not branches: with those, gcc 12 does
 * not vectorise the loop. */
static void convert_f16(const void *source, float *out, int64_t n)
{
    const uint16_t *const restrict half = source;
    const uint32_t rebias = (127 - 15) << 23;
    for (int64_t i = 0; i < n; i++) {
        const uint32_t magnitude = half[i] & 0x7fffu;
        const float small = (float)(int32_t)magnitude * 0x1p-24f;
        uint32_t subnormal;
        memcpy(&subnormal, &small, sizeof small);
        const uint32_t is_small = magnitude < 0x400u ? UINT32_MAX : 0;
        const uint32_t is_special = magnitude > 0x7bffu ? UINT32_MAX : 0;
        const uint32_t moved = (magnitude << 13) + rebias + (rebias & is_special);
        const uint32_t sign = (half[i] & 0x8000u) << 16;
        const uint32_t bits = sign | (subnormal & is_small) | (moved & ~is_small);
        memcpy(&out[i], &bits, sizeof bits);
    }
}

static const convert_fn converters[] = {
    [DTYPE_F32] = convert_f32, [DTYPE_F16] = convert_f16, [DTYPE_BF16] = convert_bf16};

/* The axes of n_rows rows: dimensions of one element are left out, and two become one where the
 * outer continues the inner. In the order of the strides in the file, the largest first. */
static int plan_axes(const struct source_tensor *tensor, int64_t n_rows, struct axis axes[MAX_DIMS])
{
    struct axis plan[MAX_DIMS];
    int n = 0;
    int64_t target = 1;
    for (int d = tensor->n_dims - 1; d >= 0; d--) {
        const int64_t count = d == 0 ? n_rows : tensor->shape[d];
        const int64_t source = tensor->stride[d];
        if (count == 1)
            continue;
        if (n > 0 && plan[n - 1].source > 0 && source % plan[n - 1].source == 0 &&
            source / plan[n - 1].source == plan[n - 1].count)
            plan[n - 1].count *= count;
        else
            plan[n++] = (struct axis){count, source, target};
        target *= count;
    }
    for (int i = 0; i < n; i++) {
        int at = i;
        for (; at > 0 && axes[at - 1].source < plan[i].source; at--)
            axes[at] = axes[at - 1];
        axes[at] = plan[i];
    }
    return n;
}

/* Elements from the first to the last one in the file, both included. */
static int64_t span_of(const struct axis *axes, int n)
{
    int64_t span = 1;
    for (int i = 0; i < n; i++)
        span += (axes[i].count - 1) * axes[i].source;
    return span;
}

static bool is_sparse(const struct axis *axes, int n, int64_t span)
{
    int64_t count = 1;
    for (int i = 0; i < n; i++)
        count *= axes[i].count;
    return count < span / SPARSE;
}

static void convert_axes(const struct reader *reader, const char *source, const struct axis *axes,
                         int n, float *out)
{
    if (n == 0)
        reader->convert(source, out, 1);
    else if (n == 1 && axes->source == 1 && axes->target == 1)
        reader->convert(source, out, axes->count);
    else
        for (int64_t i = 0; i < axes->count; i++)
            convert_axes(reader, source + (size_t)(i * axes->source) * reader->size, axes + 1,
                         n - 1, out + i * axes->target);
}

/* The depth of the recursion is at most the sum of the counts' binary logarithms. */
static mvlm_status read_part(const struct reader *reader, uint64_t offset, const struct axis *axes,
                             int n, float *out)
{
    const int64_t span = span_of(axes, n);
    const uint64_t n_bytes = (uint64_t)span * reader->size;
    if (n_bytes <= PIECE_SIZE || (n_bytes <= BUFFER_SIZE && !is_sparse(axes, n, span))) {
        TRY(source_file_read(reader->file, offset, reader->buffer, (size_t)n_bytes, reader->error));
        convert_axes(reader, reader->buffer, axes, n, out);
        return MVLM_OK;
    }
    struct axis half[MAX_DIMS] = {{0}};
    memcpy(half, axes, (size_t)n * sizeof *axes);
    int largest = 0;
    while (half[largest].count == 1)
        largest++;
    struct axis *const axis = &half[largest];
    const int64_t count = axis->count, middle = count / 2;
    axis->count = middle;
    TRY(read_part(reader, offset, half, n, out));
    axis->count = count - middle;
    return read_part(reader, offset + (uint64_t)(middle * axis->source) * reader->size, half, n,
                     out + middle * axis->target);
}

static mvlm_status check_rows(const struct source_file *file, const struct source_tensor *tensor,
                              int64_t first, int64_t n_rows, mvlm_error *error)
{
    const int64_t rows = tensor->n_dims ? tensor->shape[0] : 1;
    if (tensor->dtype >= sizeof converters / sizeof *converters || !converters[tensor->dtype])
        return source_file_fail(file, error, "tensor '%s': type %s, expected F32, F16 or BF16",
                                tensor->name, dtype_name(tensor->dtype));
    if (first < 0 || n_rows < 0 || first > rows || n_rows > rows - first)
        return source_file_fail(file, error,
                                "tensor '%s': %lld rows from row %lld wanted, has %lld",
                                tensor->name, (long long)n_rows, (long long)first, (long long)rows);
    return MVLM_OK;
}

mvlm_status tensor_read(const struct source_file *file, const struct source_tensor *tensor,
                        int64_t first, int64_t n_rows, float *out, mvlm_error *error)
{
    TRY(check_rows(file, tensor, first, n_rows, error));
    if (n_rows == 0 || source_tensor_count(tensor) == 0)
        return MVLM_OK;
    struct axis axes[MAX_DIMS];
    const int n = plan_axes(tensor, n_rows, axes);
    const uint64_t span = (uint64_t)span_of(axes, n);
    struct reader reader = {.file = file,
                            .convert = converters[tensor->dtype],
                            .size = dtype_size(tensor->dtype),
                            .error = error};
    const uint64_t skipped = tensor->n_dims ? (uint64_t)(first * tensor->stride[0]) : 0;
    const uint64_t offset = tensor->offset + skipped * reader.size;
    if (tensor->dtype == DTYPE_F32 && n <= 1 && span == (uint64_t)(n ? axes->count : 1))
        return source_file_read(file, offset, out, (size_t)span * sizeof *out, error);
    const size_t n_bytes =
        span < BUFFER_SIZE / reader.size ? (size_t)span * reader.size : BUFFER_SIZE;
    reader.buffer = malloc(n_bytes);
    if (!reader.buffer)
        return fail_no_memory(error, "a buffer for reading", n_bytes);
    const mvlm_status status = read_part(&reader, offset, axes, n, out);
    free(reader.buffer);
    return status;
}
