#pragma once

// vectors of integers for LaMPE attention, with VNNI only: it multiplies pairs of 16 bits twice as fast as floats, where a
// multiply-add of pairs and an addition are no faster than floats
//
// a lane is one integer of 32 bits, or a pair of 16

#include "lampe-attn-simd-f32.h"

#include <cstdint>

#if defined(__AVX512F__) && defined(__AVX512DQ__) && defined(__AVX512BW__) && defined(__AVX512VNNI__)

#define LAMPE_I16

typedef __m512i lampe_simd_int;

static constexpr int LAMPE_I16_RM = 4; // the matrix product keeps LAMPE_I16_RM*LAMPE_RN sums in registers

static inline lampe_simd_int lampe_simd_int_zero()                                   { return _mm512_setzero_si512(); }
static inline lampe_simd_int lampe_simd_int_load(const int32_t * x)                  { return _mm512_loadu_si512(x); }
static inline lampe_simd_int lampe_simd_int_set1(int32_t x)                          { return _mm512_set1_epi32(x); }
static inline lampe_simd_int lampe_simd_int_round(lampe_simd x)                      { return _mm512_cvtps_epi32(x); }
static inline lampe_simd     lampe_simd_int_to_float(lampe_simd_int x)               { return _mm512_cvtepi32_ps(x); }
static inline lampe_simd_int lampe_simd_int_madd(lampe_simd_int a, lampe_simd_int b) { return _mm512_madd_epi16(a, b); }
static inline void           lampe_simd_int_store(int32_t * x, lampe_simd_int a)     { _mm512_storeu_si512(x, a); }
static inline void           lampe_simd_int_store_i16(int16_t * x, lampe_simd_int a) { _mm256_storeu_si256((__m256i *) x, _mm512_cvtepi32_epi16(a)); }

static inline lampe_simd_int lampe_simd_int_pair(lampe_simd_int lo, lampe_simd_int hi) {
    return _mm512_mask_blend_epi16(0xAAAAAAAA, lo, _mm512_slli_epi32(hi, 16));
}

// acc + a.b, the products of both halves of each lane
static inline lampe_simd_int lampe_simd_int_dot_pairs(lampe_simd_int acc, lampe_simd_int a, lampe_simd_int b) {
#if defined(__GNUC__) && !defined(__clang__)
    // GCC 12 copies every accumulator for the intrinsic, and runs out of registers
    __asm__("vpdpwssd %2, %1, %0" : "+v"(acc) : "v"(a), "v"(b));
    return acc;
#else
    return _mm512_dpwssd_epi32(acc, a, b);
#endif
}

static inline lampe_simd lampe_simd_abs (lampe_simd a)               { return _mm512_abs_ps(a); }
static inline lampe_simd lampe_simd_sqrt(lampe_simd a)               { return _mm512_sqrt_ps(a); }
static inline lampe_simd lampe_simd_min (lampe_simd a, lampe_simd b) { return _mm512_min_ps(a, b); }
static inline lampe_simd lampe_simd_div (lampe_simd a, lampe_simd b) { return _mm512_div_ps(a, b); }

static inline lampe_simd lampe_simd_round(lampe_simd a) {
    return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

// a*2^n for a in [1/2, 2] and whole n in [-150, 0], 0 where n is below -125: a subnormal result may take processors a
// hundred times as long, and every key that a query may not see has one
static inline lampe_simd lampe_simd_ldexp(lampe_simd a, lampe_simd n) {
    return _mm512_maskz_scalef_ps(_mm512_cmp_ps_mask(n, _mm512_set1_ps(-125.0f), _CMP_NLT_UQ), a, n);
}

// the largest of each of four vectors
static inline void lampe_simd_top4(float * x, lampe_simd a, lampe_simd b, lampe_simd c, lampe_simd d) {
    const __m512 ab   = _mm512_max_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
    const __m512 cd   = _mm512_max_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
    const __m512 abcd = _mm512_max_ps(_mm512_shuffle_ps(ab, cd, 0x44), _mm512_shuffle_ps(ab, cd, 0xEE));
    const __m256 s    = _mm256_max_ps(_mm512_castps512_ps256(abcd), _mm512_extractf32x8_ps(abcd, 1));
    _mm_storeu_ps(x, _mm_max_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1)));
}

#elif defined(__AVX512F__) && defined(__AVX512DQ__)

// AVX-512 without its VNNI multiplies floats: the VNNI of AVX2 has vectors of another width

#elif defined(__AVX2__) && defined(__FMA__) && defined(__AVXVNNI__)

#define LAMPE_I16

typedef __m256i lampe_simd_int;

static constexpr int LAMPE_I16_RM = 6; // of 16 registers, 12 are sums, 2 are B and 1 is A

static inline lampe_simd_int lampe_simd_int_zero()                                   { return _mm256_setzero_si256(); }
static inline lampe_simd_int lampe_simd_int_load(const int32_t * x)                  { return _mm256_loadu_si256((const __m256i *) x); }
static inline lampe_simd_int lampe_simd_int_set1(int32_t x)                          { return _mm256_set1_epi32(x); }
static inline lampe_simd_int lampe_simd_int_round(lampe_simd x)                      { return _mm256_cvtps_epi32(x); }
static inline lampe_simd     lampe_simd_int_to_float(lampe_simd_int x)               { return _mm256_cvtepi32_ps(x); }
static inline lampe_simd_int lampe_simd_int_madd(lampe_simd_int a, lampe_simd_int b) { return _mm256_madd_epi16(a, b); }
static inline void           lampe_simd_int_store(int32_t * x, lampe_simd_int a)     { _mm256_storeu_si256((__m256i *) x, a); }

static inline void lampe_simd_int_store_i16(int16_t * x, lampe_simd_int a) {
    _mm_storeu_si128((__m128i *) x, _mm_packs_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1)));
}

static inline lampe_simd_int lampe_simd_int_pair(lampe_simd_int lo, lampe_simd_int hi) {
    return _mm256_blend_epi16(lo, _mm256_slli_epi32(hi, 16), 0xAA);
}

static inline lampe_simd_int lampe_simd_int_dot_pairs(lampe_simd_int acc, lampe_simd_int a, lampe_simd_int b) {
#if defined(__GNUC__) && !defined(__clang__)
    __asm__("%{vex%} vpdpwssd %2, %1, %0" : "+x"(acc) : "x"(a), "x"(b)); // as above
    return acc;
#else
    return _mm256_dpwssd_avx_epi32(acc, a, b);
#endif
}

static inline lampe_simd lampe_simd_abs (lampe_simd a)               { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
static inline lampe_simd lampe_simd_sqrt(lampe_simd a)               { return _mm256_sqrt_ps(a); }
static inline lampe_simd lampe_simd_min (lampe_simd a, lampe_simd b) { return _mm256_min_ps(a, b); }
static inline lampe_simd lampe_simd_div (lampe_simd a, lampe_simd b) { return _mm256_div_ps(a, b); }

static inline lampe_simd lampe_simd_round(lampe_simd a) {
    return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

// as above
static inline lampe_simd lampe_simd_ldexp(lampe_simd a, lampe_simd n) {
    const __m256i e = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
    const __m256  x = _mm256_mul_ps(a, _mm256_castsi256_ps(e));
    return _mm256_andnot_ps(_mm256_cmp_ps(n, _mm256_set1_ps(-125.0f), _CMP_LT_OQ), x);
}

static inline void lampe_simd_top4(float * x, lampe_simd a, lampe_simd b, lampe_simd c, lampe_simd d) {
    const __m256 ab   = _mm256_max_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
    const __m256 cd   = _mm256_max_ps(_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
    const __m256 abcd = _mm256_max_ps(_mm256_shuffle_ps(ab, cd, 0x44), _mm256_shuffle_ps(ab, cd, 0xEE));
    _mm_storeu_ps(x, _mm_max_ps(_mm256_castps256_ps128(abcd), _mm256_extractf128_ps(abcd, 1)));
}

#endif
