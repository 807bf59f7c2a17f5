// The threads of a step, and how they share its work.
//
// Threads meet where a kind of work is complete, not where all threads have arrived: on a machine that
// has other things to do, a thread that was put aside without work in hand holds no one up.

#pragma once

#include <omp.h>
#include <sched.h>

#include <atomic>
#include <cstdint>
#include <cstring>

constexpr int kPiecesPerThread = 4;  // so that a thread that was held up delays the others little
constexpr int kMaxThreads = 64;
constexpr int kSpins = 20000;        // before a waiting thread lets others have its processor

// Each kind of work has a counter of pieces taken for every thread's share, and one of pieces done.
class Team {
  public:
    static int64_t num_counters(int64_t kinds) { return (kMaxThreads + 1) * kinds; }

    Team(int threads, std::atomic<int32_t>* counters, int64_t kinds)
        : threads_(threads < kMaxThreads ? threads : kMaxThreads), taken_(counters), done_(counters + kMaxThreads * kinds) {
        memset((void*)counters, 0, sizeof(int32_t) * num_counters(kinds));
    }

    int threads() const { return threads_; }

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

    // Where the calling thread's own share begins.
    int own_start(int count) const { return share_start(omp_get_thread_num(), count); }

    void wait(int counter, int count) const {
        for (int turn = 0; done_[counter].load(std::memory_order_acquire) < count; turn++) {
            if (turn < kSpins)
                __asm__ volatile("" ::: "memory");
            else
                sched_yield();
        }
    }

  private:
    const int threads_;
    std::atomic<int32_t>*taken_, *done_;
};
