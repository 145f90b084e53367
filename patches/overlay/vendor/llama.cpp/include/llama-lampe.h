// LaMPE: length-aware multi-grained positions for contexts beyond the training window
#pragma once

#include "llama.h"

#ifdef __cplusplus
extern "C" {
#endif

    // {arch}.rope.scaling.lampe.version; 0 as an override: a converted file is opened as upstream would
    #define LLAMA_LAMPE_VERSION 1

    // of this header: moves whenever a struct, a signature or what a function promises does
    #define LLAMA_LAMPE_API_VERSION 4

    enum llama_lampe_method {
        LLAMA_LAMPE_METHOD_LAMPE      = 0,
        LLAMA_LAMPE_METHOD_ROPE       = 1, // identity plan at every length
        LLAMA_LAMPE_METHOD_REROPE     = 2,
        LLAMA_LAMPE_METHOD_SELFEXTEND = 3,
        LLAMA_LAMPE_METHOD_JETLONG    = 4,
    };

    enum llama_lampe_length_policy {
        LLAMA_LAMPE_LENGTH_POLICY_CAUSAL = 0,
        LLAMA_LAMPE_LENGTH_POLICY_PROMPT = 1,
    };

    enum llama_lampe_path {
        LLAMA_LAMPE_PATH_OFF      = 0,
        LLAMA_LAMPE_PATH_PORTABLE = 1, // stock ggml ops
        LLAMA_LAMPE_PATH_FUSED    = 2, // GGML_OP_LAMPE_ATTN
    };

    struct llama_lampe_params {
        double   max_mapping_length;
        double   slope;
        double   offset;
        double   attention_factor;

        uint32_t version;
        uint32_t method;        // enum llama_lampe_method
        uint32_t window;
        uint32_t context_length;
        uint32_t local_window;
        uint32_t tail_window;
        uint32_t short_length;
        uint32_t short_mapping_length;
        uint32_t length_policy; // enum llama_lampe_length_policy
        uint32_t length_step;
        uint32_t group_size;
        uint32_t reserved;
    };

    struct llama_lampe_plan {
        int32_t length;
        int32_t local_window;
        int32_t num;
        int32_t den;
        int32_t middle_shift;
        int32_t tail_start;
        int32_t tail_shift;
        int32_t mapping_length; // m, or length where the plan is the identity
    };

    // LLAMA_LAMPE_API_VERSION of the library, to be compared with the one a caller was written for
    LLAMA_API uint32_t llama_lampe_version(void);

    // why the last call of this thread into llama.cpp failed, "" when it did not or llama.cpp did not say
    // lasts until the next one that can fail: loading a model, making a context, decoding, setting a state, what is below
    LLAMA_API const char * llama_lampe_last_error(void);

    // false when the model carries no LaMPE metadata
    LLAMA_API bool llama_lampe_model_params(const struct llama_model * model, struct llama_lampe_params * params);

    // switch a context on or off; refused (-1) unless its memory is empty: cached keys are of the other kind
    // where it fails, nothing has changed
    LLAMA_API int32_t llama_lampe_set_enabled(struct llama_context * ctx, bool enabled);
    LLAMA_API bool    llama_lampe_get_enabled(const struct llama_context * ctx);

    // replace the parameters of a context; -1 when they are out of range (see llama_lampe_last_error), those before stay
    // cached keys carry no positions, so this is allowed at any time
    LLAMA_API int32_t llama_lampe_set_params(      struct llama_context * ctx, const struct llama_lampe_params * params);
    LLAMA_API bool    llama_lampe_get_params(const struct llama_context * ctx,       struct llama_lampe_params * params);

    // announce the length of the prompt that a sequence is about to read (policy "prompt"); 0 withdraws it, and so do
    // clearing the memory, removing or moving tokens of the sequence, and setting its state
    LLAMA_API int32_t llama_lampe_set_prompt_length(struct llama_context * ctx, llama_seq_id seq_id, int32_t n_tokens);

    // the plan of an input of that length; of the newest token of a sequence, false when the memory holds none
    LLAMA_API bool llama_lampe_get_plan    (const struct llama_context * ctx, int32_t length, struct llama_lampe_plan * plan);
    LLAMA_API bool llama_lampe_get_plan_seq(const struct llama_context * ctx, llama_seq_id seq_id, struct llama_lampe_plan * plan);

    LLAMA_API enum llama_lampe_path llama_lampe_get_path(const struct llama_context * ctx);

    // fused where every device with a layer has the operator, portable elsewhere, whatever flash_attn_type the context was made
    // with: that one holds when LaMPE is off. another path by name: refused (-1) unless the memory is empty, and where it cannot be
    LLAMA_API int32_t llama_lampe_set_path(struct llama_context * ctx, enum llama_lampe_path path);

    // why it is not the fused path, "" when it is
    LLAMA_API const char * llama_lampe_get_path_reason(const struct llama_context * ctx);

    // whether the fused path runs on a device, for a common shape of attention
    LLAMA_API bool llama_lampe_dev_supports_fused(ggml_backend_dev_t dev);

    // abort what the context computes while *flag is true, as an abort callback would; NULL: never
    // for callers whose language cannot be called back from a computing thread
    LLAMA_API void llama_lampe_set_abort_flag(struct llama_context * ctx, const bool * flag);

#ifdef __cplusplus
}
#endif
