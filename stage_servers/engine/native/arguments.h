// What a few-rows step is given: the model's shape, where its weights lie, and the rows.

#pragma once

#include <cstdint>

extern "C" {

// Addresses of one layer's weights; biases and head norms may be null.
struct Layer {
    const void *norm1, *q, *k, *v, *o, *q_bias, *k_bias, *v_bias, *o_bias, *q_norm, *k_norm, *norm2, *gate, *up, *down;
};

struct Shape {
    int32_t layers, hidden, heads, kv_heads, head_dim, ffn, vocabulary, max_rows;
    float eps, scale;

    long q_width() const { return long(heads) * head_dim; }
    long kv_width() const { return long(kv_heads) * head_dim; }
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
}
