/* Norms, softmax, activations, rotary positions, depthwise convolution, resampling: the work between
 * matrix products. */
#include "math.h"
#include "names.h"

void KERNEL(layer_norm)(float *y, const float *x, const float *weight, const float *bias, float eps,
                        size_t n)
{
    const float mean = lane_sum(x, 0.0f, false, n) / (float)n;
    const float variance = lane_sum(x, mean, true, n) / (float)n;
    const floats scale = f_set(1.0f / sqrtf(variance + eps)), m = f_set(mean);
    if (bias)
        FOR_LANES(n, STORE(y, f_fma(f_mul(f_sub(LOAD(x), m), scale), LOAD(weight), LOAD(bias))););
    else
        FOR_LANES(n, STORE(y, f_mul(f_mul(f_sub(LOAD(x), m), scale), LOAD(weight))););
}

void KERNEL(rms_norm)(float *y, const float *x, const float *weight, float eps, size_t n)
{
    const floats scale = f_set(1.0f / sqrtf(lane_sum(x, 0.0f, true, n) / (float)n + eps));
    FOR_LANES(n, STORE(y, f_mul(f_mul(LOAD(x), scale), LOAD(weight))););
}

void KERNEL(softmax)(float *x, float scale, size_t n)
{
    const floats most = f_set(lane_most(x, n)), factor = f_set(scale);
    FOR_LANES(n, STORE(x, f_exp(f_mul(f_sub(LOAD(x), most), factor))););
    const floats inverse = f_set(1.0f / lane_sum(x, 0.0f, false, n));
    FOR_LANES(n, STORE(x, f_mul(LOAD(x), inverse)););
}

#define ACTIVATE(a)                                                                                \
    case a:                                                                                        \
        FOR_LANES(n, STORE(x, f_activation(LOAD(x), a)););                                         \
        break

void KERNEL(activate)(float *x, enum activation activation, size_t n)
{
    switch (activation) {
        ACTIVATE(ACTIVATION_QUICK_GELU);
        ACTIVATE(ACTIVATION_GELU);
        ACTIVATE(ACTIVATION_GELU_TANH);
        ACTIVATE(ACTIVATION_SILU);
        ACTIVATE(ACTIVATION_RELU);
        ACTIVATE(ACTIVATION_HARDSWISH);
        ACTIVATE(ACTIVATION_HARDSIGMOID);
    case ACTIVATION_NONE:
    case ACTIVATION_COUNT:
        break;
    }
}

void KERNEL(add)(float *y, const float *x, size_t n)
{
    FOR_LANES(n, STORE(y, f_add(LOAD(y), LOAD(x))););
}

void KERNEL(multiply)(float *y, const float *x, size_t n)
{
    FOR_LANES(n, STORE(y, f_mul(LOAD(y), LOAD(x))););
}

void KERNEL(rope)(float *x, const float *cosine, const float *sine, size_t n)
{
    float *other = x + n / 2;
    FOR_LANES(n / 2, {
        const floats a = LOAD(x), b = LOAD(other), c = LOAD(cosine), s = LOAD(sine);
        STORE(x, f_fma(a, c, f_negative(f_mul(b, s))));
        STORE(other, f_fma(b, c, f_mul(a, s)));
    });
}

void KERNEL(depthwise_3x3)(float *out, const float *in, const float *taps, const float *bias,
                           size_t side, size_t out_side, size_t stride, size_t y, size_t n)
{
    for (size_t x = 0; x < out_side; x++) {
        float *pixel = out + x * n;
        FOR_LANES(n, {
            floats sum = bias ? LOAD(bias) : f_set(0.0f);
            for (size_t tap = 0; tap < 9; tap++) {
                /* unsigned: the row above the first and the column left of the first wrap beyond `side` */
                const size_t in_y = y * stride + tap / 3 - 1, in_x = x * stride + tap % 3 - 1;
                if (in_y < side && in_x < side)
                    sum = f_fma(LOAD(in + (in_y * side + in_x) * n), LOAD(taps + tap * n), sum);
            }
            STORE(pixel, sum);
        });
    }
}

void KERNEL(resample_line)(uint8_t *line, const uint8_t *row, const struct resample_tap *taps,
                           size_t n)
{
    enum { BYTES = 3 * RESAMPLE_PIXELS };
    for (size_t i = 0; i < n; i++) {
        const uint8_t *pixels = row + taps[i].first;
        const int32_t *weights = taps[i].weights;
        size_t left = 3 * taps[i].n;
        ints sums = i_set(0);
        int32_t lanes[LANES];
        for (; left >= BYTES; left -= BYTES, pixels += BYTES, weights += LANES)
            sums = i_add(sums, i_mul(i_of_bytes(pixels, BYTES), i_load(weights)));
        if (left)
            sums = i_add(sums, i_mul(i_of_bytes(pixels, left), i_load(weights)));
        i_store(lanes, sums);
        for (size_t c = 0; c < 3; c++) { /* unsigned, for weights of which no sum is 1 */
            const uint32_t sum = (uint32_t)lanes[c] + (uint32_t)lanes[c + 3] +
                                 (uint32_t)lanes[c + 6] + (uint32_t)lanes[c + 9];
            line[3 * i + c] = resample_pixel((int32_t)((uint32_t)taps[i].start[c] + sum));
        }
    }
}
