/* Pillow's bicubic resizing: horizontal, then vertical, 8 bits between, weights of 22 fractional
 * bits. (Where columns come first the picture is turned over its diagonal, and back.)
 *
 *     row -> (weights x) -> line of the square's width -> (weights y) -> added to the sums of the
 * output rows that it touches -> square
 *
 * Recipe: shared/docs/model-facts.md 1.9, checked there and in tests/test_image.c against Pillow.
 * Each row is used as soon as it is resized, so only the square's sums are kept. Padding enters
 * through the sum of the weights that fall on it. A pass that Pillow skips, since nothing changes
 * along that edge, is one weight 1. Doubles must not be contracted (-ffp-contract=off).
 */
#include "resize.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "status.h"

enum { FRACTION_BITS = RESAMPLE_BITS, HALF = 1 << (FRACTION_BITS - 1), MOST_SHRINK = 1 << 20 };

/* The weights of one output pixel. */
struct tap {
    int64_t first; /* pixel of the picture */
    int64_t n;
    size_t at;       /* of the first weight */
    int32_t outside; /* sum of the weights that fall on padding */
    int32_t inside;
};

/* All of one edge's; `first` and `first + n` never fall from tap to tap. */
struct taps {
    struct tap *tap;  /* [side], owned */
    int32_t *weights; /* owned */
    int begin, end;   /* taps that touch the picture */
};

/* Keys' cubic with a = -1/2. */
static double cubic(double x)
{
    const double a = -0.5;
    x = fabs(x);
    if (x < 1)
        return ((a + 2) * x - (a + 3)) * x * x + 1;
    if (x < 2)
        return (((x - 5) * x + 8) * x - 4) * a;
    return 0;
}

static int32_t to_fixed(double weight)
{
    return (int32_t)(weight * (1 << FRACTION_BITS) + (weight < 0 ? -0.5 : 0.5));
}

/* One output pixel: its weights over the padded edge, those on the picture kept. `scratch` holds
 * them all. */
static void make_tap(const struct resize_axis *axis, int64_t out, struct tap *tap, int32_t *weights,
                     double *scratch)
{
    const double scale = (double)axis->n_in / (double)axis->n_out;
    const double filter_scale = scale < 1 ? 1 : scale;
    const double support = 2 * filter_scale, inverse = 1 / filter_scale;
    const double centre = ((double)out + 0.5) * scale;
    int64_t low = (int64_t)(centre - support + 0.5), high = (int64_t)(centre + support + 0.5);
    low = low < 0 ? 0 : low;
    high = high > axis->n_in ? axis->n_in : high;
    double sum = 0;
    for (int64_t i = low; i < high; i++) {
        scratch[i - low] = cubic(((double)i - centre + 0.5) * inverse);
        sum += scratch[i - low];
    }
    const int64_t real_end = axis->offset + axis->n_real;
    tap->first = (low > axis->offset ? low : axis->offset) - axis->offset;
    tap->n = tap->outside = tap->inside = 0;
    for (int64_t i = low; i < high; i++) {
        const int32_t weight = to_fixed(sum != 0 ? scratch[i - low] / sum : scratch[i - low]);
        if (i < axis->offset || i >= real_end) {
            tap->outside += weight;
        } else {
            tap->inside += weight;
            weights[tap->n++] = weight;
        }
    }
}

static void make_identity_tap(const struct resize_axis *axis, int64_t out, struct tap *tap,
                              int32_t *weights)
{
    const int64_t at = out - axis->offset;
    const int inside = at >= 0 && at < axis->n_real;
    *tap = (struct tap){.first = at < 0 ? 0 : at, .n = inside, .at = tap->at};
    *(inside ? &tap->inside : &tap->outside) = 1 << FRACTION_BITS;
    if (inside)
        *weights = 1 << FRACTION_BITS;
}

static void free_taps(struct taps *taps)
{
    free(taps->tap);
    free(taps->weights);
}

static mvlm_status make_taps(const struct resize_axis *axis, int side, struct taps *taps,
                             mvlm_error *error)
{
    if (axis->n_in / axis->n_out >= MOST_SHRINK)
        return fail(error, MVLM_BAD_PICTURE, "picture edge of %lld pixels cannot become %lld",
                    (long long)axis->n_in, (long long)axis->n_out);
    const double scale = (double)axis->n_in / (double)axis->n_out;
    int64_t most = (int64_t)ceil(2 * (scale < 1 ? 1 : scale)) * 2 + 1;
    most = most < axis->n_in ? most : axis->n_in;
    const int64_t most_kept = most < axis->n_real ? most : axis->n_real;
    double *scratch = calloc((size_t)most, sizeof *scratch);
    taps->tap = calloc((size_t)side, sizeof *taps->tap);
    taps->weights = calloc((size_t)side * (size_t)most_kept, sizeof *taps->weights);
    if (!scratch || !taps->tap || !taps->weights) {
        free(scratch);
        return fail_no_memory(error, "resizing weights",
                              (size_t)side * (size_t)most_kept * sizeof *taps->weights);
    }
    size_t at = 0;
    taps->begin = side;
    for (int i = 0; i < side; i++) {
        struct tap *tap = &taps->tap[i];
        tap->at = at;
        if (axis->n_in == axis->n_out)
            make_identity_tap(axis, axis->first + i, tap, taps->weights + at);
        else
            make_tap(axis, axis->first + i, tap, taps->weights + at, scratch);
        at += (size_t)tap->n;
        if (tap->n) {
            taps->begin = i < taps->begin ? i : taps->begin;
            taps->end = i + 1;
        }
    }
    free(scratch);
    return MVLM_OK;
}

/* The square in the making. */
struct canvas {
    const uint8_t *pad_colour;
    size_t width;  /* bytes of a line */
    uint8_t *line; /* one row, resized */
    int32_t *sums; /* [side][width] */
};

/* Everything that padding alone decides: columns that no tap leads into the picture from, and the
 * padding's share of the rest. */
static void start_canvas(struct canvas *canvas, const struct taps *x, const struct taps *y,
                         int side)
{
    for (int column = 0; column < side; column++) {
        const struct tap *tap = &x->tap[column];
        const int touched = column >= x->begin && column < x->end;
        for (size_t channel = 0; channel < 3; channel++) {
            const int32_t pad = canvas->pad_colour[channel];
            const size_t i = 3 * (size_t)column + channel;
            canvas->line[i] = resample_pixel(HALF + pad * (tap->outside + tap->inside));
            for (int row = 0; row < side; row++) {
                const struct tap *down = &y->tap[row];
                canvas->sums[(size_t)row * canvas->width + i] =
                    HALF +
                    canvas->line[i] * (touched ? down->outside : down->outside + down->inside);
            }
        }
    }
}

/* The columns that taps lead into the picture from, as the kernel wants them. */
struct columns {
    struct resample_tap *taps; /* [end - begin of x] */
    int32_t *weights;
};

static mvlm_status make_columns(const struct taps *x, const uint8_t pad_colour[3],
                                struct columns *columns, mvlm_error *error)
{
    enum { LANES = 16, PIXELS = RESAMPLE_PIXELS };
    const size_t n = x->end > x->begin ? (size_t)(x->end - x->begin) : 0;
    size_t n_weights = 0, at = 0;
    for (size_t i = 0; i < n; i++)
        n_weights += (size_t)(x->tap[x->begin + (int)i].n + PIXELS - 1) / PIXELS * LANES;
    columns->taps = calloc(n + 1, sizeof *columns->taps);
    columns->weights = calloc(n_weights + 1, sizeof *columns->weights);
    if (!columns->taps || !columns->weights)
        return fail_no_memory(error, "resizing weights", n_weights * sizeof *columns->weights);
    for (size_t i = 0; i < n; i++) {
        const struct tap *tap = &x->tap[x->begin + (int)i];
        struct resample_tap *column = &columns->taps[i];
        *column = (struct resample_tap){
            3 * (size_t)tap->first, (size_t)tap->n, columns->weights + at, {0}};
        for (size_t k = 0; k < (size_t)tap->n; k++)
            for (size_t channel = 0; channel < 3; channel++)
                columns->weights[at + k / PIXELS * LANES + 3 * (k % PIXELS) + channel] =
                    x->weights[tap->at + k];
        for (size_t channel = 0; channel < 3; channel++)
            column->start[channel] = HALF + pad_colour[channel] * tap->outside;
        at += (size_t)(tap->n + PIXELS - 1) / PIXELS * LANES;
    }
    return MVLM_OK;
}

static void add_weighted(int32_t *restrict sums, const uint8_t *restrict line, int32_t weight,
                         size_t n)
{
    for (size_t i = 0; i < n; i++)
        sums[i] += line[i] * weight;
}

static void add_rows(const struct kernels *kernels, const struct picture *picture,
                     const struct taps *x, const struct columns *columns, const struct taps *y,
                     struct canvas *canvas)
{
    if (x->begin >= x->end || y->begin >= y->end)
        return;
    const struct tap *last = &y->tap[y->end - 1];
    const size_t begin = 3 * (size_t)x->begin, n = 3 * (size_t)x->end - begin;
    int out = y->begin;
    for (int64_t row = y->tap[out].first; row < last->first + last->n; row++) {
        while (y->tap[out].first + y->tap[out].n <= row)
            out++;
        kernels->resample_line(canvas->line + begin,
                               picture->rgb + (size_t)row * (size_t)picture->width * 3,
                               columns->taps, n / 3);
        for (int i = out; i < y->end && y->tap[i].first <= row; i++)
            add_weighted(canvas->sums + (size_t)i * canvas->width + begin, canvas->line + begin,
                         y->weights[y->tap[i].at + (size_t)(row - y->tap[i].first)], n);
    }
}

static mvlm_status resize_lines_first(const struct kernels *kernels, const struct picture *picture,
                                      const struct resize_axis *x_axis,
                                      const struct resize_axis *y_axis, const uint8_t pad_colour[3],
                                      int side, uint8_t *square, mvlm_error *error)
{
    const size_t width = 3 * (size_t)side, n = width * (size_t)side;
    struct taps x = {0}, y = {0};
    struct columns columns = {0};
    struct canvas canvas = {.pad_colour = pad_colour, .width = width};
    mvlm_status status = make_taps(x_axis, side, &x, error);
    if (status == MVLM_OK)
        status = make_taps(y_axis, side, &y, error);
    if (status == MVLM_OK)
        status = make_columns(&x, pad_colour, &columns, error);
    if (status != MVLM_OK)
        goto cleanup;
    canvas.line = calloc(width, 1);
    canvas.sums = calloc(n, sizeof *canvas.sums);
    if (!canvas.line || !canvas.sums) {
        status = fail_no_memory(error, "resizing", n * sizeof *canvas.sums);
        goto cleanup;
    }
    start_canvas(&canvas, &x, &y, side);
    add_rows(kernels, picture, &x, &columns, &y, &canvas);
    for (size_t i = 0; i < n; i++)
        square[i] = resample_pixel(canvas.sums[i]);
cleanup:
    free(columns.taps);
    free(columns.weights);
    free(canvas.line);
    free(canvas.sums);
    free_taps(&x);
    free_taps(&y);
    return status;
}

/* rgb [height][width] -> turned [width][height] */
static void turn_over(const uint8_t *rgb, size_t width, size_t height, uint8_t *turned)
{
    for (size_t y = 0; y < height; y++)
        for (size_t x = 0; x < width; x++)
            memcpy(turned + 3 * (x * height + y), rgb + 3 * (y * width + x), 3);
}

mvlm_status picture_resize(const struct kernels *kernels, const struct picture *picture,
                           const struct resize_axis *x_axis, const struct resize_axis *y_axis,
                           const uint8_t pad_colour[3], bool columns_first, int side,
                           uint8_t *square, mvlm_error *error)
{
    if (!columns_first)
        return resize_lines_first(kernels, picture, x_axis, y_axis, pad_colour, side, square,
                                  error);
    const size_t width = (size_t)picture->width, height = (size_t)picture->height,
                 edge = (size_t)side, n = 3 * width * height;
    uint8_t *rgb = malloc(n), *turned_square = malloc(3 * edge * edge);
    mvlm_status status = MVLM_OK;
    if (rgb && turned_square) {
        struct picture turned = *picture;
        turned.rgb = rgb;
        turned.width = picture->height;
        turned.height = picture->width;
        turn_over(picture->rgb, width, height, rgb);
        status = resize_lines_first(kernels, &turned, y_axis, x_axis, pad_colour, side,
                                    turned_square, error);
        if (status == MVLM_OK)
            turn_over(turned_square, edge, edge, square);
    } else
        status = fail_no_memory(error, "a turned picture", n);
    free(rgb);
    free(turned_square);
    return status;
}
