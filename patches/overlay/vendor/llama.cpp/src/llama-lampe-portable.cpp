#include "llama-lampe-graph.h"

#include <algorithm>
#include <cstring>

//
// llama_lampe_portable
//

bool llama_lampe_portable::layout::operator==(const layout & other) const {
    return
        n_kv     == other.n_kv     &&
        n_tokens == other.n_tokens &&
        n_stream == other.n_stream &&
        n_plans  == other.n_plans  &&
        has_tail == other.has_tail;
}

static bool lampe_plan_is_identity(const llama_lampe_plan & plan) {
    return plan.local_window == LLAMA_LAMPE_NO_LIMIT;
}

// what the middle of a plan depends on
static bool lampe_plan_same_middle(const llama_lampe_plan & a, const llama_lampe_plan & b) {
    return a.num == b.num && a.den == b.den;
}

static int32_t lampe_plan_middle(const llama_lampe_plan & plan, int32_t pos) {
    return (int32_t) ((int64_t) pos*plan.num/plan.den);
}

// the distinct plans, as far as the keys of their middle are concerned; in order of appearance
static std::vector<llama_lampe_plan> lampe_plans_distinct(const std::vector<llama_lampe_plan> & plans) {
    std::vector<llama_lampe_plan> res;

    for (const auto & plan : plans) {
        if (lampe_plan_is_identity(plan)) {
            continue;
        }
        if (std::none_of(res.begin(), res.end(), [&](const auto & other) { return lampe_plan_same_middle(plan, other); })) {
            res.push_back(plan);
        }
    }

    return res;
}

llama_lampe_portable::layout llama_lampe_portable::layout_of(
        const std::vector<llama_lampe_plan> & plans, int64_t n_kv, int64_t n_tokens, int64_t n_stream, int64_t n_plans_min) {
    layout res = {
        /*.n_kv     =*/ n_kv,
        /*.n_tokens =*/ n_tokens,
        /*.n_stream =*/ n_stream,
        /*.n_plans  =*/ std::max<int64_t>(n_plans_min, lampe_plans_distinct(plans).size()),
        /*.has_tail =*/ n_plans_min > 0,
    };

    for (const auto & plan : plans) {
        res.has_tail = res.has_tail || plan.tail_start != LLAMA_LAMPE_NO_LIMIT;
    }

    return res;
}

void llama_lampe_portable::build_inputs(ggml_context * ctx, const layout & lt) {
    this->lt = lt;

    const auto new_i32 = [&](int64_t n, const char * name) {
        ggml_tensor * res = ggml_new_tensor_1d(ctx, GGML_TYPE_I32, n);
        ggml_set_input(res);
        ggml_set_name(res, name);
        return res;
    };

    const auto new_mask = [&](const char * name) {
        ggml_tensor * res = ggml_new_tensor_4d(ctx, GGML_TYPE_F32, lt.n_kv, lt.n_tokens/lt.n_stream, 1, lt.n_stream);
        ggml_set_input(res);
        ggml_set_name(res, name);
        return res;
    };

    local.q_pos = new_i32(lt.n_tokens,          "lampe_local_q_pos");
    local.k_pos = new_i32(lt.n_kv*lt.n_stream,  "lampe_local_k_pos");

    if (lt.n_plans > 0) {
        local.mask = new_mask("lampe_local_mask");
    }

    middle.resize(lt.n_plans);
    for (auto & region : middle) {
        region.q_pos = new_i32(lt.n_tokens,         "lampe_middle_q_pos");
        region.k_pos = new_i32(lt.n_kv*lt.n_stream, "lampe_middle_k_pos");
        region.mask  = new_mask("lampe_middle_mask");
    }

    if (lt.has_tail) {
        tail.q_pos = new_i32(lt.n_tokens, "lampe_tail_q_pos");
        tail.k_pos = local.k_pos;
        tail.mask  = new_mask("lampe_tail_mask");
    }
}

void llama_lampe_portable::set_inputs(const std::vector<llama_lampe_plan> & plans, const int32_t * q_pos, const int32_t * k_pos) const {
    const auto distinct = lampe_plans_distinct(plans);

    // only a graph that is reserved and never run has more
    GGML_ASSERT((int64_t) distinct.size() == lt.n_plans);

    const int64_t n_k   = lt.n_kv*lt.n_stream;
    const int64_t n_tps = lt.n_tokens/lt.n_stream;

    std::vector<int32_t> buf(std::max(lt.n_tokens, n_k));

    const auto set_i32 = [&](ggml_tensor * dst, int64_t n, const auto & fn) {
        for (int64_t i = 0; i < n; ++i) {
            buf[i] = fn(i);
        }
        ggml_backend_tensor_set(dst, buf.data(), 0, n*sizeof(int32_t));
    };

    // empty cells are masked, any position does
    const auto k_pos_at = [&](int64_t j) { return std::max(k_pos[j], 0); };

    set_i32(local.q_pos, lt.n_tokens, [&](int64_t i) { return q_pos[i]; });
    set_i32(local.k_pos, n_k, k_pos_at);

    if (lt.n_plans == 0) {
        return;
    }

    for (int64_t u = 0; u < lt.n_plans; ++u) {
        set_i32(middle[u].q_pos, lt.n_tokens, [&](int64_t i) { return lampe_plan_middle(distinct[u], q_pos[i]) + plans[i].middle_shift; });
        set_i32(middle[u].k_pos, n_k,         [&](int64_t j) { return lampe_plan_middle(distinct[u], k_pos_at(j)); });
    }

    if (lt.has_tail) {
        // only queries long enough have a tail; the others must not be rotated to a negative position
        set_i32(tail.q_pos, lt.n_tokens, [&](int64_t i) { return std::max(q_pos[i] - plans[i].tail_shift, 0); });
    }

    // the region of each pair, one mask after the other
    std::vector<float> mask(lt.n_kv*lt.n_tokens);

    const auto set_mask = [&](ggml_tensor * dst, const auto & in_region) {
        for (int64_t i = 0; i < lt.n_tokens; ++i) {
            const int32_t * k_pos_s = k_pos + (i/n_tps)*lt.n_kv;

            for (int64_t j = 0; j < lt.n_kv; ++j) {
                mask[i*lt.n_kv + j] = in_region(i, (int64_t) q_pos[i] - k_pos_s[j]) ? 1.0f : 0.0f;
            }
        }
        ggml_backend_tensor_set(dst, mask.data(), 0, mask.size()*sizeof(float));
    };

    const auto is_local = [&](int64_t i, int64_t d) { return d <= plans[i].local_window; };
    const auto is_tail  = [&](int64_t i, int64_t d) { return !is_local(i, d) && d >= plans[i].tail_start; };

    set_mask(local.mask, is_local);

    for (int64_t u = 0; u < lt.n_plans; ++u) {
        set_mask(middle[u].mask, [&](int64_t i, int64_t d) {
            return lampe_plan_same_middle(plans[i], distinct[u]) && !is_local(i, d) && !is_tail(i, d);
        });
    }

    if (lt.has_tail) {
        set_mask(tail.mask, is_tail);
    }
}

ggml_tensor * llama_lampe_portable::build_kq(
        ggml_context * ctx, ggml_tensor * q, ggml_tensor * k, const llama_lampe_rope & rope, float attention_factor) const {
    const float attn_factor = rope.get_attn_factor(attention_factor);

    const int64_t n_embd_head = k->ne[0];
    const int64_t n_head      = q->ne[1];
    const int64_t n_head_kv   = k->ne[1];

    const auto rotate = [&](ggml_tensor * cur, ggml_tensor * pos) {
        return ggml_rope_ext(ctx, cur, pos, rope.factors, rope.n_dims, rope.mode, rope.n_ctx_orig, rope.freq_base, rope.freq_scale,
                rope.ext_factor, attn_factor, rope.beta_fast, rope.beta_slow);
    };

    // the streams are folded into the tokens: RoPE has one list of positions
    k = k->type == GGML_TYPE_F32 ? ggml_cont(ctx, k) : ggml_cast(ctx, k, GGML_TYPE_F32);
    k = ggml_reshape_3d(ctx, k, n_embd_head, n_head_kv, lt.n_kv*lt.n_stream);

    const auto rotate_k = [&](ggml_tensor * pos) {
        ggml_tensor * cur = ggml_reshape_4d(ctx, rotate(k, pos), n_embd_head, n_head_kv, lt.n_kv, lt.n_stream);

        return ggml_permute(ctx, cur, 0, 2, 1, 3);
    };

    const auto rotate_q = [&](ggml_tensor * pos) {
        ggml_tensor * cur = ggml_reshape_4d(ctx, rotate(q, pos), n_embd_head, n_head, lt.n_tokens/lt.n_stream, lt.n_stream);

        return ggml_permute(ctx, cur, 0, 2, 1, 3);
    };

    const auto mul_mat = [&](ggml_tensor * k_rot, ggml_tensor * q_rot) {
        ggml_tensor * cur = ggml_mul_mat(ctx, k_rot, q_rot);
        ggml_prec_set_acc(cur, GGML_PREC_F32);

        return cur;
    };

    ggml_tensor * k_local = rotate_k(local.k_pos);
    ggml_tensor * kq      = mul_mat(k_local, rotate_q(local.q_pos));

    if (lt.n_plans == 0) {
        return kq;
    }

    kq = ggml_mul(ctx, kq, local.mask);

    if (lt.has_tail) {
        kq = ggml_add(ctx, kq, ggml_mul(ctx, mul_mat(k_local, rotate_q(tail.q_pos)), tail.mask));
    }

    for (const auto & region : middle) {
        kq = ggml_add(ctx, kq, ggml_mul(ctx, mul_mat(rotate_k(region.k_pos), rotate_q(region.q_pos)), region.mask));
    }

    return kq;
}
