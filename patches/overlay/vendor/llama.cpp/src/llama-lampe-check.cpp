#include "llama-lampe-impl.h"

#include "llama-hparams.h"
#include "llama-impl.h"
#include "llama-model.h"

#include "ggml-backend.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <new>

// what is refused when a context is made, before anything is allocated for it

//
// n_ctx
//

// bytes that a cell of the cache takes beside its key and value: position, shift and the set of its sequences
static constexpr size_t LLAMA_LAMPE_CELL_SIZE = 64;

// memory that an allocation may count on; 0 when unknown
static size_t lampe_memory_available(ggml_backend_dev_t dev) {
#if defined(__linux__)
    // the CPU backend reports all of the memory as free
    if (ggml_backend_dev_type(dev) == GGML_BACKEND_DEVICE_TYPE_CPU) {
        size_t kib = 0;

        if (FILE * file = fopen("/proc/meminfo", "r")) {
            char line[256];
            while (fgets(line, sizeof(line), file)) {
                if (sscanf(line, "MemAvailable: %zu kB", &kib) == 1) {
                    break;
                }
            }
            fclose(file);
        }

        return kib*1024;
    }
#endif

    size_t free  = 0;
    size_t total = 0;
    ggml_backend_dev_memory(dev, &free, &total);

    return free;
}

void llama_lampe_check_n_ctx(
        const llama_model & model, const llama_cparams & cparams, uint32_t n_ctx, ggml_type type_k, ggml_type type_v, bool swa_full) {
    const auto & hparams = model.hparams;

    const uint32_t n_ctx_max = hparams.lampe.context_length;
    // sequences that share a unified cache share its cells, too: begin_batch() sees to each of them
    const uint32_t n_ctx_seq = n_ctx == 0 ? n_ctx_max : n_ctx/cparams.n_seq_max;

    if (n_ctx_seq > n_ctx_max) {
        throw llama_lampe_error(format("n_ctx = %u is beyond the LaMPE context length of %u: "
                    "pass at most that, or convert the model with a larger context length", n_ctx_seq, n_ctx_max));
    }

    // a context that only measures, as llama.cpp does to fit a model to the devices, takes no memory
    if (hparams.no_alloc) {
        return;
    }

    // per device: bytes of the keys and values of one token, of those layers that keep all of them
    std::vector<std::pair<ggml_backend_dev_t, size_t>> sizes;

    for (uint32_t il = 0; il < hparams.n_layer(); ++il) {
        // a cache of windows does not grow, and layers that use the keys of earlier ones have none
        if (!hparams.has_kv(il) || (hparams.swa_type != LLAMA_SWA_TYPE_NONE && hparams.is_swa(il) && !swa_full)) {
            continue;
        }

        ggml_backend_dev_t dev = cparams.offload_kqv ? model.dev_layer(il) : ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);

        auto it = std::find_if(sizes.begin(), sizes.end(), [&](const auto & size) { return size.first == dev; });
        if (it == sizes.end()) {
            it = sizes.insert(sizes.end(), { dev, 0 });
        }

        it->second += ggml_row_size(type_k, hparams.n_embd_k_gqa(il)) + ggml_row_size(type_v, hparams.n_embd_v_gqa(il));
    }

    // per position: the rows of the rotation's tables, one for all layers and one for those of a sliding window
    size_t n_rot = 0;
    for (uint32_t il = 0; il < hparams.n_layer(); ++il) {
        n_rot = std::max<size_t>(n_rot, hparams.n_rot(il));
    }
    const size_t size_pos = n_rot*sizeof(float)*(hparams.swa_type == LLAMA_SWA_TYPE_NONE ? 1 : 2);

    // and the mask of a batch, which the portable path has in f32
    const size_t size_mask = (size_t) cparams.n_ubatch*sizeof(ggml_fp16_t);

    for (const auto & [dev, size] : sizes) {
        const size_t available = lampe_memory_available(dev);
        const size_t needed    = size*cparams.n_ctx + (size_pos + size_mask)*cparams.n_ctx_seq +
            (ggml_backend_dev_type(dev) == GGML_BACKEND_DEVICE_TYPE_CPU ? LLAMA_LAMPE_CELL_SIZE*cparams.n_ctx : 0);

        if (available > 0 && needed > available) {
            throw llama_lampe_error(format("a context of %u tokens needs %.1f GiB for the KV cache, the positions and the mask of %u tokens at a time, "
                        "and %.1f GiB are available: pass n_ctx = %zu or less", cparams.n_ctx, needed/1024.0/1024.0/1024.0, cparams.n_ubatch,
                        available/1024.0/1024.0/1024.0, (size_t) ((double) available/needed*cparams.n_ctx)/256*256));
        }
    }
}

// the scheduler sets aside 20 kB for each node, the graphs less than 1 kB
static constexpr size_t LLAMA_LAMPE_NODE_SIZE = 24*1024;

void llama_lampe_check_nodes(uint32_t n_nodes) {
    const std::unique_ptr<void, decltype(&free)> room(malloc(LLAMA_LAMPE_NODE_SIZE*n_nodes), free);

    if (!room) {
        throw std::bad_alloc();
    }
}

//
// context
//

void llama_lampe_check_context(const llama_model & model, const llama_cparams & cparams, const llama_context_params & params) {
    const auto & hparams = model.hparams;

    const bool enabled = hparams.lampe.version != 0;

    if (cparams.ctx_other && llama_lampe_get_enabled(cparams.ctx_other) != enabled) {
        throw llama_lampe_error(format("the context whose cache this one shares has LaMPE %s, and this one has it %s: have both of them alike",
                    enabled ? "off" : "on", enabled ? "on" : "off"));
    }
    if (!enabled) {
        return;
    }

    // what some programs pass to every model; a value given on purpose is heeded
    if (params.rope_freq_base != 0.0f && params.rope_freq_base != hparams.rope_freq_base_train) {
        LLAMA_LOG_WARN("%s: rope_freq_base = %g replaces the model's own %g, which it was trained with: pass 0 to keep that\n",
                __func__, params.rope_freq_base, hparams.rope_freq_base_train);
    }
    if (params.rope_freq_scale != 0.0f && params.rope_freq_scale != hparams.rope_freq_scale_train) {
        LLAMA_LOG_WARN("%s: rope_freq_scale = %g replaces the model's own %g: pass 0 to keep that\n",
                __func__, params.rope_freq_scale, hparams.rope_freq_scale_train);
    }
}
