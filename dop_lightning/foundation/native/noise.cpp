// Normal random numbers by counters: value i of a stream depends only on the seed of the stream and i, so that neither
// threads nor vectors change it. A hash of the counter gives two uniform numbers, which the transform of Box and Muller
// (1958) turns into two normal ones.

#include "common.h"

namespace {

using Bits = uint32_t __attribute__((vector_size(4 * WIDTH)));
using Signed = int32_t __attribute__((vector_size(4 * WIDTH)));

// Normal numbers are made in blocks of 16 pairs on every processor.
constexpr int PAIRS = 16;

// The hash lowbias32 of Wellons (2018), twice, with half of the seed each.
static inline Bits mixed(Bits x) {
    x ^= x >> 16;
    x *= 0x7feb352dU;
    x ^= x >> 15;
    x *= 0x846ca68bU;
    return x ^ (x >> 16);
}

static inline Bits drawn(Bits counter, uint32_t low, uint32_t high) { return mixed(mixed(counter ^ low) + high); }

static inline Lanes uniform(Bits bits) { return __builtin_convertvector((Signed)(bits >> 8), Lanes) * 0x1p-24f; }

// ln x for 2⁻²⁴ ≤ x ≤ 1, by the polynomial of Cephes (Moshier, 1989).
static inline Lanes logarithm(Lanes x) {
    const Bits bits = (Bits)x;
    const Signed is_large = (Signed)(bits & 0x7fffff) > 0x3504f3;  // mantissa above √2: −1, otherwise 0
    const Signed power = (Signed)(bits >> 23) - 127 - is_large;
    const Lanes f = (Lanes)((bits & 0x7fffff) | 0x3f800000) * (1.0f + 0.5f * __builtin_convertvector(is_large, Lanes)) - 1.0f;
    const Lanes e = __builtin_convertvector(power, Lanes), z = f * f;
    Lanes y = Lanes{} + 7.0376836292e-2f;
    for (float c : {-1.1514610310e-1f, 1.1676998740e-1f, -1.2420140846e-1f, 1.4249322787e-1f, -1.6668057665e-1f,
                    2.0000714765e-1f, -2.4999993993e-1f, 3.3333331174e-1f})
        y = y * f + c;
    return f + (y * f * z - 2.12194440e-4f * e - 0.5f * z) + 0.693359375f * e;
}

// √x by Newton's method for 1/√x: GCC would compute the roots of a vector one by one.
static inline Lanes root(Lanes x) {
    Lanes y = (Lanes)(0x5f375a86U - ((Bits)x >> 1));
    for (int step = 0; step < 3; step++) y *= 1.5f - 0.5f * (x * y) * y;
    return x * y;
}

// WIDTH pairs of values of N(0, 1), from the pair `first` on.
static inline void normal(uint32_t first, uint32_t low, uint32_t high, Lanes* values) {
    Bits even;
    for (int lane = 0; lane < WIDTH; lane++) even[lane] = 2 * (first + lane);
    const Bits one = drawn(even, low, high), other = drawn(even + 1, low, high);
    const Lanes radius = root(-2.0f * logarithm(uniform(one) + 0x1p-24f));
    // an angle of π/2·(q + r) with a quadrant q and −½ ≤ r < ½
    const Bits quadrant = other >> 30;
    const Lanes x = (uniform(other << 2) - 0.5f) * 1.57079632679f, z = x * x;
    const Lanes sine = ((-1.9515295891e-4f * z + 8.3321608736e-3f) * z - 1.6666654611e-1f) * z * x + x;
    const Lanes cosine = ((2.443315711e-5f * z - 1.388731625e-3f) * z + 4.166664568e-2f) * z * z - 0.5f * z + 1.0f;
    const Bits odd = (Bits)((Signed)(other << 1) >> 31);  // all bits set if q is odd
    const Bits sines = (Bits)sine, cosines = (Bits)cosine;
    const Bits across = (sines & odd) | (cosines & ~odd), along = (cosines & odd) | (sines & ~odd);
    values[0] = radius * (Lanes)(across ^ (((quadrant + 1) & 2) << 30));  // the second bit of q is the sign
    values[1] = radius * (Lanes)(along ^ ((quadrant & 2) << 30));
}

}  // namespace

extern "C" {

// out = x + std·n, with n_i ~ N(0, 1) from a stream of up to 2³² values.
void add_normal(const float* x, float* out, int64_t size, float std, uint64_t seed, int threads) {
    const uint32_t low = uint32_t(seed), high = uint32_t(seed >> 32);
    deal((size + 2 * PAIRS - 1) / (2 * PAIRS), 2 * PAIRS, threads, [&](int64_t first, int64_t last, int) {
        for (int64_t block = first; block < last; block++) {
            float noise[2 * PAIRS];
            for (int pair = 0; pair < PAIRS; pair += WIDTH) {
                Lanes values[2];
                normal(uint32_t(PAIRS * block + pair), low, high, values);
                std::memcpy(noise + pair, values, sizeof(Lanes));
                std::memcpy(noise + PAIRS + pair, values + 1, sizeof(Lanes));
            }
            const int64_t at = 2 * PAIRS * block;
            const int n = int(std::min<int64_t>(2 * PAIRS, size - at));
            if (n == 2 * PAIRS)
                for (int i = 0; i < 2 * PAIRS; i++) out[at + i] = x[at + i] + std * noise[i];
            else
                for (int i = 0; i < n; i++) out[at + i] = x[at + i] + std * noise[i];
        }
    });
}
}
