// The header of this name beside the kernels, which is written in the device's own assembly.
#pragma once

#include "common.cuh"
#include "mma.cuh"

using lampe_tile_a = ggml_cuda_mma::tile<16, 8, half2>;
using lampe_tile_b = ggml_cuda_mma::tile< 8, 8, half2>;
using lampe_tile_c = ggml_cuda_mma::tile<16, 8, float>;

static inline int lampe_matrix_offset_a(const int stride) {
    return threadIdx.x%16*stride + threadIdx.x/16*8;
}

static inline int lampe_matrix_offset_b(const int stride) {
    return (threadIdx.x%8 + threadIdx.x/16*8)*stride + threadIdx.x/8%2*8;
}

static inline int lampe_matrix_offset_b_trans(const int stride) {
    return lampe_matrix_offset_a(stride);
}

static inline void lampe_load_matrix_a(lampe_tile_a & a, const uint32_t address, CALL_SITE) {
    uint32_t * x = (uint32_t *) a.x;
    uint32_t * const regs[] = { x + 0, x + 1, x + 2, x + 3 };
    cuda_emulation::load_matrices(HERE, cuda_emulation::shared_row(address), 4, false, regs);
}

static inline void lampe_load_matrix_b(lampe_tile_b (&b)[2], const uint32_t address, CALL_SITE) {
    uint32_t * x0 = (uint32_t *) b[0].x;
    uint32_t * x1 = (uint32_t *) b[1].x;
    uint32_t * const regs[] = { x0 + 0, x0 + 1, x1 + 0, x1 + 1 };
    cuda_emulation::load_matrices(HERE, cuda_emulation::shared_row(address), 4, false, regs);
}

static inline void lampe_load_matrix_b_trans(lampe_tile_b (&b)[2], const uint32_t address, CALL_SITE) {
    uint32_t * x0 = (uint32_t *) b[0].x;
    uint32_t * x1 = (uint32_t *) b[1].x;
    uint32_t * const regs[] = { x0 + 0, x0 + 1, x1 + 0, x1 + 1 };
    cuda_emulation::load_matrices(HERE, cuda_emulation::shared_row(address), 4, true, regs);
}
