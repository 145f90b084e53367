// Which build of llama.cpp with LaMPE this is: peers must be of the same, for their operator is the same then.
#pragma once

#include <cstdint>
#include <string>

// patches/VERSION, sent where upstream's answer to HELLO has padding, which is 0
#define GGML_LAMPE_BUILD 19

static_assert(GGML_LAMPE_BUILD > 0 && GGML_LAMPE_BUILD < 256, "a build is one byte of the answer to HELLO, and 0 is upstream's");

// why a peer of that build is refused, "" when it is not
static std::string rpc_build_refusal(uint8_t build) {
    if (build == GGML_LAMPE_BUILD) {
        return "";
    }

    const std::string peer = build == 0 ? "llama.cpp without LaMPE" : "build " + std::to_string(build) + " of llama.cpp with LaMPE";

    return "it runs " + peer + ", and this is build " + std::to_string(GGML_LAMPE_BUILD) + ": start this build's ggml-rpc-server there";
}
