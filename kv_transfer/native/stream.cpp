// Copies rows past the caches: for payloads that whoever reads them next would not find in a cache anyway.
//
// A plain store first reads the line it overwrites; a streaming store does not, which saves a third of the
// memory traffic. memcpy knows that too, but only from payloads on that are larger than any row of ours.
// Streaming runs fast where several pages are under way at once, hence the lanes: consecutive pages of a
// long row, or the same bytes of consecutive rows where rows are short.

#include <cstdint>
#include <cstring>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace {

constexpr int kLanes = 4;
constexpr int64_t kLine = 64;
constexpr int64_t kPage = 4096;

#if defined(__SSE2__)

// `size` bytes of each lane; targets begin on a line, `size` is in lines. What lies `ahead` is fetched meanwhile.
void stream_lanes(char* to, const char* from, int64_t to_step, int64_t from_step, int64_t size, int64_t ahead) {
    for (int64_t at = 0; at < size; at += kLine) {
        for (int lane = 0; lane < kLanes; lane++) {
            const char* source = from + lane * from_step + at;
            char* target = to + lane * to_step + at;
            const __m128i* words = reinterpret_cast<const __m128i*>(source);
            const __m128i a = _mm_loadu_si128(words), b = _mm_loadu_si128(words + 1);
            const __m128i c = _mm_loadu_si128(words + 2), d = _mm_loadu_si128(words + 3);
            _mm_prefetch(source + ahead, _MM_HINT_T0);
            __m128i* out = reinterpret_cast<__m128i*>(target);
            _mm_stream_si128(out, a);
            _mm_stream_si128(out + 1, b);
            _mm_stream_si128(out + 2, c);
            _mm_stream_si128(out + 3, d);
        }
    }
}

void stream_row(char* to, const char* from, int64_t size) {
    int64_t head = (kLine - reinterpret_cast<uintptr_t>(to) % kLine) % kLine;
    if (head > size) head = size;
    std::memcpy(to, from, head);
    int64_t at = head;
    for (; at + kLanes * kPage <= size; at += kLanes * kPage)
        stream_lanes(to + at, from + at, kPage, kPage, kPage, kLanes * kPage);
    std::memcpy(to + at, from + at, size - at);
}

bool is_on_lines(const char* to, int64_t to_step, int64_t size) {
    return (reinterpret_cast<uintptr_t>(to) | static_cast<uint64_t>(to_step | size)) % kLine == 0;
}

// Rows shorter than the pages of all lanes.
int64_t stream_short_rows(char* to, const char* from, int64_t rows, int64_t to_step, int64_t from_step, int64_t size) {
    int64_t row = 0;
    if (size < kLanes * kPage && is_on_lines(to, to_step, size))
        for (; row + kLanes <= rows; row += kLanes)
            stream_lanes(to + row * to_step, from + row * from_step, to_step, from_step, size, kLanes * from_step);
    return row;
}

#else

void stream_row(char* to, const char* from, int64_t size) { std::memcpy(to, from, size); }
int64_t stream_short_rows(char*, const char*, int64_t, int64_t, int64_t, int64_t) { return 0; }

#endif

}  // namespace

extern "C" void stream_rows(char* to, const char* from, int64_t rows, int64_t to_step, int64_t from_step, int64_t size) {
    for (int64_t row = stream_short_rows(to, from, rows, to_step, from_step, size); row < rows; row++)
        stream_row(to + row * to_step, from + row * from_step, size);
#if defined(__SSE2__)
    _mm_sfence();  // streamed bytes are there before anything that this thread does next is seen
#endif
}
