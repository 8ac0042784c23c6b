// Simple kriging: each entry from the nearest clean ones in its window. 16 systems are solved at a time, one in each
// lane.

#include "common.h"

// Systems of at most this many unknowns.
constexpr int MOST = 32;

namespace {

// What predicts the entries of one class: the n entries of a window, those with the largest covariance first.
struct Window {
    const float* values;       // w·r, with a border of 0
    const float* weights;      // w, with a border of 0
    const int64_t* offsets;    // of the entries of the window from the one that is predicted
    const float* moments;      // n×n
    const float* predictions;  // n, moments with the entry that is predicted
    int64_t size;
    int most;     // entries that predict one
    float least;  // smaller weights are none
};

// Predict the entries at count ≤ LANES places.
void predict(const Window& window, const int64_t* places, int count, float* out) {
    static thread_local Floats lower[MOST * (MOST + 1) / 2], inverse[MOST], weight[MOST], value[MOST], pull[MOST];
    alignas(64) int32_t chosen[MOST][LANES], begins[MOST][LANES];
    int used = 0;
    for (int i = 0; i < window.most; i++) weight[i] = value[i] = pull[i] = Floats{};
    for (int lane = 0; lane < LANES; lane++) {
        int found = 0;
        const int64_t place = places[std::min(lane, count - 1)];
        for (int64_t at = 0; at < window.size && found < window.most; at++) {
            const float w = window.weights[place + window.offsets[at]];
            if (!(w > window.least)) continue;
            chosen[found][lane] = int32_t(at);
            weight[found][lane] = w;
            value[found][lane] = window.values[place + window.offsets[at]];
            pull[found][lane] = window.predictions[at] * w;
            found++;
        }
        used = std::max(used, found);
        for (int i = found; i < window.most; i++) chosen[i][lane] = 0;  // of weight 0
        for (int i = 0; i < window.most; i++) begins[i][lane] = chosen[i][lane] * int32_t(window.size);
    }
    // W·A·W + (I − W)·D, and its Cholesky factor in the same place
    for (int i = 0; i < used; i++) {
        Floats* row = lower + i * (i + 1) / 2;
        for (int j = 0; j <= i; j++) {
            alignas(64) float gathered[LANES];
            for (int lane = 0; lane < LANES; lane++)
                gathered[lane] = window.moments[begins[i][lane] + chosen[j][lane]];
            const Floats moment = load(gathered);
            Floats sum = moment * weight[i] * weight[j];
            if (i == j) sum += (1.0f - weight[i]) * moment;
            const Floats* other = lower + j * (j + 1) / 2;
            for (int k = 0; k < j; k++) sum -= row[k] * other[k];
            if (i == j) {
                sum = sum > 1e-30f ? sum : all(1e-30f);
                alignas(64) float root[LANES];
                store(root, sum);
                for (int lane = 0; lane < LANES; lane++) root[lane] = 1.0f / std::sqrt(root[lane]);
                inverse[i] = load(root);
            } else {
                row[j] = sum * inverse[j];
            }
        }
    }
    Floats result{};
    for (int i = 0; i < used; i++) {
        const Floats* row = lower + i * (i + 1) / 2;
        Floats a = pull[i], b = value[i];
        for (int k = 0; k < i; k++) {
            a -= row[k] * pull[k];
            b -= row[k] * value[k];
        }
        pull[i] = a * inverse[i];
        value[i] = b * inverse[i];
        result += pull[i] * value[i];
    }
    store(out, result, count);
}

}  // namespace

extern "C" {

// out = Aₜₙ(WAₙₙW + (I − W)D)⁻¹W·r at each of the places, indices of values and weights. most is at most 32.
void krige(const float* values, const float* weights, const int64_t* offsets, const float* moments,
           const float* predictions, int64_t size, int most, float least, const int64_t* places, int64_t count,
           float* out, int threads) {
    const Window window{values, weights, offsets, moments, predictions, size, std::min(most, MOST), least};
    const int64_t turns = (count + LANES - 1) / LANES;
    deal(turns, threads, [&](int64_t begin, int64_t end, int) {
        for (int64_t turn = begin; turn < end; turn++) {
            const int64_t at = turn * LANES;
            predict(window, places + at, int(std::min<int64_t>(LANES, count - at)), out + at);
        }
    });
}
}
