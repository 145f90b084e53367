// Stands in for ggml-cuda/mma.cuh: tiles in the layout of NVIDIA cards from Ampere on, ldmatrix and mma.
//
// A register of a lane is 32 bits: one float, or two halves that follow one another in a row. What ldmatrix and mma do to the
// registers of a warp is in tensor.cpp, by PTX's tables of fragments; the tiles only name registers.
#pragma once

#include "common.cuh"

namespace cuda_emulation {
    // n matrices of 8 rows of 16 bytes; the lanes 8*m to 8*m + 7 give the addresses of the rows of matrix m
    void load_matrices(call_site at, const void * row, int n, bool trans, uint32_t * const * regs);

    // D += A*B, for n_b matrices B that share A: m16n8k16, f16 to f32
    void mma_16816(call_site at, float * d, const uint32_t * a, const uint32_t * const * b, int n_b);
}

namespace ggml_cuda_mma {
    enum data_layout {
        DATA_LAYOUT_I_MAJOR = 0,
    };

    static constexpr data_layout get_input_data_layout() {
        return DATA_LAYOUT_I_MAJOR;
    }

    // lane of the warp as the original has it: in blocks with threadIdx.x below 32
    template <int I_, int J_, typename T, data_layout dl_ = DATA_LAYOUT_I_MAJOR>
    struct tile {
        static constexpr int         I  = I_;
        static constexpr int         J  = J_;
        static constexpr data_layout dl = dl_;
        static constexpr int         ne = I*J/WARP_SIZE;

        static constexpr bool is_pair = std::is_same_v<T, half2>;

        static_assert(sizeof(T) == 4, "elements have 32 bits");
        static_assert(is_pair || std::is_same_v<T, float> || std::is_same_v<T, int>, "no such tile");

        T x[ne] = {};

        static constexpr bool supported() {
            return (I == 8 && J == 4) || (I == 8 && J == 8) || (I == 16 && (J == 8 || J == 16)) || (is_pair && I == 16 && J == 4);
        }

        static int get_i(const int l) {
            static_assert(supported(), "no such tile");
            const int group = threadIdx.x/4;

            if constexpr (I == 8) {
                return group;
            } else if constexpr (is_pair) { // registers alternate between the upper and the lower half
                static_assert(J != 16, "no such tile");
                return group + 8*(l % 2);
            } else {
                return group + 8*((l/2) % 2);
            }
        }

        static int get_j(const int l) {
            static_assert(supported(), "no such tile");
            const int in_group = threadIdx.x % 4;

            if constexpr (I == 8) {
                return in_group + 4*l;
            } else if constexpr (is_pair) {
                return in_group + 4*(l/2);
            } else {
                return 2*in_group + l % 2 + 8*(l/4);
            }
        }
    };

    template <int I, int J>
    static inline tile<I, J/2, half2> get_half2(const tile<I, J, float> & t) {
        tile<I, J/2, half2> res;
        for (int l = 0; l < res.ne; ++l) {
            res.x[l] = make_half2(t.x[2*l], t.x[2*l + 1]);
        }
        return res;
    }

    template <int I, int J, typename T>
    static inline void load_generic(tile<I, J, T> & t, const T * xs0, const int stride) {
        for (int l = 0; l < t.ne; ++l) {
            t.x[l] = xs0[t.get_i(l)*stride + t.get_j(l)];
        }
    }

    // where a lane's row begins: the rows of a matrix first, then the matrices below it, then those beside it
    template <typename T>
    static inline void load_ldmatrix(tile<8, 8, T> & t, const T * xs0, const int stride, CALL_SITE) {
        uint32_t * x = (uint32_t *) t.x;
        uint32_t * const regs[] = { x + 0, x + 1 };
        cuda_emulation::load_matrices(HERE, xs0 + threadIdx.x % 8*stride + 4*(threadIdx.x/8 % 2), 2, false, regs);
    }

    template <typename T>
    static inline void load_ldmatrix(tile<16, 4, T> & t, const T * xs0, const int stride, CALL_SITE) {
        uint32_t * x = (uint32_t *) t.x;
        uint32_t * const regs[] = { x + 0, x + 1 };
        cuda_emulation::load_matrices(HERE, xs0 + threadIdx.x % 16*stride, 2, false, regs);
    }

    template <typename T>
    static inline void load_ldmatrix(tile<16, 8, T> & t, const T * xs0, const int stride, CALL_SITE) {
        uint32_t * x = (uint32_t *) t.x;
        uint32_t * const regs[] = { x + 0, x + 1, x + 2, x + 3 };
        cuda_emulation::load_matrices(HERE, xs0 + threadIdx.x % 16*stride + 4*(threadIdx.x/16), 4, false, regs);
    }

    // the matrices change places, too: the second is what lies beside the first
    template <typename T>
    static inline void load_ldmatrix_trans(tile<16, 8, T> & t, const T * xs0, const int stride, CALL_SITE) {
        uint32_t * x = (uint32_t *) t.x;
        uint32_t * const regs[] = { x + 0, x + 2, x + 1, x + 3 };
        cuda_emulation::load_matrices(HERE, xs0 + threadIdx.x % 16*stride + 4*(threadIdx.x/16), 4, true, regs);
    }

    static inline void mma(tile<16, 8, float> & D, const tile<16, 8, half2> & A, const tile<8, 8, half2> & B, CALL_SITE) {
        const uint32_t * b = (const uint32_t *) B.x;
        const uint32_t * const regs[] = { b + 0, b + 1 };
        cuda_emulation::mma_16816(HERE, D.x, (const uint32_t *) A.x, regs, 1);
    }

    // two instructions: rows 0 to 7 of B give the left half of D, rows 8 to 15 the right
    static inline void mma(tile<16, 16, float> & D, const tile<16, 8, half2> & A, const tile<16, 8, half2> & B, CALL_SITE) {
        const uint32_t * b = (const uint32_t *) B.x;
        const uint32_t * const regs[] = { b + 0, b + 2, b + 1, b + 3 };
        cuda_emulation::mma_16816(HERE, D.x, (const uint32_t *) A.x, regs, 2);
    }
}
