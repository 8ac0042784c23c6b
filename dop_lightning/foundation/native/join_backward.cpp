// Gradient of join.cpp. As there, upsampled values are recomputed row by row.

#include "branches.h"

namespace {

// Σ g and Σ g·(u − μ) over the image, for both branches; g: gradient with respect to the output of the batch norm.
template <class T>
void sums_of_join(const Branches<T>& x, const T* gradient, const float* mean, Sums& sums, int threads) {
    const int64_t S = x.S, C = x.C, pixel = S + C;
    deal(x.rows, x.columns * pixel, threads, [&](int64_t begin, int64_t end, int share) {
        float *v = scratch(0, x.width() * C + LANES), *g = scratch(1, x.columns * pixel + LANES),
              *s = scratch(2, x.columns * S + LANES);
        double *total = sums.of(share), *products = total + pixel;
        for (int64_t row = begin; row < end; row++) {
            fold_row(gradient, row, x.rows, x.columns, pixel, 1, g);
            x.skip_row(row, s);
            over_channels(S, [&](int64_t c, int n) {
                Floats sum{}, product{};
                const Floats center = get(mean + c, n);
                for (int64_t column = 0; column < x.columns; column++) {
                    const Floats r = load(g + column * pixel + c);
                    sum += r;
                    product += r * (leaky(load(s + column * S + c), x.slope) - center);
                }
                for (int lane = 0; lane < n; lane++) {
                    total[c + lane] += sum[lane];
                    products[c + lane] += product[lane];
                }
            });
            x.mix(row, v);
            over_channels(C, [&](int64_t c, int n) {
                Floats sum{}, product{};
                const Floats center = get(mean + S + c, n);
                const float* from = g + S + c;
                x.spread(v, c, n, [&](int64_t j, Floats left, Floats right) {
                    const Floats p = get(from + 2 * j * pixel, n), q = get(from + (2 * j + 1) * pixel, n);
                    sum += p + q;
                    product += p * (left - center) + q * (right - center);
                });
                for (int lane = 0; lane < n; lane++) {
                    total[S + c + lane] += sum[lane];
                    products[S + c + lane] += product[lane];
                }
            });
        }
    });
}

// Gradient with respect to the input of the skip branch's LeakyReLU, written to `out` (H×W×S), with Σ r and
// Σ r·(x − μ). center: μ, for wide() channels; s, r: buffers of one row.
template <class T>
void skip_gradient(const Branches<T>& x, const float* g, int64_t row, const Affine& norm, const NormGradient& by,
                   const float* center, T* out, double* total, float* s, float* r) {
    const int64_t S = x.S, pixel = S + x.C;
    x.skip_row(row, s);
    over_channels(S, [&](int64_t c, int n) {
        const int whole = S <= LANES ? LANES : n;  // with one vector per pixel, the next pixel overwrites the excess
        const Floats A = load(norm.a.data() + c), slopes = load(by.slopes.data() + c),
                     constants = load(by.constants.data() + c);
        for (int64_t column = 0; column < x.columns; column++) {
            const Floats before = load(s + column * S + c), derivative = choose(before, x.slope);
            const Floats inner = load(g + column * pixel + c) * A + before * derivative * slopes + constants;
            put(r + column * S + c, inner * derivative, whole);
        }
    });
    const int64_t wide = x.wide();
    const T* raw = x.skip + row * x.pitch;
    over_channels(wide, [&](int64_t c, int n) {
        Floats sum{}, product{};
        for (int64_t at = c; at < x.columns * S; at += wide) {
            const Floats v = get(r + at, n);
            sum += v;
            product += v * (get(raw + at, n) - load(center + c));
            put(out + row * x.pitch + at, v, n);
        }
        for (int lane = 0; lane < n; lane++) {
            total[(c + lane) % S] += sum[lane];
            total[S + (c + lane) % S] += product[lane];
        }
    });
}

// h (W/2×C): contribution of a fine row's gradient of u to the coarse columns.
template <class T>
void narrow_row(const Branches<T>& x, const float* g, const float* v, const Affine& norm, const NormGradient& by,
                float* h) {
    const int64_t S = x.S, C = x.C, pixel = S + C, last = x.width() - 1;
    over_channels(C, [&](int64_t c, int n) {
        const Floats A = load(norm.a.data() + S + c), slopes = load(by.slopes.data() + S + c),
                     constants = load(by.constants.data() + S + c);
        const float* from = g + S + c;
        Floats carried{}, to_next{};  // previous pixel: partial sum, and the contribution of its right half to j
        x.spread(v, c, n, [&](int64_t j, Floats left, Floats right) {
            const Floats p = get(from + 2 * j * pixel, n) * A + left * slopes + constants;
            const Floats q = get(from + (2 * j + 1) * pixel, n) * A + right * slopes + constants;
            const Floats own = (p + q) * 0.75f + to_next;
            if (j > 0)
                put(h + (j - 1) * C + c, carried + p * 0.25f, n);
            carried = j > 0 ? own : own + p * 0.25f;
            to_next = q * 0.25f;
            if (j == last) put(h + j * C + c, carried + to_next, n);
        });
    });
}

template <class T>
void backward(const Branches<T>& x, const T* gradient, const Norm& joint, const Norm& skip, const Norm& low, T* dskip,
              T* dlow, int threads) {
    const Affine norm(x.S + x.C, joint.mean, joint.inverse, joint.gamma, joint.beta);
    const int64_t S = x.S, C = x.C, pixel = S + C, coarse = x.rows / 2, length = x.width() * C;
    const double count = double(x.rows) * x.columns;
    Sums joined(2 * pixel, threads), of_skip(2 * S, threads), of_low(2 * C, threads);
    sums_of_join(x, gradient, joint.mean, joined, threads);
    const NormGradient by(joined, pixel, count, norm, joint.mean, joint.inverse, joint.dgamma, joint.dbeta);
    const int64_t wide = x.wide();
    const std::vector<float> center = repeat(std::vector<float>(skip.mean, skip.mean + S), S, wide / S);
    // each share of the coarse rows processes the fine rows inside and next to it, and the skip branch only inside it
    deal(coarse, 2 * x.columns * pixel, threads, [&](int64_t begin, int64_t end, int share) {
        if (begin == end) return;
        float *v = scratch(0, length + LANES), *g = scratch(1, x.columns * pixel + LANES),
              *h = scratch(2, length + LANES), *rows = scratch(3, 2 * length + LANES);
        float *s = scratch(4, x.columns * S + LANES), *r = scratch(5, x.columns * S + LANES);
        double* total = of_low.of(share);
        std::memset(rows, 0, 2 * length * sizeof(float));
        auto add = [&](int64_t row, float weight) {
            if (row < begin || row >= end) return;
            float* to = rows + (row % 2) * length;
            over_channels(length, [&](int64_t i, int n) { put(to + i, get(to + i, n) + get(h + i, n) * weight, n); });
        };
        auto finish = [&](int64_t row) {
            if (row < begin || row >= end) return;
            float* sum_of_row = rows + (row % 2) * length;
            const T* p = x.low + row * length;
            T* to = dlow + row * length;
            over_channels(C, [&](int64_t c, int n) {
                Floats sum{}, product{};
                const Floats A = load(x.of_low.a.data() + c), B = load(x.of_low.b.data() + c),
                             M = get(low.mean + c, n);
                for (int64_t at = c; at < length; at += C) {
                    Floats value = get(p + at, n);
                    Floats r = get(sum_of_row + at, n) * choose(value * A + B, x.slope);
                    sum += r;
                    product += r * (value - M);
                    put(to + at, r, n);
                }
                for (int lane = 0; lane < n; lane++) {
                    total[c + lane] += sum[lane];
                    total[C + c + lane] += product[lane];
                }
            });
            std::memset(sum_of_row, 0, length * sizeof(float));
        };
        for (int64_t row = std::max(int64_t(0), 2 * begin - 1); row < std::min(x.rows, 2 * end + 1); row++) {
            fold_row(gradient, row, x.rows, x.columns, pixel, 1, g);
            if (row >= 2 * begin && row < 2 * end)
                skip_gradient(x, g, row, norm, by, center.data(), dskip, of_skip.of(share), s, r);
            x.mix(row, v);
            narrow_row(x, g, v, norm, by, h);
            const Taps taps(row, coarse);
            add(taps.near, 0.75f);
            add(taps.far, 0.25f);
            if (row % 2 == 0) finish(row / 2 - 1);  // this is the last fine row that contributes to it
        }
        finish(end - 1 == coarse - 1 ? end - 1 : -1);
    });
    const NormGradient low_by(of_low, C, count / 4, x.of_low, low.mean, low.inverse, low.dgamma, low.dbeta);
    const NormGradient skip_by(of_skip, S, count, x.of_skip, skip.mean, skip.inverse, skip.dgamma, skip.dbeta);
    const std::vector<float> slopes = repeat(skip_by.slopes, S, wide / S),
                             constants = repeat(skip_by.constants, S, wide / S);
    deal(coarse, 2 * x.columns * pixel, threads, [&](int64_t begin, int64_t end, int) {
        for (int64_t at = begin * length; at < end * length; at += C)
            over_channels(C, [&](int64_t c, int n) {
                Floats r = get(dlow + at + c, n) * load(x.of_low.a.data() + c) +
                           get(x.low + at + c, n) * load(low_by.slopes.data() + c) +
                           load(low_by.constants.data() + c);
                put(dlow + at + c, r, n);
            });
        for (int64_t row = 2 * begin; row < 2 * end; row++)
            for (int64_t i = 0; i < x.columns * S; i += wide)
                over_channels(wide, [&](int64_t c, int n) {
                    const int64_t at = row * x.pitch + i + c;
                    const Floats v = get(dskip + at, n) * load(x.wide_a.data() + c) +
                                     get(x.skip + at, n) * load(slopes.data() + c) + load(constants.data() + c);
                    put(dskip + at, v, n);
                });
    });
}

}  // namespace

extern "C" {

void join_backward(int half, const void* gradient, const void* skip, const Norm* of_skip, const void* low,
                   const Norm* of_low, const Norm* norm, int64_t rows, int64_t columns, int64_t S, int64_t C,
                   int64_t pitch, float slope, void* dskip, void* dlow, int threads) {
    if (half)
        backward(branches<bf16>(skip, *of_skip, low, *of_low, rows, columns, S, C, pitch, slope),
                 (const bf16*)gradient, *norm, *of_skip, *of_low, (bf16*)dskip, (bf16*)dlow, threads);
    else
        backward(branches<float>(skip, *of_skip, low, *of_low, rows, columns, S, C, pitch, slope),
                 (const float*)gradient, *norm, *of_skip, *of_low, (float*)dskip, (float*)dlow, threads);
}
}
