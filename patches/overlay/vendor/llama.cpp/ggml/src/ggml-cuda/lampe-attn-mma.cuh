#pragma once

#include "lampe-attn-mma-tile.cuh"

// Attention of a batch on tensor cores: a block of rows, queries of all heads of a KV head, against the tiles of keys that it has
// been dealt. Queries and keys come rotated from lampe-attn-prepare.cuh. Most tiles lie in one region for all rows; border tiles
// are taken once for each region, and the pairs of the others are hidden.

// the first query from i on with a variant that the keys are not rotated for and that no earlier query of the block has
static __device__ __forceinline__ int lampe_find_other(const lampe_args & args, const int i3, const int q0, const int q1, int i) {
    for (; i < q1; ++i) {
        if (args.queries[(int64_t) i3*args.n_q + i].variant != LAMPE_VARIANT_OTHER) {
            continue;
        }

        const int * row = lampe_plan_row(args, i3, i);

        bool first = true;
        for (int ib = q0; ib < i; ++ib) {
            const int * before = lampe_plan_row(args, i3, ib);
            first = first && !(args.queries[(int64_t) i3*args.n_q + ib].variant == LAMPE_VARIANT_OTHER &&
                    before[GGML_LAMPE_PLAN_NUM] == row[GGML_LAMPE_PLAN_NUM] && before[GGML_LAMPE_PLAN_DEN] == row[GGML_LAMPE_PLAN_DEN]);
        }
        if (first) {
            break;
        }
    }

    return i;
}

// blocks: [n_block, n_split, n_stream*n_head_kv]
template <int d, int n_mt>
static __global__ void __launch_bounds__(LAMPE_MMA_THREADS, lampe_mma_blocks<d, n_mt>()) lampe_attn_mma(const lampe_args args) {
#ifdef AMPERE_MMA_AVAILABLE
    constexpr int n_tile_kv = lampe_tile_kv<d>();
    constexpr int n_row     = lampe_block_rows<n_mt>();
    constexpr int stride    = lampe_row_stride<d>();

    extern __shared__ half2 lampe_shared[];

    half        * s_q     = (half *) lampe_shared;
    half        * s_k     = s_q + n_row*stride;
    half        * s_v     = s_k + 2*n_tile_kv*stride; // two buffers of keys: those of the next step are loaded meanwhile
    lampe_query * s_query = (lampe_query *) (s_v + n_tile_kv*stride);

    const int tid     = threadIdx.y*WARP_SIZE + threadIdx.x;
    const int r0      = blockIdx.x*n_row;
    const int q0      = r0/args.n_gqa;
    const int q1      = min(args.n_q, (r0 + n_row - 1)/args.n_gqa + 1);
    const int i_split = blockIdx.y;
    const int ikv     = blockIdx.z%args.n_head_kv;
    const int i3      = blockIdx.z/args.n_head_kv;

    const uint32_t * tiles = args.tiles + ((int64_t) i3*args.n_block + blockIdx.x)*args.n_tile;

    const char * q = (const char *) (args.q_rot + ((int64_t) blockIdx.z*LAMPE_REGION_COUNT*args.n_row_pad + r0)*d);
    const char * k = (const char *) (args.k_rot + (int64_t) blockIdx.z*(1 + args.n_variant)*args.n_tile*n_tile_kv*d);
    const char * v = args.v + ikv*args.v_nb2 + i3*args.v_nb3;

    // where the thread points ldmatrix at
    const uint32_t q_matrix = ggml_cuda_cvta_generic_to_shared(s_q + threadIdx.y*n_mt*16*stride + lampe_matrix_offset_a(stride));
    const uint32_t k_matrix = ggml_cuda_cvta_generic_to_shared(s_k + lampe_matrix_offset_b(stride));
    const uint32_t v_matrix = ggml_cuda_cvta_generic_to_shared(s_v + lampe_matrix_offset_b_trans(stride));

    int q_region = LAMPE_REGION_COUNT; // none

    // flags are read a tile ahead, so that they are there in time
    int      i_ahead     = i_split;
    uint32_t flags_ahead = i_ahead < args.n_tile ? tiles[i_ahead] : 0;

    const auto next_step = [&](lampe_step & step) {
        if (step.pass == LAMPE_TILE_OTHER) {
            step.i_q = lampe_find_other(args, i3, q0, q1, step.i_q + 1);
        }
        if (step.pass != LAMPE_TILE_OTHER || step.i_q >= q1) {
            while (step.left == 0) {
                step.i_tile = i_ahead;
                if (step.i_tile >= args.n_tile) {
                    return;
                }
                step.flags = flags_ahead;
                step.left  = step.flags & LAMPE_TILE_SCORES;

                i_ahead    += args.n_split;
                flags_ahead = i_ahead < args.n_tile ? tiles[i_ahead] : 0;
            }
            step.pass  = lampe_next_pass(step.left, q_region);
            step.left &= ~step.pass;
            step.i_q   = step.pass == LAMPE_TILE_OTHER ? lampe_find_other(args, i3, q0, q1, q0) : 0;
        }
        if (step.pass == LAMPE_TILE_OTHER) {
            step.num = lampe_plan_row(args, i3, step.i_q)[GGML_LAMPE_PLAN_NUM];
            step.den = lampe_plan_row(args, i3, step.i_q)[GGML_LAMPE_PLAN_DEN];
        }
    };

    const auto load_queries = [&](const lampe_step & step) {
        const int region = lampe_pass_region(step.pass);
        if (region != q_region) {
            q_region = region;
            lampe_load_rows<d, n_row, false>(s_q, q + (int64_t) region*args.n_row_pad*d*sizeof(half), d*sizeof(half), n_row, tid);
        }
    };

    const auto load_keys = [&](const lampe_step & step, half * to) {
        if (step.pass == LAMPE_TILE_OTHER) {
            lampe_rotate_tile<d>(to, args, i3, ikv, step, tid);
        } else {
            const int variant = step.pass & LAMPE_TILE_MIDDLE ? __ffs(step.pass/LAMPE_TILE_VARIANT) : 0;
            lampe_load_rows<d, n_tile_kv, false>(
                    to, k + ((int64_t) variant*args.n_tile + step.i_tile)*n_tile_kv*d*sizeof(half), d*sizeof(half), n_tile_kv, tid);
        }
    };

    if (tid < n_row) {
        s_query[tid] = args.queries[(int64_t) i3*args.n_q + min((r0 + tid)/args.n_gqa, args.n_q - 1)];
    }

    lampe_tile_c out[n_mt][d/8];

    float row_max[n_mt][2];
    float row_sum[n_mt][2];
#pragma unroll
    for (int mt = 0; mt < n_mt; ++mt) {
#pragma unroll
        for (int hi = 0; hi < 2; ++hi) {
            row_max[mt][hi] = LAMPE_MIN_MAX;
            row_sum[mt][hi] = 0.0f;
        }
    }

    int buffer = 0; // which holds the keys in use

    lampe_step step = { 0, 0, 0, 0, 0, 0, 0 };
    next_step(step);
    if (step.i_tile < args.n_tile) {
        load_queries(step);
        load_keys(step, s_k);
    }

    while (step.i_tile < args.n_tile) {
        const int   j0    = step.i_tile*n_tile_kv;
        const int   n_key = min(n_tile_kv, args.n_kv - j0);
        const int * k_pos = lampe_k_pos(args, i3) + j0;

        cp_async_wait_all();
        __syncthreads(); // keys and queries are there, the values are no longer used

        if (n_key == n_tile_kv) {
            lampe_load_rows<d, n_tile_kv, false>(s_v, v + j0*args.v_nb1, args.v_nb1, n_key, tid);
        } else {
            lampe_load_rows<d, n_tile_kv, true>(s_v, v + j0*args.v_nb1, args.v_nb1, n_key, tid);
        }

        lampe_step next = step;
        next_step(next);
        if (next.i_tile < args.n_tile) {
            load_keys(next, s_k + (buffer ^ 1)*n_tile_kv*stride);
        }

        lampe_tile_c scores[n_mt][n_tile_kv/8];

        lampe_mma_scores<d, n_mt>(scores, q_matrix, k_matrix + buffer*n_tile_kv*stride*(uint32_t) sizeof(half));

        if (args.softcap != 0.0f) {
            lampe_mma_softcap(scores, args.softcap);
        }
        if ((step.flags & LAMPE_TILE_MASKED) || step.mixed()) {
            lampe_mma_mask<d, n_mt>(scores, args, s_query, k_pos, n_key, r0, i3, j0, step);
        }
        lampe_mma_softmax(scores, out, row_max, row_sum);

        cp_async_wait_all();
        __syncthreads(); // values are there, keys and queries are no longer used

        if (step.flags & LAMPE_TILE_EMPTY) {
            // an empty cell may hold anything, and anything times 0 may be NaN
            for (int i = tid; i < n_key*d; i += LAMPE_MMA_THREADS) {
                if (k_pos[i/d] < 0) {
                    s_v[i/d*stride + i%d] = __float2half(0.0f);
                }
            }
            __syncthreads();
        }

        if (next.i_tile < args.n_tile) {
            load_queries(next);
        }

        lampe_mma_output<d, n_mt>(out, scores, v_matrix);

        step    = next;
        buffer ^= 1;
    }

    lampe_mma_store<d, n_mt>(args, out, row_max, row_sum, r0, i3, ikv, i_split);
#else
    GGML_UNUSED(args);
    NO_DEVICE_CODE;
#endif // AMPERE_MMA_AVAILABLE
}
