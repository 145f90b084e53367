// Half precision and bfloat16 as CUDA has them, rounded to nearest even.
// ggml-common.h includes this file by its name.
#pragma once

#include "vector_types.h"

#include "ggml.h"
#include "ggml-impl.h"

#include <cmath>

// both types are 16 bits that convert to float and back
#define CUDA_EMULATION_SHORT_FLOAT(name, to_float, from_float)                                          \
    struct alignas(2) name {                                                                            \
        uint16_t bits;                                                                                  \
                                                                                                        \
        name() = default;                                                                               \
        name(float  x) : bits(from_float(x)) {}                                                         \
        name(double x) : bits(from_float((float) x)) {}                                                 \
        name(int    x) : bits(from_float((float) x)) {}                                                 \
        operator float() const { return to_float(bits); }                                               \
    };                                                                                                  \
    static inline name operator+(name a, name b) { return name((float) a + (float) b); }                \
    static inline name operator-(name a, name b) { return name((float) a - (float) b); }                \
    static inline name operator*(name a, name b) { return name((float) a * (float) b); }                \
    static inline name operator/(name a, name b) { return name((float) a / (float) b); }                \
    static inline name operator-(name a) { a.bits ^= 0x8000; return a; }                                \
    static inline name & operator+=(name & a, name b) { return a = a + b; }                             \
    static inline name & operator-=(name & a, name b) { return a = a - b; }                             \
    static inline name & operator*=(name & a, name b) { return a = a * b; }                             \
    static inline bool operator==(name a, name b) { return (float) a == (float) b; }                    \
    static inline bool operator!=(name a, name b) { return (float) a != (float) b; }                    \
    static inline bool operator< (name a, name b) { return (float) a <  (float) b; }                    \
    static inline bool operator> (name a, name b) { return (float) a >  (float) b; }                    \
    static inline bool operator<=(name a, name b) { return (float) a <= (float) b; }                    \
    static inline bool operator>=(name a, name b) { return (float) a >= (float) b; }

#define CUDA_EMULATION_PAIR(name, T)                                                                    \
    struct alignas(4) name {                                                                            \
        T x, y;                                                                                         \
                                                                                                        \
        name() = default;                                                                               \
        name(T x, T y) : x(x), y(y) {}                                                                  \
    };                                                                                                  \
    static inline name operator+(name a, name b) { return { a.x + b.x, a.y + b.y }; }                   \
    static inline name operator-(name a, name b) { return { a.x - b.x, a.y - b.y }; }                   \
    static inline name operator*(name a, name b) { return { a.x * b.x, a.y * b.y }; }                   \
    static inline name & operator+=(name & a, name b) { return a = a + b; }                             \
    static inline name & operator*=(name & a, name b) { return a = a * b; }                             \
    static inline name  __hadd2(name a, name b) { return a + b; }                                       \
    static inline name  __hsub2(name a, name b) { return a - b; }                                       \
    static inline name  __hmul2(name a, name b) { return a * b; }                                       \
    static inline name  __hfma2(name a, name b, name c) { return { __hfma(a.x, b.x, c.x), __hfma(a.y, b.y, c.y) }; } \
    static inline name  __hmax2(name a, name b) { return { __hmax(a.x, b.x), __hmax(a.y, b.y) }; }      \
    static inline float __low2float (name a) { return a.x; }                                            \
    static inline float __high2float(name a) { return a.y; }

// A float has so many digits that + - * / in it, rounded again, give what one rounding would; fma may be off by one in the
// last place, as it is rounded twice.
#define CUDA_EMULATION_SCALAR_FUNCTIONS(T)                                                              \
    static inline T __hadd(T a, T b) { return a + b; }                                                  \
    static inline T __hsub(T a, T b) { return a - b; }                                                  \
    static inline T __hmul(T a, T b) { return a * b; }                                                  \
    static inline T __hneg(T a)      { return -a; }                                                     \
    static inline T __hfma(T a, T b, T c) { return T(fmaf(a, b, c)); }                                  \
    static inline T __hmax(T a, T b) { return T(fmaxf(a, b)); }                                         \
    static inline T __hmin(T a, T b) { return T(fminf(a, b)); }

static inline float    cuda_emulation_bf16_to_fp32(uint16_t bits) { return ggml_compute_bf16_to_fp32({ bits }); }
static inline uint16_t cuda_emulation_fp32_to_bf16(float x)       { return ggml_compute_fp32_to_bf16(x).bits; }

CUDA_EMULATION_SHORT_FLOAT(half,        ggml_compute_fp16_to_fp32,   ggml_compute_fp32_to_fp16)
CUDA_EMULATION_SHORT_FLOAT(nv_bfloat16, cuda_emulation_bf16_to_fp32, cuda_emulation_fp32_to_bf16)
CUDA_EMULATION_SCALAR_FUNCTIONS(half)
CUDA_EMULATION_SCALAR_FUNCTIONS(nv_bfloat16)
CUDA_EMULATION_PAIR(half2,        half)
CUDA_EMULATION_PAIR(nv_bfloat162, nv_bfloat16)

#undef CUDA_EMULATION_SHORT_FLOAT
#undef CUDA_EMULATION_SCALAR_FUNCTIONS
#undef CUDA_EMULATION_PAIR

typedef half          __half;
typedef half2         __half2;
typedef nv_bfloat16   __nv_bfloat16;
typedef nv_bfloat162  __nv_bfloat162;

static inline half   __float2half      (float x) { return half(x); }
static inline half   __float2half_rn   (float x) { return half(x); }
static inline float  __half2float      (half  x) { return x; }
static inline half2  __floats2half2_rn (float x, float y) { return { half(x), half(y) }; }
static inline half2  __float2half2_rn  (float x) { return { half(x), half(x) }; }
static inline half2  __float22half2_rn (float2 v) { return { half(v.x), half(v.y) }; }
static inline float2 __half22float2    (half2 v) { return { (float) v.x, (float) v.y }; }
static inline half2  make_half2        (half x, half y) { return { x, y }; }
static inline half2  __halves2half2    (half x, half y) { return { x, y }; }
static inline half2  __half2half2      (half x) { return { x, x }; }
static inline half   __low2half        (half2 v) { return v.x; }
static inline half   __high2half       (half2 v) { return v.y; }
static inline half2  __low2half2       (half2 v) { return { v.x, v.x }; }
static inline half2  __high2half2      (half2 v) { return { v.y, v.y }; }
static inline half2  __lows2half2      (half2 a, half2 b) { return { a.x, b.x }; }
static inline half2  __highs2half2     (half2 a, half2 b) { return { a.y, b.y }; }
static inline half2  __lowhigh2highlow (half2 v) { return { v.y, v.x }; }
static inline bool   __hisnan          (half  x) { return std::isnan((float) x); }

static inline nv_bfloat16  __float2bfloat16      (float x) { return nv_bfloat16(x); }
static inline nv_bfloat16  __float2bfloat16_rn   (float x) { return nv_bfloat16(x); }
static inline float        __bfloat162float      (nv_bfloat16 x) { return x; }
static inline nv_bfloat162 __floats2bfloat162_rn (float x, float y) { return { nv_bfloat16(x), nv_bfloat16(y) }; }
static inline float2       __bfloat1622float2    (nv_bfloat162 v) { return { (float) v.x, (float) v.y }; }
static inline nv_bfloat162 make_bfloat162        (nv_bfloat16 x, nv_bfloat16 y) { return { x, y }; }
