#pragma once

#include "lampe-attn-common.cuh"

// the steps of lampe_attn_mma: a block of rows against a tile of keys, on tensor cores

static constexpr int LAMPE_MMA_WARPS   = 4;
static constexpr int LAMPE_MMA_THREADS = LAMPE_MMA_WARPS*WARP_SIZE;

// blocks on a multiprocessor: as many as it has registers for, since one computes while another waits
template <int d, int n_mt>
static constexpr __host__ __device__ int lampe_mma_blocks() {
    return d > 128 || n_mt > 1 ? 2 : d > 64 ? 3 : 4;
}

// a pass over a tile computes the scores of one bit of LAMPE_TILE_SCORES; these bits are of the middle
static constexpr uint32_t LAMPE_TILE_MIDDLE = LAMPE_TILE_SCORES & ~(LAMPE_TILE_LOCAL | LAMPE_TILE_TAIL);

template <int d>
static constexpr __host__ __device__ int lampe_tile_kv() {
    return d <= 128 ? 64 : 32;
}

// halves from one row to the next in shared memory, so that the 8 rows of a matrix lie in different banks
template <int d>
static constexpr __host__ __device__ int lampe_row_stride() {
    return d + 8;
}

// n_mt: matrices of 16 rows that a warp has
template <int n_mt>
static constexpr __host__ __device__ int lampe_block_rows() {
    return LAMPE_MMA_WARPS*n_mt*16;
}

template <int d, int n_mt>
static constexpr __host__ __device__ size_t lampe_mma_shared_size() {
    return (lampe_block_rows<n_mt>() + 3*lampe_tile_kv<d>())*lampe_row_stride<d>()*sizeof(half) +
        lampe_block_rows<n_mt>()*sizeof(lampe_query);
}

static __device__ __forceinline__ int lampe_pass_region(const uint32_t pass) {
    return pass == LAMPE_TILE_LOCAL ? LAMPE_REGION_LOCAL : pass == LAMPE_TILE_TAIL ? LAMPE_REGION_TAIL : LAMPE_REGION_MIDDLE;
}

// the next of the passes that are left, if possible one that needs no other queries in shared memory
static __device__ __forceinline__ uint32_t lampe_next_pass(const uint32_t passes, const int q_region) {
    const uint32_t same = passes &
        (q_region == LAMPE_REGION_LOCAL ? LAMPE_TILE_LOCAL : q_region == LAMPE_REGION_TAIL ? LAMPE_TILE_TAIL : LAMPE_TILE_MIDDLE);
    const uint32_t some = same ? same : passes;

    return some & (0u - some);
}

// one pass over one tile
struct lampe_step {
    int      i_tile;
    uint32_t flags;
    uint32_t left; // passes over the tile that are to come
    uint32_t pass;
    int      i_q;  // LAMPE_TILE_OTHER: the first query that has the variant
    int      num;  // LAMPE_TILE_OTHER: the variant
    int      den;

    // whether some pairs belong to another pass
    __device__ __forceinline__ bool mixed() const {
        return (flags & LAMPE_TILE_SCORES) != pass || pass == LAMPE_TILE_OTHER;
    }
};

// start to copy rows of d halves to shared memory; check: rows from n_valid on become zero
template <int d, int n_row, bool check>
static __device__ __forceinline__ void lampe_load_rows(
        half * s, const char * src, const int64_t src_stride, const int n_valid, const int tid) {
    constexpr int n_chunk  = d/8; // copies of 16 bytes that make a row
    constexpr int n_row_it = d == 96 ? 8 : LAMPE_MMA_THREADS/n_chunk; // rows that the threads copy at a time

    static_assert(n_row % n_row_it == 0, "rows are left over");

    const int row_t = tid/n_chunk;
    const int col   = tid%n_chunk;

    if (row_t >= n_row_it) {
        return;
    }

    s   += row_t*lampe_row_stride<d>() + 8*col;
    src += row_t*src_stride + 16*col;

#pragma unroll
    for (int row = 0; row < n_row; row += n_row_it) {
        if (check && row + row_t >= n_valid) {
            *(int4 *) s = make_int4(0, 0, 0, 0);
        } else {
            cp_async_cg_16<128>(ggml_cuda_cvta_generic_to_shared(s), src);
        }
        s   += n_row_it*lampe_row_stride<d>();
        src += n_row_it*src_stride;
    }
}

// the scores of all rows of a warp; q and k: the addresses that the thread points ldmatrix at
template <int d, int n_mt>
static __device__ __forceinline__ void lampe_mma_scores(
        lampe_tile_c (&scores)[n_mt][lampe_tile_kv<d>()/8], const uint32_t q, const uint32_t k) {
    constexpr int stride = lampe_row_stride<d>()*sizeof(half);

#pragma unroll
    for (int i = 0; i < d/16; ++i) {
        lampe_tile_a a[n_mt];
#pragma unroll
        for (int mt = 0; mt < n_mt; ++mt) {
            lampe_load_matrix_a(a[mt], q + mt*16*stride + i*32);
        }
#pragma unroll
        for (int nt = 0; nt < lampe_tile_kv<d>()/16; ++nt) {
            lampe_tile_b b[2];
            lampe_load_matrix_b(b, k + nt*16*stride + i*32);
#pragma unroll
            for (int mt = 0; mt < n_mt; ++mt) {
                ggml_cuda_mma::mma(scores[mt][2*nt + 0], a[mt], b[0]);
                ggml_cuda_mma::mma(scores[mt][2*nt + 1], a[mt], b[1]);
            }
        }
    }
}

// rotate the keys of a tile for a variant that lampe_rotate_keys() has left out
template <int d>
static __device__ __forceinline__ void lampe_rotate_tile(
        half * s_k, const lampe_args & args, const int i3, const int ikv, const lampe_step & step, const int tid) {
    const int    j0    = step.i_tile*lampe_tile_kv<d>();
    const int  * k_pos = lampe_k_pos(args, i3) + j0;
    const char * k     = args.k + ikv*args.k_nb2 + i3*args.k_nb3;

    for (int i = tid; i < lampe_tile_kv<d>()*(d/4); i += LAMPE_MMA_THREADS) {
        const int j = i/(d/4);

        const lampe_quad_place place = lampe_get_place(i%(d/4), args.n_rot, args.neox);

        lampe_quad x = { make_float2(0.0f, 0.0f), make_float2(0.0f, 0.0f) };
        if (j0 + j < args.n_kv && k_pos[j] >= 0) {
            x = lampe_rotate(lampe_load_quad(k + (int64_t) (j0 + j)*args.k_nb1, args.k_type, place),
                    lampe_rope_row(args, (int) ggml_lampe_middle(k_pos[j], step.num, step.den)), args.n_rot, args.neox, place);
        }
        lampe_store_quad(s_k + j*lampe_row_stride<d>(), x, place);
    }
}

template <int n_mt, int n_nt>
static __device__ __forceinline__ void lampe_mma_softcap(lampe_tile_c (&scores)[n_mt][n_nt], const float softcap) {
#pragma unroll
    for (int mt = 0; mt < n_mt; ++mt) {
#pragma unroll
        for (int nt = 0; nt < n_nt; ++nt) {
#pragma unroll
            for (int l = 0; l < lampe_tile_c::ne; ++l) {
                scores[mt][nt].x[l] = softcap*tanhf(scores[mt][nt].x[l]/softcap);
            }
        }
    }
}

// add the mask, and hide empty cells and the pairs of other passes
template <int d, int n_mt>
static __device__ __forceinline__ void lampe_mma_mask(
        lampe_tile_c (&scores)[n_mt][lampe_tile_kv<d>()/8], const lampe_args & args, const lampe_query * s_query,
        const int * k_pos, const int n_key, const int r0, const int i3, const int j0, const lampe_step & step) {
    const bool masked = step.flags & LAMPE_TILE_MASKED;
    const int  region = lampe_pass_region(step.pass);

#pragma unroll
    for (int mt = 0; mt < n_mt; ++mt) {
#pragma unroll
        for (int hi = 0; hi < 2; ++hi) {
            const int r = threadIdx.y*n_mt*16 + mt*16 + lampe_tile_c::get_i(2*hi);
            const int i = min((r0 + r)/args.n_gqa, args.n_q - 1);

            const lampe_query query = s_query[r];
            const half      * mask  = lampe_mask_row(args, i3, i) + j0;

            bool mine = true; // the row has the variant of this pass
            if (region == LAMPE_REGION_MIDDLE && step.pass != LAMPE_TILE_OTHER) {
                mine = query.variant < LAMPE_VARIANT_OTHER && LAMPE_TILE_VARIANT << query.variant == step.pass;
            } else if (region == LAMPE_REGION_MIDDLE) {
                const int * row = lampe_plan_row(args, i3, i);
                mine = query.variant == LAMPE_VARIANT_OTHER &&
                    row[GGML_LAMPE_PLAN_NUM] == step.num && row[GGML_LAMPE_PLAN_DEN] == step.den;
            }
#pragma unroll
            for (int nt = 0; nt < lampe_tile_kv<d>()/8; ++nt) {
#pragma unroll
                for (int l = 2*hi; l < 2*hi + 2; ++l) {
                    const int j = nt*8 + lampe_tile_c::get_j(l);

                    float & x = scores[mt][nt].x[l];

                    const int k = j < n_key ? k_pos[j] : -1;
                    if (k < 0 || (step.mixed() &&
                            !(mine && lampe_get_region(query.pos - k, query.local_window, query.tail_start) == region))) {
                        x = -INFINITY;
                    } else if (masked) {
                        x += __half2float(mask[j]);
                    }
                }
            }
        }
    }
}

// scores become weights relative to the new maximum, and so do the sums so far
template <int n_mt, int n_nt, int n_ot>
static __device__ __forceinline__ void lampe_mma_softmax(
        lampe_tile_c (&scores)[n_mt][n_nt], lampe_tile_c (&out)[n_mt][n_ot], float (&row_max)[n_mt][2], float (&row_sum)[n_mt][2]) {
#pragma unroll
    for (int mt = 0; mt < n_mt; ++mt) {
#pragma unroll
        for (int hi = 0; hi < 2; ++hi) {
            float max = row_max[mt][hi];
#pragma unroll
            for (int nt = 0; nt < n_nt; ++nt) {
                max = fmaxf(max, fmaxf(scores[mt][nt].x[2*hi], scores[mt][nt].x[2*hi + 1]));
            }
            // 4 threads share a row
            max = fmaxf(max, __shfl_xor_sync(0xFFFFFFFF, max, 1, WARP_SIZE));
            max = fmaxf(max, __shfl_xor_sync(0xFFFFFFFF, max, 2, WARP_SIZE));

            const float keep  = exp2f(LAMPE_LOG2E*(row_max[mt][hi] - max));
            const float shift = LAMPE_LOG2E*max;

            float sum = 0.0f;
#pragma unroll
            for (int nt = 0; nt < n_nt; ++nt) {
#pragma unroll
                for (int l = 2*hi; l < 2*hi + 2; ++l) {
                    scores[mt][nt].x[l] = exp2f(LAMPE_LOG2E*scores[mt][nt].x[l] - shift);
                    sum                += scores[mt][nt].x[l];
                }
            }

            row_max[mt][hi] = max;
            row_sum[mt][hi] = keep*row_sum[mt][hi] + sum;
#pragma unroll
            for (int ot = 0; ot < n_ot; ++ot) {
                out[mt][ot].x[2*hi + 0] *= keep;
                out[mt][ot].x[2*hi + 1] *= keep;
            }
        }
    }
}

// weights of 16 rows and 16 keys, as operand A of the product with the values
static __device__ __forceinline__ lampe_tile_a lampe_mma_weights(const lampe_tile_c & left, const lampe_tile_c & right) {
    lampe_tile_a a;
    a.x[0] = __floats2half2_rn(left.x[0],  left.x[1]);
    a.x[1] = __floats2half2_rn(left.x[2],  left.x[3]);
    a.x[2] = __floats2half2_rn(right.x[0], right.x[1]);
    a.x[3] = __floats2half2_rn(right.x[2], right.x[3]);

    return a;
}

template <int d, int n_mt>
static __device__ __forceinline__ void lampe_mma_output(
        lampe_tile_c (&out)[n_mt][d/8], const lampe_tile_c (&weights)[n_mt][lampe_tile_kv<d>()/8], const uint32_t v) {
    constexpr int stride = lampe_row_stride<d>()*sizeof(half);

#pragma unroll
    for (int nt = 0; nt < lampe_tile_kv<d>()/16; ++nt) {
        lampe_tile_a a[n_mt];
#pragma unroll
        for (int mt = 0; mt < n_mt; ++mt) {
            a[mt] = lampe_mma_weights(weights[mt][2*nt], weights[mt][2*nt + 1]);
        }
#pragma unroll
        for (int ot = 0; ot < d/16; ++ot) {
            lampe_tile_b b[2];
            lampe_load_matrix_b_trans(b, v + nt*16*stride + ot*32);
#pragma unroll
            for (int mt = 0; mt < n_mt; ++mt) {
                ggml_cuda_mma::mma(out[mt][2*ot + 0], a[mt], b[0]);
                ggml_cuda_mma::mma(out[mt][2*ot + 1], a[mt], b[1]);
            }
        }
    }
}

template <int d, int n_mt>
static __device__ __forceinline__ void lampe_mma_store(
        const lampe_args & args, const lampe_tile_c (&out)[n_mt][d/8], const float (&row_max)[n_mt][2], const float (&row_sum)[n_mt][2],
        const int r0, const int i3, const int ikv, const int i_split) {
#pragma unroll
    for (int mt = 0; mt < n_mt; ++mt) {
#pragma unroll
        for (int hi = 0; hi < 2; ++hi) {
            float sum = row_sum[mt][hi];
            sum += __shfl_xor_sync(0xFFFFFFFF, sum, 1, WARP_SIZE);
            sum += __shfl_xor_sync(0xFFFFFFFF, sum, 2, WARP_SIZE);

            const int r = r0 + threadIdx.y*n_mt*16 + mt*16 + lampe_tile_c::get_i(2*hi);
            const int i = r/args.n_gqa;
            const int h = ikv*args.n_gqa + r%args.n_gqa;

            if (i >= args.n_q) {
                continue;
            }

            const int64_t row = ((int64_t) i3*args.n_q + i)*args.n_head + h;

            float   factor = 1.0f;
            float * to     = args.dst + row*d;
            if (args.n_split == 1) {
                factor = lampe_row_factor(args.sinks, h, row_max[mt][hi], sum);
            } else {
                const int64_t row_split = (int64_t) i_split*args.n_stream*args.n_q*args.n_head + row;

                to = args.partial + row_split*d;
                if (threadIdx.x % 4 == 0) {
                    args.partial_sum[row_split] = make_float2(row_max[mt][hi], sum);
                }
            }
#pragma unroll
            for (int ot = 0; ot < d/8; ++ot) {
                *(float2 *) (to + ot*8 + lampe_tile_c::get_j(2*hi)) = make_float2(factor*out[mt][ot].x[2*hi], factor*out[mt][ot].x[2*hi + 1]);
            }
        }
    }
}
