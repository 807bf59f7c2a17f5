// Attention of a few rows, each to its own tokens in the paged pool; shared among the threads of a step.

#pragma once

#include <algorithm>
#include <type_traits>

#include "arguments.h"
#include "scratch.h"
#include "team.h"
#include "tiles.h"

constexpr int kContext = 64;  // tokens attended to at a time
constexpr int kMaxHeadsPerKv = 16;
constexpr int kMaxHeads = 256;

// From rotated queries in scratch.q to scratch.mixed; sums are kept in scratch.qkv.
template <class T>
class RowAttention {
    using X = typename Kind<T>::X;

  public:
    RowAttention(const Shape& s, const Batch& b, const T* pool, const Scratch<X>& scratch, Team& team, bool has_tiles)
        : s_(s),
          b_(b),
          pool_(pool),
          q_width_(s.q_width()),
          kv_width_(s.kv_width()),
          qkv_(scratch.qkv),
          q_(scratch.q),
          mixed_(scratch.mixed),
          team_(team),
          has_tiles_(has_tiles) {}

    // Work items: a row with some of its KV heads, enough items to keep all threads busy.
    int num_items() const { return b_.rows * ((s_.kv_heads + heads_per_item() - 1) / heads_per_item()); }

    // The items that fall to this thread, in layer l.
    void run(int l, int counter, float* panels) {
        const int size = heads_per_item(), per_row = (s_.kv_heads + size - 1) / size;
        team_.share(counter, num_items(), [&](int item) {
            const int first = item % per_row * size;
            attend(l, item / per_row, first, first + size < s_.kv_heads ? first + size : s_.kv_heads, item + 1, panels);
        });
    }

    // Calls for the first tokens of an item that this thread will probably take.
    void expect(int l, int item) const {
        const int size = heads_per_item(), per_row = (s_.kv_heads + size - 1) / size;
        if (item >= b_.rows * per_row) return;
        long where[kContext];
        const int count = locate(item / per_row, 0, where), first = item % per_row * size;
        const T* keys = pool_ + 2 * l * b_.plane_elements;
        for (int h = first; h < first + size && h < s_.kv_heads; h++)
            for (int t = 0; t < count; t++) {
                call_for(keys + where[t] + long(h) * s_.head_dim);
                call_for(keys + b_.plane_elements + where[t] + long(h) * s_.head_dim);
            }
    }

  private:
    int heads_per_item() const {
        const int wanted = s_.kv_heads * b_.rows / (team_.threads() * kPiecesPerThread);
        return wanted < 1 ? 1 : wanted > s_.kv_heads ? s_.kv_heads : wanted;
    }

    // The query heads of one row that share KV heads first..end-1; softmax on the way, kContext tokens at a
    // time. While one stretch of tokens is attended to, the next one's keys and values are called for.
    void attend(int l, int row, int first_head, int end_head, int next_item, float* panels) {
        const int d = s_.head_dim, group = s_.heads / s_.kv_heads, length = b_.lengths[row];
        const T* keys = pool_ + 2 * l * b_.plane_elements;
        const T* values = keys + b_.plane_elements;
        alignas(64) float scores[kMaxHeadsPerKv][kContext];
        long places[2][kContext];
        float *out = sums(row, first_head * group), top[kMaxHeads], total[kMaxHeads];
        memset(out, 0, sizeof(float) * (end_head - first_head) * group * d);
        for (int g = 0; g < (end_head - first_head) * group; g++) top[g] = -INFINITY, total[g] = 0;
        int count = locate(row, 0, places[0]), turn = 0;
        const bool is_tiled = can_score_tiled();
        if (is_tiled) pack_queries(row, first_head, end_head, panels);
        for (int first = 0; first < length; first += kContext, turn ^= 1) {
            const long *where = places[turn], *next = places[turn ^ 1];
            const int num_next = locate(row, first + kContext, places[turn ^ 1]);
            if (num_next == 0) expect(l, next_item);
            for (int h = first_head; h < end_head; h++) {
                const int g0 = (h - first_head) * group;
                if (is_tiled)
                    score_tiled(keys + long(h) * d, where, next, num_next, panels + long(h - first_head) * d / 2 * kTile, group, count, scores);
                else
                    score(keys + long(h) * d, where, next, num_next, q_ + row * q_width_ + long(h) * group * d, group, count, scores);
                for (int g = 0; g < group; g++) soften(scores[g], count, &top[g0 + g], &total[g0 + g], out + long(g0 + g) * d);
                for (int g = 0; g < group; g += 4)
                    gather(values + long(h) * d, where, next, num_next, scores + g, group - g < 4 ? group - g : 4, count, out + long(g0 + g) * d);
            }
            count = num_next;
        }
        X* mixed = mixed_ + row * q_width_ + long(first_head) * group * d;
        for (int g = 0; g < (end_head - first_head) * group; g++)
            for (int i = 0; i < d; i += 16) put16(mixed + long(g) * d + i, load(out + long(g) * d + i) / total[g]);
    }

    // The row's queries and keys have left the room that its sums go to.
    float* sums(int row, int head) { return qkv_ + row * (q_width_ + 2 * kv_width_) + long(head) * s_.head_dim; }

    // Where the row's tokens from `first` on lie in a plane; returns how many there are, up to kContext.
    int locate(int row, int first, long* where) const {
        const int left = b_.lengths[row] - first, count = left < 0 ? 0 : left < kContext ? left : kContext;
        const int32_t* table = b_.table + long(row) * b_.table_width;
        for (int t = 0; t < count;) {
            const int token = first + t, offset = token % b_.block_tokens;
            const long block = (long(table[token / b_.block_tokens]) * b_.block_tokens + offset) * kv_width_;
            const int stretch = count - t < b_.block_tokens - offset ? count - t : b_.block_tokens - offset;
            for (int i = 0; i < stretch; i++) where[t + i] = block + i * kv_width_;
            t += stretch;
        }
        for (int t = count; count && t < ((count + 3) & ~3); t++) where[t] = where[count - 1];
        return count;
    }

    void call_for(const T* row) const {
        for (int i = 0; i < s_.head_dim; i += 64 / int(sizeof(T))) __builtin_prefetch(row + i, 0, 2);
    }

    // scores[g][t] = q[g] . key[t], four tokens and up to four heads at a time.
    void score(const T* keys, const long* where, const long* next, int num_next, const X* q, int group, int count, float (*scores)[kContext]) const {
        const int d = s_.head_dim;
        for (int g0 = 0; g0 < group; g0 += 4) {
            const int heads = group - g0 < 4 ? group - g0 : 4;
            const X* some = q + long(g0) * d;
            for (int t = 0; t < count; t += 4) {
                for (int i = t; i < t + 4 && i < num_next; i++) call_for(keys + next[i]);
                const v16 y = heads == 1   ? score4<1>(keys, where + t, some, d)
                              : heads == 2 ? score4<2>(keys, where + t, some, d)
                              : heads == 3 ? score4<3>(keys, where + t, some, d)
                                           : score4<4>(keys, where + t, some, d);
                alignas(64) float lanes[16];
                put16(lanes, y * s_.scale);
                for (int g = 0; g < heads; g++) memcpy(&scores[g0 + g][t], lanes + 4 * g, 4 * sizeof(float));
            }
        }
    }

    // Sixteen tokens make a tile's rows where they lie behind one another in a block.
    bool can_score_tiled() const { return has_tiles_ && b_.block_tokens % kTile == 0 && s_.head_dim % 32 == 0; }

    void pack_queries(int row, int first_head, int end_head, float* panels) const {
#ifdef HAS_TILES
        if constexpr (std::is_same_v<X, bf16>) {
            const int d = s_.head_dim, group = s_.heads / s_.kv_heads;
            for (int h = first_head; h < end_head; h++, panels += d / 2 * kTile) pack_columns(q_ + row * q_width_ + long(h) * group * d, group, d, panels);
        }
#endif
    }

    // As score, from a panel of queries. Tokens past `count` get scores, too: they are in the block, and masked later.
    void score_tiled(const T* keys, const long* where, const long* next, int num_next, const float* panel, int group, int count, float (*scores)[kContext]) const {
#ifdef HAS_TILES
        const int d = s_.head_dim;
        const long stride = kv_width_ * long(sizeof(T));
        for (int t = 0; t < count; t += kTile) {
            for (int i = t; i < t + kTile && i < num_next; i++) call_for(keys + next[i]);
            TILE_ZERO(0);
            for (int k = 0; k < d; k += 32) {
                TILE_LOAD(4, keys + where[t] + k, stride);
                TILE_LOAD(6, panel + k / 2 * kTile, 64);
                TILE_MADD(0, 4, 6);
            }
            alignas(64) float found[kTile][kTile];
            TILE_STORE(0, found, 64);
            v16 block[kTile];
            for (int i = 0; i < kTile; i++) block[i] = load(found[i]);
            transpose16(block);
            for (int g = 0; g < group; g++) put16(&scores[g][t], block[g] * s_.scale);
        }
#endif
    }

    template <int G>
    static inline __attribute__((always_inline)) v16 score4(const T* keys, const long* where, const X* q, int d) {
        using K = Kind<T>;
        v16 acc[16] = {};
        for (int k = 0; k < d; k += K::step) {
            typename K::V head[G];
            for (int g = 0; g < G; g++) head[g] = K::read(q + g * d + k);
#pragma GCC unroll 4
            for (int t = 0; t < 4; t++) {
                const typename K::V key = K::read(keys + where[t] + k);
#pragma GCC unroll 4
                for (int g = 0; g < G; g++) acc[4 * g + t] = K::madd(acc[4 * g + t], head[g], key);
            }
        }
        return reduce16(acc);
    }

    // Scores become weights under the running maximum; what was summed under the old one is brought to the new.
    void soften(float* scores, int count, float* top, float* total, float* out) const {
        const int padded = (count + 15) & ~15;
        for (int t = count; t < padded; t++) scores[t] = -INFINITY;
        v16 most = load(scores);
        for (int t = 16; t < padded; t += 16) most = load(scores + t) > most ? load(scores + t) : most;
        const float best = std::max(*top, max16(most));
        const float shrink = best > *top ? std::exp(*top - best) : 1.0f;
        if (shrink != 1.0f)
            for (int i = 0; i < s_.head_dim; i += 16) put16(out + i, load(out + i) * shrink);
        v16 sum = {};
        for (int t = 0; t < padded; t += 16) {
            const v16 weight = exp16(load(scores + t) - best);
            put16(scores + t, weight);
            sum += weight;
        }
        for (int t = count; t < padded; t++) sum[t & 15] -= scores[t];
        *total = *total * shrink + sum16(sum);
        *top = best;
    }

    // out[g] += sum over tokens of weights[g][t] * value[t], for up to four heads; four vectors of a value at a time.
    void gather(const T* values, const long* where, const long* next, int num_next, const float (*weights)[kContext], int heads, int count, float* out) const {
        for (int i = 0; i < s_.head_dim; i += 64) {
            const int width = s_.head_dim - i < 64 ? s_.head_dim - i : 64;
            if (width < 64)
                for (int j = i; j < i + width; j += 16) gather_part<4, 1>(values + j, where, next, num_next, weights, heads, count, out + j);
            else if (heads == 1)
                gather_part<1, 4>(values + i, where, next, num_next, weights, heads, count, out + i);
            else if (heads == 2)
                gather_part<2, 4>(values + i, where, next, num_next, weights, heads, count, out + i);
            else if (heads == 3)
                gather_part<3, 4>(values + i, where, next, num_next, weights, heads, count, out + i);
            else
                gather_part<4, 4>(values + i, where, next, num_next, weights, heads, count, out + i);
        }
    }

    template <int G, int W>
    void gather_part(const T* values, const long* where, const long* next, int num_next, const float (*weights)[kContext], int heads, int count, float* out) const {
        v16 acc[G][W] = {};
        for (int t = 0; t < count; t++) {
            const T* value = values + where[t];
            if (t < num_next)
                for (int i = 0; i < 16 * W; i += 64 / int(sizeof(T))) __builtin_prefetch(values + next[t] + i, 0, 2);
#pragma GCC unroll 4
            for (int i = 0; i < W; i++) {
                const v16 v = load(value + 16 * i);
#pragma GCC unroll 4
                for (int g = 0; g < G; g++) acc[g][i] += weights[g][t] * v;
            }
        }
        for (int g = 0; g < heads; g++)
            for (int i = 0; i < W; i++) {
                float* place = out + long(g) * s_.head_dim + 16 * i;
                put16(place, load(place) + acc[g][i]);
            }
    }

    const Shape& s_;
    const Batch& b_;
    const T* pool_;
    const long q_width_, kv_width_;
    float* qkv_;
    X *q_, *mixed_;
    Team& team_;
    const bool has_tiles_;
};
