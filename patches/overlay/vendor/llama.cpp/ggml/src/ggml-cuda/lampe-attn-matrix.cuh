#pragma once

#include "common.cuh"
#include "mma.cuh"

// Loads of matrices from shared memory, in place of those of mma.cuh: from addresses of 32 bits, to which constant offsets cost
// no instruction, and two operands B at a time, each in registers that follow one another.

using lampe_tile_a = ggml_cuda_mma::tile<16, 8, half2>;
using lampe_tile_b = ggml_cuda_mma::tile< 8, 8, half2>;
using lampe_tile_c = ggml_cuda_mma::tile<16, 8, float>;

// offset of the 8 halves that a thread has to point ldmatrix at, see the PTX ISA; stride: halves from one row to the next
// a:       16 rows x 16 columns
// b:       16 rows x 16 columns, the first 8 rows go to one operand and the others to the other
// b_trans: 16 rows x 16 columns, the first 8 columns go to one operand and the others to the other
static __device__ __forceinline__ int lampe_matrix_offset_a(const int stride) {
    return (threadIdx.x%16)*stride + (threadIdx.x/16)*8;
}

static __device__ __forceinline__ int lampe_matrix_offset_b(const int stride) {
    return (threadIdx.x%8 + threadIdx.x/16*8)*stride + (threadIdx.x/8%2)*8;
}

static __device__ __forceinline__ int lampe_matrix_offset_b_trans(const int stride) {
    return lampe_matrix_offset_a(stride);
}

static __device__ __forceinline__ void lampe_load_matrix_a(lampe_tile_a & a, const uint32_t address) {
#ifdef AMPERE_MMA_AVAILABLE
    int * x = (int *) a.x;
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
        : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3]) : "r"(address));
#else
    GGML_UNUSED(a);
    GGML_UNUSED(address);
    NO_DEVICE_CODE;
#endif // AMPERE_MMA_AVAILABLE
}

static __device__ __forceinline__ void lampe_load_matrix_b(lampe_tile_b (&b)[2], const uint32_t address) {
#ifdef AMPERE_MMA_AVAILABLE
    int * x0 = (int *) b[0].x;
    int * x1 = (int *) b[1].x;
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
        : "=r"(x0[0]), "=r"(x0[1]), "=r"(x1[0]), "=r"(x1[1]) : "r"(address));
#else
    GGML_UNUSED(b);
    GGML_UNUSED(address);
    NO_DEVICE_CODE;
#endif // AMPERE_MMA_AVAILABLE
}

static __device__ __forceinline__ void lampe_load_matrix_b_trans(lampe_tile_b (&b)[2], const uint32_t address) {
#ifdef AMPERE_MMA_AVAILABLE
    int * x0 = (int *) b[0].x;
    int * x1 = (int *) b[1].x;
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
        : "=r"(x0[0]), "=r"(x0[1]), "=r"(x1[0]), "=r"(x1[1]) : "r"(address));
#else
    GGML_UNUSED(b);
    GGML_UNUSED(address);
    NO_DEVICE_CODE;
#endif // AMPERE_MMA_AVAILABLE
}
