#pragma once

#include "lampe-attn-mma-tile.cuh"

// Attention of one query, as in decoding. Reading the cache takes most of the time, so a key is read once for all query heads of
// its KV head, and rotated in shared memory. Every warp goes through chunks of keys by itself; the results of the warps of a
// block are put together at the end, those of the blocks by lampe_merge().

static constexpr int LAMPE_VEC_ROWS = 16; // query heads that a block takes
static constexpr int LAMPE_VEC_KEYS = 16; // keys in a chunk

template <int d>
static constexpr __host__ __device__ int lampe_vec_warps() {
    return d <= 128 ? 4 : 2;
}

// halves from one row to the next in shared memory, see lampe_row_stride()
template <int d>
static constexpr __host__ __device__ int lampe_vec_stride() {
    return d + 8;
}

// room for the queries, and for keys and values of every warp
template <int d>
static constexpr __host__ __device__ size_t lampe_vec_shared_size() {
    return (LAMPE_REGION_COUNT*LAMPE_VEC_ROWS + 2*lampe_vec_warps<d>()*LAMPE_VEC_KEYS)*lampe_vec_stride<d>()*sizeof(half);
}

// blocks on a multiprocessor, as many as it has room for
template <int d>
static constexpr __host__ __device__ int lampe_vec_blocks() {
    return d <= 64 ? 4 : d <= 128 ? 3 : 4;
}

// how the quads of a chunk are dealt out to the threads of a warp: n_key keys at a time, n_part quads of a key to a thread
template <int d>
struct lampe_vec_quads {
    static constexpr int n_lane = d/4 < WARP_SIZE ? d/4 : WARP_SIZE; // threads that share a key
    static constexpr int n_part = d/4/n_lane;
    static constexpr int n_key  = WARP_SIZE/n_lane;
    static constexpr int n_iter = LAMPE_VEC_KEYS/n_key;

    static_assert(n_lane*n_part == d/4, "quads are left over");
};

// start to copy f16 rows to shared memory, by one warp; rows from n_key on become zero
template <int d>
static __device__ __forceinline__ void lampe_vec_copy(half * s, const char * src, const int64_t nb1, const int n_key) {
    constexpr int n_chunk = d/8; // copies of 16 bytes that make a row
    constexpr int n_row   = n_chunk <= WARP_SIZE && LAMPE_VEC_KEYS % (WARP_SIZE/n_chunk) == 0 ? WARP_SIZE/n_chunk : 1; // rows at a time

    const int j = threadIdx.x/n_chunk;
    const int c = threadIdx.x%n_chunk;

    if (j >= n_row) {
        return;
    }

    s   += j*lampe_vec_stride<d>() + 8*c;
    src += j*nb1 + 16*c;

#pragma unroll
    for (int i = 0; i < LAMPE_VEC_KEYS; i += n_row) {
        if (i + j < n_key) {
            cp_async_cg_16<128>(ggml_cuda_cvta_generic_to_shared(s), src);
        } else {
            *(int4 *) s = make_int4(0, 0, 0, 0);
        }
        s   += n_row*lampe_vec_stride<d>();
        src += n_row*nb1;
    }
}

// f16: keys and values are f16 in aligned rows
// blocks: [n_split, parts of the heads of a KV head, n_stream*n_head_kv]
template <int d, bool f16>
static __global__ void __launch_bounds__(lampe_vec_warps<d>()*WARP_SIZE, lampe_vec_blocks<d>()) lampe_attn_vec(const lampe_args args) {
#ifdef AMPERE_MMA_AVAILABLE
    using quads = lampe_vec_quads<d>;

    constexpr int n_warp   = lampe_vec_warps<d>();
    constexpr int n_thread = n_warp*WARP_SIZE;
    constexpr int stride   = lampe_vec_stride<d>();
    constexpr int n_ahead  = f16 ? 4 : 1; // rows of the table that a thread loads ahead

    extern __shared__ half2 lampe_shared[];

    __shared__ float s_max[n_warp][LAMPE_VEC_ROWS];
    __shared__ float s_sum[n_warp][LAMPE_VEC_ROWS];
    __shared__ int   s_rope[n_warp][LAMPE_VEC_KEYS]; // offset of each key's row in the table

    const int lane = threadIdx.x;
    const int warp = threadIdx.y;
    const int tid  = warp*WARP_SIZE + lane;

    half  * s_q  = (half *) lampe_shared;
    half  * s_kv = s_q + LAMPE_REGION_COUNT*LAMPE_VEC_ROWS*stride;
    half  * s_k  = s_kv + 2*warp*LAMPE_VEC_KEYS*stride;
    half  * s_v  = s_k + LAMPE_VEC_KEYS*stride;
    float * s_out = (float *) s_kv; // [n_warp, LAMPE_VEC_ROWS, d], at the end, in the room of the warps' keys

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
        for (int i = tid; i < LAMPE_VEC_ROWS*(d/4); i += n_thread) {
            const int r = i/(d/4);

            const lampe_quad_place place = lampe_get_place(i%(d/4), args.n_rot, args.neox);

            lampe_quad x = { make_float2(0.0f, 0.0f), make_float2(0.0f, 0.0f) };
            if (r < n_h) {
                x   = lampe_load_quad(args.q + (h0 + r)*args.q_nb2 + i3*args.q_nb3, GGML_TYPE_F32, place);
                x.a = make_float2(args.scale*x.a.x, args.scale*x.a.y);
                x.b = make_float2(args.scale*x.b.x, args.scale*x.b.y);
            }
#pragma unroll
            for (int region = 0; region < LAMPE_REGION_COUNT; ++region) {
                lampe_store_quad(s_q + (region*LAMPE_VEC_ROWS + r)*stride,
                        lampe_rotate(x, lampe_rope_row(args, q_pos[region]), args.n_rot, args.neox, place), place);
            }
        }
    }
    __syncthreads();

    // the thread's quads of a key
    lampe_quad_place place[quads::n_part];
#pragma unroll
    for (int ip = 0; ip < quads::n_part; ++ip) {
        place[ip] = lampe_get_place(ip*quads::n_lane + lane%quads::n_lane, args.n_rot, args.neox);
    }
    const int jq = lane/quads::n_lane;

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

        // reading the table has the longest latency: its first rows come with the keys, the others before they are needed
        lampe_quad rope[n_ahead][quads::n_part];

        const auto load_rope = [&](const int i0) {
#pragma unroll
            for (int ia = 0; ia < n_ahead; ++ia) {
                const float * row = args.rope + s_rope[warp][min((i0 + ia)*quads::n_key + jq, LAMPE_VEC_KEYS - 1)];
#pragma unroll
                for (int ip = 0; ip < quads::n_part; ++ip) {
                    rope[ia][ip] = lampe_load_rope(row, args.n_rot, place[ip]);
                }
            }
        };

        load_rope(0);

        cp_async_wait_all();
        __syncwarp();

#pragma unroll
        for (int i0 = 0; i0 < quads::n_iter; i0 += n_ahead) {
            lampe_quad rope_cur[n_ahead][quads::n_part];
#pragma unroll
            for (int ia = 0; ia < n_ahead; ++ia) {
#pragma unroll
                for (int ip = 0; ip < quads::n_part; ++ip) {
                    rope_cur[ia][ip] = rope[ia][ip];
                }
            }
            if (i0 + n_ahead < quads::n_iter) {
                load_rope(i0 + n_ahead);
            }
#pragma unroll
            for (int ia = 0; ia < n_ahead; ++ia) {
                const int j = (i0 + ia)*quads::n_key + jq;
#pragma unroll
                for (int ip = 0; ip < quads::n_part; ++ip) {
                    if (jq < quads::n_key) {
                        const lampe_quad x = f16 ? lampe_load_quad((const char *) (s_k + j*stride), GGML_TYPE_F16, place[ip]) :
                            lampe_load_quad(k + min(j0 + j, args.n_kv - 1)*args.k_nb1, args.k_type, place[ip]);

                        lampe_store_quad(s_k + j*stride, lampe_rotate(x, rope_cur[ia][ip], args.neox, place[ip]), place[ip]);
                    }
                }
            }
        }
        if (!f16) {
#pragma unroll 1
            for (int i = lane; i < LAMPE_VEC_KEYS*(d/4); i += WARP_SIZE) {
                const lampe_quad_place place_v = lampe_get_place(i%(d/4), 0, false);

                lampe_store_quad(s_v + i/(d/4)*stride,
                        lampe_load_quad(v + min(j0 + i/(d/4), args.n_kv - 1)*args.v_nb1, args.v_type, place_v), place_v);
            }
        }
        __syncwarp();

        // an empty cell may hold anything, and anything times 0 may be NaN
        if (any != 0xFFFFFFFF) {
            for (int jv = 0; jv < LAMPE_VEC_KEYS; ++jv) {
                for (int i = lane; i < d && !(any & (1u << jv)); i += WARP_SIZE) {
                    s_v[jv*stride + i] = __float2half(0.0f);
                }
            }
            __syncwarp();
        }

        lampe_tile_c scores[1][2];
#pragma unroll
        for (int ir = 0; ir < LAMPE_REGION_COUNT; ++ir) {
            const uint32_t of_region = __ballot_sync(0xFFFFFFFF, seen && region == ir);
            if (of_region == 0) {
                continue;
            }

            lampe_tile_c cur_scores[2];
#pragma unroll
            for (int i = 0; i < d/16; ++i) {
                lampe_tile_a a;
                lampe_tile_b b[2];
                lampe_load_matrix_a(a, q_matrix + (ir*LAMPE_VEC_ROWS*stride + 16*i)*(int) sizeof(half));
                lampe_load_matrix_b(b, k_matrix + 16*i*sizeof(half));
                ggml_cuda_mma::mma(cur_scores[0], a, b[0]);
                ggml_cuda_mma::mma(cur_scores[1], a, b[1]);
            }
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

        const lampe_tile_a weights = lampe_mma_weights(scores[0][0], scores[0][1]);
#pragma unroll
        for (int ot = 0; ot < d/16; ++ot) {
            lampe_tile_b b[2];
            lampe_load_matrix_b_trans(b, v_matrix + 16*ot*sizeof(half));
            ggml_cuda_mma::mma(out[0][2*ot + 0], weights, b[0]);
            ggml_cuda_mma::mma(out[0][2*ot + 1], weights, b[1]);
        }
        __syncwarp();
        copy_values(j0 + j_step);
    }
    __syncthreads();

#pragma unroll
    for (int hi = 0; hi < 2; ++hi) {
        float sum = row_sum[0][hi];
        sum += __shfl_xor_sync(0xFFFFFFFF, sum, 1, WARP_SIZE);
        sum += __shfl_xor_sync(0xFFFFFFFF, sum, 2, WARP_SIZE);

        const int r = lampe_tile_c::get_i(2*hi);
        if (lane%4 == 0) {
            s_max[warp][r] = row_max[0][hi];
            s_sum[warp][r] = sum;
        }
#pragma unroll
        for (int ot = 0; ot < d/8; ++ot) {
            *(float2 *) (s_out + (warp*LAMPE_VEC_ROWS + r)*d + ot*8 + lampe_tile_c::get_j(2*hi)) =
                make_float2(out[0][ot].x[2*hi], out[0][ot].x[2*hi + 1]);
        }
    }
    __syncthreads();

    const int64_t row = (int64_t) i3*args.n_head + h0;
    for (int i = tid; i < n_h*d; i += n_thread) {
        const int r = i/d;

        float max = LAMPE_MIN_MAX;
#pragma unroll
        for (int iw = 0; iw < n_warp; ++iw) {
            max = fmaxf(max, s_max[iw][r]);
        }

        float sum = 0.0f;
        float x   = 0.0f;
#pragma unroll
        for (int iw = 0; iw < n_warp; ++iw) {
            const float keep = exp2f(LAMPE_LOG2E*(s_max[iw][r] - max));

            sum += keep*s_sum[iw][r];
            x   += keep*s_out[iw*LAMPE_VEC_ROWS*d + i];
        }

        if (args.n_split == 1) {
            args.dst[row*d + i] = lampe_row_factor(args.sinks, h0 + r, max, sum)*x;
            continue;
        }

        const int64_t row_split = (int64_t) blockIdx.x*args.n_stream*args.n_head + row;

        args.partial[row_split*d + i] = x;
        if (i%d == 0) {
            args.partial_sum[row_split + r] = make_float2(max, sum);
        }
    }
#else
    GGML_UNUSED(args);
    NO_DEVICE_CODE;
#endif // AMPERE_MMA_AVAILABLE
}
