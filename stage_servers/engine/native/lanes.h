// Sixteen floats at a time, on any processor that GCC or Clang knows; bfloat16 in and out.

#pragma once

#include <omp.h>

#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>
#ifdef __AVX512F__
#include <immintrin.h>
#endif

typedef float v16 __attribute__((vector_size(64)));
typedef uint32_t u32x16 __attribute__((vector_size(64)));
typedef int32_t i32x16 __attribute__((vector_size(64)));
typedef uint16_t u16x16 __attribute__((vector_size(32)));

struct bf16 {
    uint16_t bits;
};

static inline v16 load(const float* p) {
    v16 v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline v16 load(const bf16* p) {
#ifdef __AVX512F__
    // The compiler's own conversion goes by halves.
    const __m512i whole = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p));
    return (v16)_mm512_castsi512_ps(_mm512_slli_epi32(whole, 16));
#else
    u16x16 half;
    memcpy(&half, p, sizeof half);
    u32x16 wide = __builtin_convertvector(half, u32x16) << 16;
    v16 v;
    memcpy(&v, &wide, sizeof v);
    return v;
#endif
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
#ifdef __AVX512BF16__
    const __m256bh rounded = _mm512_cvtneps_pbh((__m512)v);
    memcpy(p, &rounded, sizeof rounded);
#else
    u32x16 u;
    memcpy(&u, &v, sizeof u);
    u = (u + 0x7fff + ((u >> 16) & 1)) >> 16;
    u16x16 half = __builtin_convertvector(u, u16x16);
    memcpy(p, &half, sizeof half);
#endif
}

// How activations are held beside weights of type T, and how many values one multiply-add takes in.
template <class T>
struct Kind {
    using X = float;
    using V = v16;
    static constexpr int step = 16;
    static inline V read(const float* p) { return load(p); }
    static inline V read(const bf16* p) { return load(p); }
    static inline v16 madd(v16 acc, V x, V w) { return acc + x * w; }
};

#ifdef __AVX512BF16__
template <>
struct Kind<bf16> {
    using X = bf16;
    using V = __m512i;
    static constexpr int step = 32;
    static inline V read(const bf16* p) { return _mm512_loadu_si512(p); }
    static inline v16 madd(v16 acc, V x, V w) { return (v16)_mm512_dpbf16_ps((__m512)acc, (__m512bh)x, (__m512bh)w); }
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

static inline v16 silu16(v16 x) { return x / (1.0f + exp16(-x < 88.0f ? -x : splat(88.0f))); }

// Halves of two vectors, brought together by groups of 8, 4, 2 and 1 lanes.
#define LOW8 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23
#define HIGH8 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31
#define LOW4 0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27
#define HIGH4 4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31
#define LOW2 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29
#define HIGH2 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31
#define LOW1 0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30
#define HIGH1 1, 17, 3, 19, 5, 21, 7, 23, 9, 25, 11, 27, 13, 29, 15, 31

// Lane i of the result is the sum of a[i]'s lanes.
static inline v16 reduce16(v16* a) {
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) a[i] = __builtin_shufflevector(a[i], a[i + 8], LOW8) + __builtin_shufflevector(a[i], a[i + 8], HIGH8);
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) a[i] = __builtin_shufflevector(a[i], a[i + 4], LOW4) + __builtin_shufflevector(a[i], a[i + 4], HIGH4);
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++) a[i] = __builtin_shufflevector(a[i], a[i + 2], LOW2) + __builtin_shufflevector(a[i], a[i + 2], HIGH2);
    return __builtin_shufflevector(a[0], a[1], LOW1) + __builtin_shufflevector(a[0], a[1], HIGH1);
}

static inline float sum16(v16 v) {
#ifdef __AVX512F__
    return _mm512_reduce_add_ps((__m512)v);
#else
    float s = 0;
    for (int i = 0; i < 16; i++) s += v[i];
    return s;
#endif
}

static inline float max16(v16 v) {
#ifdef __AVX512F__
    return _mm512_reduce_max_ps((__m512)v);
#else
    float most = v[0];
    for (int i = 1; i < 16; i++) most = v[i] > most ? v[i] : most;
    return most;
#endif
}

// Row i becomes column i.
static inline void transpose16(v16* a) {
    v16 b[16];
#define SWAP(from, to, n, distance) \
    for (int i = 0; i < 16; i++) \
        if (!(i & distance)) { \
            to[i] = __builtin_shufflevector(from[i], from[i + distance], LOW##n); \
            to[i + distance] = __builtin_shufflevector(from[i], from[i + distance], HIGH##n); \
        }
#pragma GCC unroll 16
    SWAP(a, b, 8, 8)
#pragma GCC unroll 16
    SWAP(b, a, 4, 4)
#pragma GCC unroll 16
    SWAP(a, b, 2, 2)
#pragma GCC unroll 16
    SWAP(b, a, 1, 1)
#undef SWAP
}
