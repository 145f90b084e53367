#pragma once

#include "ggml-backend.h"

// Several machines: what a lost peer of the RPC backend was to compute fails no call of ggml, and what was to be read from
// it is zeros. So a context asks, where its devices have peers; where they have none, this does nothing.

// wait for what is under way, and throw llama_lampe_error with the reason when a peer is lost
void llama_lampe_peers_check(ggml_backend_sched_t sched);

// the same, but only keep the reason for llama_lampe_last_error() and log it: false when a peer is lost
bool llama_lampe_peers_note(const char * func, ggml_backend_sched_t sched);
