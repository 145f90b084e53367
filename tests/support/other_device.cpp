// A device beside the processor, as a graphics card is one: memory that only it may touch, and every operator of the
// processor's but one. What it computes, the processor computes.

#include "ggml-backend-impl.h"
#include "ggml-backend.h"

#include <cstdlib>
#include <cstring>

// the only operator that it refuses
static const char * const REFUSED = "LAMPE_ATTN";

static ggml_backend_dev_t processor() {
    return ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
}

// memory

static void buffer_free(ggml_backend_buffer_t buffer) {
    free(buffer->context);
}

static void * buffer_base(ggml_backend_buffer_t buffer) {
    return buffer->context;
}

static void buffer_memset(ggml_backend_buffer_t, ggml_tensor * tensor, uint8_t value, size_t offset, size_t size) {
    memset((char *) tensor->data + offset, value, size);
}

static void buffer_set(ggml_backend_buffer_t, ggml_tensor * tensor, const void * data, size_t offset, size_t size) {
    memcpy((char *) tensor->data + offset, data, size);
}

static void buffer_get(ggml_backend_buffer_t, const ggml_tensor * tensor, void * data, size_t offset, size_t size) {
    memcpy(data, (const char *) tensor->data + offset, size);
}

static void buffer_clear(ggml_backend_buffer_t buffer, uint8_t value) {
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

    return ggml_backend_buffer_init(buft, iface, aligned_alloc(64, (size + 63)/64*64), size);
}

static const char * buft_name(ggml_backend_buffer_type_t) {
    return "Other0";
}

static size_t buft_alignment(ggml_backend_buffer_type_t) {
    return 64;
}

static ggml_backend_buffer_type_t dev_buft(ggml_backend_dev_t dev) {
    static ggml_backend_buffer_type buft = {};
    buft.iface.get_name      = buft_name;
    buft.iface.alloc_buffer  = buft_alloc;
    buft.iface.get_alignment = buft_alignment;
    buft.device              = dev;
    return &buft;
}

// computing

static const char * backend_name(ggml_backend_t) {
    return "Other0";
}

static void backend_free(ggml_backend_t backend) {
    ggml_backend_free((ggml_backend_t) backend->context);
    delete backend;
}

static ggml_status backend_compute(ggml_backend_t backend, ggml_cgraph * graph) {
    return ggml_backend_graph_compute((ggml_backend_t) backend->context, graph);
}

static ggml_backend_t dev_init(ggml_backend_dev_t dev, const char *) {
    static uint8_t guid[16] = { 'o', 't', 'h', 'e', 'r' };

    auto * res = new ggml_backend {};
    res->guid                = &guid;
    res->iface.get_name      = backend_name;
    res->iface.free          = backend_free;
    res->iface.graph_compute = backend_compute;
    res->device              = dev;
    res->context             = ggml_backend_dev_init(processor(), nullptr);
    return res;
}

static bool dev_supports_op(ggml_backend_dev_t, const ggml_tensor * op) {
    const char * name = ggml_op_name(op->op);
    const char * also = getenv("OTHER_DEVICE_REFUSES"); // another one

    return strcmp(name, REFUSED) != 0 && !(also && strcmp(name, also) == 0) && ggml_backend_dev_supports_op(processor(), op);
}

static bool dev_supports_buft(ggml_backend_dev_t dev, ggml_backend_buffer_type_t buft) {
    return buft == dev_buft(dev);
}

// the device

static const char * dev_name(ggml_backend_dev_t) {
    return "Other0";
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
    dev_memory(dev, &props->memory_free, &props->memory_total);
}

static const char * reg_name(ggml_backend_reg_t) {
    return "Other";
}

static size_t reg_count(ggml_backend_reg_t) {
    return 1;
}

static ggml_backend_dev_t reg_device(ggml_backend_reg_t reg, size_t) {
    static ggml_backend_device dev = {};
    dev.iface.get_name        = dev_name;
    dev.iface.get_description = dev_description;
    dev.iface.get_memory      = dev_memory;
    dev.iface.get_type        = dev_type;
    dev.iface.get_props       = dev_props;
    dev.iface.init_backend    = dev_init;
    dev.iface.get_buffer_type = dev_buft;
    dev.iface.supports_op     = dev_supports_op;
    dev.iface.supports_buft   = dev_supports_buft;
    dev.reg                   = reg;
    return &dev;
}

extern "C" ggml_backend_reg_t ggml_backend_init() {
    static ggml_backend_reg reg = {};
    reg.api_version            = GGML_BACKEND_API_VERSION;
    reg.iface.get_name         = reg_name;
    reg.iface.get_device_count = reg_count;
    reg.iface.get_device       = reg_device;
    return &reg;
}
