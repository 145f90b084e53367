// Weights of which each device keeps some rows, as llama.cpp's split_mode row has them: a buffer type whose tensors can
// do nothing but be multiplied with. Each device multiplies by its own rows; the first of the graph has the rest.

#include "other_device.h"

#include <cstring>
#include <vector>

// rows of a device are a multiple of this
static constexpr int64_t ROUNDING = 32;

struct rows_type {
    std::string        name; // of its own for each device: llama.cpp tells buffer types apart by it
    std::vector<float> ends; // of the rows of each device, as a part of all
    ggml_backend_reg_t reg;
};

struct rows_part {
    other_device * device;
    int64_t        first;
    int64_t        n_rows;
    void *         data;
};

struct rows_buffer {
    std::vector<std::vector<rows_part> *> tensors;
};

static const rows_type & type_of(ggml_backend_buffer_type_t buft) {
    return *(const rows_type *) buft->context;
}

// the parts of a tensor, without their memory
static std::vector<rows_part> rows_split(const rows_type & type, const ggml_tensor * tensor) {
    std::vector<rows_part> res;

    for (int64_t first = 0, i = 0; first < tensor->ne[1]; ++i) {
        const bool is_last = i + 1 == (int64_t) type.ends.size();
        const int64_t end = is_last ? tensor->ne[1] : (int64_t) (type.ends[i]*tensor->ne[1])/ROUNDING*ROUNDING;

        if (end > first) {
            auto * device = (other_device *) ggml_backend_reg_dev_get(type.reg, i)->context;
            res.push_back({ device, first, end - first, nullptr });
            first = end;
        }
    }

    return res;
}

// the buffer

static void buffer_free(ggml_backend_buffer_t buffer) {
    auto * ctx = (rows_buffer *) buffer->context;

    for (auto * parts : ctx->tensors) {
        for (auto & part : *parts) {
            part.device->give_back(part.data);
        }
        delete parts;
    }
    delete ctx;
}

static void * buffer_base(ggml_backend_buffer_t) {
    return (void *) 0x1000; // nothing lies there
}

static ggml_status buffer_init_tensor(ggml_backend_buffer_t buffer, ggml_tensor * tensor) {
    GGML_ASSERT(tensor->view_src == nullptr);

    auto * parts = new std::vector<rows_part>(rows_split(type_of(buffer->buft), tensor));
    for (auto & part : *parts) {
        part.data = part.device->take(part.n_rows*tensor->nb[1]);
    }

    tensor->extra = parts;
    ((rows_buffer *) buffer->context)->tensors.push_back(parts);
    return GGML_STATUS_SUCCESS;
}

static void buffer_set(ggml_backend_buffer_t, ggml_tensor * tensor, const void * data, size_t offset, size_t size) {
    GGML_ASSERT(offset == 0 && size == ggml_nbytes(tensor));

    for (const auto & part : *(std::vector<rows_part> *) tensor->extra) {
        const other_device::at_work now(*part.device);
        memcpy(part.data, (const char *) data + part.first*tensor->nb[1], part.n_rows*tensor->nb[1]);
    }
}

static void buffer_get(ggml_backend_buffer_t, const ggml_tensor * tensor, void * data, size_t offset, size_t size) {
    GGML_ASSERT(offset == 0 && size == ggml_nbytes(tensor));

    for (const auto & part : *(std::vector<rows_part> *) tensor->extra) {
        const other_device::at_work now(*part.device);
        memcpy((char *) data + part.first*tensor->nb[1], part.data, part.n_rows*tensor->nb[1]);
    }
}

static ggml_backend_buffer_t buft_alloc(ggml_backend_buffer_type_t buft, size_t size) {
    ggml_backend_buffer_i iface = {};
    iface.free_buffer = buffer_free;
    iface.get_base    = buffer_base;
    iface.init_tensor = buffer_init_tensor;
    iface.set_tensor  = buffer_set;
    iface.get_tensor  = buffer_get;
    iface.clear       = [](ggml_backend_buffer_t, uint8_t) {};

    return ggml_backend_buffer_init(buft, iface, new rows_buffer, size);
}

static const char * buft_name(ggml_backend_buffer_type_t buft) {
    return type_of(buft).name.c_str();
}

static size_t buft_alignment(ggml_backend_buffer_type_t) {
    return 64;
}

ggml_backend_buffer_type_t other_rows_buft(int main_device, const float * tensor_split) {
    static std::map<std::pair<int, std::vector<float>>, ggml_backend_buffer_type> bufts;

    ggml_backend_reg_t reg = ggml_backend_reg_by_name("Other");
    const size_t n_devices = ggml_backend_reg_dev_count(reg);

    std::vector<float> ends(n_devices);
    for (size_t i = 0; i < n_devices; ++i) {
        ends[i] = (i > 0 ? ends[i - 1] : 0.0f) + (tensor_split ? tensor_split[i] : 0.0f);
    }
    for (size_t i = 0; i < n_devices; ++i) {
        ends[i] = ends.back() > 0.0f ? ends[i]/ends.back() : (i + 1.0f)/n_devices;
    }

    auto & buft = bufts[{ main_device, ends }];
    if (buft.context) {
        return &buft;
    }
    buft.iface.get_name      = buft_name;
    buft.iface.alloc_buffer  = buft_alloc;
    buft.iface.get_alignment = buft_alignment;
    buft.device              = ggml_backend_reg_dev_get(reg, main_device);
    buft.context             = new rows_type { "Other" + std::to_string(main_device) + "_Rows", ends, reg };
    return &buft;
}

bool other_rows_is(ggml_backend_buffer_type_t buft) {
    return buft->iface.get_name == buft_name;
}

bool other_rows_supports(const ggml_tensor * op) {
    for (int i = 0; i < GGML_MAX_SRC; ++i) {
        const ggml_tensor * src = op->src[i];
        if (src && src->buffer && other_rows_is(src->buffer->buft) && !(i == 0 && other_rows_is_product(op))) {
            return false;
        }
    }
    return true;
}

bool other_rows_is_product(const ggml_tensor * node) {
    const ggml_tensor * weights = node->src[0];

    return node->op == GGML_OP_MUL_MAT && weights->buffer && other_rows_is(weights->buffer->buft) &&
        weights->ne[2] == 1 && weights->ne[3] == 1;
}

void other_rows_multiply(other_device & device, ggml_backend_t own, ggml_tensor * node) {
    const ggml_tensor * weights = node->src[0];
    const ggml_tensor * x       = node->src[1];

    GGML_ASSERT(ggml_is_contiguous(x) && ggml_is_contiguous(node));

    std::vector<char> sent(ggml_nbytes(x));
    ggml_backend_tensor_get(x, sent.data(), 0, sent.size());

    for (const auto & part : *(std::vector<rows_part> *) weights->extra) {
        part.device->note(weights->name + (":" + std::to_string(part.n_rows)));

        ggml_init_params params = { 3*ggml_tensor_overhead() + ggml_graph_overhead(), nullptr, true };
        ggml_context * ctx = ggml_init(params);

        ggml_tensor * part_w = ggml_new_tensor_2d(ctx, weights->type, weights->ne[0], part.n_rows);
        ggml_tensor * part_x = ggml_new_tensor(ctx, x->type, GGML_MAX_DIMS, x->ne);
        ggml_tensor * part_y = ggml_mul_mat(ctx, part_w, part_x);
        memcpy(part_y->op_params, node->op_params, sizeof(node->op_params));

        part_w->data = part.data;
        part_x->data = part.device->take(ggml_nbytes(part_x));
        part_y->data = part.device->take(ggml_nbytes(part_y));

        std::vector<char> got(ggml_nbytes(part_y));
        {
            const other_device::at_work now(*part.device);
            memcpy(part_x->data, sent.data(), sent.size());

            ggml_cgraph * graph = ggml_new_graph(ctx);
            ggml_build_forward_expand(graph, part_y);
            GGML_ASSERT(ggml_backend_graph_compute(own, graph) == GGML_STATUS_SUCCESS);

            memcpy(got.data(), part_y->data, got.size());
        }
        {
            const other_device::at_work now(device);
            for (int64_t row = 0; row < ggml_nrows(part_y); ++row) {
                memcpy((char *) node->data + row*node->nb[1] + part.first*sizeof(float), got.data() + row*part_y->nb[1], part_y->nb[1]);
            }
        }

        part.device->give_back(part_x->data);
        part.device->give_back(part_y->data);
        ggml_free(ctx);
    }
}
