#pragma once

// the matrix products of LaMPE attention in integers of 16 bits
//
// Where the cache holds 16 bits or fewer, f32 products compute digits that are not there. Integers with a scale per row
// keep more of them than f16 does (bfloat16 has an eighth of its precision), and a lane multiplies two pairs of them.

#include "lampe-attn-f32.h"
#include "lampe-attn-simd-i16.h"

#ifdef LAMPE_I16

// no sum of products leaves 32 bits, by Cauchy-Schwarz: the norms of the two factors bound it
static constexpr float LAMPE_I16_MAX     = 32767.0f;      // largest integer of a query, a key or a weight
static constexpr float LAMPE_I16_NORM    = 46300.0f;      // largest norm of a query or a key: its square stays below 2^31
static constexpr float LAMPE_I16_VALUE   = 16383.0f;      // largest integer of a value
static constexpr float LAMPE_I16_PRODUCT = 2147000000.0f; // largest product of the norms of weights and of a column of values

static constexpr int LAMPE_I16_ROWS = LAMPE_EPR; // rows are quantised so many at a time: their scales make a vector

// scales for up to LAMPE_I16_ROWS rows of d values, whole vectors: neither norm nor largest value of a row leaves its bound
// NaN for a row with a value that is not finite
static inline lampe_simd lampe_row_scales(const float * x, int64_t ld, int64_t n, int64_t d, float norm_max, float value_max) {
    alignas(64) float norm2[LAMPE_I16_ROWS];
    alignas(64) float top  [LAMPE_I16_ROWS];

    for (int64_t r = 0; r < LAMPE_I16_ROWS; r += 4) {
        lampe_simd sums[4];
        lampe_simd tops[4];
        LAMPE_UNROLL
        for (int64_t i = 0; i < 4; ++i) {
            const float * row = x + std::min(r + i, n - 1)*ld;

            sums[i] = lampe_simd_set1(0.0f);
            tops[i] = lampe_simd_set1(0.0f);
            for (int64_t c = 0; c < d; c += LAMPE_EPR) {
                const lampe_simd a = lampe_simd_load(row + c);
                sums[i] = lampe_simd_fma(a, a, sums[i]);
                tops[i] = lampe_simd_max(tops[i], lampe_simd_abs(a));
            }
        }
        lampe_simd_sum4(norm2 + r, sums[0], sums[1], sums[2], sums[3]);
        lampe_simd_top4(top   + r, tops[0], tops[1], tops[2], tops[3]);
    }

    const lampe_simd n2 = lampe_simd_load(norm2);
    const lampe_simd by_norm = lampe_simd_mul(lampe_simd_sqrt(n2), lampe_simd_set1(1.0f/norm_max));
    const lampe_simd by_top  = lampe_simd_mul(lampe_simd_load(top), lampe_simd_set1(1.0f/value_max));
    const lampe_simd scale   = lampe_simd_max(lampe_simd_max(by_norm, by_top), lampe_simd_set1(1e-30f));

    // what is not finite, less itself, is NaN
    return lampe_simd_add(scale, lampe_simd_sub(n2, n2));
}

// queries or keys: x [n][d] = scale*dst; n is at most LAMPE_I16_ROWS, but scale has room for so many
static inline void lampe_quantize_rows(int16_t * dst, float * scale, const float * x, int64_t ld, int64_t n, int64_t d) {
    const lampe_simd scales = lampe_row_scales(x, ld, n, d, LAMPE_I16_NORM, LAMPE_I16_MAX);

    alignas(64) float inverse[LAMPE_I16_ROWS];
    lampe_simd_store(inverse, lampe_simd_div(lampe_simd_set1(1.0f), scales));
    lampe_simd_store(scale, scales);

    for (int64_t r = 0; r < n; ++r) {
        const lampe_simd f = lampe_simd_set1(inverse[r]);
        for (int64_t c = 0; c < d; c += LAMPE_EPR) {
            const lampe_simd_int a = lampe_simd_int_round(lampe_simd_mul(lampe_simd_load(x + r*ld + c), f));
            lampe_simd_int_store_i16(dst + r*d + c, a);
        }
    }
}

// values: rows are interleaved two by two, n is even; norm2 [d] grows by the squares of the integers of each column
static inline void lampe_quantize_values(int32_t * dst, float * scale, float * norm2, const float * x, int64_t ld, int64_t n, int64_t d) {
    const lampe_simd scales = lampe_row_scales(x, ld, n, d, INFINITY, LAMPE_I16_VALUE);

    alignas(64) float inverse[LAMPE_I16_ROWS];
    lampe_simd_store(inverse, lampe_simd_div(lampe_simd_set1(1.0f), scales));
    lampe_simd_store(scale, scales);

    for (int64_t r = 0; r < n; r += 2) {
        const lampe_simd f = lampe_simd_set1(inverse[r]);
        const lampe_simd g = lampe_simd_set1(inverse[r + 1]);
        for (int64_t c = 0; c < d; c += LAMPE_EPR) {
            const lampe_simd_int a = lampe_simd_int_round(lampe_simd_mul(lampe_simd_load(x + r*ld      + c), f));
            const lampe_simd_int b = lampe_simd_int_round(lampe_simd_mul(lampe_simd_load(x + r*ld + ld + c), g));
            const lampe_simd_int ab = lampe_simd_int_pair(a, b);
            lampe_simd_int_store(dst + r/2*d + c, ab);
            lampe_simd_store(norm2 + c, lampe_simd_add(lampe_simd_load(norm2 + c), lampe_simd_int_to_float(lampe_simd_int_madd(ab, ab))));
        }
    }
}

// largest norm of n weights as integers before rounding, which may add 1/2 to each
static inline float lampe_weight_norm_max(const float * norm2, int64_t d, int64_t n) {
    float top = 1.0f;
    for (int64_t c = 0; c < d; ++c) {
        top = std::max(top, norm2[c]);
    }
    return LAMPE_I16_PRODUCT/sqrtf(top) - 0.5f*sqrtf((float) n);
}

// matrix product
//
// store(m, c, sum) gets sum_k A(m, k).B[k][c], A and B pairs of integers; A(m, k) is A[m*sm + k*sk]

template <int RM, int RN, typename F>
static inline void lampe_gemm_i16_ukernel(int m0, const int32_t * GGML_RESTRICT A, int64_t sm, int64_t sk,
        const int32_t * GGML_RESTRICT B, int64_t ldb, int K, const F & store) {
    lampe_simd_int acc[RM][RN];
    LAMPE_UNROLL
    for (int m = 0; m < RM; ++m) {
        LAMPE_UNROLL
        for (int r = 0; r < RN; ++r) {
            acc[m][r] = lampe_simd_int_zero();
        }
    }

    for (int k = 0; k < K; ++k) {
        lampe_simd_int b[RN];
        LAMPE_UNROLL
        for (int r = 0; r < RN; ++r) {
            b[r] = lampe_simd_int_load(B + k*ldb + r*LAMPE_EPR);
        }
        LAMPE_UNROLL
        for (int m = 0; m < RM; ++m) {
            const lampe_simd_int a = lampe_simd_int_set1(A[(m0 + m)*sm + k*sk]);
            LAMPE_UNROLL
            for (int r = 0; r < RN; ++r) {
                acc[m][r] = lampe_simd_int_dot_pairs(acc[m][r], a, b[r]);
            }
        }
    }

    LAMPE_UNROLL
    for (int m = 0; m < RM; ++m) {
        LAMPE_UNROLL
        for (int r = 0; r < RN; ++r) {
            store(m0 + m, r*LAMPE_EPR, lampe_simd_int_to_float(acc[m][r]));
        }
    }
}

template <int RN, typename F>
static void lampe_gemm_i16_panel(const int32_t * A, int64_t sm, int64_t sk, const int32_t * B, int64_t ldb, int M, int K, const F & store) {
    constexpr int RM = RN < LAMPE_RN ? 2*LAMPE_I16_RM : LAMPE_I16_RM;

    // some blocks take one row less, so that none is left with only a few
    const int n_less = (RM - M%RM)%RM;

    int m = 0;
    for (; m < n_less*(RM - 1) && n_less*(RM - 1) <= M; m += RM - 1) {
        lampe_gemm_i16_ukernel<RM - 1, RN>(m, A, sm, sk, B, ldb, K, store);
    }
    for (; m + RM <= M; m += RM) {
        lampe_gemm_i16_ukernel<RM, RN>(m, A, sm, sk, B, ldb, K, store);
    }
    for (; m + 4 <= M; m += 4) {
        lampe_gemm_i16_ukernel<4, RN>(m, A, sm, sk, B, ldb, K, store);
    }
    for (; m < M; ++m) {
        lampe_gemm_i16_ukernel<1, RN>(m, A, sm, sk, B, ldb, K, store);
    }
}

template <typename F>
static inline void lampe_gemm_i16(const int32_t * A, int64_t sm, int64_t sk, const int32_t * B, int64_t ldb, int M, int n_simd, int K, const F & store) {
    switch (n_simd) {
        case 1: lampe_gemm_i16_panel<1>(A, sm, sk, B, ldb, M, K, store); break;
        case 2: lampe_gemm_i16_panel<2>(A, sm, sk, B, ldb, M, K, store); break;
#if defined(__AVX512F__)
        case 3: lampe_gemm_i16_panel<3>(A, sm, sk, B, ldb, M, K, store); break;
        case 4: lampe_gemm_i16_panel<4>(A, sm, sk, B, ldb, M, K, store); break;
#endif
        default: GGML_ABORT("fatal error");
    }
}

// e^x for x <= 0, and 0 below -87; the relative error is at most 1.7e-7 + 7.5e-8*|x|, of which the second is the rounding of
// x*log2(e); the polynomial is fitted to 2^x on [-1/2, 1/2] for the least largest error
static inline lampe_simd lampe_simd_exp_neg(lampe_simd x) {
    // a NaN stays one
    const lampe_simd t = lampe_simd_max(lampe_simd_set1(-150.0f), lampe_simd_mul(x, lampe_simd_set1(1.44269504f)));
    const lampe_simd n = lampe_simd_round(t);
    const lampe_simd f = lampe_simd_sub(t, n);

    lampe_simd p = lampe_simd_set1(0.0013264727f);
    p = lampe_simd_fma(p, f, lampe_simd_set1(0.009671513f));
    p = lampe_simd_fma(p, f, lampe_simd_set1(0.05550734f));
    p = lampe_simd_fma(p, f, lampe_simd_set1(0.24022242f));
    p = lampe_simd_fma(p, f, lampe_simd_set1(0.6931470f));
    p = lampe_simd_fma(p, f, lampe_simd_set1(1.0f));

    return lampe_simd_ldexp(p, n);
}

// as lampe_softmax_panel; the weights become pairs of integers [(n + 1)/2][LAMPE_PANEL], in place, with the scales of the
// values in them: weight*scale of the value = p_scale*integer
static inline void lampe_softmax_panel_i16(float * S, int n, int n_simd, const float * v_scale, float norm_max, float * max, float * sum,
        float * alpha, float * p_scale) {
    for (int v = 0; v < n_simd; ++v) {
        float * x = S + v*LAMPE_EPR;

        const lampe_simd max_old = lampe_simd_load(max + v*LAMPE_EPR);
        lampe_simd       max_new = max_old;
        for (int j = 0; j < n; ++j) {
            max_new = lampe_simd_max(max_new, lampe_simd_load(x + j*LAMPE_PANEL));
        }

        lampe_simd total = lampe_simd_set1(0.0f);
        lampe_simd norm2 = lampe_simd_set1(0.0f);
        lampe_simd w_top = lampe_simd_set1(1e-30f);
        for (int j = 0; j < n; ++j) {
            const lampe_simd p = lampe_simd_exp_neg(lampe_simd_sub(lampe_simd_load(x + j*LAMPE_PANEL), max_new));
            const lampe_simd w = lampe_simd_mul(p, lampe_simd_set1(v_scale[j]));
            lampe_simd_store(x + j*LAMPE_PANEL, w);
            total = lampe_simd_add(total, p);
            norm2 = lampe_simd_fma(w, w, norm2);
            w_top = lampe_simd_max(w_top, w);
        }

        // where an operand is NaN, max gives the second: so NaN stays
        // squares of less than 1e-15 may underflow: there the bound comes from the largest weight
        const lampe_simd least = lampe_simd_min(lampe_simd_mul(w_top, lampe_simd_set1(sqrtf((float) n))), lampe_simd_set1(1e-15f));
        const lampe_simd norm  = lampe_simd_max(least, lampe_simd_sqrt(norm2));
        const lampe_simd scale = lampe_simd_max(
                lampe_simd_mul(w_top, lampe_simd_set1(1.0f/LAMPE_I16_MAX)), lampe_simd_mul(norm, lampe_simd_set1(1.0f/norm_max)));
        const lampe_simd f     = lampe_simd_div(lampe_simd_set1(1.0f), scale);

        int32_t * y = (int32_t *) x;
        for (int j = 0; j < n; j += 2) {
            const lampe_simd_int a = lampe_simd_int_round(lampe_simd_mul(lampe_simd_load(x + j*LAMPE_PANEL), f));
            const lampe_simd_int b = j + 1 == n ? lampe_simd_int_zero() :
                lampe_simd_int_round(lampe_simd_mul(lampe_simd_load(x + (j + 1)*LAMPE_PANEL), f));
            lampe_simd_int_store(y + j/2*LAMPE_PANEL, lampe_simd_int_pair(a, b));
        }

        const lampe_simd a = lampe_simd_exp_neg(lampe_simd_sub(max_old, max_new));
        lampe_simd_store(alpha   + v*LAMPE_EPR, a);
        lampe_simd_store(p_scale + v*LAMPE_EPR, scale);
        lampe_simd_store(max     + v*LAMPE_EPR, max_new);
        lampe_simd_store(sum     + v*LAMPE_EPR, lampe_simd_fma(lampe_simd_load(sum + v*LAMPE_EPR), a, total));
    }
}

#endif
