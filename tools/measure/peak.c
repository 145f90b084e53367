// What this machine can do at most: prints JSON with the multiply-adds of f32 and of pairs of 16-bit integers that its
// vector units do (GFLOP/s, two operations each; 0 where the compiler knows no such instruction) and the memory reads
// (GB/s), all with N threads: peak N

#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#ifdef __AVX512VNNI__
#include <immintrin.h>
#endif

enum { LANES = 16, CHAINS = 12, TRIPS = 20000000 };

typedef float   vec_f32 __attribute__((vector_size(4*LANES)));
typedef int64_t vec_i64 __attribute__((vector_size(4*LANES)));

struct job {
    int             kind;
    const vec_i64 * data;
    size_t          n;
    double          result;
};

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double) t.tv_sec + 1e-9*(double) t.tv_nsec;
}

static double multiply_f32(void) {
    volatile float start = 1.0f; // nothing of this is known beforehand
    vec_f32 acc[CHAINS], a, b;
    for (int c = 0; c < CHAINS; ++c) {
        for (int i = 0; i < LANES; ++i) {
            acc[c][i] = start*(float) c;
        }
    }
    for (int i = 0; i < LANES; ++i) {
        a[i] = 0.999f*start;
        b[i] = 1e-3f*start;
    }
    for (long t = 0; t < TRIPS; ++t) {
#pragma GCC unroll 16
        for (int c = 0; c < CHAINS; ++c) {
            acc[c] = acc[c]*a + b;
        }
    }
    double sum = 0.0;
    for (int c = 0; c < CHAINS; ++c) {
        sum += (double) acc[c][0];
    }
    return sum;
}

static double multiply_i16(void) {
    double sum = 0.0;
#ifdef __AVX512VNNI__
    __m512i acc[CHAINS];
    const __m512i a = _mm512_set1_epi16(3);
    for (int c = 0; c < CHAINS; ++c) {
        acc[c] = _mm512_set1_epi32(c);
    }
    for (long t = 0; t < TRIPS; ++t) {
#pragma GCC unroll 16
        for (int c = 0; c < CHAINS; ++c) {
            acc[c] = _mm512_dpwssd_epi32(acc[c], a, acc[c]);
        }
    }
    for (int c = 0; c < CHAINS; ++c) {
        sum += (double) _mm512_reduce_add_epi32(acc[c]);
    }
#endif
    return sum;
}

static double read_memory(const vec_i64 * x, size_t n) {
    vec_i64 acc[8];
    memset(acc, 0, sizeof(acc));
    for (size_t i = 0; i + 8 <= n; i += 8) {
#pragma GCC unroll 8
        for (size_t c = 0; c < 8; ++c) {
            acc[c] ^= x[i + c];
        }
    }
    double sum = 0.0;
    for (int c = 0; c < 8; ++c) {
        sum += (double) acc[c][0];
    }
    return sum;
}

static void * run(void * arg) {
    struct job * job = arg;
    switch (job->kind) {
        case 0:  job->result = multiply_f32();                  break;
        case 1:  job->result = multiply_i16();                  break;
        default: job->result = read_memory(job->data, job->n); break;
    }
    return NULL;
}

// seconds until all threads are through; the best of three
static double measure(int kind, int n_threads, struct job * jobs, pthread_t * threads) {
    double best = 1e30;
    for (int i = 0; i < 3; ++i) {
        const double start = now();
        for (int t = 0; t < n_threads; ++t) {
            jobs[t].kind = kind;
            if (pthread_create(&threads[t], NULL, run, &jobs[t]) != 0) {
                exit(1);
            }
        }
        for (int t = 0; t < n_threads; ++t) {
            pthread_join(threads[t], NULL);
        }
        const double seconds = now() - start;
        best = seconds < best ? seconds : best;
    }
    return best;
}

int main(int argc, char ** argv) {
    const int    n_threads = argc > 1 ? atoi(argv[1]) : 1;
    const size_t n_bytes   = (size_t) 1 << 30;
    if (n_threads < 1) {
        return 2;
    }

    struct job * jobs    = calloc((size_t) n_threads, sizeof(*jobs));
    pthread_t  * threads = calloc((size_t) n_threads, sizeof(*threads));
    vec_i64    * data    = aligned_alloc(sizeof(vec_i64), n_bytes);
    if (!jobs || !threads || !data) {
        return 1;
    }
    memset(data, 1, n_bytes);

    const size_t n = n_bytes/sizeof(*data)/(size_t) n_threads;
    for (int t = 0; t < n_threads; ++t) {
        jobs[t].data = data + n*(size_t) t;
        jobs[t].n    = n;
    }

    const double trips = (double) TRIPS*CHAINS*n_threads;
    const double f32   = 2.0*LANES*trips/measure(0, n_threads, jobs, threads);
#ifdef __AVX512VNNI__
    const double i16   = 4.0*LANES*trips/measure(1, n_threads, jobs, threads);
#else
    const double i16   = 0.0;
#endif
    const double bytes = (double) n_bytes/measure(2, n_threads, jobs, threads);

    double sink = 0.0;
    for (int t = 0; t < n_threads; ++t) {
        sink += jobs[t].result;
    }
    fprintf(stderr, "%g\n", sink); // or the compiler leaves it all out
    printf("{\"f32_gflops\": %.1f, \"i16_gops\": %.1f, \"read_gbs\": %.1f}\n", f32/1e9, i16/1e9, bytes/1e9);

    free(data);
    free(threads);
    free(jobs);
    return 0;
}
