// Simple kriging: predict each entry from the nearest clean ones in its window. Several systems are solved in parallel,
// one per lane of a vector.

#include "common.h"

// Maximum number of unknowns of a system.
constexpr int MOST = 32;

namespace {

// Offset of row i of a lower triangle whose rows are padded to multiples of 4.
static inline constexpr int row_of(int i) { return (8 * (i / 4) + 4 * (i % 4)) * (i / 4 + 1); }

// Predictors of the entries of one class: the n entries of a window, in order of decreasing covariance.
struct Window {
    const float* values;       // w·r, with a border of 0
    const float* weights;      // w, with a border of 0
    const int64_t* offsets;    // of the entries of the window, relative to the predicted entry
    const float* moments;      // n×n
    const float* predictions;  // n, moments with the predicted entry
    int64_t size;
    int most;     // maximum number of predictors of an entry
    float least;  // entries with weights up to this one are skipped
};

// Systems that are solved in parallel.
struct Systems {
    Lanes lower[row_of(MOST)];  // A, then its Cholesky factor
    Lanes inverse[MOST], weight[MOST], value[MOST], pull[MOST];
    int32_t chosen[MOST];
};

// Number of windows whose products are added in registers in float32, before the sums are accumulated in double.
constexpr int TOGETHER = 64;

// Sums of v·vᵀ over windows of n entries each, at places + offsets.
struct Products {
    const int64_t* offsets;
    int64_t n, pitch;  // pitch: n, rounded up to whole blocks of 2 vectors
    std::vector<float> windows;  // TOGETHER×pitch

    Products(const int64_t* offsets, int64_t n)
        : offsets(offsets), n(n), pitch((n + 2 * WIDTH - 1) / (2 * WIDTH) * (2 * WIDTH)), windows(TOGETHER * pitch) {}

    // Add the lower triangles for count ≤ TOGETHER places to sums (n×n).
    void add(const float* values, const int64_t* places, int64_t count, double* sums) {
        for (int64_t p = 0; p < count; p++)
            for (int64_t i = 0; i < n; i++) windows[p * pitch + i] = values[places[p] + offsets[i]];
        for (int64_t i = 0; i < n; i += 4)
            for (int64_t j = 0; j < i + 4; j += 2 * WIDTH) add_block(i, j, count, sums);
    }

   private:
    // Rows i to i + 3 and columns j to j + 2·WIDTH − 1.
    void add_block(int64_t i, int64_t j, int64_t count, double* sums) const {
        Lanes left[4] = {}, right[4] = {};
        for (int64_t p = 0; p < count; p++) {
            const float* window = windows.data() + p * pitch;
            const Lanes x = lanes(window + j), y = lanes(window + j + WIDTH);
            for (int m = 0; m < 4; m++) left[m] += window[i + m] * x, right[m] += window[i + m] * y;
        }
        for (int m = 0; m < 4 && i + m < n; m++)
            for (int lane = 0; lane < 2 * WIDTH && j + lane <= i + m; lane++)
                sums[(i + m) * n + j + lane] += lane < WIDTH ? left[m][lane] : right[m][lane - WIDTH];
    }
};

// Fill one lane with the system of the entry at a place; return its number of unknowns.
int gather(const Window& window, int64_t place, int lane, Systems& s) {
    const float* values = window.values + place;
    const float* weights = window.weights + place;
    auto at = [lane](Lanes& v) -> float& { return reinterpret_cast<float*>(&v)[lane]; };
    int found = 0;
    for (int64_t entry = 0; entry < window.size && found < window.most; entry++) {
        s.chosen[found] = int32_t(entry);
        found += weights[window.offsets[entry]] > window.least;
    }
    for (int i = 0; i < found; i++) {
        const int32_t entry = s.chosen[i];
        const float w = weights[window.offsets[entry]];
        at(s.weight[i]) = w;
        at(s.value[i]) = values[window.offsets[entry]];
        at(s.pull[i]) = window.predictions[entry] * w;
        const float* moments = window.moments + entry * window.size;
        float* __restrict row = reinterpret_cast<float*>(s.lower + row_of(i)) + lane;
        for (int j = 0; j <= i; j += 4)  // including the padding: fewer branch mispredictions
            for (int k = j; k < j + 4; k++) row[k * WIDTH] = moments[s.chosen[k]];
    }
    for (int i = found; i < window.most; i++) {  // fill up with weight 0
        at(s.weight[i]) = at(s.value[i]) = at(s.pull[i]) = 0;
        for (int j = 0; j <= i; j++) at(s.lower[row_of(i) + j]) = window.moments[0];
    }
    return found;
}

// Element (i, j) of W·A·W + (I − W)·D.
static inline Lanes weighted(const Systems& s, int i, int j) { return s.lower[row_of(i) + j] * s.weight[i] * s.weight[j]; }

// Last step of a row: store the inverse of its diagonal element.
static inline void finish(Systems& s, int i) {
    const Lanes* row = s.lower + row_of(i);
    Lanes sums[2] = {weighted(s, i, i) + (1.0f - s.weight[i]) * row[i], Lanes{}};
    for (int k = 0; k < i; k++) sums[k % 2] -= row[k] * row[k];
    Lanes sum = sums[0] + sums[1];
    sum = sum > 1e-30f ? sum : same(1e-30f);
    for (int lane = 0; lane < WIDTH; lane++) sum[lane] = __builtin_sqrtf(sum[lane]);
    s.inverse[i] = 1.0f / sum;
}

// Replace A by the Cholesky factor of W·A·W + (I − W)·D, in blocks of two rows and four columns in registers.
void factor(Systems& s, int size) {
    for (int i = 0; i < size; i += 2) {
        Lanes* above = s.lower + row_of(i);
        Lanes* below = s.lower + row_of(i + 1);
        const bool both = i + 1 < size;
        int j = 0;
        for (; both && j + 4 <= i; j += 4) {
            Lanes a[4], b[4];
            const Lanes* others[4];
            for (int m = 0; m < 4; m++) {
                a[m] = weighted(s, i, j + m), b[m] = weighted(s, i + 1, j + m);
                others[m] = s.lower + row_of(j + m);
            }
            for (int k = 0; k < j; k++) {
                const Lanes x = above[k], y = below[k];
                for (int m = 0; m < 4; m++) a[m] -= x * others[m][k], b[m] -= y * others[m][k];
            }
            for (int m = 0; m < 4; m++) {
                for (int k = 0; k < m; k++) a[m] -= a[k] * others[m][j + k], b[m] -= b[k] * others[m][j + k];
                a[m] *= s.inverse[j + m], b[m] *= s.inverse[j + m];
            }
            for (int m = 0; m < 4; m++) above[j + m] = a[m], below[j + m] = b[m];
        }
        for (int column = j; column < i; column++) {
            Lanes a = weighted(s, i, column), b = both ? weighted(s, i + 1, column) : Lanes{};
            const Lanes* other = s.lower + row_of(column);
            for (int k = 0; k < column; k++) {
                a -= above[k] * other[k];
                if (both) b -= below[k] * other[k];
            }
            above[column] = a * s.inverse[column];
            if (both) below[column] = b * s.inverse[column];
        }
        finish(s, i);
        if (!both) return;
        Lanes b = weighted(s, i + 1, i);
        for (int k = 0; k < i; k++) b -= below[k] * above[k];
        below[i] = b * s.inverse[i];
        finish(s, i + 1);
    }
}

// Predict the entries at count ≤ WIDTH places.
void predict(const Window& window, const int64_t* places, int count, float* out, Systems& s) {
    int used = 0;
    for (int lane = 0; lane < WIDTH; lane++)
        used = std::max(used, gather(window, places[std::min(lane, count - 1)], lane, s));
    factor(s, used);
    Lanes result{};
    for (int i = 0; i < used; i++) {
        const Lanes* row = s.lower + row_of(i);
        Lanes a[2] = {s.pull[i], Lanes{}}, b[2] = {s.value[i], Lanes{}};
        for (int k = 0; k < i; k++) {
            a[k % 2] -= row[k] * s.pull[k];
            b[k % 2] -= row[k] * s.value[k];
        }
        s.pull[i] = (a[0] + a[1]) * s.inverse[i];
        s.value[i] = (b[0] + b[1]) * s.inverse[i];
        result += s.pull[i] * s.value[i];
    }
    std::memcpy(out, &result, count * sizeof(float));
}

}  // namespace

extern "C" {

// out = Aₜₙ(WAₙₙW + (I − W)D)⁻¹W·r at all places, which are indices into values and weights. most is at most 32.
// Several windows are passed one after the other, each as in Window. Group g consists of the places begins[g] to
// begins[g + 1] − 1, and uses the window which[g].
void krige(const float* values, const float* weights, const int64_t* offsets, const float* moments,
           const float* predictions, int64_t size, int most, float least, const int64_t* which, const int64_t* begins,
           int64_t groups, const int64_t* places, float* out, int threads) {
    deal(groups, threads, [&](int64_t first, int64_t last, int) {
        Systems systems{};
        for (int64_t group = first; group < last; group++) {
            const int64_t w = which[group];
            const Window window{values, weights, offsets + w * size, moments + w * size * size, predictions + w * size,
                                size, std::min(most, MOST), least};
            for (int64_t at = begins[group]; at < begins[group + 1]; at += WIDTH)
                predict(window, places + at, int(std::min<int64_t>(WIDTH, begins[group + 1] - at)), out + at, systems);
        }
    });
}

// For each class, add Σ v·vᵀ over the windows of n entries around its places to sums (classes×n×n). The places of class
// k are places[begins[k]] to places[begins[k + 1] - 1].
void add_products(const float* values, const int64_t* offsets, int64_t n, const int64_t* places, const int64_t* begins,
                  int64_t classes, double* sums, int threads) {
    deal(classes, threads, [&](int64_t begin, int64_t end, int) {
        Products products(offsets, n);
        for (int64_t k = begin; k < end; k++) {
            double* sum = sums + k * n * n;
            for (int64_t at = begins[k]; at < begins[k + 1]; at += TOGETHER)
                products.add(values, places + at, std::min<int64_t>(TOGETHER, begins[k + 1] - at), sum);
            for (int64_t i = 0; i < n; i++)
                for (int64_t j = 0; j < i; j++) sum[j * n + i] = sum[i * n + j];
        }
    });
}
}
