// LaMPE attention: positions are applied inside attention, by a plan that depends on the length of the input
// ref: https://arxiv.org/abs/2508.02308
#pragma once

#include "ggml.h"

#if defined(__CUDACC__) || defined(__HIPCC__) || defined(__MUSACC__)
#    define GGML_LAMPE_INLINE static __host__ __device__ __forceinline__
#else
#    define GGML_LAMPE_INLINE static inline
#endif

#ifdef  __cplusplus
extern "C" {
#endif

    // values per query in the plan tensor
    #define GGML_LAMPE_PLAN_SIZE 8

    enum ggml_lampe_plan_field {
        GGML_LAMPE_PLAN_POS          = 0, // position of the query in its sequence
        GGML_LAMPE_PLAN_LOCAL_WINDOW = 1, // distances up to this one are exact, INT32_MAX: all of them (plain RoPE)
        GGML_LAMPE_PLAN_NUM          = 2, // the middle maps positions with g(x) = floor(x*num/den)
        GGML_LAMPE_PLAN_DEN          = 3,
        GGML_LAMPE_PLAN_MIDDLE_SHIFT = 4,
        GGML_LAMPE_PLAN_TAIL_START   = 5, // distances from this one on are exact but for the shift, INT32_MAX: none
        GGML_LAMPE_PLAN_TAIL_SHIFT   = 6,
        GGML_LAMPE_PLAN_LENGTH       = 7, // the length that the plan was made for, not used by the operator
    };

    // g(pos)
    GGML_LAMPE_INLINE int64_t ggml_lampe_middle(const int64_t pos, const int32_t num, const int32_t den) {
        return pos*num/(den > 1 ? den : 1);
    }

    // q:     f32 [d_k, n_q,  n_head,    n_stream]  not rotated
    // k:         [d_k, n_kv, n_head_kv, n_stream]  not rotated, f32 or any type that converts to it
    // v:         [d_v, n_kv, n_head_kv, n_stream]  f32 or any type that converts to it  !! not transposed !!
    // mask:      [n_kv, n_q, 1, n_stream]          f16 or f32, added to the scores; n_q may be padded
    // plan:  i32 [GGML_LAMPE_PLAN_SIZE, n_q, 1, n_stream]
    // k_pos: i32 [n_kv, 1, 1, n_stream]            position of each key, in any order; -1: empty, whatever the mask says
    // rope:  f32 [n_rot, n_pos]                    row p: the cos of all pairs at position p, then the sin of all pairs
    // sinks: f32 [n_head]                          optional
    // res:   f32 [d_v, n_head, n_q, n_stream]      !! permuted !!
    //
    // with d = pos - k_pos, the positions that query and key are rotated to are
    //
    //   local,  d <= local_window:  pos,                    k_pos
    //   tail,   d >= tail_start:    pos - tail_shift,       k_pos
    //   middle, otherwise:          g(pos) + middle_shift,  g(k_pos)
    //
    // the first n_rot dimensions are rotated, in pairs as rope_mode says (GGML_ROPE_TYPE_NORMAL or GGML_ROPE_TYPE_NEOX)
    // positions outside of the table are clamped to it
    // softcap: 0.0f for none
    // causal: the mask hides keys after the query, so that it need not be read to leave out tiles of them
    GGML_API struct ggml_tensor * ggml_lampe_attn(
            struct ggml_context * ctx,
            struct ggml_tensor  * q,
            struct ggml_tensor  * k,
            struct ggml_tensor  * v,
            struct ggml_tensor  * mask,
            struct ggml_tensor  * plan,
            struct ggml_tensor  * k_pos,
            struct ggml_tensor  * rope,
            struct ggml_tensor  * sinks,
            float                 scale,
            float                 softcap,
            int                   rope_mode,
            bool                  causal);

    // after how many positions of a sequence its plan changes at the earliest, 0 (the default): unknown
    // a hint for the room that a kernel takes, so that the result does not depend on it
    GGML_API void ggml_lampe_attn_set_length_step(
            struct ggml_tensor  * a,
            int32_t               length_step);

#ifdef  __cplusplus
}
#endif
