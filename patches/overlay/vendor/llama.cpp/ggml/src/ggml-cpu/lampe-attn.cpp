#include "lampe-attn.h"

#include "ggml-cpu-impl.h"
#include "ggml-lampe.h"
#include "simd-mappings.h"
#include "vec.h"

#include <algorithm>
#include <cmath>
#include <cstring>

bool ggml_lampe_attn_supported(const ggml_tensor * dst) {
    const ggml_tensor * q    = dst->src[0];
    const ggml_tensor * k    = dst->src[1];
    const ggml_tensor * v    = dst->src[2];
    const ggml_tensor * mask = dst->src[3];

    const auto row_ok = [](const ggml_tensor * t) {
        return t->nb[0] == ggml_type_size(t->type) && (t->type == GGML_TYPE_F32 || ggml_get_type_traits(t->type)->to_float != nullptr);
    };

    return q->type == GGML_TYPE_F32 && row_ok(q) && row_ok(k) && row_ok(v) && row_ok(mask);
}

size_t ggml_lampe_attn_work_size(const ggml_tensor * dst, int n_tasks) {
    const int64_t d = std::max(dst->src[1]->ne[0], dst->src[2]->ne[0]);

    return sizeof(float)*(5*d + 64)*n_tasks;
}

static void lampe_rotate(float * dst, const float * src, const float * rope, int64_t n_rot, bool neox, int64_t d) {
    const int64_t half = n_rot/2;
    for (int64_t i = 0; i < half; ++i) {
        const int64_t a = neox ? i        : 2*i;
        const int64_t b = neox ? i + half : 2*i + 1;
        const float x = src[a];
        const float y = src[b];
        dst[a] = x*rope[2*i] - y*rope[2*i + 1];
        dst[b] = x*rope[2*i + 1] + y*rope[2*i];
    }
    for (int64_t i = n_rot; i < d; ++i) {
        dst[i] = src[i];
    }
}

static void lampe_row_to_float(const ggml_tensor * t, const char * src, float * dst) {
    if (t->type == GGML_TYPE_F32) {
        memcpy(dst, src, t->ne[0]*sizeof(float));
    } else {
        ggml_get_type_traits(t->type)->to_float(src, dst, t->ne[0]);
    }
}

void ggml_compute_forward_lampe_attn(const ggml_compute_params * params, ggml_tensor * dst) {
    const ggml_tensor * q     = dst->src[0];
    const ggml_tensor * k     = dst->src[1];
    const ggml_tensor * v     = dst->src[2];
    const ggml_tensor * mask  = dst->src[3];
    const ggml_tensor * plan  = dst->src[4];
    const ggml_tensor * k_pos = dst->src[5];
    const ggml_tensor * rope  = dst->src[6];
    const ggml_tensor * sinks = dst->src[7];

    const float scale   = ggml_get_op_params_f32(dst, 0);
    const float softcap = ggml_get_op_params_f32(dst, 1);
    const bool  neox    = ggml_get_op_params_i32(dst, 2) == GGML_ROPE_TYPE_NEOX;

    const int64_t d_k = k->ne[0];
    const int64_t d_v = v->ne[0];
    const int64_t n_q = q->ne[1];
    const int64_t n_kv = k->ne[1];
    const int64_t n_head = q->ne[2];
    const int64_t n_rot = rope->ne[0];
    const int64_t n_pos = rope->ne[1];
    const int64_t gqa = n_head/k->ne[2];

    const int64_t d = std::max(d_k, d_v);
    float * qr  = (float *) params->wdata + params->ith*(5*d + 64);
    float * kf  = qr + d;
    float * kr  = kf + d;
    float * vf  = kr + d;
    float * acc = vf + d;

    const int64_t nr = n_q*n_head*q->ne[3];
    for (int64_t ir = params->ith; ir < nr; ir += params->nth) {
        const int64_t i3 = ir/(n_q*n_head);
        const int64_t ih = (ir/n_q)%n_head;
        const int64_t iq = ir%n_q;
        const int32_t * p = (const int32_t *) ((const char *) plan->data + iq*plan->nb[1] + i3*plan->nb[3]);
        const int32_t * kp = (const int32_t *) ((const char *) k_pos->data + i3*k_pos->nb[3]);
        const char * mp = (const char *) mask->data + iq*mask->nb[1] + i3*mask->nb[3];
        const float * pq = (const float *) ((const char *) q->data + iq*q->nb[1] + ih*q->nb[2] + i3*q->nb[3]);
        float m = -INFINITY;
        float l = 0.0f;
        memset(acc, 0, d_v*sizeof(float));
        for (int64_t j = 0; j < n_kv; ++j) {
            const float mv = mask->type == GGML_TYPE_F32 ? ((const float *) mp)[j] : GGML_CPU_FP16_TO_FP32(((const ggml_fp16_t *) mp)[j]);
            if (mv == -INFINITY || kp[j] < 0) {
                continue;
            }
            int64_t pos_q = p[0];
            int64_t pos_k = kp[j];
            const int64_t dist = pos_q - pos_k;
            if (dist <= p[1]) {
            } else if (dist >= p[5]) {
                pos_q -= p[6];
            } else {
                const int64_t den = std::max(p[3], 1);
                pos_q = pos_q*p[2]/den + p[4];
                pos_k = pos_k*p[2]/den;
            }
            pos_q = std::min(std::max(pos_q, (int64_t) 0), n_pos - 1);
            pos_k = std::min(std::max(pos_k, (int64_t) 0), n_pos - 1);
            lampe_row_to_float(k, (const char *) k->data + j*k->nb[1] + (ih/gqa)*k->nb[2] + i3*k->nb[3], kf);
            lampe_row_to_float(v, (const char *) v->data + j*v->nb[1] + (ih/gqa)*v->nb[2] + i3*v->nb[3], vf);
            lampe_rotate(qr, pq, (const float *) rope->data + pos_q*n_rot, n_rot, neox, d_k);
            lampe_rotate(kr, kf, (const float *) rope->data + pos_k*n_rot, n_rot, neox, d_k);
            float s = 0.0f;
            for (int64_t i = 0; i < d_k; ++i) {
                s += qr[i]*kr[i];
            }
            s *= scale;
            if (softcap != 0.0f) {
                s = softcap*tanhf(s/softcap);
            }
            s += mv;
            const float m_new = std::max(m, s);
            const float ms = expf(m - m_new);
            const float ps = expf(s - m_new);
            for (int64_t i = 0; i < d_v; ++i) {
                acc[i] = acc[i]*ms + ps*vf[i];
            }
            l = l*ms + ps;
            m = m_new;
        }
        float f = l > 0.0f ? 1.0f/l : 0.0f;
        if (sinks && l > 0.0f) {
            const float s = ((const float *) sinks->data)[ih];
            const float m_new = std::max(m, s);
            f = expf(m - m_new)/(l*expf(m - m_new) + expf(s - m_new));
        }
        float * out = (float *) ((char *) dst->data + ih*dst->nb[1] + iq*dst->nb[2] + i3*dst->nb[3]);
        for (int64_t i = 0; i < d_v; ++i) {
            out[i] = acc[i]*f;
        }
    }
}
