// Filters of images: convolution with a short line along rows or columns, and medians of windows.

#include <limits>

#include "common.h"

namespace {

// Sorts the values of windows, one window per lane.
struct Sorter {
    const int32_t* comparisons;  // pairs of positions, the smaller value to the first one
    int64_t count;
    int side;
    std::vector<Lanes> values;

    Sorter(const int32_t* comparisons, int64_t count, int side)
        : comparisons(comparisons), count(count), side(side), values(side * side) {}

    // Medians of the known values of WIDTH windows; `first` is the first value of the first window.
    Lanes medians(const float* first, int64_t pitch, bool gaps) {
        Lanes known{};
        for (int i = 0; i < side; i++)
            for (int j = 0; j < side; j++) values[i * side + j] = lanes(first + i * pitch + j);
        if (gaps)
            for (Lanes& v : values) {
                known += v == v ? same(1.0f) : Lanes{};
                v = v == v ? v : same(std::numeric_limits<float>::infinity());
            }
        for (int64_t k = 0; k < count; k++) {
            Lanes& low = values[comparisons[2 * k]];
            Lanes& high = values[comparisons[2 * k + 1]];
            const Lanes a = low, b = high;
            low = a < b ? a : b;
            high = a < b ? b : a;
        }
        if (!gaps) return values[side * side / 2];
        Lanes found{};
        for (int lane = 0; lane < WIDTH; lane++) {
            const int number = int(known[lane]);
            found[lane] = number ? values[(number - 1) / 2][lane] : std::numeric_limits<float>::quiet_NaN();
        }
        return found;
    }
};

}  // namespace

extern "C" {

// out[c, i, j] = Σ_k line[k]·in[c, i + k, j] (along columns) or Σ_k line[k]·in[c, i, j + k], for `planes` images of
// rows×columns values in `out`.
void convolve_line(const float* in, float* out, const float* line, int taps, int64_t planes, int64_t rows,
                   int64_t columns, int along_columns, int threads) {
    constexpr int TOGETHER = 4;
    const int64_t in_rows = along_columns ? rows + taps - 1 : rows, pitch = along_columns ? columns : columns + taps - 1;
    const int64_t step = along_columns ? pitch : 1;
    deal(planes * rows, columns * taps, threads, [&](int64_t first, int64_t last, int) {
        for (int64_t row = first; row < last; row++) {
            const float* from = in + (row / rows * in_rows + row % rows) * pitch;
            float* to = out + row * columns;
            int64_t j = 0;
            for (; j + TOGETHER * WIDTH <= columns; j += TOGETHER * WIDTH) {
                Lanes sums[TOGETHER] = {};
                for (int k = 0; k < taps; k++)
                    for (int m = 0; m < TOGETHER; m++) sums[m] += line[k] * lanes(from + k * step + j + m * WIDTH);
                std::memcpy(to + j, sums, sizeof sums);
            }
            for (; j < columns; j++) {
                float sum = 0;
                for (int k = 0; k < taps; k++) sum += line[k] * from[k * step + j];
                to[j] = sum;
            }
        }
    });
}

// Medians of the windows of side×side values, for `planes` images of rows×columns windows; `in` has side − 1 more rows
// and columns. With gaps, NaN is ignored, the lower of two middle values is taken, and a window without values gives
// NaN; the comparisons must then sort all values, otherwise only the middle one. At least WIDTH columns.
void window_medians(const float* in, float* out, const int32_t* comparisons, int64_t count, int side, int64_t planes,
                    int64_t rows, int64_t columns, int gaps, int threads) {
    const int64_t pitch = columns + side - 1;
    deal(planes * rows, columns * count, threads, [&](int64_t first, int64_t last, int) {
        Sorter sorter(comparisons, count, side);
        for (int64_t row = first; row < last; row++) {
            const float* from = in + (row / rows * (rows + side - 1) + row % rows) * pitch;
            for (int64_t j = 0; j < columns; j += WIDTH) {
                const int64_t at = std::min<int64_t>(j, columns - WIDTH);  // the last ones overlap
                const Lanes found = sorter.medians(from + at, pitch, gaps);
                std::memcpy(out + row * columns + at, &found, sizeof found);
            }
        }
    });
}
}
