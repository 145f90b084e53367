// GGML_OP_LAMPE_ATTN, included by test-backend-ops.cpp
#pragma once

#include "ggml-lampe.h"

#include <cmath>

struct test_lampe_attn : public test_case {
    const int64_t hs;       // head size
    const int64_t nh;       // num KV heads
    const std::array<int64_t, 2> nr23; // query heads of a KV head, sequences
    const int64_t kv;       // kv size
    const int64_t nb;       // batch size
    const int64_t m;        // mapping length, kv: plain RoPE
    const bool    neox;
    const bool    sinks;
    const float   softcap;
    const ggml_type type_K;
    const ggml_type type_V;

    static constexpr int64_t n_local = 32; // local window
    static constexpr int64_t n_tail  = 8;  // tail window
    static constexpr int64_t n_step  = 64; // lengths are rounded up to multiples of it, so that a batch has several plans

    std::string vars() override {
        return VARS_TO_STR11(hs, nh, nr23, kv, nb, m, neox, sinks, softcap, type_K, type_V);
    }

    double max_nmse_err() override {
        return 5e-4;
    }

    uint64_t op_flops(ggml_tensor * t) override {
        GGML_UNUSED(t);
        // as for GGML_OP_FLASH_ATTN_EXT
        return (2 * nh*nr23[0] * nb * (hs + hs) * kv)*nr23[1];
    }

    test_lampe_attn(int64_t hs = 128, int64_t nh = 2, std::array<int64_t, 2> nr23 = {4, 1}, int64_t kv = 512, int64_t nb = 8, int64_t m = 128,
                    bool neox = true, bool sinks = false, float softcap = 0.0f, ggml_type type_K = GGML_TYPE_F16, ggml_type type_V = GGML_TYPE_F16)
        : hs(hs), nh(nh), nr23(nr23), kv(kv), nb(nb), m(m), neox(neox), sinks(sinks), softcap(softcap), type_K(type_K), type_V(type_V) {}

    ggml_tensor * build_graph(ggml_context * ctx) override {
        // queries, keys and values lie as in llama.cpp: the heads of a token follow one another
        const auto new_heads = [&](ggml_type type, int64_t n_head, int64_t n, const char * name) {
            ggml_tensor * t = ggml_new_tensor_4d(ctx, type, hs, n_head, n, nr23[1]);
            ggml_set_name(t, name);
            return ggml_permute(ctx, t, 0, 2, 1, 3);
        };

        ggml_tensor * q = new_heads(GGML_TYPE_F32, nh*nr23[0], nb, "q");
        ggml_tensor * k = new_heads(type_K,        nh,         kv, "k");
        ggml_tensor * v = new_heads(type_V,        nh,         kv, "v");

        ggml_tensor * mask = ggml_new_tensor_4d(ctx, GGML_TYPE_F16, kv, nb, 1, nr23[1]);
        ggml_set_name(mask, "mask");

        ggml_tensor * plan = ggml_new_tensor_4d(ctx, GGML_TYPE_I32, GGML_LAMPE_PLAN_SIZE, nb, 1, nr23[1]);
        ggml_set_name(plan, "plan");

        ggml_tensor * k_pos = ggml_new_tensor_4d(ctx, GGML_TYPE_I32, kv, 1, 1, nr23[1]);
        ggml_set_name(k_pos, "k_pos");

        ggml_tensor * rope = ggml_new_tensor_2d(ctx, GGML_TYPE_F32, hs, kv);
        ggml_set_name(rope, "rope");

        ggml_tensor * s = nullptr;
        if (sinks) {
            s = ggml_new_tensor_1d(ctx, GGML_TYPE_F32, nh*nr23[0]);
            ggml_set_name(s, "sinks");
        }

        ggml_tensor * out = ggml_lampe_attn(ctx, q, k, v, mask, plan, k_pos, rope, s, 1.0f/sqrtf(hs), softcap,
                neox ? GGML_ROPE_TYPE_NEOX : GGML_ROPE_TYPE_NORMAL, true);
        ggml_set_name(out, "out");

        return out;
    }

    // of the i-th query: they are the last tokens of their sequence
    int32_t q_pos(int64_t i) const {
        return kv - nb + i;
    }

    void init_plan(int32_t * row, int64_t i) const {
        const int64_t len = std::min(GGML_PAD(q_pos(i) + 1, n_step), kv);

        row[GGML_LAMPE_PLAN_POS]    = q_pos(i);
        row[GGML_LAMPE_PLAN_LENGTH] = len;

        row[GGML_LAMPE_PLAN_LOCAL_WINDOW] = INT32_MAX;
        row[GGML_LAMPE_PLAN_NUM]          = 1;
        row[GGML_LAMPE_PLAN_DEN]          = 1;
        row[GGML_LAMPE_PLAN_MIDDLE_SHIFT] = 0;
        row[GGML_LAMPE_PLAN_TAIL_START]   = INT32_MAX;
        row[GGML_LAMPE_PLAN_TAIL_SHIFT]   = 0;

        if (m < len) {
            const int64_t num = m   - n_local - n_tail;
            const int64_t den = len - n_local - n_tail;

            row[GGML_LAMPE_PLAN_LOCAL_WINDOW] = n_local;
            row[GGML_LAMPE_PLAN_NUM]          = num;
            row[GGML_LAMPE_PLAN_DEN]          = den;
            row[GGML_LAMPE_PLAN_MIDDLE_SHIFT] = n_local - ggml_lampe_middle(n_local, num, den);
            row[GGML_LAMPE_PLAN_TAIL_START]   = len - n_tail;
            row[GGML_LAMPE_PLAN_TAIL_SHIFT]   = len - m;
        }
    }

    void initialize_tensors(ggml_context * ctx) override {
        for (ggml_tensor * t = ggml_get_first_tensor(ctx); t != NULL; t = ggml_get_next_tensor(ctx, t)) {
            if (t->view_src) {
                continue;
            }

            if (strcmp(t->name, "mask") == 0) {
                std::vector<ggml_fp16_t> data(ggml_nelements(t));
                for (size_t i = 0; i < data.size(); ++i) {
                    data[i] = ggml_fp32_to_fp16((int64_t) (i%kv) <= q_pos(i/kv%nb) ? 0.0f : -INFINITY);
                }
                ggml_backend_tensor_set(t, data.data(), 0, ggml_nbytes(t));
            } else if (strcmp(t->name, "plan") == 0) {
                std::vector<int32_t> data(ggml_nelements(t));
                for (int64_t i = 0; i < ggml_nrows(t); ++i) {
                    init_plan(data.data() + i*GGML_LAMPE_PLAN_SIZE, i%nb);
                }
                ggml_backend_tensor_set(t, data.data(), 0, ggml_nbytes(t));
            } else if (strcmp(t->name, "k_pos") == 0) {
                std::vector<int32_t> data(ggml_nelements(t));
                for (size_t i = 0; i < data.size(); ++i) {
                    data[i] = i%17 == 3 ? -1 : i%kv; // some cells are empty
                }
                ggml_backend_tensor_set(t, data.data(), 0, ggml_nbytes(t));
            } else if (strcmp(t->name, "rope") == 0) {
                std::vector<float> data(ggml_nelements(t));
                for (int64_t p = 0; p < kv; ++p) {
                    for (int64_t i = 0; i < hs/2; ++i) {
                        const double theta = p*std::pow(10000.0, -2.0*i/hs);

                        data[p*hs + i]        = (float) std::cos(theta);
                        data[p*hs + i + hs/2] = (float) std::sin(theta);
                    }
                }
                ggml_backend_tensor_set(t, data.data(), 0, ggml_nbytes(t));
            } else if (strcmp(t->name, "sinks") == 0) {
                // noticeable, see test_flash_attn_ext
                init_tensor_uniform(t, -10.0f, 10.0f);
            } else {
                init_tensor_uniform(t);
            }
        }
    }

    static void add_eval(std::vector<std::unique_ptr<test_case>> & test_cases) {
        for (int64_t hs : { 64, 80, 96, 128, 256 }) {
            for (int64_t nb : { 1, 3, 75 }) {
                for (int64_t m : { 64, 1024 }) {
                    for (bool neox : { true, false }) {
                        test_cases.emplace_back(new test_lampe_attn(hs, 2, {4, 1}, 512, nb, m, neox));
                    }
                }
                test_cases.emplace_back(new test_lampe_attn(hs, 2, {3, 2}, 331, nb, 64, true, true,  0.0f));
                test_cases.emplace_back(new test_lampe_attn(hs, 4, {1, 1}, 331, nb, 64, true, false, 20.0f));
            }
        }
        for (ggml_type type : { GGML_TYPE_F32, GGML_TYPE_F16, GGML_TYPE_BF16, GGML_TYPE_Q8_0, GGML_TYPE_Q4_0 }) {
            for (int64_t nb : { 1, 4, 64 }) {
                test_cases.emplace_back(new test_lampe_attn(128, 2, {4, 1}, 512, nb, 128, true, false, 0.0f, type, type));
            }
        }
    }

    static void add_perf(std::vector<std::unique_ptr<test_case>> & test_cases) {
        for (int64_t kv : { 4096, 16384 }) {
            for (int64_t nb : { 1, 4, 512 }) {
                test_cases.emplace_back(new test_lampe_attn(128, 8, {4, 1}, kv, nb, 4096));
            }
        }
    }
};
