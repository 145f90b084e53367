// Kernels that try the emulation: some that are right, and some with one mistake each.

#include "common.cuh"
#include "cp-async.cuh"
#include "mma.cuh"

using namespace ggml_cuda_mma;

static constexpr int N_WARPS = 4;
static constexpr int STRIDE  = 64/2 + 4; // half2

static __device__ void load_tile(half2 * s, const half * src, const int tid) {
    for (int i = tid; i < 64*8; i += N_WARPS*WARP_SIZE) {
        cp_async_cg_16<128>(ggml_cuda_cvta_generic_to_shared(s + i/8*STRIDE + i%8*4), src + i*8);
    }
}

// C = A*B, all 64x64; B is given by columns (trans: by rows), small: with the instruction of 8 columns
template <bool trans, bool small>
static __global__ void __launch_bounds__(N_WARPS*WARP_SIZE, 1) multiply(const half * a, const half * b, float * c) {
    extern __shared__ half2 s_tiles[];

    half2 * s_a = s_tiles;
    half2 * s_b = s_a + 64*STRIDE;

    const int tid = threadIdx.y*WARP_SIZE + threadIdx.x;
    a += blockIdx.x*64*64;
    b += blockIdx.x*64*64;
    c += blockIdx.x*64*64;

    load_tile(s_a, a, tid);
    load_tile(s_b, b, tid);
    cp_async_wait_all();
    __syncthreads();

    tile<16, 16, float> sum[4];
#pragma unroll
    for (int k = 0; k < 4; ++k) {
        tile<16, 8, half2> ta;
        load_ldmatrix(ta, s_a + threadIdx.y*16*STRIDE + k*8, STRIDE);
        for (int j = 0; j < 4; ++j) {
            if constexpr (small) {
                for (int half_j = 0; half_j < 2; ++half_j) {
                    tile<8, 8, half2> tb;
                    load_ldmatrix(tb, s_b + (j*16 + half_j*8)*STRIDE + k*8, STRIDE);
                    tile<16, 8, float> part;
                    for (int l = 0; l < part.ne; ++l) {
                        part.x[l] = sum[j].x[4*half_j + l];
                    }
                    mma(part, ta, tb);
                    for (int l = 0; l < part.ne; ++l) {
                        sum[j].x[4*half_j + l] = part.x[l];
                    }
                }
            } else {
                tile<16, 8, half2> tb;
                if constexpr (trans) {
                    load_ldmatrix_trans(tb, s_b + k*16*STRIDE + j*8, STRIDE);
                } else {
                    load_ldmatrix(tb, s_b + j*16*STRIDE + k*8, STRIDE);
                }
                mma(sum[j], ta, tb);
            }
        }
    }
    for (int j = 0; j < 4; ++j) {
        for (int l = 0; l < sum[j].ne; ++l) {
            c[(threadIdx.y*16 + sum[j].get_i(l))*64 + j*16 + sum[j].get_j(l)] = sum[j].x[l];
        }
    }
}

extern "C" void selftest_multiply(const half * a, const half * b, float * c, int n_blocks, int kind) {
    const size_t shared = 2*64*STRIDE*sizeof(half2);
    const dim3   block(WARP_SIZE, N_WARPS);

    switch (kind) {
        case 0:
            multiply<false, false><<<n_blocks, block, shared, nullptr>>>(a, b, c);
            break;
        case 1:
            multiply<true, false><<<n_blocks, block, shared, nullptr>>>(a, b, c);
            break;
        default:
            multiply<false, true><<<
                n_blocks, block,
                shared>>>(
                a, b, c);
            break;
    }
    CUDA_CHECK(cudaGetLastError());
}

// the registers of each lane after ldmatrix, and where the tiles say that they come from
template <int I, int J>
static __global__ void read_tile(const half2 * in, half2 * loaded, half2 * generic) {
    __shared__ __align__(16) half2 s[16*12];

    for (int i = threadIdx.x; i < 16*12; i += WARP_SIZE) {
        s[i] = in[i];
    }
    __syncwarp();

    tile<I, J, half2> t;
    tile<I, J, half2> g;
    load_ldmatrix(t, s, 12);
    load_generic(g, s, 12);
    for (int l = 0; l < t.ne; ++l) {
        loaded [threadIdx.x*t.ne + l] = t.x[l];
        generic[threadIdx.x*t.ne + l] = g.x[l];
    }
}

extern "C" void selftest_read_tile(const half2 * in, half2 * loaded, half2 * generic, int i, int j) {
    if (i == 16 && j == 8) {
        read_tile<16, 8><<<1, 32>>>(in, loaded, generic);
    } else if (i == 16) {
        read_tile<16, 4><<<1, 32>>>(in, loaded, generic);
    } else {
        read_tile<8, 8><<<1, 32>>>(in, loaded, generic);
    }
}

// sum, maximum and number of negative values of each row
static __global__ void reduce(const float * x, const int n, float * sum, float * max, int * negative, int * any) {
    __shared__ float s_sum[8];
    __shared__ float s_max[8];
    __shared__ int   s_negative;

    const int warp = threadIdx.x/WARP_SIZE;
    const int lane = threadIdx.x%WARP_SIZE;

    if (threadIdx.x == 0) {
        s_negative = 0;
    }
    __syncthreads();

    float cur_sum = 0.0f;
    float cur_max = -INFINITY;
    bool  has     = false;
    for (int i = threadIdx.x; i < n; i += blockDim.x) {
        const float v = x[blockIdx.x*n + i];
        cur_sum += v;
        cur_max  = fmaxf(cur_max, v);
        has      = has || v < 0.0f;
        if (v < 0.0f) {
            atomicAdd(&s_negative, 1);
        }
    }
    for (int offset = WARP_SIZE/2; offset > 0; offset /= 2) {
        cur_sum += __shfl_down_sync(0xFFFFFFFF, cur_sum, offset);
    }
    cur_max = warp_reduce_max(cur_max);
    if (lane == 0) {
        s_sum[warp] = cur_sum;
        s_max[warp] = cur_max;
    }
    const int some = __syncthreads_or(has);

    if (warp == 0) {
        const int n_warps = blockDim.x/WARP_SIZE;
        cur_sum = warp_reduce_sum(lane < n_warps ? s_sum[lane] : 0.0f);
        cur_max = warp_reduce_max<8>(s_max[lane%n_warps]);
        if (lane == 0) {
            sum[blockIdx.x]      = cur_sum;
            max[blockIdx.x]      = cur_max;
            negative[blockIdx.x] = s_negative;
            any[blockIdx.x]      = some;
        }
    }
}

extern "C" void selftest_reduce(const float * x, int n, int n_rows, float * sum, float * max, int * negative, int * any) {
    reduce<<<n_rows, 256>>>(x, n, sum, max, negative, any);
}

// what each lane gets: results of shuffles with width 8, and a vote of the upper half of the warp
static __global__ void shuffle(int * out) {
    const int lane = threadIdx.x;
    int * o = out + lane*5;

    o[0] = __shfl_sync(0xFFFFFFFF, lane, 3, 8);
    o[1] = __shfl_xor_sync(0xFFFFFFFF, lane, 8, 8);
    o[2] = __shfl_down_sync(0xFFFFFFFF, lane, 2, 8);
    o[3] = __shfl_up_sync(0xFFFFFFFF, lane, 2, 8);
    o[4] = lane < 16 ? 0 : (int) (__ballot_sync(0xFFFF0000, lane%2) >> 16);
}

extern "C" void selftest_shuffle(int * out) {
    shuffle<<<1, 32>>>(out);
}

// rounding to half and bfloat16, and sums of halves
static __global__ void convert(const float * x, half * h, nv_bfloat16 * b, half2 * twice, const int n) {
    const int i = blockIdx.x*blockDim.x + threadIdx.x;
    if (i < n) {
        h[i]     = __float2half(x[i]);
        b[i]     = __float2bfloat16(x[i]);
        twice[i] = __hadd2(make_half2(h[i], x[i]), __floats2half2_rn(x[i], 1.0f));
    }
}

extern "C" void selftest_convert(const float * x, half * h, nv_bfloat16 * b, half2 * twice, int n) {
    convert<<<(n + 63)/64, dim3(64)>>>(x, h, b, twice, n);
}

//
// mistakes
//

// every thread takes what another warp wrote
static __global__ void reverse(const int * in, int * out, const bool wait) {
    __shared__ int s[128];

    s[threadIdx.x] = in[threadIdx.x];
    if (wait) {
        __syncthreads();
    }
    out[threadIdx.x] = s[127 - threadIdx.x];
}

// what is read in one turn is written in the next
static __global__ void rotate(int * data, const bool wait) {
    __shared__ int s[128];

    for (int turn = 0; turn < 4; ++turn) {
        s[threadIdx.x] = data[threadIdx.x];
        __syncthreads();
        data[threadIdx.x] = s[(threadIdx.x + 1)%128];
        if (wait) {
            __syncthreads();
        }
    }
}

static __global__ void copy_async(const half * in, half * out, const int mistake) {
    __shared__ __align__(16) half s[32*8];

    half * to = s + threadIdx.x*8;
    cp_async_cg_16<0>(ggml_cuda_cvta_generic_to_shared(to), in + threadIdx.x*8 + (mistake == 2));
    if (mistake == 3) {
        to[0] = 1.0f;
    }
    if (mistake != 1) {
        cp_async_wait_all();
    }
    out[threadIdx.x] = to[0];
    cp_async_wait_all();
}

static __global__ void diverge(int * out, const int mistake) {
    __shared__ int s[64];

    s[threadIdx.x] = 1;
    switch (mistake) {
        case 0: // some do not come
            if (threadIdx.x < 32) {
                __syncthreads();
            }
            break;
        case 1: // two places
            if (threadIdx.x < 32) {
                __syncthreads();
            } else {
                __syncthreads();
            }
            break;
        case 2: // half a warp
            if (threadIdx.x%32 < 16) {
                s[threadIdx.x] = __shfl_xor_sync(0xFFFFFFFF, s[threadIdx.x], 1);
            }
            break;
        case 3: // the first warp waits for something else
            if (threadIdx.x < 32) {
                s[threadIdx.x] = __shfl_xor_sync(0xFFFFFFFF, s[threadIdx.x], 1);
                if (threadIdx.x%2) {
                    __syncwarp();
                }
            }
            __syncthreads();
            break;
        case 4: // a lane that takes no part
            s[threadIdx.x] = __shfl_sync(1u << threadIdx.x%32, s[threadIdx.x], 0);
            break;
        case 5: // no shared memory
            {
                tile<16, 8, half2> t;
                load_ldmatrix(t, (const half2 *) out, 4);
            }
            break;
        case 6: // past the end
            s[threadIdx.x + mistake*6] = 1;
            break;
        case 7: // never written
            {
                __shared__ int unset[64];
                out[threadIdx.x] = unset[threadIdx.x];
            }
            return;
        case 8: // not aligned
            *(int4 *) (s + 1) = make_int4(0, 0, 0, 0);
            break;
    }
    out[threadIdx.x] = s[threadIdx.x];
}

extern "C" void selftest_reverse(const int * in, int * out, int wait) {
    reverse<<<1, 128>>>(in, out, wait);
}

extern "C" void selftest_rotate(int * data, int wait) {
    rotate<<<1, 128>>>(data, wait);
}

extern "C" void selftest_copy_async(const half * in, half * out, int mistake) {
    copy_async<<<1, 32>>>(in, out, mistake);
}

extern "C" void selftest_diverge(int * out, int mistake) {
    diverge<<<1, 64>>>(out, mistake);
}

static __global__ void touch(char * p, const int at) {
    extern __shared__ char s[];
    s[at] = 1;
    p[at] = s[at];
}

// a workspace and shared memory of n bytes, of which byte `at` is written
extern "C" void selftest_touch(int n, int at, int n_workspace) {
    ggml_backend_cuda_context  ctx(0);
    ggml_cuda_pool_alloc<char> work(ctx.pool(), n_workspace);

    touch<<<1, 1, n, ctx.stream()>>>(work.ptr, at);
}
