#pragma once

#include "lampe-attn-common.cuh"

// Attention of one query, as in decoding. Memory decides, so a key is read once for all query heads of its KV head, and rotated
// as it is read; the tiles are dealt out to blocks, and lampe_merge() puts together what they give.

static constexpr int LAMPE_FEW_WARPS   = 4;
static constexpr int LAMPE_FEW_THREADS = LAMPE_FEW_WARPS*WARP_SIZE;
static constexpr int LAMPE_FEW_TILE_KV = LAMPE_FEW_THREADS; // keys

// eight values from i on, i is a multiple of eight
template <bool f16>
static __device__ __forceinline__ void lampe_load_values(float (&x)[8], const char * row, const ggml_type type, const int i) {
    if constexpr (f16) {
        half2 tmp[4];
        ggml_cuda_memcpy_1<sizeof(tmp)>(tmp, row + i*sizeof(half));
#pragma unroll
        for (int l = 0; l < 4; ++l) {
            const float2 f = __half22float2(tmp[l]);
            x[2*l + 0] = f.x;
            x[2*l + 1] = f.y;
        }
    } else {
#pragma unroll
        for (int l = 0; l < 4; ++l) {
            const float2 f = lampe_load_pair(row, type, i + 2*l);
            x[2*l + 0] = f.x;
            x[2*l + 1] = f.y;
        }
    }
}

// n_r: query heads of a block, f16: keys and values are, in aligned rows
// blocks: [n_split, parts of the heads of a KV head, n_stream*n_head_kv]
template <int d, int n_r, bool f16>
static __global__ void __launch_bounds__(LAMPE_FEW_THREADS) lampe_attn_few(const lampe_args args) {
    // threads of a key, and what each has of it
    constexpr int n_lane = d/4 > WARP_SIZE/2 ? WARP_SIZE : d/4 > 8 ? WARP_SIZE/2 : 8;
    constexpr int n_quad = (d/4 + n_lane - 1)/n_lane;
    constexpr int n_ahead = n_quad > 1 ? 2 : 4; // keys that a thread has under way
    constexpr int n_key_warp = WARP_SIZE/n_lane;

    // threads of a value
    constexpr int n_lane_v  = d/8;
    constexpr int n_group_v = LAMPE_FEW_THREADS/n_lane_v; // threads beyond them have none

    __shared__ float s_q[LAMPE_REGION_COUNT][n_r][d];
    __shared__ float s_p[LAMPE_FEW_TILE_KV][n_r]; // scores, then weights
    __shared__ float s_mask[LAMPE_FEW_TILE_KV];
    __shared__ int   s_pos[LAMPE_FEW_TILE_KV];
    __shared__ int   s_region[LAMPE_FEW_TILE_KV];
    __shared__ float s_max[n_r];
    __shared__ float s_sum[n_r];
    __shared__ float s_keep[n_r];

    const int tid  = threadIdx.y*WARP_SIZE + threadIdx.x;
    const int lane = threadIdx.x;
    const int warp = threadIdx.y;

    const int ikv = blockIdx.z%args.n_head_kv;
    const int i3  = blockIdx.z/args.n_head_kv;
    const int h0  = ikv*args.n_gqa + blockIdx.y*n_r;
    const int n_h = min(n_r, args.n_gqa - (int) blockIdx.y*n_r);

    const ggml_type k_type = f16 ? GGML_TYPE_F16 : args.k_type;
    const ggml_type v_type = f16 ? GGML_TYPE_F16 : args.v_type;

    const int * plan = lampe_plan_row(args, i3, 0);

    const int pos          = plan[GGML_LAMPE_PLAN_POS];
    const int local_window = plan[GGML_LAMPE_PLAN_LOCAL_WINDOW];
    const int tail_start   = plan[GGML_LAMPE_PLAN_TAIL_START];
    const int num          = plan[GGML_LAMPE_PLAN_NUM];
    const int den          = plan[GGML_LAMPE_PLAN_DEN];

    const char  * k     = args.k + ikv*args.k_nb2 + i3*args.k_nb3;
    const char  * v     = args.v + ikv*args.v_nb2 + i3*args.v_nb3;
    const int   * k_pos = lampe_k_pos(args, i3);
    const half  * mask  = lampe_mask_row(args, i3, 0);

    for (int i = tid; i < n_r*(d/4); i += LAMPE_FEW_THREADS) {
        const int r = i/(d/4);

        const lampe_quad_place place = lampe_get_place(i%(d/4), args.n_rot, args.neox);

        lampe_quad x = { make_float2(0.0f, 0.0f), make_float2(0.0f, 0.0f) };
        if (r < n_h) {
            x = lampe_load_quad(args.q + (h0 + r)*args.q_nb2 + i3*args.q_nb3, GGML_TYPE_F32, place);
        }
        const int q_pos[LAMPE_REGION_COUNT] = {
            pos, lampe_middle(pos, num, den) + plan[GGML_LAMPE_PLAN_MIDDLE_SHIFT], pos - plan[GGML_LAMPE_PLAN_TAIL_SHIFT],
        };
#pragma unroll
        for (int region = 0; region < LAMPE_REGION_COUNT; ++region) {
            const lampe_quad y = lampe_rotate(x, lampe_rope_row(args, q_pos[region]), args.n_rot, args.neox, place);

            s_q[region][r][place.a + 0] = args.scale*y.a.x;
            s_q[region][r][place.a + 1] = args.scale*y.a.y;
            s_q[region][r][place.b + 0] = args.scale*y.b.x;
            s_q[region][r][place.b + 1] = args.scale*y.b.y;
        }
    }
    if (tid < n_r) {
        s_max[tid] = LAMPE_MIN_MAX;
        s_sum[tid] = 0.0f;
    }
    __syncthreads();

    lampe_quad_place place[n_quad];
    bool             has[n_quad];
#pragma unroll
    for (int iq = 0; iq < n_quad; ++iq) {
        const int u = lane%n_lane + iq*n_lane;

        has[iq]   = u < d/4;
        place[iq] = lampe_get_place(has[iq] ? u : 0, args.n_rot, args.neox);
    }

    lampe_quad q[n_r][n_quad];
    int        q_region = LAMPE_REGION_COUNT; // none

    float out[n_r][8] = {{0.0f}};

    const int group_v = tid/n_lane_v;
    const int lane_v  = tid%n_lane_v;

    for (int i_tile = blockIdx.x; i_tile < args.n_tile; i_tile += args.n_split) {
        const int j0 = i_tile*LAMPE_FEW_TILE_KV;

        // a thread per key
        {
            const int j = j0 + tid;

            const int   cur    = j < args.n_kv ? k_pos[j] : -1;
            const float hidden = cur >= 0 ? __half2float(mask[j]) : -INFINITY;
            const int   region = lampe_get_region(pos - cur, local_window, tail_start);

            s_mask[tid]   = hidden;
            s_region[tid] = region;
            s_pos[tid]    = region == LAMPE_REGION_MIDDLE ? lampe_middle(cur, num, den) : cur;

            if (!__syncthreads_or(hidden != -INFINITY)) {
                continue;
            }
        }

        for (int i0 = 0; i0 < WARP_SIZE; i0 += n_ahead*n_key_warp) {
            lampe_quad    x[n_ahead][n_quad];
            const float * rope[n_ahead];
#pragma unroll
            for (int ia = 0; ia < n_ahead; ++ia) {
                const int j = warp*WARP_SIZE + i0 + ia*n_key_warp + lane/n_lane;

                rope[ia] = lampe_rope_row(args, s_pos[j]);

                const char * row = k + (int64_t) min(j0 + j, args.n_kv - 1)*args.k_nb1;
#pragma unroll
                for (int iq = 0; iq < n_quad; ++iq) {
                    x[ia][iq] = lampe_load_quad(row, k_type, place[iq]);
                }
            }
#pragma unroll
            for (int ia = 0; ia < n_ahead; ++ia) {
                const int j = warp*WARP_SIZE + i0 + ia*n_key_warp + lane/n_lane;

                if (s_region[j] != q_region) {
                    q_region = s_region[j];
#pragma unroll
                    for (int r = 0; r < n_r; ++r) {
#pragma unroll
                        for (int iq = 0; iq < n_quad; ++iq) {
                            const float * row = s_q[q_region][r];
                            q[r][iq].a = make_float2(row[place[iq].a], row[place[iq].a + 1]);
                            q[r][iq].b = make_float2(row[place[iq].b], row[place[iq].b + 1]);
                        }
                    }
                }

                float score[n_r] = {0.0f};
#pragma unroll
                for (int iq = 0; iq < n_quad; ++iq) {
                    if (!has[iq]) {
                        continue;
                    }
                    const lampe_quad y = lampe_rotate(x[ia][iq], rope[ia], args.n_rot, args.neox, place[iq]);
#pragma unroll
                    for (int r = 0; r < n_r; ++r) {
                        score[r] += q[r][iq].a.x*y.a.x + q[r][iq].a.y*y.a.y + q[r][iq].b.x*y.b.x + q[r][iq].b.y*y.b.y;
                    }
                }
#pragma unroll
                for (int r = 0; r < n_r; ++r) {
                    score[r] = warp_reduce_sum<n_lane>(score[r]);
                    if (lane%n_lane == r%n_lane) {
                        s_p[j][r] = score[r];
                    }
                }
            }
        }
        __syncthreads();

        for (int r = warp; r < n_r; r += LAMPE_FEW_WARPS) {
            float x[LAMPE_FEW_TILE_KV/WARP_SIZE];
            float max = s_max[r];
#pragma unroll
            for (int i = 0; i < LAMPE_FEW_TILE_KV/WARP_SIZE; ++i) {
                const int j = i*WARP_SIZE + lane;

                x[i] = s_p[j][r];
                if (args.softcap != 0.0f) {
                    x[i] = args.softcap*tanhf(x[i]/args.softcap);
                }
                // a hidden key may be no number
                x[i] = s_mask[j] == -INFINITY ? -INFINITY : x[i] + s_mask[j];
                max  = fmaxf(max, x[i]);
            }
            max = warp_reduce_max<WARP_SIZE>(max);

            float sum = 0.0f;
#pragma unroll
            for (int i = 0; i < LAMPE_FEW_TILE_KV/WARP_SIZE; ++i) {
                x[i] = expf(x[i] - max);
                sum += x[i];

                s_p[i*WARP_SIZE + lane][r] = x[i];
            }
            sum = warp_reduce_sum<WARP_SIZE>(sum);

            if (lane == 0) {
                s_keep[r] = expf(s_max[r] - max);
                s_sum[r]  = s_keep[r]*s_sum[r] + sum;
                s_max[r]  = max;
            }
        }
        __syncthreads();

        if (group_v < n_group_v) {
#pragma unroll
            for (int r = 0; r < n_r; ++r) {
#pragma unroll
                for (int l = 0; l < 8; ++l) {
                    out[r][l] *= s_keep[r];
                }
            }
#pragma unroll 4
            for (int j = group_v; j < LAMPE_FEW_TILE_KV; j += n_group_v) {
                if (s_mask[j] == -INFINITY) { // never written, may hold anything
                    continue;
                }
                float x[8];
                lampe_load_values<f16>(x, v + (int64_t) (j0 + j)*args.v_nb1, v_type, 8*lane_v);
#pragma unroll
                for (int r = 0; r < n_r; ++r) {
                    const float p = s_p[j][r];
#pragma unroll
                    for (int l = 0; l < 8; ++l) {
                        out[r][l] += p*x[l];
                    }
                }
            }
        }
        __syncthreads();
    }

    // the groups add up in shared memory, in turn
    float (*s_out)[d] = s_q[0];
    for (int g = 0; g < n_group_v; ++g) {
        if (group_v == g) {
#pragma unroll
            for (int r = 0; r < n_r; ++r) {
#pragma unroll
                for (int l = 0; l < 8; ++l) {
                    s_out[r][8*lane_v + l] = g == 0 ? out[r][l] : s_out[r][8*lane_v + l] + out[r][l];
                }
            }
        }
        __syncthreads();
    }

    const int64_t row = (int64_t) i3*args.n_head + h0;
    for (int i = tid; i < n_h*d; i += LAMPE_FEW_THREADS) {
        const int r = i/d;

        if (args.n_split == 1) {
            args.dst[row*d + i] = lampe_row_factor(args.sinks, h0 + r, s_max[r], s_sum[r])*s_out[r][i%d];
            continue;
        }

        const int64_t row_split = (int64_t) blockIdx.x*args.n_stream*args.n_head + row;

        args.partial[row_split*d + i] = s_out[r][i%d];
        if (i%d == 0) {
            args.partial_sum[row_split + r] = make_float2(s_max[r], s_sum[r]);
        }
    }
}
