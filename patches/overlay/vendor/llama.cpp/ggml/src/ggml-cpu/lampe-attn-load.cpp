#include "lampe-attn-tile.h"

#include "ggml-cpu.h"
#include "ggml-cpu-impl.h"
#include "ggml-lampe.h"
#include "lampe-attn-i16.h"
#include "ops.h"

#include <algorithm>
#include <cmath>
#include <cstring>

// what a tile reads, and what can be left out of it

static void lampe_row_to_float(ggml_type type, const void * src, float * dst, int64_t n) {
    int64_t i = 0;
    switch (type) {
        case GGML_TYPE_F32:
            memcpy(dst, src, n*sizeof(float));
            break;
        case GGML_TYPE_F16:
            for (; i + LAMPE_EPR <= n; i += LAMPE_EPR) {
                lampe_simd_store(dst + i, lampe_simd_load((const ggml_fp16_t *) src + i));
            }
            for (; i < n; ++i) {
                dst[i] = lampe_to_float(((const ggml_fp16_t *) src)[i]);
            }
            break;
        case GGML_TYPE_BF16:
            ggml_cpu_bf16_to_fp32((const ggml_bf16_t *) src, dst, n);
            break;
        default:
            ggml_get_type_traits(type)->to_float(src, dst, n);
            break;
    }
}

// false when no cell of the tile is in use, or all are after the queries and so hidden
bool lampe_tile::load_positions() {
    const ggml_tensor * t = dst->src[5];

    k_pos = (const int32_t *) ((const char *) t->data + i_stream*t->nb[3]) + j0;

    lampe_prefetch((const char *) (k_pos + shape.n_split*LAMPE_TILE_KV), LAMPE_TILE_KV*sizeof(*k_pos));

    // written for the compiler to vectorise: locals, and choices of values instead of references
    // the position of an empty cell, -1, is large as an unsigned number, and so never the first
    const int32_t * pos  = k_pos;
    const uint32_t  pos0 = pos[0];
    const int       n    = this->n;

    uint32_t first = INT32_MAX;
    int32_t  last  = -1;
    int32_t  sign  = 0;
    uint32_t apart = 0;
    for (int j = 0; j < n; ++j) {
        const int32_t  cur   = pos[j];
        const uint32_t cur_u = cur;

        first  = cur_u < first ? cur_u : first;
        last   = cur   > last  ? cur   : last;
        sign  |= cur;
        apart |= cur_u ^ (pos0 + (uint32_t) j);
    }

    k_min = first;
    k_max = last;
    empty = sign < 0;

    in_a_row = !empty && apart == 0;

    const int regions = lampe_get_regions(
            q_min - k_max, q_max - k_min, plan[GGML_LAMPE_PLAN_LOCAL_WINDOW], plan[GGML_LAMPE_PLAN_TAIL_START]);

    for (int i = 0; i < LAMPE_REGION_COUNT; ++i) {
        reached[i] = regions & (1 << i);
    }

    return last >= 0 && !(params.causal && k_min > q_max);
}

// seen stays 0 where every entry is -inf, added where every entry is 0
template <typename T>
static void lampe_mask_scan(const T * row, int64_t n, T hidden, T * seen, T * added) {
    for (int64_t j = 0; j < n; ++j) {
        *seen  |= row[j] ^ hidden;
        *added |= row[j];
    }
}

// false when the mask hides all of the tile
bool lampe_tile::load_mask() {
    const ggml_tensor * mask = dst->src[3];

    const auto row = [&](int64_t i) {
        return (const char *) mask->data + (i_q + i)*mask->nb[1] + i_stream*mask->nb[3] + j0*mask->nb[0];
    };

    uint32_t seen  = 0;
    uint32_t added = 0;
    for (int64_t i = 0; i < n_q; ++i) {
        if (mask->type == GGML_TYPE_F32) {
            lampe_mask_scan<uint32_t>((const uint32_t *) row(i), n, 0xFF800000, &seen, &added);
        } else {
            uint16_t seen_f16  = 0;
            uint16_t added_f16 = 0;
            lampe_mask_scan<uint16_t>((const uint16_t *) row(i), n, 0xFC00, &seen_f16, &added_f16);
            seen  |= seen_f16;
            added |= added_f16;
        }
    }

    masked = added != 0 || empty;

    if (seen == 0 || !masked) {
        return seen != 0;
    }

    for (int64_t i = 0; i < n_q; ++i) {
        float tmp[LAMPE_TILE_KV];

        lampe_row_to_float(mask->type, row(i), tmp, n);

        // vec: [n_q, LAMPE_TILE_KV] | panels: [LAMPE_TILE_KV, n_q]
        float       * out    = vec ? mask_f32 + i*LAMPE_TILE_KV : mask_f32 + i;
        const int64_t stride = vec ? 1 : n_q;
        for (int64_t j = 0; j < n; ++j) {
            out[j*stride] = k_pos[j] < 0 ? -INFINITY : tmp[j];
        }
    }

    return true;
}

void lampe_tile::load_values(int64_t i) {
    const ggml_tensor * v = dst->src[2];

    const char * data = value_data(i);

    const size_t n_bytes = ggml_row_size(v->type, shape.d_v);

    // a cell without a key may hold anything: 0 for its value, and for what fills the last pair of rows
    const auto load = [&](int64_t j, float * out) {
        if (j >= n || k_pos[j] < 0) {
            std::fill(out, out + shape.d_v, 0.0f);
            return;
        }
        lampe_prefetch(data + (j + shape.n_split*LAMPE_TILE_KV)*v->nb[1], n_bytes);
        lampe_row_to_float(v->type, data + j*v->nb[1], out, shape.d_v);
    };

#ifdef LAMPE_I16
    if (integers) {
        std::fill(v_norm2, v_norm2 + shape.d_v_pad, 0.0f);
    }
    for (int64_t j0 = 0; j0 < n && integers; j0 += LAMPE_I16_ROWS) {
        const int64_t n_row = std::min<int64_t>(GGML_PAD(n - j0, 2), LAMPE_I16_ROWS);
        for (int64_t j = 0; j < n_row; ++j) {
            load(j0 + j, v_f32 + j*shape.d_v_pad);
        }
        lampe_quantize_values(v_i16 + j0/2*shape.d_v_pad, v_scale + j0, v_norm2, v_f32, shape.d_v_pad, n_row, shape.d_v_pad);
    }
    if (integers) {
        p_norm_max = lampe_weight_norm_max(v_norm2, shape.d_v_pad, n);
    }
#endif
    for (int64_t j = 0; j < n && !integers; ++j) {
        load(j, v_f32 + j*shape.d_v_pad);
    }
}

void lampe_tile::rotate_query(float * out, const float * in, int64_t pos) const {
    lampe_rotate(out, in, rope_row(pos), n_rot, shape.d_k, params.neox);
}

static constexpr int64_t LAMPE_RUN_KEYS = 16;

// the rows of the table for the keys of the tile; base is taken off every position, and not above any of them
void lampe_tile::find_rope_rows(enum lampe_region region, int64_t base) {
    const bool in_middle = region == LAMPE_REGION_MIDDLE;

    const int64_t num = in_middle ? plan[GGML_LAMPE_PLAN_NUM] : 1;
    const int64_t den = in_middle ? std::max(1, plan[GGML_LAMPE_PLAN_DEN]) : 1;

    if (in_a_row && num >= 0 && num <= den && ggml_lampe_middle(k_max, num, den) - base < n_pos) {
        // a division for every run only; the runs do not wait for one another
        for (int64_t r0 = 0; r0 < n; r0 += LAMPE_RUN_KEYS) {
            const float * row = rope + (ggml_lampe_middle(k_pos[r0], num, den) - base)*n_rot;

            int64_t rem = k_pos[r0]*num%den;
            for (int64_t j = r0; j < std::min(r0 + LAMPE_RUN_KEYS, n); ++j) {
                k_rope[j] = row;

                rem += num;
                row += rem >= den ? n_rot : 0;
                rem -= rem >= den ? den   : 0;
            }
        }
        return;
    }

    // keys mostly follow one another: carry the remainder on instead of dividing
    int64_t prev = -3; // not followed by any position, nor by the -1 of an empty cell
    int64_t pos  = 0;
    int64_t rem  = 0;
    for (int64_t j = 0; j < n; ++j) {
        if (k_pos[j] == prev + 1 && num >= 0 && num <= den) {
            rem += num;
            if (rem >= den) {
                rem -= den;
                pos += 1;
            }
        } else {
            pos = ggml_lampe_middle(k_pos[j], num, den);
            rem = k_pos[j]*num%den;
        }
        prev = k_pos[j];

        k_rope[j] = rope_row(pos - base);
    }
}

// find_rope_rows() comes first
void lampe_tile::rotate_keys(int64_t i, enum lampe_region region) {
    const ggml_tensor * k = dst->src[1];

    const char * data = key_data(i);

    const size_t n_bytes = ggml_row_size(k->type, shape.d_k);

    float * out = region == LAMPE_REGION_MIDDLE ? k_middle : k_exact;

    const auto rotate = [&](int64_t j, float * dst_row) {
        const char * src_row = data + j*k->nb[1];

        lampe_prefetch(src_row + shape.n_split*LAMPE_TILE_KV*k->nb[1], n_bytes);

        if (k_pos[j] < 0) { // the cell may hold anything
            std::fill(dst_row, dst_row + shape.d_k, 0.0f);
        } else if (k->type == GGML_TYPE_F16) {
            lampe_rotate(dst_row, (const ggml_fp16_t *) src_row, k_rope[j], n_rot, shape.d_k, params.neox);
        } else if (k->type == GGML_TYPE_F32) {
            lampe_rotate(dst_row, (const float *) src_row, k_rope[j], n_rot, shape.d_k, params.neox);
        } else {
            lampe_row_to_float(k->type, src_row, k_f32, shape.d_k);
            lampe_rotate(dst_row, (const float *) k_f32, k_rope[j], n_rot, shape.d_k, params.neox);
        }
    };

#ifdef LAMPE_I16
    for (int64_t j0 = 0; j0 < n && integers; j0 += LAMPE_I16_ROWS) {
        const int64_t n_row = std::min<int64_t>(n - j0, LAMPE_I16_ROWS);
        for (int64_t j = 0; j < n_row; ++j) {
            rotate(j0 + j, out + j*shape.d_k_pad);
        }
        lampe_quantize_rows(k_i16[region] + j0*shape.d_k_pad, k_scale[region] + j0, out, shape.d_k_pad, n_row, shape.d_k_pad);
    }
#endif
    for (int64_t j = 0; j < n && !integers; ++j) {
        rotate(j, out + j*shape.d_k_pad);
    }
}
