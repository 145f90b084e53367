#pragma once

#include "llama-lampe-layout.h"

#include <vector>

// the attention from stock ggml ops: each region scores a range of cells, with its own rotation of queries and keys,
// and one softmax runs over the scores of all regions
//
// tokens are taken in blocks, so that the memory for scores has a bound
struct llama_lampe_portable {
    void build_inputs(ggml_context * ctx, const llama_lampe_layout & layout);

    // as for llama_lampe_layout::from_batch()
    void set_inputs(const std::vector<llama_lampe_plan> & plans, const int32_t * q_pos, const int32_t * k_pos) const;

    // how the scores become weights
    struct weighting {
        ggml_tensor * kq_mask; // F32 [n_kv, n_tokens/n_stream, 1, n_stream]
        ggml_tensor * sinks;   // F32 [n_head] or nullptr

        float kq_scale;
        float cap_scale; // kq = softcap*tanh(kq*cap_scale/softcap), before kq_scale
        float softcap;   // 0: none
    };

    // q: F32 [n_embd_head,   n_head,    n_tokens]
    // k:     [n_embd_head,   n_head_kv, n_kv, n_stream]
    // v:     [n_kv, n_embd_head_v, n_head_kv, n_stream]
    // returns F32 [n_embd_head_v, n_tokens/n_stream, n_head, n_stream]
    ggml_tensor * build_attn(
                   ggml_context * ctx,
                    ggml_tensor * q,
                    ggml_tensor * k,
                    ggml_tensor * v,
                const weighting & wt,
         const llama_lampe_rope & rope,
                          float   attention_factor,
                            int   il);

    llama_lampe_layout layout = {};

private:
    struct region {
        ggml_tensor * q_pos = nullptr; // I32 [n_tokens]
        ggml_tensor * k_pos = nullptr; // I32 [range.n*n_stream]

        llama_lampe_cells range; // over all blocks
    };

    ggml_tensor * build_mask(ggml_context * ctx, size_t ib, ggml_tensor * kq_mask);

    region              local;
    region              tail;
    std::vector<region> middle; // they share q_pos: a token has one plan

    // per block: F32 [n_cells, n, 1, n_stream], 0 where the region scores the pair, else -INFINITY; nullptr: all are local
    std::vector<ggml_tensor *> masks;

    // the same with kq_mask added, shared by the layers
    std::vector<ggml_tensor *> masks_kq;
};
