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

#include <algorithm>
#include <optional>
#include <type_traits>

#include "products.h"
#include "tiles.h"

constexpr int kTileRows = 3;          // from so many rows on the processor's matrix tiles are the faster way
constexpr int kMaxPairs = 96;         // pairs of weight rows in a piece of work
constexpr int kPiecesPerThread = 4;   // so that a thread that was held up delays the others little
constexpr int kMaxThreads = 64;
constexpr int kSpins = 20000;         // before a waiting thread lets others have its processor
constexpr int kContext = 64;          // tokens attended to at a time
constexpr int kMaxHeadsPerKv = 16;
constexpr int kMaxHeads = 256;

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
        : s_(s), layers_(layers), b_(b), pool_(pool), q_width_(long(s.heads) * s.head_dim), kv_width_(long(s.kv_heads) * s.head_dim), has_tiles_(are_tiles_for(b.rows)) {
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
#ifdef HAS_TILES
            std::optional<Tiles> tiles;
            if (has_tiles_) tiles.emplace();
#endif
            Room room(long(b_.rows > num_wanted ? b_.rows : num_wanted) * s_.hidden, has_tiles_ ? panel_floats() : 0);
            for (int l = 0; l < s_.layers; l++) layer(l, room);
            normalise_rows(final_norm, room.own, wanted, num_wanted);
            linear(kWorks * s_.layers, head, nullptr, input(room.own, num_wanted, s_.hidden, room), s_.vocabulary,
                   [&](int row, long n, float y) { logits[row * long(s_.vocabulary) + n] = y; });
        }
    }

  private:
    static bool are_tiles_for(int rows) {
#ifdef HAS_TILES
        return std::is_same_v<X, bf16> && rows >= kTileRows && may_use_tiles();
#else
        return false && rows;
#endif
    }

    // What a thread has for itself: normed rows, and rows packed for the tiles.
    struct Room {
        X* own;
        float* panels;
        Room(long own_values, long panel_floats)
            : own(new (std::align_val_t(64)) X[own_values]), panels(new (std::align_val_t(64)) float[panel_floats]) {}
        ~Room() {
            operator delete[](own, std::align_val_t(64));
            operator delete[](panels, std::align_val_t(64));
        }
        Room(const Room&) = delete;
    };

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

    void layer(int l, Room& room) {
        const Layer& w = layers_[l];
        const int base = kWorks * l;
        const long heads = q_width_ + 2 * kv_width_;
        const auto add = [&](int row, long n, float y) { x_[row * long(s_.hidden) + n] += y; };
        const auto store = [&](long first) {
            return [=](int row, long n, float y) { qkv_[row * heads + first + n] = y; };
        };
        normalise_rows((const T*)w.norm1, room.own, nullptr, b_.rows);
        const Input normed = input(room.own, b_.rows, s_.hidden, room);
        linear(base + kQ, (const T*)w.q, (const T*)w.q_bias, normed, q_width_, store(0));
        linear(base + kK, (const T*)w.k, (const T*)w.k_bias, normed, kv_width_, store(q_width_));
        linear(base + kV, (const T*)w.v, (const T*)w.v_bias, normed, kv_width_, store(q_width_ + kv_width_));
        expect(l, share_start(omp_get_thread_num(), num_items()));
        wait(base + kQ, split(q_width_).pieces);
        wait(base + kK, split(kv_width_).pieces);
        wait(base + kV, split(kv_width_).pieces);
        share(base + kRotate, b_.rows, [&](int row) { rotate(l, row); });
        wait(base + kRotate, b_.rows);
        attend_all(l, base + kAttend, room);
        prepare(w.o, q_width_, split(s_.hidden));
        wait(base + kAttend, num_items());
        linear(base + kO, (const T*)w.o, (const T*)w.o_bias, input(mixed_, b_.rows, q_width_, room), s_.hidden, add);
        prepare(w.gate, s_.hidden, split_gate());
        prepare(w.up, s_.hidden, split_gate());
        wait(base + kO, split(s_.hidden).pieces);
        normalise_rows((const T*)w.norm2, room.own, nullptr, b_.rows);
        gate_up(base + kGateUp, (const T*)w.gate, (const T*)w.up, input(room.own, b_.rows, s_.hidden, room));
        prepare(w.down, s_.ffn, split(s_.hidden));
        wait(base + kGateUp, split_gate().pieces);
        linear(base + kDown, (const T*)w.down, nullptr, input(act_, b_.rows, s_.ffn, room), s_.hidden, add);
        if (l + 1 < s_.layers) prepare(layers_[l + 1].q, s_.hidden, split(q_width_));
        wait(base + kDown, split(s_.hidden).pieces);
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

    // Calls for the first weights of this thread's share of a matrix of rows of `width` values.
    void prepare(const void* weights, long width, const Split& split) const {
        const long first = split.unit * split.size * share_start(omp_get_thread_num(), split.pieces);
        const char* start = (const char*)((const T*)weights + first * width);
        const long size = kAheadBytes;
        for (long i = 0; i < size; i += 64) __builtin_prefetch(start + i, 0, 2);
    }

    void wait(int counter, int count) const {
        for (int turn = 0; done_[counter].load(std::memory_order_acquire) < count; turn++) {
            if (turn < kSpins)
                __asm__ volatile("" ::: "memory");
            else
                sched_yield();
        }
    }

    Input input(const X* x, int rows, long width, Room& room) const {
#ifdef HAS_TILES
        if constexpr (std::is_same_v<X, bf16>)
            if (has_tiles_) pack_columns(x, rows, width, room.panels);
#endif
        return {x, rows, width, room.panels};
    }

    long panel_floats() const {
        long most = s_.hidden > s_.ffn ? s_.hidden : s_.ffn;
        most = most > q_width_ ? most : q_width_;
        return most / 2 * kTile * ((b_.rows + kTile - 1) / kTile);
    }

    // Pairs of rows for the vectors; for tiles two tiles' rows, be they of one matrix or of gate and up.
    Split split(long count) const { return split(count, 2, 2 * kTile, kMaxPairs); }
    Split split_gate() const { return split(s_.ffn, 1, kTile, kMaxPairs); }

    Split split(long count, long few, long many, long most) const {
        const bool is_tiled = has_tiles_ && count % many == 0;
        const long unit = is_tiled ? many : few, units = (count + unit - 1) / unit;
        long size = (units + threads_ * kPiecesPerThread - 1) / (threads_ * kPiecesPerThread);
        size = size > most ? most : size < 1 ? 1 : size;
        return {unit, units, size, int((units + size - 1) / size), is_tiled};
    }

    // body(first unit, number of units) for the pieces that fall to this thread.
    template <class Body>
    void share_units(int counter, const Split& split, Body body) {
        share(counter, split.pieces, [&](int turn) {
            const long first = split.size * turn, left = split.units - first;
            body(first, int(left < split.size ? left : split.size));
        });
    }

    // out(row, n, y) for every row of the input and row n of w [count, width].
    template <class Out>
    void linear(int counter, const T* w, const T* bias, const Input& in, long count, Out out) {
        const Split parts = split(count);
        share_units(counter, parts, [&](long i0, int found) {
            if (parts.is_tiled) {
                multiply_tiled(w, bias, in, i0, found, out);
                return;
            }
            const bool has_single = i0 + found == parts.units && count % 2;
            multiply(w, bias, in, i0, found - has_single, true, out);
            // A last row without a partner is paired with itself.
            if (has_single) multiply(w, bias, in, i0 + found - 1, 1, false, out);
        });
    }

    // y[p][i][n] of multiply_tiles, for the units first..first+found-1; body(unit, y).
    template <class Body>
    void tiled(const T* a, const T* b, long step, const Input& in, long first, int found, Body body) {
#ifdef HAS_TILES
        if constexpr (std::is_same_v<X, bf16>) {
            alignas(64) float y[2][2 * kTile][kTile];
            for (long unit = first; unit < first + found; unit++) {
                const long at = unit * step * in.width, ahead = step * in.width;
                if (in.rows > kTile)
                    multiply_tiles<2>(a + at, b + at, in.width, ahead, in.panels, y);
                else
                    multiply_tiles<1>(a + at, b + at, in.width, ahead, in.panels, y);
                body(unit, y);
            }
        }
#endif
    }

    template <class Out>
    void multiply_tiled(const T* w, const T* bias, const Input& in, long first, int found, Out out) {
        tiled(w, w + kTile * in.width, 2 * kTile, in, first, found, [&](long unit, float (*y)[2 * kTile][kTile]) {
            for (int i = 0; i < 2 * kTile; i++) {
                const long n = unit * 2 * kTile + i;
                const float shift = bias ? to_float(bias[n]) : 0.0f;
                for (int r = 0; r < in.rows; r++) out(r, n, y[r / kTile][i][r % kTile] + shift);
            }
        });
    }

    template <class Out>
    void multiply(const T* w, const T* bias, const Input& in, long i0, int found, bool has_second, Out out) {
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

    void gate_up(int counter, const T* gate, const T* up, const Input& in) {
        const Split parts = split_gate();
        share_units(counter, parts, [&](long n0, int found) {
            if (parts.is_tiled)
                gate_up_tiled(gate, up, in, n0, found);
            else
                gate_up_pairs(gate, up, in, n0, found);
        });
    }

    void gate_up_pairs(const T* gate, const T* up, const Input& in, long n0, int found) {
        v16 y[kMaxPairs];
        const long from = n0 * s_.hidden;
        for (int first = 0; first < in.rows; first += kGroup) {
            const int m = in.rows - first < kGroup ? in.rows - first : kGroup;
            pairs_of<T>(m, gate + from, up + from, s_.hidden, found, in.x + long(first) * s_.hidden, s_.hidden, y);
            for (int i = 0; i < found; i++) {
                alignas(64) float silu[16], lanes[16];
                put16(silu, silu16(y[i]));
                put16(lanes, y[i]);
                for (int r = 0; r < m; r++) put(act_ + (first + r) * long(s_.ffn) + n0 + i, silu[r] * lanes[8 + r]);
            }
        }
    }

    void gate_up_tiled(const T* gate, const T* up, const Input& in, long first, int found) {
        tiled(gate, up, kTile, in, first, found, [&](long unit, float (*y)[2 * kTile][kTile]) {
            for (int r0 = 0, p = 0; r0 < in.rows; r0 += kTile, p++) {
                v16 block[kTile];
                for (int i = 0; i < kTile; i++) block[i] = silu16(load(y[p][i])) * load(y[p][kTile + i]);
                transpose16(block);
                for (int r = 0; r < kTile && r0 + r < in.rows; r++) put16(act_ + (r0 + r) * long(s_.ffn) + unit * kTile, block[r]);
            }
        });
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

    // Work items of attention: a row with some of its KV heads, enough items to keep all threads busy.
    int heads_per_item() const {
        const int wanted = s_.kv_heads * b_.rows / (threads_ * kPiecesPerThread);
        return wanted < 1 ? 1 : wanted > s_.kv_heads ? s_.kv_heads : wanted;
    }

    int num_items() const { return b_.rows * ((s_.kv_heads + heads_per_item() - 1) / heads_per_item()); }

    void attend_all(int l, int counter, Room& room) {
        const int size = heads_per_item(), per_row = (s_.kv_heads + size - 1) / size;
        share(counter, num_items(), [&](int item) {
            const int first = item % per_row * size;
            attend(l, item / per_row, first, first + size < s_.kv_heads ? first + size : s_.kv_heads, item + 1, room.panels);
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
    const Layer* layers_;
    const Batch& b_;
    T* pool_;
    const long q_width_, kv_width_;
    const bool has_tiles_;
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
