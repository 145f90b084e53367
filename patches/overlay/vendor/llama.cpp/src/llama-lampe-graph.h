#pragma once

#include "llama-graph.h"
#include "llama-lampe-impl.h"

#include <unordered_set>
#include <vector>

class llama_kv_cache_context;
class llama_kv_cache_iswa_context;

// the attention scores from stock ggml ops: one matrix product per region, then a masked sum
//
// local and tail share their rotated keys; each plan that is not the identity has its own middle
struct llama_lampe_portable {
    struct layout {
        int64_t n_kv;
        int64_t n_tokens;
        int64_t n_stream;
        int64_t n_plans; // distinct plans that are not the identity

        bool has_tail;

        bool operator==(const layout & other) const;
    };

    // what these plans need; n_plans_min > 0: at least that many and a tail, to reserve a graph before any plan is known
    static layout layout_of(const std::vector<llama_lampe_plan> & plans, int64_t n_kv, int64_t n_tokens, int64_t n_stream, int64_t n_plans_min);

    void build_inputs(ggml_context * ctx, const layout & lt);

    // plans and q_pos: one per token, k_pos: [n_kv*n_stream]
    void set_inputs(const std::vector<llama_lampe_plan> & plans, const int32_t * q_pos, const int32_t * k_pos) const;

    // q: F32 [n_embd_head, n_head, n_tokens]
    // k:     [n_embd_head, n_head_kv, n_kv, n_stream]
    // returns F32 [n_kv, n_tokens/n_stream, n_head, n_stream]
    ggml_tensor * build_kq(ggml_context * ctx, ggml_tensor * q, ggml_tensor * k, const llama_lampe_rope & rope, float attention_factor) const;

    layout lt = {};

    // local, tail: one entry; middle: one entry per plan
    struct region {
        ggml_tensor * q_pos; // I32 [n_tokens]
        ggml_tensor * k_pos; // I32 [n_kv*n_stream]
        ggml_tensor * mask;  // F32 [n_kv, n_tokens/n_stream, 1, n_stream], 1 where the region scores the pair, else 0
    };

    region              local  = {};
    region              tail   = {};
    std::vector<region> middle;
};

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

    // of the layers that see all tokens, or of those that see a sliding window: their positions stay as they are
    static llm_graph_input_lampe * add(
                          ggml_context * ctx,
                    const llama_ubatch & ubatch,
                   const llama_cparams & cparams,
     const llama_kv_cache_iswa_context * mctx,
                                  bool   is_swa,
                      llm_graph_result * res);

    void set_input(const llama_ubatch * ubatch) override;

    bool can_reuse(const llm_graph_params & params) override;

    // find the RoPE ops behind the queries and keys of a layer, the keys nullptr when those of an earlier layer are used
    // false when there is none before their projections: positions do not matter here, or check() finds where they do
    // throws llama_lampe_error when something that does not commute with RoPE comes after it
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

    // as ggml_mul_mat(k, q), for the layer of the last bind()
    // q, k: permuted as for attention: [n_embd_head, n_tokens/n_stream, n_head, n_stream], [n_embd_head, n_kv, n_head_kv, n_stream]
    ggml_tensor * build_kq(ggml_context * ctx, ggml_tensor * q, ggml_tensor * k) const;

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

    llama_lampe_context & lampe;

    const llama_kv_cache_context * mctx;

    const bool is_iswa; // the context has two caches
    const bool is_swa;  // this is of the one whose layers see a sliding window

    bool fused = false;

    int64_t n_kv     = 0;
    int64_t n_tokens = 0;
    int64_t n_stream = 0;

    ggml_tensor * plan  = nullptr; // I32 [GGML_LAMPE_PLAN_SIZE, n_tokens/n_stream, 1, n_stream]
    ggml_tensor * k_pos = nullptr; // I32 [n_kv, 1, 1, n_stream]

    llama_lampe_portable portable;

    // of the layer in hand
    llama_lampe_rope rope = {};
    int              il   = -1;

    std::unordered_set<const ggml_tensor *> rope_ops;
};
