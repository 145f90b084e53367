// What the lanes of a warp do together: shuffles, votes, ldmatrix and mma, by the tables of PTX's manual.

#include "block.h"
#include "mma.cuh"

namespace cuda_emulation {

struct shuffle_request {
    uint64_t     value;
    shuffle_mode mode;
    int          operand;
    int          width;
    uint64_t     result;
};

static void do_shuffle(void * const * given, uint32_t mask) {
    for (int lane = 0; lane < 32; ++lane) {
        if (!(mask >> lane & 1)) {
            continue;
        }
        shuffle_request & r = *(shuffle_request *) given[lane];

        const int begin = lane & ~(r.width - 1);
        const int end   = begin + r.width;

        int src = lane;
        switch (r.mode) {
            case SHUFFLE_INDEX:
                src = begin + (r.operand & (r.width - 1));
                break;
            case SHUFFLE_XOR: // may reach groups before its own
                src = (lane ^ r.operand) < end ? lane ^ r.operand : lane;
                break;
            case SHUFFLE_DOWN:
                src = lane + r.operand < end ? lane + r.operand : lane;
                break;
            case SHUFFLE_UP:
                src = lane - r.operand >= begin ? lane - r.operand : lane;
                break;
        }
        if (src < 0 || src > 31 || !(mask >> src & 1)) {
            fail("%s: lane %d gets a value of lane %d, which takes no part (mask 0x%08x)", here().c_str(), lane, src, mask);
        }
        r.result = ((const shuffle_request *) given[src])->value;
    }
}

uint64_t shuffle(const char * what, call_site at, uint32_t mask, uint64_t value, shuffle_mode mode, int operand, int width) {
    if (width < 1 || width > 32 || (width & (width - 1)) != 0) {
        fail("%s: %s with width %d", here().c_str(), what, width);
    }
    shuffle_request r = { value, mode, operand, width, 0 };
    warp_meet(what, at, mask, &r, do_shuffle);
    return r.result;
}

struct ballot_request {
    bool     value;
    uint32_t result;
};

static void do_ballot(void * const * given, uint32_t mask) {
    uint32_t result = 0;
    for (int lane = 0; lane < 32; ++lane) {
        if (mask >> lane & 1) {
            result |= (uint32_t) ((const ballot_request *) given[lane])->value << lane;
        }
    }
    for (int lane = 0; lane < 32; ++lane) {
        if (mask >> lane & 1) {
            ((ballot_request *) given[lane])->result = result;
        }
    }
}

uint32_t ballot(const char * what, call_site at, uint32_t mask, bool value) {
    ballot_request r = { value, 0 };
    warp_meet(what, at, mask, &r, do_ballot);
    return r.result;
}

struct matrices_request {
    const void       * row;
    int                n;
    bool               trans;
    uint32_t * const * regs;
};

static void need_whole_warp(const char * what, uint32_t mask) {
    if (mask != 0xFFFFFFFF) {
        fail("%s: %s by a warp that is not whole", here().c_str(), what);
    }
}

static void do_load_matrices(void * const * given, uint32_t mask) {
    need_whole_warp("ldmatrix", mask);

    const matrices_request & any = *(const matrices_request *) given[0];

    for (int m = 0; m < any.n; ++m) {
        uint16_t x[8][8];
        for (int i = 0; i < 8; ++i) {
            const void * row = ((const matrices_request *) given[8*m + i])->row;
            check_shared_16("ldmatrix", row);
            memcpy(x[i], row, 16);
        }
        for (int lane = 0; lane < 32; ++lane) {
            // a row is shared by four lanes, two elements each
            const int i = lane/4;
            const int j = lane%4*2;

            const uint32_t lo = any.trans ? x[j + 0][i] : x[i][j + 0];
            const uint32_t hi = any.trans ? x[j + 1][i] : x[i][j + 1];

            *((const matrices_request *) given[lane])->regs[m] = lo | hi << 16;
        }
    }
}

void load_matrices(call_site at, const void * row, int n, bool trans, uint32_t * const * regs) {
    matrices_request r = { row, n, trans, regs };
    warp_meet(trans ? "ldmatrix.trans" : n == 2 ? "ldmatrix.x2" : "ldmatrix.x4", at, 0xFFFFFFFF, &r, do_load_matrices);
}

struct mma_request {
    float                  * d;
    const uint32_t         * a;
    const uint32_t * const * b;
    int                      n_b;
};

static const struct half_values {
    float of[1 << 16];

    half_values() {
        for (int i = 0; i < 1 << 16; ++i) {
            of[i] = ggml_compute_fp16_to_fp32((ggml_fp16_t) i);
        }
    }
} halves;

static float half_value(uint32_t bits) {
    return halves.of[bits & 0xFFFF];
}

static void do_mma(void * const * given, uint32_t mask) {
    need_whole_warp("mma", mask);

    const int n_b = ((const mma_request *) given[0])->n_b;

    // A: the registers of a lane are, from the first: above left, below left, above right, below right
    float a[16][16];
    for (int lane = 0; lane < 32; ++lane) {
        const uint32_t * regs = ((const mma_request *) given[lane])->a;
        for (int l = 0; l < 4; ++l) {
            const int i = lane/4 + 8*(l%2);
            const int k = lane%4*2 + 8*(l/2);
            a[i][k + 0] = half_value(regs[l]);
            a[i][k + 1] = half_value(regs[l] >> 16);
        }
    }

    for (int ib = 0; ib < n_b; ++ib) {
        // B: above, below; a register holds two elements of a column
        float b[16][8];
        for (int lane = 0; lane < 32; ++lane) {
            const uint32_t * const * regs = ((const mma_request *) given[lane])->b + 2*ib;
            for (int l = 0; l < 2; ++l) {
                const int k = lane%4*2 + 8*l;
                const int j = lane/4;
                b[k + 0][j] = half_value(*regs[l]);
                b[k + 1][j] = half_value(*regs[l] >> 16);
            }
        }

        // D: two neighbours above, two below
        float d[16][8];
        for (int lane = 0; lane < 32; ++lane) {
            const float * regs = ((const mma_request *) given[lane])->d + 4*ib;
            for (int l = 0; l < 4; ++l) {
                d[lane/4 + 8*(l/2)][lane%4*2 + l%2] = regs[l];
            }
        }

        for (int i = 0; i < 16; ++i) {
            for (int k = 0; k < 16; ++k) {
                for (int j = 0; j < 8; ++j) {
                    d[i][j] += a[i][k]*b[k][j];
                }
            }
        }

        for (int lane = 0; lane < 32; ++lane) {
            float * regs = ((const mma_request *) given[lane])->d + 4*ib;
            for (int l = 0; l < 4; ++l) {
                regs[l] = d[lane/4 + 8*(l/2)][lane%4*2 + l%2];
            }
        }
    }
}

void mma_16816(call_site at, float * d, const uint32_t * a, const uint32_t * const * b, int n_b) {
    mma_request r = { d, a, b, n_b };
    warp_meet(n_b == 1 ? "mma 16x8" : "mma 16x16", at, 0xFFFFFFFF, &r, do_mma);
}

}
