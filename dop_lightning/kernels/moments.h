// Statistics of an image, for batch norm.

#pragma once

#include "common.h"

// Mean and 1/√(variance + ε) of each channel. Rows of x may have `pitch` elements.
template <class T>
static void moments_of(const T* x, int64_t rows, int64_t columns, int64_t channels, int64_t pitch, float epsilon,
                       float* mean, float* inverse, int threads) {
    const int64_t pixels = group(columns, channels), wide = channels * pixels;
    std::vector<float> first(channels);
    for (int64_t c = 0; c < channels; c++) first[c] = load(x + c, 1)[0];
    const std::vector<float> shift = repeat(first, channels, pixels);  // against cancellation in the squares
    Sums sums(2 * wide, threads);
    deal(rows, threads, [&](int64_t begin, int64_t end, int share) {
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
                    total[c + lane] += sum[lane];
                    total[wide + c + lane] += squares[lane];
                }
            });
        }
    });
    for (int64_t c = 0; c < channels; c++) {
        double sum = 0, squares = 0, count = double(rows) * columns;
        for (int64_t i = c; i < wide; i += channels) {
            sum += sums.total(i);
            squares += sums.total(wide + i);
        }
        const double off = sum / count;
        mean[c] = float(first[c] + off);
        inverse[c] = float(1 / std::sqrt(std::max(squares / count - off * off, 0.0) + epsilon));
    }
}
