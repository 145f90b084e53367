// Stands in for ggml-cuda/common.cuh: what of it the operator's source uses, on the processor.
#pragma once

#include "ggml.h"
#include "ggml-impl.h"

#define GGML_COMMON_DECL_CUDA
#include "device.h"

#include "ggml-common.h"

#include <cassert>
#include <cfloat>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>

#define __CUDA_ARCH__ 900

#define WARP_SIZE 32

#define GGML_CUDA_MAX_DEVICES 16

#define GGML_CUDA_CC_PASCAL       600
#define GGML_CUDA_CC_VOLTA        700
#define GGML_CUDA_CC_TURING       750
#define GGML_CUDA_CC_AMPERE       800
#define GGML_CUDA_CC_ADA_LOVELACE 890
#define GGML_CUDA_CC_HOPPER       900
#define GGML_CUDA_CC_BLACKWELL    1200

#define GGML_CUDA_CC_OFFSET_AMD      0x1000000
#define GGML_CUDA_CC_OFFSET_MTHREADS 0x0100000
#define GGML_CUDA_CC_IS_NVIDIA(cc)   ((cc) < GGML_CUDA_CC_OFFSET_MTHREADS)
#define GGML_CUDA_CC_IS_AMD(cc)      ((cc) >= GGML_CUDA_CC_OFFSET_AMD)

#define FP16_AVAILABLE
#define FAST_FP16_AVAILABLE
#define TURING_MMA_AVAILABLE
#define AMPERE_MMA_AVAILABLE
#define CP_ASYNC_AVAILABLE
#define FLASH_ATTN_AVAILABLE

static inline bool fp16_available      (const int cc) { return GGML_CUDA_CC_IS_NVIDIA(cc) && cc >= GGML_CUDA_CC_PASCAL; }
static inline bool turing_mma_available(const int cc) { return GGML_CUDA_CC_IS_NVIDIA(cc) && cc >= GGML_CUDA_CC_TURING; }
static inline bool ampere_mma_available(const int cc) { return GGML_CUDA_CC_IS_NVIDIA(cc) && cc >= GGML_CUDA_CC_AMPERE; }
static inline bool cp_async_available  (const int cc) { return GGML_CUDA_CC_IS_NVIDIA(cc) && cc >= GGML_CUDA_CC_AMPERE; }

#define NO_DEVICE_CODE ::cuda_emulation::fail("%s:%d: there is no code for this device", __FILE__, __LINE__)

#define GGML_CUDA_ASSUME(x) __builtin_assume(x)

//
// runtime
//

enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidValue = 1 };

enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize };

enum cudaMemcpyKind {
    cudaMemcpyHostToHost, cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost, cudaMemcpyDeviceToDevice, cudaMemcpyDefault,
};

struct cuda_emulation_stream;
typedef cuda_emulation_stream * cudaStream_t;

// what is wrong with a launch ends the program at once, so that there is no error to come later
static inline cudaError_t  cudaGetLastError() { return cudaSuccess; }
static inline cudaError_t  cudaPeekAtLastError() { return cudaSuccess; }
static inline cudaError_t  cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }
static inline cudaError_t  cudaDeviceSynchronize() { return cudaSuccess; }
static inline const char * cudaGetErrorString(cudaError_t err) { return err == cudaSuccess ? "no error" : "invalid value"; }

static inline cudaError_t cudaMemset(void * p, int value, size_t n) {
    memset(p, value, n);
    return cudaSuccess;
}
static inline cudaError_t cudaMemsetAsync(void * p, int value, size_t n, cudaStream_t = nullptr) {
    memset(p, value, n);
    return cudaSuccess;
}
static inline cudaError_t cudaMemcpy(void * dst, const void * src, size_t n, cudaMemcpyKind) {
    memmove(dst, src, n);
    return cudaSuccess;
}
static inline cudaError_t cudaMemcpyAsync(void * dst, const void * src, size_t n, cudaMemcpyKind, cudaStream_t = nullptr) {
    memmove(dst, src, n);
    return cudaSuccess;
}

template <typename... P>
static inline cudaError_t cudaFuncSetAttribute(void (*kernel)(P...), cudaFuncAttribute, size_t value) {
    cuda_emulation::allow_shared((const void *) kernel, value);
    return cudaSuccess;
}

#define CUDA_CHECK(err)                                                                                         \
    do {                                                                                                        \
        const cudaError_t err_ = (err);                                                                         \
        if (err_ != cudaSuccess) {                                                                              \
            ::cuda_emulation::fail("%s:%d: %s: %s", __FILE__, __LINE__, #err, cudaGetErrorString(err_));        \
        }                                                                                                       \
    } while (0)

// once per place of use and device, whatever is asked for later: as in the original
#define CUDA_SET_SHARED_MEMORY_LIMIT(kernel, nbytes)                                                            \
    do {                                                                                                        \
        static bool raised_[GGML_CUDA_MAX_DEVICES] = { false };                                                 \
        const int   id_ = ggml_cuda_get_device();                                                               \
        if (!raised_[id_]) {                                                                                    \
            CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, nbytes));      \
            raised_[id_] = true;                                                                                \
        }                                                                                                       \
    } while (0)

//
// device
//

struct ggml_cuda_device_info {
    int device_count = 1;

    struct cuda_device_info {
        int    cc   = 0;
        int    nsm  = 0;
        size_t smpb  = 0;
        size_t smpbo = 0;
        int    warp_size = WARP_SIZE;
    };

    cuda_device_info devices[GGML_CUDA_MAX_DEVICES];
};

// from $LAMPE_EMULATED_SMS and $LAMPE_EMULATED_CC, read at every call
const ggml_cuda_device_info & ggml_cuda_info();

static inline int  ggml_cuda_get_device()    { return 0; }
static inline void ggml_cuda_set_device(int) {}

struct ggml_cuda_pool {
    void * alloc(size_t size, size_t * actual_size);
    void   free(void * p, size_t size);
};

template <typename T>
struct ggml_cuda_pool_alloc {
    ggml_cuda_pool * pool = nullptr;
    T              * ptr  = nullptr;
    size_t           actual_size = 0;

    ggml_cuda_pool_alloc() = default;
    explicit ggml_cuda_pool_alloc(ggml_cuda_pool & pool) : pool(&pool) {}
    ggml_cuda_pool_alloc(ggml_cuda_pool & pool, size_t n) : pool(&pool) { alloc(n); }

    ggml_cuda_pool_alloc(const ggml_cuda_pool_alloc &) = delete;
    ggml_cuda_pool_alloc & operator=(const ggml_cuda_pool_alloc &) = delete;

    ~ggml_cuda_pool_alloc() {
        if (ptr) {
            pool->free(ptr, actual_size);
        }
    }

    T * alloc(size_t n) { // elements
        GGML_ASSERT(pool && !ptr);
        ptr = (T *) pool->alloc(n*sizeof(T), &actual_size);
        return ptr;
    }

    T * alloc(ggml_cuda_pool & from, size_t n) {
        pool = &from;
        return alloc(n);
    }

    T * get() { return ptr; }
};

struct ggml_backend_cuda_context {
    int device;

    explicit ggml_backend_cuda_context(int device) : device(device) {}

    cudaStream_t     stream()   { return nullptr; }
    ggml_cuda_pool & pool()     { return memory; }
    ggml_cuda_pool & pool(int)  { return memory; }

    ggml_cuda_pool memory;
};

//
// device code
//

static constexpr int ggml_cuda_get_physical_warp_size() { return WARP_SIZE; }
static constexpr int ggml_cuda_get_max_cpy_bytes()      { return 16; }

static inline void ggml_cuda_syncwarp(CALL_SITE) { __syncwarp(0xFFFFFFFF, at_file, at_line); }
static inline void ggml_cuda_pdl_sync() {}
static inline void ggml_cuda_pdl_lc() {}

template <int nbytes, int alignment = 0>
static inline void ggml_cuda_memcpy_1(void * dst, const void * src) {
    constexpr int unit = alignment == 0 ? nbytes : alignment;
    static_assert(unit == 1 || unit == 2 || unit == 4 || unit == 8 || unit == 16, "bad size of a copy");
    static_assert(nbytes % unit == 0, "bad alignment");

    cuda_emulation::check_aligned("ggml_cuda_memcpy_1, to", dst, unit);
    cuda_emulation::check_aligned("ggml_cuda_memcpy_1, from", src, unit);
    memcpy(dst, src, nbytes);
}

template <int width = WARP_SIZE, typename T>
static inline T warp_reduce_sum(T x, CALL_SITE) {
    for (int offset = width/2; offset > 0; offset /= 2) {
        x += __shfl_xor_sync(0xFFFFFFFF, x, offset, width, at_file, at_line);
    }
    return x;
}

template <int width = WARP_SIZE>
static inline float2 warp_reduce_sum(float2 x, CALL_SITE) {
    return { warp_reduce_sum<width>(x.x, at_file, at_line), warp_reduce_sum<width>(x.y, at_file, at_line) };
}

template <int width = WARP_SIZE>
static inline float warp_reduce_max(float x, CALL_SITE) {
    for (int offset = width/2; offset > 0; offset /= 2) {
        x = fmaxf(x, __shfl_xor_sync(0xFFFFFFFF, x, offset, width, at_file, at_line));
    }
    return x;
}

template <int width = WARP_SIZE>
static inline int warp_reduce_all(int x, CALL_SITE) {
    for (int offset = width/2; offset > 0; offset /= 2) {
        x = (__shfl_xor_sync(0xFFFFFFFF, x, offset, width, at_file, at_line) != 0) & (x != 0);
    }
    return x;
}

template <int width = WARP_SIZE>
static inline int warp_reduce_any(int x, CALL_SITE) {
    for (int offset = width/2; offset > 0; offset /= 2) {
        x = (__shfl_xor_sync(0xFFFFFFFF, x, offset, width, at_file, at_line) != 0) | (x != 0);
    }
    return x;
}

static inline void ggml_cuda_mad(float & acc, const float  v, const float  u) { acc += v*u; }
static inline void ggml_cuda_mad(float & acc, const float2 v, const float2 u) { acc += v.x*u.x; acc += v.y*u.y; }
static inline void ggml_cuda_mad(half2 & acc, const half2  v, const half2  u) { acc += v*u; }
static inline void ggml_cuda_mad(float & acc, const half2  v, const half2  u) {
    const float2 p = __half22float2(v*u);
    acc += p.x + p.y;
}
