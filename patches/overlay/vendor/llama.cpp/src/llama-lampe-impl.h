#pragma once

#include "llama-lampe.h"

#include "llama-cparams.h" // LLAMA_MAX_SEQ

#include "ggml-cpp.h"

#include <array>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

class  llama_batch_allocr;
struct llama_hparams;
struct llama_memory_i;
struct llama_model;
struct llama_model_loader;
struct llama_ubatch;

// a refusal: what() is one sentence for the user, which llama_lampe_last_error() repeats
class llama_lampe_error : public std::runtime_error {
public:
    llama_lampe_error(const std::string & what);
};

// forget the last error, at the start of every call that can refuse
void llama_lampe_error_clear();

// precedes the cells of a saved sequence whose keys carry no positions
static constexpr uint32_t LLAMA_LAMPE_STATE_MAGIC = 0x65706d6c; // "lmpe"

//
// parameters and plan
//

static constexpr int32_t LLAMA_LAMPE_NO_LIMIT = INT32_MAX;

// throws llama_lampe_error when a value is out of range
void llama_lampe_params_check(const llama_lampe_params & params);

// every position as it is
llama_lampe_plan llama_lampe_plan_identity(int32_t length);

// the plan of an input of `length` tokens
llama_lampe_plan llama_lampe_params_plan(const llama_lampe_params & params, int32_t length);

// read {arch}.rope.scaling.lampe.* from the file and the overrides, check that the model qualifies
// and raise n_ctx_train; does nothing to a model without these keys
void llama_lampe_load_hparams(llama_model_loader & ml, const llama_model & model, llama_hparams & hparams);

//
// context
//

// the parameters of a RoPE op, as the model's graph has it
struct llama_lampe_rope {
    int32_t n_dims;
    int32_t mode;
    int32_t n_ctx_orig;

    float freq_base;
    float freq_scale;
    float ext_factor;
    float attn_factor;
    float beta_fast;
    float beta_slow;

    ggml_tensor * factors; // F32 [n_dims/2] or nullptr

    static llama_lampe_rope from_op(const ggml_tensor * op);

    bool operator==(const llama_lampe_rope & other) const;

    // equal but for the tensor that the factors are in
    bool same_rotation(llama_lampe_rope other) const;

    // what to pass as ggml_rope_ext's attn_factor to rotate with this magnitude, YaRN's cancelled:
    // the model's own RoPE has applied that one already
    float get_attn_factor(float magnitude) const;
};

// what a context knows beyond the model: the parameters in force, the lengths announced,
// and the cos/sin tables of the fused op
class llama_lampe_context {
public:
    llama_lampe_context(const llama_model & model, const llama_cparams & cparams, const llama_lampe_params & params);

    // ask the devices: fused where each that has a layer supports the op, portable elsewhere
    // throws when the type of the values needs the fused op and a device lacks it
    void choose_path(ggml_type type_k, ggml_type type_v);

    // make the parameters and the empty memory of the context those of a path; off: as the caller of the context asked for
    // throws, and changes nothing, when this path cannot be taken
    void set_path(llama_cparams & cparams, llama_memory_i * memory, llama_lampe_path path);

    // what choose_path() has found
    llama_lampe_path get_path_chosen() const;

    // why the path is not the fused one, "" when it is
    const char * get_path_reason() const;

    const llama_lampe_params & get_params() const;

    // no graph built before may be used again
    void set_params(const llama_lampe_params & params);
    void set_prompt_length(llama_seq_id seq_id, int32_t n_tokens);

    // note the lengths of a batch before it is split; throws when a position is beyond the context length
    // returns true when the tables had to grow, so that no graph built before may be used again
    bool begin_batch(const llama_batch_allocr & balloc);

    // the plan of each token of the ubatch; in layers that see a sliding window only, the identity
    std::vector<llama_lampe_plan> get_plans(const llama_ubatch & ubatch, bool is_swa) const;

    // what multiplies cos and sin of queries and keys
    float get_magnitude(bool is_swa) const;

    // false when no token of this sequence has been decoded
    bool get_plan_seq(llama_seq_id seq_id, llama_lampe_plan & plan) const;

    // the plan of the longest input that fits
    llama_lampe_plan get_plan_max(bool is_swa) const;

    // the portable path takes the tokens in blocks of this many, to bound the memory for their scores
    int64_t n_tokens_block(int64_t n_kv) const;

    // upper bound of the graph nodes that the portable path adds; throws when no scheduler could hold them
    uint32_t n_nodes_max(uint32_t n_tokens) const;

    // F32 [n_dims, n_pos]: cos and sin of each pair at each position, in the memory of that layer's device
    ggml_tensor * get_rope_table(const llama_lampe_rope & rope, int il, float magnitude);

private:
    struct rope_table {
        llama_lampe_rope   rope;
        std::vector<float> factors;

        float magnitude;

        ggml_backend_buffer_type_t buft;

        ggml_tensor             * tensor;
        ggml_context_ptr          ctx;
        ggml_backend_buffer_ptr   buf;
    };

    void rope_table_fill(rope_table & table, int32_t n_pos) const;

    std::unique_ptr<rope_table> make_table(
        const llama_lampe_rope & rope, const std::vector<float> & factors, float magnitude, ggml_backend_buffer_type_t buft, int32_t n_pos) const;

    // all of them, or none: throws where the memory for it is lacking
    void grow_tables(int32_t n_pos_new);

    int32_t get_length(llama_seq_id seq_id, llama_pos pos) const;

    // upper bound of the distinct plans of a ubatch that are not the identity
    uint32_t n_plans_max(uint32_t n_tokens) const;

    const llama_model   & model;
    const llama_cparams & cparams;

    llama_lampe_params params;

    // as the caller of the context asked for: what holds when LaMPE is off
    const bool flash_attn;
    const bool auto_fa;

    std::string fused_reason; // why there is no fused op, "" when there is one

    bool v_quantized = false;

    int32_t n_pos; // rows of the tables

    size_t scores_max; // bytes that the scores of the portable path may take

    std::array<int32_t, LLAMA_MAX_SEQ> prompt_length; // announced, 0 = none
    std::array<int32_t, LLAMA_MAX_SEQ> batch_length;  // end of the sequence in the current batch, 0 = never seen

    std::vector<std::unique_ptr<rope_table>> rope_tables;
};

// throws when n_ctx (0: all of the LaMPE context length) is beyond the LaMPE context length,
// or when the KV cache does not fit the memory that is available
void llama_lampe_check_n_ctx(
    const llama_model & model, const llama_cparams & cparams, uint32_t n_ctx, ggml_type type_k, ggml_type type_v, bool swa_full);
