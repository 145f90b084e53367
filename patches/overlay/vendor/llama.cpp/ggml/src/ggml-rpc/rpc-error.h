// Why a peer cannot be used. Where upstream ends the process, the connection is lost, what it was to answer is zeros, and
// whoever computes asks here.
#pragma once

#include "ggml-backend.h"

#include <cstdlib>

// "ggml_backend_rpc_get_error" of ggml_backend_reg_get_proc_address(): why the connection of a backend is lost, or, of
// nullptr, why the last one was not to be had; false when there is no reason
typedef bool (*ggml_backend_rpc_get_error_t)(ggml_backend_t backend, char * buf, size_t size);

// seconds that a peer has to greet
static constexpr int RPC_HELLO_TIMEOUT = 10;

// where a buffer of a lost peer begins, which nobody reads
static constexpr size_t RPC_LOST_BASE = 4096;

// seconds that a peer may take for what is asked of it, what it computes included: $GGML_RPC_TIMEOUT, 0 for no bound
static inline int rpc_timeout() {
    const char * given = std::getenv("GGML_RPC_TIMEOUT");
    return given ? std::atoi(given) : 600;
}
