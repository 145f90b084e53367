// Devices beside the processor, as graphics cards are: memory that only the device itself may touch, and every operator
// of the processor's but one. What they compute, the processor computes.
//
//   OTHER_DEVICES         how many there are, 1 to 4: Other0, Other1, ... (1)
//   OTHER_DEVICE_FUSED    the names of those that have that operator, too (none)
//   OTHER_DEVICE_REFUSES  the name of an operator that all of them lack
//   OTHER_DEVICE_ROWS     1: they split weights by rows, see other_rows.cpp
//   OTHER_DEVICE_EVENTS   1: they have events, so that llama.cpp computes several batches at a time
//   OTHER_DEVICE_GUARDS   1: whoever touches the memory of one that is not at work is ended; slow

#include "other_device.h"

#include <sys/mman.h>

#include <cstdlib>
#include <cstring>
#include <iterator>
#include <string>

// the only operator that they refuse
static const char * const REFUSED = "LAMPE_ATTN";

static std::string setting(const char * name) {
    const char * value = getenv(name);
    return value ? value : "";
}

static ggml_backend_dev_t processor() {
    return ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
}

// memory

static bool is_guarded() {
    static const bool res = !setting("OTHER_DEVICE_GUARDS").empty();
    return res;
}

void other_device::protect(int access) {
    for (auto & [base, size] : memory) {
        GGML_ASSERT(!is_guarded() || mprotect(base, size, access) == 0);
    }
}

bool other_device::owns(const ggml_tensor * tensor) {
    const std::lock_guard<std::mutex> lock(mutex);

    const auto next = memory.upper_bound(tensor->data);
    if (next == memory.begin()) {
        return false;
    }
    const auto & [base, size] = *std::prev(next);
    return (char *) tensor->data + ggml_nbytes(tensor) <= (char *) base + size;
}

void * other_device::take(size_t size) {
    const std::lock_guard<std::mutex> lock(mutex);

    const int access = is_guarded() && n_at_work == 0 ? PROT_NONE : PROT_READ | PROT_WRITE;

    void * base = mmap(nullptr, size, access, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    GGML_ASSERT(base != MAP_FAILED);

    memory[base] = size;
    return base;
}

void other_device::give_back(void * base) {
    const std::lock_guard<std::mutex> lock(mutex);

    GGML_ASSERT(munmap(base, memory.at(base)) == 0);
    memory.erase(base);
}

other_device::at_work::at_work(other_device & device) : device(device) {
    const std::lock_guard<std::mutex> lock(device.mutex);

    if (device.n_at_work++ == 0) {
        device.protect(PROT_READ | PROT_WRITE);
    }
}

other_device::at_work::~at_work() {
    const std::lock_guard<std::mutex> lock(device.mutex);

    if (--device.n_at_work == 0) {
        device.protect(PROT_NONE);
    }
}

static other_device & device_of(ggml_backend_buffer_t buffer) {
    return *(other_device *) buffer->buft->context;
}

static void buffer_free(ggml_backend_buffer_t buffer) {
    device_of(buffer).give_back(buffer->context);
}

static void * buffer_base(ggml_backend_buffer_t buffer) {
    return buffer->context;
}

static void buffer_memset(ggml_backend_buffer_t buffer, ggml_tensor * tensor, uint8_t value, size_t offset, size_t size) {
    const other_device::at_work now(device_of(buffer));
    memset((char *) tensor->data + offset, value, size);
}

static void buffer_set(ggml_backend_buffer_t buffer, ggml_tensor * tensor, const void * data, size_t offset, size_t size) {
    const other_device::at_work now(device_of(buffer));
    memcpy((char *) tensor->data + offset, data, size);
}

static void buffer_get(ggml_backend_buffer_t buffer, const ggml_tensor * tensor, void * data, size_t offset, size_t size) {
    const other_device::at_work now(device_of(buffer));
    memcpy(data, (const char *) tensor->data + offset, size);
}

static void buffer_clear(ggml_backend_buffer_t buffer, uint8_t value) {
    const other_device::at_work now(device_of(buffer));
    memset(buffer->context, value, buffer->size);
}

static ggml_backend_buffer_t buft_alloc(ggml_backend_buffer_type_t buft, size_t size) {
    ggml_backend_buffer_i iface = {};
    iface.free_buffer   = buffer_free;
    iface.get_base      = buffer_base;
    iface.memset_tensor = buffer_memset;
    iface.set_tensor    = buffer_set;
    iface.get_tensor    = buffer_get;
    iface.clear         = buffer_clear;

    return ggml_backend_buffer_init(buft, iface, ((other_device *) buft->context)->take(size), size);
}

static const char * buft_name(ggml_backend_buffer_type_t buft) {
    return ((other_device *) buft->context)->name.c_str();
}

static size_t buft_alignment(ggml_backend_buffer_type_t) {
    return 64;
}

// computing

static const char * backend_name(ggml_backend_t backend) {
    return ggml_backend_dev_name(backend->device);
}

static void backend_free(ggml_backend_t backend) {
    ggml_backend_free((ggml_backend_t) backend->context);
    delete backend;
}

void other_device::note(const std::string & what) {
    const std::lock_guard<std::mutex> lock(mutex);
    computed.insert(what);
}

// nothing is computed for it
static bool is_view(const ggml_tensor * node) {
    return node->op == GGML_OP_VIEW || node->op == GGML_OP_RESHAPE || node->op == GGML_OP_PERMUTE || node->op == GGML_OP_TRANSPOSE;
}

static ggml_status backend_compute(ggml_backend_t backend, ggml_cgraph * graph) {
    other_device & device = *(other_device *) backend->device->context;
    const auto own = (ggml_backend_t) backend->context;

    ggml_init_params params = { ggml_graph_overhead_custom(ggml_graph_n_nodes(graph), false), nullptr, true };
    ggml_context * ctx = ggml_init(params);
    ggml_cgraph * part = ggml_new_graph_custom(ctx, ggml_graph_n_nodes(graph), false);
    ggml_status res = GGML_STATUS_SUCCESS;

    const auto flush = [&]() {
        if (res == GGML_STATUS_SUCCESS && ggml_graph_n_nodes(part) > 0) {
            const other_device::at_work now(device);
            res = ggml_backend_graph_compute(own, part);
        }
        ggml_graph_clear(part);
    };

    for (int i = 0; i < ggml_graph_n_nodes(graph); ++i) {
        ggml_tensor * node = ggml_graph_node(graph, i);
        for (const ggml_tensor * src : node->src) {
            GGML_ASSERT(!src || is_view(node) || device.owns(src) || (src == node->src[0] && other_rows_is_product(node)));
        }
        GGML_ASSERT(is_view(node) || device.owns(node));

        device.note(ggml_op_name(node->op));
        if (node->op == GGML_OP_SET_ROWS) {
            device.note(node->view_src->name + (":" + std::to_string(node->view_src->ne[0])));
        }

        if (other_rows_is_product(node)) {
            flush();
            other_rows_multiply(device, own, node);
        } else {
            ggml_graph_add_node(part, node);
        }
    }
    flush();

    ggml_free(ctx);
    return res;
}

static ggml_backend_t dev_init(ggml_backend_dev_t dev, const char *) {
    static uint8_t guid[16] = { 'o', 't', 'h', 'e', 'r' };

    auto * res = new ggml_backend {};
    res->guid                = &guid;
    res->iface.get_name      = backend_name;
    res->iface.free          = backend_free;
    res->iface.graph_compute = backend_compute;
    res->iface.event_record  = [](ggml_backend_t, ggml_backend_event_t) {};
    res->iface.event_wait    = [](ggml_backend_t, ggml_backend_event_t) {};
    res->device              = dev;
    res->context             = ggml_backend_dev_init(processor(), nullptr);

    // graphs are as small as the models of tests: threads would wait for one another
    const auto set_n_threads = (ggml_backend_set_n_threads_t)
        ggml_backend_reg_get_proc_address(ggml_backend_dev_backend_reg(processor()), "ggml_backend_set_n_threads");
    set_n_threads((ggml_backend_t) res->context, 1);

    return res;
}

static bool dev_supports_op(ggml_backend_dev_t dev, const ggml_tensor * op) {
    const std::string name = ggml_op_name(op->op);

    if (name == REFUSED && setting("OTHER_DEVICE_FUSED").find(ggml_backend_dev_name(dev)) == std::string::npos) {
        return false;
    }

    return name != setting("OTHER_DEVICE_REFUSES") && other_rows_supports(op) && ggml_backend_dev_supports_op(processor(), op);
}

static ggml_backend_buffer_type_t dev_buft(ggml_backend_dev_t dev) {
    return &((other_device *) dev->context)->buft;
}

static bool dev_supports_buft(ggml_backend_dev_t dev, ggml_backend_buffer_type_t buft) {
    return buft == dev_buft(dev) || (other_rows_is(buft) && buft->device == dev);
}

// the devices

static const char * dev_name(ggml_backend_dev_t dev) {
    return ((other_device *) dev->context)->name.c_str();
}

static const char * dev_description(ggml_backend_dev_t) {
    return "a device for tests";
}

static void dev_memory(ggml_backend_dev_t, size_t * free, size_t * total) {
    *free = *total = size_t(4) << 30;
}

static enum ggml_backend_dev_type dev_type(ggml_backend_dev_t) {
    return GGML_BACKEND_DEVICE_TYPE_GPU;
}

static void dev_props(ggml_backend_dev_t dev, ggml_backend_dev_props * props) {
    *props = {};
    props->name        = dev_name(dev);
    props->description = dev_description(dev);
    props->type        = dev_type(dev);
    props->caps.async  = props->caps.events = !setting("OTHER_DEVICE_EVENTS").empty();
    dev_memory(dev, &props->memory_free, &props->memory_total);
}

static ggml_backend_event_t event_new(ggml_backend_dev_t dev) {
    return new ggml_backend_event { dev, nullptr };
}

static void event_free(ggml_backend_dev_t, ggml_backend_event_t event) {
    delete event;
}

static const char * reg_name(ggml_backend_reg_t) {
    return "Other";
}

static size_t reg_count(ggml_backend_reg_t) {
    const std::string count = setting("OTHER_DEVICES");
    return count.empty() ? 1 : std::stoul(count);
}

static other_device * make_device(ggml_backend_reg_t reg, size_t index) {
    auto * res = new other_device {};
    res->name = "Other" + std::to_string(index);

    auto & iface = res->dev.iface;
    iface.get_name          = dev_name;
    iface.get_description   = dev_description;
    iface.get_memory        = dev_memory;
    iface.get_type          = dev_type;
    iface.get_props         = dev_props;
    iface.init_backend      = dev_init;
    iface.get_buffer_type   = dev_buft;
    iface.supports_op       = dev_supports_op;
    iface.supports_buft     = dev_supports_buft;
    iface.event_new         = event_new;
    iface.event_free        = event_free;
    iface.event_synchronize = [](ggml_backend_dev_t, ggml_backend_event_t) {};
    res->dev.reg     = reg;
    res->dev.context = res;

    res->buft.iface.get_name      = buft_name;
    res->buft.iface.alloc_buffer  = buft_alloc;
    res->buft.iface.get_alignment = buft_alignment;
    res->buft.device              = &res->dev;
    res->buft.context             = res;
    return res;
}

static ggml_backend_dev_t reg_device(ggml_backend_reg_t reg, size_t index) {
    static other_device * const devices[] = { make_device(reg, 0), make_device(reg, 1), make_device(reg, 2), make_device(reg, 3) };
    return &devices[index]->dev;
}

static void * reg_address(ggml_backend_reg_t, const char * name) {
    const bool rows = !setting("OTHER_DEVICE_ROWS").empty() && strcmp(name, "ggml_backend_split_buffer_type") == 0;
    return rows ? (void *) other_rows_buft : nullptr;
}

extern "C" ggml_backend_reg_t ggml_backend_init() {
    static ggml_backend_reg reg = {};
    reg.api_version            = GGML_BACKEND_API_VERSION;
    reg.iface.get_name         = reg_name;
    reg.iface.get_device_count = reg_count;
    reg.iface.get_device       = reg_device;
    reg.iface.get_proc_address = reg_address;
    return &reg;
}

// what a device has computed since it was asked last, for tests: operators, NAME:LENGTH of a cache that was written and has
// rows of that length, NAME:COUNT of weights of which it has so many rows; separated by spaces
extern "C" const char * other_device_computed(size_t index) {
    static std::string res;
    other_device & device = *(other_device *) reg_device(nullptr, index)->context;

    const std::lock_guard<std::mutex> lock(device.mutex);
    res.clear();
    for (const auto & name : device.computed) {
        res += name + " ";
    }
    device.computed.clear();
    return res.c_str();
}
