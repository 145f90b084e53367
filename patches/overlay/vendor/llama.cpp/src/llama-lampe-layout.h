#pragma once

#include "llama-lampe-impl.h"

#include <cstdint>
#include <vector>

// a range of cells, the same in every stream
struct llama_lampe_cells {
    int64_t first = 0;
    int64_t n     = 0;

    bool operator==(const llama_lampe_cells & other) const { return first == other.first && n == other.n; }

    // grow to hold another range
    void include(const llama_lampe_cells & other);

    // grow to hold the cells whose position lies in [pos_min, pos_max]
    void include(const int32_t * k_pos, int64_t n_kv, int64_t pos_min, int64_t pos_max);
};

// some tokens of each stream, and the cells that each region has to score for them:
// every pair of its own, and others that are masked
struct llama_lampe_block {
    int64_t first;
    int64_t n;

    llama_lampe_cells local;
    llama_lampe_cells tail;

    std::vector<llama_lampe_cells> middle; // one per plan, n == 0: no pair of this plan

    bool operator==(const llama_lampe_block & other) const {
        return first == other.first && n == other.n && local == other.local && tail == other.tail && middle == other.middle;
    }

    bool is_local_only() const;

    int64_t n_cells() const;
};

// what a graph of the portable path depends on, beside the model
struct llama_lampe_layout {
    int64_t n_kv;
    int64_t n_tokens;
    int64_t n_stream;

    std::vector<llama_lampe_block> blocks;

    bool operator==(const llama_lampe_layout & other) const {
        return n_kv == other.n_kv && n_tokens == other.n_tokens && n_stream == other.n_stream && blocks == other.blocks;
    }

    // plans and q_pos: one per token, k_pos: [n_kv*n_stream], n_block: tokens of each stream that a block may have
    // not causal: keys after a token are local to it
    static llama_lampe_layout from_batch(
            const std::vector<llama_lampe_plan> & plans,
                                  const int32_t * q_pos,
                                  const int32_t * k_pos,
                                        int64_t   n_kv,
                                        int64_t   n_tokens,
                                        int64_t   n_stream,
                                        int64_t   n_block,
                                           bool   causal);

    // to reserve a graph before any position is known: one sequence in order, with this plan
    static llama_lampe_layout from_plan(const llama_lampe_plan & plan, int64_t n_kv, int64_t n_tokens, int64_t n_stream, int64_t n_block);
};

// the position of a key in the middle; that of a query lacks the shift
int32_t llama_lampe_plan_middle(const llama_lampe_plan & plan, int32_t pos);

// the distinct plans that have a middle, in order of appearance, and the index of each token's own: -1 for the identity
std::vector<llama_lampe_plan> llama_lampe_plans_distinct(const std::vector<llama_lampe_plan> & plans, std::vector<int64_t> & ids);
