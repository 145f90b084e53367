// Threads that meet at ggml's barrier many times, one of them late now and then.
// Usage: barrier THREADS ROUNDS [LATE_US]; prints the meetings that a thread left too early, and
// the seconds of computing time that all of it took.

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

static int64_t ggml_time_us(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000LL + now.tv_nsec / 1000;
}

static inline void ggml_thread_cpu_relax(void) {
    atomic_signal_fence(memory_order_seq_cst);
}

#include "lampe-barrier.h"

static atomic_int n_barrier, n_passed, n_sleepers, n_early;
static atomic_int arrived[64];
static int n_threads, n_rounds, late_us;

static void barrier(void) { // as ggml_barrier does
    const int was = atomic_load_explicit(&n_passed, memory_order_relaxed);
    if (atomic_fetch_add_explicit(&n_barrier, 1, memory_order_seq_cst) == n_threads - 1) {
        atomic_store_explicit(&n_barrier, 0, memory_order_relaxed);
        atomic_fetch_add_explicit(&n_passed, 1, memory_order_seq_cst);
        lampe_barrier_wake(&n_passed, &n_sleepers);
        return;
    }
    lampe_barrier_wait(&n_passed, was, &n_sleepers);
    atomic_thread_fence(memory_order_seq_cst);
}

static void * meet(void * given) {
    const int self = (int) (intptr_t) given;
    for (int round = 1; round <= n_rounds; round++) {
        if (late_us && self == round % n_threads) {
            usleep(late_us);
        }
        atomic_store(&arrived[self], round);
        barrier();
        for (int other = 0; other < n_threads; other++) {
            if (atomic_load(&arrived[other]) < round) {
                atomic_fetch_add(&n_early, 1);
            }
        }
        barrier();
    }
    return NULL;
}

int main(int argc, char ** argv) {
    n_threads = atoi(argv[1]);
    n_rounds  = atoi(argv[2]);
    late_us   = argc > 3 ? atoi(argv[3]) : 0;
    pthread_t threads[64];
    for (int i = 0; i < n_threads; i++) {
        pthread_create(&threads[i], NULL, meet, (void *) (intptr_t) i);
    }
    for (int i = 0; i < n_threads; i++) {
        pthread_join(threads[i], NULL);
    }
    printf("%d %d %.3f\n", atomic_load(&n_early), atomic_load(&n_sleepers),
           (double) clock() / CLOCKS_PER_SEC);
    return 0;
}
