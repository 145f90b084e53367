#pragma once

// the inner loops of the vec layout, for the few rows of a decoding step

#include "lampe-attn-f32.h"

// keeps a vector in a register, where the compiler would load it again for each use
#if (defined(__GNUC__) || defined(__clang__)) && defined(__AVX512F__)
#define LAMPE_KEEP(x) __asm__("" : "+v"(x))
#elif (defined(__GNUC__) || defined(__clang__)) && defined(__AVX2__)
#define LAMPE_KEEP(x) __asm__("" : "+x"(x))
#else
#define LAMPE_KEEP(x) GGML_UNUSED(x)
#endif

// weighted sums
//
// C[m] += sum_k A[m][k]*B[k], B[k] has d values; B is read once where the registers allow that
// prefetch(j, end) is called at every fourth k, and over all passes gets each of the rows 0 to K - 1 once

template <int RM, int RN, typename T, typename F>
static inline void lampe_sums_rows(float * C, int64_t ldc, const float * A, int64_t lda, const T * B, int64_t ldb, const float * alpha, int K, int64_t d,
        const F & prefetch) {
    // each pass over the keys asks for its share of the rows
    const int n_pass = d/(RN*LAMPE_EPR) + d%(RN*LAMPE_EPR)/LAMPE_EPR;

    int pass = 0;
    const auto share = [&](int k) LAMPE_INLINE { prefetch((pass*K + k)/n_pass, (pass*K + k + 4)/n_pass); };

    int64_t i = 0;
    for (; i + RN*LAMPE_EPR <= d; i += RN*LAMPE_EPR, ++pass) {
        lampe_gemm_ukernel<RM, RN>(C + i, ldc, A, lda, 1, B + i, ldb, alpha, K, share);
    }
    for (; i < d; i += LAMPE_EPR, ++pass) {
        lampe_gemm_ukernel<RM, 1>(C + i, ldc, A, lda, 1, B + i, ldb, alpha, K, share);
    }
}

// alpha: LAMPE_PANEL ones, C is scaled beforehand
template <typename T, typename F>
static inline void lampe_sums(float * C, int64_t ldc, const float * A, int64_t lda, const T * B, int64_t ldb, const float * alpha, int M, int K, int64_t d,
        const F & prefetch) {
    while (M > 0) {
        int m = std::min(M, 2*LAMPE_RM);
        if (LAMPE_RN == 2) {
            m = std::min(m, LAMPE_RM);
        }
        switch (m) {
            case 1:  lampe_sums_rows<1, LAMPE_RN>(C, ldc, A, lda, B, ldb, alpha, K, d, prefetch); break;
            case 2:  lampe_sums_rows<2, LAMPE_RN>(C, ldc, A, lda, B, ldb, alpha, K, d, prefetch); break;
            case 3:  lampe_sums_rows<3, LAMPE_RN>(C, ldc, A, lda, B, ldb, alpha, K, d, prefetch); break;
            case 4:  lampe_sums_rows<4, LAMPE_RN>(C, ldc, A, lda, B, ldb, alpha, K, d, prefetch); break;
            case 5:  lampe_sums_rows<5, 2>       (C, ldc, A, lda, B, ldb, alpha, K, d, prefetch); break;
            case 6:  lampe_sums_rows<6, 2>       (C, ldc, A, lda, B, ldb, alpha, K, d, prefetch); break;
            case 7:  lampe_sums_rows<7, 2>       (C, ldc, A, lda, B, ldb, alpha, K, d, prefetch); break;
            default: lampe_sums_rows<8, 2>       (C, ldc, A, lda, B, ldb, alpha, K, d, prefetch); break;
        }
        C += m*ldc;
        A += m*lda;
        M -= m;
    }
}

// dot products
//
// S[m][k] = Q[m] . K[k] for RM rows of Q and 4 rows of K; d is a multiple of LAMPE_EPR

template <int RM>
static inline void lampe_dots_ukernel(float * GGML_RESTRICT S, int64_t lds, const float * GGML_RESTRICT Q, int64_t ldq,
        const float * GGML_RESTRICT K, int64_t ldk, int64_t d) {
    lampe_simd acc[RM][4];
    LAMPE_UNROLL
    for (int m = 0; m < RM; ++m) {
        LAMPE_UNROLL
        for (int r = 0; r < 4; ++r) {
            acc[m][r] = lampe_simd_set1(0.0f);
        }
    }

    for (int64_t i = 0; i < d; i += LAMPE_EPR) {
        lampe_simd k[4];
        LAMPE_UNROLL
        for (int r = 0; r < 4; ++r) {
            k[r] = lampe_simd_load(K + r*ldk + i);
        }
        LAMPE_UNROLL
        for (int m = 0; m < RM; ++m) {
            const lampe_simd q = lampe_simd_load(Q + m*ldq + i);
            LAMPE_UNROLL
            for (int r = 0; r < 4; ++r) {
                acc[m][r] = lampe_simd_fma(q, k[r], acc[m][r]);
            }
        }
    }

    LAMPE_UNROLL
    for (int m = 0; m < RM; ++m) {
        lampe_simd_sum4(S + m*lds, acc[m][0], acc[m][1], acc[m][2], acc[m][3]);
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

// the same for n keys, a multiple of 4, which are rotated on the way; a key and its rotation are whole vectors
// rope: the rows of the table for the keys
// D: the head size where it is known to the compiler and all of a key is rotated, else 0

template <int RM, bool neox, int D, typename T, typename F>
static void lampe_rotated_dots_rows(float * GGML_RESTRICT S, int64_t lds, const float * GGML_RESTRICT Q, int64_t ldq,
        const T * GGML_RESTRICT K, int64_t ldk, const float * const * rope, int64_t n_rot, int64_t d, int n, const F & prefetch) {
    // the queries stay in registers where there are enough of them
    constexpr bool keep_q = 6*RM + 6 <= LAMPE_REGISTERS;

    if (D > 0) {
        n_rot = D;
        d     = D;
    }
    const int64_t n_pairs = n_rot/2;

    // all keys in one call: to set one up costs as much as half a key
    for (int j = 0; j < n; j += 4) {
        prefetch(j);

        lampe_simd acc[RM][4];
        LAMPE_UNROLL
        for (int m = 0; m < RM; ++m) {
            LAMPE_UNROLL
            for (int r = 0; r < 4; ++r) {
                acc[m][r] = lampe_simd_set1(0.0f);
            }
        }

        for (int64_t i = 0; i < n_pairs; i += LAMPE_EPR) {
            lampe_simd qx[RM];
            lampe_simd qy[RM];
            LAMPE_UNROLL
            for (int m = 0; m < RM; ++m) {
                qx[m] = lampe_simd_load(Q + m*ldq + i);
                qy[m] = lampe_simd_load(Q + m*ldq + i + n_pairs);
                if (keep_q) {
                    LAMPE_KEEP(qx[m]);
                    LAMPE_KEEP(qy[m]);
                }
            }
            LAMPE_UNROLL
            for (int r = 0; r < 4; ++r) {
                const T * src = K + (j + r)*ldk;

                lampe_simd x;
                lampe_simd y;
                if (neox) {
                    x = lampe_simd_load(src + i);
                    y = lampe_simd_load(src + i + n_pairs);
                } else {
                    lampe_simd_load_pairs(src + 2*i, &x, &y);
                }

                lampe_simd c = lampe_simd_load(rope[j + r] + i);
                lampe_simd s = lampe_simd_load(rope[j + r] + i + n_pairs);
                LAMPE_KEEP(c);
                LAMPE_KEEP(s);

                const lampe_simd kx = lampe_simd_sub(lampe_simd_mul(x, c), lampe_simd_mul(y, s));
                const lampe_simd ky = lampe_simd_fma(x, s, lampe_simd_mul(y, c));
                LAMPE_UNROLL
                for (int m = 0; m < RM; ++m) {
                    acc[m][r] = lampe_simd_fma(kx, qx[m], acc[m][r]);
                    acc[m][r] = lampe_simd_fma(ky, qy[m], acc[m][r]);
                }
            }
        }
        for (int64_t i = n_rot; i < d; i += LAMPE_EPR) {
            LAMPE_UNROLL
            for (int r = 0; r < 4; ++r) {
                const lampe_simd k = lampe_simd_load(K + (j + r)*ldk + i);
                LAMPE_UNROLL
                for (int m = 0; m < RM; ++m) {
                    acc[m][r] = lampe_simd_fma(k, lampe_simd_load(Q + m*ldq + i), acc[m][r]);
                }
            }
        }

        LAMPE_UNROLL
        for (int m = 0; m < RM; ++m) {
            lampe_simd_sum4(S + m*lds + j, acc[m][0], acc[m][1], acc[m][2], acc[m][3]);
        }
    }
}

// M rows of Q; prefetch(j) comes once, before keys j to j + 3
template <bool neox, int D, typename T, typename F>
static inline void lampe_rotated_dots(float * S, int64_t lds, const float * Q, int64_t ldq, const T * K, int64_t ldk, const float * const * rope,
        int64_t n_rot, int64_t d, int M, int n, const F & prefetch) {
    // a key is rotated once where the registers allow that
    const int most = LAMPE_REGISTERS < 32 ? 2 : M == 8 ? 4 : 7;

    bool       first = true;
    const auto once  = [&](int j) LAMPE_INLINE {
        if (first) {
            prefetch(j);
        }
    };

    while (M > 0) {
        const int m = std::min(M, most);
        switch (m) {
            case 1:  lampe_rotated_dots_rows<1, neox, D>(S, lds, Q, ldq, K, ldk, rope, n_rot, d, n, once); break;
            case 2:  lampe_rotated_dots_rows<2, neox, D>(S, lds, Q, ldq, K, ldk, rope, n_rot, d, n, once); break;
#if defined(__AVX512F__) || defined(__aarch64__)
            case 3:  lampe_rotated_dots_rows<3, neox, D>(S, lds, Q, ldq, K, ldk, rope, n_rot, d, n, once); break;
            case 4:  lampe_rotated_dots_rows<4, neox, D>(S, lds, Q, ldq, K, ldk, rope, n_rot, d, n, once); break;
            case 5:  lampe_rotated_dots_rows<5, neox, D>(S, lds, Q, ldq, K, ldk, rope, n_rot, d, n, once); break;
            case 6:  lampe_rotated_dots_rows<6, neox, D>(S, lds, Q, ldq, K, ldk, rope, n_rot, d, n, once); break;
            case 7:  lampe_rotated_dots_rows<7, neox, D>(S, lds, Q, ldq, K, ldk, rope, n_rot, d, n, once); break;
#endif
            default: GGML_ABORT("fatal error");
        }
        S += m*lds;
        Q += m*ldq;
        M -= m;

        first = false;
    }
}

// S [n]: the scores of one query, n a multiple of LAMPE_EPR; returns alpha
static inline float lampe_softmax_row(float * S, int n, float * max, float * sum) {
    lampe_simd top = lampe_simd_load(S);
    for (int j = LAMPE_EPR; j < n; j += LAMPE_EPR) {
        top = lampe_simd_max(top, lampe_simd_load(S + j));
    }

    const float     max_new = std::max(*max, lampe_simd_top(top));
    const lampe_simd shift   = lampe_simd_set1(max_new);

    lampe_simd total = lampe_simd_set1(0.0f);
    for (int j = 0; j < n; j += LAMPE_EPR) {
        const lampe_simd p = lampe_simd_exp(lampe_simd_sub(lampe_simd_load(S + j), shift));
        lampe_simd_store(S + j, p);
        total = lampe_simd_add(total, p);
    }

    const float alpha = max_new > *max ? expf(*max - max_new) : 1.0f;

    *max = max_new;
    *sum = *sum*alpha + lampe_simd_sum(total);

    return alpha;
}
