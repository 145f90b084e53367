#include "llama-lampe-impl.h"

#include "llama-impl.h"
#include "llama-model.h"

#include "ggml-backend.h"

#include <algorithm>
#include <cmath>
#include <cstring>

// rows of a table that are filled at a time: the whole of it would take its memory twice
static constexpr int32_t LLAMA_LAMPE_ROWS_FILL = 4096;

//
// llama_lampe_rope
//

llama_lampe_rope llama_lampe_rope::from_op(const ggml_tensor * op) {
    GGML_ASSERT(op->op == GGML_OP_ROPE);

    llama_lampe_rope res;

    // the layout of op_params is that of ggml_rope_impl()
    int32_t op_params[16];
    static_assert(sizeof(op_params) <= sizeof(op->op_params), "op_params too small");

    memcpy(op_params, op->op_params, sizeof(op_params));

    res.n_dims     = op_params[1];
    res.mode       = op_params[2];
    res.n_ctx_orig = op_params[4];

    memcpy(&res.freq_base,   &op_params[ 5], sizeof(float));
    memcpy(&res.freq_scale,  &op_params[ 6], sizeof(float));
    memcpy(&res.ext_factor,  &op_params[ 7], sizeof(float));
    memcpy(&res.attn_factor, &op_params[ 8], sizeof(float));
    memcpy(&res.beta_fast,   &op_params[ 9], sizeof(float));
    memcpy(&res.beta_slow,   &op_params[10], sizeof(float));

    res.factors = op->src[2];

    return res;
}

bool llama_lampe_rope::operator==(const llama_lampe_rope & other) const {
    return
        n_dims      == other.n_dims      &&
        mode        == other.mode        &&
        n_ctx_orig  == other.n_ctx_orig  &&
        freq_base   == other.freq_base   &&
        freq_scale  == other.freq_scale  &&
        ext_factor  == other.ext_factor  &&
        attn_factor == other.attn_factor &&
        beta_fast   == other.beta_fast   &&
        beta_slow   == other.beta_slow   &&
        factors     == other.factors;
}

bool llama_lampe_rope::same_rotation(const llama_lampe_rope & other) const {
    llama_lampe_rope copy = other;
    copy.factors = factors;

    return *this == copy;
}

float llama_lampe_rope::get_attn_factor(float magnitude) const {
    return ext_factor == 0.0f ? magnitude : magnitude/(1.0f + 0.1f*logf(1.0f/freq_scale));
}

//
// tables of cos and sin
//

void llama_lampe_context::fill_rope_table(rope_table & table, int32_t n_pos) const {
    const auto & rope = table.rope;

    float corr_dims[2];
    ggml_rope_yarn_corr_dims(rope.n_dims, rope.n_ctx_orig, rope.freq_base, rope.beta_fast, rope.beta_slow, corr_dims);

    const int32_t n_pairs = rope.n_dims/2;

    // angle per position, in double: at position 32768 a float is off by 0.002 already
    std::vector<double> freq(n_pairs);

    for (int32_t i = 0; i < n_pairs; ++i) {
        const double freq_extrap = std::pow((double) rope.freq_base, -2.0*i/rope.n_dims)/(table.factors.empty() ? 1.0 : table.factors[i]);
        const double freq_interp = rope.freq_scale*freq_extrap;

        double mix = 0.0;
        if (rope.ext_factor != 0.0f) {
            const double ramp = (i - corr_dims[0])/std::max(0.001f, corr_dims[1] - corr_dims[0]);

            mix = rope.ext_factor*(1.0 - std::clamp(ramp, 0.0, 1.0));
        }

        freq[i] = freq_interp*(1.0 - mix) + freq_extrap*mix;
    }

    const size_t row_size = rope.n_dims*sizeof(float);

    std::vector<float> data((size_t) std::min(n_pos, LLAMA_LAMPE_ROWS_FILL)*rope.n_dims);

    for (int32_t first = 0; first < n_pos; first += LLAMA_LAMPE_ROWS_FILL) {
        const int32_t n_rows = std::min(n_pos - first, LLAMA_LAMPE_ROWS_FILL);

        for (int32_t r = 0; r < n_rows; ++r) {
            float * row = data.data() + (size_t) r*rope.n_dims;

            const int32_t p = first + r;

            for (int32_t i = 0; i < n_pairs; ++i) {
                row[i]           = (float) (table.magnitude*std::cos(p*freq[i]));
                row[i + n_pairs] = (float) (table.magnitude*std::sin(p*freq[i]));
            }
        }

        ggml_backend_tensor_set(table.tensor, data.data(), first*row_size, n_rows*row_size);
    }
}

std::shared_ptr<llama_lampe_context::rope_table> llama_lampe_context::find_rope_table(
        const std::vector<std::shared_ptr<rope_table>> & tables,
                                const llama_lampe_rope & rope,
                              const std::vector<float> & factors,
                                                 float   magnitude,
                            ggml_backend_buffer_type_t   buft) {
    const auto it = std::find_if(tables.begin(), tables.end(), [&](const auto & table) {
        return table->rope == rope && table->factors == factors && table->magnitude == magnitude && table->buft == buft;
    });

    return it == tables.end() ? nullptr : *it;
}

std::shared_ptr<llama_lampe_context::rope_table> llama_lampe_context::make_rope_table(
              const llama_lampe_rope & rope,
            const std::vector<float> & factors,
                               float   magnitude,
          ggml_backend_buffer_type_t   buft,
                             int32_t   n_pos) const {
    auto table = std::make_shared<rope_table>();

    table->rope      = rope;
    table->factors   = factors;
    table->magnitude = magnitude;
    table->buft      = buft;

    ggml_init_params params_ctx = {
        /*.mem_size   =*/ ggml_tensor_overhead(),
        /*.mem_buffer =*/ nullptr,
        /*.no_alloc   =*/ true,
    };

    table->ctx.reset(ggml_init(params_ctx));
    table->tensor = ggml_new_tensor_2d(table->ctx.get(), GGML_TYPE_F32, rope.n_dims, n_pos);
    ggml_set_name(table->tensor, "lampe_rope");

    if (model.hparams.no_alloc) {
        table->buf.reset(ggml_backend_buft_alloc_buffer(buft, 0));
        table->tensor->buffer = table->buf.get();

        return table;
    }

    table->buf.reset(ggml_backend_alloc_ctx_tensors_from_buft(table->ctx.get(), buft));
    if (!table->buf) {
        throw llama_lampe_error(format("failed to allocate %.1f MiB for the positions of LaMPE", ggml_nbytes(table->tensor)/1024.0/1024.0));
    }

    fill_rope_table(*table, n_pos);

    return table;
}

void llama_lampe_context::grow_rope_tables(int32_t n_pos_new) {
    std::vector<std::shared_ptr<rope_table>> tables;

    for (const auto & table : active.rope_tables) {
        tables.push_back(make_rope_table(table->rope, table->factors, table->magnitude, table->buft, n_pos_new));

        tables.back()->is_base = table->is_base;
        tables.back()->is_swa  = table->is_swa;
    }

    n_pos = n_pos_new;

    active.rope_tables = std::move(tables);
}

ggml_tensor * llama_lampe_context::get_rope_table(const llama_lampe_rope & rope, int il, bool is_swa) {
    const float magnitude = get_magnitude(is_swa);

    std::vector<float> factors;
    if (rope.factors && rope.factors->buffer && !model.hparams.no_alloc) {
        factors.resize(rope.n_dims/2);
        ggml_backend_tensor_get(rope.factors, factors.data(), 0, factors.size()*sizeof(float));
    }

    ggml_backend_buffer_type_t buft = cparams.offload_kqv ?
        ggml_backend_dev_buffer_type(model.dev_layer(il)) : ggml_backend_cpu_buffer_type();

    // layers share a table unless they rotate differently
    llama_lampe_rope key = rope;
    key.factors = nullptr;

    auto table = find_rope_table(active.rope_tables, key, factors, magnitude, buft);
    if (!table) {
        table = make_rope_table(key, factors, magnitude, buft, n_pos);

        active.rope_tables.push_back(table);
    }

    table->is_base |= !is_swa;
    table->is_swa  |=  is_swa;

    return table->tensor;
}

std::map<ggml_backend_buffer_type_t, size_t> llama_lampe_context::memory_breakdown() const {
    std::map<ggml_backend_buffer_type_t, size_t> res;

    for (const auto & table : active.rope_tables) {
        res[table->buft] += ggml_nbytes(table->tensor);
    }

    return res;
}
