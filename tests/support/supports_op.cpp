// What a backend says of ops, without the backend: its own function is cut out of the vendored
// source into functions.inc and compiled here against as little of its surroundings as it names.
//
// Reads nodes from stdin: a ggml_tensor, how many sources, as many ggml_tensors.
// Writes a line per node: 0 or 1.

#include "ggml.h"
#include "ggml-backend-impl.h"
#include "ggml-impl.h"

#include <cstdio>
#include <cstring>

#define QK_K 256

#if defined(CUDA)

#define ggml_backend_cuda_device_context device_context

struct device_context { int device; };

struct ggml_backend_cuda_buffer_type_context { int device; };

struct device_info { struct { size_t smpb; } devices[1]; };

static device_info ggml_cuda_info() { return { { { 99 << 10 } } }; }

static bool ggml_backend_buft_is_cuda(ggml_backend_buffer_type_t) { return false; }

// special kernels, for ops that are not looked at here
static bool ggml_cuda_op_mul_mat_use_fwht(const ggml_tensor *)              { return false; }
static bool ggml_cuda_flash_attn_ext_supported(int, const ggml_tensor *)    { return false; }
static bool ggml_cuda_lightning_indexer_supported(int, const ggml_tensor *) { return false; }

#else

#define OP_LIGHTNING_INDEXER_DK 0
#define OP_LIGHTNING_INDEXER_NH 0

// a Mac without bfloat
struct ggml_metal_device {
    struct {
        bool   has_simdgroup_mm            = true;
        bool   has_simdgroup_reduction     = true;
        bool   has_bfloat                  = false;
        size_t max_theadgroup_memory_size  = 32 << 10;
    } props;
};

typedef ggml_metal_device * ggml_metal_device_t;

static bool ggml_metal_op_mul_mat_use_fwht (const ggml_tensor *, size_t) { return false; }
static bool ggml_metal_op_mul_mat_use_mm   (const ggml_tensor *, bool)   { return false; }
static bool ggml_metal_op_mul_mat_id_use_mm(const ggml_tensor *, bool)   { return false; }

#endif

#include "functions.inc"

static bool supports(const ggml_tensor * op) {
#if defined(CUDA)
    device_context ctx = { 0 };

    ggml_backend_device dev = {};
    dev.context = &ctx;

    return ggml_backend_cuda_device_supports_op(&dev, op);
#else
    ggml_metal_device dev;

    return ggml_metal_device_supports_op(&dev, op);
#endif
}

// pointers are of another process
static bool read_tensor(ggml_tensor & res) {
    if (fread(&res, sizeof(res), 1, stdin) != 1) {
        return false;
    }
    res.buffer   = nullptr;
    res.view_src = nullptr;
    memset(res.src, 0, sizeof(res.src));
    return true;
}

int main(int argc, char ** argv) {
    if (argc == 2 && strcmp(argv[1], "size") == 0) {
        printf("%zu\n", sizeof(ggml_tensor));
        return 0;
    }

    ggml_tensor op;
    ggml_tensor src[GGML_MAX_SRC];
    int32_t     n_src;

    while (read_tensor(op)) {
        if (fread(&n_src, sizeof(n_src), 1, stdin) != 1 || n_src > GGML_MAX_SRC) {
            return 1;
        }
        for (int32_t i = 0; i < n_src; ++i) {
            if (!read_tensor(src[i])) {
                return 1;
            }
            op.src[i] = &src[i];
        }
        printf("%d\n", supports(&op) ? 1 : 0);
    }

    return 0;
}
