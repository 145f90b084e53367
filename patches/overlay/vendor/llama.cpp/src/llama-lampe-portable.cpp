#include "llama-lampe-portable.h"

#include <algorithm>
#include <cmath>

//
// llama_lampe_portable
//

void llama_lampe_portable::build_inputs(ggml_context * ctx, const llama_lampe_layout & layout) {
    this->layout = layout;

    const auto new_i32 = [&](int64_t n, const char * name) {
        ggml_tensor * res = ggml_new_tensor_1d(ctx, GGML_TYPE_I32, n);
        ggml_set_input(res);
        ggml_set_name(res, name);
        return res;
    };

    middle.resize(layout.blocks[0].middle.size());

    for (const auto & block : layout.blocks) {
        local.range.include(block.local);
        tail .range.include(block.tail);

        for (size_t im = 0; im < middle.size(); ++im) {
            middle[im].range.include(block.middle[im]);
        }

        ggml_tensor * mask = nullptr;
        if (!block.is_local_only()) {
            mask = ggml_new_tensor_4d(ctx, GGML_TYPE_F32, block.n_cells(), block.n, 1, layout.n_stream);
            ggml_set_input(mask);
            ggml_set_name(mask, "lampe_mask");
        }
        masks.push_back(mask);
    }

    masks_kq.resize(masks.size());

    local.q_pos = new_i32(layout.n_tokens,                "lampe_local_q_pos");
    local.k_pos = new_i32(local.range.n*layout.n_stream,  "lampe_local_k_pos");

    if (tail.range.n > 0) {
        tail.q_pos = new_i32(layout.n_tokens,               "lampe_tail_q_pos");
        tail.k_pos = new_i32(tail.range.n*layout.n_stream,  "lampe_tail_k_pos");
    }

    ggml_tensor * middle_q_pos = nullptr;
    for (auto & reg : middle) {
        if (reg.range.n > 0) {
            middle_q_pos = middle_q_pos ? middle_q_pos : new_i32(layout.n_tokens, "lampe_middle_q_pos");

            reg.q_pos = middle_q_pos;
            reg.k_pos = new_i32(reg.range.n*layout.n_stream, "lampe_middle_k_pos");
        }
    }
}

void llama_lampe_portable::set_inputs(const std::vector<llama_lampe_plan> & plans, const int32_t * q_pos, const int32_t * k_pos) const {
    std::vector<int64_t> ids;

    const auto distinct = llama_lampe_plans_distinct(plans, ids);

    // only a graph that is reserved and never run has another number
    GGML_ASSERT(distinct.size() == middle.size());

    const int64_t n_tps = layout.n_tokens/layout.n_stream;

    std::vector<int32_t> pos(std::max(layout.n_tokens, layout.n_kv*layout.n_stream));

    const auto set_q_pos = [&](const region & dst, const auto & fn) {
        for (int64_t i = 0; i < layout.n_tokens; ++i) {
            pos[i] = fn(i);
        }
        ggml_backend_tensor_set(dst.q_pos, pos.data(), 0, ggml_nbytes(dst.q_pos));
    };

    const auto set_k_pos = [&](const region & dst, const auto & fn) {
        for (int64_t s = 0; s < layout.n_stream; ++s) {
            for (int64_t j = 0; j < dst.range.n; ++j) {
                // empty cells are masked, any position does
                pos[s*dst.range.n + j] = fn(std::max(k_pos[s*layout.n_kv + dst.range.first + j], 0));
            }
        }
        ggml_backend_tensor_set(dst.k_pos, pos.data(), 0, ggml_nbytes(dst.k_pos));
    };

    const auto as_is = [](int32_t p) { return p; };

    set_q_pos(local, [&](int64_t i) { return q_pos[i]; });
    set_k_pos(local, as_is);

    if (tail.range.n > 0) {
        // only queries long enough have a tail; the others must not be rotated to a negative position
        set_q_pos(tail, [&](int64_t i) { return std::max(q_pos[i] - plans[i].tail_shift, 0); });
        set_k_pos(tail, as_is);
    }

    bool q_pos_is_set = false;
    for (size_t im = 0; im < middle.size(); ++im) {
        if (middle[im].range.n == 0) {
            continue;
        }
        if (!q_pos_is_set) {
            set_q_pos(middle[im], [&](int64_t i) { return ids[i] < 0 ? 0 : llama_lampe_plan_middle(plans[i], q_pos[i]) + plans[i].middle_shift; });
            q_pos_is_set = true;
        }
        set_k_pos(middle[im], [&](int32_t p) { return llama_lampe_plan_middle(distinct[im], p); });
    }

    std::vector<float> data;

    for (size_t ib = 0; ib < masks.size(); ++ib) {
        if (!masks[ib]) {
            continue;
        }

        const auto & block = layout.blocks[ib];

        data.resize(ggml_nelements(masks[ib]));

        float * dst = data.data();

        for (int64_t s = 0; s < layout.n_stream; ++s) {
            for (int64_t i = s*n_tps + block.first; i < s*n_tps + block.first + block.n; ++i) {
                // let pairs at distances dist_min to dist_max through
                // written for the compiler to vectorise: a GPU waits for this
                const auto put = [&](const llama_lampe_cells & range, int32_t dist_min, int32_t dist_max) {
                    const int32_t * k_pos_r = k_pos + s*layout.n_kv + range.first;

                    for (int64_t j = 0; j < range.n; ++j) {
                        const int32_t dist = q_pos[i] - k_pos_r[j];

                        dst[j] = (dist >= dist_min) & (dist <= dist_max) ? 0.0f : -INFINITY;
                    }
                    dst += range.n;
                };

                const int32_t middle_min = (int32_t) std::min<int64_t>((int64_t) plans[i].local_window + 1, INT32_MAX);
                const int32_t tail_min   = std::max(middle_min, plans[i].tail_start);

                put(block.local, INT32_MIN, plans[i].local_window);
                for (size_t im = 0; im < middle.size(); ++im) {
                    if (ids[i] == (int64_t) im) {
                        put(block.middle[im], middle_min, tail_min - 1);
                    } else {
                        dst = std::fill_n(dst, block.middle[im].n, -INFINITY);
                    }
                }
                put(block.tail, tail_min, INT32_MAX);
            }
        }

        ggml_backend_tensor_set(masks[ib], data.data(), 0, ggml_nbytes(masks[ib]));
    }
}

ggml_tensor * llama_lampe_portable::build_mask(ggml_context * ctx, size_t ib, ggml_tensor * kq_mask) {
    const auto & block = layout.blocks[ib];

    if (!masks_kq[ib]) {
        const auto view = [&](const llama_lampe_cells & range) {
            return ggml_view_4d(ctx, kq_mask, range.n, block.n, 1, layout.n_stream, kq_mask->nb[1], kq_mask->nb[2], kq_mask->nb[3],
                    range.first*kq_mask->nb[0] + block.first*kq_mask->nb[1]);
        };

        if (!masks[ib]) {
            masks_kq[ib] = layout.blocks.size() == 1 ? kq_mask : ggml_cont(ctx, view(block.local));
        } else {
            ggml_tensor * res = view(block.local);

            for (const auto & range : block.middle) {
                res = range.n > 0 ? ggml_concat(ctx, res, view(range), 0) : res;
            }
            if (block.tail.n > 0) {
                res = ggml_concat(ctx, res, view(block.tail), 0);
            }

            masks_kq[ib] = ggml_add(ctx, masks[ib], res);
        }
    }

    return masks_kq[ib];
}

ggml_tensor * llama_lampe_portable::build_attn(
               ggml_context * ctx,
                ggml_tensor * q,
                ggml_tensor * k,
                ggml_tensor * v,
            const weighting & wt,
     const llama_lampe_rope & rope,
                      float   attention_factor,
                        int   il) {
    const float attn_factor = rope.get_attn_factor(attention_factor);

    const int64_t n_embd_head = k->ne[0];
    const int64_t n_head      = q->ne[1];
    const int64_t n_head_kv   = k->ne[1];

    const auto rotate = [&](ggml_tensor * cur, ggml_tensor * pos) {
        return ggml_rope_ext(ctx, cur, pos, rope.factors, rope.n_dims, rope.mode, rope.n_ctx_orig, rope.freq_base, rope.freq_scale,
                rope.ext_factor, attn_factor, rope.beta_fast, rope.beta_slow);
    };

    // RoPE has one list of positions: the streams are folded into the tokens
    const auto rotate_q = [&](ggml_tensor * pos) {
        ggml_tensor * cur = ggml_reshape_4d(ctx, rotate(q, pos), n_embd_head, n_head, layout.n_tokens/layout.n_stream, layout.n_stream);

        return ggml_permute(ctx, cur, 0, 2, 1, 3);
    };

    const auto rotate_k = [&](const region & reg) {
        const int64_t n = reg.range.n;

        ggml_tensor * cur = ggml_view_4d(ctx, k, n_embd_head, n_head_kv, n, layout.n_stream, k->nb[1], k->nb[2], k->nb[3], reg.range.first*k->nb[2]);

        if (k->type != GGML_TYPE_F32 && k->type != GGML_TYPE_F16) {
            cur = ggml_cast(ctx, cur, GGML_TYPE_F32);
        } else if (layout.n_stream > 1) {
            cur = ggml_cont(ctx, cur);
        }
        cur = layout.n_stream > 1 ?
            ggml_reshape_3d(ctx, cur, n_embd_head, n_head_kv, n*layout.n_stream) :
            ggml_view_3d   (ctx, cur, n_embd_head, n_head_kv, n, cur->nb[1], cur->nb[2], 0);

        cur = ggml_reshape_4d(ctx, rotate(cur, reg.k_pos), n_embd_head, n_head_kv, n, layout.n_stream);

        return ggml_permute(ctx, cur, 0, 2, 1, 3);
    };

    struct rotated {
        ggml_tensor * q     = nullptr;
        ggml_tensor * k     = nullptr;
        int64_t       first = 0;
    };

    const auto rotate_region = [&](const region & reg, ggml_tensor * q_rot) {
        rotated res;
        if (reg.range.n > 0) {
            res.q     = q_rot ? q_rot : rotate_q(reg.q_pos);
            res.k     = rotate_k(reg);
            res.first = reg.range.first;
        }
        return res;
    };

    const rotated rot_local = rotate_region(local, nullptr);
    const rotated rot_tail  = rotate_region(tail,  nullptr);

    std::vector<rotated> rot_middle;

    ggml_tensor * q_middle = nullptr;
    for (const auto & reg : middle) {
        rot_middle.push_back(rotate_region(reg, q_middle));
        q_middle = rot_middle.back().q ? rot_middle.back().q : q_middle;
    }

    std::vector<ggml_tensor *> outs;

    for (size_t ib = 0; ib < layout.blocks.size(); ++ib) {
        const auto & block = layout.blocks[ib];

        std::vector<std::pair<const rotated *, llama_lampe_cells>> parts = { { &rot_local, block.local } };
        for (size_t im = 0; im < middle.size(); ++im) {
            if (block.middle[im].n > 0) {
                parts.emplace_back(&rot_middle[im], block.middle[im]);
            }
        }
        if (block.tail.n > 0) {
            parts.emplace_back(&rot_tail, block.tail);
        }

        ggml_tensor * kq = nullptr;

        for (const auto & [rot, range] : parts) {
            ggml_tensor * k_part = ggml_view_4d(ctx, rot->k, n_embd_head, range.n, n_head_kv, layout.n_stream,
                    rot->k->nb[1], rot->k->nb[2], rot->k->nb[3], (range.first - rot->first)*rot->k->nb[1]);
            ggml_tensor * q_part = ggml_view_4d(ctx, rot->q, n_embd_head, block.n, n_head, layout.n_stream,
                    rot->q->nb[1], rot->q->nb[2], rot->q->nb[3], block.first*rot->q->nb[1]);

            ggml_tensor * kq_part = ggml_mul_mat(ctx, k_part, q_part);
            ggml_prec_set_acc(kq_part, GGML_PREC_F32);

            kq = kq ? ggml_concat(ctx, kq, kq_part, 0) : kq_part;
        }

        if (wt.softcap != 0.0f) {
            kq = ggml_scale(ctx, ggml_tanh(ctx, ggml_scale(ctx, kq, wt.cap_scale/wt.softcap)), wt.softcap);
        }

        kq = ggml_soft_max_ext(ctx, kq, build_mask(ctx, ib, wt.kq_mask), wt.kq_scale, 0.0f);
        ggml_soft_max_add_sinks(kq, wt.sinks);

        ggml_tensor * out = nullptr;

        int64_t i_cell = 0;
        for (const auto & [rot, range] : parts) {
            GGML_UNUSED(rot);

            ggml_tensor * kq_part = ggml_view_4d(ctx, kq, range.n, block.n, n_head, layout.n_stream, kq->nb[1], kq->nb[2], kq->nb[3], i_cell*kq->nb[0]);
            ggml_tensor * v_part  = ggml_view_4d(ctx, v, range.n, v->ne[1], v->ne[2], v->ne[3], v->nb[1], v->nb[2], v->nb[3], range.first*v->nb[0]);

            // named after its tokens and cells, for callbacks that look for weights
            ggml_format_name(kq_part, "kq_weights-%d-%d-%d", il, (int) block.first, (int) range.first);

            ggml_tensor * kqv = ggml_mul_mat(ctx, v_part, kq_part);

            out = out ? ggml_add(ctx, out, kqv) : kqv;

            i_cell += range.n;
        }

        outs.push_back(out);
    }

    // in pairs: one after another, the first output would be copied with every step
    while (outs.size() > 1) {
        std::vector<ggml_tensor *> pairs;
        for (size_t i = 0; i < outs.size(); i += 2) {
            pairs.push_back(i + 1 < outs.size() ? ggml_concat(ctx, outs[i], outs[i + 1], 1) : outs[i]);
        }
        outs = std::move(pairs);
    }

    return outs[0];
}
