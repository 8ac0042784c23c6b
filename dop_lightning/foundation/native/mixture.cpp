// Expectation maximisation of the mixture of clean and outlying entries, see
// dop_lightning/engine/steps/clean_entries/mixture.py. Densities are multiplied in double precision instead of adding
// their logarithms: ν = 3 makes Student's t a rational function, so that an iteration has neither exponentials nor
// logarithms.

#include "common.h"

// ν
constexpr double DEGREES = 3;

namespace {

// Densities of an entry that do not depend on the fit.
struct Entry {
    double square;   // of the residual
    double pardon;   // k
    double missed;   // m
    double outlier;  // 1/q; 0 if the entry is not observed
    int64_t which;   // b
};

// Parameters of a class that change in each iteration.
struct Class {
    double inverse;  // 1/σ²
    double height;   // density at 0
    double often;    // ε
    double squares, weights;
};

// Product that neither overflows nor underflows.
struct Product {
    double value = 1, logarithm = 0;

    void multiply(double factor) {
        value *= factor;
        if (value > 1e-150 && value < 1e150) return;
        logarithm += std::log(value);
        value = 1;
    }

    // 1/(1 + odds/product)
    double probability(double odds) const { return 1 / (1 + odds * (logarithm == 0 ? 1 : std::exp(-logarithm)) / value); }
};

static inline double near_density(const Entry& e, const Class& c) {
    const double tail = 1 / (1 + e.square * c.inverse / DEGREES);
    return e.pardon * c.height * tail * tail;
}

}  // namespace

extern "C" {

// Fit scales (one per class) and, if share_too, the fraction of outliers in place. Arrays are those of Entries, n entries
// in groups; seen may be null. The iteration stops after `rounds`, or if no parameter changes by more than tolerance.
void refit_mixture(const float* residual, const int64_t* classes, const float* outlying, const float* missed,
                   const float* pardon, const bool* seen, int64_t n, int64_t groups, const float* often, float* scales,
                   int64_t number, float* share, int share_too, float least, double density, double prior,
                   double fraction, double tolerance, int rounds) {
    std::vector<Entry> entries(n);
    int64_t observed = 0;
    for (int64_t i = 0; i < n; i++) {
        const bool known = !seen || seen[i];
        const double r = residual[i];
        entries[i] = {r * r, std::exp(double(pardon[i])), std::exp(double(missed[i])),
                      known ? std::exp(-double(outlying[i])) : 0, classes[i]};
        observed += known;
    }
    std::vector<Class> fitted(number);
    std::vector<double> parts(groups);  // of the clean density: the fraction that is near
    for (int round = 0; round < rounds; round++) {
        for (int64_t b = 0; b < number; b++) {
            const double scale = scales[b];
            fitted[b] = {1 / (scale * scale), density / scale, often[b], 0, 0};
        }
        const double odds = double(*share) / (1 - double(*share));
        double corrupted = 0;
        for (int64_t begin = 0; begin < n; begin += groups) {
            Product product;
            for (int64_t j = 0; j < groups; j++) {
                const Entry& e = entries[begin + j];
                const Class& c = fitted[e.which];
                const double near = near_density(e, c), clean = near + c.often * e.missed;
                parts[j] = near / clean;
                if (e.outlier != 0) product.multiply(clean * e.outlier);
            }
            const double probable = product.probability(odds);
            for (int64_t j = 0; j < groups; j++) {
                const Entry& e = entries[begin + j];
                if (e.outlier == 0) continue;
                Class& c = fitted[e.which];
                const double weight = probable * parts[j];
                corrupted += 1 - probable;
                c.weights += weight;
                c.squares += weight * (DEGREES + 1) / (DEGREES + e.square * c.inverse) * e.square;
            }
        }
        double squares = 0, weights = 0;
        for (const Class& c : fitted) squares += c.squares, weights += c.weights;
        const double common = squares / std::max(weights, 1e-12);
        bool settled = true;
        auto replace = [&](float& old, double value) {
            const float fresh = float(value);
            settled &= std::abs(double(fresh) - old) <= tolerance * old;
            old = fresh;
        };
        for (int64_t b = 0; b < number; b++) {
            const double variance = (fitted[b].squares + prior * common) / (fitted[b].weights + prior);
            replace(scales[b], std::max(std::sqrt(variance), double(least)));
        }
        if (share_too) replace(*share, std::min(std::max(corrupted / observed, fraction), 1 - fraction));
        if (settled) break;
    }
}
}
