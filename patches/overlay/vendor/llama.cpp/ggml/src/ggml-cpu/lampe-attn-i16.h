#pragma once

// the matrix products of LaMPE attention in integers of 16 bits
//
// Where the cache holds 16 bits or fewer, f32 products compute digits that are not there. Integers with a scale per row
// keep more of them than f16 does (bfloat16 has an eighth of its precision), and VNNI multiplies two pairs per lane.

#include "lampe-attn-simd.h"

#if defined(__AVX512F__) && defined(__AVX512DQ__) && defined(__AVX512BW__) && defined(__AVX512VNNI__)

#define LAMPE_I16

// no sum of products leaves 32 bits, by Cauchy-Schwarz: the norms of the two factors bound it
static constexpr float LAMPE_I16_MAX     = 32767.0f;
static constexpr float LAMPE_I16_NORM    = 46300.0f;     // of a query, of a key
static constexpr float LAMPE_I16_VALUE   = 16383.0f;     // largest value
static constexpr float LAMPE_I16_PRODUCT = 2147000000.0f; // of the norms of weights and of a column of values

static constexpr int LAMPE_I16_ROWS = LAMPE_EPR; // rows that are made integers at once: a vector has their scales

// the largest of each of four vectors
static inline void lampe_vec_top4(float * x, lampe_vec a, lampe_vec b, lampe_vec c, lampe_vec d) {
    const __m512 ab   = _mm512_max_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
    const __m512 cd   = _mm512_max_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
    const __m512 abcd = _mm512_max_ps(_mm512_shuffle_ps(ab, cd, 0x44), _mm512_shuffle_ps(ab, cd, 0xEE));
    const __m256 s    = _mm256_max_ps(_mm512_castps512_ps256(abcd), _mm512_extractf32x8_ps(abcd, 1));
    _mm_storeu_ps(x, _mm_max_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1)));
}

// scales of up to LAMPE_I16_ROWS rows of d values, whole vectors: neither the norm nor the largest value leaves its bound.
// NaN where a value is not finite
static inline lampe_vec lampe_row_scales(const float * x, int64_t ld, int64_t n, int64_t d, float norm_max, float value_max) {
    alignas(64) float norm2[LAMPE_I16_ROWS];
    alignas(64) float top  [LAMPE_I16_ROWS];

    for (int64_t r = 0; r < LAMPE_I16_ROWS; r += 4) {
        lampe_vec sums[4];
        lampe_vec tops[4];
        LAMPE_UNROLL
        for (int64_t i = 0; i < 4; ++i) {
            const float * row = x + std::min(r + i, n - 1)*ld;

            sums[i] = lampe_vec_set1(0.0f);
            tops[i] = lampe_vec_set1(0.0f);
            for (int64_t c = 0; c < d; c += LAMPE_EPR) {
                const lampe_vec a = lampe_vec_load(row + c);
                sums[i] = lampe_vec_fma(a, a, sums[i]);
                tops[i] = lampe_vec_max(tops[i], _mm512_abs_ps(a));
            }
        }
        lampe_vec_sum4(norm2 + r, sums[0], sums[1], sums[2], sums[3]);
        lampe_vec_top4(top   + r, tops[0], tops[1], tops[2], tops[3]);
    }

    const lampe_vec n2 = lampe_vec_load(norm2);
    const lampe_vec by_norm = lampe_vec_mul(_mm512_sqrt_ps(n2), lampe_vec_set1(1.0f/norm_max));
    const lampe_vec by_top  = lampe_vec_mul(lampe_vec_load(top), lampe_vec_set1(1.0f/value_max));
    const lampe_vec scale   = lampe_vec_max(lampe_vec_max(by_norm, by_top), lampe_vec_set1(1e-30f));

    // what is not finite, less itself, is NaN
    return lampe_vec_add(scale, lampe_vec_sub(n2, n2));
}

// x [n][d] = scale*dst, queries or keys; d whole vectors, n at most LAMPE_I16_ROWS as the room for the scales is
static inline void lampe_quantize_rows(int16_t * dst, float * scale, const float * x, int64_t ld, int64_t n, int64_t d) {
    const lampe_vec scales = lampe_row_scales(x, ld, n, d, LAMPE_I16_NORM, LAMPE_I16_MAX);

    alignas(64) float inverse[LAMPE_I16_ROWS];
    lampe_vec_store(inverse, _mm512_div_ps(lampe_vec_set1(1.0f), scales));
    lampe_vec_store(scale, scales);

    for (int64_t r = 0; r < n; ++r) {
        const lampe_vec f = lampe_vec_set1(inverse[r]);
        for (int64_t c = 0; c < d; c += LAMPE_EPR) {
            const __m512i a = _mm512_cvtps_epi32(lampe_vec_mul(lampe_vec_load(x + r*ld + c), f));
            _mm256_storeu_si256((__m256i *) (dst + r*d + c), _mm512_cvtepi32_epi16(a));
        }
    }
}

static inline __m512i lampe_vec_pair(__m512i lo, __m512i hi) {
    return _mm512_mask_blend_epi16(0xAAAAAAAA, lo, _mm512_slli_epi32(hi, 16));
}

// values, rows interleaved two by two; n is even. The squares of the integers are added to norm2, column by column
static inline void lampe_quantize_values(int32_t * dst, float * scale, float * norm2, const float * x, int64_t ld, int64_t n, int64_t d) {
    const lampe_vec scales = lampe_row_scales(x, ld, n, d, INFINITY, LAMPE_I16_VALUE);

    alignas(64) float inverse[LAMPE_I16_ROWS];
    lampe_vec_store(inverse, _mm512_div_ps(lampe_vec_set1(1.0f), scales));
    lampe_vec_store(scale, scales);

    for (int64_t r = 0; r < n; r += 2) {
        const lampe_vec f = lampe_vec_set1(inverse[r]);
        const lampe_vec g = lampe_vec_set1(inverse[r + 1]);
        for (int64_t c = 0; c < d; c += LAMPE_EPR) {
            const __m512i a = _mm512_cvtps_epi32(lampe_vec_mul(lampe_vec_load(x + r*ld      + c), f));
            const __m512i b = _mm512_cvtps_epi32(lampe_vec_mul(lampe_vec_load(x + r*ld + ld + c), g));
            const __m512i ab = lampe_vec_pair(a, b);
            _mm512_storeu_si512(dst + r/2*d + c, ab);
            lampe_vec_store(norm2 + c, lampe_vec_add(lampe_vec_load(norm2 + c), _mm512_cvtepi32_ps(_mm512_madd_epi16(ab, ab))));
        }
    }
}

// the most that the norm of n weights may be, in integers and less what rounding adds to it
static inline float lampe_weight_norm_max(const float * norm2, int64_t d, int64_t n) {
    float top = 1.0f;
    for (int64_t c = 0; c < d; ++c) {
        top = std::max(top, norm2[c]);
    }
    return LAMPE_I16_PRODUCT/sqrtf(top) - 0.5f*sqrtf((float) n);
}

// acc + a.b, the products of both halves of each lane
static inline __m512i lampe_vec_dot_pairs(__m512i acc, __m512i a, __m512i b) {
#if defined(__GNUC__) && !defined(__clang__)
    // of the intrinsic, GCC 12 makes a copy of every accumulator, and runs out of registers
    __asm__("vpdpwssd %2, %1, %0" : "+v"(acc) : "v"(a), "v"(b));
    return acc;
#else
    return _mm512_dpwssd_epi32(acc, a, b);
#endif
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
                acc[m][r] = lampe_vec_dot_pairs(acc[m][r], a, b[r]);
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
    constexpr int RM = RN < LAMPE_RN ? 8 : 4;

    int m = 0;
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
static inline void lampe_softmax_panel_i16(float * S, int n, int n_vec, const float * v_scale, float norm_max, float * max, float * sum,
        float * alpha, float * p_scale) {
    for (int v = 0; v < n_vec; ++v) {
        float * x = S + v*LAMPE_EPR;

        const lampe_vec max_old = lampe_vec_load(max + v*LAMPE_EPR);
        lampe_vec       max_new = max_old;
        for (int j = 0; j < n; ++j) {
            max_new = lampe_vec_max(max_new, lampe_vec_load(x + j*LAMPE_PANEL));
        }

        lampe_vec total = lampe_vec_set1(0.0f);
        lampe_vec norm2 = lampe_vec_set1(0.0f);
        lampe_vec w_top = lampe_vec_set1(1e-30f);
        for (int j = 0; j < n; ++j) {
            const lampe_vec p = lampe_vec_exp_neg(lampe_vec_sub(lampe_vec_load(x + j*LAMPE_PANEL), max_new));
            const lampe_vec w = lampe_vec_mul(p, lampe_vec_set1(v_scale[j]));
            lampe_vec_store(x + j*LAMPE_PANEL, w);
            total = lampe_vec_add(total, p);
            norm2 = lampe_vec_fma(w, w, norm2);
            w_top = lampe_vec_max(w_top, w);
        }

        // of two operands the second comes through where one is NaN
        // squares of less than 1e-15 may underflow: there the largest has to do
        const lampe_vec least = _mm512_min_ps(lampe_vec_mul(w_top, lampe_vec_set1(sqrtf((float) n))), lampe_vec_set1(1e-15f));
        const lampe_vec norm  = _mm512_max_ps(least, _mm512_sqrt_ps(norm2));
        const lampe_vec scale = _mm512_max_ps(
                lampe_vec_mul(w_top, lampe_vec_set1(1.0f/LAMPE_I16_MAX)), lampe_vec_mul(norm, lampe_vec_set1(1.0f/norm_max)));
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
