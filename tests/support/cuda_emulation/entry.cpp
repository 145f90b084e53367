// The operator, for ctypes: tensors lie in the memory of the process.

#include "lampe-attn.cuh"

extern "C" int lampe_emulated_supports(const ggml_tensor * dst) {
    return ggml_cuda_lampe_attn_supported(0, dst);
}

extern "C" void lampe_emulated_compute(ggml_tensor * dst) {
    ggml_backend_cuda_context ctx(0);
    ggml_cuda_op_lampe_attn(ctx, dst);
}
