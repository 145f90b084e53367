#pragma once

#include "ggml-lampe-impl.h"
#include "ggml.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>

// a tile of keys against a block of queries: the part of LaMPE attention that runs on one thread

static constexpr int64_t LAMPE_TILE_KV  = 64; // keys
static constexpr int64_t LAMPE_VEC_ROWS = 8;  // up to so many rows in a block, dot products beat panels

// sizes of the operator, and how it is cut into work items
struct lampe_shape {
    int64_t d_k;
    int64_t d_v;
    int64_t d_k_pad; // whole vectors
    int64_t d_v_pad;
    int64_t n_q;
    int64_t n_kv;
    int64_t n_head;
    int64_t n_head_kv;
    int64_t n_stream;
    int64_t n_gqa;
    int64_t n_block_q; // most queries in a block
    int64_t n_row;     // most rows (queries x heads) in a block, whole panels
    int64_t n_split;   // parts that the keys are split into
    int64_t n_head_vec;     // KV heads of an item of few rows
    bool    i16;       // the cache holds no more than integers of 16 bits can

    lampe_shape(const struct ggml_tensor * dst, int n_threads);

    // heads of an item that has m rows in each
    int64_t n_head_item(int64_t m) const {
        return m <= LAMPE_VEC_ROWS ? n_head_vec : 1;
    }

    // rows of an item, at most
    int64_t n_row_item() const {
        return std::max(n_row, n_head_vec*LAMPE_VEC_ROWS);
    }

    // floats of the rotated queries of a region: integers take half the room
    int64_t n_q_rot() const {
        return d_k_pad*std::max(i16 ? n_row/2 : n_row, n_head_vec*LAMPE_VEC_ROWS);
    }

    size_t n_work_thread()        const; // floats of workspace per thread
    size_t n_work(int n_threads)  const; // ... of all, with the partial results
};

struct lampe_tile {
    struct row_result {
        const float * data; // not normalised, relative to exp(max)
        int64_t       stride;
        float         max;
        float         sum;
    };

    const struct ggml_tensor * dst;
    const lampe_shape        & shape;

    float scale;
    float softcap;
    bool  neox;
    bool  causal;

    int64_t n_rot;
    int64_t n_pos;

    const float * rope;

    // workspace; the block's rows are kept in one of two layouts
    //   panels: rows are columns, LAMPE_PANEL of them in a panel, so that all of the arithmetic runs over rows
    //   few:    rows are rows, head by head, for the few of a decoding step; m counts those of all heads here
    float   * q_rot[LAMPE_REGION_COUNT]; // panels: [n_panel, d_k, LAMPE_PANEL] | few: [m, d_k_pad]
    float   * q_raw;                     //                                     | few: [m, d_k_pad], pairs in halves
    float   * acc;                       // panels: [n_panel, d_v, LAMPE_PANEL] | few: [m, d_v_pad]
    float   * s[LAMPE_REGION_COUNT];     // panel:  [LAMPE_TILE_KV, LAMPE_PANEL]| few: [m, LAMPE_TILE_KV]
    float   * row_max;                   // [n_row_item]
    float   * row_sum;                   // [n_row_item]
    float   * alpha;                     // [LAMPE_PANEL]
    float   * k_f32;                     // [d_k] a key
    float   * k_exact;                   // [LAMPE_TILE_KV, d_k_pad] rotated to their positions
    float   * k_middle;                  // [LAMPE_TILE_KV, d_k_pad] rotated to their positions in the middle
    float   * v_f32;                     // [LAMPE_TILE_KV, d_v_pad]
    float   * mask_f32;                  // [LAMPE_TILE_KV, n_block_q]
    int32_t * q_pos;                     // [n_row]

    // of panels in integers, pairs of 16 bits: q_rot is [n_panel, d_k_pad/2, LAMPE_PANEL] then, and s is overwritten
    int16_t * k_i16[LAMPE_REGION_COUNT]; // [LAMPE_TILE_KV, d_k_pad], local and tail are one
    int32_t * v_i16;                     // [LAMPE_TILE_KV/2, d_v_pad]
    float   * q_scale[LAMPE_REGION_COUNT]; // [n_row]
    float   * k_scale[LAMPE_REGION_COUNT]; // [LAMPE_TILE_KV]
    float   * v_scale;                   // [LAMPE_TILE_KV]
    float   * v_norm2;                   // [d_v_pad] of the integers of a column
    float   * p_scale;                   // [LAMPE_PANEL]

    // the block in hand
    int64_t i_stream;
    int64_t i_head_kv;
    int64_t n_head_kv; // KV heads of the block
    int64_t i_q;
    int64_t n_q; // queries of the block
    int64_t m;   // rows of a KV head: query head by query head, n_q each
    int64_t q_min;
    int64_t q_max;

    bool vec;
    bool integers; // the panels are
    bool q_ready[LAMPE_REGION_COUNT];

    const int32_t * plan;

    // the tile in hand
    int64_t j0;
    int64_t n; // keys of the tile
    int64_t k_min;
    int64_t k_max;

    bool empty;  // some cells are
    bool in_a_row; // each key's position follows the one before
    bool masked; // some keys are hidden, not all
    float p_norm_max; // of a row's weights, as integers
    bool reached[LAMPE_REGION_COUNT];

    const int32_t * k_pos;
    const float   * k_rope[LAMPE_TILE_KV];

    // work: n_work_thread() floats
    lampe_tile(const struct ggml_tensor * dst, const lampe_shape & shape, float * work);

    void begin_block(int64_t i3, int64_t ikv, int64_t i1, int64_t n_q, const int32_t * plan);

    // take n keys from j0 on into the block's running result
    void compute(int64_t j0, int64_t n);

    // row r of KV head i
    row_result result(int64_t i, int64_t r) const;

private:
    int64_t middle(int64_t pos) const;
    int64_t query_position(enum lampe_region region, int64_t pos) const;

    const float * query(int64_t i, int64_t r) const;

    // what no query may see can have any position
    const float * rope_row(int64_t pos) const {
        return rope + std::clamp<int64_t>(pos, 0, n_pos - 1)*n_rot;
    }

    // of KV head i of the block
    const char * key_data(int64_t i) const {
        const struct ggml_tensor * k = dst->src[1];
        return (const char *) k->data + j0*k->nb[1] + (i_head_kv + i)*k->nb[2] + i_stream*k->nb[3];
    }

    const char * value_data(int64_t i) const {
        const struct ggml_tensor * v = dst->src[2];
        return (const char *) v->data + j0*v->nb[1] + (i_head_kv + i)*v->nb[2] + i_stream*v->nb[3];
    }

    bool load_positions();
    bool load_mask();
    void load_values(int64_t i);
    void rotate_query(float * out, const float * in, int64_t pos) const;
    void find_rope_rows(enum lampe_region region, int64_t base);
    void rotate_keys(int64_t i, enum lampe_region region);
    void rotate_panels(enum lampe_region region);

    void panel_scores(enum lampe_region region, int64_t c0, int64_t n_simd);
    void panel_output(float * scores, int64_t c0, int64_t n_simd);
    void compute_panels();

    bool vec_reads_keys()   const;
    bool vec_reads_values() const;
    void vec_rotate_queries(enum lampe_region region, int64_t base);
    void vec_rotated_scores(enum lampe_region region);
    void vec_scores(enum lampe_region region, int64_t base);
    void vec_softmax(float * scores, int n_reached);
    void compute_vec();
};
