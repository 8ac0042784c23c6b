// Batch norm with the statistics of the image, LeakyReLU and reflection padding in one pass, and their gradient.

#include "norm.h"

template <class T>
static void activate_of(const T* x, const float* mean, const float* inverse, const float* gamma, const float* beta,
                        int64_t rows, int64_t columns, int64_t channels, int pad, float slope, T* y, int threads) {
    const int64_t pixels = group(columns, channels), wide = channels * pixels, length = columns * channels;
    const Affine norm(channels, mean, inverse, gamma, beta);
    const std::vector<float> a = repeat(norm.a, channels, pixels), b = repeat(norm.b, channels, pixels);
    deal(rows, columns * channels, threads, [&](int64_t begin, int64_t end, int) {
        for (int64_t row = begin; row < end; row++) {
            const T* from = x + row * length;
            T* to = y + (row + pad) * (columns + 2 * pad) * channels + pad * channels;
            for (int64_t at = 0; at < length; at += wide)
                over_channels(wide, [&](int64_t c, int n) {
                    Floats v = get(from + at + c, n) * load(a.data() + c) + load(b.data() + c);
                    put(to + at + c, leaky(v, slope), n);
                });
            if (pad) reflect_row(y, row, rows, columns, channels);
        }
    });
}

// With r = LeakyReLU'(γx̂ + β)·g:  ∂β = Σ r,  ∂γ = Σ r·x̂,  ∂x = γ/σ·(r − mean(r) − x̂·mean(r·x̂)).
template <class T>
static void activate_backward_of(const T* gradient, const T* x, const float* mean, const float* inverse,
                                 const float* gamma, const float* beta, int64_t rows, int64_t columns,
                                 int64_t channels, int pad, float slope, T* dx, float* dgamma, float* dbeta,
                                 int threads) {
    const int64_t pixels = group(columns, channels), wide = channels * pixels, length = columns * channels;
    const Affine norm(channels, mean, inverse, gamma, beta);
    const std::vector<float> a = repeat(norm.a, channels, pixels), b = repeat(norm.b, channels, pixels);
    const std::vector<float> center = repeat(std::vector<float>(mean, mean + channels), channels, pixels);
    Sums sums(2 * channels, threads);
    deal(rows, columns * channels, threads, [&](int64_t begin, int64_t end, int share) {
        float* g = scratch(0, length + LANES);
        double* total = sums.of(share);
        for (int64_t row = begin; row < end; row++) {
            fold_row(gradient, row, rows, columns, channels, pad, g);
            const T* p = x + row * length;
            over_channels(wide, [&](int64_t c, int n) {
                Floats sum{}, product{};
                const Floats A = load(a.data() + c), B = load(b.data() + c), M = load(center.data() + c);
                for (int64_t at = c; at < length; at += wide) {
                    Floats v = get(p + at, n);
                    Floats r = get(g + at, n) * choose(v * A + B, slope);
                    sum += r;
                    product += r * (v - M);
                }
                for (int lane = 0; lane < n; lane++) {
                    total[(c + lane) % channels] += sum[lane];
                    total[channels + (c + lane) % channels] += product[lane];
                }
            });
        }
    });
    const NormGradient by(sums, channels, double(rows) * columns, norm, mean, inverse, dgamma, dbeta);
    const std::vector<float> s = repeat(by.slopes, channels, pixels), k = repeat(by.constants, channels, pixels);
    deal(rows, columns * channels, threads, [&](int64_t begin, int64_t end, int) {
        float* g = scratch(0, length + LANES);
        for (int64_t row = begin; row < end; row++) {
            fold_row(gradient, row, rows, columns, channels, pad, g);
            const T* p = x + row * length;
            T* to = dx + row * length;
            for (int64_t at = 0; at < length; at += wide)
                over_channels(wide, [&](int64_t c, int n) {
                    const Floats A = load(a.data() + c);
                    Floats v = get(p + at + c, n);
                    Floats r = get(g + at + c, n) * choose(v * A + load(b.data() + c), slope);
                    put(to + at + c, r * A + v * load(s.data() + c) + load(k.data() + c), n);
                });
        }
    });
}

template <class T>
static void pad_of(const float* z, int64_t rows, int64_t columns, int64_t channels, T* y, int threads) {
    const int64_t length = columns * channels;
    deal(rows, columns * channels, threads, [&](int64_t begin, int64_t end, int) {
        for (int64_t row = begin; row < end; row++) {
            T* to = y + (row + 1) * (columns + 2) * channels + channels;
            over_channels(length, [&](int64_t i, int n) { put(to + i, get(z + row * length + i, n), n); });
            reflect_row(y, row, rows, columns, channels);
        }
    });
}

extern "C" {

// Mean and 1/√(variance + ε) of x, then y = pad(LeakyReLU(γ·(x − μ)/σ + β)).
void activate(int half, const void* x, float* mean, float* inverse, const float* gamma, const float* beta, int64_t rows,
              int64_t columns, int64_t channels, int pad, float slope, float epsilon, void* y, int threads) {
    if (half) {
        moments_of((const bf16*)x, rows, columns, channels, columns * channels, epsilon, mean, inverse, threads);
        activate_of((const bf16*)x, mean, inverse, gamma, beta, rows, columns, channels, pad, slope, (bf16*)y, threads);
    } else {
        moments_of((const float*)x, rows, columns, channels, columns * channels, epsilon, mean, inverse, threads);
        activate_of((const float*)x, mean, inverse, gamma, beta, rows, columns, channels, pad, slope, (float*)y,
                    threads);
    }
}

void activate_backward(int half, const void* gradient, const void* x, const float* mean, const float* inverse,
                       const float* gamma, const float* beta, int64_t rows, int64_t columns, int64_t channels, int pad,
                       float slope, void* dx, float* dgamma, float* dbeta, int threads) {
    if (half)
        activate_backward_of((const bf16*)gradient, (const bf16*)x, mean, inverse, gamma, beta, rows, columns, channels,
                             pad, slope, (bf16*)dx, dgamma, dbeta, threads);
    else
        activate_backward_of((const float*)gradient, (const float*)x, mean, inverse, gamma, beta, rows, columns,
                             channels, pad, slope, (float*)dx, dgamma, dbeta, threads);
}

// y = pad(z), in bf16 or float32.
void pad(int half, const float* z, int64_t rows, int64_t columns, int64_t channels, void* y, int threads) {
    if (half)
        pad_of(z, rows, columns, channels, (bf16*)y, threads);
    else
        pad_of(z, rows, columns, channels, (float*)y, threads);
}
}
