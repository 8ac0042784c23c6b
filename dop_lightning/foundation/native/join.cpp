// Join the two branches of a scale in one pass: batch norm and LeakyReLU of each branch, bilinear upsampling of the
// deeper one, concatenation (skip first), batch norm and reflection padding, into (H + 2)×(W + 2)×(S + C).
//
// No intermediate array has the size of the output: intermediate values are computed row by row from the small array
// `low`.

#include "branches.h"

namespace {

template <class T>
void moments_of_join(const Branches<T>& x, float epsilon, float* mean, float* inverse, int threads) {
    const int64_t S = x.S, C = x.C, all_channels = S + C, length = x.width() * C;
    std::vector<float> shift(all_channels + LANES, 0.0f), row(length + LANES);
    const int64_t wide = x.wide();
    std::vector<float> skip_row(x.columns * S + LANES);
    x.skip_row(0, skip_row.data());
    for (int64_t k = 0; k < S; k++) shift[k] = leaky(all(skip_row[k]), x.slope)[0];
    const std::vector<float> skip_shift = repeat(shift, S, wide / S);
    x.mix(0, row.data());
    for (int64_t c = 0; c < C; c++) shift[S + c] = row[c];
    Sums sums(2 * all_channels, threads);
    deal(x.rows, x.columns * (x.S + x.C), threads, [&](int64_t begin, int64_t end, int share) {
        float *v = scratch(0, length + LANES), *s = scratch(1, x.columns * S + LANES);
        double *total = sums.of(share), *squared = total + all_channels;
        for (int64_t row = begin; row < end; row++) {
            x.skip_row(row, s);
            over_channels(wide, [&](int64_t c, int n) {
                Floats sum{}, squares{};
                const Floats from = load(skip_shift.data() + c);
                for (int64_t at = c; at < x.columns * S; at += wide) {
                    const Floats u = leaky(get(s + at, n), x.slope) - from;
                    sum += u;
                    squares += u * u;
                }
                for (int lane = 0; lane < n; lane++) {
                    total[(c + lane) % S] += sum[lane];
                    squared[(c + lane) % S] += squares[lane];
                }
            });
            x.mix(row, v);
            over_channels(C, [&](int64_t c, int n) {
                Floats sum{}, squares{};
                const Floats from = get(shift.data() + S + c, n);
                x.spread(v, c, n, [&](int64_t, Floats left, Floats right) {
                    left -= from;
                    right -= from;
                    sum += left + right;
                    squares += left * left + right * right;
                });
                for (int lane = 0; lane < n; lane++) {
                    total[S + c + lane] += sum[lane];
                    squared[S + c + lane] += squares[lane];
                }
            });
        }
    });
    const double count = double(x.rows) * x.columns;
    for (int64_t c = 0; c < all_channels; c++) {
        const double off = sums.total(c) / count, square = sums.total(all_channels + c) / count;
        mean[c] = float(shift[c] + off);
        inverse[c] = float(1 / std::sqrt(std::max(square - off * off, 0.0) + epsilon));
    }
}

template <class T>
void write_join(const Branches<T>& x, const Affine& norm, T* y, int threads) {
    const int64_t S = x.S, C = x.C, pixel = S + C;
    deal(x.rows, x.columns * (x.S + x.C), threads, [&](int64_t begin, int64_t end, int) {
        float *v = scratch(0, x.width() * C + LANES), *s = scratch(1, x.columns * S + LANES);
        for (int64_t row = begin; row < end; row++) {
            T* to = y + ((row + 1) * (x.columns + 2) + 1) * pixel;
            x.mix(row, v);
            x.skip_row(row, s);
            over_channels(S, [&](int64_t c, int n) {
                const Floats A = load(norm.a.data() + c), B = load(norm.b.data() + c);
                // store whole vectors: the other branch overwrites the excess afterwards
                const int whole = c + LANES <= pixel ? LANES : n;
                for (int64_t column = 0; column < x.columns; column++)
                    put(to + column * pixel + c, leaky(load(s + column * S + c), x.slope) * A + B, whole);
            });
            over_channels(C, [&](int64_t c, int n) {
                const Floats A = load(norm.a.data() + S + c), B = load(norm.b.data() + S + c);
                T* out = to + S + c;
                x.spread(v, c, n, [&](int64_t j, Floats left, Floats right) {
                    put(out + 2 * j * pixel, left * A + B, n);
                    put(out + (2 * j + 1) * pixel, right * A + B, n);
                });
            });
            reflect_row(y, row, x.rows, x.columns, pixel);
        }
    });
}

template <class T>
void forward(const void* skip, const Norm& of_skip, const void* low, const Norm& of_low, const Norm& norm, int64_t rows,
             int64_t columns, int64_t S, int64_t C, int64_t pitch, float slope, float epsilon, void* y, int threads) {
    moments_of((const T*)skip, rows, columns, S, pitch, epsilon, of_skip.mean, of_skip.inverse, threads);
    moments_of((const T*)low, rows / 2, columns / 2, C, columns / 2 * C, epsilon, of_low.mean, of_low.inverse, threads);
    const auto x = branches<T>(skip, of_skip, low, of_low, rows, columns, S, C, pitch, slope);
    moments_of_join(x, epsilon, norm.mean, norm.inverse, threads);
    write_join(x, Affine(x.S + x.C, norm.mean, norm.inverse, norm.gamma, norm.beta), (T*)y, threads);
}

}  // namespace

extern "C" {

void join(int half, const void* skip, const Norm* of_skip, const void* low, const Norm* of_low, const Norm* norm,
          int64_t rows, int64_t columns, int64_t S, int64_t C, int64_t pitch, float slope, float epsilon, void* y,
          int threads) {
    if (half)
        forward<bf16>(skip, *of_skip, low, *of_low, *norm, rows, columns, S, C, pitch, slope, epsilon, y, threads);
    else
        forward<float>(skip, *of_skip, low, *of_low, *norm, rows, columns, S, C, pitch, slope, epsilon, y, threads);
}
}
