/* Norms, softmax, activations, rotary positions, depthwise convolution: the work between matrix
 * products. */
#include "math.h"
#include "names.h"

/* sum of x[i] - centre, or of its square, in sixteen lanes */
static inline float lane_sum(const float *x, float centre, bool square, size_t n)
{
    float lane[LANES] = {0};
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (size_t l = 0; l < LANES; l++) {
            const float v = x[i + l] - centre;
            lane[l] = square ? fmaf(v, v, lane[l]) : lane[l] + v;
        }
    for (size_t l = 0; i + l < n; l++) {
        const float v = x[i + l] - centre;
        lane[l] = square ? fmaf(v, v, lane[l]) : lane[l] + v;
    }
    return fold_lanes(lane);
}

void KERNEL(layer_norm)(float *y, const float *x, const float *weight, const float *bias, float eps,
                        size_t n)
{
    const float mean = lane_sum(x, 0.0f, false, n) / (float)n;
    const float variance = lane_sum(x, mean, true, n) / (float)n;
    const float scale = 1.0f / sqrtf(variance + eps);
    if (bias)
        for (size_t i = 0; i < n; i++)
            y[i] = fmaf((x[i] - mean) * scale, weight[i], bias[i]);
    else
        for (size_t i = 0; i < n; i++)
            y[i] = (x[i] - mean) * scale * weight[i];
}

void KERNEL(rms_norm)(float *y, const float *x, const float *weight, float eps, size_t n)
{
    const float scale = 1.0f / sqrtf(lane_sum(x, 0.0f, true, n) / (float)n + eps);
    for (size_t i = 0; i < n; i++)
        y[i] = x[i] * scale * weight[i];
}

void KERNEL(softmax)(float *x, float scale, size_t n)
{
    float most = x[0];
    for (size_t i = 1; i < n; i++)
        most = x[i] > most ? x[i] : most;
    for (size_t i = 0; i < n; i++)
        x[i] = exp_f32((x[i] - most) * scale);
    const float factor = 1.0f / lane_sum(x, 0.0f, false, n);
    for (size_t i = 0; i < n; i++)
        x[i] *= factor;
}

static inline float clamp_f32(float x, float low, float high)
{
    return x < low ? low : x > high ? high : x;
}

/* One loop an activation, so that each is vectorised. */
#define APPLY(expression)                                                                          \
    for (size_t i = 0; i < n; i++) {                                                               \
        const float v = x[i];                                                                      \
        x[i] = (expression);                                                                       \
    }                                                                                              \
    break

void KERNEL(activate)(float *x, enum activation activation, size_t n)
{
    switch (activation) {
    case ACTIVATION_NONE:
    case ACTIVATION_COUNT:
        break;
    case ACTIVATION_QUICK_GELU:
        APPLY(v * sigmoid_f32(1.702f * v));
    case ACTIVATION_GELU:
        APPLY(0.5f * v * (1.0f + erf_f32(v * 0.70710678f)));
    case ACTIVATION_GELU_TANH: /* sqrt(2 / pi) (v + 0.044715 v^3) */
        APPLY(0.5f * v * (1.0f + tanh_f32(0.79788456f * fmaf(0.044715f * v * v, v, v))));
    case ACTIVATION_SILU:
        APPLY(v * sigmoid_f32(v));
    case ACTIVATION_RELU:
        APPLY(v < 0.0f ? 0.0f : v);
    case ACTIVATION_HARDSWISH:
        APPLY(v * clamp_f32(fmaf(v, 1.0f / 6.0f, 0.5f), 0.0f, 1.0f));
    case ACTIVATION_HARDSIGMOID:
        APPLY(clamp_f32(fmaf(v, 1.0f / 6.0f, 0.5f), 0.0f, 1.0f));
    }
}

void KERNEL(add)(float *restrict y, const float *restrict x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] += x[i];
}

void KERNEL(multiply)(float *restrict y, const float *restrict x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] *= x[i];
}

void KERNEL(rope)(float *restrict x, const float *restrict cosine, const float *restrict sine,
                  size_t n)
{
    const size_t half = n / 2;
    for (size_t i = 0; i < half; i++) {
        const float a = x[i], b = x[i + half];
        x[i] = fmaf(a, cosine[i], -(b * sine[i]));
        x[i + half] = fmaf(b, cosine[i], a * sine[i]);
    }
}

void KERNEL(depthwise_3x3)(float *restrict out, const float *restrict in,
                           const float *restrict taps, const float *restrict bias, size_t side,
                           size_t out_side, size_t stride, size_t y, size_t n)
{
    for (size_t x = 0; x < out_side; x++) {
        float *pixel = out + x * n;
        for (size_t i = 0; i < n; i++)
            pixel[i] = bias ? bias[i] : 0.0f;
        for (size_t tap = 0; tap < 9; tap++) {
            /* unsigned: the row above the first and the column left of the first wrap beyond `side`
             */
            const size_t in_y = y * stride + tap / 3 - 1, in_x = x * stride + tap % 3 - 1;
            if (in_y >= side || in_x >= side)
                continue;
            const float *source = in + (in_y * side + in_x) * n;
            for (size_t i = 0; i < n; i++)
                pixel[i] = fmaf(source[i], taps[tap * n + i], pixel[i]);
        }
    }
}
