// GGML_OP_LAMPE_ATTN: what its kernels share, whatever the backend
#pragma once

#include "ggml-lampe.h"

#include <math.h>

// which rotation of a query a score takes
enum lampe_region {
    LAMPE_REGION_LOCAL  = 0,
    LAMPE_REGION_MIDDLE = 1,
    LAMPE_REGION_TAIL   = 2,
    LAMPE_REGION_COUNT  = 3,
};

// what the values of head h have to be multiplied by, with the largest score of the row and the sum of exp(score - max);
// a sink takes part in the sum and has no value
GGML_LAMPE_INLINE float lampe_row_factor(const float * sinks, const int64_t h, const float max, const float sum) {
    if (sum <= 0.0f) {
        return 0.0f;
    }
    if (!sinks) {
        return 1.0f/sum;
    }

    const float max_all = fmaxf(max, sinks[h]);
    const float ms      = expf(max - max_all);

    return ms/(sum*ms + expf(sinks[h] - max_all));
}
