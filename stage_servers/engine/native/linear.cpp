// Products with whole weight matrices on the processor's tiles, outside of a few-rows step.

#include <algorithm>

#include "tiles.h"

#ifdef HAS_TILES
// Two tiles' worth of weights (rows n0..n0+31) times the rows r0..r0+count-1 of x, at most sixteen, to out.
static void store(const float (*y)[kTile], const bf16* bias, bf16* out, long r0, int count, long n0, long width) {
    for (int half = 0; half < 2; half++) {
        const long n = n0 + half * kTile;
        v16 block[kTile];
        for (int i = 0; i < kTile; i++) block[i] = load(y[half * kTile + i]);
        transpose16(block);
        const v16 shift = bias ? load(bias + n) : v16{};
        for (int r = 0; r < count; r++) put16(out + (r0 + r) * width + n, block[r] + shift);
    }
}
#endif

extern "C" {

// out [rows, count] = x [rows, width] * w [count, width] + bias [count] (or null); count and width multiples of
// 32. `panels` has room for width / 2 floats for every row, and for up to 15 rows more.
void linear_bfloat16(const bf16* x, const bf16* w, const bf16* bias, bf16* out, float* panels, int64_t rows, int64_t width, int64_t count, int32_t threads) {
#ifdef HAS_TILES
    const long panel = width / 2;
#pragma omp parallel num_threads(threads)
    {
        const Tiles tiles;
#pragma omp for
        for (long r = 0; r < rows; r += kTile) pack_columns(x + r * width, int(std::min<long>(kTile, rows - r)), width, panels + r * panel);
#pragma omp for
        for (long n = 0; n < count; n += 2 * kTile) {
            const bf16* a = w + n * width;
            alignas(64) float y[2][2 * kTile][kTile];
            for (long r = 0; r < rows; r += 2 * kTile) {
                const long left = rows - r, ahead = r ? 0 : 2 * kTile * width;
                const int first = int(std::min<long>(kTile, left)), second = int(std::min<long>(kTile, left - first));
                if (second > 0)
                    multiply_tiles<2>(a, a + kTile * width, width, ahead, panels + r * panel, y);
                else
                    multiply_tiles<1>(a, a + kTile * width, width, ahead, panels + r * panel, y);
                store(y[0], bias, out, r, first, n, count);
                if (second > 0) store(y[1], bias, out, r + kTile, second, n, count);
            }
        }
    }
#endif
}
}
