// Passes over many rows of activations that do at once what several tensor operations do.

#include "lanes.h"

constexpr long kWorthThreads = 16384;  // values, below which one thread is as fast

// out = x / rms(x) * weight, row by row; width a multiple of 16.
template <class T>
static void rms_norm(const T* x, const T* weight, T* out, int64_t rows, int64_t width, float eps, int threads) {
#pragma omp parallel for num_threads(threads) if (rows * width > kWorthThreads)
    for (int64_t row = 0; row < rows; row++) {
        const T* from = x + row * width;
        v16 squares = {};
        for (int64_t i = 0; i < width; i += 16) squares += load(from + i) * load(from + i);
        const float factor = 1.0f / std::sqrt(sum16(squares) / width + eps);
        for (int64_t i = 0; i < width; i += 16) put16(out + row * width + i, load(from + i) * factor * load(weight + i));
    }
}

// out = silu(gate) * up; count a multiple of 16.
template <class T>
static void silu_times(const T* gate, const T* up, T* out, int64_t count, int threads) {
#pragma omp parallel for num_threads(threads) if (count > kWorthThreads)
    for (int64_t i = 0; i < count; i += 16) put16(out + i, silu16(load(gate + i)) * load(up + i));
}

extern "C" {

void rms_norm_float32(const float* x, const float* weight, float* out, int64_t rows, int64_t width, float eps, int32_t threads) {
    rms_norm(x, weight, out, rows, width, eps, threads);
}

void rms_norm_bfloat16(const bf16* x, const bf16* weight, bf16* out, int64_t rows, int64_t width, float eps, int32_t threads) {
    rms_norm(x, weight, out, rows, width, eps, threads);
}

void silu_times_float32(const float* gate, const float* up, float* out, int64_t count, int32_t threads) {
    silu_times(gate, up, out, count, threads);
}

void silu_times_bfloat16(const bf16* gate, const bf16* up, bf16* out, int64_t count, int32_t threads) {
    silu_times(gate, up, out, count, threads);
}
}
