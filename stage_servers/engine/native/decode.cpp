// One step of a decoder-only transformer for a few rows (decodes), straight from the mapped weights.
//
// For models made of pre-normed layers: RMS norm, grouped-query attention with half-rotated rotary
// positions over the paged pool, gated SiLU feed-forward. With few rows a step takes the time of
// reading the weights once, if nothing gets in the way: one parallel region for the whole step, work
// handed out in pieces of some 48 KB of weights, activations kept in float.
//
//   x ─ norm ─ qkv ┆ rotate, write to pool ┆ attend ┆ x += o ┆ norm ─ gate, up ┆ x += down ┆ …
//                  ┆ = a barrier among the threads
//
// Norms are computed by every thread for itself: that is cheaper than one more barrier.

#include <omp.h>

#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

typedef float v16 __attribute__((vector_size(64)));
typedef uint32_t u32x16 __attribute__((vector_size(64)));
typedef int32_t i32x16 __attribute__((vector_size(64)));
typedef uint16_t u16x16 __attribute__((vector_size(32)));

struct bf16 {
    uint16_t bits;
};

constexpr int kGroup = 8;           // rows of activations held in registers at a time
constexpr long kPieceBytes = 49152;  // of weights, handed to a thread at a time
constexpr int kContext = 256;       // tokens attended to at a time
constexpr int kMaxHeadDim = 256;
constexpr int kMaxHeadsPerKv = 16;

static inline v16 load(const float* p) {
    v16 v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline v16 load(const bf16* p) {
    u16x16 half;
    memcpy(&half, p, sizeof half);
    u32x16 wide = __builtin_convertvector(half, u32x16) << 16;
    v16 v;
    memcpy(&v, &wide, sizeof v);
    return v;
}

static inline float to_float(float x) { return x; }
static inline float to_float(bf16 x) {
    uint32_t wide = uint32_t(x.bits) << 16;
    float f;
    memcpy(&f, &wide, sizeof f);
    return f;
}

static inline void put(float* p, float x) { *p = x; }
static inline void put(bf16* p, float x) {  // rounds to nearest even
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    p->bits = uint16_t((u + 0x7fff + ((u >> 16) & 1)) >> 16);
}

static inline void put16(float* p, v16 v) { memcpy(p, &v, sizeof v); }
static inline void put16(bf16* p, v16 v) {
    u32x16 u;
    memcpy(&u, &v, sizeof u);
    u = (u + 0x7fff + ((u >> 16) & 1)) >> 16;
    u16x16 half = __builtin_convertvector(u, u16x16);
    memcpy(p, &half, sizeof half);
}

// How activations are held beside weights of type T, and how many values one multiply-add takes in.
template <class T>
struct Kind {
    using X = float;
    static constexpr int step = 16;
    static inline v16 madd(v16 acc, const X* x, const T* w) { return acc + load(x) * load(w); }
};

#ifdef __AVX512BF16__
template <>
struct Kind<bf16> {
    using X = bf16;
    static constexpr int step = 32;
    static inline v16 madd(v16 acc, const X* x, const bf16* w) {
        return (v16)_mm512_dpbf16_ps((__m512)acc, (__m512bh)_mm512_loadu_si512(x), (__m512bh)_mm512_loadu_si512(w));
    }
};
#endif

static inline v16 splat(float x) { return x - v16{}; }

// e^x to within two units in the last place, for x <= 88.
static inline v16 exp16(v16 x) {
    const float magic = 12582912.0f;  // adding it leaves the rounded integer in the low bits
    v16 low = splat(-87.0f);
    x = x < low ? low : x;
    v16 shifted = x * 1.44269504088896341f + magic;
    v16 n = shifted - magic;
    v16 r = x - n * 0.693359375f + n * 2.12194440e-4f;
    v16 y = splat(1.9875691500e-4f);
    y = y * r + 1.3981999507e-3f;
    y = y * r + 8.3334519073e-3f;
    y = y * r + 4.1665795894e-2f;
    y = y * r + 1.6666665459e-1f;
    y = y * r + 5.0000001201e-1f;
    y = y * r * r + r + 1.0f;
    i32x16 bits, whole;
    memcpy(&whole, &shifted, sizeof whole);
    memcpy(&bits, &y, sizeof bits);
    bits += (whole - 0x4b400000) << 23;
    memcpy(&y, &bits, sizeof y);
    return y;
}

// Lane i of the result is the sum of a[i]'s lanes.
static inline v16 reduce16(v16* a) {
#define HALVE(i, j, LOW, HIGH) a[i] = __builtin_shufflevector(a[i], a[j], LOW) + __builtin_shufflevector(a[i], a[j], HIGH)
#define LOW8 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23
#define HIGH8 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31
#define LOW4 0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27
#define HIGH4 4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31
#define LOW2 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29
#define HIGH2 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31
#define LOW1 0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30
#define HIGH1 1, 17, 3, 19, 5, 21, 7, 23, 9, 25, 11, 27, 13, 29, 15, 31
#define APPLY(i, j, n) HALVE(i, j, LOW##n, HIGH##n)
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) a[i] = __builtin_shufflevector(a[i], a[i + 8], LOW8) + __builtin_shufflevector(a[i], a[i + 8], HIGH8);
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) a[i] = __builtin_shufflevector(a[i], a[i + 4], LOW4) + __builtin_shufflevector(a[i], a[i + 4], HIGH4);
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++) a[i] = __builtin_shufflevector(a[i], a[i + 2], LOW2) + __builtin_shufflevector(a[i], a[i + 2], HIGH2);
    return __builtin_shufflevector(a[0], a[1], LOW1) + __builtin_shufflevector(a[0], a[1], HIGH1);
}

static inline float sum16(v16 v) {
    float s = 0;
    for (int i = 0; i < 16; i++) s += v[i];
    return s;
}

// The products of weight rows a and b with M rows of x: lanes 0..M-1 are a's, lanes 8..8+M-1 are b's.
template <class T, int M>
static inline __attribute__((always_inline)) v16 pair(const T* a, const T* b, const typename Kind<T>::X* x, long width) {
    v16 acc[16] = {};
    for (long k = 0; k < width; k += Kind<T>::step) {
        __builtin_prefetch(a + k + 2 * width);
        __builtin_prefetch(b + k + 2 * width);
#pragma GCC unroll 8
        for (int m = 0; m < M; m++) {
            acc[m] = Kind<T>::madd(acc[m], x + m * width + k, a + k);
            acc[8 + m] = Kind<T>::madd(acc[8 + m], x + m * width + k, b + k);
        }
    }
    return reduce16(acc);
}

template <class T>
static inline v16 pair_of(int rows, const T* a, const T* b, const typename Kind<T>::X* x, long width) {
    switch (rows) {
        case 1: return pair<T, 1>(a, b, x, width);
        case 2: return pair<T, 2>(a, b, x, width);
        case 3: return pair<T, 3>(a, b, x, width);
        case 4: return pair<T, 4>(a, b, x, width);
        case 5: return pair<T, 5>(a, b, x, width);
        case 6: return pair<T, 6>(a, b, x, width);
        case 7: return pair<T, 7>(a, b, x, width);
        default: return pair<T, 8>(a, b, x, width);
    }
}

extern "C" {

// Addresses of one layer's weights; biases and head norms may be null.
struct Layer {
    const void *norm1, *q, *k, *v, *o, *q_bias, *k_bias, *v_bias, *o_bias, *q_norm, *k_norm, *norm2, *gate, *up, *down;
};

struct Shape {
    int32_t layers, hidden, heads, kv_heads, head_dim, ffn, vocabulary, max_rows;
    float eps, scale;
};

// The rows of one step. Every row sees the first lengths[row] tokens of its table row.
struct Batch {
    const float *cos, *sin;   // [rows, head_dim]
    const int64_t* slots;     // [rows] where the row's KV goes, in tokens
    const int32_t* table;     // [rows, table_width] blocks
    const int32_t* lengths;   // [rows]
    int64_t plane_elements;   // of one K or V plane of the pool
    int32_t rows, table_width, block_tokens;
};

// Room for max_rows rows, in floats: x, qkv, and three buffers of activations; then the counters.
int64_t scratch_floats(const Shape* s) {
    int64_t heads = int64_t(s->heads + 2 * s->kv_heads) * s->head_dim;
    return s->max_rows * (s->hidden + heads + 2 * int64_t(s->heads) * s->head_dim + s->ffn) + 8 * int64_t(s->layers) + 64;
}
}

template <class T>
class Step {
    using X = typename Kind<T>::X;

  public:
    Step(const Shape& s, const Layer* layers, const Batch& b, T* pool, float* scratch)
        : s_(s), layers_(layers), b_(b), pool_(pool), q_width_(long(s.heads) * s.head_dim), kv_width_(long(s.kv_heads) * s.head_dim) {
        x_ = scratch;
        qkv_ = x_ + long(s.max_rows) * s.hidden;
        q_ = (X*)(qkv_ + s.max_rows * (q_width_ + 2 * kv_width_));
        mixed_ = (X*)((float*)q_ + s.max_rows * q_width_);
        act_ = (X*)((float*)mixed_ + s.max_rows * q_width_);
        counters_ = (std::atomic<int32_t>*)((float*)act_ + long(s.max_rows) * s.ffn);
        for (long i = 0; i < 8L * s.layers + 64; i++) counters_[i].store(0, std::memory_order_relaxed);
    }

    void run(const T* embeds, const T* final_norm, const T* head, const int32_t* wanted, int num_wanted, float* logits, int threads) {
        for (long i = 0; i < long(b_.rows) * s_.hidden; i++) x_[i] = to_float(embeds[i]);
#pragma omp parallel num_threads(threads)
        {
            X* own = new (std::align_val_t(64)) X[long(b_.rows > num_wanted ? b_.rows : num_wanted) * s_.hidden];
            for (int l = 0; l < s_.layers; l++) layer(l, own);
            normalise_rows(final_norm, own, wanted, num_wanted);
            linear(8 * s_.layers, head, nullptr, own, num_wanted, s_.hidden, s_.vocabulary,
                   [&](int row, long n, float y) { logits[row * long(s_.vocabulary) + n] = y; });
            operator delete[](own, std::align_val_t(64));
        }
    }

  private:
    void layer(int l, X* own) {
        const Layer& w = layers_[l];
        const long heads = q_width_ + 2 * kv_width_;
        normalise_rows((const T*)w.norm1, own, nullptr, b_.rows);
        const void* parts[] = {w.q, w.k, w.v};
        const void* biases[] = {w.q_bias, w.k_bias, w.v_bias};
        const long first[] = {0, q_width_, q_width_ + kv_width_, heads};
        for (int part = 0; part < 3; part++)
            linear(8 * l + part, (const T*)parts[part], (const T*)biases[part], own, b_.rows, s_.hidden, first[part + 1] - first[part],
                   [&](int row, long n, float y) { qkv_[row * heads + first[part] + n] = y; });
#pragma omp barrier
#pragma omp for schedule(static)
        for (int row = 0; row < b_.rows; row++) rotate(l, row);
        for (int item; (item = counters_[8 * l + 3]++) < b_.rows * s_.kv_heads;) attend(l, item / s_.kv_heads, item % s_.kv_heads);
#pragma omp barrier
        linear(8 * l + 4, (const T*)w.o, (const T*)w.o_bias, mixed_, b_.rows, q_width_, s_.hidden,
               [&](int row, long n, float y) { x_[row * long(s_.hidden) + n] += y; });
#pragma omp barrier
        normalise_rows((const T*)w.norm2, own, nullptr, b_.rows);
        gate_up(8 * l + 5, (const T*)w.gate, (const T*)w.up, own);
#pragma omp barrier
        linear(8 * l + 6, (const T*)w.down, nullptr, act_, b_.rows, s_.ffn, s_.hidden,
               [&](int row, long n, float y) { x_[row * long(s_.hidden) + n] += y; });
#pragma omp barrier
    }

    // out(row, n, y) for every row of x [rows, width] and row n of w [count, width].
    template <class Out>
    void linear(int counter, const T* w, const T* bias, const X* x, int rows, long width, long count, Out out) {
        const long piece = piece_rows(width);
        for (long n0; (n0 = piece * counters_[counter]++) < count;) {
            const long end = n0 + piece < count ? n0 + piece : count;
            for (long n = n0; n < end; n += 2) {
                const bool has_two = n + 1 < end;
                const T *a = w + n * width, *b = has_two ? a + width : a;
                const float bias_a = bias ? to_float(bias[n]) : 0.0f, bias_b = bias && has_two ? to_float(bias[n + 1]) : 0.0f;
                for (int first = 0; first < rows; first += kGroup) {
                    const int m = rows - first < kGroup ? rows - first : kGroup;
                    const v16 y = pair_of<T>(m, a, b, x + first * width, width);
                    for (int i = 0; i < m; i++) {
                        out(first + i, n, y[i] + bias_a);
                        if (has_two) out(first + i, n + 1, y[8 + i] + bias_b);
                    }
                }
            }
        }
    }

    void gate_up(int counter, const T* gate, const T* up, const X* x) {
        const long piece = piece_rows(2 * long(s_.hidden));
        for (long n0; (n0 = piece * counters_[counter]++) < s_.ffn;) {
            const long end = n0 + piece < s_.ffn ? n0 + piece : s_.ffn;
            for (long n = n0; n < end; n++)
                for (int first = 0; first < b_.rows; first += kGroup) {
                    const int m = b_.rows - first < kGroup ? b_.rows - first : kGroup;
                    const v16 y = pair_of<T>(m, gate + n * s_.hidden, up + n * s_.hidden, x + long(first) * s_.hidden, s_.hidden);
                    const v16 silu = y / (1.0f + exp16(-y < 88.0f ? -y : splat(88.0f)));
                    for (int i = 0; i < m; i++) put(act_ + (first + i) * long(s_.ffn) + n, silu[i] * y[8 + i]);
                }
        }
    }

    long piece_rows(long width) const {
        const long rows = kPieceBytes / (width * long(sizeof(T)));
        return rows < 2 ? 2 : rows & ~1L;
    }

    void normalise_rows(const T* weight, X* out, const int32_t* chosen, int count) const {
        for (int i = 0; i < count; i++)
            normalise(x_ + long(chosen ? chosen[i] : i) * s_.hidden, weight, s_.hidden, out + long(i) * s_.hidden);
    }

    template <class Y>
    void normalise(const float* x, const T* weight, long width, Y* out) const {
        v16 squares = {};
        for (long i = 0; i < width; i += 16) squares += load(x + i) * load(x + i);
        const float factor = 1.0f / std::sqrt(sum16(squares) / width + s_.eps);
        for (long i = 0; i < width; i += 16) put16(out + i, load(x + i) * factor * load(weight + i));
    }

    // Norms (where the model has them) and rotates the row's queries and keys; keys and values go to the pool.
    void rotate(int l, int row) {
        const int d = s_.head_dim;
        float* qkv = qkv_ + row * (q_width_ + 2 * kv_width_);
        T* keys = pool_ + 2 * l * b_.plane_elements + b_.slots[row] * kv_width_;
        T* values = keys + b_.plane_elements;
        for (int h = 0; h < s_.heads; h++) rotate_head(qkv + long(h) * d, layers_[l].q_norm, row, q_ + row * q_width_ + long(h) * d);
        for (int h = 0; h < s_.kv_heads; h++) rotate_head(qkv + q_width_ + long(h) * d, layers_[l].k_norm, row, keys + long(h) * d);
        for (long i = 0; i < kv_width_; i += 16) put16(values + i, load(qkv + q_width_ + kv_width_ + i));
    }

    template <class Y>
    void rotate_head(float* head, const void* norm, int row, Y* out) const {
        const int d = s_.head_dim, half = d / 2;
        const float *cos = b_.cos + long(row) * d, *sin = b_.sin + long(row) * d;
        if (norm) normalise(head, (const T*)norm, d, head);
        for (int i = 0; i < half; i++) {
            put(out + i, head[i] * cos[i] - head[i + half] * sin[i]);
            put(out + i + half, head[i + half] * cos[i + half] + head[i] * sin[i + half]);
        }
    }

    // All query heads of one row that share a KV head; softmax on the way, kContext tokens at a time.
    void attend(int l, int row, int kv_head) {
        const int d = s_.head_dim, group = s_.heads / s_.kv_heads, length = b_.lengths[row];
        const T* keys = pool_ + 2 * l * b_.plane_elements + long(kv_head) * d;
        const T* values = keys + b_.plane_elements;
        const X* q = q_ + row * q_width_ + long(kv_head) * group * d;
        const int32_t* table = b_.table + long(row) * b_.table_width;
        alignas(64) float scores[kMaxHeadsPerKv][kContext];
        alignas(64) float out[kMaxHeadsPerKv * kMaxHeadDim];
        long where[kContext];
        float top[kMaxHeadsPerKv], total[kMaxHeadsPerKv];
        memset(out, 0, sizeof(float) * group * d);
        for (int g = 0; g < group; g++) top[g] = -INFINITY, total[g] = 0;
        for (int first = 0; first < length; first += kContext) {
            const int count = length - first < kContext ? length - first : kContext;
            for (int t = 0; t < count; t++) {
                const int token = first + t;
                where[t] = (long(table[token / b_.block_tokens]) * b_.block_tokens + token % b_.block_tokens) * kv_width_;
            }
            for (int t = count; t < ((count + 15) & ~15); t++) where[t] = where[count - 1];
            score(keys, where, q, group, count, scores);
            for (int g = 0; g < group; g++) soften(scores[g], count, &top[g], &total[g], out + long(g) * d);
            for (int g = 0; g < group; g += 4) gather(values, where, scores + g, group - g < 4 ? group - g : 4, count, out + long(g) * d);
        }
        for (int g = 0; g < group; g++)
            for (int i = 0; i < d; i += 16) put16(mixed_ + row * q_width_ + (long(kv_head) * group + g) * d + i, load(out + g * d + i) / total[g]);
    }

    // scores[g][t] = q[g] . key[t], four tokens and up to four heads at a time.
    void score(const T* keys, const long* where, const X* q, int group, int count, float (*scores)[kContext]) const {
        const int d = s_.head_dim;
        for (int g0 = 0; g0 < group; g0 += 4) {
            const int heads = group - g0 < 4 ? group - g0 : 4;
            for (int t = 0; t < count; t += 4) {
                const v16 y = heads == 1   ? score4<1>(keys, where + t, q + long(g0) * d, d)
                              : heads == 2 ? score4<2>(keys, where + t, q + long(g0) * d, d)
                              : heads == 3 ? score4<3>(keys, where + t, q + long(g0) * d, d)
                                           : score4<4>(keys, where + t, q + long(g0) * d, d);
                for (int g = 0; g < heads; g++)
                    for (int i = 0; i < 4; i++) scores[g0 + g][t + i] = y[4 * g + i] * s_.scale;
            }
        }
    }

    template <int G>
    static inline __attribute__((always_inline)) v16 score4(const T* keys, const long* where, const X* q, int d) {
        v16 acc[16] = {};
        for (int k = 0; k < d; k += Kind<T>::step)
#pragma GCC unroll 4
            for (int t = 0; t < 4; t++)
#pragma GCC unroll 4
                for (int g = 0; g < G; g++) acc[4 * g + t] = Kind<T>::madd(acc[4 * g + t], q + g * d + k, keys + where[t] + k);
        return reduce16(acc);
    }

    // Scores become weights under the running maximum; what was summed under the old one is brought to the new.
    void soften(float* scores, int count, float* top, float* total, float* out) const {
        const int padded = (count + 15) & ~15;
        for (int t = count; t < padded; t++) scores[t] = -INFINITY;
        v16 most = load(scores);
        for (int t = 16; t < padded; t += 16) most = load(scores + t) > most ? load(scores + t) : most;
        float best = *top;
        for (int i = 0; i < 16; i++) best = most[i] > best ? most[i] : best;
        const float shrink = std::exp(*top - best);
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

    // out[g] += sum over tokens of weights[g][t] * value[t], for up to four heads.
    void gather(const T* values, const long* where, const float (*weights)[kContext], int heads, int count, float* out) const {
        const int d = s_.head_dim;
        for (int i = 0; i < d; i += 16) {
            v16 acc[4] = {};
            for (int t = 0; t < count; t++) {
                const v16 v = load(values + where[t] + i);
#pragma GCC unroll 4
                for (int g = 0; g < 4; g++) acc[g] += weights[g][t] * v;
            }
            for (int g = 0; g < heads; g++) put16(out + g * d + i, load(out + g * d + i) + acc[g]);
        }
    }

    const Shape& s_;
    const Layer* layers_;
    const Batch& b_;
    T* pool_;
    const long q_width_, kv_width_;
    float *x_, *qkv_;
    X *q_, *mixed_, *act_;
    std::atomic<int32_t>* counters_;
};

extern "C" {

// logits [num_wanted, vocabulary] of the rows `wanted`; embeds [rows, hidden]; scratch as scratch_floats says.
void step_float32(const Shape* s, const Layer* layers, const Batch* b, void* pool, const void* embeds, const void* final_norm,
                  const void* head, const int32_t* wanted, int32_t num_wanted, float* logits, float* scratch, int32_t threads) {
    Step<float>(*s, layers, *b, (float*)pool, scratch).run((const float*)embeds, (const float*)final_norm, (const float*)head, wanted, num_wanted, logits, threads);
}

void step_bfloat16(const Shape* s, const Layer* layers, const Batch* b, void* pool, const void* embeds, const void* final_norm,
                   const void* head, const int32_t* wanted, int32_t num_wanted, float* logits, float* scratch, int32_t threads) {
    Step<bf16>(*s, layers, *b, (bf16*)pool, scratch).run((const bf16*)embeds, (const bf16*)final_norm, (const bf16*)head, wanted, num_wanted, logits, threads);
}
}
