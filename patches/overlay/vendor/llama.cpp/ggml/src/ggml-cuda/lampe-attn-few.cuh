#pragma once

#include "lampe-attn-chunk.cuh"

// Attention of few queries, of several sequences that are decoded at once, or of a draft that is checked. As for one query, a key is
// read once for all rows of a block and rotated in shared memory, but rows may see different keys and need them in different
// rotations: that of local and tail, and one for each compression of the middle. A chunk is taken in as many passes as one of its
// keys needs, each key in a rotation of its own. Mostly that is a single one: the queries are in one region and have one
// compression, or a key is of one sequence and hidden from the others. Chunks that no row sees are not read.

static constexpr int LAMPE_FEW_QUERIES = 8;

// rotations of keys, a bit for each: local and tail, then the middle of each query of the block, or of the first one like it
static constexpr int LAMPE_FEW_ROTATIONS = 16; // bits that a key has room for

static_assert(1 + LAMPE_FEW_QUERIES <= LAMPE_FEW_ROTATIONS, "too many queries");

// Up to so many rows, by the bytes that are moved; it has not been measured where the border lies. Here the cache is read once for
// each LAMPE_VEC_ROWS rows. Of rows of different sequences each reads what it sees, and together they read it about once; where all
// see the same, the blocks of the same keys run at the same time, and all but the first find them in the second cache. For
// lampe_attn_mma keys are read, written as often as they have rotations, and read again, beside the values: at least twice the bytes
// of one reading, through memory when the context is long, and by four kernels more.
static constexpr int LAMPE_FEW_ROWS = 8*LAMPE_VEC_ROWS;

struct lampe_few_query {
    int pos;
    int local_window;
    int tail_start;
    int num;
    int den;
    int q_pos[LAMPE_REGION_COUNT];

    uint32_t middle; // its rotation of keys in the middle
};

// the cells of a thread's part of the scores, see tile<16, 8, float>
struct lampe_few_cells {
    int   k_pos[2][2]; // [tile][column]
    half2 mask[2][2];  // [row][tile]
};

// even: pairs of cells are aligned and whole
static __device__ __forceinline__ void lampe_few_load_cells(
        lampe_few_cells & cells, const lampe_args & args, const int i3, const int (&i_q)[2], const int j0, const bool even) {
    const int * k_pos = lampe_k_pos(args, i3);
    const half * mask[2] = { lampe_mask_row(args, i3, i_q[0]), lampe_mask_row(args, i3, i_q[1]) };

#pragma unroll
    for (int nt = 0; nt < 2; ++nt) {
        const int j = j0 + 8*nt + lampe_tile_c::get_j(0);

        int2  pos  = make_int2(-1, -1);
        half2 m[2] = { __floats2half2_rn(0.0f, 0.0f), __floats2half2_rn(0.0f, 0.0f) };
        if (even && j < args.n_kv) {
            pos  = *(const int2 *) (k_pos + j);
            m[0] = *(const half2 *) (mask[0] + j);
            m[1] = *(const half2 *) (mask[1] + j);
        } else if (j < args.n_kv) {
            const bool both = j + 1 < args.n_kv;

            pos = make_int2(k_pos[j], both ? k_pos[j + 1] : -1);
#pragma unroll
            for (int hi = 0; hi < 2; ++hi) {
                m[hi] = __halves2half2(mask[hi][j], both ? mask[hi][j + 1] : __float2half(0.0f));
            }
        }

        cells.k_pos[nt][0] = pos.x;
        cells.k_pos[nt][1] = pos.y;
        cells.mask[0][nt]  = m[0];
        cells.mask[1][nt]  = m[1];
    }
}

// what is added to a score, -inf: the row does not see the key; l: element of the tile
static __device__ __forceinline__ float lampe_few_added(const lampe_few_cells & cells, const int nt, const int l) {
    const float2 m = __half22float2(cells.mask[l/2][nt]);

    return cells.k_pos[nt][l%2] < 0 ? -INFINITY : l%2 ? m.y : m.x;
}

// the lowest bit of each half of a word
static __device__ __forceinline__ uint32_t lampe_few_first(const uint32_t x) {
    const uint32_t lo = x & 0xFFFF;
    const uint32_t hi = x - lo;

    return (lo & (0u - lo)) | (hi & (0u - hi));
}

// rotate the keys of a chunk as they are read from memory, by one warp; see lampe_vec_rotate_keys()
template <int d>
static __device__ __forceinline__ void lampe_few_load_keys(
        half * s_k, const lampe_args & args, const int * s_rope, const char * k, const ggml_type type, const int j0) {
#pragma unroll 1
    for (int i = threadIdx.x; i < LAMPE_VEC_KEYS*(d/4); i += WARP_SIZE) {
        const int j = i/(d/4);

        const lampe_quad_place place = lampe_get_place(i%(d/4), args.n_rot, args.neox);

        lampe_store_quad(s_k + j*lampe_vec_stride<d>(), lampe_rotate(
                lampe_load_quad(k + min(j0 + j, args.n_kv - 1)*args.k_nb1, type, place),
                args.rope + s_rope[j], args.n_rot, args.neox, place), place);
    }
}

// f16: keys and values are f16 in aligned rows
// blocks: [n_split, parts of n_q*n_gqa rows, n_stream*n_head_kv]
template <int d, bool f16>
static __global__ void __launch_bounds__(lampe_vec_warps<d>()*WARP_SIZE, lampe_vec_blocks<d>()) lampe_attn_few(const lampe_args args) {
#ifdef AMPERE_MMA_AVAILABLE
    using quads = lampe_vec_quads<d>;

    constexpr int n_warp = lampe_vec_warps<d>();
    constexpr int stride = lampe_vec_stride<d>();

    extern __shared__ half2 lampe_shared[];

    __shared__ float s_max[n_warp][LAMPE_VEC_ROWS];
    __shared__ float s_sum[n_warp][LAMPE_VEC_ROWS];
    __shared__ int   s_rope[n_warp][LAMPE_VEC_KEYS]; // offset of each key's row in the table

    __shared__ lampe_few_query s_query[LAMPE_FEW_QUERIES];

    const int lane = threadIdx.x;
    const int warp = threadIdx.y;
    const int tid  = warp*WARP_SIZE + lane;

    half  * s_q  = (half *) lampe_shared;
    half  * s_kv = s_q + LAMPE_REGION_COUNT*LAMPE_VEC_ROWS*stride;
    half  * s_k  = s_kv + 2*warp*LAMPE_VEC_KEYS*stride;
    half  * s_v  = s_k + LAMPE_VEC_KEYS*stride;
    float * s_out = (float *) s_kv; // at the end, in the room of the warps' keys

    const int ikv   = blockIdx.z%args.n_head_kv;
    const int i3    = blockIdx.z/args.n_head_kv;
    const int r0    = blockIdx.y*LAMPE_VEC_ROWS;
    const int n_row = min(LAMPE_VEC_ROWS, args.n_q*args.n_gqa - r0);
    const int q0    = r0/args.n_gqa;
    const int n_qb  = (r0 + n_row - 1)/args.n_gqa + 1 - q0; // queries of the block

    const char * k = args.k + ikv*args.k_nb2 + i3*args.k_nb3;
    const char * v = args.v + ikv*args.v_nb2 + i3*args.v_nb3;

    const int j_step = args.n_split*n_warp*LAMPE_VEC_KEYS;

    // where the thread points ldmatrix at
    const uint32_t q_matrix = ggml_cuda_cvta_generic_to_shared(s_q + lampe_matrix_offset_a(stride));
    const uint32_t k_matrix = ggml_cuda_cvta_generic_to_shared(s_k + lampe_matrix_offset_b(stride));
    const uint32_t v_matrix = ggml_cuda_cvta_generic_to_shared(s_v + lampe_matrix_offset_b_trans(stride));

    const auto copy_keys = [&](const int j0) {
        if (f16 && j0 < args.n_kv) {
            lampe_vec_copy<d>(s_k, k + j0*args.k_nb1, args.k_nb1, args.n_kv - j0);
        }
    };
    const auto copy_values = [&](const int j0) {
        if (f16 && j0 < args.n_kv) {
            lampe_vec_copy<d>(s_v, v + j0*args.v_nb1, args.v_nb1, args.n_kv - j0);
        }
    };

    const int j_first = (blockIdx.x*n_warp + warp)*LAMPE_VEC_KEYS;

    // whether they are seen is not known yet
    copy_keys(j_first);
    copy_values(j_first);

    // queries of the thread's rows; those that are left over see what the last one sees, so that nothing is read for them
    const int i_q[2] = {
        (r0 + min(lampe_tile_c::get_i(0), n_row - 1))/args.n_gqa,
        (r0 + min(lampe_tile_c::get_i(2), n_row - 1))/args.n_gqa,
    };

    const bool even = args.n_kv%2 == 0 && (uintptr_t) lampe_k_pos(args, i3)%sizeof(int2) == 0 &&
        ((uintptr_t) args.mask | args.mask_nb1 | args.mask_nb3)%sizeof(half2) == 0;

    lampe_few_cells next;
    lampe_few_load_cells(next, args, i3, i_q, j_first, even);

    if (tid < n_qb) {
        const int * plan = lampe_plan_row(args, i3, q0 + tid);

        s_query[tid].pos          = plan[GGML_LAMPE_PLAN_POS];
        s_query[tid].local_window = plan[GGML_LAMPE_PLAN_LOCAL_WINDOW];
        s_query[tid].tail_start   = plan[GGML_LAMPE_PLAN_TAIL_START];
        s_query[tid].num          = plan[GGML_LAMPE_PLAN_NUM];
        s_query[tid].den          = plan[GGML_LAMPE_PLAN_DEN];
#pragma unroll
        for (int region = 0; region < LAMPE_REGION_COUNT; ++region) {
            s_query[tid].q_pos[region] = (int) lampe_query_position(plan, (lampe_region) region, plan[GGML_LAMPE_PLAN_POS]);
        }

        int first = 0;
        while (lampe_plan_row(args, i3, q0 + first)[GGML_LAMPE_PLAN_NUM] != plan[GGML_LAMPE_PLAN_NUM] ||
               lampe_plan_row(args, i3, q0 + first)[GGML_LAMPE_PLAN_DEN] != plan[GGML_LAMPE_PLAN_DEN]) {
            ++first;
        }
        s_query[tid].middle = 2u << first;
    }
    __syncthreads();

    lampe_vec_load_queries<d>(s_q, args, n_row, tid,
        [&](const int r) {
            return args.q + (r0 + r)/args.n_gqa*args.q_nb1 + (ikv*args.n_gqa + (r0 + r)%args.n_gqa)*args.q_nb2 + i3*args.q_nb3;
        },
        [&](const int r, const int region) { return s_query[(r0 + min(r, n_row - 1))/args.n_gqa - q0].q_pos[region]; });

    __syncthreads();

    // the thread's quads of a key
    lampe_quad_place place[quads::n_part];
#pragma unroll
    for (int ip = 0; ip < quads::n_part; ++ip) {
        place[ip] = lampe_get_place(ip*quads::n_lane + lane%quads::n_lane, args.n_rot, args.neox);
    }

    // the key of the thread's four whose place in the table it finds
    const int own_nt = lane/4%2;
    const int own_c  = lane/8%2;

    lampe_tile_c out[1][d/8];

    // for rows lane/4 and lane/4 + 8, see tile<16, 8, float>
    float row_max[1][2] = {{ LAMPE_MIN_MAX, LAMPE_MIN_MAX }};
    float row_sum[1][2] = {{ 0.0f, 0.0f }};

    for (int j0 = j_first; j0 < args.n_kv; j0 += j_step) {
        const lampe_few_cells cells = next;

        lampe_few_load_cells(next, args, i3, i_q, j0 + j_step, even);

        uint32_t regions = 0;          // of the thread's pairs, two bits for each; LAMPE_REGION_COUNT: hidden
        uint32_t needed[2] = { 0, 0 }; // rotations of the thread's keys, the columns of a tile in one word
#pragma unroll
        for (int nt = 0; nt < 2; ++nt) {
#pragma unroll
            for (int l = 0; l < lampe_tile_c::ne; ++l) {
                const lampe_few_query & query = s_query[i_q[l/2] - q0];

                const bool hidden = lampe_few_added(cells, nt, l) == -INFINITY;
                const int  region = hidden ? LAMPE_REGION_COUNT :
                    lampe_get_region(query.pos - cells.k_pos[nt][l%2], query.local_window, query.tail_start);

                regions    |= region << 2*(4*nt + l);
                needed[nt] |= (hidden ? 0 : region == LAMPE_REGION_MIDDLE ? query.middle : 1) << LAMPE_FEW_ROTATIONS*(l%2);
            }
            // 8 threads share the columns
            needed[nt] |= __shfl_xor_sync(0xFFFFFFFF, needed[nt],  4, WARP_SIZE);
            needed[nt] |= __shfl_xor_sync(0xFFFFFFFF, needed[nt],  8, WARP_SIZE);
            needed[nt] |= __shfl_xor_sync(0xFFFFFFFF, needed[nt], 16, WARP_SIZE);
        }

        uint32_t seen = 0; // a bit for each key
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            if (needed[i/2] & 0xFFFFu << LAMPE_FEW_ROTATIONS*(i%2)) {
                seen |= 1u << (8*(i/2) + lampe_tile_c::get_j(i%2));
            }
        }
        seen = __reduce_or_sync(0xFFFFFFFF, seen);

        lampe_tile_c scores[1][2];

        if (seen != 0) {
            const int own_k_pos = own_nt ? (own_c ? cells.k_pos[1][1] : cells.k_pos[1][0]) : (own_c ? cells.k_pos[0][1] : cells.k_pos[0][0]);

            bool first = true;
            do {
                // each key in the first rotation that it is still needed in
                const uint32_t chosen[2] = { lampe_few_first(needed[0]), lampe_few_first(needed[1]) };

                needed[0] &= ~chosen[0];
                needed[1] &= ~chosen[1];

                const uint32_t own = (own_nt ? chosen[1] : chosen[0]) >> LAMPE_FEW_ROTATIONS*own_c & 0xFFFF;

                int pos_rot = own_k_pos;
                if (own > 1) {
                    const lampe_few_query & query = s_query[__ffs(own) - 2];
                    pos_rot = (int) ggml_lampe_middle(own_k_pos, query.num, query.den);
                }
                s_rope[warp][8*own_nt + 2*(lane%4) + own_c] = min(max(pos_rot, 0), args.n_pos - 1)*args.n_rot;

                __syncwarp();

                // what has been rotated where it was is read once more, mostly from the cache, as are the table's rows
                if (f16 && first) {
                    lampe_vec_rotate_keys<d, f16, 2>(s_k, args, s_rope[warp], k, args.k_type, j0, place);
                } else {
                    lampe_few_load_keys<d>(s_k, args, s_rope[warp], k, f16 ? GGML_TYPE_F16 : args.k_type, j0);
                }

                uint32_t pairs = 0; // of the thread that belong to this pass, a byte for each region
#pragma unroll
                for (int i = 0; i < 2*lampe_tile_c::ne; ++i) {
                    const uint32_t region   = regions >> 2*i & 3;
                    const uint32_t rotation = region == LAMPE_REGION_MIDDLE ? s_query[i_q[i%4/2] - q0].middle : 1;

                    if (region != LAMPE_REGION_COUNT && (chosen[i/4] >> LAMPE_FEW_ROTATIONS*(i%2) & rotation)) {
                        pairs |= 1u << (8*region + i);
                    }
                }
                const uint32_t any = __reduce_or_sync(0xFFFFFFFF, pairs);

                __syncwarp();

#pragma unroll
                for (int ir = 0; ir < LAMPE_REGION_COUNT; ++ir) {
                    if (!(any & 0xFFu << 8*ir)) {
                        continue;
                    }

                    lampe_tile_c cur_scores[2];
                    lampe_vec_scores<d>(cur_scores, q_matrix + ir*LAMPE_VEC_ROWS*stride*(int) sizeof(half), k_matrix);
#pragma unroll
                    for (int i = 0; i < 2*lampe_tile_c::ne; ++i) {
                        if (pairs & 1u << (8*ir + i)) {
                            scores[0][i/4].x[i%4] = cur_scores[i/4].x[i%4];
                        }
                    }
                }
                first = false;
            } while (__any_sync(0xFFFFFFFF, (needed[0] | needed[1]) != 0));
        } else {
            cp_async_wait_all(); // of the first chunk
        }

        bool more = false; // the next chunk is seen
#pragma unroll
        for (int i = 0; i < 2*lampe_tile_c::ne; ++i) {
            more = more || lampe_few_added(next, i/4, i%4) != -INFINITY;
        }
        more = __any_sync(0xFFFFFFFF, more);

        __syncwarp();
        if (more) {
            copy_keys(j0 + j_step);
        }

        if (seen != 0) {
            if (!f16) {
                lampe_vec_load_values<d>(s_v, args, v, j0);
                __syncwarp();
            }
            if (seen != (1u << LAMPE_VEC_KEYS) - 1) {
                lampe_vec_hide_values<d>(s_v, seen);
            }

#pragma unroll
            for (int i = 0; i < 2*lampe_tile_c::ne; ++i) {
                const float m = lampe_few_added(cells, i/4, i%4);

                float & x = scores[0][i/4].x[i%4];
                if (args.softcap != 0.0f) {
                    x = args.softcap*tanhf(x/args.softcap);
                }
                x = m == -INFINITY ? -INFINITY : x + m;
            }
            lampe_mma_softmax(scores, out, row_max, row_sum);

            lampe_vec_output<d>(out, scores, v_matrix);

            __syncwarp();
        }
        if (more) {
            copy_values(j0 + j_step);
        }
    }
    __syncthreads();

    lampe_vec_store<d>(args, out, row_max, row_sum, s_max, s_sum, s_out, n_row, (int64_t) args.n_stream*args.n_q*args.n_head,
        [&](const int r) {
            return ((int64_t) i3*args.n_q + (r0 + r)/args.n_gqa)*args.n_head + ikv*args.n_gqa + (r0 + r)%args.n_gqa;
        },
        [&](const int r) { return ikv*args.n_gqa + (r0 + r)%args.n_gqa; });
#else
    GGML_UNUSED(args);
    NO_DEVICE_CODE;
#endif // AMPERE_MMA_AVAILABLE
}
