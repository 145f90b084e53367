// GGML_OP_LAMPE_ATTN: what its kernels share, whatever the backend
#pragma once

#include "ggml-impl.h"
#include "ggml-lampe.h"

#include <math.h>

// op_params, as ggml_lampe_attn() and ggml_lampe_attn_set_length_step() set them
struct lampe_attn_params {
    float   scale;
    float   softcap;
    bool    neox;
    bool    causal;
    int32_t length_step;
};

static inline struct lampe_attn_params lampe_get_params(const struct ggml_tensor * dst) {
    struct lampe_attn_params res;

    res.scale       = ggml_get_op_params_f32(dst, 0);
    res.softcap     = ggml_get_op_params_f32(dst, 1);
    res.neox        = ggml_get_op_params_i32(dst, 2) == GGML_ROPE_TYPE_NEOX;
    res.causal      = ggml_get_op_params_i32(dst, 3) != 0;
    res.length_step = ggml_get_op_params_i32(dst, 4);

    return res;
}

// each has its own rotation of queries; the keys of LOCAL and TAIL are rotated alike
enum lampe_region {
    LAMPE_REGION_LOCAL  = 0,
    LAMPE_REGION_MIDDLE = 1,
    LAMPE_REGION_TAIL   = 2,
    LAMPE_REGION_COUNT  = 3,
};

// the region of a pair of query and key
GGML_LAMPE_INLINE enum lampe_region lampe_get_region(const int32_t distance, const int32_t local_window, const int32_t tail_start) {
    if (distance <= local_window) {
        return LAMPE_REGION_LOCAL;
    }
    return distance >= tail_start ? LAMPE_REGION_TAIL : LAMPE_REGION_MIDDLE;
}

// the regions of all distances from d_min to d_max, a bit for each
GGML_LAMPE_INLINE int lampe_get_regions(const int64_t d_min, const int64_t d_max, const int64_t local_window, const int64_t tail_start) {
    int res = 0;
    if (d_min <= local_window) {
        res |= 1 << LAMPE_REGION_LOCAL;
    }
    if (d_max > local_window && d_min < tail_start && local_window + 1 < tail_start) {
        res |= 1 << LAMPE_REGION_MIDDLE;
    }
    if (d_max > local_window && d_max >= tail_start) {
        res |= 1 << LAMPE_REGION_TAIL;
    }

    return res;
}

// the position that a query at pos is rotated to
GGML_LAMPE_INLINE int64_t lampe_query_position(const int32_t * plan, const enum lampe_region region, const int64_t pos) {
    switch (region) {
        case LAMPE_REGION_MIDDLE:
            return ggml_lampe_middle(pos, plan[GGML_LAMPE_PLAN_NUM], plan[GGML_LAMPE_PLAN_DEN]) + plan[GGML_LAMPE_PLAN_MIDDLE_SHIFT];
        case LAMPE_REGION_TAIL:
            return pos - plan[GGML_LAMPE_PLAN_TAIL_SHIFT];
        default:
            return pos;
    }
}

// what makes an output of a weighted sum of values: max is the largest score of the row, sum that of exp(score - max)
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
