// Statistics and gradient of a batch norm over the pixels of one image.

#pragma once

#include "common.h"

// Mean and 1/√(variance + ε) of each channel. Rows of x may have `pitch` elements.
template <class T>
static void moments_of(const T* x, int64_t rows, int64_t columns, int64_t channels, int64_t pitch, float epsilon,
                       float* mean, float* inverse, int threads) {
    const int64_t pixels = group(columns, channels), wide = channels * pixels;
    std::vector<float> first(channels);
    for (int64_t c = 0; c < channels; c++) first[c] = load(x + c, 1)[0];
    const std::vector<float> shift = repeat(first, channels, pixels);  // avoids cancellation in the squares
    Sums sums(2 * channels, threads);
    deal(rows, columns * channels, threads, [&](int64_t begin, int64_t end, int share) {
        double* total = sums.of(share);
        for (int64_t row = begin; row < end; row++) {
            const T* p = x + row * pitch;
            over_channels(wide, [&](int64_t c, int n) {
                Floats sum{}, squares{};
                const Floats from = load(shift.data() + c);
                for (int64_t at = c; at < columns * channels; at += wide) {
                    Floats v = get(p + at, n) - from;
                    sum += v;
                    squares += v * v;
                }
                for (int lane = 0; lane < n; lane++) {
                    total[(c + lane) % channels] += sum[lane];
                    total[channels + (c + lane) % channels] += squares[lane];
                }
            });
        }
    });
    const double count = double(rows) * columns;
    for (int64_t c = 0; c < channels; c++) {
        const double off = sums.total(c) / count, square = sums.total(channels + c) / count;
        mean[c] = float(first[c] + off);
        inverse[c] = float(1 / std::sqrt(std::max(square - off * off, 0.0) + epsilon));
    }
}

// Gradient of a batch norm as a·r + slopes·x + constants, given Σ r and Σ r·(x − μ) over `count` pixels.
struct NormGradient {
    std::vector<float> slopes, constants;

    NormGradient(const Sums& sums, int64_t channels, double count, const Affine& norm, const float* mean,
                 const float* inverse, float* dgamma, float* dbeta)
        : slopes(channels + LANES, 0.0f), constants(channels + LANES, 0.0f) {
        for (int64_t c = 0; c < channels; c++) {
            const double sum = sums.total(c), product = sums.total(channels + c);
            dbeta[c] = float(sum);
            dgamma[c] = float(product * inverse[c]);
            const double both = product * inverse[c] * inverse[c] / count;
            slopes[c] = float(-norm.a[c] * both);
            constants[c] = float(-norm.a[c] * (sum / count - both * mean[c]));
        }
    }
};
