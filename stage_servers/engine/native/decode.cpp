// One step of a decoder-only transformer for a few rows (decodes), straight from the mapped weights.
//
// For models made of pre-normed layers: RMS norm, grouped-query attention with half-rotated rotary
// positions over the paged pool, gated SiLU feed-forward. With few rows a step takes the time of
// reading the weights once, if nothing gets in the way: one parallel region for the whole step, work
// handed out in pieces of some 48 KB of weights, activations kept in float.
//
// Threads meet where a kind of work is complete, not where all threads have arrived: on a machine that
// has other things to do, a thread that was put aside without work in hand holds no one up.
//
//   x ─ norm ─ qkv ┆ rotate, write to pool ┆ attend ┆ x += o ┆ norm ─ gate, up ┆ x += down ┆ …
//                  ┆ = the threads wait until this is complete
//
// Norms are computed by every thread for itself: that is cheaper than one more wait. A late thread may
// compute one from values that are changing already, but then no work is left that it could use it for.

#include <sched.h>

#include "lanes.h"

constexpr int kGroup = 8;             // rows of activations held in registers at a time
constexpr long kInnerBytes = 24576;   // of activations that stay in the first-level cache
constexpr long kAheadBytes = 16384;   // how far ahead weights are called for
constexpr int kMaxPairs = 96;         // pairs of weight rows in a piece of work
constexpr int kPiecesPerThread = 4;   // so that a thread that was held up delays the others little
constexpr int kMaxThreads = 64;
constexpr int kSpins = 20000;         // before a waiting thread lets others have its processor
constexpr int kContext = 64;          // tokens attended to at a time
constexpr int kMaxHeadsPerKv = 16;
constexpr int kMaxHeads = 256;

// The products of weight rows a and b with M rows of x: lanes 0..M-1 are a's, lanes 8..8+M-1 are b's.
template <class T, int M>
static inline v16 pair(const T* a, const T* b, const typename Kind<T>::X* x, long stride, long width) {
    using K = Kind<T>;
    const long ahead = kAheadBytes / sizeof(T);
    v16 acc[16] = {};
    for (long k = 0; k < width; k += K::step) {
        // Into the second-level cache: the processor's own prefetching is too late by far for several rows.
        __builtin_prefetch(a + k + ahead, 0, 2);
        __builtin_prefetch(b + k + ahead, 0, 2);
        const typename K::V wa = K::read(a + k), wb = K::read(b + k);
#pragma GCC unroll 8
        for (int m = 0; m < M; m++) {
            const typename K::V xm = K::read(x + m * stride + k);
            acc[m] = K::madd(acc[m], xm, wa);
            acc[8 + m] = K::madd(acc[8 + m], xm, wb);
        }
    }
    return reduce16(acc);
}

// y[i] += pair(a + i * step, b + i * step), in slices of x that stay in the first-level cache.
template <class T, int M>
static void pairs(const T* a, const T* b, long step, int count, const typename Kind<T>::X* x, long width, v16* y) {
    long slice = kInnerBytes / (M * long(sizeof(typename Kind<T>::X))) / 32 * 32;
    slice = (width + (width + slice - 1) / slice - 1) / ((width + slice - 1) / slice);
    slice = (slice + 31) / 32 * 32;
    for (long k = 0; k < width; k += slice) {
        const long part = width - k < slice ? width - k : slice;
        for (int i = 0; i < count; i++) y[i] += pair<T, M>(a + i * step + k, b + i * step + k, x + k, width, part);
    }
}

template <class T>
static void pairs_of(int rows, const T* a, const T* b, long step, int count, const typename Kind<T>::X* x, long width, v16* y) {
    for (int i = 0; i < count; i++) y[i] = v16{};
    switch (rows) {
        case 1: return pairs<T, 1>(a, b, step, count, x, width, y);
        case 2: return pairs<T, 2>(a, b, step, count, x, width, y);
        case 3: return pairs<T, 3>(a, b, step, count, x, width, y);
        case 4: return pairs<T, 4>(a, b, step, count, x, width, y);
        case 5: return pairs<T, 5>(a, b, step, count, x, width, y);
        case 6: return pairs<T, 6>(a, b, step, count, x, width, y);
        case 7: return pairs<T, 7>(a, b, step, count, x, width, y);
        default: return pairs<T, 8>(a, b, step, count, x, width, y);
    }
}

// Kinds of work in a layer; each has a counter of pieces taken for every thread's share, and one of pieces done.
enum Work { kQ, kK, kV, kRotate, kAttend, kO, kGateUp, kDown, kWorks };
static int64_t num_counters(int layers) { return int64_t(kWorks) * layers + 1; }

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

// Room for max_rows rows, in floats: x, qkv, and three buffers of activations; then the counters, 32 bits each.
int64_t scratch_floats(const Shape* s) {
    int64_t heads = int64_t(s->heads + 2 * s->kv_heads) * s->head_dim;
    return s->max_rows * (s->hidden + heads + 2 * int64_t(s->heads) * s->head_dim + s->ffn) + (kMaxThreads + 1) * num_counters(s->layers);
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
        taken_ = (std::atomic<int32_t>*)((float*)act_ + long(s.max_rows) * s.ffn);
        done_ = taken_ + kMaxThreads * num_counters(s.layers);
        memset((void*)taken_, 0, sizeof(int32_t) * (kMaxThreads + 1) * num_counters(s.layers));
    }

    void run(const T* embeds, const T* final_norm, const T* head, const int32_t* wanted, int num_wanted, float* logits, int threads) {
        threads_ = threads < kMaxThreads ? threads : kMaxThreads;
        for (long i = 0; i < long(b_.rows) * s_.hidden; i++) x_[i] = to_float(embeds[i]);
#pragma omp parallel num_threads(threads_)
        {
            X* own = new (std::align_val_t(64)) X[long(b_.rows > num_wanted ? b_.rows : num_wanted) * s_.hidden];
            for (int l = 0; l < s_.layers; l++) layer(l, own);
            normalise_rows(final_norm, own, wanted, num_wanted);
            linear(kWorks * s_.layers, head, nullptr, own, num_wanted, s_.hidden, s_.vocabulary,
                   [&](int row, long n, float y) { logits[row * long(s_.vocabulary) + n] = y; });
            operator delete[](own, std::align_val_t(64));
        }
    }

  private:
    void layer(int l, X* own) {
        const Layer& w = layers_[l];
        const int base = kWorks * l;
        const long heads = q_width_ + 2 * kv_width_;
        const auto add = [&](int row, long n, float y) { x_[row * long(s_.hidden) + n] += y; };
        const auto store = [&](long first) {
            return [=](int row, long n, float y) { qkv_[row * heads + first + n] = y; };
        };
        normalise_rows((const T*)w.norm1, own, nullptr, b_.rows);
        linear(base + kQ, (const T*)w.q, (const T*)w.q_bias, own, b_.rows, s_.hidden, q_width_, store(0));
        linear(base + kK, (const T*)w.k, (const T*)w.k_bias, own, b_.rows, s_.hidden, kv_width_, store(q_width_));
        linear(base + kV, (const T*)w.v, (const T*)w.v_bias, own, b_.rows, s_.hidden, kv_width_, store(q_width_ + kv_width_));
        expect(l, share_start(omp_get_thread_num(), num_items()));
        wait(base + kQ, pieces((q_width_ + 1) / 2));
        wait(base + kK, pieces((kv_width_ + 1) / 2));
        wait(base + kV, pieces((kv_width_ + 1) / 2));
        share(base + kRotate, b_.rows, [&](int row) { rotate(l, row); });
        wait(base + kRotate, b_.rows);
        attend_all(l, base + kAttend);
        prepare(w.o, 2 * q_width_, (s_.hidden + 1) / 2);
        wait(base + kAttend, num_items());
        linear(base + kO, (const T*)w.o, (const T*)w.o_bias, mixed_, b_.rows, q_width_, s_.hidden, add);
        prepare(w.gate, s_.hidden, s_.ffn);
        prepare(w.up, s_.hidden, s_.ffn);
        wait(base + kO, pieces((s_.hidden + 1) / 2));
        normalise_rows((const T*)w.norm2, own, nullptr, b_.rows);
        gate_up(base + kGateUp, (const T*)w.gate, (const T*)w.up, own);
        prepare(w.down, 2 * long(s_.ffn), (s_.hidden + 1) / 2);
        wait(base + kGateUp, pieces(s_.ffn));
        linear(base + kDown, (const T*)w.down, nullptr, act_, b_.rows, s_.ffn, s_.hidden, add);
        if (l + 1 < s_.layers) prepare(layers_[l + 1].q, 2 * long(s_.hidden), (q_width_ + 1) / 2);
        wait(base + kDown, pieces((s_.hidden + 1) / 2));
    }

    // body(i) for i < count. Every thread begins with a share of its own, in order, so that what it calls
    // for ahead is what it will use; then it helps the others.
    template <class Body>
    void share(int counter, int count, Body body) {
        const int me = omp_get_thread_num();
        for (int turn = 0; turn < threads_; turn++) {
            const int owner = (me + turn) % threads_, first = share_start(owner, count), end = share_start(owner + 1, count);
            std::atomic<int32_t>& taken = taken_[counter * kMaxThreads + owner];
            for (int i; (i = first + taken.fetch_add(1, std::memory_order_relaxed)) < end;) {
                body(i);
                done_[counter].fetch_add(1, std::memory_order_release);
            }
        }
    }

    int share_start(int thread, int count) const { return int(long(thread) * count / threads_); }

    // Calls for the first weights of this thread's share of work in units of `width` values.
    void prepare(const void* weights, long width, long units) const {
        const long first = piece(units) * share_start(omp_get_thread_num(), pieces(units));
        const char* start = (const char*)((const T*)weights + first * width);
        for (long i = 0; i < kAheadBytes; i += 64) __builtin_prefetch(start + i, 0, 2);
    }

    void wait(int counter, int count) const {
        for (int turn = 0; done_[counter].load(std::memory_order_acquire) < count; turn++) {
            if (turn < kSpins)
                __asm__ volatile("" ::: "memory");
            else
                sched_yield();
        }
    }

    // out(row, n, y) for every row of x [rows, width] and row n of w [count, width].
    template <class Out>
    void linear(int counter, const T* w, const T* bias, const X* x, int rows, long width, long count, Out out) {
        const long units = (count + 1) / 2, size = piece(units);
        share(counter, pieces(units), [&](int turn) {
            const long i0 = size * turn, end = units - i0 < size ? units : i0 + size;
            const bool has_single = end == units && count % 2;
            multiply(w, bias, x, rows, width, i0, int(end - i0) - has_single, true, out);
            // A last row without a partner is paired with itself.
            if (has_single) multiply(w, bias, x, rows, width, end - 1, 1, false, out);
        });
    }

    template <class Out>
    void multiply(const T* w, const T* bias, const X* x, int rows, long width, long i0, int found, bool has_second, Out out) {
        v16 y[kMaxPairs];
        const T* a = w + 2 * i0 * width;
        for (int first = 0; first < rows; first += kGroup) {
            const int m = rows - first < kGroup ? rows - first : kGroup;
            pairs_of<T>(m, a, has_second ? a + width : a, 2 * width, found, x + first * width, width, y);
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

    void gate_up(int counter, const T* gate, const T* up, const X* x) {
        const long size = piece(s_.ffn);
        share(counter, pieces(s_.ffn), [&](int turn) {
            v16 y[kMaxPairs];
            const long n0 = size * turn, from = n0 * s_.hidden;
            const int found = int(s_.ffn - n0 < size ? s_.ffn - n0 : size);
            for (int first = 0; first < b_.rows; first += kGroup) {
                const int m = b_.rows - first < kGroup ? b_.rows - first : kGroup;
                pairs_of<T>(m, gate + from, up + from, s_.hidden, found, x + long(first) * s_.hidden, s_.hidden, y);
                for (int i = 0; i < found; i++) {
                    alignas(64) float silu[16], lanes[16];
                    put16(silu, silu16(y[i]));
                    put16(lanes, y[i]);
                    for (int r = 0; r < m; r++) put(act_ + (first + r) * long(s_.ffn) + n0 + i, silu[r] * lanes[8 + r]);
                }
            }
        });
    }

    // Pairs of weight rows that a thread takes at a time.
    long piece(long count) const {
        const long size = (count + threads_ * kPiecesPerThread - 1) / (threads_ * kPiecesPerThread);
        return size > kMaxPairs ? kMaxPairs : size < 1 ? 1 : size;
    }

    int pieces(long count) const { return int((count + piece(count) - 1) / piece(count)); }

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

    // Work items of attention: a row with some of its KV heads, enough items to keep all threads busy.
    int heads_per_item() const {
        const int wanted = s_.kv_heads * b_.rows / (threads_ * kPiecesPerThread);
        return wanted < 1 ? 1 : wanted > s_.kv_heads ? s_.kv_heads : wanted;
    }

    int num_items() const { return b_.rows * ((s_.kv_heads + heads_per_item() - 1) / heads_per_item()); }

    void attend_all(int l, int counter) {
        const int size = heads_per_item(), per_row = (s_.kv_heads + size - 1) / size;
        share(counter, num_items(), [&](int item) {
            const int first = item % per_row * size;
            attend(l, item / per_row, first, first + size < s_.kv_heads ? first + size : s_.kv_heads, item + 1);
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

    // The query heads of one row that share KV heads first..end-1; softmax on the way, kContext tokens at a
    // time. While one stretch of tokens is attended to, the next one's keys and values are called for.
    void attend(int l, int row, int first_head, int end_head, int next_item) {
        const int d = s_.head_dim, group = s_.heads / s_.kv_heads, length = b_.lengths[row];
        const T* keys = pool_ + 2 * l * b_.plane_elements;
        const T* values = keys + b_.plane_elements;
        alignas(64) float scores[kMaxHeadsPerKv][kContext];
        long places[2][kContext];
        float *out = sums(row, first_head * group), top[kMaxHeads], total[kMaxHeads];
        memset(out, 0, sizeof(float) * (end_head - first_head) * group * d);
        for (int g = 0; g < (end_head - first_head) * group; g++) top[g] = -INFINITY, total[g] = 0;
        int count = locate(row, 0, places[0]), turn = 0;
        for (int first = 0; first < length; first += kContext, turn ^= 1) {
            const long *where = places[turn], *next = places[turn ^ 1];
            const int num_next = locate(row, first + kContext, places[turn ^ 1]);
            if (num_next == 0) expect(l, next_item);
            for (int h = first_head; h < end_head; h++) {
                const int g0 = (h - first_head) * group;
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
    const Layer* layers_;
    const Batch& b_;
    T* pool_;
    const long q_width_, kv_width_;
    float *x_, *qkv_;
    X *q_, *mixed_, *act_;
    std::atomic<int32_t>*taken_, *done_;
    int threads_ = 1;
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
