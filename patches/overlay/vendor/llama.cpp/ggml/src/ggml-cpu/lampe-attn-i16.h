#pragma once

// the matrix products of LaMPE attention in integers of 16 bits
//
// Where the cache holds 16 bits or fewer, f32 products compute digits that are not there. Integers with a scale per row
// keep more of them than f16 does (bfloat16 has an eighth of its precision), and VNNI multiplies two pairs per lane.

#include "lampe-attn-simd.h"

#if defined(__AVX512F__) && defined(__AVX512DQ__) && defined(__AVX512BW__) && defined(__AVX512VNNI__)

#define LAMPE_I16

// no sum of products leaves 32 bits: by Cauchy-Schwarz for queries and keys, for the others as sum times largest
static constexpr float LAMPE_I16_MAX   = 32767.0f;
static constexpr float LAMPE_I16_NORM  = 46300.0f;  // of a query, of a key
static constexpr float LAMPE_I16_SUM   = 262080.0f; // of the weights of a tile's keys, 2^18 less what rounding adds
static constexpr float LAMPE_I16_VALUE = 8191.0f;   // of a value

static inline float lampe_vec_norm2(const float * x, int64_t n) {
    lampe_vec sum = lampe_vec_set1(0.0f);
    for (int64_t i = 0; i < n; i += LAMPE_EPR) {
        const lampe_vec a = lampe_vec_load(x + i);
        sum = lampe_vec_fma(a, a, sum);
    }
    return lampe_vec_sum(sum);
}

static inline float lampe_vec_amax(const float * x, int64_t n) {
    lampe_vec top = lampe_vec_set1(0.0f);
    for (int64_t i = 0; i < n; i += LAMPE_EPR) {
        top = lampe_vec_max(top, _mm512_abs_ps(lampe_vec_load(x + i)));
    }
    return lampe_vec_top(top);
}

// x [n] = scale*dst, n a multiple of LAMPE_EPR; returns the scale, NaN where x is not finite
static inline float lampe_quantize(int16_t * dst, const float * x, int64_t n) {
    const float norm  = std::max(sqrtf(lampe_vec_norm2(x, n)), 1e-30f);
    const float top   = std::max(lampe_vec_amax(x, n), 1e-30f);
    const float scale = std::max(norm/LAMPE_I16_NORM, top/LAMPE_I16_MAX);

    const lampe_vec f = lampe_vec_set1(1.0f/scale);
    for (int64_t i = 0; i < n; i += LAMPE_EPR) {
        const __m512i a = _mm512_cvtps_epi32(lampe_vec_mul(lampe_vec_load(x + i), f));
        _mm256_storeu_si256((__m256i *) (dst + i), _mm512_cvtepi32_epi16(a));
    }
    return std::isfinite(norm) ? scale : NAN;
}

static inline __m512i lampe_vec_pair(__m512i lo, __m512i hi) {
    return _mm512_mask_blend_epi16(0xAAAAAAAA, lo, _mm512_slli_epi32(hi, 16));
}

static inline float lampe_value_scale(const float * x, int64_t n) {
    return std::isfinite(lampe_vec_norm2(x, n)) ? std::max(lampe_vec_amax(x, n), 1e-30f)/LAMPE_I16_VALUE : NAN;
}

// two values, interleaved
static inline void lampe_quantize_values(int32_t * dst, const float * x, const float * y, int64_t n, float * scale) {
    scale[0] = lampe_value_scale(x, n);
    scale[1] = lampe_value_scale(y, n);

    const lampe_vec f = lampe_vec_set1(1.0f/scale[0]);
    const lampe_vec g = lampe_vec_set1(1.0f/scale[1]);
    for (int64_t i = 0; i < n; i += LAMPE_EPR) {
        const __m512i a = _mm512_cvtps_epi32(lampe_vec_mul(lampe_vec_load(x + i), f));
        const __m512i b = _mm512_cvtps_epi32(lampe_vec_mul(lampe_vec_load(y + i), g));
        _mm512_storeu_si512(dst + i, lampe_vec_pair(a, b));
    }
}

// matrix product
//
// store(m, c, sum) gets sum_k A(m, k).B[k][c], A and B pairs of integers; A(m, k) is A[m*sm + k*sk]

template <int RM, int RN, typename F>
static inline void lampe_gemm_i16_ukernel(int m0, const int32_t * GGML_RESTRICT A, int64_t sm, int64_t sk,
        const int32_t * GGML_RESTRICT B, int64_t ldb, int K, const F & store) {
    __m512i acc[RM][RN];
    LAMPE_UNROLL
    for (int m = 0; m < RM; ++m) {
        LAMPE_UNROLL
        for (int r = 0; r < RN; ++r) {
            acc[m][r] = _mm512_setzero_si512();
        }
    }

    for (int k = 0; k < K; ++k) {
        __m512i b[RN];
        LAMPE_UNROLL
        for (int r = 0; r < RN; ++r) {
            b[r] = _mm512_loadu_si512(B + k*ldb + r*LAMPE_EPR);
        }
        LAMPE_UNROLL
        for (int m = 0; m < RM; ++m) {
            const __m512i a = _mm512_set1_epi32(A[(m0 + m)*sm + k*sk]);
            LAMPE_UNROLL
            for (int r = 0; r < RN; ++r) {
                acc[m][r] = _mm512_dpwssd_epi32(acc[m][r], a, b[r]);
            }
        }
    }

    LAMPE_UNROLL
    for (int m = 0; m < RM; ++m) {
        LAMPE_UNROLL
        for (int r = 0; r < RN; ++r) {
            store(m0 + m, r*LAMPE_EPR, _mm512_cvtepi32_ps(acc[m][r]));
        }
    }
}

template <int RN, typename F>
static void lampe_gemm_i16_panel(const int32_t * A, int64_t sm, int64_t sk, const int32_t * B, int64_t ldb, int M, int K, const F & store) {
    constexpr int RM = RN < LAMPE_RN ? 2*LAMPE_RM : LAMPE_RM;

    int m = 0;
    for (; m + RM <= M; m += RM) {
        lampe_gemm_i16_ukernel<RM, RN>(m, A, sm, sk, B, ldb, K, store);
    }
    for (; m < M; ++m) {
        lampe_gemm_i16_ukernel<1, RN>(m, A, sm, sk, B, ldb, K, store);
    }
}

template <typename F>
static inline void lampe_gemm_i16(const int32_t * A, int64_t sm, int64_t sk, const int32_t * B, int64_t ldb, int M, int n_vec, int K, const F & store) {
    switch (n_vec) {
        case 1: lampe_gemm_i16_panel<1>(A, sm, sk, B, ldb, M, K, store); break;
        case 2: lampe_gemm_i16_panel<2>(A, sm, sk, B, ldb, M, K, store); break;
        case 3: lampe_gemm_i16_panel<3>(A, sm, sk, B, ldb, M, K, store); break;
        case 4: lampe_gemm_i16_panel<4>(A, sm, sk, B, ldb, M, K, store); break;
        default: GGML_ABORT("fatal error");
    }
}

// e^x for x <= 0, within 1.7e-7; the polynomial is fitted to 2^x on [-1/2, 1/2] for the least largest relative error
static inline lampe_vec lampe_vec_exp_neg(lampe_vec x) {
    // below -150 nothing is left; a NaN stays one
    const lampe_vec t = lampe_vec_max(lampe_vec_set1(-150.0f), lampe_vec_mul(x, lampe_vec_set1(1.44269504f)));
    const lampe_vec n = _mm512_roundscale_ps(t, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const lampe_vec f = lampe_vec_sub(t, n);

    lampe_vec p = lampe_vec_set1(0.0013264727f);
    p = lampe_vec_fma(p, f, lampe_vec_set1(0.009671513f));
    p = lampe_vec_fma(p, f, lampe_vec_set1(0.05550734f));
    p = lampe_vec_fma(p, f, lampe_vec_set1(0.24022242f));
    p = lampe_vec_fma(p, f, lampe_vec_set1(0.6931470f));
    p = lampe_vec_fma(p, f, lampe_vec_set1(1.0f));

    return _mm512_scalef_ps(p, n);
}

// as lampe_softmax_panel; the weights become pairs of integers [(n + 1)/2][LAMPE_PANEL], in place, with the scales of the
// values in them: weight*scale of the value = p_scale*integer
static inline void lampe_softmax_panel_i16(float * S, int n, int n_vec, const float * v_scale, float * max, float * sum,
        float * alpha, float * p_scale) {
    for (int v = 0; v < n_vec; ++v) {
        float * x = S + v*LAMPE_EPR;

        const lampe_vec max_old = lampe_vec_load(max + v*LAMPE_EPR);
        lampe_vec       max_new = max_old;
        for (int j = 0; j < n; ++j) {
            max_new = lampe_vec_max(max_new, lampe_vec_load(x + j*LAMPE_PANEL));
        }

        lampe_vec total = lampe_vec_set1(0.0f);
        lampe_vec w_sum = lampe_vec_set1(0.0f);
        lampe_vec w_top = lampe_vec_set1(1e-30f);
        for (int j = 0; j < n; ++j) {
            const lampe_vec p = lampe_vec_exp_neg(lampe_vec_sub(lampe_vec_load(x + j*LAMPE_PANEL), max_new));
            const lampe_vec w = lampe_vec_mul(p, lampe_vec_set1(v_scale[j]));
            lampe_vec_store(x + j*LAMPE_PANEL, w);
            total = lampe_vec_add(total, p);
            w_sum = lampe_vec_add(w_sum, w);
            w_top = lampe_vec_max(w_top, w);
        }

        // of two operands the second comes through where one is NaN
        const lampe_vec scale = _mm512_max_ps(
                lampe_vec_mul(w_top, lampe_vec_set1(1.0f/LAMPE_I16_MAX)), lampe_vec_mul(w_sum, lampe_vec_set1(1.0f/LAMPE_I16_SUM)));
        const lampe_vec f     = _mm512_div_ps(lampe_vec_set1(1.0f), scale);

        int32_t * y = (int32_t *) x;
        for (int j = 0; j < n; j += 2) {
            const __m512i a = _mm512_cvtps_epi32(lampe_vec_mul(lampe_vec_load(x + j*LAMPE_PANEL), f));
            const __m512i b = j + 1 == n ? _mm512_setzero_si512() :
                _mm512_cvtps_epi32(lampe_vec_mul(lampe_vec_load(x + (j + 1)*LAMPE_PANEL), f));
            _mm512_storeu_si512(y + j/2*LAMPE_PANEL, lampe_vec_pair(a, b));
        }

        const lampe_vec a = lampe_vec_exp_neg(lampe_vec_sub(max_old, max_new));
        lampe_vec_store(alpha   + v*LAMPE_EPR, a);
        lampe_vec_store(p_scale + v*LAMPE_EPR, scale);
        lampe_vec_store(max     + v*LAMPE_EPR, max_new);
        lampe_vec_store(sum     + v*LAMPE_EPR, lampe_vec_fma(lampe_vec_load(sum + v*LAMPE_EPR), a, total));
    }
}

#endif
