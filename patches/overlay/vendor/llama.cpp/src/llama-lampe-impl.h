#pragma once

#include "llama-lampe.h"

#include "llama-cparams.h" // LLAMA_MAX_SEQ

#include "ggml-cpp.h"

#include <array>
#include <cstdint>
#include <map>
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
    explicit llama_lampe_error(const std::string & what);
};

// forget the last error, at the start of every call that can refuse
void llama_lampe_error_clear();

// before a call that may run out of memory: what a thread needs to throw at all is allocated with its first exception, and
// where that cannot be had glibc ends the process
void llama_lampe_error_prepare();

// keep what a call failed with for llama_lampe_last_error(), unless what it came from is kept already
void llama_lampe_error_keep(const std::exception & err);

// the same, and log it
void llama_lampe_error_note(const char * func, const std::exception & err);

// what fn() returns, or ret_failed where it throws: no exception may cross the C API
template <typename F>
int32_t llama_lampe_try(const char * func, int32_t ret_failed, F && fn) {
    try {
        return fn();
    } catch (const std::exception & err) {
        llama_lampe_error_note(func, err);
        return ret_failed;
    }
}

// precedes the cells of a saved sequence whose keys carry no positions
static constexpr uint32_t LLAMA_LAMPE_STATE_MAGIC = 0x65706d6c; // "lmpe"

//
// parameters and plan
//

static constexpr int32_t LLAMA_LAMPE_NO_LIMIT = INT32_MAX;

// throws llama_lampe_error when a value is out of range
void llama_lampe_params_check(const llama_lampe_params & params);

// plain RoPE: every position as it is
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
    bool same_rotation(const llama_lampe_rope & other) const;

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

    // the path when LaMPE is on: the one taken last, at first what choose_path() has found
    llama_lampe_path get_path_on() const;

    // why the path is not the fused one, "" when it is
    const char * get_path_reason() const;

    const llama_lampe_params & get_params() const;

    struct rope_table {
        llama_lampe_rope   rope;
        std::vector<float> factors;

        float magnitude;

        // asked for by layers that see all tokens, by layers that see a sliding window
        bool is_base = false;
        bool is_swa  = false;

        ggml_backend_buffer_type_t buft;

        ggml_tensor             * tensor;
        ggml_context_ptr          ctx;
        ggml_backend_buffer_ptr   buf;
    };

    // what set_params() replaces
    struct settings {
        llama_lampe_params params;

        std::vector<std::shared_ptr<rope_table>> rope_tables;
    };

    // returns the settings before; a graph that was built with them must not be used again
    // throws, and nothing changes, where a value is out of range or the memory for other tables is lacking
    settings set_params(const llama_lampe_params & params);
    void     restore_settings(settings && before);

    void set_prompt_length(llama_seq_id seq_id, int32_t n_tokens);

    // withdraw the lengths announced for all sequences, or for those (-1: any) that hold tokens at positions [p0, p1)
    void forget_prompts();
    void forget_prompts(const llama_memory_i & memory, llama_seq_id seq_id, llama_pos p0, llama_pos p1);

    // note the lengths of a batch before it is split; throws when a position is beyond the context length
    // returns true when the tables had to grow, so that no graph built before may be used again
    bool begin_batch(const llama_batch_allocr & balloc);

    // the plan of each token of the ubatch; in layers that see a sliding window only, the identity
    std::vector<llama_lampe_plan> get_plans(const llama_ubatch & ubatch, bool is_swa) const;

    // after how many positions of a sequence its plan changes at the earliest, LLAMA_LAMPE_NO_LIMIT: not within a batch
    int32_t get_length_step(bool is_swa) const;

    // what multiplies cos and sin of queries and keys
    float get_magnitude(bool is_swa) const;

    // false when the memory holds no token of this sequence
    bool get_plan_seq(const llama_memory_i & memory, llama_seq_id seq_id, llama_lampe_plan & plan) const;

    // the plan of the longest input that fits
    llama_lampe_plan get_plan_max(bool is_swa) const;

    // the portable path takes the tokens in blocks of this many, to bound the memory for their scores
    int64_t n_tokens_block(int64_t n_kv) const;

    // upper bound of the graph nodes that the portable path adds; throws when no scheduler could hold them
    uint32_t n_nodes_max(uint32_t n_tokens) const;

    // F32 [n_dims, n_pos]: cos and sin of each pair at each position, in the memory of that layer's device
    ggml_tensor * get_rope_table(const llama_lampe_rope & rope, int il, bool is_swa);

    // bytes of the tables; where nothing is allocated (no_alloc), what they would take
    std::map<ggml_backend_buffer_type_t, size_t> memory_breakdown() const;

private:
    void fill_rope_table(rope_table & table, int32_t n_pos) const;

    // nullptr when there is none
    static std::shared_ptr<rope_table> find_rope_table(
            const std::vector<std::shared_ptr<rope_table>> & tables,
                                    const llama_lampe_rope & rope,
                                  const std::vector<float> & factors,
                                                     float   magnitude,
                                ggml_backend_buffer_type_t   buft);

    std::shared_ptr<rope_table> make_rope_table(
              const llama_lampe_rope & rope,
            const std::vector<float> & factors,
                               float   magnitude,
          ggml_backend_buffer_type_t   buft,
                             int32_t   n_pos) const;

    // throws where the memory for it is lacking, and then none of them has grown
    void grow_rope_tables(int32_t n_pos_new);

    // n_batch: where the sequence ends in the batch under way
    int32_t get_length(llama_seq_id seq_id, llama_pos pos, int32_t n_batch) const;

    // upper bound of the distinct plans of a ubatch that are not the identity
    uint32_t n_plans_max(uint32_t n_tokens) const;

    const llama_model   & model;
    const llama_cparams & cparams;

    settings active;

    // as the caller of the context asked for: what holds when LaMPE is off
    const bool flash_attn;
    const bool auto_fa;

    llama_lampe_path path_on = LLAMA_LAMPE_PATH_FUSED;

    std::string fused_reason; // why there is no fused op, "" when there is one

    bool v_quantized = false;

    int32_t n_pos; // rows of the tables

    size_t scores_max; // bytes that the scores of the portable path may take

    std::array<int32_t, LLAMA_MAX_SEQ> prompt_length; // announced, 0 = none
    std::array<int32_t, LLAMA_MAX_SEQ> batch_length;  // end of the sequence in the last batch that had tokens of it
};

// throws when n_ctx (0: all of the LaMPE context length) is beyond the LaMPE context length,
// or when what grows with it does not fit the memory that is available
void llama_lampe_check_n_ctx(
    const llama_model & model, const llama_cparams & cparams, uint32_t n_ctx, ggml_type type_k, ggml_type type_v, bool swa_full);

// throws when there is no room for a scheduler of that many nodes, whose allocations ggml takes for granted
void llama_lampe_check_nodes(uint32_t n_nodes);

// throws when LaMPE cannot run on what the context is made of, or shares the cache of a context whose keys are of the other
// kind; warns when a parameter undoes the model's own RoPE
void llama_lampe_check_context(const llama_model & model, const llama_cparams & cparams, const llama_context_params & params);
