#include "llama-lampe-graph.h"

#include "llama-impl.h"
#include "llama-kv-cache.h"

#include "ggml-lampe.h"

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

//
// llm_graph_input_lampe
//

llm_graph_input_lampe::llm_graph_input_lampe(llama_lampe_context & lampe, const llama_kv_cache_context * mctx) : lampe(lampe), mctx(mctx) {
}

llm_graph_input_lampe * llm_graph_input_lampe::add(
                ggml_context * ctx,
          const llama_ubatch & ubatch,
         const llama_cparams & cparams,
const llama_kv_cache_context * mctx,
            llm_graph_result * res) {
    auto inp = std::make_unique<llm_graph_input_lampe>(*cparams.lampe, mctx);

    inp->build_inputs(ctx, ubatch, cparams);

    return static_cast<llm_graph_input_lampe *>(res->add_input(std::move(inp)));
}

void llm_graph_input_lampe::build_inputs(ggml_context * ctx, const llama_ubatch & ubatch, const llama_cparams & cparams) {
    fused    = cparams.flash_attn;
    n_kv     = mctx->get_n_kv();
    n_tokens = ubatch.n_tokens;
    n_stream = cparams.kv_unified ? 1 : ubatch.n_seqs_unq;

    if (fused) {
        plan = ggml_new_tensor_4d(ctx, GGML_TYPE_I32, GGML_LAMPE_PLAN_SIZE, n_tokens/n_stream, 1, n_stream);
        ggml_set_input(plan);
        ggml_set_name(plan, "lampe_plan");

        k_pos = ggml_new_tensor_4d(ctx, GGML_TYPE_I32, n_kv, 1, 1, n_stream);
        ggml_set_input(k_pos);
        ggml_set_name(k_pos, "lampe_k_pos");
    } else {
        // graphs are reserved at full length but with positions of zero, which would ask for the identity alone
        const int64_t n_plans_min = mctx->has_ubatches() ? 0 : std::min<int64_t>(2, lampe.n_plans_max(n_tokens));

        portable.build_inputs(ctx, llama_lampe_portable::layout_of(lampe.get_plans(ubatch), n_kv, n_tokens, n_stream, n_plans_min));
    }
}

void llm_graph_input_lampe::set_input(const llama_ubatch * ubatch) {
    const auto plans = lampe.get_plans(*ubatch);

    std::vector<int32_t> k_pos_data(n_kv*n_stream);
    mctx->get_k_pos(k_pos_data.data(), n_kv);

    if (!fused) {
        portable.set_inputs(plans, ubatch->pos, k_pos_data.data());
        return;
    }

    std::vector<int32_t> plan_data(GGML_LAMPE_PLAN_SIZE*n_tokens);

    for (int64_t i = 0; i < n_tokens; ++i) {
        int32_t * row = plan_data.data() + GGML_LAMPE_PLAN_SIZE*i;

        row[GGML_LAMPE_PLAN_POS]          = ubatch->pos[i];
        row[GGML_LAMPE_PLAN_LOCAL_WINDOW] = plans[i].local_window;
        row[GGML_LAMPE_PLAN_NUM]          = plans[i].num;
        row[GGML_LAMPE_PLAN_DEN]          = plans[i].den;
        row[GGML_LAMPE_PLAN_MIDDLE_SHIFT] = plans[i].middle_shift;
        row[GGML_LAMPE_PLAN_TAIL_START]   = plans[i].tail_start;
        row[GGML_LAMPE_PLAN_TAIL_SHIFT]   = plans[i].tail_shift;
        row[GGML_LAMPE_PLAN_LENGTH]       = plans[i].length;
    }

    ggml_backend_tensor_set(plan,  plan_data .data(), 0, ggml_nbytes(plan));
    ggml_backend_tensor_set(k_pos, k_pos_data.data(), 0, ggml_nbytes(k_pos));
}

bool llm_graph_input_lampe::can_reuse(const llm_graph_params & params) {
    mctx = static_cast<const llama_kv_cache_context *>(params.mctx);

    bool res = true;

    res &= params.cparams.lampe      == &lampe;
    res &= params.cparams.flash_attn == fused;

    res &= n_kv     == mctx->get_n_kv();
    res &= n_tokens == params.ubatch.n_tokens;
    res &= n_stream == (params.cparams.kv_unified ? 1 : params.ubatch.n_seqs_unq);

    if (res && !fused) {
        res = portable.lt == llama_lampe_portable::layout_of(lampe.get_plans(params.ubatch), n_kv, n_tokens, n_stream, 0);
    }

    return res;
}

// step over what does not change the values, or scales all of them alike
static const ggml_tensor * lampe_find_rope(const ggml_tensor * cur) {
    while (cur) {
        switch (cur->op) {
            case GGML_OP_ROPE:
                return cur;
            case GGML_OP_SCALE:
                {
                    float bias;
                    memcpy(&bias, (const float *) cur->op_params + 1, sizeof(float));
                    if (bias != 0.0f) {
                        return nullptr;
                    }
                    cur = cur->src[0];
                } break;
            case GGML_OP_RESHAPE:
            case GGML_OP_VIEW:
            case GGML_OP_PERMUTE:
            case GGML_OP_CONT:
                cur = cur->src[0];
                break;
            default:
                return nullptr;
        }
    }

    return nullptr;
}

void llm_graph_input_lampe::bind(const ggml_tensor * q_cur, const ggml_tensor * k_cur, const ggml_tensor * kq_b, int il) {
    const ggml_tensor * q_rope = lampe_find_rope(q_cur);
    const ggml_tensor * k_rope = lampe_find_rope(k_cur);

    if (!q_rope || !k_rope) {
        throw llama_lampe_error(format("LaMPE does not apply to this model: layer %d has no RoPE, or has it before an operation that does not commute with it", il));
    }
    if (kq_b) {
        throw llama_lampe_error(format("LaMPE does not apply to this model: layer %d adds a bias to its attention scores", il));
    }

    rope     = llama_lampe_rope::from_op(q_rope);
    this->il = il;

    if (!(rope == llama_lampe_rope::from_op(k_rope))) {
        throw llama_lampe_error(format("LaMPE does not apply to this model: layer %d rotates its queries and keys differently", il));
    }
    if (rope.mode != GGML_ROPE_TYPE_NORMAL && rope.mode != GGML_ROPE_TYPE_NEOX) {
        throw llama_lampe_error(format("LaMPE does not apply to this model: layer %d has RoPE of another kind than NORM and NEOX", il));
    }

    rope_ops.insert(q_rope);
    rope_ops.insert(k_rope);
}

void llm_graph_input_lampe::check(const llm_graph_result & res) {
    const llm_graph_input_lampe * inp = nullptr;

    for (const auto & input : res.inputs) {
        if (const auto * cur = dynamic_cast<const llm_graph_input_lampe *>(input.get())) {
            inp = cur;
        }
    }

    if (!inp || inp->rope_ops.empty()) {
        throw llama_lampe_error("LaMPE does not apply to this model: it has no attention over a plain KV cache");
    }

    for (int i = 0; i < ggml_graph_n_nodes(res.gf); ++i) {
        const ggml_tensor * node = ggml_graph_node(res.gf, i);

        for (int j = 0; j < GGML_MAX_SRC; ++j) {
            const ggml_tensor * src = node->src[j];

            if (src && strcmp(src->name, "inp_pos") == 0 && inp->rope_ops.count(node) == 0) {
                throw llama_lampe_error(format("LaMPE does not apply to this model: it uses positions in '%s' (%s), outside of the RoPE of a plain attention",
                            node->name, ggml_op_name(node->op)));
            }
        }
    }
}

ggml_tensor * llm_graph_input_lampe::build_attn_fused(
         ggml_context * ctx,
          ggml_tensor * q,
          ggml_tensor * k,
          ggml_tensor * v,
          ggml_tensor * kq_mask,
          ggml_tensor * sinks,
                float   kq_scale,
                float   softcap) const {
    return ggml_lampe_attn(ctx, q, k, v, kq_mask, plan, k_pos, lampe.get_rope_table(rope, il), sinks, kq_scale, softcap, rope.mode);
}

ggml_tensor * llm_graph_input_lampe::build_kq(ggml_context * ctx, ggml_tensor * q, ggml_tensor * k) const {
    // undo the permutation and the split into streams: RoPE wants the heads before the tokens
    q = ggml_permute(ctx, q, 0, 2, 1, 3);
    k = ggml_permute(ctx, k, 0, 2, 1, 3);

    q = ggml_reshape_3d(ctx, ggml_is_contiguous(q) ? q : ggml_cont(ctx, q), q->ne[0], q->ne[1], n_tokens);

    return portable.build_kq(ctx, q, k, rope, (float) lampe.get_params().attention_factor);
}
