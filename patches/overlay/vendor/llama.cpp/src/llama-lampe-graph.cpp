#include "llama-lampe-graph.h"

#include "llama-impl.h"
#include "llama-kv-cache-iswa.h"
#include "llama-kv-cache.h"

#include "ggml-lampe.h"

#include <algorithm>
#include <cstring>

//
// llm_graph_input_lampe
//

llm_graph_input_lampe::llm_graph_input_lampe(llama_lampe_context & lampe, const llama_kv_cache_context * mctx, bool is_iswa, bool is_swa) :
    lampe(lampe), mctx(mctx), is_iswa(is_iswa), is_swa(is_swa) {
}

llm_graph_input_lampe * llm_graph_input_lampe::add(
                  ggml_context * ctx,
            const llama_ubatch & ubatch,
           const llama_cparams & cparams,
  const llama_kv_cache_context * mctx,
                          bool   is_iswa,
                          bool   is_swa,
              llm_graph_result * res) {
    auto inp = std::make_unique<llm_graph_input_lampe>(*cparams.lampe, mctx, is_iswa, is_swa);

    inp->build_inputs(ctx, ubatch, cparams);

    return static_cast<llm_graph_input_lampe *>(res->add_input(std::move(inp)));
}

llm_graph_input_lampe * llm_graph_input_lampe::add(
                  ggml_context * ctx,
            const llama_ubatch & ubatch,
           const llama_cparams & cparams,
  const llama_kv_cache_context * mctx,
              llm_graph_result * res) {
    return add(ctx, ubatch, cparams, mctx, false, false, res);
}

llm_graph_input_lampe * llm_graph_input_lampe::add(
                      ggml_context * ctx,
                const llama_ubatch & ubatch,
               const llama_cparams & cparams,
 const llama_kv_cache_iswa_context * mctx,
                              bool   is_swa,
                  llm_graph_result * res) {
    return add(ctx, ubatch, cparams, is_swa ? mctx->get_swa() : mctx->get_base(), true, is_swa, res);
}

void llm_graph_input_lampe::build_inputs(ggml_context * ctx, const llama_ubatch & ubatch, const llama_cparams & cparams) {
    fused    = cparams.flash_attn;
    causal   = cparams.causal_attn;
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
        // a graph is reserved before there are positions
        portable.build_inputs(ctx, mctx->has_ubatches() ? get_layout(ubatch) :
            llama_lampe_layout::from_plan(lampe.get_plan_max(is_swa), n_kv, n_tokens, n_stream, lampe.n_tokens_block(n_kv*n_stream)));
    }
}

llama_lampe_layout llm_graph_input_lampe::get_layout(const llama_ubatch & ubatch) const {
    std::vector<int32_t> k_pos_data(n_kv*n_stream);
    mctx->get_k_pos(k_pos_data.data(), n_kv);

    return llama_lampe_layout::from_batch(
            lampe.get_plans(ubatch, is_swa), ubatch.pos, k_pos_data.data(), n_kv, n_tokens, n_stream, lampe.n_tokens_block(n_kv*n_stream), causal);
}

void llm_graph_input_lampe::set_input(const llama_ubatch * ubatch) {
    // tensors that no layer uses are not allocated
    if (rope_ops.empty()) {
        return;
    }

    const auto plans = lampe.get_plans(*ubatch, is_swa);

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
    if (is_iswa) {
        const auto * mctx_iswa = static_cast<const llama_kv_cache_iswa_context *>(params.mctx);

        mctx = is_swa ? mctx_iswa->get_swa() : mctx_iswa->get_base();
    } else {
        mctx = static_cast<const llama_kv_cache_context *>(params.mctx);
    }

    bool res = true;

    res &= params.cparams.lampe       == &lampe;
    res &= params.cparams.flash_attn  == fused;
    res &= params.cparams.causal_attn == causal;

    res &= n_kv     == mctx->get_n_kv();
    res &= n_tokens == params.ubatch.n_tokens;
    res &= n_stream == (params.cparams.kv_unified ? 1 : params.ubatch.n_seqs_unq);

    if (res && !fused) {
        res = portable.layout == get_layout(params.ubatch);
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

// whether a RoPE op lies between a tensor and the projections that it comes from
static bool lampe_has_rope(const ggml_tensor * cur) {
    if (!cur || cur->op == GGML_OP_NONE || cur->op == GGML_OP_MUL_MAT || cur->op == GGML_OP_MUL_MAT_ID) {
        return false;
    }

    return cur->op == GGML_OP_ROPE || std::any_of(cur->src, cur->src + GGML_MAX_SRC, lampe_has_rope);
}

bool llm_graph_input_lampe::bind(const ggml_tensor * q_cur, const ggml_tensor * k_cur, const ggml_tensor * kq_b, int il) {
    const ggml_tensor * q_rope = lampe_find_rope(q_cur);
    const ggml_tensor * k_rope = k_cur ? lampe_find_rope(k_cur) : q_rope; // no keys: those of an earlier layer are used

    if (!lampe_has_rope(q_cur) && !lampe_has_rope(k_cur)) {
        return false;
    }
    if (!q_rope || !k_rope) {
        throw llama_lampe_error(format("LaMPE does not apply to this model: layer %d has RoPE before an operation that does not commute with it", il));
    }
    if (kq_b) {
        throw llama_lampe_error(format("LaMPE does not apply to this model: layer %d adds a bias to its attention scores", il));
    }

    // as all layers of this kind, as far as is known: what keys of an earlier layer have to be turned by
    if (!k_cur && !rope.same_rotation(llama_lampe_rope::from_op(q_rope))) {
        throw llama_lampe_error(format("LaMPE does not apply to this model: layer %d rotates the keys of an earlier layer differently", il));
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

    return true;
}

void llm_graph_input_lampe::check(const llm_graph_result & res) {
    std::unordered_set<const ggml_tensor *> rope_ops;

    bool any = false;

    for (const auto & input : res.inputs) {
        if (const auto * inp = dynamic_cast<const llm_graph_input_lampe *>(input.get())) {
            any = any || (!inp->is_swa && !inp->rope_ops.empty());
            rope_ops.insert(inp->rope_ops.begin(), inp->rope_ops.end());
        }
    }

    if (!any) {
        throw llama_lampe_error("LaMPE does not apply to this model: it has no attention with RoPE over a plain KV cache of all tokens");
    }

    for (int i = 0; i < ggml_graph_n_nodes(res.gf); ++i) {
        const ggml_tensor * node = ggml_graph_node(res.gf, i);

        for (int j = 0; j < GGML_MAX_SRC; ++j) {
            const ggml_tensor * src = node->src[j];

            if (src && strcmp(src->name, "inp_pos") == 0 && rope_ops.count(node) == 0) {
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
    ggml_tensor * cur = ggml_lampe_attn(ctx, q, k, v, kq_mask, plan, k_pos, lampe.get_rope_table(rope, il, is_swa), sinks, kq_scale, softcap, rope.mode, causal);
    ggml_lampe_attn_set_length_step(cur, lampe.get_length_step(is_swa));

    return cur;
}

ggml_tensor * llm_graph_input_lampe::build_attn_portable(
         ggml_context * ctx,
          ggml_tensor * q,
          ggml_tensor * k,
          ggml_tensor * v,
          ggml_tensor * kq_mask,
          ggml_tensor * sinks,
                float   kq_scale,
                float   cap_scale,
                float   softcap) {
    // undo the permutation and the split into streams: RoPE wants the heads before the tokens
    q = ggml_permute(ctx, q, 0, 2, 1, 3);
    k = ggml_permute(ctx, k, 0, 2, 1, 3);

    q = ggml_reshape_3d(ctx, ggml_is_contiguous(q) ? q : ggml_cont(ctx, q), q->ne[0], q->ne[1], n_tokens);

    return portable.build_attn(ctx, q, k, v, { kq_mask, sinks, kq_scale, cap_scale, softcap }, rope, lampe.get_magnitude(is_swa), il);
}
