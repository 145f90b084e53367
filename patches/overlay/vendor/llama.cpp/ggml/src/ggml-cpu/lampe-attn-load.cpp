#include "lampe-attn-tile.h"

#include "ggml-cpu.h"
#include "ggml-cpu-impl.h"
#include "ggml-lampe.h"

#include <algorithm>
#include <cmath>
#include <cstring>

// what a tile reads: positions, mask, keys and values, the rotation

static void lampe_row_to_float(ggml_type type, const void * src, float * dst, int64_t n) {
    switch (type) {
        case GGML_TYPE_F32:  memcpy(dst, src, n*sizeof(float));                        break;
        case GGML_TYPE_F16:  ggml_cpu_fp16_to_fp32((const ggml_fp16_t *) src, dst, n); break;
        case GGML_TYPE_BF16: ggml_cpu_bf16_to_fp32((const ggml_bf16_t *) src, dst, n); break;
        default:             ggml_get_type_traits(type)->to_float(src, dst, n);        break;
    }
}

// false when no cell of the tile is in use
bool lampe_tile::load_positions() {
    const ggml_tensor * t = dst->src[5];

    k_pos = (const int32_t *) ((const char *) t->data + i_stream*t->nb[3]) + j0;

    int32_t first = INT32_MAX;
    int32_t last  = -1;
    int32_t sign  = 0;
    for (int64_t j = 0; j < n; ++j) {
        first = std::min(first, k_pos[j] < 0 ? INT32_MAX : k_pos[j]);
        last  = std::max(last,  k_pos[j]);
        sign |= k_pos[j];
    }

    k_min = first;
    k_max = last;
    empty = sign < 0;

    const int64_t s1 = plan[GGML_LAMPE_PLAN_LOCAL_WINDOW];
    const int64_t t0 = std::max<int64_t>(s1 + 1, plan[GGML_LAMPE_PLAN_TAIL_START]);

    const int64_t d_min = q_min - k_max;
    const int64_t d_max = q_max - k_min;

    reached[LAMPE_REGION_LOCAL]  = d_min <= s1;
    reached[LAMPE_REGION_MIDDLE] = d_max >  s1 && d_min < t0 && s1 + 1 < t0;
    reached[LAMPE_REGION_TAIL]   = d_max >= t0;

    return last >= 0;
}

// seen: 0 when every entry is -inf; added: 0 when every entry is 0, nothing to add
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

        // few: [n_q, LAMPE_TILE_KV] | panels: [LAMPE_TILE_KV, n_q]
        float       * out    = few ? mask_f32 + i*LAMPE_TILE_KV : mask_f32 + i;
        const int64_t stride = few ? 1 : n_q;
        for (int64_t j = 0; j < n; ++j) {
            out[j*stride] = k_pos[j] < 0 ? -INFINITY : tmp[j];
        }
    }

    return true;
}

void lampe_tile::load_keys() {
    const ggml_tensor * k = dst->src[1];
    const ggml_tensor * v = dst->src[2];

    const char * k_data = (const char *) k->data + j0*k->nb[1] + i_head_kv*k->nb[2] + i_stream*k->nb[3];
    const char * v_data = (const char *) v->data + j0*v->nb[1] + i_head_kv*v->nb[2] + i_stream*v->nb[3];

    for (int64_t j = 0; j < n; ++j) {
        float * k_out = k_f32 + j*shape.d_k_pad;
        float * v_out = v_f32 + j*shape.d_v_pad;

        if (k_pos[j] < 0) { // never written, may hold anything
            std::fill(k_out, k_out + shape.d_k, 0.0f);
            std::fill(v_out, v_out + shape.d_v, 0.0f);
            continue;
        }
        lampe_row_to_float(k->type, k_data + j*k->nb[1], k_out, shape.d_k);
        lampe_row_to_float(v->type, v_data + j*v->nb[1], v_out, shape.d_v);
    }
}

// what no query may see can have any position
const float * lampe_tile::rope_row(int64_t pos) const {
    return rope + std::clamp<int64_t>(pos, 0, n_pos - 1)*n_rot;
}

// the pairs end up in halves whatever the mode: a permutation that queries and keys share changes no score
template <bool neox>
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

void lampe_tile::rotate(float * out, const float * in, int64_t pos, float f) const {
    if (neox) {
        lampe_rotate<true >(out, in, rope_row(pos), n_rot, shape.d_k, f);
    } else {
        lampe_rotate<false>(out, in, rope_row(pos), n_rot, shape.d_k, f);
    }
}

// positions are counted from base
void lampe_tile::rotate_keys(float * out, bool in_middle, int64_t base) {
    const int64_t num = in_middle ? plan[GGML_LAMPE_PLAN_NUM] : 1;
    const int64_t den = in_middle ? std::max(1, plan[GGML_LAMPE_PLAN_DEN]) : 1;

    // keys mostly follow one another: carry the remainder on instead of dividing
    int64_t prev = -2;
    int64_t pos  = 0;
    int64_t rem  = 0;
    for (int64_t j = 0; j < n; ++j) {
        const int64_t x = std::max(0, k_pos[j]);

        if (x == prev + 1 && num <= den) {
            rem += num;
            if (rem >= den) {
                rem -= den;
                pos += 1;
            }
        } else {
            pos = x*num/den;
            rem = x*num%den;
        }
        prev = x;

        rotate(out + j*shape.d_k_pad, k_f32 + j*shape.d_k_pad, pos - base, 1.0f);
    }
}
