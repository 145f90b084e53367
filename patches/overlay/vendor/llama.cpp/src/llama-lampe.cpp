#include "llama-lampe-impl.h"

#include "llama-context.h"
#include "llama-impl.h"
#include "llama-memory.h"
#include "llama-model.h"

#include <mutex>
#include <new>
#include <thread>
#include <unordered_map>

//
// errors
//

namespace {

// Not thread_local: in a library that is loaded late, the first use of such a variable by a thread allocates it, and
// where there is no memory for that glibc ends the process.
class lampe_errors {
public:
    static lampe_errors & get() {
        // never destroyed: threads may fail while the process ends
        static auto & errors = *new lampe_errors;

        return errors;
    }

    void set(const char * what) {
        std::lock_guard<std::mutex> lock(mutex);

        errors[std::this_thread::get_id()] = what;
    }

    // unless there is one
    void set_first(const char * what) {
        std::lock_guard<std::mutex> lock(mutex);

        errors.emplace(std::this_thread::get_id(), what);
    }

    void clear() {
        std::lock_guard<std::mutex> lock(mutex);

        errors.erase(std::this_thread::get_id());
    }

    // lasts as long as the thread does not call set() or clear()
    const char * last() {
        std::lock_guard<std::mutex> lock(mutex);

        const auto it = errors.find(std::this_thread::get_id());

        return it == errors.end() ? "" : it->second.c_str();
    }

private:
    std::mutex mutex;

    std::unordered_map<std::thread::id, std::string> errors; // of the threads whose last call failed
};

}

llama_lampe_error::llama_lampe_error(const std::string & what) : std::runtime_error(what) {
    lampe_errors::get().set(what.c_str());
}

void llama_lampe_error_clear() {
    lampe_errors::get().clear();
}

void llama_lampe_error_prepare() {
    try {
        throw std::bad_alloc();
    } catch (const std::bad_alloc &) {
    }
}

static const char * lampe_error_what(const std::exception & err) {
    return dynamic_cast<const std::bad_alloc *>(&err) ?
        "there is not enough memory: give a smaller n_ctx or n_ubatch, or close other programs" : err.what();
}

void llama_lampe_error_keep(const std::exception & err) {
    try {
        lampe_errors::get().set_first(lampe_error_what(err));
    } catch (const std::bad_alloc &) {
        // no memory to say that there is none
    }
}

void llama_lampe_error_note(const char * func, const std::exception & err) {
    LLAMA_LOG_ERROR("%s: %s\n", func, lampe_error_what(err));

    llama_lampe_error_keep(err);
}

const char * llama_lampe_last_error(void) {
    return lampe_errors::get().last();
}

uint32_t llama_lampe_version(void) {
    return LLAMA_LAMPE_API_VERSION;
}

// run what may refuse: 0, or -1 with the reason kept
template <typename F>
static int32_t lampe_call(const char * func, F && fn) {
    llama_lampe_error_clear();

    return llama_lampe_try(func, -1, [&]() {
        fn();
        return 0;
    });
}

//
// C API
//

bool llama_lampe_model_params(const llama_model * model, llama_lampe_params * params) {
    *params = model->hparams.lampe;

    return params->version != 0;
}

int32_t llama_lampe_set_enabled(llama_context * ctx, bool enabled) {
    return lampe_call(__func__, [&]() { ctx->set_lampe(enabled); });
}

bool llama_lampe_get_enabled(const llama_context * ctx) {
    return ctx->get_cparams().lampe != nullptr;
}

int32_t llama_lampe_set_params(llama_context * ctx, const llama_lampe_params * params) {
    return lampe_call(__func__, [&]() { ctx->set_lampe_params(*params); });
}

bool llama_lampe_get_params(const llama_context * ctx, llama_lampe_params * params) {
    const auto * lampe = ctx->get_cparams().lampe;
    if (!lampe) {
        return false;
    }

    *params = lampe->get_params();

    return true;
}

int32_t llama_lampe_set_prompt_length(llama_context * ctx, llama_seq_id seq_id, int32_t n_tokens) {
    return lampe_call(__func__, [&]() {
        auto * lampe = ctx->get_cparams().lampe;
        if (!lampe) {
            throw llama_lampe_error("LaMPE is off on this context: there is no prompt length to announce");
        }

        lampe->set_prompt_length(seq_id, n_tokens);
    });
}

bool llama_lampe_get_plan(const llama_context * ctx, int32_t length, llama_lampe_plan * plan) {
    const auto * lampe = ctx->get_cparams().lampe;
    if (!lampe || length < 1) {
        return false;
    }

    *plan = llama_lampe_params_plan(lampe->get_params(), length);

    return true;
}

bool llama_lampe_get_plan_seq(const llama_context * ctx, llama_seq_id seq_id, llama_lampe_plan * plan) {
    const auto * lampe = ctx->get_cparams().lampe;

    return lampe && lampe->get_plan_seq(*ctx->get_memory(), seq_id, *plan);
}

enum llama_lampe_path llama_lampe_get_path(const llama_context * ctx) {
    const auto & cparams = ctx->get_cparams();

    if (!cparams.lampe) {
        return LLAMA_LAMPE_PATH_OFF;
    }

    return cparams.flash_attn ? LLAMA_LAMPE_PATH_FUSED : LLAMA_LAMPE_PATH_PORTABLE;
}

int32_t llama_lampe_set_path(llama_context * ctx, enum llama_lampe_path path) {
    return lampe_call(__func__, [&]() {
        if (path != LLAMA_LAMPE_PATH_OFF && path != LLAMA_LAMPE_PATH_PORTABLE && path != LLAMA_LAMPE_PATH_FUSED) {
            throw llama_lampe_error(format("there is no path of attention %d", (int) path));
        }

        ctx->set_lampe_path(path);
    });
}

const char * llama_lampe_get_path_reason(const llama_context * ctx) {
    const auto * lampe = ctx->get_cparams().lampe;

    return lampe ? lampe->get_path_reason() : "LaMPE is off";
}

void llama_lampe_set_abort_flag(llama_context * ctx, const bool * flag) {
    const auto is_set = [](void * data) {
        return *static_cast<const volatile bool *>(data);
    };

    ctx->set_abort_callback(flag ? +is_set : nullptr, const_cast<bool *>(flag));
}
