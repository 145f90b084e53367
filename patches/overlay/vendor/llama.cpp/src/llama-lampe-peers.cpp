#include "llama-lampe-peers.h"

#include "llama-lampe-impl.h"

#include "../ggml/src/ggml-rpc/rpc-error.h"

#include <cstring>

// nullptr when the backend computes on this machine
static ggml_backend_rpc_get_error_t peer_get_error(ggml_backend_t backend) {
    ggml_backend_dev_t dev = ggml_backend_get_device(backend);
    ggml_backend_reg_t reg = dev ? ggml_backend_dev_backend_reg(dev) : nullptr;

    if (!reg || strcmp(ggml_backend_reg_name(reg), "RPC") != 0) {
        return nullptr;
    }

    return (ggml_backend_rpc_get_error_t) ggml_backend_reg_get_proc_address(reg, "ggml_backend_rpc_get_error");
}

void llama_lampe_peers_check(ggml_backend_sched_t sched) {
    if (!sched) {
        return;
    }

    for (int i = 0; i < ggml_backend_sched_get_n_backends(sched); ++i) {
        ggml_backend_t backend = ggml_backend_sched_get_backend(sched, i);

        const auto get_error = peer_get_error(backend);
        if (!get_error) {
            continue;
        }

        ggml_backend_synchronize(backend);

        char why[512];
        if (get_error(backend, why, sizeof(why))) {
            throw llama_lampe_error(why);
        }
    }
}

bool llama_lampe_peers_note(const char * func, ggml_backend_sched_t sched) {
    try {
        llama_lampe_peers_check(sched);
    } catch (const std::exception & err) {
        llama_lampe_error_note(func, err);
        return false;
    }

    return true;
}
