#pragma once

#include "lampe-attn-common.cuh"

static constexpr int LAMPE_MERGE_WARPS = 8;

// put the results of the parts of the keys together
// n_row: rows of a block, whose warps are shared among them; the warps of a row share its parts
// blocks: [n_stream*n_q*n_head/n_row]
template <int d, int n_row>
static __global__ void __launch_bounds__(LAMPE_MERGE_WARPS*WARP_SIZE) lampe_merge(const lampe_args args) {
    constexpr int n_part = LAMPE_MERGE_WARPS/n_row;
    constexpr int n_pair = (d/2 + WARP_SIZE - 1)/WARP_SIZE; // pairs of values that a thread has

    const int64_t n_row_all = (int64_t) args.n_stream*args.n_q*args.n_head;
    const int64_t row       = (int64_t) blockIdx.x*n_row + threadIdx.y/n_part;
    const int     i_part    = threadIdx.y%n_part;

    __shared__ float2 s_out[LAMPE_MERGE_WARPS][n_pair][WARP_SIZE];
    __shared__ float2 s_sum[LAMPE_MERGE_WARPS];

    float  max = LAMPE_MIN_MAX;
    float  sum = 0.0f;
    float2 out[n_pair] = {};

    if (row < n_row_all) {
#pragma unroll 4
        for (int i = i_part; i < args.n_split; i += n_part) {
            const float2   part = args.partial_sum[i*n_row_all + row];
            const float2 * x    = (const float2 *) (args.partial + (i*n_row_all + row)*d);

            const float max_new = fmaxf(max, part.x);
            const float before  = exp2f(LAMPE_LOG2E*(max - max_new));
            const float now     = exp2f(LAMPE_LOG2E*(part.x - max_new));

            max = max_new;
            sum = before*sum + now*part.y;
#pragma unroll
            for (int ip = 0; ip < n_pair; ++ip) {
                if (ip*WARP_SIZE + threadIdx.x < d/2) {
                    const float2 y = x[ip*WARP_SIZE + threadIdx.x];

                    out[ip] = make_float2(before*out[ip].x + now*y.x, before*out[ip].y + now*y.y);
                }
            }
        }
    }

    if (n_part > 1) {
#pragma unroll
        for (int ip = 0; ip < n_pair; ++ip) {
            s_out[threadIdx.y][ip][threadIdx.x] = out[ip];
        }
        if (threadIdx.x == 0) {
            s_sum[threadIdx.y] = make_float2(max, sum);
        }
        __syncthreads();

        if (i_part > 0) {
            return;
        }
#pragma unroll
        for (int i = 1; i < n_part; ++i) {
            const float2 part = s_sum[threadIdx.y + i];

            const float max_new = fmaxf(max, part.x);
            const float before  = exp2f(LAMPE_LOG2E*(max - max_new));
            const float now     = exp2f(LAMPE_LOG2E*(part.x - max_new));

            max = max_new;
            sum = before*sum + now*part.y;
#pragma unroll
            for (int ip = 0; ip < n_pair; ++ip) {
                const float2 y = s_out[threadIdx.y + i][ip][threadIdx.x];

                out[ip] = make_float2(before*out[ip].x + now*y.x, before*out[ip].y + now*y.y);
            }
        }
    }

    if (row >= n_row_all) {
        return;
    }

    const float factor = lampe_row_factor(args.sinks, row%args.n_head, max, sum);
#pragma unroll
    for (int ip = 0; ip < n_pair; ++ip) {
        if (ip*WARP_SIZE + threadIdx.x < d/2) {
            ((float2 *) (args.dst + row*d))[ip*WARP_SIZE + threadIdx.x] = make_float2(factor*out[ip].x, factor*out[ip].y);
        }
    }
}
