#pragma once

// the inner loops of LaMPE attention on floats, written once for every instruction set

#include "ggml-lampe-impl.h"
#include "lampe-attn-simd-f32.h"
#include "ops.h"

#include <algorithm>
#include <cmath>
#include <cstdint>

// accumulators in arrays only stay in registers when the loops over them are unrolled early
#if defined(__clang__)
#define LAMPE_UNROLL _Pragma("unroll")
#elif defined(__GNUC__)
#define LAMPE_UNROLL _Pragma("GCC unroll 16")
#else
#define LAMPE_UNROLL
#endif

static constexpr int LAMPE_PANEL = LAMPE_RN*LAMPE_EPR; // columns of a panel, a row of attention in each

// GCC takes a function that only prefetches for one without effect, and drops its calls unless they are inlined
#if defined(__GNUC__) || defined(__clang__)
#define LAMPE_INLINE __attribute__((always_inline))
#else
#define LAMPE_INLINE
#endif

// the rows of one head lie apart, and hardware does not foresee that: ask for those of the next tile in time
LAMPE_INLINE static inline void lampe_prefetch(const char * x, size_t n) {
#if defined(__GNUC__) || defined(__clang__)
    // into the second cache: this is a tile's time ahead, and the first is too small for that
    // unrolled: a branch for every line would take the place of products
    LAMPE_UNROLL
    for (size_t i = 0; i < n; i += CACHE_LINE_SIZE) {
        __builtin_prefetch(x + i, 0, 2);
    }
#else
    GGML_UNUSED(x);
    GGML_UNUSED(n);
#endif
}

// rotation
//
// rope: the cos of all pairs, then the sin of all pairs; the pairs end up in halves whatever the mode: a permutation
// that queries and keys share changes no score

static inline float lampe_to_float(float x)       { return x; }
static inline float lampe_to_float(ggml_fp16_t x) { return GGML_CPU_FP16_TO_FP32(x); }

template <typename T>
static inline void lampe_rotate(float * GGML_RESTRICT dst, const T * GGML_RESTRICT src, const float * GGML_RESTRICT rope, int64_t n_rot, int64_t d, bool neox) {
    const int64_t n = n_rot/2;

    int64_t i = 0;
    for (; i + LAMPE_EPR <= n; i += LAMPE_EPR) {
        lampe_simd x;
        lampe_simd y;
        if (neox) {
            x = lampe_simd_load(src + i);
            y = lampe_simd_load(src + i + n);
        } else {
            lampe_simd_load_pairs(src + 2*i, &x, &y);
        }
        const lampe_simd c = lampe_simd_load(rope + i);
        const lampe_simd s = lampe_simd_load(rope + i + n);

        lampe_simd_store(dst + i,     lampe_simd_sub(lampe_simd_mul(x, c), lampe_simd_mul(y, s)));
        lampe_simd_store(dst + i + n, lampe_simd_fma(x, s, lampe_simd_mul(y, c)));
    }
    for (; i < n; ++i) {
        const float x = lampe_to_float(neox ? src[i]     : src[2*i]);
        const float y = lampe_to_float(neox ? src[i + n] : src[2*i + 1]);

        dst[i]     = x*rope[i]     - y*rope[i + n];
        dst[i + n] = x*rope[i + n] + y*rope[i];
    }
    for (i = n_rot; i < d; ++i) {
        dst[i] = lampe_to_float(src[i]);
    }
}

// n_row rows at one position, whose pairs lie in halves already; ld: the stride of both src and dst
static inline void lampe_rotate_rows(float * GGML_RESTRICT dst, const float * GGML_RESTRICT src, int64_t ld, int64_t n_row,
        const float * GGML_RESTRICT rope, int64_t n_rot, int64_t d) {
    const int64_t n = n_rot/2;

    int64_t i = 0;
    for (; i + LAMPE_EPR <= n; i += LAMPE_EPR) {
        const lampe_simd c = lampe_simd_load(rope + i);
        const lampe_simd s = lampe_simd_load(rope + i + n);
        for (int64_t r = 0; r < n_row; ++r) {
            const lampe_simd x = lampe_simd_load(src + r*ld + i);
            const lampe_simd y = lampe_simd_load(src + r*ld + i + n);

            lampe_simd_store(dst + r*ld + i,     lampe_simd_sub(lampe_simd_mul(x, c), lampe_simd_mul(y, s)));
            lampe_simd_store(dst + r*ld + i + n, lampe_simd_fma(x, s, lampe_simd_mul(y, c)));
        }
    }
    for (int64_t r = 0; r < n_row; ++r) {
        for (int64_t j = i; j < n; ++j) {
            const float x = src[r*ld + j];
            const float y = src[r*ld + j + n];

            dst[r*ld + j]     = x*rope[j]     - y*rope[j + n];
            dst[r*ld + j + n] = x*rope[j + n] + y*rope[j];
        }
        for (int64_t j = n_rot; j < d; ++j) {
            dst[r*ld + j] = src[r*ld + j];
        }
    }
}

// matrix product
//
// C[m][n] = alpha[n]*C[m][n] + sum_k A(m, k)*B[k][n], or without the first term where alpha is NULL
// A(m, k) is A[m*sm + k*sk], so it may be read transposed; B is f32 or f16
// prefetch(k) comes before every fourth k

struct lampe_no_prefetch {
    LAMPE_INLINE void operator()(int) const {}
};

template <int RM, int RN, typename T, typename F = lampe_no_prefetch>
static inline void lampe_gemm_ukernel(
        float       * GGML_RESTRICT C, int64_t ldc,
        const float * GGML_RESTRICT A, int64_t sm, int64_t sk,
        const T     * GGML_RESTRICT B, int64_t ldb,
        const float * GGML_RESTRICT alpha, int K, const F & prefetch = F()) {
    lampe_simd acc[RM][RN];
    LAMPE_UNROLL
    for (int r = 0; r < RN; ++r) {
        LAMPE_UNROLL
        for (int m = 0; m < RM; ++m) {
            acc[m][r] = lampe_simd_set1(0.0f);
        }
    }
    if (alpha) {
        LAMPE_UNROLL
        for (int r = 0; r < RN; ++r) {
            const lampe_simd a = lampe_simd_load(alpha + r*LAMPE_EPR);
            LAMPE_UNROLL
            for (int m = 0; m < RM; ++m) {
                acc[m][r] = lampe_simd_mul(a, lampe_simd_load(C + m*ldc + r*LAMPE_EPR));
            }
        }
    }

    for (int k = 0; k < K; ++k) {
        if (k % 4 == 0) {
            prefetch(k);
        }
        lampe_simd b[RN];
        LAMPE_UNROLL
        for (int r = 0; r < RN; ++r) {
            b[r] = lampe_simd_load(B + k*ldb + r*LAMPE_EPR);
        }
        LAMPE_UNROLL
        for (int m = 0; m < RM; ++m) {
            const lampe_simd a = lampe_simd_set1(A[m*sm + k*sk]);
            LAMPE_UNROLL
            for (int r = 0; r < RN; ++r) {
                acc[m][r] = lampe_simd_fma(a, b[r], acc[m][r]);
            }
        }
    }

    LAMPE_UNROLL
    for (int m = 0; m < RM; ++m) {
        LAMPE_UNROLL
        for (int r = 0; r < RN; ++r) {
            lampe_simd_store(C + m*ldc + r*LAMPE_EPR, acc[m][r]);
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
    for (; m + 3 <= M; m += 3) {
        lampe_gemm_ukernel<3, RN>(C + m*ldc, ldc, A + m*sm, sm, sk, B, ldb, alpha, K);
    }
    for (; m < M; ++m) {
        lampe_gemm_ukernel<1, RN>(C + m*ldc, ldc, A + m*sm, sm, sk, B, ldb, alpha, K);
    }
}

// n_simd: vectors in a row of B and C, at most LAMPE_RN
static inline void lampe_gemm(float * C, int64_t ldc, const float * A, int64_t sm, int64_t sk, const float * B, int64_t ldb,
        const float * alpha, int M, int n_simd, int K) {
    static_assert(LAMPE_RN == 2 || LAMPE_RN == 4, "the cases below");
    switch (n_simd) {
        case 1: lampe_gemm_panel<1>(C, ldc, A, sm, sk, B, ldb, alpha, M, K); break;
        case 2: lampe_gemm_panel<2>(C, ldc, A, sm, sk, B, ldb, alpha, M, K); break;
#if defined(__AVX512F__) || defined(__aarch64__)
        case 3: lampe_gemm_panel<3>(C, ldc, A, sm, sk, B, ldb, alpha, M, K); break;
        case 4: lampe_gemm_panel<4>(C, ldc, A, sm, sk, B, ldb, alpha, M, K); break;
#endif
        default: GGML_ABORT("fatal error");
    }
}

// running softmax
//
// scores become weights relative to the running maximum, which begins at -FLT_MAX so that hidden keys (-inf) weigh 0;
// what was summed before has to be multiplied by alpha

// S [n][LAMPE_PANEL]: a row per key, a column per query
static inline void lampe_softmax_panel(float * S, int n, int n_simd, float * max, float * sum, float * alpha) {
    for (int v = 0; v < n_simd; ++v) {
        const int c = v*LAMPE_EPR;

        const lampe_simd max_old = lampe_simd_load(max + c);
        lampe_simd       max_new = max_old;
        for (int j = 0; j < n; ++j) {
            max_new = lampe_simd_max(max_new, lampe_simd_load(S + j*LAMPE_PANEL + c));
        }

        lampe_simd total = lampe_simd_set1(0.0f);
        for (int j = 0; j < n; ++j) {
            const lampe_simd p = lampe_simd_exp(lampe_simd_sub(lampe_simd_load(S + j*LAMPE_PANEL + c), max_new));
            lampe_simd_store(S + j*LAMPE_PANEL + c, p);
            total = lampe_simd_add(total, p);
        }

        const lampe_simd a = lampe_simd_exp(lampe_simd_sub(max_old, max_new));
        lampe_simd_store(alpha + c, a);
        lampe_simd_store(max   + c, max_new);
        lampe_simd_store(sum   + c, lampe_simd_fma(lampe_simd_load(sum + c), a, total));
    }
}

// scores

// take each score from the region that its pair of query and key belongs to
// by_key: a row of scores is one key against n queries, otherwise one query against n keys
template <bool by_key>
static inline void lampe_select(float * out, const float * local, const float * middle, const float * tail,
        const int32_t * plan, const int32_t * q_pos, const int32_t * k_pos, int64_t n) {
    const int32_t local_window = plan[GGML_LAMPE_PLAN_LOCAL_WINDOW];
    const int32_t tail_start   = plan[GGML_LAMPE_PLAN_TAIL_START];

    for (int64_t i = 0; i < n; ++i) {
        const int32_t distance = by_key ? q_pos[i] - k_pos[0] : q_pos[0] - k_pos[i];

        const enum lampe_region region = lampe_get_region(distance, local_window, tail_start);

        const float x = region == LAMPE_REGION_TAIL ? tail[i] : middle[i];

        out[i] = region == LAMPE_REGION_LOCAL ? local[i] : x;
    }
}

// hidden scores are replaced instead of added to: that of a region that no visible key is in was never computed
static inline void lampe_mask(float * x, const float * mask, int64_t n) {
    for (int64_t i = 0; i < n; ++i) {
        x[i] = mask[i] == -INFINITY ? -INFINITY : x[i] + mask[i];
    }
}

static inline void lampe_softcap(float * x, float softcap, int64_t n) {
    for (int64_t i = 0; i < n; ++i) {
        x[i] = softcap*tanhf(x[i]/softcap);
    }
}
