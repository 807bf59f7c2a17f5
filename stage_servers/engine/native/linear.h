// Products of whole weight matrices with a few rows of activations, shared among the threads of a step.
//
// By vectors (products.h), or by the processor's matrix tiles where they are the faster way (tiles.h).

#pragma once

#include <type_traits>

#include "products.h"
#include "team.h"
#include "tiles.h"

constexpr int kTileRows = 3;   // from so many rows on tiles are the faster way
constexpr int kMaxPairs = 96;  // pairs of weight rows in a piece of work

// Whether so many rows of activations held as X are multiplied on tiles.
template <class X>
inline bool are_tiles_for(int rows) {
#ifdef HAS_TILES
    return std::is_same_v<X, bf16> && rows >= kTileRows && may_use_tiles();
#else
    return false && rows;
#endif
}

template <class T>
class Linear {
    using X = typename Kind<T>::X;

  public:
    // Rows of activations [rows, width], and the same in panels where tiles are used.
    struct Input {
        const X* x;
        int rows;
        long width;
        const float* panels;
    };

    // How the rows of a weight matrix are shared out: in pieces of `size` units of `unit` rows.
    struct Split {
        long unit, units, size;
        int pieces;
        bool is_tiled;
    };

    Linear(Team& team, bool has_tiles) : team_(team), has_tiles_(has_tiles) {}

    // Floats that the panels of `rows` rows of up to `width` values take.
    long panel_floats(int rows, long width) const { return has_tiles_ ? width / 2 * kTile * ((rows + kTile - 1) / kTile) : 0; }

    Input input(const X* x, int rows, long width, float* panels) const {
#ifdef HAS_TILES
        if constexpr (std::is_same_v<X, bf16>)
            if (has_tiles_) pack_columns(x, rows, width, panels);
#endif
        return {x, rows, width, panels};
    }

    // Pairs of rows for the vectors; for tiles two tiles' rows, be they of one matrix or of gate and up.
    Split split(long count) const { return split(count, 2, 2 * kTile, kMaxPairs); }
    Split split_pairs(long count) const { return split(count, 1, kTile, kMaxPairs); }

    // Calls for the first weights of this thread's share of a matrix of rows of `width` values.
    void prepare(const void* weights, long width, const Split& split) const {
        const long first = split.unit * split.size * team_.own_start(split.pieces);
        const char* start = (const char*)((const T*)weights + first * width);
        const long size = kAheadBytes;
        for (long i = 0; i < size; i += 64) __builtin_prefetch(start + i, 0, 2);
    }

    // out(row, n, y) for every row of the input and row n of w [count, width].
    template <class Out>
    void multiply(int counter, const T* w, const T* bias, const Input& in, long count, Out out) {
        const Split parts = split(count);
        share_units(counter, parts, [&](long i0, int found) {
            if (parts.is_tiled) {
                multiply_tiled(w, bias, in, i0, found, out);
                return;
            }
            const bool has_single = i0 + found == parts.units && count % 2;
            multiply_pairs(w, bias, in, i0, found - has_single, true, out);
            // A last row without a partner is paired with itself.
            if (has_single) multiply_pairs(w, bias, in, i0 + found - 1, 1, false, out);
        });
    }

    // out [rows, count] = silu(gate) * up, of weights gate and up [count, width].
    void gate_up(int counter, const T* gate, const T* up, const Input& in, long count, X* out) {
        const Split parts = split_pairs(count);
        share_units(counter, parts, [&](long n0, int found) {
            if (parts.is_tiled)
                gate_up_tiled(gate, up, in, count, out, n0, found);
            else
                gate_up_pairs(gate, up, in, count, out, n0, found);
        });
    }

  private:
    Split split(long count, long few, long many, long most) const {
        const bool is_tiled = has_tiles_ && count % many == 0;
        const long unit = is_tiled ? many : few, units = (count + unit - 1) / unit;
        long size = (units + team_.threads() * kPiecesPerThread - 1) / (team_.threads() * kPiecesPerThread);
        size = size > most ? most : size < 1 ? 1 : size;
        return {unit, units, size, int((units + size - 1) / size), is_tiled};
    }

    // body(first unit, number of units) for the pieces that fall to this thread.
    template <class Body>
    void share_units(int counter, const Split& split, Body body) {
        team_.share(counter, split.pieces, [&](int turn) {
            const long first = split.size * turn, left = split.units - first;
            body(first, int(left < split.size ? left : split.size));
        });
    }

    // y[i][n] for the units first..first+found-1: weight row i of the unit times row r0 + n of the input, for
    // the sixteen rows (or what is left of them) from r0 on; body(unit, r0, y).
    template <class Body>
    void tiled(const T* a, const T* b, long step, const Input& in, long first, int found, Body body) {
#ifdef HAS_TILES
        if constexpr (std::is_same_v<X, bf16>) {
            alignas(64) float y[2][2 * kTile][kTile];
            for (long unit = first; unit < first + found; unit++) {
                const long at = unit * step * in.width, panel = in.width / 2;
                for (int r0 = 0; r0 < in.rows; r0 += 2 * kTile) {
                    // Only the first rows wait for weights; the others find them in the second-level cache.
                    const long ahead = r0 ? 0 : step * in.width;
                    const bool has_two = in.rows - r0 > kTile;
                    const float* panels = in.panels + r0 * panel;
                    if (has_two)
                        multiply_tiles<2>(a + at, b + at, in.width, ahead, panels, y);
                    else
                        multiply_tiles<1>(a + at, b + at, in.width, ahead, panels, y);
                    body(unit, r0, y[0]);
                    if (has_two) body(unit, r0 + kTile, y[1]);
                }
            }
        }
#endif
    }

    template <class Out>
    void multiply_tiled(const T* w, const T* bias, const Input& in, long first, int found, Out out) {
        tiled(w, w + kTile * in.width, 2 * kTile, in, first, found, [&](long unit, int r0, float (*y)[kTile]) {
            const int rows = in.rows - r0 < kTile ? in.rows - r0 : kTile;
            for (int i = 0; i < 2 * kTile; i++) {
                const long n = unit * 2 * kTile + i;
                const float shift = bias ? to_float(bias[n]) : 0.0f;
                for (int r = 0; r < rows; r++) out(r0 + r, n, y[i][r] + shift);
            }
        });
    }

    template <class Out>
    void multiply_pairs(const T* w, const T* bias, const Input& in, long i0, int found, bool has_second, Out out) {
        v16 y[kMaxPairs];
        const long width = in.width;
        const T* a = w + 2 * i0 * width;
        for (int first = 0; first < in.rows; first += kGroup) {
            const int m = in.rows - first < kGroup ? in.rows - first : kGroup;
            pairs_of<T>(m, a, has_second ? a + width : a, 2 * width, found, in.x + first * width, width, y);
            for (int i = 0; i < found; i++) {
                const long n = 2 * (i0 + i);
                alignas(64) float lanes[16];
                put16(lanes, y[i]);
                for (int r = 0; r < m; r++) {
                    out(first + r, n, lanes[r] + (bias ? to_float(bias[n]) : 0.0f));
                    if (has_second) out(first + r, n + 1, lanes[8 + r] + (bias ? to_float(bias[n + 1]) : 0.0f));
                }
            }
        }
    }

    void gate_up_pairs(const T* gate, const T* up, const Input& in, long count, X* out, long n0, int found) {
        v16 y[kMaxPairs];
        const long from = n0 * in.width;
        for (int first = 0; first < in.rows; first += kGroup) {
            const int m = in.rows - first < kGroup ? in.rows - first : kGroup;
            pairs_of<T>(m, gate + from, up + from, in.width, found, in.x + long(first) * in.width, in.width, y);
            for (int i = 0; i < found; i++) {
                alignas(64) float silu[16], lanes[16];
                put16(silu, silu16(y[i]));
                put16(lanes, y[i]);
                for (int r = 0; r < m; r++) put(out + (first + r) * count + n0 + i, silu[r] * lanes[8 + r]);
            }
        }
    }

    void gate_up_tiled(const T* gate, const T* up, const Input& in, long count, X* out, long first, int found) {
        tiled(gate, up, kTile, in, first, found, [&](long unit, int r0, float (*y)[kTile]) {
            v16 block[kTile];
            for (int i = 0; i < kTile; i++) block[i] = silu16(load(y[i])) * load(y[kTile + i]);
            transpose16(block);
            for (int r = 0; r < kTile && r0 + r < in.rows; r++) put16(out + (r0 + r) * count + unit * kTile, block[r]);
        });
    }

    Team& team_;
    const bool has_tiles_;
};
