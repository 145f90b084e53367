#include "lampe-attn-tile.h"

#include "ggml-cpu.h"
#include "ggml-cpu-impl.h"
#include "ggml-lampe.h"
#include "lampe-attn-vec.h"
#include "ops.h"

#include <algorithm>
#include <cmath>
#include <type_traits>

// the vec layout, for the few rows of a decoding step: reading the cache takes most of the time, so that each key and value
// is converted and rotated on its way into the registers

static constexpr int64_t LAMPE_VEC_KEYS  = 16; // the heads take turns after this many keys, whose rotations stay in the first cache
static constexpr int64_t LAMPE_VEC_EARLY = 4;  // 1/LAMPE_VEC_EARLY of the next tile's values is prefetched in the pass over the keys

// whether the keys can be rotated as they lie in the cache: the loops take four of them, in whole vectors
bool lampe_tile::vec_reads_keys() const {
    const ggml_type type = dst->src[1]->type;

    return (type == GGML_TYPE_F16 || type == GGML_TYPE_F32) && n % 4 == 0 && n_rot/2 % LAMPE_EPR == 0 && (shape.d_k - n_rot) % LAMPE_EPR == 0;
}

// whether the values can be summed as they lie in the cache: an empty cell may hold anything, and anything times 0 may be NaN
bool lampe_tile::vec_reads_values() const {
    const ggml_type type = dst->src[2]->type;

    return (type == GGML_TYPE_F16 || type == GGML_TYPE_F32) && !empty && shape.d_v % LAMPE_EPR == 0;
}

// for vec_reads_keys()
void lampe_tile::vec_rotated_scores(enum lampe_region region) {
    const ggml_tensor * k = dst->src[1];
    const ggml_tensor * v = dst->src[2];

    const int64_t n_next = shape.n_split*LAMPE_TILE_KV; // rows on to the next tile of this thread

    const auto run = [&](const auto * type, const auto head_size) {
        constexpr int D = head_size; // known to the compiler, it saves half of the instructions that are not arithmetic

        const int64_t ldk = k->nb[1]/sizeof(*type);

        const size_t n_bytes_k = D > 0 ? D*sizeof(*type) : ggml_row_size(k->type, shape.d_k);
        const size_t n_bytes_v = D > 0 ? D*sizeof(*type) : ggml_row_size(v->type, shape.d_v);

        const bool early = vec_reads_values();

        // the rows of the rotation serve all heads
        for (int64_t j0 = 0; j0 < n; j0 += LAMPE_VEC_KEYS) {
            const int n_keys = (int) std::min<int64_t>(n - j0, LAMPE_VEC_KEYS);

            for (int64_t i = 0; i < n_head_kv; ++i) {
                const char * data_k = key_data(i);
                const char * data_v = value_data(i);

                // values too: prefetched in their own pass alone, they would be asked for faster than memory answers
                const auto prefetch = [=](int j) LAMPE_INLINE {
                    LAMPE_UNROLL
                    for (int64_t r = 0; r < 4; ++r) {
                        lampe_prefetch(data_k + (j0 + j + r + n_next)*k->nb[1], n_bytes_k);
                    }
                    if (early) {
                        lampe_prefetch(data_v + ((j0 + j)/LAMPE_VEC_EARLY + n_next)*v->nb[1], n_bytes_v);
                    }
                };

                const auto  * src = (decltype(type)) data_k + j0*ldk;
                const float * q   = q_rot[region] + i*m*shape.d_k_pad;
                float       * out = s[region] + i*m*LAMPE_TILE_KV + j0;
                if (params.neox) {
                    lampe_rotated_dots<true,  D>(out, LAMPE_TILE_KV, q, shape.d_k_pad, src, ldk, k_rope + j0, n_rot, shape.d_k, m, n_keys, prefetch);
                } else {
                    lampe_rotated_dots<false, D>(out, LAMPE_TILE_KV, q, shape.d_k_pad, src, ldk, k_rope + j0, n_rot, shape.d_k, m, n_keys, prefetch);
                }
            }
        }
    };

    // the queries of larger heads do not fit into the registers anyway
    const bool is_64 = n_rot == 64 && shape.d_k == 64 && shape.d_v == 64 && k->type == v->type;

    const auto run_type = [&](const auto * type) {
        if (is_64) {
            run(type, std::integral_constant<int, 64>());
        } else {
            run(type, std::integral_constant<int, 0>());
        }
    };

    if (k->type == GGML_TYPE_F16) {
        run_type((const ggml_fp16_t *) nullptr);
    } else {
        run_type((const float *) nullptr);
    }
}

// all heads of a query have one position, and share the row of the rotation
void lampe_tile::vec_rotate_queries(enum lampe_region region, int64_t base) {
    const int64_t ld = shape.d_k_pad;

    // how much further the keys of this thread's next tile are: what base will grow by
    const int64_t n_next = shape.n_split*LAMPE_TILE_KV;
    const int64_t step   = region == LAMPE_REGION_MIDDLE ? middle(k_min + n_next) - middle(k_min) : n_next;

    for (int64_t i = 0; i < n_q; ++i) {
        const int64_t pos = query_position(region, q_pos[i]) - base;

        lampe_rotate_rows(q_rot[region] + i*ld, q_raw + i*ld, n_q*ld, n_head_kv*shape.n_gqa, rope_row(pos), n_rot, shape.d_k);
        lampe_prefetch((const char *) rope_row(pos - step), n_rot*sizeof(float));
    }
}

void lampe_tile::vec_scores(enum lampe_region region, int64_t base) {
    const int64_t ld = shape.d_k_pad;

    vec_rotate_queries(region, base);
    find_rope_rows(region, base);

    if (vec_reads_keys()) {
        vec_rotated_scores(region);
        return;
    }

    for (int64_t i = 0; i < n_head_kv; ++i) {
        rotate_keys(i, region);
        lampe_dots(s[region] + i*m*LAMPE_TILE_KV, LAMPE_TILE_KV, q_rot[region] + i*m*ld, ld,
                region == LAMPE_REGION_MIDDLE ? k_middle : k_exact, ld, ld, m, n);
    }
}

void lampe_tile::vec_softmax(float * scores, int n_reached) {
    const int64_t n_pad = GGML_PAD(n, LAMPE_EPR);

    for (int64_t r = 0; r < n_head_kv*m; ++r) {
        const int64_t o = r*LAMPE_TILE_KV;

        float * row = scores + o;

        if (n_reached > 1) {
            lampe_select<false>(row, s[LAMPE_REGION_LOCAL] + o, s[LAMPE_REGION_MIDDLE] + o, s[LAMPE_REGION_TAIL] + o, plan, q_pos + r%m, k_pos, n);
        }
        if (params.softcap != 0.0f) {
            lampe_softcap(row, params.softcap, n);
        }
        if (masked) {
            lampe_mask(row, mask_f32 + r%m%n_q*LAMPE_TILE_KV, n);
        }
        std::fill(row + n, row + n_pad, -INFINITY);

        const float f = lampe_softmax_row(row, n_pad, row_max + r, row_sum + r);
        if (f != 1.0f) {
            ggml_vec_scale_f32(shape.d_v_pad, acc + r*shape.d_v_pad, f);
        }
    }
}

void lampe_tile::compute_vec() {
    const ggml_tensor * v = dst->src[2];

    // only differences of positions matter: counted from the first key on, tile after tile reads the same rows of the table
    int64_t base[LAMPE_REGION_COUNT] = { k_min, middle(k_min), k_min };
    for (int i = 0; i < LAMPE_REGION_COUNT; ++i) {
        if (reached[i]) {
            base[i] = std::min(base[i], query_position((enum lampe_region) i, q_min));
        }
    }

    int     n_reached = 0;
    float * scores    = nullptr;
    for (int i = 0; i < LAMPE_REGION_COUNT; ++i) {
        if (reached[i]) {
            vec_scores((enum lampe_region) i, base[i]);
            n_reached += 1;
            scores = s[i];
        }
    }

    vec_softmax(scores, n_reached);

    const int64_t n_next  = shape.n_split*LAMPE_TILE_KV; // rows on to the next tile of this thread
    const bool    early   = vec_reads_keys();             // the first n_early of its values were prefetched with its keys
    const int64_t n_early = n/LAMPE_VEC_EARLY;

    const auto sums = [&](const auto * type, int64_t i) {
        const auto * data = (decltype(type)) value_data(i);

        const int64_t ld = v->nb[1]/sizeof(*type);

        const size_t n_bytes = shape.d_v*sizeof(*data);

        const auto late     = [=](int64_t j) { return early ? n_early + j - j/LAMPE_VEC_EARLY : j; };
        const auto prefetch = [=](int j, int end) LAMPE_INLINE {
            for (int64_t r = late(j); r < late(end); ++r) {
                lampe_prefetch((const char *) (data + (r + n_next)*ld), n_bytes);
            }
        };
        lampe_sums(acc + i*m*shape.d_v_pad, shape.d_v_pad, scores + i*m*LAMPE_TILE_KV, LAMPE_TILE_KV, data, ld, alpha, m, n, shape.d_v, prefetch);
    };

    for (int64_t i = 0; i < n_head_kv; ++i) {
        if (!vec_reads_values()) {
            load_values(i);
            lampe_sums(acc + i*m*shape.d_v_pad, shape.d_v_pad, scores + i*m*LAMPE_TILE_KV, LAMPE_TILE_KV, v_f32, shape.d_v_pad, alpha, m, n, shape.d_v_pad,
                    [](int, int) {});
        } else if (v->type == GGML_TYPE_F16) {
            sums((const ggml_fp16_t *) nullptr, i);
        } else {
            sums((const float *) nullptr, i);
        }
    }
}
