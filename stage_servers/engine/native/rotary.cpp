// Rotary positions of many rows, in the same pass in which keys and values go to the pool.

#include "lanes.h"

constexpr int kMaxHeadDim = 512;

extern "C" {

struct Heads {
    const float *cos, *sin;       // [rows, head_dim]
    const int64_t* slots;         // [rows] where the row's KV goes, in tokens
    const void *q_norm, *k_norm;  // [head_dim], may be null
    int32_t rows, heads, kv_heads, head_dim;
    float eps;
};
}

// Norms (where there is a weight) and turns one head; half of its values are paired with the other half.
template <class T>
static void rotate_head(const Heads& h, const T* from, const void* norm, int64_t row, T* to) {
    const int d = h.head_dim, half = d / 2;
    const float *cos = h.cos + row * d, *sin = h.sin + row * d;
    alignas(64) float head[kMaxHeadDim], turned[kMaxHeadDim];
    for (int i = 0; i < d; i += 16) put16(head + i, load(from + i));
    if (norm) {
        v16 squares = {};
        for (int i = 0; i < d; i += 16) squares += load(head + i) * load(head + i);
        const float factor = 1.0f / std::sqrt(sum16(squares) / d + h.eps);
        for (int i = 0; i < d; i += 16) put16(head + i, load(head + i) * factor * load((const T*)norm + i));
    }
    for (int i = 0; i < half; i++) {
        turned[i] = head[i] * cos[i] - head[i + half] * sin[i];
        turned[i + half] = head[i + half] * cos[i + half] + head[i] * sin[i + half];
    }
    for (int i = 0; i < d; i += 16) put16(to + i, load(turned + i));
}

// query [rows, heads, head_dim] is turned in place; key and value [rows, kv_heads, head_dim] go to the planes.
template <class T>
static void rotate_rows(const Heads& h, T* query, const T* key, const T* value, T* keys, T* values, int threads) {
    const int64_t d = h.head_dim, kv_width = h.kv_heads * d;
#pragma omp parallel for num_threads(threads)
    for (int64_t row = 0; row < h.rows; row++) {
        for (int i = 0; i < h.heads; i++) {
            T* head = query + (row * h.heads + i) * d;
            rotate_head(h, head, h.q_norm, row, head);
        }
        for (int i = 0; i < h.kv_heads; i++)
            rotate_head(h, key + row * kv_width + i * d, h.k_norm, row, keys + h.slots[row] * kv_width + i * d);
        memcpy(values + h.slots[row] * kv_width, value + row * kv_width, sizeof(T) * kv_width);
    }
}

extern "C" {

void rotate_rows_float32(const Heads* h, void* q, const void* k, const void* v, void* keys, void* values, int32_t threads) {
    rotate_rows(*h, (float*)q, (const float*)k, (const float*)v, (float*)keys, (float*)values, threads);
}

void rotate_rows_bfloat16(const Heads* h, void* q, const void* k, const void* v, void* keys, void* values, int32_t threads) {
    rotate_rows(*h, (bf16*)q, (const bf16*)k, (const bf16*)v, (bf16*)keys, (bf16*)values, threads);
}
}
