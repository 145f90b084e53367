#pragma once

#include "lampe-attn-common.cuh"

#include <climits>

// What is done for a batch before lampe_attn_mma: keys and queries are rotated once, instead of by every block that reads them,
// and the passes that a block has to make over each tile are found.

// sort the queries by their variant of the middle
// one block per stream
static __global__ void lampe_find_variants(const lampe_args args) {
    const int i3 = blockIdx.x;

    __shared__ int first;

    int2        * variants = args.variants + i3*args.n_variant;
    lampe_query * queries  = args.queries  + (int64_t) i3*args.n_q;
    int         * q_middle = args.q_middle + (int64_t) i3*args.n_q;

    for (int i = threadIdx.x; i < args.n_q; i += blockDim.x) {
        const int * row = lampe_plan_row(args, i3, i);

        queries[i].pos          = row[GGML_LAMPE_PLAN_POS];
        queries[i].local_window = row[GGML_LAMPE_PLAN_LOCAL_WINDOW];
        queries[i].tail_start   = row[GGML_LAMPE_PLAN_TAIL_START];
        queries[i].variant      = LAMPE_VARIANT_OTHER;

        q_middle[i] = (int) lampe_query_position(row, LAMPE_REGION_MIDDLE, row[GGML_LAMPE_PLAN_POS]);
    }

    for (int v = 0; v < args.n_variant; ++v) {
        if (threadIdx.x == 0) {
            first = args.n_q;
        }
        __syncthreads();

        // each thread finds the first of its queries that has no variant yet
        for (int i = threadIdx.x; i < args.n_q; i += blockDim.x) {
            if (queries[i].variant == LAMPE_VARIANT_OTHER) {
                atomicMin(&first, i);
                break;
            }
        }
        __syncthreads();

        const int i_first = first;
        if (i_first == args.n_q) {
            return;
        }

        const int num = lampe_plan_row(args, i3, i_first)[GGML_LAMPE_PLAN_NUM];
        const int den = lampe_plan_row(args, i3, i_first)[GGML_LAMPE_PLAN_DEN];

        for (int i = threadIdx.x; i < args.n_q; i += blockDim.x) {
            const int * row = lampe_plan_row(args, i3, i);
            if (queries[i].variant == LAMPE_VARIANT_OTHER && row[GGML_LAMPE_PLAN_NUM] == num && row[GGML_LAMPE_PLAN_DEN] == den) {
                queries[i].variant = v;
            }
        }
        if (threadIdx.x == 0) {
            variants[v] = make_int2(num, den);
        }
        __syncthreads();
    }
}

// the passes that a query needs over a tile with keys at k_min to k_max
static __device__ __forceinline__ int lampe_find_passes(const lampe_query & query, const int k_min, const int k_max) {
    const int regions = lampe_get_regions(query.pos - k_max, query.pos - k_min, query.local_window, query.tail_start);

    int res = 0;
    if (regions & (1 << LAMPE_REGION_LOCAL)) {
        res |= LAMPE_TILE_LOCAL;
    }
    if (regions & (1 << LAMPE_REGION_TAIL)) {
        res |= LAMPE_TILE_TAIL;
    }
    if (regions & (1 << LAMPE_REGION_MIDDLE)) {
        res |= query.variant == LAMPE_VARIANT_OTHER ? LAMPE_TILE_OTHER : LAMPE_TILE_VARIANT << query.variant;
    }

    return res;
}

// find the flags of each tile
// one block per tile of keys, block of rows and stream
template <int n_row_block, int n_tile_kv>
static __global__ void lampe_find_tiles(const lampe_args args) {
#ifdef AMPERE_MMA_AVAILABLE
    constexpr int n_key = 8; // keys that a thread looks at, 16 bytes of the mask

    const int i_tile  = blockIdx.x;
    const int i_block = blockIdx.y;
    const int i3      = blockIdx.z;

    __shared__ int s_k_min;
    __shared__ int s_k_max;
    __shared__ int s_flags;

    const int q0 = i_block*n_row_block/args.n_gqa;
    const int q1 = min(args.n_q, (i_block*n_row_block + n_row_block - 1)/args.n_gqa + 1);

    if (threadIdx.x == 0) {
        s_k_min = INT_MAX;
        s_k_max = -1;
        s_flags = 0;
    }
    __syncthreads();

    if (threadIdx.x < n_tile_kv) {
        const int j     = i_tile*n_tile_kv + threadIdx.x;
        const int k_pos = j < args.n_kv ? lampe_k_pos(args, i3)[j] : -1;

        const int k_min = __reduce_min_sync(0xFFFFFFFF, k_pos < 0 ? INT_MAX : k_pos);
        const int k_max = __reduce_max_sync(0xFFFFFFFF, k_pos);
        const int empty = __any_sync(0xFFFFFFFF, k_pos < 0);

        if (threadIdx.x%WARP_SIZE == 0) {
            atomicMin(&s_k_min, k_min);
            atomicMax(&s_k_max, k_max);
            if (empty) {
                atomicOr(&s_flags, LAMPE_TILE_EMPTY | LAMPE_TILE_MASKED);
            }
        }
    }
    __syncthreads();

    const int k_min = s_k_min;
    const int k_max = s_k_max;
    const int j     = i_tile*n_tile_kv + threadIdx.x%(n_tile_kv/n_key)*n_key;

    int flags = 0;
    if (k_max >= 0) {
#pragma unroll 4
        for (int i = q0 + threadIdx.x/(n_tile_kv/n_key); i < q1; i += blockDim.x/(n_tile_kv/n_key)) {
            const half * mask = lampe_mask_row(args, i3, i) + j;

            uint32_t seen  = 0; // stays 0 where every entry is -inf
            uint32_t added = 0; // stays 0 where every entry is 0
            if (j + n_key <= args.n_kv && (uintptr_t) mask % 16 == 0) {
                const int4 x = *(const int4 *) mask;

                seen  = (x.x ^ 0xFC00FC00) | (x.y ^ 0xFC00FC00) | (x.z ^ 0xFC00FC00) | (x.w ^ 0xFC00FC00);
                added = x.x | x.y | x.z | x.w;
            } else {
                for (int jk = 0; jk < n_key && j + jk < args.n_kv; ++jk) {
                    const uint32_t x = ((const uint16_t *) mask)[jk];

                    seen  |= x ^ 0xFC00;
                    added |= x;
                }
            }
            if (added) {
                flags |= LAMPE_TILE_MASKED;
            }
            if (seen) {
                flags |= lampe_find_passes(args.queries[(int64_t) i3*args.n_q + i], k_min, k_max);
            }
        }
    }

    flags = __reduce_or_sync(0xFFFFFFFF, flags);
    if (threadIdx.x % WARP_SIZE == 0 && flags != 0) {
        atomicOr(&s_flags, flags);
    }
    __syncthreads();

    if (threadIdx.x == 0) {
        args.tiles[((int64_t) i3*args.n_block + i_block)*args.n_tile + i_tile] = s_flags;
    }
#else
    GGML_UNUSED(args);
    NO_DEVICE_CODE;
#endif // AMPERE_MMA_AVAILABLE
}

// one block per 1024/d rows, KV head and stream
template <int d>
static __global__ void lampe_rotate_queries(const lampe_args args) {
    const int ikv = blockIdx.y;
    const int i3  = blockIdx.z;

    const int r = (blockIdx.x*blockDim.x + threadIdx.x)/(d/4);
    const int u = (blockIdx.x*blockDim.x + threadIdx.x)%(d/4);

    if (r >= args.n_row_pad) {
        return;
    }

    const lampe_quad_place place = lampe_get_place(u, args.n_rot, args.neox);

    half * out = args.q_rot + ((int64_t) (i3*args.n_head_kv + ikv)*LAMPE_REGION_COUNT*args.n_row_pad + r)*d;

    const int i = r/args.n_gqa;
    const int h = ikv*args.n_gqa + r%args.n_gqa;

    lampe_quad x = { make_float2(0.0f, 0.0f), make_float2(0.0f, 0.0f) };

    int pos[LAMPE_REGION_COUNT] = { 0 };
    if (i < args.n_q) {
        x = lampe_load_quad(args.q + i*args.q_nb1 + h*args.q_nb2 + i3*args.q_nb3, GGML_TYPE_F32, place);

        x.a = make_float2(args.scale*x.a.x, args.scale*x.a.y);
        x.b = make_float2(args.scale*x.b.x, args.scale*x.b.y);

        const int * row = lampe_plan_row(args, i3, i);

        pos[LAMPE_REGION_LOCAL]  = (int) lampe_query_position(row, LAMPE_REGION_LOCAL, row[GGML_LAMPE_PLAN_POS]);
        pos[LAMPE_REGION_MIDDLE] = args.q_middle[(int64_t) i3*args.n_q + i];
        pos[LAMPE_REGION_TAIL]   = (int) lampe_query_position(row, LAMPE_REGION_TAIL,  row[GGML_LAMPE_PLAN_POS]);
    }

#pragma unroll
    for (int region = 0; region < LAMPE_REGION_COUNT; ++region) {
        lampe_store_quad(out + (int64_t) region*args.n_row_pad*d,
                lampe_rotate(x, lampe_rope_row(args, pos[region]), args.n_rot, args.neox, place), place);
    }
}

// one block per tile of keys, KV head and stream
template <int d, int n_tile_kv>
static __global__ void lampe_rotate_keys(const lampe_args args) {
    const int i_tile = blockIdx.x;
    const int ikv    = blockIdx.y;
    const int i3     = blockIdx.z;

    __shared__ int s_flags;
    __shared__ int s_k_pos[n_tile_kv];
    __shared__ int s_pos[1 + LAMPE_MAX_VARIANTS][n_tile_kv];

    if (threadIdx.x == 0) {
        s_flags = 0;
    }
    __syncthreads();

    int flags = 0;
    for (int i = threadIdx.x; i < args.n_block; i += blockDim.x) {
        flags |= args.tiles[((int64_t) i3*args.n_block + i)*args.n_tile + i_tile];
    }
    if (flags != 0) {
        atomicOr(&s_flags, flags);
    }
    __syncthreads();
    flags = s_flags;

    // bit 0: for local and tail, then a bit for each variant
    const int needed = ((flags & (LAMPE_TILE_LOCAL | LAMPE_TILE_TAIL)) != 0) |
        ((flags & LAMPE_TILE_SCORES)/LAMPE_TILE_VARIANT << 1);

    if (needed == 0) {
        return;
    }

    for (int i = threadIdx.x; i < n_tile_kv*(1 + args.n_variant); i += blockDim.x) {
        const int v = i/n_tile_kv;
        const int j = i%n_tile_kv;

        const int j_kv  = i_tile*n_tile_kv + j;
        const int k_pos = j_kv < args.n_kv ? lampe_k_pos(args, i3)[j_kv] : -1;

        if (v == 0) {
            s_k_pos[j]  = k_pos;
            s_pos[0][j] = k_pos;
        } else if (needed & (1 << v)) {
            const int2 variant = args.variants[i3*args.n_variant + v - 1];
            s_pos[v][j] = (int) ggml_lampe_middle(k_pos, variant.x, variant.y);
        }
    }
    __syncthreads();

    const char * k = args.k + ikv*args.k_nb2 + i3*args.k_nb3;

    half * out = args.k_rot + ((int64_t) (i3*args.n_head_kv + ikv)*(1 + args.n_variant)*args.n_tile + i_tile)*n_tile_kv*d;

    for (int i = threadIdx.x; i < n_tile_kv*(d/4); i += blockDim.x) {
        const int j = i/(d/4);

        const lampe_quad_place place = lampe_get_place(i%(d/4), args.n_rot, args.neox);

        lampe_quad x = { make_float2(0.0f, 0.0f), make_float2(0.0f, 0.0f) };
        if (s_k_pos[j] >= 0) { // an empty cell may hold anything
            x = lampe_load_quad(k + (int64_t) (i_tile*n_tile_kv + j)*args.k_nb1, args.k_type, place);
        }

        for (int v = 0; v <= args.n_variant; ++v) {
            if (needed & (1 << v)) {
                lampe_store_quad(out + ((int64_t) v*args.n_tile*n_tile_kv + j)*d,
                        lampe_rotate(x, lampe_rope_row(args, s_pos[v][j]), args.n_rot, args.neox, place), place);
            }
        }
    }
}

// for values of other types than f16, or in rows that are not aligned
// out: [n_stream, n_head_kv, n_kv, d]
template <int d>
static __global__ void lampe_convert_values(const lampe_args args, half * out) {
    const int ikv = blockIdx.y;
    const int i3  = blockIdx.z;

    const int j = (blockIdx.x*blockDim.x + threadIdx.x)/(d/4);
    const int u = (blockIdx.x*blockDim.x + threadIdx.x)%(d/4);

    if (j >= args.n_kv) {
        return;
    }

    const lampe_quad_place place = lampe_get_place(u, 0, false);

    lampe_store_quad(out + ((int64_t) (i3*args.n_head_kv + ikv)*args.n_kv + j)*d,
            lampe_load_quad(args.v + j*args.v_nb1 + ikv*args.v_nb2 + i3*args.v_nb3, args.v_type, place), place);
}
