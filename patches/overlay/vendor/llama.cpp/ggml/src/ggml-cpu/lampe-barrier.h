#pragma once

// How one of ggml's own threads waits for the others between two steps of a graph (OpenMP's have
// their own way). It looks for a while, since the others mostly come within microseconds, and then
// sleeps: where another process has one of the cores, the thread that all wait for needs this one.
// How long it looks follows from what came of it: half as long after it was in vain, down to not at
// all, and twice as long after it was not.
//
// $GGML_LAMPE_SPIN  microseconds to look at most before sleeping; 0 sleeps at once, -1 never sleeps

#include <stdlib.h>

#if defined(__linux__)
#    include <limits.h>
#    include <linux/futex.h>
#    include <sys/syscall.h>
#    include <unistd.h>
#elif defined(_WIN32)
#    ifndef WIN32_LEAN_AND_MEAN
#        define WIN32_LEAN_AND_MEAN
#    endif
#    ifndef NOMINMAX
#        define NOMINMAX
#    endif
#    include <windows.h>
#else
#    include <sched.h>
#endif

#define LAMPE_BARRIER_SPIN   200 // microseconds at most
#define LAMPE_BARRIER_LEAST   16 // and at least, where it looks at all
#define LAMPE_BARRIER_MOST   (1 << 30)
#define LAMPE_BARRIER_PROBE   32 // waits, one of which looks all the same
#define LAMPE_BARRIER_ROUNDS  64 // looks between two looks at the clock

static inline int lampe_barrier_spin(void) {
    static atomic_int kept = -2;
    int spin = atomic_load_explicit(&kept, memory_order_relaxed);
    if (spin == -2) {
        const char * given = getenv("GGML_LAMPE_SPIN");
        spin = given && *given ? atoi(given) : LAMPE_BARRIER_SPIN;
        spin = spin < 0 ? -1 : spin;
        atomic_store_explicit(&kept, spin, memory_order_relaxed);
    }
    return spin;
}

// Gives the core to another thread: until `value` may have changed from `was`, where the system can.
static inline void lampe_barrier_sleep(atomic_int * value, int was) {
#if defined(__linux__)
    syscall(SYS_futex, value, FUTEX_WAIT_PRIVATE, was, NULL, NULL, 0);
#elif defined(_WIN32)
    (void) value;
    (void) was;
    SwitchToThread();
#else
    (void) value;
    (void) was;
    sched_yield();
#endif
}

// Waits until `value` is no longer `was`; `sleepers` counts those that do so asleep.
static inline void lampe_barrier_wait(atomic_int * value, int was, atomic_int * sleepers) {
    static atomic_int budget = LAMPE_BARRIER_MOST; // microseconds, of all threads
    static atomic_int n_waits;
    const int most = lampe_barrier_spin();
    const int kept = atomic_load_explicit(&budget, memory_order_relaxed);
    int spin = kept < most ? kept : most;
    if (spin == 0 && most > 0 && atomic_fetch_add_explicit(&n_waits, 1, memory_order_relaxed) % LAMPE_BARRIER_PROBE == 0) {
        spin = LAMPE_BARRIER_LEAST; // is it worth it again?
    }
    int64_t start = 0;
    for (int round = 1; atomic_load_explicit(value, memory_order_relaxed) == was; round++) {
        if (spin != 0) {
            ggml_thread_cpu_relax();
            if (spin < 0 || round % LAMPE_BARRIER_ROUNDS != 0) {
                continue;
            }
            const int64_t now = ggml_time_us();
            start = start ? start : now;
            if (now - start < spin) {
                continue;
            }
        }
        // counted before the last look, which lampe_barrier_wake's own order answers
        atomic_fetch_add_explicit(sleepers, 1, memory_order_seq_cst);
        while (atomic_load_explicit(value, memory_order_seq_cst) == was) {
            lampe_barrier_sleep(value, was);
        }
        atomic_fetch_add_explicit(sleepers, -1, memory_order_seq_cst);
        atomic_store_explicit(&budget, spin < 2*LAMPE_BARRIER_LEAST ? 0 : spin/2, memory_order_relaxed);
        return;
    }
    if (spin > 0 && spin < most) {
        atomic_store_explicit(&budget, 2*spin, memory_order_relaxed);
    }
}

// Wakes those that sleep on `value`, which was changed just now.
static inline void lampe_barrier_wake(atomic_int * value, atomic_int * sleepers) {
#if defined(__linux__)
    if (atomic_load_explicit(sleepers, memory_order_seq_cst) > 0) {
        syscall(SYS_futex, value, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
    }
#else
    (void) value; // they only gave their core away
    (void) sleepers;
#endif
}
