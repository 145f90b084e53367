#pragma once

// vectors of floats and the inner loops of LaMPE attention, the same code for every instruction set

#include "simd-mappings.h"
#include "vec.h"

#include <algorithm>
#include <cmath>
#include <cstdint>

#if defined(__AVX512F__) && defined(__AVX512DQ__)

typedef __m512 lampe_vec;

static constexpr int LAMPE_EPR    = 16; // floats in a vector
static constexpr int LAMPE_RN     = 4;  // vectors in a panel
static constexpr int LAMPE_RM     = 4;  // rows of the matrix product that are kept in registers, LAMPE_RM*LAMPE_RN
static constexpr int LAMPE_DOT_RM = 4;  // rows of the dot products that are kept in registers, LAMPE_DOT_RM*4

static inline lampe_vec lampe_vec_load(const float * x)                      { return _mm512_loadu_ps(x); }
static inline lampe_vec lampe_vec_set1(float x)                              { return _mm512_set1_ps(x); }
static inline lampe_vec lampe_vec_add(lampe_vec a, lampe_vec b)              { return _mm512_add_ps(a, b); }
static inline lampe_vec lampe_vec_sub(lampe_vec a, lampe_vec b)              { return _mm512_sub_ps(a, b); }
static inline lampe_vec lampe_vec_mul(lampe_vec a, lampe_vec b)              { return _mm512_mul_ps(a, b); }
static inline lampe_vec lampe_vec_max(lampe_vec a, lampe_vec b)              { return _mm512_max_ps(a, b); }
static inline lampe_vec lampe_vec_fma(lampe_vec a, lampe_vec b, lampe_vec c) { return _mm512_fmadd_ps(a, b, c); }
static inline lampe_vec lampe_vec_exp(lampe_vec a)                           { return ggml_v_expf(a); }
static inline float     lampe_vec_sum(lampe_vec a)                           { return _mm512_reduce_add_ps(a); }
static inline float     lampe_vec_top(lampe_vec a)                           { return _mm512_reduce_max_ps(a); }
static inline void      lampe_vec_store(float * x, lampe_vec a)              { _mm512_storeu_ps(x, a); }

#elif defined(__AVX2__) && defined(__FMA__)

typedef __m256 lampe_vec;

static constexpr int LAMPE_EPR    = 8;
static constexpr int LAMPE_RN     = 2;
static constexpr int LAMPE_RM     = 4;
static constexpr int LAMPE_DOT_RM = 2;

static inline lampe_vec lampe_vec_load(const float * x)                      { return _mm256_loadu_ps(x); }
static inline lampe_vec lampe_vec_set1(float x)                              { return _mm256_set1_ps(x); }
static inline lampe_vec lampe_vec_add(lampe_vec a, lampe_vec b)              { return _mm256_add_ps(a, b); }
static inline lampe_vec lampe_vec_sub(lampe_vec a, lampe_vec b)              { return _mm256_sub_ps(a, b); }
static inline lampe_vec lampe_vec_mul(lampe_vec a, lampe_vec b)              { return _mm256_mul_ps(a, b); }
static inline lampe_vec lampe_vec_max(lampe_vec a, lampe_vec b)              { return _mm256_max_ps(a, b); }
static inline lampe_vec lampe_vec_fma(lampe_vec a, lampe_vec b, lampe_vec c) { return _mm256_fmadd_ps(a, b, c); }
static inline lampe_vec lampe_vec_exp(lampe_vec a)                           { return ggml_v_expf(a); }
static inline void      lampe_vec_store(float * x, lampe_vec a)              { _mm256_storeu_ps(x, a); }

static inline float lampe_vec_sum(lampe_vec a) {
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    s = _mm_add_ss(s, _mm_movehdup_ps(s));
    return _mm_cvtss_f32(s);
}

static inline float lampe_vec_top(lampe_vec a) {
    __m128 s = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    s = _mm_max_ps(s, _mm_movehl_ps(s, s));
    s = _mm_max_ss(s, _mm_movehdup_ps(s));
    return _mm_cvtss_f32(s);
}

#elif defined(__ARM_NEON) && defined(__aarch64__) && !defined(__ARM_FEATURE_SVE)

typedef float32x4_t lampe_vec;

static constexpr int LAMPE_EPR    = 4;
static constexpr int LAMPE_RN     = 4;
static constexpr int LAMPE_RM     = 4;
static constexpr int LAMPE_DOT_RM = 4;

static inline lampe_vec lampe_vec_load(const float * x)                      { return vld1q_f32(x); }
static inline lampe_vec lampe_vec_set1(float x)                              { return vdupq_n_f32(x); }
static inline lampe_vec lampe_vec_add(lampe_vec a, lampe_vec b)              { return vaddq_f32(a, b); }
static inline lampe_vec lampe_vec_sub(lampe_vec a, lampe_vec b)              { return vsubq_f32(a, b); }
static inline lampe_vec lampe_vec_mul(lampe_vec a, lampe_vec b)              { return vmulq_f32(a, b); }
static inline lampe_vec lampe_vec_max(lampe_vec a, lampe_vec b)              { return vmaxq_f32(a, b); }
static inline lampe_vec lampe_vec_fma(lampe_vec a, lampe_vec b, lampe_vec c) { return vfmaq_f32(c, a, b); }
static inline lampe_vec lampe_vec_exp(lampe_vec a)                           { return ggml_v_expf(a); }
static inline float     lampe_vec_sum(lampe_vec a)                           { return vaddvq_f32(a); }
static inline float     lampe_vec_top(lampe_vec a)                           { return vmaxvq_f32(a); }
static inline void      lampe_vec_store(float * x, lampe_vec a)              { vst1q_f32(x, a); }

#else // left to the compiler

struct lampe_vec {
    float v[8];
};

static constexpr int LAMPE_EPR    = 8;
static constexpr int LAMPE_RN     = 2;
static constexpr int LAMPE_RM     = 4;
static constexpr int LAMPE_DOT_RM = 2;

template <typename F>
static inline lampe_vec lampe_vec_map(F f) {
    lampe_vec r;
    for (int i = 0; i < LAMPE_EPR; ++i) {
        r.v[i] = f(i);
    }
    return r;
}

static inline lampe_vec lampe_vec_load(const float * x)         { return lampe_vec_map([=](int i) { return x[i]; }); }
static inline lampe_vec lampe_vec_set1(float x)                 { return lampe_vec_map([=](int  ) { return x; }); }
static inline lampe_vec lampe_vec_add(lampe_vec a, lampe_vec b) { return lampe_vec_map([&](int i) { return a.v[i] + b.v[i]; }); }
static inline lampe_vec lampe_vec_sub(lampe_vec a, lampe_vec b) { return lampe_vec_map([&](int i) { return a.v[i] - b.v[i]; }); }
static inline lampe_vec lampe_vec_mul(lampe_vec a, lampe_vec b) { return lampe_vec_map([&](int i) { return a.v[i] * b.v[i]; }); }
static inline lampe_vec lampe_vec_max(lampe_vec a, lampe_vec b) { return lampe_vec_map([&](int i) { return a.v[i] > b.v[i] ? a.v[i] : b.v[i]; }); }
static inline lampe_vec lampe_vec_exp(lampe_vec a)              { return lampe_vec_map([&](int i) { return expf(a.v[i]); }); }

static inline lampe_vec lampe_vec_fma(lampe_vec a, lampe_vec b, lampe_vec c) {
    return lampe_vec_map([&](int i) { return a.v[i]*b.v[i] + c.v[i]; });
}

static inline float lampe_vec_sum(lampe_vec a) {
    float s = 0.0f;
    for (int i = 0; i < LAMPE_EPR; ++i) {
        s += a.v[i];
    }
    return s;
}

static inline float lampe_vec_top(lampe_vec a) {
    return *std::max_element(a.v, a.v + LAMPE_EPR);
}

static inline void lampe_vec_store(float * x, lampe_vec a) {
    std::copy(a.v, a.v + LAMPE_EPR, x);
}

#endif

static constexpr int LAMPE_PANEL = LAMPE_RN*LAMPE_EPR; // columns in a panel

// matrix product
//
// C[m][n] = alpha[n]*C[m][n] + sum_k A(m, k)*B[k][n], or without the first term where alpha is NULL
// A(m, k) is A[m*sm + k*sk], so it may be read transposed

template <int RM, int RN>
static inline void lampe_gemm_ukernel(
        float       * GGML_RESTRICT C, int64_t ldc,
        const float * GGML_RESTRICT A, int64_t sm, int64_t sk,
        const float * GGML_RESTRICT B, int64_t ldb,
        const float * GGML_RESTRICT alpha, int K) {
    lampe_vec acc[RM][RN];
    for (int r = 0; r < RN; ++r) {
        for (int m = 0; m < RM; ++m) {
            acc[m][r] = lampe_vec_set1(0.0f);
        }
    }
    if (alpha) {
        for (int r = 0; r < RN; ++r) {
            const lampe_vec a = lampe_vec_load(alpha + r*LAMPE_EPR);
            for (int m = 0; m < RM; ++m) {
                acc[m][r] = lampe_vec_mul(a, lampe_vec_load(C + m*ldc + r*LAMPE_EPR));
            }
        }
    }

    for (int k = 0; k < K; ++k) {
        lampe_vec b[RN];
        for (int r = 0; r < RN; ++r) {
            b[r] = lampe_vec_load(B + k*ldb + r*LAMPE_EPR);
        }
        for (int m = 0; m < RM; ++m) {
            const lampe_vec a = lampe_vec_set1(A[m*sm + k*sk]);
            for (int r = 0; r < RN; ++r) {
                acc[m][r] = lampe_vec_fma(a, b[r], acc[m][r]);
            }
        }
    }

    for (int m = 0; m < RM; ++m) {
        for (int r = 0; r < RN; ++r) {
            lampe_vec_store(C + m*ldc + r*LAMPE_EPR, acc[m][r]);
        }
    }
}

template <int RN>
static void lampe_gemm_panel(float * C, int64_t ldc, const float * A, int64_t sm, int64_t sk, const float * B, int64_t ldb,
        const float * alpha, int M, int K) {
    // narrow panels need more rows to hide the latency of the multiply-add
    constexpr int RM = RN < LAMPE_RN ? 2*LAMPE_RM : LAMPE_RM;

    int m = 0;
    for (; m + RM <= M; m += RM) {
        lampe_gemm_ukernel<RM, RN>(C + m*ldc, ldc, A + m*sm, sm, sk, B, ldb, alpha, K);
    }
    for (; m < M; ++m) {
        lampe_gemm_ukernel<1, RN>(C + m*ldc, ldc, A + m*sm, sm, sk, B, ldb, alpha, K);
    }
}

// n_vec: vectors in a row of B and C, at most LAMPE_RN
static inline void lampe_gemm(float * C, int64_t ldc, const float * A, int64_t sm, int64_t sk, const float * B, int64_t ldb,
        const float * alpha, int M, int n_vec, int K) {
    static_assert(LAMPE_RN == 2 || LAMPE_RN == 4, "the cases below");
    switch (n_vec) {
        case 1: lampe_gemm_panel<1>(C, ldc, A, sm, sk, B, ldb, alpha, M, K); break;
        case 2: lampe_gemm_panel<2>(C, ldc, A, sm, sk, B, ldb, alpha, M, K); break;
#if defined(__AVX512F__) || defined(__aarch64__)
        case 3: lampe_gemm_panel<3>(C, ldc, A, sm, sk, B, ldb, alpha, M, K); break;
        case 4: lampe_gemm_panel<4>(C, ldc, A, sm, sk, B, ldb, alpha, M, K); break;
#endif
        default: GGML_ABORT("fatal error");
    }
}

// dot products
//
// S[m][k] = Q[m] . K[k] for RM rows of Q and 4 rows of K; d is a multiple of LAMPE_EPR

template <int RM>
static inline void lampe_dots_ukernel(float * GGML_RESTRICT S, int64_t lds, const float * GGML_RESTRICT Q, int64_t ldq,
        const float * GGML_RESTRICT K, int64_t ldk, int64_t d) {
    lampe_vec acc[RM][4];
    for (int m = 0; m < RM; ++m) {
        for (int r = 0; r < 4; ++r) {
            acc[m][r] = lampe_vec_set1(0.0f);
        }
    }

    for (int64_t i = 0; i < d; i += LAMPE_EPR) {
        lampe_vec k[4];
        for (int r = 0; r < 4; ++r) {
            k[r] = lampe_vec_load(K + r*ldk + i);
        }
        for (int m = 0; m < RM; ++m) {
            const lampe_vec q = lampe_vec_load(Q + m*ldq + i);
            for (int r = 0; r < 4; ++r) {
                acc[m][r] = lampe_vec_fma(q, k[r], acc[m][r]);
            }
        }
    }

    for (int m = 0; m < RM; ++m) {
        for (int r = 0; r < 4; ++r) {
            S[m*lds + r] = lampe_vec_sum(acc[m][r]);
        }
    }
}

template <int RM>
static void lampe_dots_rows(float * S, int64_t lds, const float * Q, int64_t ldq, const float * K, int64_t ldk, int64_t d, int n) {
    for (int j = 0; j < n; j += 4) {
        lampe_dots_ukernel<RM>(S + j, lds, Q, ldq, K + j*ldk, ldk, d);
    }
}

// n is rounded up to a multiple of 4
static inline void lampe_dots(float * S, int64_t lds, const float * Q, int64_t ldq, const float * K, int64_t ldk, int64_t d, int M, int n) {
    int m = 0;
    for (; m + LAMPE_DOT_RM <= M; m += LAMPE_DOT_RM) {
        lampe_dots_rows<LAMPE_DOT_RM>(S + m*lds, lds, Q + m*ldq, ldq, K, ldk, d, n);
    }
    switch (M - m) {
        case 3: lampe_dots_rows<3>(S + m*lds, lds, Q + m*ldq, ldq, K, ldk, d, n); break;
        case 2: lampe_dots_rows<2>(S + m*lds, lds, Q + m*ldq, ldq, K, ldk, d, n); break;
        case 1: lampe_dots_rows<1>(S + m*lds, lds, Q + m*ldq, ldq, K, ldk, d, n); break;
        default:                                                                  break;
    }
}

// running softmax
//
// scores become weights relative to the running maximum, which begins at -FLT_MAX so that hidden keys (-inf) weigh 0;
// what was summed before has to be multiplied by alpha

// S [n][LAMPE_PANEL]: a row per key, a column per query
static inline void lampe_softmax_panel(float * S, int n, int n_vec, float * max, float * sum, float * alpha) {
    for (int v = 0; v < n_vec; ++v) {
        const int c = v*LAMPE_EPR;

        const lampe_vec max_old = lampe_vec_load(max + c);
        lampe_vec       max_new = max_old;
        for (int j = 0; j < n; ++j) {
            max_new = lampe_vec_max(max_new, lampe_vec_load(S + j*LAMPE_PANEL + c));
        }

        lampe_vec total = lampe_vec_set1(0.0f);
        for (int j = 0; j < n; ++j) {
            const lampe_vec p = lampe_vec_exp(lampe_vec_sub(lampe_vec_load(S + j*LAMPE_PANEL + c), max_new));
            lampe_vec_store(S + j*LAMPE_PANEL + c, p);
            total = lampe_vec_add(total, p);
        }

        const lampe_vec a = lampe_vec_exp(lampe_vec_sub(max_old, max_new));
        lampe_vec_store(alpha + c, a);
        lampe_vec_store(max   + c, max_new);
        lampe_vec_store(sum   + c, lampe_vec_fma(lampe_vec_load(sum + c), a, total));
    }
}

// S [n]: the scores of one query, n a multiple of LAMPE_EPR; returns alpha
static inline float lampe_softmax_row(float * S, int n, float * max, float * sum) {
    lampe_vec top = lampe_vec_load(S);
    for (int j = LAMPE_EPR; j < n; j += LAMPE_EPR) {
        top = lampe_vec_max(top, lampe_vec_load(S + j));
    }

    const float     max_new = std::max(*max, lampe_vec_top(top));
    const lampe_vec shift   = lampe_vec_set1(max_new);

    lampe_vec total = lampe_vec_set1(0.0f);
    for (int j = 0; j < n; j += LAMPE_EPR) {
        const lampe_vec p = lampe_vec_exp(lampe_vec_sub(lampe_vec_load(S + j), shift));
        lampe_vec_store(S + j, p);
        total = lampe_vec_add(total, p);
    }

    const float alpha = max_new > *max ? expf(*max - max_new) : 1.0f;

    *max = max_new;
    *sum = *sum*alpha + lampe_vec_sum(total);

    return alpha;
}
