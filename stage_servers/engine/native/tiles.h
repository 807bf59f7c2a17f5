// Matrix tiles of the processor (AMX): sixteen rows of 64 bytes each, multiplied as bfloat16 into floats.
//
// C += A * B, where A is sixteen rows of 32 values, row by row, and B sixteen columns of 32 values, two
// values of a column to a word: word (r, n) holds values 2r and 2r + 1 of column n. Weights lie in memory
// as A wants them, so few rows of activations take their time from memory alone.

#pragma once

#include "lanes.h"

constexpr int kTile = 16;  // rows of A, columns of B, words to a row

#if defined(__AMX_BF16__) && defined(__AMX_TILE__) && defined(__linux__)
#define HAS_TILES 1

#include <sys/syscall.h>
#include <unistd.h>

// The compiler's own intrinsics do not say that they touch memory.
#define TILE_ZERO(tile) __asm__ volatile("tilezero %%tmm" #tile ::)
#define TILE_LOAD(tile, from, bytes) \
    __asm__ volatile("tileloadd (%0,%1,1), %%tmm" #tile ::"r"((const void*)(from)), "r"((long)(bytes)) : "memory")
#define TILE_STORE(tile, to, bytes) \
    __asm__ volatile("tilestored %%tmm" #tile ", (%0,%1,1)" ::"r"((void*)(to)), "r"((long)(bytes)) : "memory")
#define TILE_MADD(sum, a, b) __asm__ volatile("tdpbf16ps %%tmm" #b ", %%tmm" #a ", %%tmm" #sum ::)

// Whether the kernel lets this process use them; it is asked once.
inline bool may_use_tiles() {
    constexpr int kRequestPermission = 0x1023, kTileData = 18;
    static const bool is_allowed = syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
    return is_allowed;
}

// All eight tiles of this thread in their full size, as long as this lives.
class Tiles {
  public:
    Tiles() {
        struct alignas(64) {
            uint8_t palette = 1, start_row = 0, unused[14] = {};
            uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
            uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
        } config;
        __asm__ volatile("ldtilecfg %0" ::"m"(config));
    }
    ~Tiles() { __asm__ volatile("tilerelease" ::); }
    Tiles(const Tiles&) = delete;
};

// Columns as B wants them: rows of x [count, width] side by side, sixteen to a panel [width / 2, 16] of words.
inline void pack_columns(const bf16* x, int count, long width, float* panels) {
    const long words = width / 2;
    for (int first = 0; first < count; first += kTile, panels += words * kTile)
        for (long w = 0; w < words; w += 16) {
            v16 block[16] = {};
            for (int i = 0; i < kTile && first + i < count; i++) memcpy(&block[i], x + (first + i) * width + 2 * w, sizeof(v16));
            transpose16(block);
            for (int i = 0; i < 16; i++) put16(panels + (w + i) * kTile, block[i]);
        }
}

// y[p][i][n] = weight row i times column n of panel p, for sixteen weight rows from a on and sixteen from b on.
// While these are read, the rows that lie `ahead` behind them are called for, if any.
template <int Panels>
static inline void multiply_tiles(const bf16* a, const bf16* b, long width, long ahead, const float* panels, float (*y)[2 * kTile][kTile]) {
    static_assert(Panels == 1 || Panels == 2, "tiles 0 to 3 hold the sums");
    const long stride = width * long(sizeof(bf16)), panel = width / 2 * kTile;
    TILE_ZERO(0);
    TILE_ZERO(1);
    if (Panels == 2) {
        TILE_ZERO(2);
        TILE_ZERO(3);
    }
    for (long k = 0; k < width; k += 32) {
        TILE_LOAD(4, a + k, stride);
        TILE_LOAD(5, b + k, stride);
        TILE_LOAD(6, panels + k / 2 * kTile, 64);
        TILE_MADD(0, 4, 6);
        TILE_MADD(1, 5, 6);
        if (Panels == 2) {
            TILE_LOAD(7, panels + panel + k / 2 * kTile, 64);
            TILE_MADD(2, 4, 7);
            TILE_MADD(3, 5, 7);
        }
        if (!ahead) continue;
        // In the order in which they lie, sixteen lines of each.
#pragma GCC unroll 16
        for (int i = 0; i < kTile; i++) {
            __builtin_prefetch(a + ahead + kTile * k + 32 * i, 0, 2);
            __builtin_prefetch(b + ahead + kTile * k + 32 * i, 0, 2);
        }
    }
    TILE_STORE(0, y[0][0], 64);
    TILE_STORE(1, y[0][kTile], 64);
    if (Panels == 2) {
        TILE_STORE(2, y[1][0], 64);
        TILE_STORE(3, y[1][kTile], 64);
    }
}
#endif
