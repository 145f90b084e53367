#pragma once

#include "ggml.h"

#include <stddef.h>
#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

struct ggml_compute_params;

// whether the kernel takes these types and layouts
bool ggml_cpu_lampe_attn_supported(const struct ggml_tensor * dst);

// bytes of workspace that ggml_compute_forward_lampe_attn needs with up to n_tasks threads
size_t ggml_cpu_lampe_attn_work_size(const struct ggml_tensor * dst, int n_tasks);

void ggml_compute_forward_lampe_attn(const struct ggml_compute_params * params, struct ggml_tensor * dst);

#ifdef __cplusplus
}
#endif
