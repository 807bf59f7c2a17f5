// Attention of many packed rows to the paged pool: prefill chunks, and decodes that run beside them.
//
// A piece of work is some rows of one sequence with all query heads of one KV head. Sixty-four tokens
// at a time are packed so that sixteen of them lie side by side in a vector, attended to by all the
// queries of the piece, and left again; softmax runs along. Where the processor has matrix tiles, sixteen
// queries meet sixteen tokens at a time: the packed form is the one that tiles want.
//
//   words: what one lane of a multiply-add takes in, two bfloat16 or one float

#include <algorithm>
#include <optional>
#include <type_traits>

#include "tiles.h"

constexpr int kTokens = 64;      // packed at a time
constexpr int kRows = 32;        // of a sequence in a piece of work
constexpr int kQueries = 6;      // whose sums are held in registers at a time
constexpr int kVectors = kTokens / 16;

extern "C" {

struct Rows {
    const int32_t *row_bounds, *lengths, *table;  // [segments + 1], [segments], [segments, table_width]
    int32_t segments, table_width, block_tokens, heads, kv_heads, head_dim, is_causal;
    float scale;
};
}

template <class X>
struct Word;

template <>
struct Word<float> {
    static constexpr int values = 1;
    static inline v16 madd(v16 acc, const float* word, v16 lanes) { return acc + *word * lanes; }
};

#ifdef __AVX512BF16__
template <>
struct Word<bf16> {
    static constexpr int values = 2;
    static inline v16 madd(v16 acc, const float* word, v16 lanes) {
        return (v16)_mm512_dpbf16_ps((__m512)acc, (__m512bh)_mm512_set1_ps(*word), (__m512bh)lanes);
    }
};
static inline v16 words(const bf16* p, const bf16*) { return (v16)_mm512_loadu_ps(p); }
#endif

// Sixteen words' worth of values.
template <class T>
static inline v16 words(const T* p, const float*) {
    return load(p);
}

template <class T>
class Piece {
    using X = typename Kind<T>::X;
    static constexpr int kPer = Word<X>::values;
    static constexpr int kTokenWords = kTokens / kPer;

  public:
    Piece(const Rows& r, const T* keys, const T* values, const T* query, T* out)
        : r_(r), keys_(keys), values_(values), query_(query), out_(out), d_(r.head_dim), words_(r.head_dim / kPer), group_(r.heads / r.kv_heads) {
        const int most = (kRows * group_ + kTile - 1) / kTile * kTile;
        q_.resize(most * words_), scores_.resize(most * kTokens), sums_.resize(long(most) * d_);
        weights_.resize(most * kTokenWords), key_words_.resize(long(words_) * kTokens), value_words_.resize(long(kTokenWords) * d_);
        top_.resize(most), total_.resize(most * 16), shrink_.resize(most);
#ifdef HAS_TILES
        if (uses_tiles_) tiles_.emplace();
#endif
    }

    void attend(int segment, int first_row, int kv_head) {
        const int end = r_.row_bounds[segment + 1];
        const int num_rows = end - first_row < kRows ? end - first_row : kRows, count = num_rows * group_;
        const int first_token = r_.lengths[segment] - end + first_row;
        for (int q = 0; q < count; q++) {
            for (int w = 0; w < words_; w += 16) put16(&q_[q * words_ + w], words(query_ + place(first_row, kv_head, q) + w * kPer, (const X*)nullptr));
            top_[q] = -INFINITY, put16(&total_[q * 16], v16{});
        }
        memset(sums_.data(), 0, sizeof(float) * count * d_);
        const int num_seen = r_.is_causal ? first_token + num_rows : r_.lengths[segment];
        for (int start = 0; start < num_seen; start += kTokens) {
            pack(segment, kv_head, start, num_seen - start < kTokens ? num_seen - start : kTokens);
            score_all(count);
            for (int q = 0; q < count; q++) soften(q, (r_.is_causal ? first_token + q / group_ + 1 : num_seen) - start);
            gather_all(count);
        }
        for (int q = 0; q < count; q++) {
            const float share = 1.0f / sum16(load(&total_[q * 16]));
            for (int i = 0; i < d_; i += 16) put16(out_ + place(first_row, kv_head, q) + i, load(&sums_[long(q) * d_ + i]) * share);
        }
    }

  private:
    template <int N>
    struct Count {
        static constexpr int value = N;
    };

    // body(Count<n>, first query) for all queries, kQueries at a time.
    template <class Body>
    static void by_queries(int count, Body body) {
        int q = 0;
        for (; q + kQueries <= count; q += kQueries) body(Count<kQueries>(), q);
        switch (count - q) {
            case 1: return body(Count<1>(), q);
            case 2: return body(Count<2>(), q);
            case 3: return body(Count<3>(), q);
            case 4: return body(Count<4>(), q);
            case 5: return body(Count<5>(), q);
        }
    }

    long place(int first_row, int kv_head, int q) const {
        return (long(first_row + q / group_) * r_.heads + kv_head * group_ + q % group_) * d_;
    }

    // Keys of `count` tokens, tokens side by side; values, two tokens to a word where words hold two.
    void pack(int segment, int kv_head, int start, int count) {
        const int32_t* table = r_.table + long(segment) * r_.table_width;
        long where[kTokens];
        for (int t = 0; t < kTokens; t++) {
            // Tokens past the end are the last one again: finite, and masked later.
            const int token = start + (t < count ? t : count - 1);
            const long slot = long(table[token / r_.block_tokens]) * r_.block_tokens + token % r_.block_tokens;
            where[t] = (slot * r_.kv_heads + kv_head) * d_;
        }
        for (int t = 0; t < kTokens; t += 16)
            for (int w = 0; w < words_; w += 16) {
                v16 block[16];
                for (int i = 0; i < 16; i++) block[i] = words(keys_ + where[t + i] + w * kPer, (const X*)nullptr);
                transpose16(block);
                for (int i = 0; i < 16; i++) put16(&key_words_[long(w + i) * kTokens + t], block[i]);
            }
        for (int t = 0; t < kTokens; t += kPer)
            for (int i = 0; i < d_; i += 16) put16(&value_words_[long(t / kPer) * d_ + i], value_word(where + t, i, (const X*)nullptr));
    }

    v16 value_word(const long* where, int i, const float*) const { return load(values_ + where[0] + i); }

    v16 value_word(const long* where, int i, const bf16*) const {
        u16x16 first, second;
        memcpy(&first, values_ + where[0] + i, sizeof first);
        memcpy(&second, values_ + where[1] + i, sizeof second);
        const u32x16 both = __builtin_convertvector(first, u32x16) | __builtin_convertvector(second, u32x16) << 16;
        v16 v;
        memcpy(&v, &both, sizeof v);
        return v;
    }

    void score_all(int count) {
#ifdef HAS_TILES
        if constexpr (kHasTiles)
            if (uses_tiles_) {
                for (int q = 0; q < count; q += kTile) score_tiles(q);
                return;
            }
#endif
        by_queries(count, [&](auto n, int q) { score<n.value>(q); });
    }

    void gather_all(int count) {
#ifdef HAS_TILES
        if constexpr (kHasTiles)
            if (uses_tiles_) {
                for (int q = 0; q < count; q += kTile) gather_tiles(q, count - q < kTile ? count - q : kTile);
                return;
            }
#endif
        by_queries(count, [&](auto n, int q) { gather<n.value>(q); });
    }

#ifdef HAS_TILES
    // Sixteen queries' scores of all packed tokens.
    void score_tiles(int first) {
        const float *q = &q_[first * words_], *keys = key_words_.data();
        TILE_ZERO(0);
        TILE_ZERO(1);
        TILE_ZERO(2);
        TILE_ZERO(3);
        for (int w = 0; w < words_; w += kTile, keys += kTile * kTokens) {
            TILE_LOAD(4, q + w, words_ * sizeof(float));
            TILE_LOAD(5, keys, kTokens * sizeof(float));
            TILE_MADD(0, 4, 5);
            TILE_LOAD(6, keys + kTile, kTokens * sizeof(float));
            TILE_MADD(1, 4, 6);
            TILE_LOAD(5, keys + 2 * kTile, kTokens * sizeof(float));
            TILE_MADD(2, 4, 5);
            TILE_LOAD(6, keys + 3 * kTile, kTokens * sizeof(float));
            TILE_MADD(3, 4, 6);
        }
        float* scores = &scores_[first * kTokens];
        TILE_STORE(0, scores, kTokens * sizeof(float));
        TILE_STORE(1, scores + kTile, kTokens * sizeof(float));
        TILE_STORE(2, scores + 2 * kTile, kTokens * sizeof(float));
        TILE_STORE(3, scores + 3 * kTile, kTokens * sizeof(float));
    }

    // Adds the packed tokens' values to the sums of sixteen queries, of which `count` are some.
    void gather_tiles(int first, int count) {
        float* sums = &sums_[long(first) * d_];
        for (int q = 0; q < count; q++)
            if (shrink_[first + q] != 1.0f)
                for (int i = 0; i < d_; i += 16) put16(sums + long(q) * d_ + i, load(sums + long(q) * d_ + i) * shrink_[first + q]);
        const float* weights = &weights_[first * kTokenWords];
        const long value_bytes = d_ * sizeof(float);
        TILE_LOAD(4, weights, kTokenWords * sizeof(float));
        TILE_LOAD(5, weights + kTile, kTokenWords * sizeof(float));
        const float *first_half = value_words_.data(), *second_half = first_half + long(kTile) * d_;
#define GATHER(sum, i) \
    TILE_LOAD(sum, sums + (i), value_bytes); \
    TILE_LOAD(6, first_half + (i), value_bytes); \
    TILE_MADD(sum, 4, 6); \
    TILE_LOAD(7, second_half + (i), value_bytes); \
    TILE_MADD(sum, 5, 7)
        // Two sums at a time: the products of one hide behind those of the other.
        for (int i = 0; i < d_; i += 2 * kTile) {
            GATHER(0, i);
            GATHER(1, i + kTile);
            TILE_STORE(0, sums + i, value_bytes);
            TILE_STORE(1, sums + i + kTile, value_bytes);
        }
#undef GATHER
    }
#endif

    template <int N>
    void score(int first) {
        v16 acc[N][kVectors] = {};
        const float *q = &q_[first * words_], *keys = key_words_.data();
        for (int w = 0; w < words_; w++) {
            v16 key[kVectors];
#pragma GCC unroll 4
            for (int i = 0; i < kVectors; i++) key[i] = load(keys + long(w) * kTokens + 16 * i);
#pragma GCC unroll 8
            for (int n = 0; n < N; n++)
#pragma GCC unroll 4
                for (int i = 0; i < kVectors; i++) acc[n][i] = Word<X>::madd(acc[n][i], q + n * words_ + w, key[i]);
        }
        for (int n = 0; n < N; n++)
            for (int i = 0; i < kVectors; i++) put16(&scores_[(first + n) * kTokens + 16 * i], acc[n][i]);
    }

    // Scores of one query become weights; only the first `visible` tokens are for it to see.
    void soften(int q, int visible) {
        float* scores = &scores_[q * kTokens];
        X* weights = (X*)&weights_[q * kTokenWords];
        shrink_[q] = 1.0f;
        if (visible <= 0) {
            memset(weights, 0, sizeof(X) * kTokens);
            return;
        }
        for (int t = visible; t < kTokens; t++) scores[t] = -INFINITY;
        v16 score[kVectors], most = splat(-INFINITY);
#pragma GCC unroll 4
        for (int i = 0; i < kVectors; i++) {
            score[i] = load(scores + 16 * i) * r_.scale;
            most = score[i] > most ? score[i] : most;
        }
        const float best = std::max(top_[q], max16(most));
        if (best > top_[q]) shrink_[q] = std::exp(top_[q] - best);
        v16 sum = {};
#pragma GCC unroll 4
        for (int i = 0; i < kVectors; i++) {
            const v16 weight = score[i] > -INFINITY ? exp16(score[i] - best) : v16{};
            sum += weight;
            put16(weights + 16 * i, weight);
        }
        put16(&total_[q * 16], load(&total_[q * 16]) * shrink_[q] + sum);
        top_[q] = best;
    }

    template <int N>
    void gather(int first) {
        for (int i = 0; i < d_; i += 64) switch (d_ - i < 64 ? (d_ - i) / 16 : 4) {
                case 1: gather_part<N, 1>(first, i); break;
                case 2: gather_part<N, 2>(first, i); break;
                case 3: gather_part<N, 3>(first, i); break;
                default: gather_part<N, 4>(first, i);
            }
    }

    template <int N, int W>
    void gather_part(int first, int from) {
        v16 acc[N][W];
        for (int n = 0; n < N; n++)
            for (int i = 0; i < W; i++) acc[n][i] = load(&sums_[long(first + n) * d_ + from + 16 * i]) * shrink_[first + n];
        const float* weights = &weights_[first * kTokenWords];
        for (int t = 0; t < kTokenWords; t++) {
            v16 value[W];
#pragma GCC unroll 4
            for (int i = 0; i < W; i++) value[i] = load(&value_words_[long(t) * d_ + from + 16 * i]);
#pragma GCC unroll 8
            for (int n = 0; n < N; n++)
#pragma GCC unroll 4
                for (int i = 0; i < W; i++) acc[n][i] = Word<X>::madd(acc[n][i], weights + n * kTokenWords + t, value[i]);
        }
        for (int n = 0; n < N; n++)
            for (int i = 0; i < W; i++) put16(&sums_[long(first + n) * d_ + from + 16 * i], acc[n][i]);
    }

    const Rows& r_;
    const T *keys_, *values_, *query_;
    T* out_;
    const int d_, words_, group_;
    static constexpr bool kHasTiles = kPer == 2;
#ifdef HAS_TILES
    const bool uses_tiles_ = kHasTiles && may_use_tiles();
    std::optional<Tiles> tiles_;
#endif
    std::vector<float> q_, scores_, sums_, weights_, key_words_, value_words_, top_, total_, shrink_;
};

template <class T>
static void attend_rows(const Rows& r, const T* keys, const T* values, const T* query, T* out, int threads) {
    struct Work {
        int segment, first_row;
    };
    std::vector<Work> work;
    for (int s = 0; s < r.segments; s++)
        for (int row = r.row_bounds[s]; row < r.row_bounds[s + 1]; row += kRows) work.push_back({s, row});
    const int count = int(work.size()) * r.kv_heads;
#pragma omp parallel num_threads(threads)
    {
        Piece<T> piece(r, keys, values, query, out);
        // The last rows of a prompt see most: they come first, so that no thread is left with them.
#pragma omp for schedule(dynamic)
        for (int item = count - 1; item >= 0; item--) {
            const Work& w = work[item / r.kv_heads];
            piece.attend(w.segment, w.first_row, item % r.kv_heads);
        }
    }
}

extern "C" {

// query, out [rows, heads, head_dim]; keys, values: one plane of the pool each.
void attend_float32(const Rows* r, const void* keys, const void* values, const void* query, void* out, int32_t threads) {
    attend_rows(*r, (const float*)keys, (const float*)values, (const float*)query, (float*)out, threads);
}

void attend_bfloat16(const Rows* r, const void* keys, const void* values, const void* query, void* out, int32_t threads) {
    attend_rows(*r, (const bf16*)keys, (const bf16*)values, (const bf16*)query, (bf16*)out, threads);
}
}
