// The operator, for ctypes: tensors lie in the memory of the process.

#include "lampe-attn.cuh"

extern "C" int lampe_emulated_supports(const ggml_tensor * dst) {
    return ggml_cuda_lampe_attn_supported(0, dst);
}

extern "C" void lampe_emulated_compute(ggml_tensor * dst) {
    cuda_emulation::counted = {};

    ggml_backend_cuda_context ctx(0);
    ggml_cuda_op_lampe_attn(ctx, dst);
}

extern "C" const char * lampe_emulated_kernels() {
    return cuda_emulation::counted.kernels.c_str();
}

extern "C" uint64_t lampe_emulated_copied() {
    return cuda_emulation::counted.copied;
}

extern "C" uint64_t lampe_emulated_workspace() {
    return cuda_emulation::counted.workspace;
}
