// Carries out a list of copies between two memories, the layout of each end given by steps.
//
// Large lists go past the caches: whoever reads such payloads next would not find them in a cache anyway. A
// plain store first reads the line it overwrites; a streaming store does not, which saves a third of the
// memory traffic. memcpy knows that too, but only from payloads on that are larger than any row of ours.
// Streaming runs fast where several pages are under way at once and each gets some lines at a time, hence the
// lanes: consecutive pages of a long row, or the same bytes of consecutive rows where rows are short.

#include <cstdint>
#include <cstring>
#include <utility>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace {

constexpr int kLanes = 4;
constexpr int kBurst = 4;  // lines of one lane before the next has its turn
constexpr int64_t kLine = 64;
constexpr int64_t kPage = 4096;
constexpr int64_t kMinStreamedRow = 512;  // shorter rows gain nothing

#if defined(__SSE2__)

#if defined(__AVX512F__)
struct Line {
    __m512i bytes;
    void load(const char* from) { bytes = _mm512_loadu_si512(from); }
    void stream(char* to) const { _mm512_stream_si512(reinterpret_cast<__m512i*>(to), bytes); }
};
#else
struct Line {
    __m128i bytes[4];
    void load(const char* from) {
        for (int i = 0; i < 4; i++) bytes[i] = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from) + i);
    }
    void stream(char* to) const {
        for (int i = 0; i < 4; i++) _mm_stream_si128(reinterpret_cast<__m128i*>(to) + i, bytes[i]);
    }
};
#endif

template <int kLines>
void stream_burst(char* to, const char* from, int64_t ahead) {
    Line lines[kLines];
    for (int i = 0; i < kLines; i++) lines[i].load(from + i * kLine);
    for (int i = 0; i < kLines; i++) _mm_prefetch(from + ahead + i * kLine, _MM_HINT_T0);
    for (int i = 0; i < kLines; i++) lines[i].stream(to + i * kLine);
}

// `size` bytes of each lane; targets begin on a line, `size` is in lines. What lies `ahead` is fetched meanwhile.
void stream_lanes(char* to, const char* from, int64_t to_step, int64_t from_step, int64_t size, int64_t ahead) {
    int64_t at = 0;
    for (; at + kBurst * kLine <= size; at += kBurst * kLine)
        for (int lane = 0; lane < kLanes; lane++)
            stream_burst<kBurst>(to + lane * to_step + at, from + lane * from_step + at, ahead);
    for (; at < size; at += kLine)
        for (int lane = 0; lane < kLanes; lane++)
            stream_burst<1>(to + lane * to_step + at, from + lane * from_step + at, ahead);
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

void stream_rows(char* to, const char* from, int64_t rows, int64_t to_step, int64_t from_step, int64_t size) {
    int64_t row = 0;
    if (size < kLanes * kPage && is_on_lines(to, to_step, size))
        for (; row + kLanes <= rows; row += kLanes)
            stream_lanes(to + row * to_step, from + row * from_step, to_step, from_step, size, kLanes * from_step);
    for (; row < rows; row++) stream_row(to + row * to_step, from + row * from_step, size);
}

void finish_streaming() { _mm_sfence(); }  // streamed bytes are there before anything this thread does next is seen

#else

void stream_rows(char* to, const char* from, int64_t rows, int64_t to_step, int64_t from_step, int64_t size) {
    for (int64_t row = 0; row < rows; row++) std::memcpy(to + row * to_step, from + row * from_step, size);
}

void finish_streaming() {}

#endif

struct Axis {
    int64_t count, to_step, from_step;
};

constexpr int kAxes = 4;  // planes, pieces, tokens, heads: the row is a head's bytes

struct Grid {
    int64_t to, from;  // offsets in their memories
    Axis axes[kAxes];
    int64_t row_bytes;

    bool is_within(int64_t to_size, int64_t from_size) const {
        int64_t to_end = to + row_bytes, from_end = from + row_bytes;
        for (const Axis& axis : axes) {
            if (axis.count < 1 || axis.to_step < 0 || axis.from_step < 0) return false;
            to_end += (axis.count - 1) * axis.to_step;
            from_end += (axis.count - 1) * axis.from_step;
        }
        return to >= 0 && from >= 0 && to_end <= to_size && from_end <= from_size;
    }

    int64_t size_bytes() const {
        int64_t size = row_bytes;
        for (const Axis& axis : axes) size *= axis.count;
        return size;
    }

    // Makes rows as long as both ends allow, and puts the axis of most rows last. Axes that are used up count 1.
    void simplify() {
        for (bool has_grown = true; has_grown;) {
            has_grown = false;
            for (Axis& axis : axes)
                if (axis.count > 1 && axis.to_step == row_bytes && axis.from_step == row_bytes) {
                    row_bytes *= axis.count;
                    axis.count = 1;
                    has_grown = true;
                }
        }
        for (int i = 0; i + 1 < kAxes; i++)
            if (axes[i].count > axes[kAxes - 1].count) std::swap(axes[i], axes[kAxes - 1]);
    }
};

void copy_rows(char* to, const char* from, const Axis& rows, int64_t size, bool is_streamed) {
    if (is_streamed && size >= kMinStreamedRow) {
        stream_rows(to, from, rows.count, rows.to_step, rows.from_step, size);
        return;
    }
    for (int64_t row = 0; row < rows.count; row++)
        std::memcpy(to + row * rows.to_step, from + row * rows.from_step, size);
}

void copy_grid(char* to, const char* from, const Grid& grid, int depth, bool is_streamed) {
    const Axis& axis = grid.axes[depth];
    if (depth == kAxes - 1) {
        copy_rows(to, from, axis, grid.row_bytes, is_streamed);
        return;
    }
    for (int64_t i = 0; i < axis.count; i++)
        copy_grid(to + i * axis.to_step, from + i * axis.from_step, grid, depth + 1, is_streamed);
}

struct End {
    int64_t memory;  // address
    int64_t size_bytes, plane_step, token_step, head_step;
};

struct Part {
    int64_t offset, step, num_pieces, num_tokens;
};

struct Copy {
    Part from, to;
};

struct Way {
    End from, to;
    int64_t num_heads, head_bytes;

    Grid grid(const Copy& copy, int64_t from_plane, int64_t to_plane, int64_t num_planes) const {
        return {to_plane * to.plane_step + copy.to.offset,
                from_plane * from.plane_step + copy.from.offset,
                {{num_planes, to.plane_step, from.plane_step},
                 {copy.from.num_pieces, copy.to.step, copy.from.step},
                 {copy.from.num_tokens, to.token_step, from.token_step},
                 {num_heads, to.head_step, from.head_step}},
                head_bytes};
    }
};

}  // namespace

// Returns the bytes copied; -1, having copied nothing, if a copy is not within the memories. Streams where all
// copies together have `stream_bytes` or more.
extern "C" int64_t copy_all(const Way* way, const Copy* copies, int64_t num_copies, int64_t from_plane,
                            int64_t to_plane, int64_t num_planes, int64_t stream_bytes) {
    int64_t size = 0;
    for (int64_t i = 0; i < num_copies; i++) {
        const Grid grid = way->grid(copies[i], from_plane, to_plane, num_planes);
        if (!grid.is_within(way->to.size_bytes, way->from.size_bytes)) return -1;
        size += grid.size_bytes();
    }
    const bool is_streamed = size >= stream_bytes;
    for (int64_t i = 0; i < num_copies; i++) {
        Grid grid = way->grid(copies[i], from_plane, to_plane, num_planes);
        grid.simplify();
        copy_grid(reinterpret_cast<char*>(way->to.memory) + grid.to,
                  reinterpret_cast<const char*>(way->from.memory) + grid.from, grid, 0, is_streamed);
    }
    if (is_streamed) finish_streaming();
    return size;
}
