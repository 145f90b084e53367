// What device code calls: the threads of a block run as fibers, one at a time, and wait for each other here.
// build.py turns kernel launches and the declarations of shared memory into calls of what is below.
#pragma once

#include "cuda_fp16.h"

#include <cfloat>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>

#define __global__
#define __device__
#define __host__
#define __constant__
#define __forceinline__ inline
#define __launch_bounds__(...)
// a compiler may take two pointers apart only as far as barriers go, which g++ does not know
#define __restrict__
#define __align__(n) alignas(n)

extern uint3 threadIdx;
extern uint3 blockIdx;
extern dim3  blockDim;
extern dim3  gridDim;

static constexpr int warpSize = 32;

namespace cuda_emulation {
    struct call_site {
        const char * file;
        int          line;
    };

// where the caller is: threads that meet have to meet at the same place
// (two arguments: inside of a braced initialiser, g++ gives the place of the declaration)
#define CALL_SITE const char * at_file = __builtin_FILE(), int at_line = __builtin_LINE()
#define HERE      ::cuda_emulation::call_site{at_file, at_line}

    // what a test may ask for, since the last call of the operator
    struct statistics {
        std::string kernels;       // their names, in the order of their launches
        uint64_t    copied    = 0; // bytes that asynchronous copies brought
        uint64_t    workspace = 0; // bytes of the pool
    };
    extern statistics counted;

    [[noreturn]] void fail(const char * format, ...) __attribute__((format(printf, 1, 2)));

    enum fold { FOLD_OR, FOLD_AND, FOLD_COUNT };

    int sync_threads(const char * what, call_site at, fold how, int value);

    // Waits for the lanes in the mask; the last of them calls op with what each lane gave (null for others).
    using warp_op = void (*)(void * const * given, uint32_t mask);
    void warp_meet(const char * what, call_site at, uint32_t mask, void * given, warp_op op);

    int  lane();

    void * dynamic_shared(size_t align);
    void * static_shared(int id, size_t size, size_t align);

    // of the 16 bytes at p, which must be aligned and in shared memory
    void check_shared_16(const char * what, const void * p);

    unsigned shared_handle(const void * p);
    const void * shared_row(unsigned handle); // 16 bytes of it
    void     copy_async_16(unsigned dst, const void * src);
    void     wait_for_copies();

    void check_aligned(const char * what, const void * p, size_t align);

    // id tells apart the declarations of a kernel
    template <typename T>
    T & shared_variable(int id, size_t align = alignof(T)) {
        return *(T *) static_shared(id, sizeof(T), align);
    }

    template <typename T>
    T * shared_array() {
        return (T *) dynamic_shared(alignof(T));
    }

    void allow_shared(const void * kernel, size_t size);

    void run_grid(const char * name, const void * kernel, dim3 grid, dim3 block, size_t shared, void (*body)(void *), void * data);

    template <typename... P>
    struct launch {
        const char * name;
        void      (* kernel)(P...);
        dim3         grid;
        dim3         block;
        size_t       shared;

        struct call {
            void         (* kernel)(P...);
            std::tuple<P...> args;
        };

        // every thread gets its own copy of the arguments
        void operator()(P... args) const {
            call c = { kernel, std::tuple<P...>(args...) };
            run_grid(name, (const void *) kernel, grid, block, shared, [](void * data) {
                const call * c = (const call *) data;
                std::apply(c->kernel, c->args);
            }, &c);
        }
    };

    template <typename... P>
    launch<P...> make_launch(
            const char * name, void (*kernel)(P...), dim3 grid, dim3 block, size_t shared = 0, const void * stream = nullptr) {
        (void) stream; // a launch is over when it returns, whatever its stream
        return { name, kernel, grid, block, shared };
    }

    enum shuffle_mode { SHUFFLE_INDEX, SHUFFLE_XOR, SHUFFLE_DOWN, SHUFFLE_UP };

    uint64_t shuffle(const char * what, call_site at, uint32_t mask, uint64_t value, shuffle_mode mode, int operand, int width);
    uint32_t ballot(const char * what, call_site at, uint32_t mask, bool value);

    template <typename T>
    T shuffle_value(const char * what, call_site at, uint32_t mask, T value, shuffle_mode mode, int operand, int width) {
        static_assert(std::is_trivially_copyable_v<T> && (sizeof(T) == 4 || sizeof(T) == 8 || sizeof(T) == 2), "no such shuffle");
        uint64_t bits = 0;
        memcpy(&bits, &value, sizeof(T));
        bits = shuffle(what, at, mask, bits, mode, operand, width);
        memcpy((void *) &value, &bits, sizeof(T));
        return value;
    }
}

#if defined(__GNUC__) && !defined(__clang__)
#define __builtin_assume(x) ((x) ? (void) 0 : ::cuda_emulation::fail("%s:%d: assumed, and false: %s", __FILE__, __LINE__, #x))
#endif

static inline void __syncthreads(CALL_SITE) {
    cuda_emulation::sync_threads("__syncthreads", HERE, cuda_emulation::FOLD_OR, 0);
}
static inline int __syncthreads_or(int x, CALL_SITE) {
    return cuda_emulation::sync_threads("__syncthreads_or", HERE, cuda_emulation::FOLD_OR, x);
}
static inline int __syncthreads_and(int x, CALL_SITE) {
    return cuda_emulation::sync_threads("__syncthreads_and", HERE, cuda_emulation::FOLD_AND, x);
}
static inline int __syncthreads_count(int x, CALL_SITE) {
    return cuda_emulation::sync_threads("__syncthreads_count", HERE, cuda_emulation::FOLD_COUNT, x);
}
static inline void __syncwarp(uint32_t mask = 0xFFFFFFFF, CALL_SITE) {
    cuda_emulation::warp_meet("__syncwarp", HERE, mask, nullptr, nullptr);
}
static inline void __threadfence()       {}
static inline void __threadfence_block() {}

template <typename T> static inline T __shfl_sync(uint32_t mask, T x, int src, int width = 32, CALL_SITE) {
    return cuda_emulation::shuffle_value("__shfl_sync", HERE, mask, x, cuda_emulation::SHUFFLE_INDEX, src, width);
}
template <typename T> static inline T __shfl_xor_sync(uint32_t mask, T x, int lane_mask, int width = 32, CALL_SITE) {
    return cuda_emulation::shuffle_value("__shfl_xor_sync", HERE, mask, x, cuda_emulation::SHUFFLE_XOR, lane_mask, width);
}
template <typename T> static inline T __shfl_down_sync(uint32_t mask, T x, unsigned delta, int width = 32, CALL_SITE) {
    return cuda_emulation::shuffle_value("__shfl_down_sync", HERE, mask, x, cuda_emulation::SHUFFLE_DOWN, (int) delta, width);
}
template <typename T> static inline T __shfl_up_sync(uint32_t mask, T x, unsigned delta, int width = 32, CALL_SITE) {
    return cuda_emulation::shuffle_value("__shfl_up_sync", HERE, mask, x, cuda_emulation::SHUFFLE_UP, (int) delta, width);
}
static inline uint32_t __ballot_sync(uint32_t mask, int x, CALL_SITE) {
    return cuda_emulation::ballot("__ballot_sync", HERE, mask, x != 0);
}
static inline int __any_sync(uint32_t mask, int x, CALL_SITE) {
    return cuda_emulation::ballot("__any_sync", HERE, mask, x != 0) != 0;
}
static inline int __all_sync(uint32_t mask, int x, CALL_SITE) {
    return cuda_emulation::ballot("__all_sync", HERE, mask, x == 0) == 0;
}

// of a whole warp
#define CUDA_EMULATION_REDUCE(name, T, result)                  \
    static inline T name(uint32_t mask, T x, CALL_SITE) {       \
        for (int lanes = 1; lanes < 32; lanes *= 2) {           \
            const T y = cuda_emulation::shuffle_value(#name, HERE, mask, x, cuda_emulation::SHUFFLE_XOR, lanes, 32); \
            x = (result);                                       \
        }                                                       \
        return x;                                               \
    }
CUDA_EMULATION_REDUCE(__reduce_min_sync, int, x < y ? x : y)
CUDA_EMULATION_REDUCE(__reduce_max_sync, int, x > y ? x : y)
CUDA_EMULATION_REDUCE(__reduce_or_sync,  uint32_t, x | y)

// one thread runs at a time and gives up the processor nowhere but above, so that these are atomic as they are
#define CUDA_EMULATION_ATOMIC(name, T, result)          \
    static inline T name(T * p, T x) {                  \
        cuda_emulation::check_aligned(#name, p, sizeof(T)); \
        const T old = *p;                               \
        *p = (result);                                  \
        return old;                                     \
    }
#define CUDA_EMULATION_ATOMICS(T)                       \
    CUDA_EMULATION_ATOMIC(atomicOr,   T, old | x)       \
    CUDA_EMULATION_ATOMIC(atomicAnd,  T, old & x)       \
    CUDA_EMULATION_ATOMIC(atomicXor,  T, old ^ x)       \
    CUDA_EMULATION_ATOMIC(atomicMax,  T, old > x ? old : x) \
    CUDA_EMULATION_ATOMIC(atomicMin,  T, old < x ? old : x) \
    CUDA_EMULATION_ATOMIC(atomicExch, T, x)

CUDA_EMULATION_ATOMICS(int)
CUDA_EMULATION_ATOMICS(unsigned int)
CUDA_EMULATION_ATOMICS(unsigned long long)
CUDA_EMULATION_ATOMIC(atomicAdd, int, (int) ((unsigned) old + (unsigned) x))
CUDA_EMULATION_ATOMIC(atomicAdd, unsigned int, old + x)
CUDA_EMULATION_ATOMIC(atomicAdd, unsigned long long, old + x)
CUDA_EMULATION_ATOMIC(atomicAdd, float, old + x)

static inline int atomicCAS(int * p, int compare, int x) {
    const int old = *p;
    *p = old == compare ? x : old;
    return old;
}

#define CUDA_EMULATION_MIN_MAX(T)                                   \
    static inline T min(T a, T b) { return b < a ? b : a; }         \
    static inline T max(T a, T b) { return a < b ? b : a; }

CUDA_EMULATION_MIN_MAX(int)
CUDA_EMULATION_MIN_MAX(unsigned int)
CUDA_EMULATION_MIN_MAX(long)
CUDA_EMULATION_MIN_MAX(unsigned long)
CUDA_EMULATION_MIN_MAX(long long)
CUDA_EMULATION_MIN_MAX(unsigned long long)

static inline float  min(float  a, float  b) { return fminf(a, b); }
static inline float  max(float  a, float  b) { return fmaxf(a, b); }
static inline double min(double a, double b) { return fmin(a, b); }
static inline double max(double a, double b) { return fmax(a, b); }

// the C library has these names, too
#define __expf(x)  expf(x)
#define __exp2f(x) exp2f(x)
#define __logf(x)  logf(x)

static inline float __fdividef (float x, float y) { return x/y; }
static inline float __frcp_rn  (float x)          { return 1.0f/x; }
static inline float __fmaf_rn  (float x, float y, float z) { return fmaf(x, y, z); }
static inline float rsqrtf     (float x)          { return 1.0f/sqrtf(x); }

static inline int      __ffs    (int x)      { return __builtin_ffs(x); }
static inline int      __popc   (unsigned x) { return __builtin_popcount(x); }
static inline int      __clz    (int x)      { return x == 0 ? 32 : __builtin_clz((unsigned) x); }
static inline unsigned __umulhi (unsigned a, unsigned b) { return (unsigned) ((uint64_t) a*b >> 32); }
static inline int      __mulhi  (int a, int b)           { return (int) ((int64_t) a*b >> 32); }

static inline int   __float_as_int (float x) { int   y; memcpy(&y, &x, 4); return y; }
static inline float __int_as_float (int   x) { float y; memcpy(&y, &x, 4); return y; }
static inline unsigned __float_as_uint (float x)    { unsigned y; memcpy(&y, &x, 4); return y; }
static inline float    __uint_as_float (unsigned x) { float    y; memcpy(&y, &x, 4); return y; }

template <typename T> static inline T __ldg(const T * p) {
    return *p;
}

[[noreturn]] static inline void __trap() {
    cuda_emulation::fail("__trap");
}
