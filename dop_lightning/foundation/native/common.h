// Common functions of the kernels: load bf16 or float32 arrays as vectors of 16 floats, and distribute rows to threads.
//
// Arrays are H×W×C (channels last), contiguous within a row. Portable C++ with the vector extensions of GCC, which the
// compiler maps to the instructions of the processor.

#pragma once

#include <omp.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

constexpr int LANES = 16;

// Number of values below which one thread processes all shares: waking another one takes longer, and much longer if
// other processes occupy its core.
constexpr int64_t GRAIN = 32768;

using Floats = float __attribute__((vector_size(4 * LANES)));
using Words = uint32_t __attribute__((vector_size(4 * LANES)));
using Halves = uint16_t __attribute__((vector_size(2 * LANES)));

// Lanes of a register. Wider vectors spill to memory, and some of their operations, such as comparisons, are compiled
// lane by lane.
#if defined(__AVX512F__)
constexpr int WIDTH = 16;
#elif defined(__AVX__)
constexpr int WIDTH = 8;
#else
constexpr int WIDTH = 4;
#endif

using Lanes = float __attribute__((vector_size(4 * WIDTH)));

static inline Lanes same(float value) { return Lanes{} + value; }

static inline Lanes lanes(const float* p) {
    Lanes v;
    std::memcpy(&v, p, sizeof v);
    return v;
}

struct bf16 {
    uint16_t bits;
};

static inline Floats all(float value) { return Floats{} + value; }

static inline Floats choose(Floats condition, float slope) { return condition > 0 ? all(1.0f) : all(slope); }

// LeakyReLU
static inline Floats leaky(Floats v, float slope) { return v > 0 ? v : v * slope; }

static inline Floats widen(Halves bits) { return (Floats)(__builtin_convertvector(bits, Words) << 16); }

// Round to the nearest, ties to even.
static inline Halves narrow(Floats v) {
    Words bits = (Words)v;
    return __builtin_convertvector((bits + 0x7fff + ((bits >> 16) & 1)) >> 16, Halves);
}

static inline Floats load(const float* p) {
    Floats v;
    std::memcpy(&v, p, sizeof v);
    return v;
}

static inline Floats load(const bf16* p) {
    Halves v;
    std::memcpy(&v, p, sizeof v);
    return widen(v);
}

static inline void store(float* p, Floats v) { std::memcpy(p, &v, sizeof v); }

static inline void store(bf16* p, Floats v) {
    Halves bits = narrow(v);
    std::memcpy(p, &bits, sizeof bits);
}

// Load or store the first n lanes; the others are 0 when loaded, and are not stored.
static inline Floats load(const float* p, int n) {
    Floats v{};
    std::memcpy(&v, p, n * sizeof(float));
    return v;
}

static inline Floats load(const bf16* p, int n) {
    Halves v{};
    std::memcpy(&v, p, n * sizeof(bf16));
    return widen(v);
}

static inline void store(float* p, Floats v, int n) { std::memcpy(p, &v, n * sizeof(float)); }

static inline void store(bf16* p, Floats v, int n) {
    Halves bits = narrow(v);
    std::memcpy(p, &bits, n * sizeof(bf16));
}

// Call f(c, n) for vectors of channels: c is the first of n lanes. If n is known to be LANES, the compiler removes
// partial loads and stores.
template <class F>
static inline __attribute__((always_inline)) void over_channels(int64_t channels, F f) {
    int64_t c = 0;
    for (; c + LANES <= channels; c += LANES) f(c, LANES);
    if (c < channels) f(c, int(channels - c));
}

template <class T>
static inline __attribute__((always_inline)) Floats get(const T* p, int n) {
    return n == LANES ? load(p) : load(p, n);
}

template <class T>
static inline __attribute__((always_inline)) void put(T* p, Floats v, int n) {
    if (n == LANES)
        store(p, v);
    else
        store(p, v, n);
}

// Call f(first, last, share) on equal shares of `rows`. The shares depend only on the number of threads, so that sums
// are reproducible bit for bit.
template <class F>
static void deal(int64_t rows, int threads, F f) {
    if (threads <= 1) return f(int64_t(0), rows, 0);
#pragma omp parallel num_threads(threads)
    {
        // if OpenMP provides fewer threads than requested, each processes several shares
        for (int share = omp_get_thread_num(); share < threads; share += omp_get_num_threads())
            f(rows * share / threads, rows * (share + 1) / threads, share);
    }
}

// The same for rows of `row_size` values: one thread processes all shares of small arrays. The results are identical.
template <class F>
static void deal(int64_t rows, int64_t row_size, int threads, F f) {
    if (threads <= 1 || rows * row_size >= GRAIN) return deal(rows, threads, f);
    for (int share = 0; share < threads; share++) f(rows * share / threads, rows * (share + 1) / threads, share);
}

// Several sums over pixels per channel, accumulated separately for each share and added in the order of the shares.
struct Sums {
    int64_t size;
    std::vector<double> shares;

    Sums(int64_t size, int threads) : size(size), shares(size * std::max(threads, 1), 0.0) {}

    double* of(int share) { return shares.data() + share * size; }

    double total(int64_t i) const {
        double sum = 0;
        for (size_t at = i; at < shares.size(); at += size) sum += shares[at];
        return sum;
    }
};

// a·x + b for each channel, padded to whole vectors.
struct Affine {
    std::vector<float> a, b;

    explicit Affine(int64_t channels) : a(channels + LANES, 0.0f), b(channels + LANES, 0.0f) {}

    // Batch norm with these statistics: γ·(x − μ)/σ + β.
    Affine(int64_t channels, const float* mean, const float* inverse, const float* gamma, const float* beta)
        : Affine(channels) {
        for (int64_t c = 0; c < channels; c++) {
            a[c] = gamma[c] * inverse[c];
            b[c] = beta[c] - mean[c] * a[c];
        }
    }
};

// Buffer of a thread, reused between calls.
static inline float* scratch(int which, int64_t size) {
    static thread_local std::vector<float> buffers[6];
    if (int64_t(buffers[which].size()) < size) buffers[which].resize(size);
    return buffers[which].data();
}

// Adjoint of reflection padding for one row: out (W×C) = the gradient of the row itself plus that of its mirror images
// outside of the image. `padded` is (H + 2·pad)×(W + 2·pad)×C.
template <class T>
static void fold_row(const T* padded, int64_t row, int64_t rows, int64_t columns, int64_t channels, int pad, float* out) {
    const int64_t pitch = (columns + 2 * pad) * channels, length = columns * channels;
    auto add = [&](int64_t from, bool first) {
        const T* p = padded + from * pitch + pad * channels;
        over_channels(length, [&](int64_t i, int n) {
            Floats v = get(p + i, n);
            put(out + i, first ? v : v + get(out + i, n), n);
        });
        if (!pad) return;
        const T* left = p - channels;
        const T* right = p + length;
        over_channels(channels, [&](int64_t c, int n) {
            float* second = out + channels + c;
            put(second, get(second, n) + get(left + c, n), n);
            float* last = out + (columns - 2) * channels + c;
            put(last, get(last, n) + get(right + c, n), n);
        });
    };
    add(row + pad, true);
    if (pad && row == 1) add(0, false);
    if (pad && row == rows - 2) add(rows + 1, false);
}

// Reflection padding of one row that has been written: fill its border, and its mirror image outside, if any.
template <class T>
static void reflect_row(T* padded, int64_t row, int64_t rows, int64_t columns, int64_t channels) {
    const int64_t pitch = (columns + 2) * channels;
    T* p = padded + (row + 1) * pitch;
    std::memcpy(p, p + 2 * channels, channels * sizeof(T));
    std::memcpy(p + (columns + 1) * channels, p + (columns - 1) * channels, channels * sizeof(T));
    if (row == 1) std::memcpy(padded, p, pitch * sizeof(T));
    if (row == rows - 2) std::memcpy(padded + (rows + 1) * pitch, p, pitch * sizeof(T));
}

// Number of pixels that are processed as one pixel with more channels, so that narrow networks fill whole vectors.
static inline int64_t group(int64_t columns, int64_t channels) {
    int64_t pixels = 1;
    while (channels * pixels < 2 * LANES && columns % (2 * pixels) == 0) pixels *= 2;
    return pixels;
}

// Repeat the parameters of each channel for several pixels.
static inline std::vector<float> repeat(const std::vector<float>& values, int64_t channels, int64_t pixels) {
    std::vector<float> out(channels * pixels + LANES, 0.0f);
    for (int64_t i = 0; i < channels * pixels; i++) out[i] = values[i % channels];
    return out;
}
