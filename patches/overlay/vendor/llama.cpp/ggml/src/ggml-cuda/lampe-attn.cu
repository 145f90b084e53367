#include "lampe-attn.cuh"

#if !defined(GGML_USE_HIP) && !defined(GGML_USE_MUSA)

#include "lampe-attn-common.cuh"
#include "lampe-attn-mma.cuh"
#include "lampe-attn-vec.cuh"
#include "lampe-attn-few.cuh"
#include "lampe-attn-merge.cuh"
#include "lampe-attn-prepare.cuh"

#include <algorithm>

// deal the tiles out to so many parts that few multiprocessors idle in the last wave
static int lampe_find_n_split(const int n_block, const int n_slot, const int n_split_max) {
    int   best       = 1;
    float best_share = 0.0f;

    for (int n_split = 1; n_split <= n_split_max; ++n_split) {
        const int   n_wave = (n_block*n_split + n_slot - 1)/n_slot;
        const float share  = (float) n_block*n_split/(n_wave*n_slot) - 0.01f*n_split; // merging has its cost

        if (share > best_share) {
            best       = n_split;
            best_share = share;
        }
    }

    return best;
}

// variants of the middle to make room for: as many as the queries of one sequence can have, which may begin within a step
static int lampe_find_n_variant(const int n_q, const int length_step) {
    const int64_t n_variant = length_step > 0 ? 1 + ((int64_t) n_q + length_step - 2)/length_step : n_q;

    return (int) std::min<int64_t>({ LAMPE_MAX_VARIANTS, n_q, n_variant });
}

struct lampe_launcher {
    ggml_backend_cuda_context & ctx;

    lampe_args args;

    int length_step;

    ggml_cuda_pool_alloc<lampe_query> queries;
    ggml_cuda_pool_alloc<int>         q_middle;
    ggml_cuda_pool_alloc<int2>        variants;
    ggml_cuda_pool_alloc<uint32_t>    tiles;
    ggml_cuda_pool_alloc<half>        q_rot;
    ggml_cuda_pool_alloc<half>        k_rot;
    ggml_cuda_pool_alloc<half>        v_f16;
    ggml_cuda_pool_alloc<float>       partial;
    ggml_cuda_pool_alloc<float2>      partial_sum;

    lampe_launcher(ggml_backend_cuda_context & ctx, const ggml_tensor * dst) :
            ctx(ctx), queries(ctx.pool()), q_middle(ctx.pool()), variants(ctx.pool()), tiles(ctx.pool()), q_rot(ctx.pool()),
            k_rot(ctx.pool()), v_f16(ctx.pool()), partial(ctx.pool()), partial_sum(ctx.pool()) {
        const ggml_tensor * q     = dst->src[0];
        const ggml_tensor * k     = dst->src[1];
        const ggml_tensor * v     = dst->src[2];
        const ggml_tensor * mask  = dst->src[3];
        const ggml_tensor * plan  = dst->src[4];
        const ggml_tensor * k_pos = dst->src[5];
        const ggml_tensor * rope  = dst->src[6];
        const ggml_tensor * sinks = dst->src[7];

        args = {};

        args.q     = (const char  *) q->data;
        args.k     = (const char  *) k->data;
        args.v     = (const char  *) v->data;
        args.mask  = (const char  *) mask->data;
        args.plan  = (const char  *) plan->data;
        args.k_pos = (const char  *) k_pos->data;
        args.rope  = (const float *) rope->data;
        args.sinks = sinks ? (const float *) sinks->data : nullptr;
        args.dst   = (float *) dst->data;

        args.q_nb1 = q->nb[1];
        args.q_nb2 = q->nb[2];
        args.q_nb3 = q->nb[3];
        args.k_nb1 = k->nb[1];
        args.k_nb2 = k->nb[2];
        args.k_nb3 = k->nb[3];
        args.v_nb1 = v->nb[1];
        args.v_nb2 = v->nb[2];
        args.v_nb3 = v->nb[3];

        args.mask_nb1  = mask->nb[1];
        args.mask_nb3  = mask->nb[3];
        args.plan_nb1  = plan->nb[1];
        args.plan_nb3  = plan->nb[3];
        args.k_pos_nb3 = k_pos->nb[3];

        args.k_type = k->type;
        args.v_type = v->type;

        args.n_q       = q->ne[1];
        args.n_kv      = k->ne[1];
        args.n_head    = q->ne[2];
        args.n_head_kv = k->ne[2];
        args.n_stream  = k->ne[3];
        args.n_gqa     = args.n_head/args.n_head_kv;
        args.n_rot     = rope->ne[0];
        args.n_pos     = rope->ne[1];

        const lampe_attn_params params = lampe_get_params(dst);

        args.scale   = params.scale;
        args.softcap = params.softcap;
        args.neox    = params.neox;

        length_step = params.length_step;
    }

    int n_sm() const {
        return ggml_cuda_info().devices[ctx.device].nsm;
    }

    // rows are copied 16 bytes at a time
    static bool is_aligned(const char * data, int64_t nb1, int64_t nb2, int64_t nb3) {
        return ((uintptr_t) data | nb1 | nb2 | nb3) % 16 == 0;
    }

    bool f16_values() const {
        return args.v_type == GGML_TYPE_F16 && is_aligned(args.v, args.v_nb1, args.v_nb2, args.v_nb3);
    }

    template <int d>
    void alloc_partial() {
        if (args.n_split > 1) {
            const size_t n_row = (size_t) args.n_split*args.n_stream*args.n_q*args.n_head;

            args.partial     = partial.alloc(n_row*d);
            args.partial_sum = partial_sum.alloc(n_row);
        }
    }

    template <int d>
    void merge() {
        if (args.n_split == 1) {
            return;
        }

        const int  n_row = args.n_stream*args.n_q*args.n_head;
        const dim3 block(WARP_SIZE, LAMPE_MERGE_WARPS);

        if (args.n_split > LAMPE_MERGE_WARPS) {
            lampe_merge<d, 1><<<n_row, block, 0, ctx.stream()>>>(args);
        } else {
            lampe_merge<d, LAMPE_MERGE_WARPS><<<(n_row + LAMPE_MERGE_WARPS - 1)/LAMPE_MERGE_WARPS, block, 0, ctx.stream()>>>(args);
        }
        CUDA_CHECK(cudaGetLastError());
    }

    template <int d>
    void run_vec() {
        constexpr size_t n_shared = lampe_vec_shared_size<d>();

        const int n_part = (args.n_q*args.n_gqa + LAMPE_VEC_ROWS - 1)/LAMPE_VEC_ROWS;
        const int n_head = n_part*args.n_head_kv*args.n_stream;

        args.n_tile  = (args.n_kv + lampe_vec_warps<d>()*LAMPE_VEC_KEYS - 1)/(lampe_vec_warps<d>()*LAMPE_VEC_KEYS);
        args.n_split = std::max(1, std::min(args.n_tile, lampe_vec_blocks<d>()*n_sm()/n_head));

        alloc_partial<d>();

        const dim3 grid(args.n_split, n_part, args.n_stream*args.n_head_kv);
        const dim3 block(WARP_SIZE, lampe_vec_warps<d>());

        const bool f16 = args.k_type == GGML_TYPE_F16 && is_aligned(args.k, args.k_nb1, args.k_nb2, args.k_nb3) && f16_values();

        if (args.n_q == 1 && f16) {
            CUDA_SET_SHARED_MEMORY_LIMIT((lampe_attn_vec<d, true>), n_shared);
            lampe_attn_vec<d, true><<<grid, block, n_shared, ctx.stream()>>>(args);
        } else if (args.n_q == 1) {
            CUDA_SET_SHARED_MEMORY_LIMIT((lampe_attn_vec<d, false>), n_shared);
            lampe_attn_vec<d, false><<<grid, block, n_shared, ctx.stream()>>>(args);
        } else if (f16) {
            CUDA_SET_SHARED_MEMORY_LIMIT((lampe_attn_few<d, true>), n_shared);
            lampe_attn_few<d, true><<<grid, block, n_shared, ctx.stream()>>>(args);
        } else {
            CUDA_SET_SHARED_MEMORY_LIMIT((lampe_attn_few<d, false>), n_shared);
            lampe_attn_few<d, false><<<grid, block, n_shared, ctx.stream()>>>(args);
        }
        CUDA_CHECK(cudaGetLastError());

        merge<d>();
    }

    template <int d, int n_mt>
    void run_mma() {
        constexpr int    n_tile_kv = lampe_tile_kv<d>();
        constexpr int    n_row     = lampe_block_rows<n_mt>();
        constexpr size_t n_shared  = lampe_mma_shared_size<d, n_mt>();

        const int n_head_all = args.n_stream*args.n_head_kv;

        args.n_tile    = (args.n_kv + n_tile_kv - 1)/n_tile_kv;
        args.n_block   = (args.n_q*args.n_gqa + n_row - 1)/n_row;
        args.n_row_pad = args.n_block*n_row;
        args.n_variant = lampe_find_n_variant(args.n_q, length_step);
        args.n_split   = lampe_find_n_split(args.n_block*n_head_all, lampe_mma_blocks<d, n_mt>()*n_sm(), std::min(32, std::max(1, args.n_tile/4)));

        args.queries  = queries.alloc((size_t) args.n_stream*args.n_q);
        args.q_middle = q_middle.alloc((size_t) args.n_stream*args.n_q);
        args.variants = variants.alloc((size_t) args.n_stream*args.n_variant);
        args.tiles    = tiles.alloc((size_t) args.n_stream*args.n_block*args.n_tile);
        args.q_rot    = q_rot.alloc((size_t) n_head_all*LAMPE_REGION_COUNT*args.n_row_pad*d);
        args.k_rot    = k_rot.alloc((size_t) n_head_all*(1 + args.n_variant)*args.n_tile*n_tile_kv*d);

        alloc_partial<d>();

        const cudaStream_t stream = ctx.stream();

        lampe_find_variants<<<args.n_stream, 256, 0, stream>>>(args);
        CUDA_CHECK(cudaGetLastError());

        lampe_find_tiles<n_row, n_tile_kv><<<dim3(args.n_tile, args.n_block, args.n_stream), 128, 0, stream>>>(args);
        CUDA_CHECK(cudaGetLastError());

        lampe_rotate_queries<d><<<dim3((args.n_row_pad*(d/4) + 255)/256, args.n_head_kv, args.n_stream), 256, 0, stream>>>(args);
        CUDA_CHECK(cudaGetLastError());

        lampe_rotate_keys<d, n_tile_kv><<<dim3(args.n_tile, args.n_head_kv, args.n_stream), 256, 0, stream>>>(args);
        CUDA_CHECK(cudaGetLastError());

        if (!f16_values()) {
            v_f16.alloc((size_t) n_head_all*args.n_kv*d);

            lampe_convert_values<d><<<dim3((args.n_kv*(d/4) + 255)/256, args.n_head_kv, args.n_stream), 256, 0, stream>>>(args, v_f16.ptr);
            CUDA_CHECK(cudaGetLastError());

            args.v     = (const char *) v_f16.ptr;
            args.v_nb1 = d*sizeof(half);
            args.v_nb2 = args.v_nb1*args.n_kv;
            args.v_nb3 = args.v_nb2*args.n_head_kv;
        }

        CUDA_SET_SHARED_MEMORY_LIMIT((lampe_attn_mma<d, n_mt>), n_shared);

        lampe_attn_mma<d, n_mt><<<dim3(args.n_block, args.n_split, n_head_all), dim3(WARP_SIZE, LAMPE_MMA_WARPS), n_shared, stream>>>(args);
        CUDA_CHECK(cudaGetLastError());

        merge<d>();
    }

    template <int d>
    void run() {
        if (args.n_q == 1 || (args.n_q <= LAMPE_FEW_QUERIES && args.n_q*args.n_gqa <= LAMPE_FEW_ROWS)) {
            run_vec<d>();
        } else {
            run_mma<d, 1>();
        }
    }
};

void ggml_cuda_op_lampe_attn(ggml_backend_cuda_context & ctx, ggml_tensor * dst) {
    lampe_launcher launcher(ctx, dst);

    switch (dst->src[1]->ne[0]) {
        case 64:
            launcher.run<64>();
            break;
        case 96:
            launcher.run<96>();
            break;
        case 128:
            launcher.run<128>();
            break;
        case 256:
            launcher.run<256>();
            break;
        default:
            GGML_ABORT("unsupported head size");
    }
}

// shared memory of a block, 2048 bytes for what the kernels declare statically
template <int d>
static constexpr size_t lampe_shared_size_max() {
    return std::max(lampe_mma_shared_size<d, 1>(), lampe_vec_shared_size<d>()) + 2048;
}

bool ggml_cuda_lampe_attn_supported(int device, const ggml_tensor * dst) {
    const ggml_tensor * q    = dst->src[0];
    const ggml_tensor * k    = dst->src[1];
    const ggml_tensor * v    = dst->src[2];
    const ggml_tensor * mask = dst->src[3];
    const ggml_tensor * rope = dst->src[6];

    // tensor cores with asynchronous copies
    if (!ampere_mma_available(ggml_cuda_info().devices[device].cc)) {
        return false;
    }

    size_t n_shared = 0;
    switch (k->ne[0]) {
        case 64:
            n_shared = lampe_shared_size_max<64>();
            break;
        case 96:
            n_shared = lampe_shared_size_max<96>();
            break;
        case 128:
            n_shared = lampe_shared_size_max<128>();
            break;
        case 256:
            n_shared = lampe_shared_size_max<256>();
            break;
        default:
            return false;
    }
    if (n_shared > ggml_cuda_info().devices[device].smpbo) {
        return false;
    }

    const auto is_readable = [](const ggml_tensor * t) {
        switch (t->type) {
            case GGML_TYPE_F32:
            case GGML_TYPE_F16:
            case GGML_TYPE_BF16:
            case GGML_TYPE_Q8_0:
            case GGML_TYPE_Q4_0:
                // see lampe_load_pair()
                return t->nb[0] == ggml_type_size(t->type) &&
                    (ggml_is_quantized(t->type) || (t->nb[1] | t->nb[2] | t->nb[3]) % (2*t->nb[0]) == 0);
            default:
                return false;
        }
    };

    return v->ne[0] == k->ne[0] && is_readable(q) && q->type == GGML_TYPE_F32 && is_readable(k) && is_readable(v) &&
        mask->type == GGML_TYPE_F16 && mask->nb[0] == sizeof(half) && rope->ne[0] % 4 == 0;
}

#else

// the builds for HIP and MUSA compile this file, too

void ggml_cuda_op_lampe_attn(ggml_backend_cuda_context & ctx, ggml_tensor * dst) {
    GGML_UNUSED(ctx);
    GGML_UNUSED(dst);
    GGML_ABORT("not supported");
}

bool ggml_cuda_lampe_attn_supported(int device, const ggml_tensor * dst) {
    GGML_UNUSED(device);
    GGML_UNUSED(dst);
    return false;
}

#endif // !defined(GGML_USE_HIP) && !defined(GGML_USE_MUSA)
