#include "llama-lampe-layout.h"

#include "ggml-lampe.h"

#include <algorithm>

// ranges of cells begin and end at multiples of this, so that graphs can be used again
static constexpr int64_t LLAMA_LAMPE_CELLS_PAD = 256;

static bool lampe_plan_is_identity(const llama_lampe_plan & plan) {
    return plan.local_window == LLAMA_LAMPE_NO_LIMIT;
}

// what the keys of the middle depend on
static bool lampe_plan_same_middle(const llama_lampe_plan & a, const llama_lampe_plan & b) {
    return a.num == b.num && a.den == b.den;
}

int32_t llama_lampe_plan_middle(const llama_lampe_plan & plan, int32_t pos) {
    return (int32_t) ggml_lampe_middle(pos, plan.num, plan.den);
}

std::vector<llama_lampe_plan> llama_lampe_plans_distinct(const std::vector<llama_lampe_plan> & plans, std::vector<int64_t> & ids) {
    std::vector<llama_lampe_plan> res;

    ids.resize(plans.size());

    for (size_t i = 0; i < plans.size(); ++i) {
        if (lampe_plan_is_identity(plans[i])) {
            ids[i] = -1;
            continue;
        }

        const auto it = std::find_if(res.begin(), res.end(), [&](const auto & other) { return lampe_plan_same_middle(plans[i], other); });

        ids[i] = it - res.begin();

        if (it == res.end()) {
            res.push_back(plans[i]);
        }
    }

    return res;
}

//
// llama_lampe_cells
//

void llama_lampe_cells::include(const llama_lampe_cells & other) {
    if (n == 0) {
        *this = other;
    } else if (other.n > 0) {
        const int64_t end = std::max(first + n, other.first + other.n);

        first = std::min(first, other.first);
        n     = end - first;
    }
}

void llama_lampe_cells::include(const int32_t * k_pos, int64_t n_kv, int64_t pos_min, int64_t pos_max) {
    pos_min = std::max<int64_t>(pos_min, 0); // empty cells have -1

    int64_t begin = 0;
    int64_t end   = n_kv;

    while (begin < end && (k_pos[begin] < pos_min || k_pos[begin] > pos_max)) {
        begin++;
    }
    while (begin < end && (k_pos[end - 1] < pos_min || k_pos[end - 1] > pos_max)) {
        end--;
    }
    if (begin == end) {
        return;
    }

    begin = begin/LLAMA_LAMPE_CELLS_PAD*LLAMA_LAMPE_CELLS_PAD;
    end   = std::min<int64_t>(GGML_PAD(end, LLAMA_LAMPE_CELLS_PAD), n_kv);

    include({ begin, end - begin });
}

//
// llama_lampe_block
//

bool llama_lampe_block::is_local_only() const {
    return n_cells() == local.n;
}

int64_t llama_lampe_block::n_cells() const {
    int64_t res = local.n + tail.n;

    for (const auto & cells : middle) {
        res += cells.n;
    }

    return res;
}

// the positions that each region of some queries can reach
struct lampe_reach {
    int64_t local_min  = INT64_MAX;
    int64_t local_max  = -1;
    int64_t middle_min = INT64_MAX;
    int64_t middle_max = -1;
    int64_t tail_max   = -1;

    void include(const llama_lampe_plan & plan, int64_t q_pos, bool causal) {
        const int64_t dist = (int64_t) plan.local_window + 1; // the first that is not local

        local_min  = std::min(local_min,  q_pos - plan.local_window);
        local_max  = std::max(local_max,  causal ? q_pos : INT32_MAX);
        middle_min = std::min(middle_min, q_pos - plan.tail_start + 1);
        middle_max = std::max(middle_max, q_pos - dist);
        tail_max   = std::max(tail_max,   q_pos - std::max<int64_t>(plan.tail_start, dist));
    }
};

//
// llama_lampe_layout
//

llama_lampe_layout llama_lampe_layout::from_batch(
        const std::vector<llama_lampe_plan> & plans,
                              const int32_t * q_pos,
                              const int32_t * k_pos,
                                    int64_t   n_kv,
                                    int64_t   n_tokens,
                                    int64_t   n_stream,
                                    int64_t   n_block,
                                       bool   causal) {
    llama_lampe_layout res = { n_kv, n_tokens, n_stream, {} };

    const int64_t n_tps = n_tokens/n_stream;

    std::vector<int64_t> ids;

    const int64_t n_plans = llama_lampe_plans_distinct(plans, ids).size();

    // a block per plan has one middle; where the tokens of many sequences alternate there would be too many blocks
    int64_t n_changes = 0;
    for (int64_t i = 1; i < n_tokens; ++i) {
        n_changes += ids[i] != ids[i - 1];
    }
    const bool by_plan = n_stream == 1 && n_changes <= n_plans;

    for (int64_t first = 0; first < n_tps;) {
        int64_t n = std::min(n_block, n_tps - first);

        if (by_plan) {
            n = std::find_if(ids.begin() + first, ids.begin() + first + n, [&](int64_t id) { return id != ids[first]; }) - (ids.begin() + first);
        }

        llama_lampe_block block = { first, n, {}, {}, {} };
        block.middle.resize(n_plans);

        for (int64_t s = 0; s < n_stream; ++s) {
            for (int64_t id = -1; id < n_plans; ++id) {
                lampe_reach reach;

                for (int64_t i = s*n_tps + first; i < s*n_tps + first + n; ++i) {
                    if (ids[i] == id) {
                        reach.include(plans[i], q_pos[i], causal);
                    }
                }

                block.local.include(k_pos + s*n_kv, n_kv, reach.local_min, reach.local_max);
                if (id >= 0) {
                    block.middle[id].include(k_pos + s*n_kv, n_kv, reach.middle_min, reach.middle_max);
                    block.tail      .include(k_pos + s*n_kv, n_kv, 0,                reach.tail_max);
                }
            }
        }

        // all of the cells, as upstream: the same sums in the same order
        if (block.is_local_only()) {
            block.local = { 0, n_kv };
        }

        res.blocks.push_back(std::move(block));

        first += n;
    }

    return res;
}

llama_lampe_layout llama_lampe_layout::from_plan(
        const llama_lampe_plan & plan, int64_t n_kv, int64_t n_tokens, int64_t n_stream, int64_t n_block) {
    llama_lampe_layout res = { n_kv, n_tokens, n_stream, {} };

    const int64_t n_tps = n_tokens/n_stream;

    const auto cells_of = [&](int64_t n) -> llama_lampe_cells {
        return { 0, std::min<int64_t>(GGML_PAD(n, LLAMA_LAMPE_CELLS_PAD) + LLAMA_LAMPE_CELLS_PAD, n_kv) };
    };

    for (int64_t first = 0; first < n_tps; first += n_block) {
        llama_lampe_block block = { first, std::min(n_block, n_tps - first), {}, {}, {} };

        if (lampe_plan_is_identity(plan)) {
            block.local = { 0, n_kv };
        } else {
            block.local  = cells_of((int64_t) plan.local_window + block.n);
            block.middle = { { 0, n_kv } };

            if (plan.tail_start != LLAMA_LAMPE_NO_LIMIT) {
                block.tail = cells_of((int64_t) plan.length - plan.tail_start + block.n);
            }
        }

        res.blocks.push_back(std::move(block));
    }

    return res;
}
