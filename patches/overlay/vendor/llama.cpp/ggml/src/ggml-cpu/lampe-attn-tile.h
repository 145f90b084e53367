#pragma once

#include "ggml-lampe-impl.h"
#include "ggml.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>

// LaMPE attention of one thread: a block of queries against the keys, a tile of them at a time

static constexpr int64_t LAMPE_TILE_KV  = 64; // keys in a tile
static constexpr int64_t LAMPE_VEC_ROWS = 8;  // with more rows than this in a block, panels are faster than dot products

// sizes of the operator, and how it is cut into work items
// a row is one query of one query head
struct lampe_shape {
    int64_t d_k;
    int64_t d_v;
    int64_t d_k_pad; // d_k and d_v in whole vectors
    int64_t d_v_pad;
    int64_t n_q;
    int64_t n_kv;
    int64_t n_head;
    int64_t n_head_kv;
    int64_t n_stream;
    int64_t n_gqa;
    int64_t n_block_q;  // most queries that a block has
    int64_t n_row;      // most rows that a block has, in whole panels
    int64_t n_split;    // parts that the keys are split into
    int64_t n_head_vec; // KV heads that a work item takes together in the vec layout
    bool    i16;        // 16 bits hold all that the cache does: panels are multiplied as integers

    lampe_shape(const struct ggml_tensor * dst, int n_threads);

    // KV heads of a work item with m rows for each of them
    int64_t n_head_item(int64_t m) const {
        return m <= LAMPE_VEC_ROWS ? n_head_vec : 1;
    }

    // the most rows that a work item has, of all its KV heads
    int64_t n_row_item() const {
        return std::max(n_row, n_head_vec*LAMPE_VEC_ROWS);
    }

    // floats that the queries rotated for one region take; as integers they take half
    int64_t n_q_rot() const {
        return d_k_pad*std::max(i16 ? n_row/2 : n_row, n_head_vec*LAMPE_VEC_ROWS);
    }

    size_t n_work_thread()       const; // floats of workspace of one thread
    size_t n_work(int n_threads) const; // ... of all threads, with the partial results
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

    lampe_attn_params params;

    int64_t n_rot;
    int64_t n_pos;

    const float * rope;

    // workspace, in one of two layouts
    //   panels: for a batch; a row is a column of a panel of LAMPE_PANEL, so that all arithmetic runs over rows
    //   vec:    for the few rows of a decoding step; a row is a row, head by head, and m counts those of all heads here
    float   * q_rot[LAMPE_REGION_COUNT]; // panels: [n_panel, d_k, LAMPE_PANEL]  | vec: [m, d_k_pad]
    float   * q_raw;                     // panels: [d_k], one row               | vec: [m, d_k_pad], pairs in halves
    float   * acc;                       // panels: [n_panel, d_v, LAMPE_PANEL]  | vec: [m, d_v_pad]
    float   * s[LAMPE_REGION_COUNT];     // panels: [LAMPE_TILE_KV, LAMPE_PANEL] | vec: [m, LAMPE_TILE_KV]
    float   * row_max;                   // [n_row_item]
    float   * row_sum;                   // [n_row_item]
    float   * alpha;                     // [LAMPE_PANEL]
    float   * k_f32;                     // [d_k] a key of a type that is not rotated as it lies in the cache
    float   * k_exact;                   // [LAMPE_TILE_KV, d_k_pad] keys rotated for LOCAL and TAIL
    float   * k_middle;                  // [LAMPE_TILE_KV, d_k_pad] keys rotated for MIDDLE
    float   * v_f32;                     // [LAMPE_TILE_KV, d_v_pad]
    float   * mask_f32;                  // panels: [LAMPE_TILE_KV, n_q]         | vec: [n_q, LAMPE_TILE_KV]
    int32_t * q_pos;                     // [n_row]

    // panels of integers: q_rot is [n_panel, d_k_pad/2, LAMPE_PANEL] pairs of 16 bits, and the weights overwrite s
    int16_t * k_i16  [LAMPE_REGION_COUNT]; // [LAMPE_TILE_KV, d_k_pad], the same for LOCAL and TAIL
    int32_t * v_i16;                       // [LAMPE_TILE_KV/2, d_v_pad] pairs of 16 bits
    float   * q_scale[LAMPE_REGION_COUNT]; // [n_row]
    float   * k_scale[LAMPE_REGION_COUNT]; // [LAMPE_TILE_KV]
    float   * v_scale;                     // [LAMPE_TILE_KV]
    float   * v_norm2;                     // [d_v_pad] squared norms of the columns of v_i16
    float   * p_scale;                     // [LAMPE_PANEL]

    // the block in hand
    int64_t i_stream;
    int64_t i_head_kv; // the first KV head
    int64_t n_head_kv;
    int64_t i_q;       // the first query
    int64_t n_q;
    int64_t m;         // rows of each KV head: query head by query head, n_q in each
    int64_t q_min;     // positions
    int64_t q_max;

    bool vec;          // the layout, otherwise panels
    bool integers;     // panels hold integers
    bool q_ready[LAMPE_REGION_COUNT]; // q_rot is filled

    const int32_t * plan;

    // the tile in hand
    int64_t j0;        // the first cell
    int64_t n;         // cells, the last tile may be short
    int64_t k_min;     // positions
    int64_t k_max;

    bool  empty;       // there are cells without a key
    bool  in_a_row;    // each key's position follows the one before
    bool  masked;      // some pairs are hidden, not all
    float p_norm_max;  // most that the norm of a row of weights may be as integers
    bool  reached[LAMPE_REGION_COUNT]; // some pair is in the region

    const int32_t * k_pos;
    const float   * k_rope[LAMPE_TILE_KV]; // row of the table for each key

    // work: room for shape.n_work_thread() floats
    lampe_tile(const struct ggml_tensor * dst, const lampe_shape & shape, float * work);

    void begin_block(int64_t i3, int64_t ikv, int64_t i1, int64_t n_q, const int32_t * plan);

    // take cells j0 to j0 + n - 1 into the block's running result
    void compute(int64_t j0, int64_t n);

    // of row r of the block's KV head i
    row_result result(int64_t i, int64_t r) const;

private:
    int64_t middle(int64_t pos) const;
    int64_t query_position(enum lampe_region region, int64_t pos) const;

    const float * query(int64_t i, int64_t r) const;

    // clamped, since a cell that no query may see can have any position
    const float * rope_row(int64_t pos) const {
        return rope + std::clamp<int64_t>(pos, 0, n_pos - 1)*n_rot;
    }

    // the tile's first key and value of the block's KV head i
    const char * key_data(int64_t i) const {
        const struct ggml_tensor * k = dst->src[1];
        return (const char *) k->data + j0*k->nb[1] + (i_head_kv + i)*k->nb[2] + i_stream*k->nb[3];
    }

    const char * value_data(int64_t i) const {
        const struct ggml_tensor * v = dst->src[2];
        return (const char *) v->data + j0*v->nb[1] + (i_head_kv + i)*v->nb[2] + i_stream*v->nb[3];
    }

    // lampe-attn-load.cpp
    bool load_positions();
    bool load_mask();
    void load_values(int64_t i);
    void rotate_query(float * out, const float * in, int64_t pos) const;
    void find_rope_rows(enum lampe_region region, int64_t base);
    void rotate_keys(int64_t i, enum lampe_region region);

    // lampe-attn-tile.cpp
    void rotate_panels(enum lampe_region region);
    void panel_scores(enum lampe_region region, int64_t c0, int64_t n_simd);
    void panel_output(float * scores, int64_t c0, int64_t n_simd);
    void compute_panels();

    // lampe-attn-vec.cpp
    bool vec_reads_keys()   const;
    bool vec_reads_values() const;
    void vec_rotate_queries(enum lampe_region region, int64_t base);
    void vec_rotated_scores(enum lampe_region region);
    void vec_scores(enum lampe_region region, int64_t base);
    void vec_softmax(float * scores, int n_reached);
    void compute_vec();
};
