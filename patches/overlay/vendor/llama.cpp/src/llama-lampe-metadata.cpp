#include "llama-lampe-impl.h"
#include "llama-lampe-fields.h"

#include "llama-arch.h"
#include "llama-hparams.h"
#include "llama-impl.h"
#include "llama-model-loader.h"
#include "llama-model.h"

#include <algorithm>
#include <cinttypes>
#include <cstring>

static const char * const LLAMA_LAMPE_METHODS[]         = { LLAMA_LAMPE_METHOD_NAMES };
static const char * const LLAMA_LAMPE_LENGTH_POLICIES[] = { LLAMA_LAMPE_LENGTH_POLICY_NAMES };

namespace {

class lampe_reader {
public:
    lampe_reader(const llama_model_loader & ml, const std::string & arch) : ml(ml), prefix(arch + ".rope.scaling.lampe.") {}

    bool has_keys() const {
        for (int64_t i = 0; i < gguf_get_n_kv(ml.metadata); ++i) {
            if (is_ours(gguf_get_key(ml.metadata, i))) {
                return true;
            }
        }

        return std::any_of(ml.kv_overrides.begin(), ml.kv_overrides.end(), [&](const auto & it) { return is_ours(it.first); });
    }

    // version 0 as an override opens a converted file as upstream would
    bool is_off() const {
        const auto * ovrd = find_override("version");

        return ovrd && ovrd->tag == LLAMA_KV_OVERRIDE_TYPE_INT && ovrd->val_i64 == 0;
    }

    // a whole number of any width
    void get_u32(const char * name, uint32_t & value, bool required) const {
        int64_t val = 0;

        if (const auto * ovrd = find_override(name)) {
            if (ovrd->tag != LLAMA_KV_OVERRIDE_TYPE_INT) {
                throw wrong_type(name, "a whole number");
            }
            val = ovrd->val_i64;
        } else {
            const int64_t id = find_key(name, required);
            if (id < 0) {
                return;
            }
            switch (gguf_get_kv_type(ml.metadata, id)) {
                case GGUF_TYPE_UINT8:  val = gguf_get_val_u8 (ml.metadata, id); break;
                case GGUF_TYPE_INT8:   val = gguf_get_val_i8 (ml.metadata, id); break;
                case GGUF_TYPE_UINT16: val = gguf_get_val_u16(ml.metadata, id); break;
                case GGUF_TYPE_INT16:  val = gguf_get_val_i16(ml.metadata, id); break;
                case GGUF_TYPE_UINT32: val = gguf_get_val_u32(ml.metadata, id); break;
                case GGUF_TYPE_INT32:  val = gguf_get_val_i32(ml.metadata, id); break;
                case GGUF_TYPE_INT64:  val = gguf_get_val_i64(ml.metadata, id); break;
                case GGUF_TYPE_UINT64: val = std::min<uint64_t>(gguf_get_val_u64(ml.metadata, id), INT64_MAX); break;
                default: throw wrong_type(name, "a whole number");
            }
        }

        if (val < 0 || val > UINT32_MAX) {
            throw llama_lampe_error(format("LaMPE metadata %s%s is %" PRId64 ": it must not be negative or above %u",
                        prefix.c_str(), name, val, UINT32_MAX));
        }

        value = (uint32_t) val;
    }

    void get_f64(const char * name, double & value, bool required) const {
        if (const auto * ovrd = find_override(name)) {
            switch (ovrd->tag) {
                case LLAMA_KV_OVERRIDE_TYPE_INT:   value = (double) ovrd->val_i64; return;
                case LLAMA_KV_OVERRIDE_TYPE_FLOAT: value = ovrd->val_f64;          return;
                default: throw wrong_type(name, "a number");
            }
        }

        const int64_t id = find_key(name, required);
        if (id < 0) {
            return;
        }
        switch (gguf_get_kv_type(ml.metadata, id)) {
            case GGUF_TYPE_FLOAT32: value = gguf_get_val_f32(ml.metadata, id); break;
            case GGUF_TYPE_FLOAT64: value = gguf_get_val_f64(ml.metadata, id); break;
            default: throw wrong_type(name, "a number (f32 or f64)");
        }
    }

    // a string that has to be one of these names; value is its index
    void get_name(const char * name, uint32_t & value, bool required, const std::vector<const char *> & names) const {
        const char * str = get_str(name, required);
        if (!str) {
            return;
        }

        std::string list;
        for (size_t i = 0; i < names.size(); ++i) {
            if (strcmp(str, names[i]) == 0) {
                value = i;
                return;
            }
            list += (i ? ", " : "") + std::string(names[i]);
        }

        throw llama_lampe_error(format("LaMPE metadata %s%s is '%.80s': it must be one of %s", prefix.c_str(), name, str, list.c_str()));
    }

    // a string for other programs, checked and not kept
    void check_text(const char * name, bool required, size_t n_max) const {
        const char * str = get_str(name, required);

        if (str && strlen(str) > n_max) {
            throw llama_lampe_error(format("LaMPE metadata %s%s has %zu bytes: it must have at most %zu", prefix.c_str(), name, strlen(str), n_max));
        }
    }

    // a misspelt key would be ignored in silence
    void check_keys(const std::vector<std::string> & names) const {
        const auto check = [&](const std::string & key) {
            if (is_ours(key) && std::find(names.begin(), names.end(), key.substr(prefix.size())) == names.end()) {
                throw llama_lampe_error(format("LaMPE metadata %s is not a known key", key.c_str()));
            }
        };

        for (int64_t i = 0; i < gguf_get_n_kv(ml.metadata); ++i) {
            check(gguf_get_key(ml.metadata, i));
        }
        for (const auto & it : ml.kv_overrides) {
            check(it.first);
        }
    }

private:
    // nullptr when it is missing
    const char * get_str(const char * name, bool required) const {
        if (const auto * ovrd = find_override(name)) {
            if (ovrd->tag != LLAMA_KV_OVERRIDE_TYPE_STR) {
                throw wrong_type(name, "a string");
            }
            return ovrd->val_str;
        }

        const int64_t id = find_key(name, required);
        if (id < 0) {
            return nullptr;
        }
        if (gguf_get_kv_type(ml.metadata, id) != GGUF_TYPE_STRING) {
            throw wrong_type(name, "a string");
        }

        return gguf_get_val_str(ml.metadata, id);
    }

    bool is_ours(const std::string & key) const {
        return key.compare(0, prefix.size(), prefix) == 0;
    }

    const llama_model_kv_override * find_override(const char * name) const {
        const auto it = ml.kv_overrides.find(prefix + name);

        return it == ml.kv_overrides.end() ? nullptr : &it->second;
    }

    int64_t find_key(const char * name, bool required) const {
        const int64_t id = gguf_find_key(ml.metadata, (prefix + name).c_str());

        if (id < 0 && required) {
            throw llama_lampe_error(format("LaMPE metadata %s%s is missing: convert the model again", prefix.c_str(), name));
        }

        return id;
    }

    llama_lampe_error wrong_type(const char * name, const char * expected) const {
        return llama_lampe_error(format("LaMPE metadata %s%s has the wrong type: it must be %s", prefix.c_str(), name, expected));
    }

    const llama_model_loader & ml;
    const std::string          prefix;
};

}

// what can be told from the hyperparameters alone; the graph is checked when it is built
static const char * lampe_why_not(const llama_model & model, const llama_hparams & hparams) {
    if (hparams.rope_type != LLAMA_ROPE_TYPE_NORM && hparams.rope_type != LLAMA_ROPE_TYPE_NEOX) {
        return "its positions are not plain RoPE";
    }
    if (!hparams.causal_attn) {
        return "its attention is not causal";
    }
    if (hparams.use_alibi) {
        return "it uses ALiBi";
    }
    if (hparams.is_mla()) {
        return "it uses multi-head latent attention (MLA)";
    }
    if (hparams.swa_type != LLAMA_SWA_TYPE_NONE && hparams.swa_type != LLAMA_SWA_TYPE_STANDARD) {
        return "its windows do not slide token by token";
    }
    if (hparams.f_attn_temp_scale != 0.0f && hparams.n_attn_temp_floor_scale > 0) {
        return "its attention temperature depends on positions";
    }
    if (llm_arch_is_recurrent(model.arch) || llm_arch_is_hybrid(model.arch)) {
        return "it has recurrent layers";
    }
    if (llama_model_has_encoder(&model)) {
        return "it has an encoder";
    }

    bool all_swa = true;

    for (uint32_t il = 0; il < hparams.n_layer(); ++il) {
        all_swa = all_swa && hparams.swa_type != LLAMA_SWA_TYPE_NONE && hparams.is_swa(il);

        if (hparams.n_head_kv(il) == 0) {
            continue; // the layer has no attention
        }
        if (hparams.n_rot(il) == 0 || hparams.n_rot(il) % 2 != 0) {
            return "it rotates an odd number of dimensions";
        }
        if (hparams.n_rot(il) > hparams.n_embd_head_k(il)) {
            return "it rotates more dimensions than a head has";
        }
        if (hparams.n_head(il) % hparams.n_head_kv(il) != 0) {
            return "its query heads do not share its key heads evenly";
        }
    }

    return all_swa ? "all of its layers see a sliding window only" : nullptr;
}

void llama_lampe_load_hparams(llama_model_loader & ml, const llama_model & model, llama_hparams & hparams) {
    llama_lampe_error_clear();

    const std::string arch = model.arch_name();

    lampe_reader reader(ml, arch);

    if (!reader.has_keys()) {
        return;
    }

    if (reader.is_off()) {
        LLAMA_LOG_INFO("%s: an override leaves LaMPE out\n", __func__);
        return;
    }

    llama_lampe_params params = {};

    // the fields of other versions are not known
    reader.get_u32("version", params.version, true);
    if (params.version != LLAMA_LAMPE_VERSION) {
        throw llama_lampe_error(format("LaMPE metadata has version %u, and this build reads version %d: convert the model again", params.version, LLAMA_LAMPE_VERSION));
    }

#define READ_U32( name, required, ...) reader.get_u32(#name, params.name, required);
#define READ_F64( name, required, ...) reader.get_f64(#name, params.name, required);
#define READ_NAME(name, required, ...) reader.get_name(#name, params.name, required, { __VA_ARGS__ });
#define READ_TEXT(name, required, ...) reader.check_text(#name, required, __VA_ARGS__);

    LLAMA_LAMPE_FIELDS(params, READ_U32, READ_F64, READ_NAME, READ_TEXT)

#define FIELD_NAME(name, ...) #name,

    reader.check_keys({
        LLAMA_LAMPE_FIELDS(params, FIELD_NAME, FIELD_NAME, FIELD_NAME, FIELD_NAME)
        "padding", // the converter fills up room with it
    });

    llama_lampe_params_check(params);

    if (const char * why = lampe_why_not(model, hparams)) {
        throw llama_lampe_error(format("LaMPE does not apply to this model (architecture %s): %s", arch.c_str(), why));
    }

    hparams.lampe       = params;
    hparams.n_ctx_train = params.context_length;

    LLAMA_LOG_INFO("%s: method = %s, window = %u, context_length = %u, local_window = %u, tail_window = %u\n", __func__,
            LLAMA_LAMPE_METHODS[params.method], params.window, params.context_length, params.local_window, params.tail_window);
    LLAMA_LOG_INFO("%s: max_mapping_length = %g, slope = %g, offset = %g, length_policy = %s, length_step = %u\n", __func__,
            params.max_mapping_length, params.slope, params.offset, LLAMA_LAMPE_LENGTH_POLICIES[params.length_policy], params.length_step);
}
