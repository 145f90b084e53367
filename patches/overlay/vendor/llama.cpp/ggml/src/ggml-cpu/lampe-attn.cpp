#include "lampe-attn.h"

#include "ggml-cpu.h"
#include "ggml-cpu-impl.h"
#include "ggml-lampe.h"
#include "simd-gemm.h"
#include "simd-mappings.h"
#include "vec.h"

#include <algorithm>
#include <cmath>
#include <cstring>

// Tile = one KV head x a block of queries, all query heads of that KV head at once: a tile of keys is converted and
// rotated once for all of them. A block is cut where the plan changes, so that it has one plan. With few queries the
// keys are split over the threads and the partial results are merged at the end.

static constexpr int64_t LAMPE_TILE_KV  = 64;  // keys
static constexpr int64_t LAMPE_TILE_ROW = 192; // query rows (queries x heads) that a tile of keys is good for
static constexpr int64_t LAMPE_SPLIT_Q  = 8;   // with up to this many queries, split the keys

enum lampe_region {
    LAMPE_REGION_LOCAL  = 0,
    LAMPE_REGION_MIDDLE = 1,
    LAMPE_REGION_TAIL   = 2,
    LAMPE_REGION_COUNT  = 3,
};

struct lampe_shape {
    int64_t d_k;
    int64_t d_v;
    int64_t n_q;
    int64_t n_kv;
    int64_t n_head;
    int64_t n_head_kv;
    int64_t n_stream;
    int64_t n_gqa;
    int64_t n_block_q; // most queries in a block
    int64_t n_row;     // most rows in a block
    int64_t n_split;   // parts that the keys are split into

    lampe_shape(const ggml_tensor * dst, int n_threads) {
        const ggml_tensor * q = dst->src[0];
        const ggml_tensor * k = dst->src[1];
        const ggml_tensor * v = dst->src[2];

        d_k       = k->ne[0];
        d_v       = v->ne[0];
        n_q       = q->ne[1];
        n_kv      = k->ne[1];
        n_head    = q->ne[2];
        n_head_kv = k->ne[2];
        n_stream  = k->ne[3];
        n_gqa     = n_head/n_head_kv;
        n_block_q = std::min(n_q, std::max<int64_t>(16, LAMPE_TILE_ROW/n_gqa));
        n_row     = n_block_q*n_gqa;
        n_split   = n_q <= LAMPE_SPLIT_Q ? n_threads : 1;
    }

    // floats of workspace per thread: q for each region, scores twice, output, a tile of keys three times, of values, of mask
    size_t n_work() const {
        return n_row*(LAMPE_REGION_COUNT*d_k + 2*LAMPE_TILE_KV + d_v + 2) + LAMPE_TILE_KV*(3*d_k + d_v + n_block_q) + 16; // a cache line apart
    }

    // a partial result: max, sum, output
    size_t n_partial() const {
        return n_split > 1 ? n_stream*n_q*n_head*n_split*(d_v + 2) : 0;
    }
};

bool ggml_lampe_attn_supported(const ggml_tensor * dst) {
    const auto row_ok = [](const ggml_tensor * t) {
        return t->nb[0] == ggml_type_size(t->type) && (t->type == GGML_TYPE_F32 || ggml_get_type_traits(t->type)->to_float != nullptr);
    };

    return dst->src[0]->type == GGML_TYPE_F32 && row_ok(dst->src[0]) && row_ok(dst->src[1]) && row_ok(dst->src[2]) && row_ok(dst->src[3]);
}

size_t ggml_lampe_attn_work_size(const ggml_tensor * dst, int n_tasks) {
    const lampe_shape shape(dst, n_tasks);

    return sizeof(float)*(shape.n_work()*n_tasks + shape.n_partial());
}

static void lampe_row_to_float(ggml_type type, const void * src, float * dst, int64_t n) {
    switch (type) {
        case GGML_TYPE_F32:  memcpy(dst, src, n*sizeof(float));                                  break;
        case GGML_TYPE_F16:  ggml_cpu_fp16_to_fp32((const ggml_fp16_t *) src, dst, n);           break;
        case GGML_TYPE_BF16: ggml_cpu_bf16_to_fp32((const ggml_bf16_t *) src, dst, n);           break;
        default:             ggml_get_type_traits(type)->to_float(src, dst, n);                  break;
    }
}

// the pairs end up in halves whatever the mode: a permutation that queries and keys share changes no score
template<bool neox>
static void lampe_rotate(float * GGML_RESTRICT dst, const float * GGML_RESTRICT src, const float * GGML_RESTRICT rope, int64_t n_rot, int64_t d, float scale) {
    const int64_t n = n_rot/2;

    for (int64_t i = 0; i < n; ++i) {
        const float x0 = scale*(neox ? src[i]     : src[2*i]);
        const float x1 = scale*(neox ? src[i + n] : src[2*i + 1]);

        dst[i]     = x0*rope[i]     - x1*rope[i + n];
        dst[i + n] = x0*rope[i + n] + x1*rope[i];
    }
    for (int64_t i = n_rot; i < d; ++i) {
        dst[i] = scale*src[i];
    }
}

namespace {

struct lampe_kernel {
    const ggml_compute_params * params;
    const ggml_tensor         * dst;
    const lampe_shape           shape;

    float scale;
    float softcap;
    bool  neox;

    int64_t n_rot;
    int64_t n_pos;

    const float * rope;

    // workspace
    float * q_rot[LAMPE_REGION_COUNT]; // [n_row, d_k]
    float * s;                         // [n_row, LAMPE_TILE_KV]
    float * s_region;                  // [n_row, LAMPE_TILE_KV]
    float * acc;                       // [n_row, d_v]
    float * row_max;                   // [n_row]
    float * row_sum;                   // [n_row]
    float * k_f32;                     // [LAMPE_TILE_KV, d_k]
    float * k_rot;                     // [LAMPE_TILE_KV, d_k]
    float * k_trans;                   // [d_k, LAMPE_TILE_KV]
    float * v_f32;                     // [LAMPE_TILE_KV, d_v]
    float * mask_f32;                  // [n_block_q, LAMPE_TILE_KV]

    float * partial;

    // the block in hand
    int64_t i_stream;
    int64_t i_head_kv;
    int64_t i_q;
    int64_t n_q; // queries of the block
    int64_t m;   // rows of the block: head by head, n_q each

    const int32_t * plan;

    lampe_kernel(const ggml_compute_params * params, ggml_tensor * dst) : params(params), dst(dst), shape(dst, params->nth) {
        scale   = ggml_get_op_params_f32(dst, 0);
        softcap = ggml_get_op_params_f32(dst, 1);
        neox    = ggml_get_op_params_i32(dst, 2) == GGML_ROPE_TYPE_NEOX;

        n_rot = dst->src[6]->ne[0];
        n_pos = dst->src[6]->ne[1];
        rope  = (const float *) dst->src[6]->data;

        float * w = (float *) params->wdata + shape.n_work()*params->ith;

        const auto take = [&](int64_t n) {
            float * res = w;
            w += n;
            return res;
        };

        for (auto & q : q_rot) {
            q = take(shape.n_row*shape.d_k);
        }
        s        = take(shape.n_row*LAMPE_TILE_KV);
        s_region = take(shape.n_row*LAMPE_TILE_KV);
        acc      = take(shape.n_row*shape.d_v);
        row_max  = take(shape.n_row);
        row_sum  = take(shape.n_row);
        k_f32    = take(LAMPE_TILE_KV*shape.d_k);
        k_rot    = take(LAMPE_TILE_KV*shape.d_k);
        k_trans  = take(LAMPE_TILE_KV*shape.d_k);
        v_f32    = take(LAMPE_TILE_KV*shape.d_v);
        mask_f32 = take(LAMPE_TILE_KV*shape.n_block_q);

        partial = (float *) params->wdata + shape.n_work()*params->nth;
    }

    const int32_t * plan_row(int64_t i3, int64_t i1) const {
        const ggml_tensor * t = dst->src[4];

        return (const int32_t *) ((const char *) t->data + i1*t->nb[1] + i3*t->nb[3]);
    }

    // end of the block that begins at query i1: one plan, no more than n_block_q queries
    int64_t block_end(int64_t i3, int64_t i1) const {
        const int32_t * first = plan_row(i3, i1) + 1;

        int64_t end = i1 + 1;
        while (end < shape.n_q && end - i1 < shape.n_block_q &&
                memcmp(first, plan_row(i3, end) + 1, (GGML_LAMPE_PLAN_TAIL_SHIFT - GGML_LAMPE_PLAN_POS)*sizeof(int32_t)) == 0) {
            ++end;
        }

        return end;
    }

    const float * rope_row(int64_t pos) const {
        return rope + std::clamp<int64_t>(pos, 0, n_pos - 1)*n_rot;
    }

    // floor(pos*num/den), for the positions of the middle
    int64_t middle(int64_t pos) const {
        return pos*plan[GGML_LAMPE_PLAN_NUM]/std::max(1, plan[GGML_LAMPE_PLAN_DEN]);
    }

    void rotate(float * out, const float * in, int64_t pos, float f) const {
        if (neox) {
            lampe_rotate<true >(out, in, rope_row(pos), n_rot, shape.d_k, f);
        } else {
            lampe_rotate<false>(out, in, rope_row(pos), n_rot, shape.d_k, f);
        }
    }

    void begin_block(int64_t i3, int64_t ikv, int64_t i1, int64_t end) {
        const ggml_tensor * q = dst->src[0];

        i_stream  = i3;
        i_head_kv = ikv;
        i_q       = i1;
        n_q       = end - i1;
        m         = n_q*shape.n_gqa;
        plan      = plan_row(i3, i1);

        const bool identity = plan[GGML_LAMPE_PLAN_LOCAL_WINDOW] == INT32_MAX;
        const bool has_tail = plan[GGML_LAMPE_PLAN_TAIL_START]   != INT32_MAX;

        for (int64_t r = 0; r < m; ++r) {
            const int64_t i = i1 + r%n_q;
            const int64_t h = ikv*shape.n_gqa + r/n_q;

            const float * row = (const float *) ((const char *) q->data + i*q->nb[1] + h*q->nb[2] + i3*q->nb[3]);
            const int64_t pos = plan_row(i3, i)[GGML_LAMPE_PLAN_POS];

            rotate(q_rot[LAMPE_REGION_LOCAL] + r*shape.d_k, row, pos, scale);
            if (!identity) {
                rotate(q_rot[LAMPE_REGION_MIDDLE] + r*shape.d_k, row, middle(pos) + plan[GGML_LAMPE_PLAN_MIDDLE_SHIFT], scale);
            }
            if (!identity && has_tail) {
                rotate(q_rot[LAMPE_REGION_TAIL] + r*shape.d_k, row, pos - plan[GGML_LAMPE_PLAN_TAIL_SHIFT], scale);
            }
        }

        std::fill(row_max, row_max + m, -INFINITY);
        std::fill(row_sum, row_sum + m, 0.0f);
        std::fill(acc,     acc + m*shape.d_v, 0.0f);
    }

    // false when the mask hides all of the tile; keys beyond n are hidden
    bool load_mask(int64_t j0, int64_t n, const int32_t * k_pos) {
        const ggml_tensor * mask = dst->src[3];

        bool any = false;

        for (int64_t i = 0; i < n_q; ++i) {
            const char * row = (const char *) mask->data + (i_q + i)*mask->nb[1] + i_stream*mask->nb[3] + j0*mask->nb[0];
            float      * out = mask_f32 + i*LAMPE_TILE_KV;

            lampe_row_to_float(mask->type, row, out, n);
            for (int64_t j = 0; j < n; ++j) {
                out[j] = k_pos[j] < 0 ? -INFINITY : out[j];
            }
            for (int64_t j = n; j < LAMPE_TILE_KV; ++j) {
                out[j] = -INFINITY;
            }

            float max;
            ggml_vec_max_f32(LAMPE_TILE_KV, &max, out);
            any = any || max > -INFINITY;
        }

        return any;
    }

    const char * kv_row(const ggml_tensor * t, int64_t j) const {
        return (const char *) t->data + j*t->nb[1] + i_head_kv*t->nb[2] + i_stream*t->nb[3];
    }

    // out [m, LAMPE_TILE_KV]: the scores of one region, before softcap and mask
    void compute_scores(float * out, enum lampe_region region, int64_t n, const int32_t * k_pos) {
        const int64_t d_k = shape.d_k;

        for (int64_t j = 0; j < n; ++j) {
            const int64_t pos = std::max(0, k_pos[j]);

            rotate(k_rot + j*d_k, k_f32 + j*d_k, region == LAMPE_REGION_MIDDLE ? middle(pos) : pos, 1.0f);
        }

        const float * q = q_rot[region];

        if (m < 8) {
            for (int64_t r = 0; r < m; ++r) {
                for (int64_t j = 0; j < n; ++j) {
                    ggml_vec_dot_f32(d_k, out + r*LAMPE_TILE_KV + j, 0, q + r*d_k, 0, k_rot + j*d_k, 0, 1);
                }
            }
            return;
        }

        for (int64_t j0 = 0; j0 < LAMPE_TILE_KV; j0 += 16) {
            for (int64_t i = 0; i < d_k; ++i) {
                for (int64_t j = j0; j < j0 + 16; ++j) {
                    k_trans[i*LAMPE_TILE_KV + j] = k_rot[j*d_k + i];
                }
            }
        }

        std::fill(out, out + m*LAMPE_TILE_KV, 0.0f);
        simd_gemm(out, q, k_trans, m, d_k, LAMPE_TILE_KV);
    }

    // overwrite in s, with the scores of this region, the pairs that belong to it
    void select_scores(enum lampe_region region, int64_t n, const int32_t * k_pos) {
        const int64_t s1 = plan[GGML_LAMPE_PLAN_LOCAL_WINDOW];
        const int64_t t0 = std::max<int64_t>(s1 + 1, plan[GGML_LAMPE_PLAN_TAIL_START]);

        const int64_t d_min = region == LAMPE_REGION_LOCAL ? INT64_MIN : region == LAMPE_REGION_MIDDLE ? s1 + 1 : t0;
        const int64_t d_max = region == LAMPE_REGION_LOCAL ? s1        : region == LAMPE_REGION_MIDDLE ? t0 - 1 : INT64_MAX;

        for (int64_t r = 0; r < m; ++r) {
            const int64_t pos = plan_row(i_stream, i_q + r%n_q)[GGML_LAMPE_PLAN_POS];

            float       * a = s        + r*LAMPE_TILE_KV;
            const float * b = s_region + r*LAMPE_TILE_KV;

            for (int64_t j = 0; j < n; ++j) {
                const int64_t d = pos - k_pos[j];

                a[j] = d >= d_min && d <= d_max ? b[j] : a[j];
            }
        }
    }

    void compute_tile(int64_t j0, int64_t n) {
        const ggml_tensor * k = dst->src[1];
        const ggml_tensor * v = dst->src[2];

        const int32_t * k_pos = (const int32_t *) ((const char *) dst->src[5]->data + i_stream*dst->src[5]->nb[3]) + j0;

        if (!load_mask(j0, n, k_pos)) {
            return;
        }

        // the regions that the distances of the tile reach
        int64_t k_min = INT32_MAX;
        int64_t k_max = -1;
        for (int64_t j = 0; j < n; ++j) {
            if (k_pos[j] >= 0) {
                k_min = std::min<int64_t>(k_min, k_pos[j]);
                k_max = std::max<int64_t>(k_max, k_pos[j]);
            }
        }

        int64_t q_min = INT32_MAX;
        int64_t q_max = -1;
        for (int64_t i = 0; i < n_q; ++i) {
            const int64_t pos = plan_row(i_stream, i_q + i)[GGML_LAMPE_PLAN_POS];
            q_min = std::min(q_min, pos);
            q_max = std::max(q_max, pos);
        }

        const int64_t s1 = plan[GGML_LAMPE_PLAN_LOCAL_WINDOW];
        const int64_t t0 = std::max<int64_t>(s1 + 1, plan[GGML_LAMPE_PLAN_TAIL_START]);

        const bool reached[LAMPE_REGION_COUNT] = {
            q_min - k_max <= s1,
            q_max - k_min > s1 && q_min - k_max < t0 && s1 + 1 < t0,
            q_max - k_min > s1 && q_max - k_min >= t0,
        };

        for (int64_t j = 0; j < n; ++j) {
            lampe_row_to_float(k->type, kv_row(k, j0 + j), k_f32 + j*shape.d_k, shape.d_k);
            lampe_row_to_float(v->type, kv_row(v, j0 + j), v_f32 + j*shape.d_v, shape.d_v);
        }
        // the transposed tile is read whole
        std::fill(k_rot + n*shape.d_k, k_rot + LAMPE_TILE_KV*shape.d_k, 0.0f);

        bool first = true;
        for (int region = 0; region < LAMPE_REGION_COUNT; ++region) {
            if (!reached[region]) {
                continue;
            }
            compute_scores(first ? s : s_region, (enum lampe_region) region, n, k_pos);
            if (!first) {
                select_scores((enum lampe_region) region, n, k_pos);
            }
            first = false;
        }

        softmax_tile(n);

        if (m < 8) {
            for (int64_t r = 0; r < m; ++r) {
                for (int64_t j = 0; j < n; ++j) {
                    ggml_vec_mad_f32(shape.d_v, acc + r*shape.d_v, v_f32 + j*shape.d_v, s[r*LAMPE_TILE_KV + j]);
                }
            }
        } else {
            std::fill(v_f32 + n*shape.d_v, v_f32 + LAMPE_TILE_KV*shape.d_v, 0.0f);
            simd_gemm(acc, s, v_f32, m, LAMPE_TILE_KV, shape.d_v);
        }
    }

    // s becomes the weights, relative to a running maximum; what was summed before is scaled to the new one
    void softmax_tile(int64_t n) {
        for (int64_t r = 0; r < m; ++r) {
            float       * row  = s        + r*LAMPE_TILE_KV;
            const float * mask = mask_f32 + (r%n_q)*LAMPE_TILE_KV;

            if (softcap != 0.0f) {
                for (int64_t j = 0; j < n; ++j) {
                    row[j] = softcap*tanhf(row[j]/softcap);
                }
            }
            for (int64_t j = 0; j < n; ++j) {
                row[j] += mask[j];
            }
            for (int64_t j = n; j < LAMPE_TILE_KV; ++j) {
                row[j] = -INFINITY;
            }

            float max;
            ggml_vec_max_f32(LAMPE_TILE_KV, &max, row);
            max = std::max(max, row_max[r]);

            if (max == -INFINITY) {
                std::fill(row, row + LAMPE_TILE_KV, 0.0f);
                continue;
            }

            if (max > row_max[r]) {
                const float f = expf(row_max[r] - max);

                row_max[r]  = max;
                row_sum[r] *= f;
                ggml_vec_scale_f32(shape.d_v, acc + r*shape.d_v, f);
            }

            row_sum[r] += (float) ggml_vec_soft_max_f32(LAMPE_TILE_KV, row, row, max);
        }
    }

    void compute_block(int64_t j_begin, int64_t j_end) {
        for (int64_t j = j_begin; j < j_end; j += LAMPE_TILE_KV) {
            compute_tile(j, std::min(LAMPE_TILE_KV, j_end - j));
        }
    }

    float * partial_row(int64_t r, int64_t i_split) const {
        const int64_t h = i_head_kv*shape.n_gqa + r/n_q;
        const int64_t i = i_q + r%n_q;

        return partial + (((i_stream*shape.n_q + i)*shape.n_head + h)*shape.n_split + i_split)*(shape.d_v + 2);
    }

    void write_partial(int64_t i_split) const {
        for (int64_t r = 0; r < m; ++r) {
            float * out = partial_row(r, i_split);

            out[0] = row_max[r];
            out[1] = row_sum[r];
            memcpy(out + 2, acc + r*shape.d_v, shape.d_v*sizeof(float));
        }
    }

    // normalise; a sink takes part in the sum and has no value
    void write_row(float * out, const float * in, float max, float sum, int64_t h) const {
        float f = sum > 0.0f ? 1.0f/sum : 0.0f;

        if (dst->src[7] && sum > 0.0f) {
            const float sink    = ((const float *) dst->src[7]->data)[h];
            const float max_all = std::max(max, sink);
            const float ms      = expf(max - max_all);

            f = ms/(sum*ms + expf(sink - max_all));
        }

        for (int64_t i = 0; i < shape.d_v; ++i) {
            out[i] = f*in[i];
        }
    }

    float * dst_row(int64_t i3, int64_t i, int64_t h) const {
        return (float *) ((char *) dst->data + h*dst->nb[1] + i*dst->nb[2] + i3*dst->nb[3]);
    }

    void write_block() const {
        for (int64_t r = 0; r < m; ++r) {
            const int64_t h = i_head_kv*shape.n_gqa + r/n_q;

            write_row(dst_row(i_stream, i_q + r%n_q, h), acc + r*shape.d_v, row_max[r], row_sum[r], h);
        }
    }

    // merge the parts of one query row
    void merge(int64_t i3, int64_t i, int64_t h) const {
        float * part = partial + ((i3*shape.n_q + i)*shape.n_head + h)*shape.n_split*(shape.d_v + 2);

        float max = -INFINITY;
        for (int64_t p = 0; p < shape.n_split; ++p) {
            max = std::max(max, part[p*(shape.d_v + 2)]);
        }

        // collected in the first part
        float sum = 0.0f;
        for (int64_t p = 0; p < shape.n_split; ++p) {
            float * cur = part + p*(shape.d_v + 2);

            const float f = cur[0] == -INFINITY ? 0.0f : expf(cur[0] - max);

            sum += f*cur[1];
            ggml_vec_scale_f32(shape.d_v, cur + 2, f);
            if (p > 0) {
                ggml_vec_mad_f32(shape.d_v, part + 2, cur + 2, 1.0f);
            }
        }

        write_row(dst_row(i3, i, h), part + 2, max, sum, h);
    }
};

}

void ggml_compute_forward_lampe_attn(const ggml_compute_params * params, ggml_tensor * dst) {
    lampe_kernel kernel(params, dst);

    const auto & shape = kernel.shape;

    if (params->ith == 0) {
        ggml_threadpool_chunk_set(params->threadpool, params->nth);
    }
    ggml_barrier(params->threadpool);

    // every thread walks all items and computes those that it drew
    int64_t i_item = 0;
    int64_t i_next = params->ith;

    // parts are whole tiles
    const int64_t n_tile = (shape.n_kv + LAMPE_TILE_KV - 1)/LAMPE_TILE_KV;
    const int64_t n_part = (n_tile + shape.n_split - 1)/shape.n_split*LAMPE_TILE_KV;

    for (int64_t i3 = 0; i3 < shape.n_stream; ++i3) {
        for (int64_t i1 = 0, end = 0; i1 < shape.n_q; i1 = end) {
            end = kernel.block_end(i3, i1);

            for (int64_t ikv = 0; ikv < shape.n_head_kv; ++ikv) {
                for (int64_t p = 0; p < shape.n_split; ++p, ++i_item) {
                    if (i_item != i_next) {
                        continue;
                    }
                    i_next = ggml_threadpool_chunk_add(params->threadpool, 1);

                    kernel.begin_block(i3, ikv, i1, end);
                    kernel.compute_block(std::min(p*n_part, shape.n_kv), std::min((p + 1)*n_part, shape.n_kv));

                    if (shape.n_split > 1) {
                        kernel.write_partial(p);
                    } else {
                        kernel.write_block();
                    }
                }
            }
        }
    }

    if (shape.n_split == 1) {
        return;
    }

    ggml_barrier(params->threadpool);

    const int64_t n_row = shape.n_stream*shape.n_q*shape.n_head;

    for (int64_t ir = params->ith; ir < n_row; ir += params->nth) {
        kernel.merge(ir/(shape.n_q*shape.n_head), (ir/shape.n_head)%shape.n_q, ir%shape.n_head);
    }
}
