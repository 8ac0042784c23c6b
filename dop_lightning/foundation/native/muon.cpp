// Steps of Muon, see dop_lightning/engine/optim/muon.py. The Newton–Schulz steps act on the Gram matrix: with
// G = XXᵀ and H = aI + bG + cG², a step is X ← HX and G ← HGH, so that all of them together are one product PX. The
// rounding errors of G, 1e-7 of its largest eigenvalue, grow at most a²-fold per step, which float32 allows for.

#include "common.h"

namespace {

// (a, b, c) of Jordan
constexpr float A = 3.4445f, B = -4.7750f, C = 2.0315f;

constexpr int ROWS = WIDTH == 16 ? 8 : 4;      // of a block of a product; its accumulators fit into the registers
constexpr int64_t COLUMNS = 2 * WIDTH;         // of a block
constexpr float EPSILON = 1e-12f;              // added to norms
constexpr int64_t WORTH_SHARING = 100'000'000;  // products of all kernels, a few milliseconds for one thread

static inline int64_t padded(int64_t n) { return (n + COLUMNS - 1) / COLUMNS * COLUMNS; }

// out (n×m) = left (n×k) · right (k×m), where n is a multiple of ROWS, and m of COLUMNS.
static void multiply(const float* left, const float* right, float* out, int64_t n, int64_t k, int64_t m) {
    for (int64_t column = 0; column < m; column += COLUMNS)
        for (int64_t row = 0; row < n; row += ROWS) {
            Lanes sums[ROWS][2] = {};
            for (int64_t i = 0; i < k; i++) {
                const float* r = right + i * m + column;
                const Lanes near = lanes(r), far = lanes(r + WIDTH);
                for (int j = 0; j < ROWS; j++) {
                    const Lanes factor = same(left[(row + j) * k + i]);
                    sums[j][0] += factor * near;
                    sums[j][1] += factor * far;
                }
            }
            for (int j = 0; j < ROWS; j++) std::memcpy(out + (row + j) * m + column, sums[j], sizeof sums[j]);
        }
}

// H = aI + bG + cG² from G and G², in place of G².
static void polynomial(const float* gram, float* square, int64_t n) {
    for (int64_t i = 0; i < n * n; i++) square[i] = B * gram[i] + C * square[i];
    for (int64_t i = 0; i < n; i++) square[i * n + i] += A;
}

// Update the average of a kernel, and move the kernel by -rate·√max(1, rows/columns)·UVᵀ.
static void move_kernel(float* kernel, const float* gradient, float* average, int64_t rows, int64_t columns, float rate,
                        float momentum, int rounds) {
    const bool tall = rows > columns;
    const int64_t n = padded(std::min(rows, columns)), m = padded(std::max(rows, columns));
    float* x = scratch(0, n * m);  // of shape n×m, padded with zeros
    float* transposed = scratch(1, m * n);
    std::fill(x, x + n * m, 0.0f);
    std::fill(transposed, transposed + m * n, 0.0f);
    double squares = 0;
    for (int64_t i = 0; i < rows; i++) {
        const int64_t at = i * columns;
        float* direct = tall ? transposed + i * n : x + i * m;
        float sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int64_t j = 0; j < columns; j++) {
            const float g = gradient[at + j], b = average[at + j] + (1 - momentum) * (g - average[at + j]);
            average[at + j] = b;
            direct[j] = g + momentum * (b - g);
            sum += direct[j] * direct[j];
        }
        squares += sum;
        float* turned = tall ? x + i : transposed + i;
        const int64_t pitch = tall ? m : n;
        for (int64_t j = 0; j < columns; j++) turned[j * pitch] = direct[j];
    }
    const float inverse = 1 / (float(std::sqrt(squares)) + EPSILON);
    float *gram = scratch(2, n * n), *h = scratch(3, n * n), *product = scratch(4, n * n), *spare = scratch(5, n * n);
    multiply(x, transposed, gram, n, m, n);
    for (int64_t i = 0; i < n * n; i++) gram[i] *= inverse * inverse;
    for (int round = 0; round < rounds; round++) {
        multiply(gram, gram, h, n, n, n);
        polynomial(gram, h, n);
        if (round == 0) {
            std::copy(h, h + n * n, product);
        } else {
            multiply(h, product, spare, n, n, n);
            std::swap(product, spare);
        }
        if (round + 1 == rounds) break;
        multiply(h, gram, spare, n, n, n);
        multiply(spare, h, gram, n, n, n);
    }
    const float step = rate * inverse * (tall ? std::sqrt(float(rows) / float(columns)) : 1.0f);
    if (tall) {
        multiply(transposed, product, x, m, n, n);  // (PX)ᵀ = XᵀP, as P is symmetric
        for (int64_t i = 0; i < rows; i++)
            for (int64_t j = 0; j < columns; j++) kernel[i * columns + j] -= step * x[i * n + j];
    } else {
        multiply(product, x, transposed, n, n, m);
        for (int64_t i = 0; i < rows; i++)
            for (int64_t j = 0; j < columns; j++) kernel[i * columns + j] -= step * transposed[i * m + j];
    }
}

}  // namespace

extern "C" {

// Kernels are rows×columns, contiguous, as are their gradients and averages. Each is processed by one thread; several
// threads share those of a wide network.
void step_muon(float* const* kernels, const float* const* gradients, float* const* averages, const int64_t* rows,
               const int64_t* columns, int64_t number, float rate, float momentum, int rounds, int threads) {
    auto move = [&](int64_t k) {
        move_kernel(kernels[k], gradients[k], averages[k], rows[k], columns[k], rate, momentum, rounds);
    };
    int64_t work = 0;  // products
    for (int64_t k = 0; k < number; k++) {
        const int64_t n = std::min(rows[k], columns[k]);
        work += n * n * (2 * std::max(rows[k], columns[k]) + 4 * rounds * n);
    }
    if (threads <= 1 || work < WORTH_SHARING) {
        for (int64_t k = 0; k < number; k++) move(k);
        return;
    }
#pragma omp parallel for num_threads(threads) schedule(dynamic)
    for (int64_t k = 0; k < number; k++) move(k);
}
}
