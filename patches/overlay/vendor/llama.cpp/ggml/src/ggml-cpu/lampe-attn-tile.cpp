#include "lampe-attn-tile.h"

#include "ggml-cpu.h"
#include "ggml-cpu-impl.h"
#include "ggml-lampe.h"
#include "lampe-attn-simd.h"
#include "ops.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstring>

static_assert(LAMPE_TILE_KV % LAMPE_EPR == 0, "a row of scores is whole vectors");

lampe_tile::lampe_tile(const ggml_tensor * dst, const lampe_shape & shape, float * work) : dst(dst), shape(shape) {
    scale   = ggml_get_op_params_f32(dst, 0);
    softcap = ggml_get_op_params_f32(dst, 1);
    neox    = ggml_get_op_params_i32(dst, 2) == GGML_ROPE_TYPE_NEOX;

    n_rot = dst->src[6]->ne[0];
    n_pos = dst->src[6]->ne[1];
    rope  = (const float *) dst->src[6]->data;

    // on cache lines, so that no vector straddles two
    work = (float *) GGML_PAD((uintptr_t) work, CACHE_LINE_SIZE);

    const auto take = [&](int64_t n) {
        float * res = work;
        work += GGML_PAD(n, CACHE_LINE_SIZE_F32);
        return res;
    };

    for (auto & x : q_rot) {
        x = take(std::max(shape.n_row*shape.d_k, LAMPE_FEW_ROWS*shape.d_k_pad));
    }
    for (auto & x : s) {
        x = take(std::max<int64_t>(LAMPE_TILE_KV*LAMPE_PANEL, LAMPE_TILE_KV*LAMPE_FEW_ROWS));
    }
    q_raw    = take(LAMPE_FEW_ROWS*shape.d_k_pad);
    acc      = take(std::max(shape.n_row*shape.d_v, LAMPE_FEW_ROWS*shape.d_v_pad));
    row_max  = take(shape.n_row);
    row_sum  = take(shape.n_row);
    q_pos    = (int32_t *) take(shape.n_row);
    alpha    = take(LAMPE_PANEL);
    k_f32    = take(shape.d_k);
    k_exact  = take(LAMPE_TILE_KV*shape.d_k_pad);
    k_middle = take(LAMPE_TILE_KV*shape.d_k_pad);
    v_f32    = take(LAMPE_TILE_KV*shape.d_v_pad);
    mask_f32 = take(LAMPE_TILE_KV*shape.n_block_q);

    // what is beyond the head size stays zero
    if (shape.d_k_pad != shape.d_k) {
        std::fill(k_exact,  k_exact  + LAMPE_TILE_KV*shape.d_k_pad, 0.0f);
        std::fill(k_middle, k_middle + LAMPE_TILE_KV*shape.d_k_pad, 0.0f);
    }
    if (shape.d_v_pad != shape.d_v) {
        std::fill(v_f32, v_f32 + LAMPE_TILE_KV*shape.d_v_pad, 0.0f);
    }
}

// floor(pos*num/den), for the positions of the middle
int64_t lampe_tile::middle(int64_t pos) const {
    return pos*plan[GGML_LAMPE_PLAN_NUM]/std::max(1, plan[GGML_LAMPE_PLAN_DEN]);
}

int64_t lampe_tile::query_position(enum lampe_region region, int64_t pos) const {
    switch (region) {
        case LAMPE_REGION_MIDDLE: return middle(pos) + plan[GGML_LAMPE_PLAN_MIDDLE_SHIFT];
        case LAMPE_REGION_TAIL:   return pos - plan[GGML_LAMPE_PLAN_TAIL_SHIFT];
        default:                  return pos;
    }
}

const float * lampe_tile::query(int64_t r) const {
    const ggml_tensor * q = dst->src[0];

    const int64_t i = i_q + r%n_q;
    const int64_t h = i_head_kv*shape.n_gqa + r/n_q;

    return (const float *) ((const char *) q->data + i*q->nb[1] + h*q->nb[2] + i_stream*q->nb[3]);
}

void lampe_tile::begin_block(int64_t i3, int64_t ikv, int64_t i1, int64_t n_q, const int32_t * plan) {
    i_stream  = i3;
    i_head_kv = ikv;
    i_q       = i1;
    this->n_q  = n_q;
    this->plan = plan;

    m   = n_q*shape.n_gqa;
    few = m <= LAMPE_FEW_ROWS;

    q_min = INT32_MAX;
    q_max = INT32_MIN;
    for (int64_t i = 0; i < n_q; ++i) {
        const int64_t pos = *(const int32_t *) ((const char *) plan + i*dst->src[4]->nb[1]);

        for (int64_t h = 0; h < shape.n_gqa; ++h) {
            q_pos[h*n_q + i] = pos;
        }
        q_min = std::min(q_min, pos);
        q_max = std::max(q_max, pos);
    }
    std::fill(q_pos + m, q_pos + shape.n_row, 0);

    std::fill(q_ready, q_ready + LAMPE_REGION_COUNT, false);

    if (few) {
        for (int64_t r = 0; r < m; ++r) {
            const float * row = query(r);
            for (int64_t i = 0; i < shape.d_k; ++i) {
                q_raw[r*shape.d_k_pad + i] = scale*row[i];
            }
        }
        for (auto & x : q_rot) {
            std::fill(x, x + m*shape.d_k_pad, 0.0f);
        }
        // the rows of the output are scaled one by one
        std::fill(alpha, alpha + LAMPE_PANEL, 1.0f);
    }

    std::fill(row_max, row_max + shape.n_row, -FLT_MAX);
    std::fill(row_sum, row_sum + shape.n_row, 0.0f);
    std::fill(acc, acc + (few ? m*shape.d_v_pad : GGML_PAD(m, LAMPE_PANEL)*shape.d_v), 0.0f);
}

lampe_tile::row_result lampe_tile::result(int64_t r) const {
    if (few) {
        return { acc + r*shape.d_v_pad, 1, row_max[r], row_sum[r] };
    }
    return { acc + r/LAMPE_PANEL*LAMPE_PANEL*shape.d_v + r%LAMPE_PANEL, LAMPE_PANEL, row_max[r], row_sum[r] };
}

void lampe_tile::rotate_panels(enum lampe_region region) {
    float * row = q_raw;

    std::fill(q_rot[region], q_rot[region] + GGML_PAD(m, LAMPE_PANEL)*shape.d_k, 0.0f);

    for (int64_t r = 0; r < m; ++r) {
        float * out = q_rot[region] + r/LAMPE_PANEL*LAMPE_PANEL*shape.d_k + r%LAMPE_PANEL;

        rotate_query(row, query(r), query_position(region, q_pos[r]));
        for (int64_t i = 0; i < shape.d_k; ++i) {
            out[i*LAMPE_PANEL] = scale*row[i];
        }
    }

    q_ready[region] = true;
}

// of the scores of three regions, those of the region that each pair of query and key belongs to
// by_key: a row of scores is one key against n queries, otherwise one query against n keys
template <bool by_key>
static void lampe_select(float * out, const float * local, const float * middle, const float * tail,
        const int32_t * plan, const int32_t * q_pos, const int32_t * k_pos, int64_t n) {
    const int32_t s1 = plan[GGML_LAMPE_PLAN_LOCAL_WINDOW];
    const int32_t t0 = plan[GGML_LAMPE_PLAN_TAIL_START];

    for (int64_t i = 0; i < n; ++i) {
        const int32_t d = by_key ? q_pos[i] - k_pos[0] : q_pos[0] - k_pos[i];
        const float   x = d >= t0 ? tail[i] : middle[i];

        out[i] = d <= s1 ? local[i] : x;
    }
}

// what is hidden may be anything, an unset score of a region that no visible key is in too
static void lampe_mask(float * x, const float * mask, int64_t n) {
    for (int64_t i = 0; i < n; ++i) {
        x[i] = mask[i] == -INFINITY ? -INFINITY : x[i] + mask[i];
    }
}

static void lampe_softcap(float * x, float softcap, int64_t n) {
    for (int64_t i = 0; i < n; ++i) {
        x[i] = softcap*tanhf(x[i]/softcap);
    }
}

void lampe_tile::compute(int64_t j0, int64_t n) {
    this->j0 = j0;
    this->n  = n;

    if (!load_positions() || !load_mask()) {
        return;
    }
    load_values();

    if (few) {
        compute_few();
    } else {
        compute_panels();
    }
}

void lampe_tile::compute_panels() {
    const float * k_rot[LAMPE_REGION_COUNT] = { k_exact, k_middle, k_exact };

    if (reached[LAMPE_REGION_LOCAL] || reached[LAMPE_REGION_TAIL]) {
        rotate_keys(k_exact, false, 0);
    }
    if (reached[LAMPE_REGION_MIDDLE]) {
        rotate_keys(k_middle, true, 0);
    }

    int     n_reached = 0;
    float * scores    = nullptr;
    for (int i = 0; i < LAMPE_REGION_COUNT; ++i) {
        if (reached[i]) {
            n_reached += 1;
            scores = s[i];
            if (!q_ready[i]) {
                rotate_panels((enum lampe_region) i);
            }
        }
    }

    for (int64_t c0 = 0; c0 < m; c0 += LAMPE_PANEL) {
        const int64_t n_col = std::min<int64_t>(LAMPE_PANEL, m - c0);
        const int64_t n_vec = (n_col + LAMPE_EPR - 1)/LAMPE_EPR;

        for (int i = 0; i < LAMPE_REGION_COUNT; ++i) {
            if (reached[i]) {
                lampe_gemm(s[i], LAMPE_PANEL, k_rot[i], shape.d_k_pad, 1, q_rot[i] + c0*shape.d_k, LAMPE_PANEL, nullptr, n, n_vec, shape.d_k);
            }
        }

        for (int64_t j = 0; j < n && n_reached > 1; ++j) {
            const int64_t o = j*LAMPE_PANEL;
            lampe_select<true>(scores + o, s[LAMPE_REGION_LOCAL] + o, s[LAMPE_REGION_MIDDLE] + o, s[LAMPE_REGION_TAIL] + o,
                    plan, q_pos + c0, k_pos + j, n_col);
        }
        for (int64_t j = 0; j < n && softcap != 0.0f; ++j) {
            lampe_softcap(scores + j*LAMPE_PANEL, softcap, n_col);
        }
        for (int64_t j = 0; j < n && masked; ++j) {
            const float * mask = mask_f32 + j*n_q;
            for (int64_t c = 0; c < n_col; ) {
                // a run of columns of one head
                const int64_t i   = (c0 + c)%n_q;
                const int64_t run = std::min(n_q - i, n_col - c);
                lampe_mask(scores + j*LAMPE_PANEL + c, mask + i, run);
                c += run;
            }
        }

        lampe_softmax_panel(scores, n, n_vec, row_max + c0, row_sum + c0, alpha);
        lampe_gemm(acc + c0*shape.d_v, LAMPE_PANEL, v_f32, 1, shape.d_v_pad, scores, LAMPE_PANEL, alpha, shape.d_v, n_vec, n);
    }
}

void lampe_tile::compute_few() {
    const float * k_rot[LAMPE_REGION_COUNT] = { k_exact, k_middle, k_exact };

    // count positions from the first key on: the rows of the table that are needed then stay in the cache
    int64_t base[LAMPE_REGION_COUNT] = { k_min, middle(k_min), k_min };
    for (int i = 0; i < LAMPE_REGION_COUNT; ++i) {
        if (reached[i]) {
            base[i] = std::min(base[i], query_position((enum lampe_region) i, q_min));
        }
    }
    base[LAMPE_REGION_LOCAL] = std::min(base[LAMPE_REGION_LOCAL], base[LAMPE_REGION_TAIL]);
    base[LAMPE_REGION_TAIL]  = base[LAMPE_REGION_LOCAL];

    if (reached[LAMPE_REGION_LOCAL] || reached[LAMPE_REGION_TAIL]) {
        rotate_keys(k_exact, false, base[LAMPE_REGION_LOCAL]);
    }
    if (reached[LAMPE_REGION_MIDDLE]) {
        rotate_keys(k_middle, true, base[LAMPE_REGION_MIDDLE]);
    }

    int     n_reached = 0;
    float * scores    = nullptr;
    for (int i = 0; i < LAMPE_REGION_COUNT; ++i) {
        if (!reached[i]) {
            continue;
        }
        for (int64_t r = 0; r < m; ++r) {
            const int64_t pos = query_position((enum lampe_region) i, q_pos[r]);
            rotate_query(q_rot[i] + r*shape.d_k_pad, q_raw + r*shape.d_k_pad, pos - base[i]);
        }
        lampe_dots(s[i], LAMPE_TILE_KV, q_rot[i], shape.d_k_pad, k_rot[i], shape.d_k_pad, shape.d_k_pad, m, n);

        n_reached += 1;
        scores = s[i];
    }

    const int64_t n_pad = GGML_PAD(n, LAMPE_EPR);

    for (int64_t r = 0; r < m; ++r) {
        const int64_t o = r*LAMPE_TILE_KV;

        float * row = scores + o;

        if (n_reached > 1) {
            lampe_select<false>(row, s[LAMPE_REGION_LOCAL] + o, s[LAMPE_REGION_MIDDLE] + o, s[LAMPE_REGION_TAIL] + o, plan, q_pos + r, k_pos, n);
        }
        if (softcap != 0.0f) {
            lampe_softcap(row, softcap, n);
        }
        if (masked) {
            lampe_mask(row, mask_f32 + r%n_q*LAMPE_TILE_KV, n);
        }
        std::fill(row + n, row + n_pad, -INFINITY);

        const float f = lampe_softmax_row(row, n_pad, row_max + r, row_sum + r);
        if (f != 1.0f) {
            ggml_vec_scale_f32(shape.d_v_pad, acc + r*shape.d_v_pad, f);
        }
    }

    for (int64_t c = 0; c < shape.d_v_pad; c += LAMPE_PANEL) {
        const int64_t n_vec = std::min<int64_t>(LAMPE_RN, (shape.d_v_pad - c)/LAMPE_EPR);
        lampe_gemm(acc + c, shape.d_v_pad, scores, LAMPE_TILE_KV, 1, v_f32 + c, shape.d_v_pad, alpha, m, n_vec, n);
    }
}
