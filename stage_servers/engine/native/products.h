// Products of weight rows with a few rows of activations, in vectors.

#pragma once

#include "lanes.h"

constexpr int kGroup = 8;             // rows of activations held in registers at a time
constexpr long kInnerBytes = 24576;   // of activations that stay in the first-level cache
constexpr long kAheadBytes = 16384;   // how far ahead weights are called for

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
