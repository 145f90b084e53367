#include "llama-lampe-impl.h"

#include "llama-hparams.h"
#include "llama-impl.h"
#include "llama-kv-cache-iswa.h"
#include "llama-kv-cache.h"
#include "llama-model.h"

#include "ggml-backend.h"
#include "ggml-cpp.h"
#include "ggml-lampe.h"

// fused or portable: what the devices can do, and how a context is made to take a path

struct lampe_attn_shape {
    int64_t n_embd_head_k;
    int64_t n_embd_head_v;
    int64_t n_head;
    int64_t n_head_kv;
    int64_t n_rot;

    ggml_type type_k;
    ggml_type type_v;
};

// ask with an op that is never computed
static bool lampe_dev_supports_fused(ggml_backend_dev_t dev, const lampe_attn_shape & shape) {
    const int64_t n_q  = 1;
    const int64_t n_kv = 256;

    ggml_init_params params = {
        /*.mem_size   =*/ 16*ggml_tensor_overhead(),
        /*.mem_buffer =*/ nullptr,
        /*.no_alloc   =*/ true,
    };

    ggml_context_ptr ctx_ptr { ggml_init(params) };

    ggml_context * ctx = ctx_ptr.get();

    ggml_tensor * op = ggml_lampe_attn(ctx,
            ggml_new_tensor_4d(ctx, GGML_TYPE_F32, shape.n_embd_head_k,  n_q,  shape.n_head,    1),
            ggml_new_tensor_4d(ctx, shape.type_k,  shape.n_embd_head_k,  n_kv, shape.n_head_kv, 1),
            ggml_new_tensor_4d(ctx, shape.type_v,  shape.n_embd_head_v,  n_kv, shape.n_head_kv, 1),
            ggml_new_tensor_4d(ctx, GGML_TYPE_F16, n_kv,                 n_q,  1,               1),
            ggml_new_tensor_4d(ctx, GGML_TYPE_I32, GGML_LAMPE_PLAN_SIZE, n_q,  1,               1),
            ggml_new_tensor_4d(ctx, GGML_TYPE_I32, n_kv,                 1,    1,               1),
            ggml_new_tensor_2d(ctx, GGML_TYPE_F32, shape.n_rot,          n_kv),
            nullptr, 1.0f, 0.0f, GGML_ROPE_TYPE_NEOX, true);

    return ggml_backend_dev_supports_op(dev, op);
}

// why the device has no fused op for a layer, "" when it has
static std::string lampe_why_not_fused(ggml_backend_dev_t dev, const lampe_attn_shape & shape) {
    if (shape.n_embd_head_k % ggml_blck_size(shape.type_k) != 0 || shape.n_embd_head_v % ggml_blck_size(shape.type_v) != 0) {
        return "the heads of this model are no whole blocks of the quantised cache";
    }
    if (!lampe_dev_supports_fused(dev, shape)) {
        // that several devices are one is nothing that a user knows of
        return format("%s has no fused attention with LaMPE for this model",
                    ggml_backend_dev_type(dev) == GGML_BACKEND_DEVICE_TYPE_META ? "one of the devices" : ggml_backend_dev_name(dev));
    }

    return "";
}

void llama_lampe_context::choose_path(ggml_type type_k, ggml_type type_v) {
    const auto & hparams = model.hparams;

    v_quantized = ggml_is_quantized(type_v);

    if (model.arch == LLM_ARCH_GROK) {
        fused_reason = "fused attention does not cap the scores as Grok does";
    } else if (!flash_attn && hparams.is_n_embd_v_gqa_variable()) {
        // [TAG_V_CACHE_VARIABLE]
        fused_reason = "without flash attention, values of different sizes across layers are padded";
    }

    if (model.split_mode() == LLAMA_SPLIT_MODE_TENSOR && !cparams.offload_kqv) {
        throw llama_lampe_error("tensors split across devices need the cache there, too: leave offload_kqv on, or pass another split_mode, such as layer");
    }

    for (uint32_t il = 0; il < hparams.n_layer() && fused_reason.empty(); ++il) {
        if (!hparams.has_kv(il) || hparams.n_head_kv(il) == 0) {
            continue;
        }

        ggml_backend_dev_t dev = cparams.offload_kqv ? model.dev_layer(il) : ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);

        fused_reason = lampe_why_not_fused(dev, {
            hparams.n_embd_head_k(il), hparams.n_embd_head_v(il), hparams.n_head(il), hparams.n_head_kv(il), hparams.n_rot(il), type_k, type_v,
        });
    }

    if (!fused_reason.empty()) {
        if (model.split_mode() == LLAMA_SPLIT_MODE_TENSOR) {
            throw llama_lampe_error(format("%s, which tensors split across devices need: pass another split_mode, such as layer", fused_reason.c_str()));
        }
        if (v_quantized) {
            throw llama_lampe_error(format("%s, which a quantised cache of values needs: leave the values in f16, or keep the cache off the device", fused_reason.c_str()));
        }

        LLAMA_LOG_WARN("%s: %s: it is composed of other operators\n", __func__, fused_reason.c_str());
    }

    path_on = fused_reason.empty() ? LLAMA_LAMPE_PATH_FUSED : LLAMA_LAMPE_PATH_PORTABLE;
}

llama_lampe_path llama_lampe_context::get_path_on() const {
    return path_on;
}

const char * llama_lampe_context::get_path_reason() const {
    if (cparams.flash_attn) {
        return "";
    }

    return fused_reason.empty() ? "the portable path was asked for" : fused_reason.c_str();
}

void llama_lampe_context::set_path(llama_cparams & cparams, llama_memory_i * memory, llama_lampe_path path) {
    const bool off = path == LLAMA_LAMPE_PATH_OFF;

    if (path == LLAMA_LAMPE_PATH_FUSED && !fused_reason.empty()) {
        throw llama_lampe_error(fused_reason);
    }
    if (path == LLAMA_LAMPE_PATH_PORTABLE && v_quantized) {
        throw llama_lampe_error("the portable path cannot read a quantised cache of values: leave the values in f16");
    }

    // ggml-backend-meta.cpp splits attention that is one operator: a softmax of some heads has a mask of all devices
    if (path == LLAMA_LAMPE_PATH_PORTABLE && model.split_mode() == LLAMA_SPLIT_MODE_TENSOR) {
        throw llama_lampe_error("the portable path does not run with tensors split across devices: pass another split_mode, such as layer");
    }

    path_on = off ? path_on : path;

    cparams.lampe      = off ? nullptr    : this;
    cparams.flash_attn = off ? flash_attn : path == LLAMA_LAMPE_PATH_FUSED;
    cparams.auto_fa    = off && auto_fa; // otherwise not to be decided again, see llama_context::sched_reserve()

    // [TAG_V_CACHE_VARIABLE] padded values stay transposed, others as they are: the portable path takes either
    if (model.hparams.is_n_embd_v_gqa_variable()) {
        return;
    }

    if (auto * kv = dynamic_cast<llama_kv_cache_iswa *>(memory)) {
        kv->get_base()->set_v_trans(!cparams.flash_attn);
        kv->get_swa() ->set_v_trans(!cparams.flash_attn);
    } else if (auto * kv = dynamic_cast<llama_kv_cache *>(memory)) {
        kv->set_v_trans(!cparams.flash_attn);
    }
}

bool llama_lampe_dev_supports_fused(ggml_backend_dev_t dev) {
    return lampe_dev_supports_fused(dev, { 128, 128, 8, 2, 128, GGML_TYPE_F16, GGML_TYPE_F16 });
}
