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

    // an array of whole numbers of any width
    std::vector<int64_t> get_arr_int(const std::string & name) const {
        const int64_t id = find_arr(name);

        const gguf_type type = gguf_get_arr_type(ml.metadata, id);
        const size_t    n    = gguf_get_arr_n   (ml.metadata, id);

        switch (type) {
            case GGUF_TYPE_UINT8:  return as_vector<uint8_t,  int64_t>(id, n);
            case GGUF_TYPE_INT8:   return as_vector<int8_t,   int64_t>(id, n);
            case GGUF_TYPE_UINT16: return as_vector<uint16_t, int64_t>(id, n);
            case GGUF_TYPE_INT16:  return as_vector<int16_t,  int64_t>(id, n);
            case GGUF_TYPE_UINT32: return as_vector<uint32_t, int64_t>(id, n);
            case GGUF_TYPE_INT32:  return as_vector<int32_t,  int64_t>(id, n);
            case GGUF_TYPE_INT64:  return as_vector<int64_t,  int64_t>(id, n);
            case GGUF_TYPE_UINT64: return as_vector<uint64_t, int64_t>(id, n); // those beyond INT64_MAX are negative, and refused
            default: throw wrong_type(name.c_str(), "an array of whole numbers");
        }
    }

    // an array of f32 or f64
    std::vector<double> get_arr_f64(const std::string & name) const {
        const int64_t id = find_arr(name);

        const gguf_type type = gguf_get_arr_type(ml.metadata, id);
        const size_t    n    = gguf_get_arr_n   (ml.metadata, id);

        switch (type) {
            case GGUF_TYPE_FLOAT32: return as_vector<float,  double>(id, n);
            case GGUF_TYPE_FLOAT64: return as_vector<double, double>(id, n);
            default: throw wrong_type(name.c_str(), "an array of numbers (f32 or f64)");
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

    bool is_override(const char * name) const {
        return find_override(name) != nullptr;
    }

private:
    int64_t find_arr(const std::string & name) const {
        if (find_override(name)) {
            throw llama_lampe_error(format("LaMPE metadata %s%s cannot be an override: set the maps of layers when the model is open", prefix.c_str(), name.c_str()));
        }

        const int64_t id = find_key(name, true);

        if (gguf_get_kv_type(ml.metadata, id) != GGUF_TYPE_ARRAY) {
            throw wrong_type(name.c_str(), "an array");
        }

        return id;
    }

    template <typename T, typename R>
    std::vector<R> as_vector(int64_t id, size_t n) const {
        const T * data = static_cast<const T *>(gguf_get_arr_data(ml.metadata, id));

        return { data, data + n };
    }

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

    const llama_model_kv_override * find_override(const std::string & name) const {
        const auto it = ml.kv_overrides.find(prefix + name);

        return it == ml.kv_overrides.end() ? nullptr : &it->second;
    }

    int64_t find_key(const std::string & name, bool required) const {
        const int64_t id = gguf_find_key(ml.metadata, (prefix + name).c_str());

        if (id < 0 && required) {
            throw llama_lampe_error(format("LaMPE metadata %s%s is missing: convert the model again", prefix.c_str(), name.c_str()));
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

static void lampe_read_layers(const lampe_reader & reader, llama_lampe_params & params, uint32_t n_layer) {
    const auto check_n = [](const std::string & name, size_t n, size_t n_expected, const char * of) {
        if (n != n_expected) {
            throw llama_lampe_error(format("LaMPE metadata %s has %zu values: it must have %zu, one for each %s", name.c_str(), n, n_expected, of));
        }
    };

    // of a name, one value for each map
    const auto check_maps = [&](const std::string & name, size_t n) {
        if (params.n_layer_maps == 0) {
            if (n < 1 || n > LLAMA_LAMPE_MAX_LAYER_MAPS) {
                throw llama_lampe_error(format("LaMPE metadata %s has %zu values: it must have 1 to %d, one for each map", name.c_str(), n, LLAMA_LAMPE_MAX_LAYER_MAPS));
            }
            params.n_layer_maps = n;
        }
        check_n(name, n, params.n_layer_maps, "map");
    };

    const auto as_u32 = [](const std::string & name, int64_t val, int64_t max) {
        if (val < 0 || val > max) {
            throw llama_lampe_error(format("LaMPE metadata %s has %" PRId64 ": it must have whole numbers from 0 to %" PRId64, name.c_str(), val, max));
        }
        return (uint32_t) val;
    };

#define READ_MAPS(field, get, as) { \
        const std::string name = LLAMA_LAMPE_LAYER_PREFIX #field; \
        const auto vals = reader.get(name); \
        check_maps(name, vals.size()); \
        for (size_t i = 0; i < vals.size(); ++i) { \
            params.layer_maps[i].field = as; \
        } \
    }
#define READ_MAPS_U32(field) READ_MAPS(field, get_arr_int, as_u32(name, vals[i], UINT32_MAX))
#define READ_MAPS_F64(field) READ_MAPS(field, get_arr_f64, vals[i])

    LLAMA_LAMPE_LAYER_FIELDS(READ_MAPS_U32, READ_MAPS_F64)

    const auto layer_map = reader.get_arr_int(LLAMA_LAMPE_LAYER_MAP);

    check_n(LLAMA_LAMPE_LAYER_MAP, layer_map.size(), n_layer, "layer of the model");

    for (uint32_t il = 0; il < n_layer; ++il) {
        params.layer_map[il] = as_u32(LLAMA_LAMPE_LAYER_MAP, layer_map[il], params.n_layer_maps);
    }
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
    if (params.version != LLAMA_LAMPE_VERSION && params.version != LLAMA_LAMPE_VERSION_LAYERS) {
        throw llama_lampe_error(format("LaMPE version is %u: this build reads the versions %d and %d",
                    params.version, LLAMA_LAMPE_VERSION, LLAMA_LAMPE_VERSION_LAYERS));
    }

#define READ_U32( name, required, ...) reader.get_u32(#name, params.name, required);
#define READ_F64( name, required, ...) reader.get_f64(#name, params.name, required);
#define READ_NAME(name, required, ...) reader.get_name(#name, params.name, required, { __VA_ARGS__ });
#define READ_TEXT(name, required, ...) reader.check_text(#name, required, __VA_ARGS__);

    LLAMA_LAMPE_FIELDS(params, READ_U32, READ_F64, READ_NAME, READ_TEXT)

#define FIELD_NAME(name, ...) #name,

    std::vector<std::string> names = {
        LLAMA_LAMPE_FIELDS(params, FIELD_NAME, FIELD_NAME, FIELD_NAME, FIELD_NAME)
        "padding", // the converter fills up room with it
    };

    const bool has_layers = params.version == LLAMA_LAMPE_VERSION_LAYERS;

    // version 1 as an override leaves out what the file says of single layers
    if (has_layers || reader.is_override("version")) {
#define LAYER_FIELD_NAME(name) names.push_back(LLAMA_LAMPE_LAYER_PREFIX #name);

        LLAMA_LAMPE_LAYER_FIELDS(LAYER_FIELD_NAME, LAYER_FIELD_NAME)

        names.push_back(LLAMA_LAMPE_LAYER_MAP);
    }

    reader.check_keys(names);

    if (has_layers) {
        lampe_read_layers(reader, params, hparams.n_layer_all);
    }

    llama_lampe_params_check(params);

    if (const char * why = lampe_why_not(model, hparams)) {
        throw llama_lampe_error(format("LaMPE does not apply to this model (architecture %s): %s", arch.c_str(), why));
    }

    llama_lampe_layers_check(params, hparams);

    hparams.lampe       = params;
    hparams.n_ctx_train = params.context_length;

    LLAMA_LOG_INFO("%s: method = %s, window = %u, context_length = %u, local_window = %u, tail_window = %u\n", __func__,
            LLAMA_LAMPE_METHODS[params.method], params.window, params.context_length, params.local_window, params.tail_window);
    LLAMA_LOG_INFO("%s: max_mapping_length = %g, slope = %g, offset = %g, length_policy = %s, length_step = %u\n", __func__,
            params.max_mapping_length, params.slope, params.offset, LLAMA_LAMPE_LENGTH_POLICIES[params.length_policy], params.length_step);

    for (uint32_t i = 0; i < params.n_layer_maps; ++i) {
        const auto & map = params.layer_maps[i];

        LLAMA_LOG_INFO("%s: %d layers have local_window = %u, tail_window = %u, max_mapping_length = %g\n", __func__,
                (int) std::count(std::begin(params.layer_map), std::end(params.layer_map), i + 1), map.local_window, map.tail_window, map.max_mapping_length);
    }
}
