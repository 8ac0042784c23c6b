// A semi-implicit step of s = g∘g − h∘h, in one pass over its arrays: see engine/steps/semi_implicit.py.

#include "common.h"

namespace {

// x is L on entry and L + s − y on return; g and h are updated in place. found: ‖L + s − y‖² before the step, and
// max|D|.
template <class T>
void step(T* x, const T* y, T* g, T* h, int64_t size, T rate, double* found, int threads) {
    threads = std::max(threads, 1);
    std::vector<double> squares(threads, 0.0);
    std::vector<T> longest(threads, T(0));
    deal((size + LANES - 1) / LANES, LANES, threads, [&](int64_t first, int64_t last, int share) {
        double total = 0;
        T most = 0;
        const int64_t end = std::min(size, last * LANES);
        for (int64_t at = first * LANES; at < end; at += 4096) {
            const int64_t stop = std::min(end, at + 4096);
            T sum = 0;
#pragma omp simd reduction(+ : sum) reduction(max : most)
            for (int64_t i = at; i < stop; i++) {
                const T rest = x[i] - y[i], gg = g[i] * g[i], hh = h[i] * h[i];
                const T residual = rest + gg - hh;
                const T move = residual / (1 + 2 * rate * (gg + hh)) * rate;
                sum += residual * residual;
                const T size_of = std::abs(move);
                most = size_of > most ? size_of : most;
                const T a = g[i] - move * g[i], b = h[i] + move * h[i];
                g[i] = a;
                h[i] = b;
                x[i] = rest + a * a - b * b;
            }
            total += sum;
        }
        squares[share] = total;
        longest[share] = most;
    });
    found[0] = 0;
    for (double part : squares) found[0] += part;
    found[1] = *std::max_element(longest.begin(), longest.end());
}

}  // namespace

extern "C" {

void step_corruption_float(float* x, const float* y, float* g, float* h, int64_t size, double rate, double* found,
                           int threads) {
    step(x, y, g, h, size, float(rate), found, threads);
}

void step_corruption_double(double* x, const double* y, double* g, double* h, int64_t size, double rate, double* found,
                            int threads) {
    step(x, y, g, h, size, rate, found, threads);
}
}
