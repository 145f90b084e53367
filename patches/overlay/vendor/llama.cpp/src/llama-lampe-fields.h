// made by tools/make_fields.py of lampe-gguf from its table of fields: edit that one
#pragma once

#include <cfloat>
#include <cstdint>

#define LLAMA_LAMPE_METHOD_NAMES "lampe", "rope", "rerope", "selfextend", "jetlong"
#define LLAMA_LAMPE_LENGTH_POLICY_NAMES "causal", "prompt"

// the metadata {arch}.rope.scaling.lampe.*, in the order that it has to be checked in:
// a range may depend on the fields before
// p: llama_lampe_params
//
//   U32 (name, required, min, max, zero)  whole number of any width; zero: 0 is allowed as well
//   F64 (name, required, min, max)        f32 or f64
//   NAME(name, required, ...)             a string, one of these; its index is kept
//   TEXT(name, required, n_max)           a string of at most n_max bytes, not kept
#define LLAMA_LAMPE_FIELDS(p, U32, F64, NAME, TEXT) \
    U32 (version, true, 1, 1, false) \
    NAME(method, false, LLAMA_LAMPE_METHOD_NAMES) \
    U32 (window, true, 16, 16777216, false) \
    U32 (context_length, true, (int64_t) p.window, 16777216, false) \
    U32 (local_window, true, 1, (int64_t) p.window - 1, false) \
    U32 (tail_window, true, 0, (int64_t) p.window - p.local_window - 1, false) \
    F64 (max_mapping_length, true, (int64_t) p.local_window + p.tail_window + 1, (int64_t) p.window) \
    F64 (slope, true, -DBL_MAX, DBL_MAX) \
    F64 (offset, true, -DBL_MAX, DBL_MAX) \
    U32 (short_length, true, 0, 4294967295, false) \
    U32 (short_mapping_length, true, (int64_t) p.local_window + p.tail_window + 1, (int64_t) p.window, p.short_length == 0) \
    F64 (attention_factor, true, 0.1, 10.0) \
    NAME(length_policy, true, LLAMA_LAMPE_LENGTH_POLICY_NAMES) \
    U32 (length_step, true, 1, 1048576, false) \
    U32 (group_size, false, 1, 16777216, p.method == 0 || p.method == 1 || p.method == 2 || p.method == 4) \
    TEXT(provenance, false, 511)
