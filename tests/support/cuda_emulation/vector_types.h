// CUDA's vector types, with its alignments: a cast to one of them that is not aligned is then found by UBSan.
#pragma once

#include <cstdint>

#define CUDA_EMULATION_VECTOR(T, name, align2, align4)                                  \
    struct alignas(align2) name##2 { T x, y; };                                         \
    struct                 name##3 { T x, y, z; };                                      \
    struct alignas(align4) name##4 { T x, y, z, w; };                                   \
    static inline name##2 make_##name##2(T x, T y)           { return { x, y }; }       \
    static inline name##3 make_##name##3(T x, T y, T z)      { return { x, y, z }; }    \
    static inline name##4 make_##name##4(T x, T y, T z, T w) { return { x, y, z, w }; }

CUDA_EMULATION_VECTOR(signed char,    char,    2,  4)
CUDA_EMULATION_VECTOR(unsigned char,  uchar,   2,  4)
CUDA_EMULATION_VECTOR(short,          short,   4,  8)
CUDA_EMULATION_VECTOR(unsigned short, ushort,  4,  8)
CUDA_EMULATION_VECTOR(int,            int,     8, 16)
CUDA_EMULATION_VECTOR(unsigned int,   uint,    8, 16)
CUDA_EMULATION_VECTOR(float,          float,   8, 16)
CUDA_EMULATION_VECTOR(double,         double, 16, 16)

#undef CUDA_EMULATION_VECTOR

struct dim3 {
    unsigned int x, y, z;

    constexpr dim3(unsigned int x = 1, unsigned int y = 1, unsigned int z = 1) : x(x), y(y), z(z) {}
    constexpr dim3(uint3 v) : x(v.x), y(v.y), z(v.z) {}
};
