#include "ggml-lampe.h"

#include "ggml-impl.h"

struct ggml_tensor * ggml_lampe_attn(
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
        bool                  causal) {
    const int64_t d_k       = k->ne[0];
    const int64_t n_kv      = k->ne[1];
    const int64_t n_head_kv = k->ne[2];
    const int64_t n_stream  = k->ne[3];

    const int64_t n_q    = q->ne[1];
    const int64_t n_head = q->ne[2];

    GGML_ASSERT(q->type  == GGML_TYPE_F32);
    GGML_ASSERT(q->ne[0] == d_k);
    GGML_ASSERT(q->ne[3] == n_stream);
    GGML_ASSERT(n_head % n_head_kv == 0);

    GGML_ASSERT(v->ne[1] == n_kv);
    GGML_ASSERT(v->ne[2] == n_head_kv);
    GGML_ASSERT(v->ne[3] == n_stream);

    GGML_ASSERT(mask->type == GGML_TYPE_F16 || mask->type == GGML_TYPE_F32);
    GGML_ASSERT(mask->ne[0] == n_kv);
    GGML_ASSERT(mask->ne[1] >= n_q);
    GGML_ASSERT(mask->ne[2] == 1);
    GGML_ASSERT(mask->ne[3] == n_stream);

    GGML_ASSERT(plan->type  == GGML_TYPE_I32);
    GGML_ASSERT(plan->ne[0] == GGML_LAMPE_PLAN_SIZE);
    GGML_ASSERT(plan->ne[1] == n_q);
    GGML_ASSERT(plan->ne[2] == 1);
    GGML_ASSERT(plan->ne[3] == n_stream);

    GGML_ASSERT(k_pos->type  == GGML_TYPE_I32);
    GGML_ASSERT(k_pos->ne[0] == n_kv);
    GGML_ASSERT(k_pos->ne[1] == 1);
    GGML_ASSERT(k_pos->ne[2] == 1);
    GGML_ASSERT(k_pos->ne[3] == n_stream);

    GGML_ASSERT(rope->type == GGML_TYPE_F32);
    GGML_ASSERT(ggml_is_matrix(rope));
    GGML_ASSERT(ggml_is_contiguous(rope));
    GGML_ASSERT(rope->ne[0] % 2 == 0);
    GGML_ASSERT(rope->ne[0] <= d_k);
    GGML_ASSERT(rope->ne[1] >= 1);

    if (sinks) {
        GGML_ASSERT(sinks->type == GGML_TYPE_F32);
        GGML_ASSERT(sinks->ne[0] == n_head);
        GGML_ASSERT(ggml_is_vector(sinks));
    }

    GGML_ASSERT(rope_mode == GGML_ROPE_TYPE_NORMAL || rope_mode == GGML_ROPE_TYPE_NEOX);

    // permute(0, 2, 1, 3)
    const int64_t ne[4] = { v->ne[0], n_head, n_q, n_stream };
    struct ggml_tensor * result = ggml_new_tensor(ctx, GGML_TYPE_F32, 4, ne);

    // see lampe_get_params()
    ggml_set_op_params_f32(result, 0, scale);
    ggml_set_op_params_f32(result, 1, softcap);
    ggml_set_op_params_i32(result, 2, rope_mode);
    ggml_set_op_params_i32(result, 3, causal);

    result->op     = GGML_OP_LAMPE_ATTN;
    result->src[0] = q;
    result->src[1] = k;
    result->src[2] = v;
    result->src[3] = mask;
    result->src[4] = plan;
    result->src[5] = k_pos;
    result->src[6] = rope;
    result->src[7] = sinks;

    return result;
}

void ggml_lampe_attn_set_length_step(
        struct ggml_tensor * a,
        int32_t              length_step) {
    GGML_ASSERT(a->op == GGML_OP_LAMPE_ATTN);
    GGML_ASSERT(length_step >= 0);

    ggml_set_op_params_i32(a, 4, length_step);
}
