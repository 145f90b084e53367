#pragma once

#include "llama-graph.h"
#include "llama-lampe-impl.h"
#include "llama-lampe-portable.h"

#include <unordered_set>

class llama_kv_cache_context;
class llama_kv_cache_iswa_context;

class llm_graph_input_lampe : public llm_graph_input_i {
public:
    llm_graph_input_lampe(llama_lampe_context & lampe, const llama_kv_cache_context * mctx, bool is_iswa, bool is_swa);
    virtual ~llm_graph_input_lampe() = default;

    // build the input tensors and hand them to the graph
    static llm_graph_input_lampe * add(
                     ggml_context * ctx,
               const llama_ubatch & ubatch,
              const llama_cparams & cparams,
     const llama_kv_cache_context * mctx,
                 llm_graph_result * res);

    // is_swa: for the layers that see a sliding window, whose positions stay as they are
    static llm_graph_input_lampe * add(
                          ggml_context * ctx,
                    const llama_ubatch & ubatch,
                   const llama_cparams & cparams,
     const llama_kv_cache_iswa_context * mctx,
                                  bool   is_swa,
                      llm_graph_result * res);

    void set_input(const llama_ubatch * ubatch) override;

    bool can_reuse(const llm_graph_params & params) override;

    // find the RoPE ops that queries and keys of a layer come from; k_cur: nullptr when the keys of an earlier layer are used
    // false when there is none: the layer needs no positions, or check() finds where it has them from
    // throws llama_lampe_error when what comes after RoPE does not commute with it
    bool bind(const ggml_tensor * q_cur, const ggml_tensor * k_cur, const ggml_tensor * kq_b, int il);

    // throws llama_lampe_error when the graph has no attention of ours,
    // or when a position reaches anything but the RoPE of one
    static void check(const llm_graph_result & res);

    // as ggml_flash_attn_ext, for the layer of the last bind()
    ggml_tensor * build_attn_fused(
             ggml_context * ctx,
              ggml_tensor * q,
              ggml_tensor * k,
              ggml_tensor * v,
              ggml_tensor * kq_mask,
              ggml_tensor * sinks,
                    float   kq_scale,
                    float   softcap) const;

    // the same from stock ops, for the layer of the last bind(); the scores are capped as for ggml_tanh(kq*cap_scale/softcap)
    // q, k: as for build_attn_fused(), v: [n_kv, n_embd_head_v, n_head_kv, n_stream]
    // returns F32 [n_embd_head_v, n_tokens/n_stream, n_head, n_stream]
    ggml_tensor * build_attn_portable(
             ggml_context * ctx,
              ggml_tensor * q,
              ggml_tensor * k,
              ggml_tensor * v,
              ggml_tensor * kq_mask,
              ggml_tensor * sinks,
                    float   kq_scale,
                    float   cap_scale,
                    float   softcap);

private:
    static llm_graph_input_lampe * add(
                     ggml_context * ctx,
               const llama_ubatch & ubatch,
              const llama_cparams & cparams,
     const llama_kv_cache_context * mctx,
                             bool   is_iswa,
                             bool   is_swa,
                 llm_graph_result * res);

    void build_inputs(ggml_context * ctx, const llama_ubatch & ubatch, const llama_cparams & cparams);

    // what portable computes for the batch in hand
    llama_lampe_layout get_layout(const llama_ubatch & ubatch) const;

    llama_lampe_context & lampe;

    const llama_kv_cache_context * mctx;

    const bool is_iswa; // the context has two caches, mctx is of one of them
    const bool is_swa;  // ... of the layers that see a sliding window

    bool fused  = false;
    bool causal = false;

    int64_t n_kv     = 0;
    int64_t n_tokens = 0;
    int64_t n_stream = 0;

    ggml_tensor * plan  = nullptr; // I32 [GGML_LAMPE_PLAN_SIZE, n_tokens/n_stream, 1, n_stream]
    ggml_tensor * k_pos = nullptr; // I32 [n_kv, 1, 1, n_stream]

    llama_lampe_portable portable;

    // set by bind(), for the layer in hand
    llama_lampe_rope rope = {};
    int              il   = -1;

    std::unordered_set<const ggml_tensor *> rope_ops;
};
