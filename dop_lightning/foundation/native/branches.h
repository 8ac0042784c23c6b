// The two branches of a scale, evaluated row by row to be joined.
//
// skip: H×W×S, rows of `pitch` elements; low: H/2×W/2×C.

#pragma once

#include "norm.h"

// Rows of bilinear upsampling by 2 (half-pixel centres): a fine row is ¾ of the coarse row that contains it plus ¼ of
// the nearest other row. At the border, both are the same row.
struct Taps {
    int64_t near, far;
    Taps(int64_t fine, int64_t coarse_size)
        : near(fine / 2), far(std::clamp(fine / 2 + (fine % 2 ? 1 : -1), int64_t(0), coarse_size - 1)) {}
};

template <class T>
struct Branches {
    const T *skip, *low;
    int64_t rows, columns, S, C, pitch;
    float slope;
    Affine of_skip, of_low;
    std::vector<float> wide_a, wide_b;  // of_skip, repeated for several pixels

    int64_t width() const { return columns / 2; }

    // Activate and interpolate the coarse rows of a fine row: W/2×C.
    void mix(int64_t row, float* v) const {
        const Taps taps(row, rows / 2);
        const T *near = low + taps.near * width() * C, *far = low + taps.far * width() * C;
        for (int64_t at = 0; at < width() * C; at += C)
            over_channels(C, [&](int64_t c, int n) {
                const Floats A = load(of_low.a.data() + c), B = load(of_low.b.data() + c);
                Floats p = leaky(get(near + at + c, n) * A + B, slope), q = leaky(get(far + at + c, n) * A + B, slope);
                put(v + at + c, p * 0.75f + q * 0.25f, n);
            });
    }

    // Call f(j, left, right) with the two fine pixels inside coarse pixel j, for lanes c to c + n of `v`.
    template <class F>
    inline __attribute__((always_inline)) void spread(const float* v, int64_t c, int n, F f) const {
        Floats before = get(v + c, n), here = before;
        for (int64_t j = 0; j < width(); j++) {
            const Floats after = j + 1 < width() ? get(v + (j + 1) * C + c, n) : here;
            const Floats most = here * 0.75f;
            f(j, most + before * 0.25f, most + after * 0.25f);
            before = here;
            here = after;
        }
    }

    // Row of the skip branch before its LeakyReLU, W×S.
    void skip_row(int64_t row, float* out) const {
        const T* from = skip + row * pitch;
        for (int64_t at = 0; at < columns * S; at += wide())
            over_channels(wide(), [&](int64_t c, int n) {
                put(out + at + c, get(from + at + c, n) * load(wide_a.data() + c) + load(wide_b.data() + c), n);
            });
    }

    int64_t wide() const { return S * group(columns, S); }
};

// Mean, 1/√(variance + ε), γ and β of a batch norm, and the outputs for its gradients.
struct Norm {
    float *mean, *inverse;
    const float *gamma, *beta;
    float *dgamma, *dbeta;
};

template <class T>
Branches<T> branches(const void* skip, const Norm& of_skip, const void* low, const Norm& of_low, int64_t rows,
                     int64_t columns, int64_t S, int64_t C, int64_t pitch, float slope) {
    const Affine skip_norm(S, of_skip.mean, of_skip.inverse, of_skip.gamma, of_skip.beta);
    return {(const T*)skip,
            (const T*)low,
            rows,
            columns,
            S,
            C,
            pitch,
            slope,
            skip_norm,
            Affine(C, of_low.mean, of_low.inverse, of_low.gamma, of_low.beta),
            repeat(skip_norm.a, S, group(columns, S)),
            repeat(skip_norm.b, S, group(columns, S))};
}
