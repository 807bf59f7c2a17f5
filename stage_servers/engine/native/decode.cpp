// One step of a decoder-only transformer for a few rows (decodes), straight from the mapped weights.
//
// For models made of pre-normed layers: RMS norm, grouped-query attention with half-rotated rotary
// positions over the paged pool, gated SiLU feed-forward. With few rows a step takes the time of
// reading the weights once, if nothing gets in the way: one parallel region for the whole step, work
// handed out in pieces of some 48 KB of weights, activations kept in float.
//
//   x ─ norm ─ qkv ┆ rotate, write to pool ┆ attend ┆ x += o ┆ norm ─ gate, up ┆ x += down ┆ …
//                  ┆ = the threads wait until this is complete
//
// Norms are computed by every thread for itself: that is cheaper than one more wait. A late thread may
// compute one from values that are changing already, but then no work is left that it could use it for.

#include <algorithm>
#include <optional>

#include "arguments.h"
#include "linear.h"
#include "row_attention.h"
#include "scratch.h"

// Kinds of work in a layer; after the layers comes the output head, one more.
enum Work { kQ, kK, kV, kRotate, kAttend, kO, kGateUp, kDown, kWorks };
static int64_t num_kinds(const Shape& s) { return int64_t(kWorks) * s.layers + 1; }

template <class T>
class Step {
    using X = typename Kind<T>::X;

  public:
    Step(const Shape& s, const Layer* layers, const Batch& b, T* pool, float* scratch, int threads)
        : s_(s),
          layers_(layers),
          b_(b),
          pool_(pool),
          q_width_(s.q_width()),
          kv_width_(s.kv_width()),
          has_tiles_(are_tiles_for<X>(b.rows)),
          scratch_(s, scratch),
          team_(threads, scratch_.counters, num_kinds(s)),
          linear_(team_, has_tiles_),
          attention_(s, b, pool, scratch_, team_, has_tiles_) {}
    Step(const Step&) = delete;

    void run(const T* embeds, const T* final_norm, const T* head, const int32_t* wanted, int num_wanted, float* logits) {
        for (long i = 0; i < long(b_.rows) * s_.hidden; i++) scratch_.x[i] = to_float(embeds[i]);
#pragma omp parallel num_threads(team_.threads())
        {
#ifdef HAS_TILES
            std::optional<Tiles> tiles;
            if (has_tiles_) tiles.emplace();
#endif
            const long widest = std::max<long>({s_.hidden, s_.ffn, q_width_});
            Room room(long(std::max(b_.rows, num_wanted)) * s_.hidden, linear_.panel_floats(b_.rows, widest));
            for (int l = 0; l < s_.layers; l++) layer(l, room);
            normalise_rows(final_norm, room.own, wanted, num_wanted);
            linear_.multiply(kWorks * s_.layers, head, nullptr, linear_.input(room.own, num_wanted, s_.hidden, room.panels), s_.vocabulary,
                             [&](int row, long n, float y) { logits[row * long(s_.vocabulary) + n] = y; });
        }
    }

  private:
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

    void layer(int l, Room& room) {
        const Layer& w = layers_[l];
        const int base = kWorks * l;
        const long heads = q_width_ + 2 * kv_width_;
        const auto add = [&](int row, long n, float y) { scratch_.x[row * long(s_.hidden) + n] += y; };
        const auto store = [&](long first) {
            return [=](int row, long n, float y) { scratch_.qkv[row * heads + first + n] = y; };
        };
        normalise_rows((const T*)w.norm1, room.own, nullptr, b_.rows);
        const auto normed = linear_.input(room.own, b_.rows, s_.hidden, room.panels);
        linear_.multiply(base + kQ, (const T*)w.q, (const T*)w.q_bias, normed, q_width_, store(0));
        linear_.multiply(base + kK, (const T*)w.k, (const T*)w.k_bias, normed, kv_width_, store(q_width_));
        linear_.multiply(base + kV, (const T*)w.v, (const T*)w.v_bias, normed, kv_width_, store(q_width_ + kv_width_));
        attention_.expect(l, team_.own_start(attention_.num_items()));
        team_.wait(base + kQ, linear_.split(q_width_).pieces);
        team_.wait(base + kK, linear_.split(kv_width_).pieces);
        team_.wait(base + kV, linear_.split(kv_width_).pieces);
        team_.share(base + kRotate, b_.rows, [&](int row) { rotate(l, row); });
        team_.wait(base + kRotate, b_.rows);
        attention_.run(l, base + kAttend, room.panels);
        linear_.prepare(w.o, q_width_, linear_.split(s_.hidden));
        team_.wait(base + kAttend, attention_.num_items());
        linear_.multiply(base + kO, (const T*)w.o, (const T*)w.o_bias, linear_.input(scratch_.mixed, b_.rows, q_width_, room.panels), s_.hidden, add);
        linear_.prepare(w.gate, s_.hidden, linear_.split_pairs(s_.ffn));
        linear_.prepare(w.up, s_.hidden, linear_.split_pairs(s_.ffn));
        team_.wait(base + kO, linear_.split(s_.hidden).pieces);
        normalise_rows((const T*)w.norm2, room.own, nullptr, b_.rows);
        linear_.gate_up(base + kGateUp, (const T*)w.gate, (const T*)w.up, linear_.input(room.own, b_.rows, s_.hidden, room.panels), s_.ffn, scratch_.act);
        linear_.prepare(w.down, s_.ffn, linear_.split(s_.hidden));
        team_.wait(base + kGateUp, linear_.split_pairs(s_.ffn).pieces);
        linear_.multiply(base + kDown, (const T*)w.down, nullptr, linear_.input(scratch_.act, b_.rows, s_.ffn, room.panels), s_.hidden, add);
        if (l + 1 < s_.layers) linear_.prepare(layers_[l + 1].q, s_.hidden, linear_.split(q_width_));
        team_.wait(base + kDown, linear_.split(s_.hidden).pieces);
    }

    void normalise_rows(const T* weight, X* out, const int32_t* chosen, int count) const {
        for (int i = 0; i < count; i++)
            normalise(scratch_.x + long(chosen ? chosen[i] : i) * s_.hidden, weight, s_.hidden, out + long(i) * s_.hidden);
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
        float* qkv = scratch_.qkv + row * (q_width_ + 2 * kv_width_);
        T* keys = pool_ + 2 * l * b_.plane_elements + b_.slots[row] * kv_width_;
        T* values = keys + b_.plane_elements;
        for (int h = 0; h < s_.heads; h++) rotate_head(qkv + long(h) * d, layers_[l].q_norm, row, scratch_.q + row * q_width_ + long(h) * d);
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

    const Shape& s_;
    const Layer* layers_;
    const Batch& b_;
    T* pool_;
    const long q_width_, kv_width_;
    const bool has_tiles_;
    const Scratch<X> scratch_;
    Team team_;
    Linear<T> linear_;
    RowAttention<T> attention_;
};

extern "C" {

// Whether steps in bfloat16 are multiplied on tiles.
int32_t has_tiles() { return are_tiles_for<Kind<bf16>::X>(kTileRows); }

// Floats of scratch that a step of up to max_rows rows wants.
int64_t scratch_floats(const Shape* s) { return scratch_size(*s, num_kinds(*s)); }

// logits [num_wanted, vocabulary] of the rows `wanted`; embeds [rows, hidden]; scratch as scratch_floats says.
void step_float32(const Shape* s, const Layer* layers, const Batch* b, void* pool, const void* embeds, const void* final_norm,
                  const void* head, const int32_t* wanted, int32_t num_wanted, float* logits, float* scratch, int32_t threads) {
    Step<float>(*s, layers, *b, (float*)pool, scratch, threads).run((const float*)embeds, (const float*)final_norm, (const float*)head, wanted, num_wanted, logits);
}

void step_bfloat16(const Shape* s, const Layer* layers, const Batch* b, void* pool, const void* embeds, const void* final_norm,
                   const void* head, const int32_t* wanted, int32_t num_wanted, float* logits, float* scratch, int32_t threads) {
    Step<bf16>(*s, layers, *b, (bf16*)pool, scratch, threads).run((const bf16*)embeds, (const bf16*)final_norm, (const bf16*)head, wanted, num_wanted, logits);
}
}
