// The activations of a few-rows step and its counters, in room that the caller keeps.

#pragma once

#include <atomic>

#include "arguments.h"
#include "team.h"

// X: how activations are held beside the weights.
template <class X>
struct Scratch {
    float *x, *qkv;      // [max_rows, hidden], [max_rows, queries, keys and values]
    X *q, *mixed, *act;  // [max_rows, q_width] twice, [max_rows, ffn]; in room for floats
    std::atomic<int32_t>* counters;

    Scratch(const Shape& s, float* room) {
        x = room;
        qkv = x + long(s.max_rows) * s.hidden;
        q = (X*)(qkv + s.max_rows * (s.q_width() + 2 * s.kv_width()));
        mixed = (X*)((float*)q + s.max_rows * s.q_width());
        act = (X*)((float*)mixed + s.max_rows * s.q_width());
        counters = (std::atomic<int32_t>*)((float*)act + long(s.max_rows) * s.ffn);
    }
};

// In floats, for so many kinds of work; counters have 32 bits each.
inline int64_t scratch_size(const Shape& s, int64_t kinds) {
    const int64_t heads = s.q_width() + 2 * s.kv_width();
    return s.max_rows * (s.hidden + heads + 2 * s.q_width() + s.ffn) + Team::num_counters(kinds);
}
