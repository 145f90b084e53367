#include "lampe-attn-tile.h"

#include "ggml-cpu.h"
#include "ggml-cpu-impl.h"
#include "ggml-lampe.h"
#include "lampe-attn-i16.h"
#include "ops.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstring>

static_assert(LAMPE_TILE_KV % LAMPE_EPR == 0, "a row of scores is whole vectors");

lampe_tile::lampe_tile(const ggml_tensor * dst, const lampe_shape & shape, float * work) : dst(dst), shape(shape) {
    params = lampe_get_params(dst);

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
        x = take(shape.n_q_rot());
    }
    for (auto & x : s) {
        x = take(LAMPE_TILE_KV*std::max<int64_t>(LAMPE_PANEL, shape.n_head_vec*LAMPE_VEC_ROWS));
    }
    q_raw    = take(shape.n_head_vec*LAMPE_VEC_ROWS*shape.d_k_pad);
    acc      = take(shape.n_row_item()*shape.d_v_pad);
    row_max  = take(shape.n_row_item());
    row_sum  = take(shape.n_row_item());
    q_pos    = (int32_t *) take(shape.n_row);
    alpha    = take(LAMPE_PANEL);
    k_f32    = take(shape.d_k);
    k_exact  = take(LAMPE_TILE_KV*shape.d_k_pad);
    k_middle = take(LAMPE_TILE_KV*shape.d_k_pad);
    v_f32    = take(LAMPE_TILE_KV*shape.d_v_pad);
    mask_f32 = take(LAMPE_TILE_KV*shape.n_block_q);

    if (shape.i16) {
        for (int i : { LAMPE_REGION_LOCAL, LAMPE_REGION_MIDDLE }) {
            k_i16[i]   = (int16_t *) take(LAMPE_TILE_KV*shape.d_k_pad/2);
            k_scale[i] = take(LAMPE_TILE_KV);
        }
        k_i16[LAMPE_REGION_TAIL]   = k_i16[LAMPE_REGION_LOCAL];
        k_scale[LAMPE_REGION_TAIL] = k_scale[LAMPE_REGION_LOCAL];
        for (auto & x : q_scale) {
            x = take(shape.n_row);
        }
        v_i16   = (int32_t *) take(LAMPE_TILE_KV/2*shape.d_v_pad);
        v_scale = take(LAMPE_TILE_KV);
        v_norm2 = take(shape.d_v_pad);
        p_scale = take(LAMPE_PANEL);
    }

    // padding counts in dot products and is never written again
    if (shape.d_k_pad != shape.d_k) {
        std::fill(q_raw, q_raw + shape.n_head_vec*LAMPE_VEC_ROWS*shape.d_k_pad, 0.0f);
        std::fill(k_exact,  k_exact  + LAMPE_TILE_KV*shape.d_k_pad, 0.0f);
        std::fill(k_middle, k_middle + LAMPE_TILE_KV*shape.d_k_pad, 0.0f);
    }
    if (shape.d_v_pad != shape.d_v) {
        std::fill(v_f32, v_f32 + LAMPE_TILE_KV*shape.d_v_pad, 0.0f);
    }
}

int64_t lampe_tile::middle(int64_t pos) const {
    return ggml_lampe_middle(pos, plan[GGML_LAMPE_PLAN_NUM], plan[GGML_LAMPE_PLAN_DEN]);
}

int64_t lampe_tile::query_position(enum lampe_region region, int64_t pos) const {
    return lampe_query_position(plan, region, pos);
}

const float * lampe_tile::query(int64_t i, int64_t r) const {
    const ggml_tensor * q = dst->src[0];

    const int64_t i1 = i_q + r%n_q;
    const int64_t h  = (i_head_kv + i)*shape.n_gqa + r/n_q;

    return (const float *) ((const char *) q->data + i1*q->nb[1] + h*q->nb[2] + i_stream*q->nb[3]);
}

void lampe_tile::begin_block(int64_t i3, int64_t ikv, int64_t i1, int64_t n_q, const int32_t * plan) {
    i_stream  = i3;
    i_head_kv = ikv;
    i_q       = i1;
    this->n_q  = n_q;
    this->plan = plan;

    m   = n_q*shape.n_gqa;
    vec = m <= LAMPE_VEC_ROWS;

    n_head_kv = std::min(shape.n_head_item(m), shape.n_head_kv - ikv);

    integers = shape.i16 && !vec;

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

    const int64_t n_row = vec ? n_head_kv*m : GGML_PAD(m, LAMPE_PANEL);

    if (vec) {
        for (int64_t r = 0; r < n_row; ++r) {
            const float * row = query(r/m, r%m);
            for (int64_t i = 0; i < shape.d_k; ++i) {
                const int64_t o = params.neox || i >= n_rot ? i : i/2 + i%2*(n_rot/2);

                q_raw[r*shape.d_k_pad + o] = params.scale*row[i];
            }
        }
        for (auto & x : q_rot) {
            std::fill(x, x + n_row*shape.d_k_pad, 0.0f);
        }
        // vec_softmax() scales the rows of the output itself
        std::fill(alpha, alpha + LAMPE_PANEL, 1.0f);
    }

    std::fill(row_max, row_max + n_row, -FLT_MAX);
    std::fill(row_sum, row_sum + n_row, 0.0f);
    std::fill(acc, acc + n_row*(vec ? shape.d_v_pad : shape.d_v), 0.0f);
}

lampe_tile::row_result lampe_tile::result(int64_t i, int64_t r) const {
    if (vec) {
        r += i*m;
        return { acc + r*shape.d_v_pad, 1, row_max[r], row_sum[r] };
    }
    return { acc + r/LAMPE_PANEL*LAMPE_PANEL*shape.d_v + r%LAMPE_PANEL, LAMPE_PANEL, row_max[r], row_sum[r] };
}

void lampe_tile::rotate_panels(enum lampe_region region) {
    float * out = q_rot[region];

    std::fill(out, out + GGML_PAD(m, LAMPE_PANEL)*shape.d_k_pad/(integers ? 2 : 1), 0.0f);

    const auto rotate = [&](float * row, int64_t r) {
        rotate_query(row, query(0, r), query_position(region, q_pos[r]));
    };

#ifdef LAMPE_I16
    for (int64_t r0 = 0; r0 < m && integers; r0 += LAMPE_I16_ROWS) {
        const int64_t n_row = std::min<int64_t>(m - r0, LAMPE_I16_ROWS);

        // the keys come after, their room is free
        float   * rows     = k_exact;
        int16_t * rows_i16 = k_i16[region];

        for (int64_t r = 0; r < n_row; ++r) {
            rotate(rows + r*shape.d_k_pad, r0 + r);
        }
        lampe_quantize_rows(rows_i16, q_scale[region] + r0, rows, shape.d_k_pad, n_row, shape.d_k_pad);

        for (int64_t r = 0; r < n_row; ++r) {
            int32_t * col = (int32_t *) out + (r0 + r)/LAMPE_PANEL*LAMPE_PANEL*(shape.d_k_pad/2) + (r0 + r)%LAMPE_PANEL;
            for (int64_t i = 0; i < shape.d_k_pad/2; ++i) {
                memcpy(col + i*LAMPE_PANEL, rows_i16 + r*shape.d_k_pad + 2*i, sizeof(int32_t));
            }
        }
        for (int64_t r = 0; r < n_row; ++r) {
            q_scale[region][r0 + r] *= params.scale;
        }
    }
#endif
    for (int64_t r = 0; r < m && !integers; ++r) {
        float * col = out + r/LAMPE_PANEL*LAMPE_PANEL*shape.d_k + r%LAMPE_PANEL;

        rotate(q_raw, r);
        for (int64_t i = 0; i < shape.d_k; ++i) {
            col[i*LAMPE_PANEL] = params.scale*q_raw[i];
        }
    }

    q_ready[region] = true;
}

void lampe_tile::compute(int64_t j0, int64_t n) {
    this->j0 = j0;
    this->n  = n;

    if (!load_positions() || !load_mask()) {
        return;
    }
    if (vec) {
        compute_vec();
    } else {
        load_values(0);
        compute_panels();
    }
}

void lampe_tile::panel_scores(enum lampe_region region, int64_t c0, int64_t n_simd) {
    float * out = s[region];
#ifdef LAMPE_I16
    if (integers) {
        const float * row = k_scale[region];
        const float * col = q_scale[region] + c0;

        lampe_gemm_i16((const int32_t *) k_i16[region], shape.d_k_pad/2, 1, (const int32_t *) q_rot[region] + c0*(shape.d_k_pad/2), LAMPE_PANEL,
                n, n_simd, shape.d_k_pad/2, [=](int j, int c, lampe_simd sum) {
            const lampe_simd f = lampe_simd_mul(lampe_simd_set1(row[j]), lampe_simd_load(col + c));
            lampe_simd_store(out + j*LAMPE_PANEL + c, lampe_simd_mul(sum, f));
        });
        return;
    }
#endif
    const float * k = region == LAMPE_REGION_MIDDLE ? k_middle : k_exact;

    lampe_gemm(out, LAMPE_PANEL, k, shape.d_k_pad, 1, q_rot[region] + c0*shape.d_k, LAMPE_PANEL, nullptr, n, n_simd, shape.d_k);
}

void lampe_tile::panel_output(float * scores, int64_t c0, int64_t n_simd) {
    float * out = acc + c0*shape.d_v;
#ifdef LAMPE_I16
    if (integers) {
        const float * a = alpha;
        const float * f = p_scale;

        lampe_softmax_panel_i16(scores, n, n_simd, v_scale, p_norm_max, row_max + c0, row_sum + c0, alpha, p_scale);
        lampe_gemm_i16(v_i16, 1, shape.d_v_pad, (const int32_t *) scores, LAMPE_PANEL,
                shape.d_v, n_simd, (n + 1)/2, [=](int i, int c, lampe_simd sum) {
            const lampe_simd kept = lampe_simd_mul(lampe_simd_load(a + c), lampe_simd_load(out + i*LAMPE_PANEL + c));
            lampe_simd_store(out + i*LAMPE_PANEL + c, lampe_simd_fma(sum, lampe_simd_load(f + c), kept));
        });
        return;
    }
#endif
    lampe_softmax_panel(scores, n, n_simd, row_max + c0, row_sum + c0, alpha);
    lampe_gemm(out, LAMPE_PANEL, v_f32, 1, shape.d_v_pad, scores, LAMPE_PANEL, alpha, shape.d_v, n_simd, n);
}

void lampe_tile::compute_panels() {
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

    if (reached[LAMPE_REGION_LOCAL] || reached[LAMPE_REGION_TAIL]) {
        find_rope_rows(LAMPE_REGION_LOCAL, 0);
        rotate_keys(0, LAMPE_REGION_LOCAL);
    }
    if (reached[LAMPE_REGION_MIDDLE]) {
        find_rope_rows(LAMPE_REGION_MIDDLE, 0);
        rotate_keys(0, LAMPE_REGION_MIDDLE);
    }

    for (int64_t c0 = 0; c0 < m; c0 += LAMPE_PANEL) {
        const int64_t n_col = std::min<int64_t>(LAMPE_PANEL, m - c0);
        const int64_t n_simd = (n_col + LAMPE_EPR - 1)/LAMPE_EPR;

        for (int i = 0; i < LAMPE_REGION_COUNT; ++i) {
            if (reached[i]) {
                panel_scores((enum lampe_region) i, c0, n_simd);
            }
        }

        for (int64_t j = 0; j < n && n_reached > 1; ++j) {
            const int64_t o = j*LAMPE_PANEL;
            lampe_select<true>(scores + o, s[LAMPE_REGION_LOCAL] + o, s[LAMPE_REGION_MIDDLE] + o, s[LAMPE_REGION_TAIL] + o,
                    plan, q_pos + c0, k_pos + j, n_col);
        }
        for (int64_t j = 0; j < n && params.softcap != 0.0f; ++j) {
            lampe_softcap(scores + j*LAMPE_PANEL, params.softcap, n_col);
        }
        for (int64_t j = 0; j < n && masked; ++j) {
            const float * mask = mask_f32 + j*n_q;
            for (int64_t c = 0; c < n_col; ) {
                // the columns of one head follow one another in the mask
                const int64_t i   = (c0 + c)%n_q;
                const int64_t run = std::min(n_q - i, n_col - c);
                lampe_mask(scores + j*LAMPE_PANEL + c, mask + i, run);
                c += run;
            }
        }

        panel_output(scores, c0, n_simd);
    }
}
