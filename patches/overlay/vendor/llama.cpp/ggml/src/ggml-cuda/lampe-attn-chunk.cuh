#pragma once

#include "lampe-attn-mma-tile.cuh"

// What the kernels of one query and of few have in common. Up to 16 rows, query heads of a KV head, share each key that is read.
// Every warp goes through chunks of keys by itself and rotates them in shared memory; the results of the warps of a block are put
// together at the end, those of the blocks by lampe_merge().

static constexpr int LAMPE_VEC_ROWS = 16; // rows that a block takes
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

// the queries of a block, rotated for each region; get_data(r): a row in memory, get_position(r, region): what it is rotated to
template <int d, typename F, typename G>
static __device__ __forceinline__ void lampe_vec_load_queries(
        half * s_q, const lampe_args & args, const int n_row, const int tid, F && get_data, G && get_position) {
    for (int i = tid; i < LAMPE_VEC_ROWS*(d/4); i += lampe_vec_warps<d>()*WARP_SIZE) {
        const int r = i/(d/4);

        const lampe_quad_place place = lampe_get_place(i%(d/4), args.n_rot, args.neox);

        lampe_quad x = { make_float2(0.0f, 0.0f), make_float2(0.0f, 0.0f) };
        if (r < n_row) {
            x   = lampe_load_quad(get_data(r), GGML_TYPE_F32, place);
            x.a = make_float2(args.scale*x.a.x, args.scale*x.a.y);
            x.b = make_float2(args.scale*x.b.x, args.scale*x.b.y);
        }
#pragma unroll
        for (int region = 0; region < LAMPE_REGION_COUNT; ++region) {
            lampe_store_quad(s_q + (region*LAMPE_VEC_ROWS + r)*lampe_vec_stride<d>(),
                    lampe_rotate(x, lampe_rope_row(args, get_position(r, region)), args.n_rot, args.neox, place), place);
        }
    }
}

// rotate the keys of a chunk, by one warp, to the rows of the table at the offsets in s_rope
// shared: they are f16 and on their way to s_k, else they are read from k, from key j0 on
// n_ahead: rows of the table that a thread loads ahead
template <int d, bool shared, int n_ahead>
static __device__ __forceinline__ void lampe_vec_rotate_keys(
        half * s_k, const lampe_args & args, const int * s_rope, const char * k, const ggml_type type, const int j0,
        const lampe_quad_place (&place)[lampe_vec_quads<d>::n_part]) {
    using quads = lampe_vec_quads<d>;

    constexpr int stride = lampe_vec_stride<d>();

    const int lane = threadIdx.x;
    const int jq   = lane/quads::n_lane;

    // reading the table has the longest latency: its first rows come with the keys, the others before they are needed
    lampe_quad rope[n_ahead][quads::n_part];

    const auto load_rope = [&](const int i0) {
#pragma unroll
        for (int ia = 0; ia < n_ahead; ++ia) {
            const float * row = args.rope + s_rope[min((i0 + ia)*quads::n_key + jq, LAMPE_VEC_KEYS - 1)];
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
                    const lampe_quad x = shared ? lampe_load_quad((const char *) (s_k + j*stride), GGML_TYPE_F16, place[ip]) :
                        lampe_load_quad(k + min(j0 + j, args.n_kv - 1)*args.k_nb1, type, place[ip]);

                    lampe_store_quad(s_k + j*stride, lampe_rotate(x, rope_cur[ia][ip], args.neox, place[ip]), place[ip]);
                }
            }
        }
    }
}

// the values of a chunk of any type, by one warp
template <int d>
static __device__ __forceinline__ void lampe_vec_load_values(half * s_v, const lampe_args & args, const char * v, const int j0) {
#pragma unroll 1
    for (int i = threadIdx.x; i < LAMPE_VEC_KEYS*(d/4); i += WARP_SIZE) {
        const lampe_quad_place place = lampe_get_place(i%(d/4), 0, false);

        lampe_store_quad(s_v + i/(d/4)*lampe_vec_stride<d>(),
                lampe_load_quad(v + min(j0 + i/(d/4), args.n_kv - 1)*args.v_nb1, args.v_type, place), place);
    }
}

// values that no row sees become zero: an empty cell may hold anything, and anything times 0 may be NaN
// seen: a bit for each key
template <int d>
static __device__ __forceinline__ void lampe_vec_hide_values(half * s_v, const uint32_t seen) {
    for (int j = 0; j < LAMPE_VEC_KEYS; ++j) {
        for (int i = threadIdx.x; i < d && !(seen & (1u << j)); i += WARP_SIZE) {
            s_v[j*lampe_vec_stride<d>() + i] = __float2half(0.0f);
        }
    }
    __syncwarp();
}

// all rows times all keys of a chunk; q and k: the addresses that the thread points ldmatrix at
template <int d>
static __device__ __forceinline__ void lampe_vec_scores(lampe_tile_c (&scores)[2], const uint32_t q, const uint32_t k) {
#pragma unroll
    for (int i = 0; i < d/16; ++i) {
        lampe_tile_a a;
        lampe_tile_b b[2];
        lampe_load_matrix_a(a, q + 16*i*sizeof(half));
        lampe_load_matrix_b(b, k + 16*i*sizeof(half));
        ggml_cuda_mma::mma(scores[0], a, b[0]);
        ggml_cuda_mma::mma(scores[1], a, b[1]);
    }
}

template <int d>
static __device__ __forceinline__ void lampe_vec_output(
        lampe_tile_c (&out)[1][d/8], const lampe_tile_c (&scores)[1][2], const uint32_t v) {
    const lampe_tile_a weights = lampe_mma_weights(scores[0][0], scores[0][1]);
#pragma unroll
    for (int ot = 0; ot < d/16; ++ot) {
        lampe_tile_b b[2];
        lampe_load_matrix_b_trans(b, v + 16*ot*sizeof(half));
        ggml_cuda_mma::mma(out[0][2*ot + 0], weights, b[0]);
        ggml_cuda_mma::mma(out[0][2*ot + 1], weights, b[1]);
    }
}

// put the results of the warps of a block together; s_out: [n_warp, LAMPE_VEC_ROWS, d]
// get_row(r): which a row is of the n_row_all in [n_stream, n_q, n_head], get_head(r): its query head
template <int d, typename F, typename G>
static __device__ __forceinline__ void lampe_vec_store(
        const lampe_args & args, const lampe_tile_c (&out)[1][d/8], const float (&row_max)[1][2], const float (&row_sum)[1][2],
        float (&s_max)[lampe_vec_warps<d>()][LAMPE_VEC_ROWS], float (&s_sum)[lampe_vec_warps<d>()][LAMPE_VEC_ROWS], float * s_out,
        const int n_row, const int64_t n_row_all, F && get_row, G && get_head) {
    constexpr int n_warp   = lampe_vec_warps<d>();
    constexpr int n_thread = n_warp*WARP_SIZE;

    const int lane = threadIdx.x;
    const int warp = threadIdx.y;

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

    for (int i = warp*WARP_SIZE + lane; i < n_row*d; i += n_thread) {
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

        const int64_t row = get_row(r) - r; // of row 0, if all followed it

        if (args.n_split == 1) {
            args.dst[row*d + i] = lampe_row_factor(args.sinks, get_head(r), max, sum)*x;
            continue;
        }

        const int64_t row_split = blockIdx.x*n_row_all + row;

        args.partial[row_split*d + i] = x;
        if (i%d == 0) {
            args.partial_sum[row_split + r] = make_float2(max, sum);
        }
    }
}
