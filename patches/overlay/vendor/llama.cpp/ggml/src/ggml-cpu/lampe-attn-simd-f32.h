#pragma once

// vectors of floats for LaMPE attention, by instruction set

#include "ggml-impl.h"
#include "simd-mappings.h"
#include "vec.h"

#include <algorithm>
#include <cmath>

#if defined(__AVX512F__) && defined(__AVX512DQ__)

typedef __m512 lampe_simd;

static constexpr int LAMPE_REGISTERS = 32;

static constexpr int LAMPE_EPR    = 16; // floats in a vector
static constexpr int LAMPE_RN     = 4;  // vectors in a panel
static constexpr int LAMPE_RM     = 4;  // the matrix product keeps LAMPE_RM*LAMPE_RN sums in registers
static constexpr int LAMPE_DOT_RM = 4;  // dot products keep LAMPE_DOT_RM*4 sums in registers

static inline lampe_simd lampe_simd_load(const float * x)                         { return _mm512_loadu_ps(x); }
static inline lampe_simd lampe_simd_set1(float x)                                 { return _mm512_set1_ps(x); }
static inline lampe_simd lampe_simd_add(lampe_simd a, lampe_simd b)               { return _mm512_add_ps(a, b); }
static inline lampe_simd lampe_simd_sub(lampe_simd a, lampe_simd b)               { return _mm512_sub_ps(a, b); }
static inline lampe_simd lampe_simd_mul(lampe_simd a, lampe_simd b)               { return _mm512_mul_ps(a, b); }
static inline lampe_simd lampe_simd_max(lampe_simd a, lampe_simd b)               { return _mm512_max_ps(a, b); }
static inline lampe_simd lampe_simd_fma(lampe_simd a, lampe_simd b, lampe_simd c) { return _mm512_fmadd_ps(a, b, c); }
static inline lampe_simd lampe_simd_exp(lampe_simd a)                             { return ggml_v_expf(a); }
static inline float      lampe_simd_sum(lampe_simd a)                             { return _mm512_reduce_add_ps(a); }
static inline float      lampe_simd_top(lampe_simd a)                             { return _mm512_reduce_max_ps(a); }
static inline lampe_simd lampe_simd_load(const ggml_fp16_t * x)                   { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *) x)); }
static inline void       lampe_simd_store(float * x, lampe_simd a)                { _mm512_storeu_ps(x, a); }

static inline lampe_simd lampe_simd_even(lampe_simd a, lampe_simd b) {
    return _mm512_permutex2var_ps(a, _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30), b);
}

static inline lampe_simd lampe_simd_odd(lampe_simd a, lampe_simd b) {
    return _mm512_permutex2var_ps(a, _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31), b);
}

// the sums of four vectors at once
static inline void lampe_simd_sum4(float * x, lampe_simd a, lampe_simd b, lampe_simd c, lampe_simd d) {
    const __m512 ab   = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
    const __m512 cd   = _mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
    const __m512 abcd = _mm512_add_ps(_mm512_shuffle_ps(ab, cd, 0x44), _mm512_shuffle_ps(ab, cd, 0xEE));
    const __m256 s    = _mm256_add_ps(_mm512_castps512_ps256(abcd), _mm512_extractf32x8_ps(abcd, 1));
    _mm_storeu_ps(x, _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1)));
}

#elif defined(__AVX2__) && defined(__FMA__)

typedef __m256 lampe_simd;

static constexpr int LAMPE_REGISTERS = 16;

static constexpr int LAMPE_EPR    = 8;
static constexpr int LAMPE_RN     = 2;
static constexpr int LAMPE_RM     = 4;
static constexpr int LAMPE_DOT_RM = 2;

static inline lampe_simd lampe_simd_load(const float * x)                         { return _mm256_loadu_ps(x); }
static inline lampe_simd lampe_simd_set1(float x)                                 { return _mm256_set1_ps(x); }
static inline lampe_simd lampe_simd_add(lampe_simd a, lampe_simd b)               { return _mm256_add_ps(a, b); }
static inline lampe_simd lampe_simd_sub(lampe_simd a, lampe_simd b)               { return _mm256_sub_ps(a, b); }
static inline lampe_simd lampe_simd_mul(lampe_simd a, lampe_simd b)               { return _mm256_mul_ps(a, b); }
static inline lampe_simd lampe_simd_max(lampe_simd a, lampe_simd b)               { return _mm256_max_ps(a, b); }
static inline lampe_simd lampe_simd_fma(lampe_simd a, lampe_simd b, lampe_simd c) { return _mm256_fmadd_ps(a, b, c); }
static inline lampe_simd lampe_simd_exp(lampe_simd a)                             { return ggml_v_expf(a); }
static inline void       lampe_simd_store(float * x, lampe_simd a)                { _mm256_storeu_ps(x, a); }

#if defined(__F16C__)
static inline lampe_simd lampe_simd_load(const ggml_fp16_t * x) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *) x)); }
#else
static inline lampe_simd lampe_simd_load(const ggml_fp16_t * x) {
    float tmp[LAMPE_EPR];
    for (int i = 0; i < LAMPE_EPR; ++i) {
        tmp[i] = GGML_CPU_FP16_TO_FP32(x[i]);
    }
    return lampe_simd_load(tmp);
}
#endif

static inline lampe_simd lampe_simd_even(lampe_simd a, lampe_simd b) {
    return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(_mm256_shuffle_ps(a, b, 0x88)), 0xD8));
}

static inline lampe_simd lampe_simd_odd(lampe_simd a, lampe_simd b) {
    return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(_mm256_shuffle_ps(a, b, 0xDD)), 0xD8));
}

static inline void lampe_simd_sum4(float * x, lampe_simd a, lampe_simd b, lampe_simd c, lampe_simd d) {
    const __m256 s = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
    _mm_storeu_ps(x, _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1)));
}

static inline float lampe_simd_sum(lampe_simd a) {
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    s = _mm_add_ss(s, _mm_movehdup_ps(s));
    return _mm_cvtss_f32(s);
}

static inline float lampe_simd_top(lampe_simd a) {
    __m128 s = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    s = _mm_max_ps(s, _mm_movehl_ps(s, s));
    s = _mm_max_ss(s, _mm_movehdup_ps(s));
    return _mm_cvtss_f32(s);
}

#elif defined(__ARM_NEON) && defined(__aarch64__)

typedef float32x4_t lampe_simd;

static constexpr int LAMPE_REGISTERS = 32;

static constexpr int LAMPE_EPR    = 4;
static constexpr int LAMPE_RN     = 4;
static constexpr int LAMPE_RM     = 4;
static constexpr int LAMPE_DOT_RM = 4;

static inline lampe_simd lampe_simd_load(const float * x)                         { return vld1q_f32(x); }
static inline lampe_simd lampe_simd_set1(float x)                                 { return vdupq_n_f32(x); }
static inline lampe_simd lampe_simd_add(lampe_simd a, lampe_simd b)               { return vaddq_f32(a, b); }
static inline lampe_simd lampe_simd_sub(lampe_simd a, lampe_simd b)               { return vsubq_f32(a, b); }
static inline lampe_simd lampe_simd_mul(lampe_simd a, lampe_simd b)               { return vmulq_f32(a, b); }
static inline lampe_simd lampe_simd_max(lampe_simd a, lampe_simd b)               { return vmaxq_f32(a, b); }
static inline lampe_simd lampe_simd_fma(lampe_simd a, lampe_simd b, lampe_simd c) { return vfmaq_f32(c, a, b); }
static inline float      lampe_simd_sum(lampe_simd a)                             { return vaddvq_f32(a); }
static inline float      lampe_simd_top(lampe_simd a)                             { return vmaxvq_f32(a); }
static inline lampe_simd lampe_simd_even(lampe_simd a, lampe_simd b)              { return vuzp1q_f32(a, b); }
static inline lampe_simd lampe_simd_odd(lampe_simd a, lampe_simd b)               { return vuzp2q_f32(a, b); }
static inline lampe_simd lampe_simd_load(const ggml_fp16_t * x)                   { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(x))); }
static inline void       lampe_simd_store(float * x, lampe_simd a)                { vst1q_f32(x, a); }

#if defined(__ARM_FEATURE_SVE)

// ggml_v_expf() takes SVE's vectors there; weights below exp(-87), which are not normal numbers, become 0
static inline lampe_simd lampe_simd_exp(lampe_simd a) {
    const float32x4_t n = vrndnq_f32(vmulq_n_f32(a, 1.44269504f));
    const float32x4_t r = vfmsq_n_f32(vfmsq_n_f32(a, n, 0.693145752f), n, 1.42860677e-6f); // a - n*log(2)

    float32x4_t p = vdupq_n_f32(1.0f/720.0f); // exp(r), |r| <= log(2)/2
    p = vfmaq_f32(vdupq_n_f32(1.0f/120.0f), p, r);
    p = vfmaq_f32(vdupq_n_f32(1.0f/24.0f),  p, r);
    p = vfmaq_f32(vdupq_n_f32(1.0f/6.0f),   p, r);
    p = vfmaq_f32(vdupq_n_f32(0.5f),        p, r);
    p = vfmaq_f32(vdupq_n_f32(1.0f),        p, r);
    p = vfmaq_f32(vdupq_n_f32(1.0f),        p, r);

    const int32x4_t   e = vshlq_n_s32(vcvtq_s32_f32(n), 23);
    const float32x4_t y = vreinterpretq_f32_s32(vaddq_s32(vreinterpretq_s32_f32(p), e));

    return vbslq_f32(vcltq_f32(a, vdupq_n_f32(-87.0f)), vdupq_n_f32(0.0f), y);
}

#else

static inline lampe_simd lampe_simd_exp(lampe_simd a) { return ggml_v_expf(a); }

#endif

static inline void lampe_simd_sum4(float * x, lampe_simd a, lampe_simd b, lampe_simd c, lampe_simd d) {
    vst1q_f32(x, vpaddq_f32(vpaddq_f32(a, b), vpaddq_f32(c, d)));
}

#else // plain C, for the compiler to vectorise

struct lampe_simd {
    float v[8];
};

static constexpr int LAMPE_REGISTERS = 16;

static constexpr int LAMPE_EPR    = 8;
static constexpr int LAMPE_RN     = 2;
static constexpr int LAMPE_RM     = 4;
static constexpr int LAMPE_DOT_RM = 2;

template <typename F>
static inline lampe_simd lampe_simd_map(F f) {
    lampe_simd r;
    for (int i = 0; i < LAMPE_EPR; ++i) {
        r.v[i] = f(i);
    }
    return r;
}

static inline lampe_simd lampe_simd_load(const float * x)           { return lampe_simd_map([=](int i) { return x[i]; }); }
static inline lampe_simd lampe_simd_set1(float x)                   { return lampe_simd_map([=](int  ) { return x; }); }
static inline lampe_simd lampe_simd_add(lampe_simd a, lampe_simd b) { return lampe_simd_map([&](int i) { return a.v[i] + b.v[i]; }); }
static inline lampe_simd lampe_simd_sub(lampe_simd a, lampe_simd b) { return lampe_simd_map([&](int i) { return a.v[i] - b.v[i]; }); }
static inline lampe_simd lampe_simd_mul(lampe_simd a, lampe_simd b) { return lampe_simd_map([&](int i) { return a.v[i] * b.v[i]; }); }
static inline lampe_simd lampe_simd_max(lampe_simd a, lampe_simd b) { return lampe_simd_map([&](int i) { return a.v[i] > b.v[i] ? a.v[i] : b.v[i]; }); }
static inline lampe_simd lampe_simd_exp(lampe_simd a)               { return lampe_simd_map([&](int i) { return expf(a.v[i]); }); }
static inline lampe_simd lampe_simd_load(const ggml_fp16_t * x)     { return lampe_simd_map([=](int i) { return GGML_CPU_FP16_TO_FP32(x[i]); }); }

static inline lampe_simd lampe_simd_even(lampe_simd a, lampe_simd b) {
    return lampe_simd_map([&](int i) { return i < LAMPE_EPR/2 ? a.v[2*i] : b.v[2*i - LAMPE_EPR]; });
}

static inline lampe_simd lampe_simd_odd(lampe_simd a, lampe_simd b) {
    return lampe_simd_map([&](int i) { return i < LAMPE_EPR/2 ? a.v[2*i + 1] : b.v[2*i + 1 - LAMPE_EPR]; });
}

static inline lampe_simd lampe_simd_fma(lampe_simd a, lampe_simd b, lampe_simd c) {
    return lampe_simd_map([&](int i) { return a.v[i]*b.v[i] + c.v[i]; });
}

static inline float lampe_simd_sum(lampe_simd a) {
    float s = 0.0f;
    for (int i = 0; i < LAMPE_EPR; ++i) {
        s += a.v[i];
    }
    return s;
}

static inline float lampe_simd_top(lampe_simd a) {
    return *std::max_element(a.v, a.v + LAMPE_EPR);
}

static inline void lampe_simd_store(float * x, lampe_simd a) {
    std::copy(a.v, a.v + LAMPE_EPR, x);
}

static inline void lampe_simd_sum4(float * x, lampe_simd a, lampe_simd b, lampe_simd c, lampe_simd d) {
    x[0] = lampe_simd_sum(a);
    x[1] = lampe_simd_sum(b);
    x[2] = lampe_simd_sum(c);
    x[3] = lampe_simd_sum(d);
}

#endif

// LAMPE_EPR pairs: x gets the first of each, y the second
template <typename T>
static inline void lampe_simd_load_pairs(const T * src, lampe_simd * x, lampe_simd * y) {
    const lampe_simd a = lampe_simd_load(src);
    const lampe_simd b = lampe_simd_load(src + LAMPE_EPR);

    *x = lampe_simd_even(a, b);
    *y = lampe_simd_odd (a, b);
}

#if defined(__AVX512F__) && defined(__AVX512DQ__) && defined(__AVX512BW__)
// one permutation before the conversion is cheaper than two after it
static inline void lampe_simd_load_pairs(const ggml_fp16_t * src, lampe_simd * x, lampe_simd * y) {
    const __m512i order = _mm512_set_epi16(
        31, 29, 27, 25, 23, 21, 19, 17, 15, 13, 11, 9, 7, 5, 3, 1,
        30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
    const __m512i xy = _mm512_permutexvar_epi16(order, _mm512_loadu_si512(src));

    *x = _mm512_cvtph_ps(_mm512_castsi512_si256(xy));
    *y = _mm512_cvtph_ps(_mm512_extracti64x4_epi64(xy, 1));
}
#endif
