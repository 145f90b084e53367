#pragma once

#include "lampe-attn-common.cuh"

// Attention of one query, as in decoding. Memory decides, so a key is read once for all query heads of its KV head, and rotated
// in shared memory; every warp goes through chunks of keys by itself, and what the warps of a block have is put together at
// the end. lampe_merge() does the same for blocks.

static constexpr int LAMPE_FEW_WARPS   = 4;
static constexpr int LAMPE_FEW_THREADS = LAMPE_FEW_WARPS*WARP_SIZE;
static constexpr int LAMPE_FEW_ROWS    = 16; // query heads of a block
static constexpr int LAMPE_FEW_KEYS    = 16; // of a chunk

// halves from one row to the next in shared memory
template <int d>
static constexpr __host__ __device__ int lampe_few_stride() {
    return d + 8;
}

// queries, and the keys and values of every warp
template <int d>
static constexpr __host__ __device__ size_t lampe_few_shared_size() {
    return (LAMPE_REGION_COUNT*LAMPE_FEW_ROWS + 2*LAMPE_FEW_WARPS*LAMPE_FEW_KEYS)*lampe_few_stride<d>()*sizeof(half);
}

// f16 rows to shared memory, by one warp
template <int d>
static __device__ __forceinline__ void lampe_few_copy(half * s, const char * src, const int64_t nb1, const int n_key) {
    constexpr int n_chunk = d/8; // of 16 bytes

#pragma unroll
    for (int i0 = 0; i0 < LAMPE_FEW_KEYS*n_chunk; i0 += WARP_SIZE) {
        const int j = (i0 + threadIdx.x)/n_chunk;
        const int c = (i0 + threadIdx.x)%n_chunk;

        half * to = s + j*lampe_few_stride<d>() + 8*c;

        if (j < n_key) {
            cp_async_cg_16<128>(ggml_cuda_cvta_generic_to_shared(to), src + j*nb1 + 16*c);
        } else {
            *(int4 *) to = make_int4(0, 0, 0, 0);
        }
    }
}

// f16: keys and values are, in aligned rows
// blocks: [n_split, parts of the heads of a KV head, n_stream*n_head_kv]
template <int d, bool f16>
static __global__ void __launch_bounds__(LAMPE_FEW_THREADS, d <= 128 ? 4 : 2) lampe_attn_few(const lampe_args args) {
#ifdef AMPERE_MMA_AVAILABLE
    using tile_ab = ggml_cuda_mma::tile<16,  8, half2>;
    using tile_c  = ggml_cuda_mma::tile<16, 16, float>;

    constexpr int stride  = lampe_few_stride<d>();
    constexpr int n_quad  = LAMPE_FEW_KEYS*(d/4)/WARP_SIZE; // of a chunk, per thread
    constexpr int n_ahead = f16 ? 4 : 1;                    // quads that a thread has under way

    extern __shared__ half2 lampe_shared[];

    __shared__ float s_max[LAMPE_FEW_WARPS][LAMPE_FEW_ROWS];
    __shared__ float s_sum[LAMPE_FEW_WARPS][LAMPE_FEW_ROWS];
    __shared__ int   s_pos[LAMPE_FEW_WARPS][LAMPE_FEW_KEYS];

    const int lane = threadIdx.x;
    const int warp = threadIdx.y;
    const int tid  = warp*WARP_SIZE + lane;

    half  * s_q  = (half *) lampe_shared;
    half  * s_kv = s_q + LAMPE_REGION_COUNT*LAMPE_FEW_ROWS*stride;
    half  * s_k  = s_kv + 2*warp*LAMPE_FEW_KEYS*stride;
    half  * s_v  = s_k + LAMPE_FEW_KEYS*stride;
    float * s_out = (float *) s_kv; // at the end: [LAMPE_FEW_WARPS, LAMPE_FEW_ROWS, d], each where the warp's keys have been

    const int ikv = blockIdx.z%args.n_head_kv;
    const int i3  = blockIdx.z/args.n_head_kv;
    const int h0  = ikv*args.n_gqa + blockIdx.y*LAMPE_FEW_ROWS;
    const int n_h = min(LAMPE_FEW_ROWS, args.n_gqa - (int) blockIdx.y*LAMPE_FEW_ROWS);

    const char * k     = args.k + ikv*args.k_nb2 + i3*args.k_nb3;
    const char * v     = args.v + ikv*args.v_nb2 + i3*args.v_nb3;
    const int  * k_pos = lampe_k_pos(args, i3);
    const half * mask  = lampe_mask_row(args, i3, 0);

    const int j_step = args.n_split*LAMPE_FEW_WARPS*LAMPE_FEW_KEYS;

    const auto copy_keys = [&](const int j0) {
        if (f16 && j0 < args.n_kv) {
            lampe_few_copy<d>(s_k, k + (int64_t) j0*args.k_nb1, args.k_nb1, args.n_kv - j0);
        }
    };
    const auto copy_values = [&](const int j0) {
        if (f16 && j0 < args.n_kv) {
            lampe_few_copy<d>(s_v, v + (int64_t) j0*args.v_nb1, args.v_nb1, args.n_kv - j0);
        }
    };

    const int j_first = (blockIdx.x*LAMPE_FEW_WARPS + warp)*LAMPE_FEW_KEYS;

    copy_keys(j_first);
    copy_values(j_first);

    const int * plan = lampe_plan_row(args, i3, 0);

    const int pos          = plan[GGML_LAMPE_PLAN_POS];
    const int local_window = plan[GGML_LAMPE_PLAN_LOCAL_WINDOW];
    const int tail_start   = plan[GGML_LAMPE_PLAN_TAIL_START];
    const int num          = plan[GGML_LAMPE_PLAN_NUM];
    const int den          = plan[GGML_LAMPE_PLAN_DEN];

    {
        const int q_pos[LAMPE_REGION_COUNT] = {
            pos, lampe_middle(pos, num, den) + plan[GGML_LAMPE_PLAN_MIDDLE_SHIFT], pos - plan[GGML_LAMPE_PLAN_TAIL_SHIFT],
        };
        for (int i = tid; i < LAMPE_FEW_ROWS*(d/4); i += LAMPE_FEW_THREADS) {
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
                lampe_store_quad(s_q + (region*LAMPE_FEW_ROWS + r)*stride,
                        lampe_rotate(x, lampe_rope_row(args, q_pos[region]), args.n_rot, args.neox, place), place);
            }
        }
    }
    __syncthreads();

    tile_c out[d/16];

    // of rows lane/4 and lane/4 + 8
    float row_max[2] = { LAMPE_MIN_MAX, LAMPE_MIN_MAX };
    float row_sum[2] = { 0.0f, 0.0f };

    for (int j0 = j_first; j0 < args.n_kv; j0 += j_step) {
        // a key per thread, twice
        const int j = j0 + lane%LAMPE_FEW_KEYS;

        const int   cur    = j < args.n_kv ? k_pos[j] : -1;
        const float added  = cur >= 0 ? __half2float(mask[j]) : -INFINITY;
        const int   region = lampe_get_region(pos - cur, local_window, tail_start);
        const bool  seen   = added != -INFINITY;

        s_pos[warp][lane%LAMPE_FEW_KEYS] = region == LAMPE_REGION_MIDDLE ? lampe_middle(cur, num, den) : cur;

        cp_async_wait_all();
        __syncwarp();

        const uint32_t any = __ballot_sync(0xFFFFFFFF, seen);
        if (any == 0) {
            copy_keys(j0 + j_step);
            copy_values(j0 + j_step);
            continue;
        }

#pragma unroll 1
        for (int i0 = 0; i0 < n_quad; i0 += n_ahead) {
            lampe_quad x[n_ahead];
#pragma unroll
            for (int ia = 0; ia < n_ahead; ++ia) {
                const int i  = (i0 + ia)*WARP_SIZE + lane;
                const int jq = i/(d/4);

                const lampe_quad_place place = lampe_get_place(i%(d/4), args.n_rot, args.neox);

                if (f16) {
                    x[ia] = lampe_load_quad((const char *) (s_k + jq*stride), GGML_TYPE_F16, place);
                } else {
                    x[ia] = lampe_load_quad(k + (int64_t) min(j0 + jq, args.n_kv - 1)*args.k_nb1, args.k_type, place);
                }
                x[ia] = lampe_rotate(x[ia], lampe_rope_row(args, s_pos[warp][jq]), args.n_rot, args.neox, place);
            }
#pragma unroll
            for (int ia = 0; ia < n_ahead; ++ia) {
                const int i = (i0 + ia)*WARP_SIZE + lane;

                lampe_store_quad(s_k + i/(d/4)*stride, x[ia], lampe_get_place(i%(d/4), args.n_rot, args.neox));
            }
        }
        if (!f16) {
#pragma unroll 1
            for (int i = lane; i < LAMPE_FEW_KEYS*(d/4); i += WARP_SIZE) {
                const lampe_quad_place place = lampe_get_place(i%(d/4), 0, false);

                lampe_store_quad(s_v + i/(d/4)*stride,
                        lampe_load_quad(v + (int64_t) min(j0 + i/(d/4), args.n_kv - 1)*args.v_nb1, args.v_type, place), place);
            }
        }
        __syncwarp();

        // what is hidden may never have been written, and then be no number
        if (any != 0xFFFFFFFF) {
            for (int jv = 0; jv < LAMPE_FEW_KEYS; ++jv) {
                for (int i = lane; i < d && !(any & (1u << jv)); i += WARP_SIZE) {
                    s_v[jv*stride + i] = __float2half(0.0f);
                }
            }
            __syncwarp();
        }

        tile_c scores;
#pragma unroll
        for (int ir = 0; ir < LAMPE_REGION_COUNT; ++ir) {
            const uint32_t of_region = __ballot_sync(0xFFFFFFFF, seen && region == ir);
            if (of_region == 0) {
                continue;
            }

            tile_c cur_scores;
#pragma unroll
            for (int i0 = 0; i0 < d; i0 += 16) {
                tile_ab a;
                tile_ab b;
                ggml_cuda_mma::load_ldmatrix(a, (const half2 *) (s_q + ir*LAMPE_FEW_ROWS*stride + i0), stride/2);
                ggml_cuda_mma::load_ldmatrix(b, (const half2 *) (s_k + i0), stride/2);
                ggml_cuda_mma::mma(cur_scores, a, b);
            }
#pragma unroll
            for (int l = 0; l < tile_c::ne; ++l) {
                if (of_region & (1u << tile_c::get_j(l))) {
                    scores.x[l] = cur_scores.x[l];
                }
            }
        }
        __syncwarp();
        copy_keys(j0 + j_step);

#pragma unroll
        for (int l = 0; l < tile_c::ne; ++l) {
            const float m = __shfl_sync(0xFFFFFFFF, added, tile_c::get_j(l), WARP_SIZE);
            if (args.softcap != 0.0f) {
                scores.x[l] = args.softcap*tanhf(scores.x[l]/args.softcap);
            }
            scores.x[l] = m == -INFINITY ? -INFINITY : scores.x[l] + m;
        }

#pragma unroll
        for (int hi = 0; hi < 2; ++hi) {
            float max = row_max[hi];
#pragma unroll
            for (int l0 = 0; l0 < 4; ++l0) {
                max = fmaxf(max, scores.x[4*(l0/2) + 2*hi + l0%2]);
            }
            max = fmaxf(max, __shfl_xor_sync(0xFFFFFFFF, max, 1, WARP_SIZE));
            max = fmaxf(max, __shfl_xor_sync(0xFFFFFFFF, max, 2, WARP_SIZE));

            const float keep = exp2f(LAMPE_LOG2E*(row_max[hi] - max));

            row_max[hi]  = max;
            row_sum[hi] *= keep;
#pragma unroll
            for (int l0 = 0; l0 < 4; ++l0) {
                float & x = scores.x[4*(l0/2) + 2*hi + l0%2];

                x            = exp2f(LAMPE_LOG2E*(x - max));
                row_sum[hi] += x;
            }
#pragma unroll
            for (int ot = 0; ot < d/16; ++ot) {
#pragma unroll
                for (int l0 = 0; l0 < 4; ++l0) {
                    out[ot].x[4*(l0/2) + 2*hi + l0%2] *= keep;
                }
            }
        }

        tile_ab p;
#pragma unroll
        for (int l = 0; l < tile_ab::ne; ++l) {
            p.x[l] = __floats2half2_rn(scores.x[2*l], scores.x[2*l + 1]);
        }
#pragma unroll
        for (int ot = 0; ot < d/16; ++ot) {
            tile_ab b;
            ggml_cuda_mma::load_ldmatrix_trans(b, (const half2 *) (s_v + 16*ot), stride/2);
            ggml_cuda_mma::mma(out[ot], p, b);
        }
        __syncwarp();
        copy_values(j0 + j_step);
    }
    __syncthreads();

#pragma unroll
    for (int hi = 0; hi < 2; ++hi) {
        float sum = row_sum[hi];
        sum += __shfl_xor_sync(0xFFFFFFFF, sum, 1, WARP_SIZE);
        sum += __shfl_xor_sync(0xFFFFFFFF, sum, 2, WARP_SIZE);

        const int r = tile_c::get_i(2*hi);
        if (lane%4 == 0) {
            s_max[warp][r] = row_max[hi];
            s_sum[warp][r] = sum;
        }
#pragma unroll
        for (int ot = 0; ot < d/16; ++ot) {
#pragma unroll
            for (int lo = 0; lo < 2; ++lo) {
                const int l = 4*lo + 2*hi;
                *(float2 *) (s_out + (warp*LAMPE_FEW_ROWS + r)*d + ot*16 + tile_c::get_j(l)) = make_float2(out[ot].x[l], out[ot].x[l + 1]);
            }
        }
    }
    __syncthreads();

    const int64_t row = (int64_t) i3*args.n_head + h0;
    for (int i = tid; i < n_h*d; i += LAMPE_FEW_THREADS) {
        const int r = i/d;

        float max = LAMPE_MIN_MAX;
#pragma unroll
        for (int iw = 0; iw < LAMPE_FEW_WARPS; ++iw) {
            max = fmaxf(max, s_max[iw][r]);
        }

        float sum = 0.0f;
        float x   = 0.0f;
#pragma unroll
        for (int iw = 0; iw < LAMPE_FEW_WARPS; ++iw) {
            const float keep = exp2f(LAMPE_LOG2E*(s_max[iw][r] - max));

            sum += keep*s_sum[iw][r];
            x   += keep*s_out[iw*LAMPE_FEW_ROWS*d + i];
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
