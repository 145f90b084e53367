#include "lampe-attn.h"

#include "ggml-cpu.h"
#include "ggml-cpu-impl.h"
#include "ggml-lampe.h"
#include "lampe-attn-i16.h"
#include "lampe-attn-tile.h"
#include "ops.h"

#include <algorithm>
#include <cmath>
#include <cstring>

// A work item is a block of queries, with all query heads of a KV head, against a part of the keys. Where the queries are
// few it takes several KV heads, so that memory is read in order. A block ends where the plan changes: it has one plan.
// Where there are too few blocks for the threads, the keys are split into parts, whose results are merged at the end.

static constexpr int64_t LAMPE_BLOCK_ROWS = 768;  // at head size 64: queries and outputs of a block should stay in the cache
static constexpr int64_t LAMPE_VEC_FLOATS = 8192; // of a work item in the vec layout: its rows should stay in the cache, too
static constexpr int64_t LAMPE_BLOCK_Q    = 128;  // with more queries, too much work is done above the diagonal

lampe_shape::lampe_shape(const ggml_tensor * dst, int n_threads) {
    const ggml_tensor * q = dst->src[0];
    const ggml_tensor * k = dst->src[1];
    const ggml_tensor * v = dst->src[2];

    d_k       = k->ne[0];
    d_v       = v->ne[0];
    d_k_pad   = GGML_PAD(d_k, LAMPE_EPR);
    d_v_pad   = GGML_PAD(d_v, LAMPE_EPR);
    n_q       = q->ne[1];
    n_kv      = k->ne[1];
    n_head    = q->ne[2];
    n_head_kv = k->ne[2];
    n_stream  = k->ne[3];
    n_gqa     = n_head/n_head_kv;
#ifdef LAMPE_I16
    i16       = k->type != GGML_TYPE_F32 && v->type != GGML_TYPE_F32;
#else
    i16       = false;
#endif

    const int64_t n_row_max = std::clamp<int64_t>(LAMPE_BLOCK_ROWS*64/std::max(d_k, d_v), 64, LAMPE_BLOCK_ROWS);

    const int64_t n_tile = (n_kv + LAMPE_TILE_KV - 1)/LAMPE_TILE_KV;

    // with fewer tiles than threads, only single heads give work to all of them
    n_head_vec = n_tile < n_threads ? 1 : std::clamp<int64_t>(LAMPE_VEC_FLOATS/(LAMPE_VEC_ROWS*std::max(d_k_pad, d_v_pad)), 1, n_head_kv);

    const auto n_item = [&]() {
        const int64_t n_head_item = this->n_head_item(n_block_q*n_gqa);

        return n_stream*((n_head_kv + n_head_item - 1)/n_head_item)*((n_q + n_block_q - 1)/n_block_q);
    };

    n_block_q = std::clamp<int64_t>(n_row_max/n_gqa, 1, std::min(n_q, LAMPE_BLOCK_Q));
    while (n_item() < 4*n_threads && n_block_q > 1 && n_block_q*n_gqa > 64) {
        n_block_q = (n_block_q + 1)/2;
    }
    n_row = GGML_PAD(n_block_q*n_gqa, LAMPE_PANEL);

    n_split = 1;
    if (n_item() < 4*n_threads) {
        // every part rotates the queries anew: no more parts than keep the threads busy
        const int64_t n_part = std::min<int64_t>((4*n_threads + n_item() - 1)/n_item(), n_threads);

        n_split = std::clamp<int64_t>(n_block_q*n_gqa <= LAMPE_VEC_ROWS ? n_tile : n_tile/4, 1, n_part);
    }
}

size_t lampe_shape::n_work_thread() const {
    int64_t n = LAMPE_REGION_COUNT*(n_q_rot() + LAMPE_TILE_KV*std::max<int64_t>(LAMPE_PANEL, n_head_vec*LAMPE_VEC_ROWS)) +
        n_head_vec*LAMPE_VEC_ROWS*d_k_pad + n_row_item()*(d_v_pad + 2) + n_row + LAMPE_PANEL +
        d_k + LAMPE_TILE_KV*(2*d_k_pad + d_v_pad + n_block_q);
    if (i16) {
        n += LAMPE_TILE_KV*(d_k_pad + d_v_pad/2 + 3) + LAMPE_REGION_COUNT*n_row + LAMPE_PANEL + d_v_pad;
    }

    // each of the 28 buffers begins on a cache line
    return n + 29*CACHE_LINE_SIZE_F32;
}

size_t lampe_shape::n_work(int n_threads) const {
    return n_work_thread()*n_threads + (n_split > 1 ? n_stream*n_q*n_head*n_split*(2 + d_v) : 0);
}

bool ggml_cpu_lampe_attn_supported(const ggml_tensor * dst) {
    const auto row_ok = [](const ggml_tensor * t) {
        return t->nb[0] == ggml_type_size(t->type) && (t->type == GGML_TYPE_F32 || ggml_get_type_traits(t->type)->to_float != nullptr);
    };

    return dst->src[0]->type == GGML_TYPE_F32 && row_ok(dst->src[0]) && row_ok(dst->src[1]) && row_ok(dst->src[2]) && row_ok(dst->src[3]);
}

size_t ggml_cpu_lampe_attn_work_size(const ggml_tensor * dst, int n_tasks) {
    // of a device that has none of the heads, see ggml-backend-meta.cpp: it is not computed
    if (ggml_is_empty(dst)) {
        return 0;
    }

    size_t res = 0;

    // fewer threads than planned may turn up, and they may split the keys differently
    for (int n = 1; n <= n_tasks; ++n) {
        res = std::max(res, lampe_shape(dst, n).n_work(n));
    }

    return res*sizeof(float);
}

namespace {

struct lampe_kernel {
    const ggml_tensor * dst;
    const lampe_shape   shape;
    lampe_tile          tile;

    float * partial; // [n_stream, n_q, n_head, n_split, 2 + d_v]: max, sum, output

    lampe_kernel(const ggml_compute_params * params, ggml_tensor * dst) :
            dst(dst), shape(dst, params->nth), tile(dst, shape, (float *) params->wdata + shape.n_work_thread()*params->ith) {
        GGML_ASSERT(shape.n_work(params->nth)*sizeof(float) <= params->wsize);

        partial = (float *) params->wdata + shape.n_work_thread()*params->nth;
    }

    const int32_t * plan_row(int64_t i3, int64_t i1) const {
        const ggml_tensor * t = dst->src[4];

        return (const int32_t *) ((const char *) t->data + i1*t->nb[1] + i3*t->nb[3]);
    }

    // where the block begins that ends before query end
    int64_t block_begin(int64_t i3, int64_t end) const {
        constexpr size_t n_bytes = (GGML_LAMPE_PLAN_TAIL_SHIFT - GGML_LAMPE_PLAN_POS)*sizeof(int32_t);

        const int32_t * last = plan_row(i3, end - 1) + GGML_LAMPE_PLAN_LOCAL_WINDOW;

        int64_t i1 = end - 1;
        while (i1 > 0 && end - i1 < shape.n_block_q &&
                memcmp(last, plan_row(i3, i1 - 1) + GGML_LAMPE_PLAN_LOCAL_WINDOW, n_bytes) == 0) {
            --i1;
        }

        return i1;
    }

    float * partial_row(int64_t i3, int64_t i1, int64_t h, int64_t i_split) const {
        return partial + (((i3*shape.n_q + i1)*shape.n_head + h)*shape.n_split + i_split)*(2 + shape.d_v);
    }

    void write_row(const float * in, int64_t stride, float max, float sum, int64_t i3, int64_t i1, int64_t h) const {
        float * out = (float *) ((char *) dst->data + h*dst->nb[1] + i1*dst->nb[2] + i3*dst->nb[3]);

        const float f = lampe_row_factor(dst->src[7] ? (const float *) dst->src[7]->data : nullptr, h, max, sum);

        for (int64_t i = 0; i < shape.d_v; ++i) {
            out[i] = f*in[i*stride];
        }
    }

    void compute_item(int64_t i3, int64_t ikv, int64_t i1, int64_t end, int64_t i_split) {
        tile.begin_block(i3, ikv, i1, end - i1, plan_row(i3, i1));

        // in turn, so that parts are alike even where the mask hides whole runs of keys
        for (int64_t j = i_split*LAMPE_TILE_KV; j < shape.n_kv; j += shape.n_split*LAMPE_TILE_KV) {
            tile.compute(j, std::min(LAMPE_TILE_KV, shape.n_kv - j));
        }

        for (int64_t r = 0; r < tile.n_head_kv*tile.m; ++r) {
            const int64_t i = i1 + r%tile.n_q;
            const int64_t h = ikv*shape.n_gqa + r/tile.n_q;

            const lampe_tile::row_result res = tile.result(r/tile.m, r%tile.m);

            if (shape.n_split == 1) {
                write_row(res.data, res.stride, res.max, res.sum, i3, i, h);
                continue;
            }

            float * out = partial_row(i3, i, h, i_split);

            out[0] = res.max;
            out[1] = res.sum;
            for (int64_t d = 0; d < shape.d_v; ++d) {
                out[2 + d] = res.data[d*res.stride];
            }
        }
    }

    // put the parts of one row together in the first, and write the row
    void merge(int64_t i3, int64_t i1, int64_t h) const {
        float * part = partial_row(i3, i1, h, 0);

        float max = part[0];
        for (int64_t p = 1; p < shape.n_split; ++p) {
            max = std::max(max, part[p*(2 + shape.d_v)]);
        }

        float sum = 0.0f;
        for (int64_t p = 0; p < shape.n_split; ++p) {
            const float * cur = part + p*(2 + shape.d_v);
            const float   f   = expf(cur[0] - max);

            sum += f*cur[1];
            for (int64_t d = 2; d < 2 + shape.d_v; ++d) {
                part[d] = p == 0 ? f*cur[d] : part[d] + f*cur[d];
            }
        }

        write_row(part + 2, 1, max, sum, i3, i1, h);
    }
};

}

void ggml_compute_forward_lampe_attn(const ggml_compute_params * params, ggml_tensor * dst) {
    lampe_kernel kernel(params, dst);

    const auto & shape = kernel.shape;

    // parts take equally long and are dealt out beforehand; blocks do not, and are drawn
    const bool draw = shape.n_split == 1;

    if (draw) {
        if (params->ith == 0) {
            ggml_threadpool_chunk_set(params->threadpool, params->nth);
        }
        ggml_barrier(params->threadpool);
    }

    // every thread walks all items and computes its own; the last queries see most keys, so they come first
    int64_t i_item = 0;
    int64_t i_next = params->ith;

    for (int64_t i3 = 0; i3 < shape.n_stream; ++i3) {
        for (int64_t i1, end = shape.n_q; end > 0; end = i1) {
            i1 = kernel.block_begin(i3, end);

            const int64_t n_head_item = shape.n_head_item((end - i1)*shape.n_gqa);

            for (int64_t ikv = 0; ikv < shape.n_head_kv; ikv += n_head_item) {
                for (int64_t p = 0; p < shape.n_split; ++p, ++i_item) {
                    if (i_item != i_next) {
                        continue;
                    }
                    i_next = draw ? ggml_threadpool_chunk_add(params->threadpool, 1) : i_next + params->nth;

                    kernel.compute_item(i3, ikv, i1, end, p);
                }
            }
        }
    }

    if (draw) {
        return;
    }

    ggml_barrier(params->threadpool);

    const int64_t n_row = shape.n_stream*shape.n_q*shape.n_head;

    for (int64_t ir = params->ith; ir < n_row; ir += params->nth) {
        kernel.merge(ir/(shape.n_q*shape.n_head), (ir/shape.n_head)%shape.n_q, ir%shape.n_head);
    }
}
