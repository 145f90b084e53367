#include "llama-lampe-impl.h"

#include "llama-batch.h"
#include "llama-hparams.h"
#include "llama-impl.h"
#include "llama-memory.h"
#include "llama-model.h"

#include <algorithm>
#include <cstdlib>

// the mapped position of a query is at most this much above its own: g(i) + s1 - g(s1) <= i + 1
static constexpr int32_t LLAMA_LAMPE_POS_SLACK = 2;

static constexpr int32_t LLAMA_LAMPE_POS_PAD = 256;

// the scheduler sets aside 20 kB for each node of a graph
static constexpr int64_t LLAMA_LAMPE_NODES_MAX = 512*1024;

static constexpr size_t LLAMA_LAMPE_SCORES_MAX = 256*1024*1024;

//
// llama_lampe_context
//

llama_lampe_context::llama_lampe_context(const llama_model & model, const llama_cparams & cparams, const llama_lampe_params & params) :
    model(model), cparams(cparams), active({ params, {} }), flash_attn(cparams.flash_attn), auto_fa(cparams.auto_fa) {
    n_pos = GGML_PAD((int32_t) cparams.n_ctx_seq + LLAMA_LAMPE_POS_SLACK, LLAMA_LAMPE_POS_PAD);

    const char * scores_max_env = getenv("LLAMA_LAMPE_SCORES_MAX");

    scores_max = scores_max_env ? strtoull(scores_max_env, nullptr, 10) : LLAMA_LAMPE_SCORES_MAX;

    prompt_length.fill(0);
    batch_length .fill(0);
}

const llama_lampe_params & llama_lampe_context::get_params() const {
    return active.params;
}

llama_lampe_context::settings llama_lampe_context::set_params(const llama_lampe_params & params) {
    llama_lampe_params_check(params);

    settings next = { params, {} };

    const float magnitude = (float) params.attention_factor;

    // tables are made now and not when a graph asks for them: a batch would fail where there is no memory
    for (const auto & table : active.rope_tables) {
        if (table->magnitude == magnitude || table->is_swa) {
            next.rope_tables.push_back(table);
        }
    }
    for (const auto & table : active.rope_tables) {
        if (table->is_base && !find_rope_table(next.rope_tables, table->rope, table->factors, magnitude, table->buft)) {
            next.rope_tables.push_back(make_rope_table(table->rope, table->factors, magnitude, table->buft, n_pos));
            next.rope_tables.back()->is_base = true;
        }
    }

    std::swap(active, next);

    return next;
}

void llama_lampe_context::restore_settings(settings && before) {
    active = std::move(before);
}

void llama_lampe_context::set_prompt_length(llama_seq_id seq_id, int32_t n_tokens) {
    if (seq_id < 0 || seq_id >= LLAMA_MAX_SEQ) {
        throw llama_lampe_error(format("sequence %d does not exist: it must be between 0 and %d", seq_id, LLAMA_MAX_SEQ - 1));
    }
    if (n_tokens < 0 || (uint32_t) n_tokens > active.params.context_length) {
        throw llama_lampe_error(format("a prompt of %d tokens is beyond the LaMPE context length of %u", n_tokens, active.params.context_length));
    }

    prompt_length[seq_id] = n_tokens;
}

void llama_lampe_context::forget_prompts() {
    prompt_length.fill(0);
}

void llama_lampe_context::forget_prompts(const llama_memory_i & memory, llama_seq_id seq_id, llama_pos p0, llama_pos p1) {
    for (llama_seq_id s = 0; s < LLAMA_MAX_SEQ; ++s) {
        if (prompt_length[s] == 0 || (seq_id >= 0 && s != seq_id)) {
            continue;
        }

        const llama_pos pos_max = memory.seq_pos_max(s);

        if (pos_max >= std::max(p0, 0) && (p1 < 0 || memory.seq_pos_min(s) < p1)) {
            prompt_length[s] = 0;
        }
    }
}

bool llama_lampe_context::begin_batch(const llama_batch_allocr & balloc) {
    llama_pos pos_max = -1;

    for (llama_seq_id s = 0; s < LLAMA_MAX_SEQ; ++s) {
        const llama_pos pos = balloc.seq_pos_max(s);
        if (pos < 0) {
            continue;
        }

        if ((uint32_t) pos >= active.params.context_length) {
            throw llama_lampe_error(format("position %d of sequence %d is beyond the LaMPE context length of %u: "
                        "remove or shift earlier tokens, or convert the model with a larger context length", pos, s, active.params.context_length));
        }

        pos_max = std::max(pos_max, pos);
    }

    const bool grow = pos_max + 1 + LLAMA_LAMPE_POS_SLACK > n_pos;

    if (grow) {
        // positions may run ahead of the cells when early tokens are removed and the rest is not shifted
        grow_rope_tables(GGML_PAD(std::min<int64_t>(2*(int64_t) pos_max, active.params.context_length) + 1 + LLAMA_LAMPE_POS_SLACK, LLAMA_LAMPE_POS_PAD));
    }

    for (llama_seq_id s = 0; s < LLAMA_MAX_SEQ; ++s) {
        const llama_pos pos = balloc.seq_pos_max(s);
        if (pos < 0) {
            continue;
        }

        batch_length[s] = pos + 1;

        // what comes after the prompt has no need of its length, and what is read there later is another text
        if (balloc.seq_pos_min(s) >= prompt_length[s]) {
            prompt_length[s] = 0;
        }
    }

    return grow;
}

int32_t llama_lampe_context::get_length(llama_seq_id seq_id, llama_pos pos, int32_t n_batch) const {
    switch ((enum llama_lampe_length_policy) active.params.length_policy) {
        case LLAMA_LAMPE_LENGTH_POLICY_CAUSAL:
            {
                const int64_t step = active.params.length_step;

                // the last step may end beyond the context length, no harm: m is bounded
                return (int32_t) std::min<int64_t>((pos/step + 1)*step, INT32_MAX);
            }
        case LLAMA_LAMPE_LENGTH_POLICY_PROMPT:
            {
                return pos < prompt_length[seq_id] ? prompt_length[seq_id] : std::max(pos + 1, n_batch);
            }
    }

    GGML_ABORT("fatal error");
}

std::vector<llama_lampe_plan> llama_lampe_context::get_plans(const llama_ubatch & ubatch, bool is_swa) const {
    std::vector<llama_lampe_plan> res(ubatch.n_tokens);

    for (uint32_t i = 0; i < ubatch.n_tokens; ++i) {
        const llama_seq_id seq_id = ubatch.seq_id[i][0];

        const int32_t length = get_length(seq_id, ubatch.pos[i], batch_length[seq_id]);

        if (is_swa) {
            res[i] = llama_lampe_plan_identity(length);
        } else {
            res[i] = i > 0 && res[i - 1].length == length ? res[i - 1] : llama_lampe_params_plan(active.params, length);
        }
    }

    return res;
}

int32_t llama_lampe_context::get_length_step(bool is_swa) const {
    if (is_swa) {
        return LLAMA_LAMPE_NO_LIMIT;
    }

    switch ((enum llama_lampe_length_policy) active.params.length_policy) {
        case LLAMA_LAMPE_LENGTH_POLICY_CAUSAL:
            return (int32_t) std::min<uint32_t>(active.params.length_step, LLAMA_LAMPE_NO_LIMIT);
        // all tokens of a batch have one length, or the announced one
        case LLAMA_LAMPE_LENGTH_POLICY_PROMPT:
            return LLAMA_LAMPE_NO_LIMIT;
    }

    GGML_ABORT("fatal error");
}

float llama_lampe_context::get_magnitude(bool is_swa) const {
    return is_swa ? 1.0f : (float) active.params.attention_factor;
}

bool llama_lampe_context::get_plan_seq(const llama_memory_i & memory, llama_seq_id seq_id, llama_lampe_plan & plan) const {
    if (seq_id < 0 || seq_id >= LLAMA_MAX_SEQ) {
        return false;
    }

    const llama_pos pos = memory.seq_pos_max(seq_id);
    if (pos < 0) {
        return false;
    }

    plan = llama_lampe_params_plan(active.params, get_length(seq_id, pos, pos + 1));

    return true;
}

uint32_t llama_lampe_context::n_plans_max(uint32_t n_tokens) const {
    uint32_t res = 0;

    switch ((enum llama_lampe_length_policy) active.params.length_policy) {
        // each sequence may begin and end in the middle of a step, but there are only so many steps
        case LLAMA_LAMPE_LENGTH_POLICY_CAUSAL:
            res = std::min(2*cparams.n_seq_max + n_tokens/active.params.length_step, active.params.context_length/active.params.length_step + 1);
            break;
        // the announced length and what comes after it
        case LLAMA_LAMPE_LENGTH_POLICY_PROMPT:
            res = 2*cparams.n_seq_max;
            break;
    }

    return std::min(res, n_tokens);
}

llama_lampe_plan llama_lampe_context::get_plan_max(bool is_swa) const {
    const int32_t length = std::min(cparams.n_ctx_seq, active.params.context_length);

    return is_swa ? llama_lampe_plan_identity(length) : llama_lampe_params_plan(active.params, length);
}

int64_t llama_lampe_context::n_tokens_block(int64_t n_kv) const {
    uint32_t n_head = 1;
    for (uint32_t il = 0; il < model.hparams.n_layer(); ++il) {
        n_head = std::max(n_head, model.hparams.n_head(il));
    }

    // the scores, and those of the regions that they are put together from
    return std::max<int64_t>(1, scores_max/(2*sizeof(float)*n_head*n_kv));
}

uint32_t llama_lampe_context::n_nodes_max(uint32_t n_tokens) const {
    const int64_t n_block  = n_tokens_block(cparams.n_ctx);
    const int64_t n_full   = (n_tokens + n_block - 1)/n_block;
    const int64_t n_plans  = n_plans_max(n_tokens);
    const int64_t n_blocks = n_full + n_plans;                         // see llama_lampe_layout::from_batch()
    const int64_t n_parts  = 2*n_blocks + n_full*n_plans + n_blocks;   // local and tail of each, and the middles

    const int64_t n_nodes  = model.hparams.n_layer()*(16 + 8*n_plans + 8*n_blocks + 8*n_parts) + 4*n_parts;

    if (n_nodes > LLAMA_LAMPE_NODES_MAX) {
        throw llama_lampe_error(format("attention composed of other operators would take %lld of them, more than %lld: "
                    "have fewer sequences, smaller batches, larger length steps or the fused path",
                    (long long) n_nodes, (long long) LLAMA_LAMPE_NODES_MAX));
    }

    return n_nodes;
}
