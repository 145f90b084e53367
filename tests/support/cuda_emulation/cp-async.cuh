// Asynchronous copies: the bytes arrive at the thread's own cp_async_wait_all() and not before.
#pragma once

#include "common.cuh"

static inline unsigned int ggml_cuda_cvta_generic_to_shared(void * p) {
    return cuda_emulation::shared_handle(p);
}

template <int preload>
static inline void cp_async_cg_16(const unsigned int dst, const void * src) {
    static_assert(preload == 0 || preload == 64 || preload == 128 || preload == 256, "bad preload");
    cuda_emulation::copy_async_16(dst, src);
}

static inline void cp_async_wait_all() {
    cuda_emulation::wait_for_copies();
}
