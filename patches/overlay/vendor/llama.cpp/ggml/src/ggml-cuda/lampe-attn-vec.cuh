#pragma once

#include "lampe-attn-chunk.cuh"

// Attention of one query, as in decoding. Reading the cache takes most of the time, so a key is read once for all query heads of
// its KV head.

// f16: keys and values are f16 in aligned rows
// blocks: [n_split, parts of the heads of a KV head, n_stream*n_head_kv]
template <int d, bool f16>
static __global__ void __launch_bounds__(lampe_vec_warps<d>()*WARP_SIZE, lampe_vec_blocks<d>()) lampe_attn_vec(const lampe_args args) {
#ifdef AMPERE_MMA_AVAILABLE
    using quads = lampe_vec_quads<d>;

    constexpr int n_warp = lampe_vec_warps<d>();
    constexpr int stride = lampe_vec_stride<d>();

    extern __shared__ half2 lampe_shared[];

    __shared__ float s_max[n_warp][LAMPE_VEC_ROWS];
    __shared__ float s_sum[n_warp][LAMPE_VEC_ROWS];
    __shared__ int   s_rope[n_warp][LAMPE_VEC_KEYS]; // offset of each key's row in the table

    const int lane = threadIdx.x;
    const int warp = threadIdx.y;

    half  * s_q  = (half *) lampe_shared;
    half  * s_kv = s_q + LAMPE_REGION_COUNT*LAMPE_VEC_ROWS*stride;
    half  * s_k  = s_kv + 2*warp*LAMPE_VEC_KEYS*stride;
    half  * s_v  = s_k + LAMPE_VEC_KEYS*stride;
    float * s_out = (float *) s_kv; // at the end, in the room of the warps' keys

    const int ikv = blockIdx.z%args.n_head_kv;
    const int i3  = blockIdx.z/args.n_head_kv;
    const int h0  = ikv*args.n_gqa + blockIdx.y*LAMPE_VEC_ROWS;
    const int n_h = min(LAMPE_VEC_ROWS, args.n_gqa - (int) blockIdx.y*LAMPE_VEC_ROWS);

    const char * k     = args.k + ikv*args.k_nb2 + i3*args.k_nb3;
    const char * v     = args.v + ikv*args.v_nb2 + i3*args.v_nb3;
    const int  * k_pos = lampe_k_pos(args, i3);
    const half * mask  = lampe_mask_row(args, i3, 0);

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

    copy_keys(j_first);
    copy_values(j_first);

    // two threads look at each key
    int   k_pos_next = -1;
    float mask_next  = 0.0f;

    const auto load_positions = [&](const int j0) {
        const int j = j0 + lane%LAMPE_VEC_KEYS;

        k_pos_next = j < args.n_kv ? k_pos[j] : -1;
        mask_next  = j < args.n_kv ? __half2float(mask[j]) : 0.0f;
    };

    load_positions(j_first);

    const int * plan = lampe_plan_row(args, i3, 0);

    const int pos          = plan[GGML_LAMPE_PLAN_POS];
    const int local_window = plan[GGML_LAMPE_PLAN_LOCAL_WINDOW];
    const int tail_start   = plan[GGML_LAMPE_PLAN_TAIL_START];
    const int num          = plan[GGML_LAMPE_PLAN_NUM];
    const int den          = plan[GGML_LAMPE_PLAN_DEN];

    {
        int q_pos[LAMPE_REGION_COUNT];
#pragma unroll
        for (int region = 0; region < LAMPE_REGION_COUNT; ++region) {
            q_pos[region] = (int) lampe_query_position(plan, (lampe_region) region, pos);
        }
        lampe_vec_load_queries<d>(s_q, args, n_h, warp*WARP_SIZE + lane,
            [&](const int r) { return args.q + (h0 + r)*args.q_nb2 + i3*args.q_nb3; },
            [&](const int, const int region) { return q_pos[region]; });
    }
    __syncthreads();

    // the thread's quads of a key
    lampe_quad_place place[quads::n_part];
#pragma unroll
    for (int ip = 0; ip < quads::n_part; ++ip) {
        place[ip] = lampe_get_place(ip*quads::n_lane + lane%quads::n_lane, args.n_rot, args.neox);
    }

    lampe_tile_c out[1][d/8];

    // for rows lane/4 and lane/4 + 8, see tile<16, 8, float>
    float row_max[1][2] = {{ LAMPE_MIN_MAX, LAMPE_MIN_MAX }};
    float row_sum[1][2] = {{ 0.0f, 0.0f }};

    for (int j0 = j_first; j0 < args.n_kv; j0 += j_step) {
        const int   cur    = k_pos_next;
        const float added  = cur >= 0 ? mask_next : -INFINITY;
        const int   region = lampe_get_region(pos - cur, local_window, tail_start);
        const bool  seen   = added != -INFINITY;

        const int pos_rot = region == LAMPE_REGION_MIDDLE ? (int) ggml_lampe_middle(cur, num, den) : cur;

        s_rope[warp][lane%LAMPE_VEC_KEYS] = min(max(pos_rot, 0), args.n_pos - 1)*args.n_rot;

        __syncwarp();

        load_positions(j0 + j_step);

        const uint32_t any = __ballot_sync(0xFFFFFFFF, seen);

        lampe_vec_rotate_keys<d, f16, f16 ? 4 : 1>(s_k, args, s_rope[warp], k, args.k_type, j0, place);

        if (!f16) {
            lampe_vec_load_values<d>(s_v, args, v, j0);
        }
        __syncwarp();

        if (any != 0xFFFFFFFF) {
            lampe_vec_hide_values<d>(s_v, any);
        }

        lampe_tile_c scores[1][2];
#pragma unroll
        for (int ir = 0; ir < LAMPE_REGION_COUNT; ++ir) {
            const uint32_t of_region = __ballot_sync(0xFFFFFFFF, seen && region == ir);
            if (of_region == 0) {
                continue;
            }

            lampe_tile_c cur_scores[2];
            lampe_vec_scores<d>(cur_scores, q_matrix + ir*LAMPE_VEC_ROWS*stride*(int) sizeof(half), k_matrix);
#pragma unroll
            for (int nt = 0; nt < 2; ++nt) {
#pragma unroll
                for (int l = 0; l < lampe_tile_c::ne; ++l) {
                    if (of_region & (1u << (8*nt + lampe_tile_c::get_j(l)))) {
                        scores[0][nt].x[l] = cur_scores[nt].x[l];
                    }
                }
            }
        }
        __syncwarp();
        copy_keys(j0 + j_step);

#pragma unroll
        for (int nt = 0; nt < 2; ++nt) {
#pragma unroll
            for (int l = 0; l < lampe_tile_c::ne; ++l) {
                const float m = __shfl_sync(0xFFFFFFFF, added, 8*nt + lampe_tile_c::get_j(l), WARP_SIZE);

                float & x = scores[0][nt].x[l];
                if (args.softcap != 0.0f) {
                    x = args.softcap*tanhf(x/args.softcap);
                }
                x = m == -INFINITY ? -INFINITY : x + m;
            }
        }
        lampe_mma_softmax(scores, out, row_max, row_sum);

        lampe_vec_output<d>(out, scores, v_matrix);

        __syncwarp();
        copy_values(j0 + j_step);
    }
    __syncthreads();

    const int64_t row = (int64_t) i3*args.n_head + h0;

    lampe_vec_store<d>(args, out, row_max, row_sum, s_max, s_sum, s_out, n_h, (int64_t) args.n_stream*args.n_head,
        [&](const int r) { return row + r; },
        [&](const int r) { return h0 + r; });
#else
    GGML_UNUSED(args);
    NO_DEVICE_CODE;
#endif // AMPERE_MMA_AVAILABLE
}
