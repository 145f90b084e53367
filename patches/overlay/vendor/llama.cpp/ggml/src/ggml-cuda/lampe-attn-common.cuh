#pragma once

#include "common.cuh"
#include "cp-async.cuh"
#include "lampe-attn-matrix.cuh"

#include "ggml-lampe-impl.h"

#include <cfloat>
#include <cstdint>

// what the kernels of LaMPE attention share, see ggml-lampe.h for the operator

// A variant of the middle is its num and den. A batch has few, so that keys are rotated beforehand, once for each of the first
// LAMPE_MAX_VARIANTS; for queries of another one they are rotated where they are used.
static constexpr int LAMPE_MAX_VARIANTS  = 5;
static constexpr int LAMPE_VARIANT_OTHER = LAMPE_MAX_VARIANTS;

// flags of a tile of keys, for a block of rows: the passes it needs, and what has to be heeded in them
static constexpr uint32_t LAMPE_TILE_LOCAL   = 1 << 0;
static constexpr uint32_t LAMPE_TILE_TAIL    = 1 << 1;
static constexpr uint32_t LAMPE_TILE_OTHER   = 1 << 2; // the middle, of variants that the keys are not rotated for
static constexpr uint32_t LAMPE_TILE_VARIANT = 1 << 3; // the middle, of the first variant; a bit for each follows
static constexpr uint32_t LAMPE_TILE_MASKED  = 1 << 8; // the mask is not zero everywhere
static constexpr uint32_t LAMPE_TILE_EMPTY   = 1 << 9; // there are cells without a key
static constexpr uint32_t LAMPE_TILE_SCORES  = LAMPE_TILE_MASKED - 1; // all passes

static_assert((LAMPE_TILE_VARIANT << (LAMPE_MAX_VARIANTS - 1)) < LAMPE_TILE_MASKED, "too many variants");

static constexpr float LAMPE_LOG2E   = 1.44269504088896340736f;
static constexpr float LAMPE_MIN_MAX = -FLT_MAX/2.0f; // the maximum before any score, so that differences of two stay finite

struct lampe_query {
    int pos;
    int local_window;
    int tail_start;
    int variant;
};

struct lampe_args {
    const char  * q;
    const char  * k;
    const char  * v;
    const char  * mask;
    const char  * plan;
    const char  * k_pos;
    const float * rope;
    const float * sinks;
    float       * dst;

    int64_t q_nb1, q_nb2, q_nb3;
    int64_t k_nb1, k_nb2, k_nb3;
    int64_t v_nb1, v_nb2, v_nb3;
    int64_t mask_nb1, mask_nb3;
    int64_t plan_nb1, plan_nb3;
    int64_t k_pos_nb3;

    ggml_type k_type;
    ggml_type v_type;

    int n_q;
    int n_kv;
    int n_head;
    int n_head_kv;
    int n_stream;
    int n_gqa;
    int n_rot;
    int n_pos;

    float scale;
    float softcap;
    bool  neox;

    // a row is one query of one query head, the heads of a query follow one another
    int n_tile;    // tiles of keys
    int n_block;   // blocks of rows
    int n_row_pad; // rows in n_block whole blocks
    int n_split;   // parts that the tiles are dealt out to
    int n_variant; // variants that the keys are rotated for

    // workspace
    lampe_query * queries;     // [n_stream, n_q]
    int         * q_middle;    // [n_stream, n_q] positions of the queries in the middle
    int2        * variants;    // [n_stream, n_variant] num and den
    uint32_t    * tiles;       // [n_stream, n_block, n_tile] flags
    half        * q_rot;       // [n_stream, n_head_kv, LAMPE_REGION_COUNT, n_row_pad, d] times the scale
    half        * k_rot;       // [n_stream, n_head_kv, 1 + n_variant, n_tile*tile, d] for local and tail, then for the variants of the middle
    float       * partial;     // [n_split, n_stream, n_q, n_head, d] relative to exp(max)
    float2      * partial_sum; // [n_split, n_stream, n_q, n_head] max and sum
};

static __device__ __forceinline__ const int * lampe_plan_row(const lampe_args & args, const int i3, const int i1) {
    return (const int *) (args.plan + i3*args.plan_nb3 + i1*args.plan_nb1);
}

static __device__ __forceinline__ const int * lampe_k_pos(const lampe_args & args, const int i3) {
    return (const int *) (args.k_pos + i3*args.k_pos_nb3);
}

static __device__ __forceinline__ const half * lampe_mask_row(const lampe_args & args, const int i3, const int i1) {
    return (const half *) (args.mask + i3*args.mask_nb3 + i1*args.mask_nb1);
}

// Four elements of a row, two pairs of the rotation.
// NEOX: a and b are the first and the second elements of the pairs; NORM: a is one pair, b the next.
struct lampe_quad {
    float2 a;
    float2 b;
};

// where the quad of index u has its elements; those after the rotated dimensions follow one another
struct lampe_quad_place {
    int  a;
    int  b;
    int  pair; // index of the first pair
    bool rotated;
};

static __device__ __forceinline__ lampe_quad_place lampe_get_place(const int u, const int n_rot, const bool neox) {
    lampe_quad_place res;

    res.rotated = 4*u < n_rot;
    res.pair    = 2*u;
    if (neox && res.rotated) {
        res.a = 2*u;
        res.b = 2*u + n_rot/2;
    } else {
        res.a = 4*u;
        res.b = 4*u + 2;
    }

    return res;
}

// elements i and i + 1 as floats; i is even
static __device__ __forceinline__ float2 lampe_load_pair(const char * row, const ggml_type type, const int i) {
    switch (type) {
        case GGML_TYPE_F32:
            return *(const float2 *) (row + i*sizeof(float));
        case GGML_TYPE_F16:
            return __half22float2(*(const half2 *) (row + i*sizeof(half)));
        case GGML_TYPE_BF16:
            {
                const nv_bfloat16 * x = (const nv_bfloat16 *) row + i;
                return make_float2(__bfloat162float(x[0]), __bfloat162float(x[1]));
            }
        case GGML_TYPE_Q8_0:
            {
                const block_q8_0 * x = (const block_q8_0 *) row + i/QK8_0;
                const float        d = x->d;
                return make_float2(d*x->qs[i%QK8_0], d*x->qs[i%QK8_0 + 1]);
            }
        case GGML_TYPE_Q4_0:
            {
                const block_q4_0 * x = (const block_q4_0 *) row + i/QK4_0;
                const float        d = x->d;
                const int          j = i%QK4_0;
                const int      shift = j < QK4_0/2 ? 0 : 4;
                return make_float2(
                        d*(((x->qs[j%(QK4_0/2) + 0] >> shift) & 0xF) - 8),
                        d*(((x->qs[j%(QK4_0/2) + 1] >> shift) & 0xF) - 8));
            }
        default:
            NO_DEVICE_CODE;
            return make_float2(0.0f, 0.0f);
    }
}

static __device__ __forceinline__ lampe_quad lampe_load_quad(const char * row, const ggml_type type, const lampe_quad_place & place) {
    return { lampe_load_pair(row, type, place.a), lampe_load_pair(row, type, place.b) };
}

// clamped, since a cell that no query may see can have any position
static __device__ __forceinline__ const float * lampe_rope_row(const lampe_args & args, const int pos) {
    return args.rope + (int64_t) min(max(pos, 0), args.n_pos - 1)*args.n_rot;
}

// cos and sin of a quad's two pairs
static __device__ __forceinline__ lampe_quad lampe_load_rope(const float * rope_row, const int n_rot, const lampe_quad_place & place) {
    if (!place.rotated) {
        return { make_float2(1.0f, 1.0f), make_float2(0.0f, 0.0f) };
    }
    return { *(const float2 *) (rope_row + place.pair), *(const float2 *) (rope_row + place.pair + n_rot/2) };
}

static __device__ __forceinline__ lampe_quad lampe_rotate(const lampe_quad & x, const lampe_quad & rope, const bool neox, const lampe_quad_place & place) {
    if (!place.rotated) {
        return x;
    }

    const float2 c = rope.a;
    const float2 s = rope.b;

    lampe_quad res;
    if (neox) {
        res.a = make_float2(x.a.x*c.x - x.b.x*s.x, x.a.y*c.y - x.b.y*s.y);
        res.b = make_float2(x.a.x*s.x + x.b.x*c.x, x.a.y*s.y + x.b.y*c.y);
    } else {
        res.a = make_float2(x.a.x*c.x - x.a.y*s.x, x.a.x*s.x + x.a.y*c.x);
        res.b = make_float2(x.b.x*c.y - x.b.y*s.y, x.b.x*s.y + x.b.y*c.y);
    }

    return res;
}

static __device__ __forceinline__ lampe_quad lampe_rotate(
        const lampe_quad & x, const float * rope_row, const int n_rot, const bool neox, const lampe_quad_place & place) {
    return lampe_rotate(x, lampe_load_rope(rope_row, n_rot, place), neox, place);
}

static __device__ __forceinline__ void lampe_store_quad(half * row, const lampe_quad & x, const lampe_quad_place & place) {
    *(half2 *) (row + place.a) = __floats2half2_rn(x.a.x, x.a.y);
    *(half2 *) (row + place.b) = __floats2half2_rn(x.b.x, x.b.y);
}
