// Memory of the device: shared memory of the block that runs, asynchronous copies to it, and the pool.
// All of it starts as 0xFF bytes, which are no number in any floating type, and each piece ends where it should, for ASan.

#include "block.h"
#include "common.cuh"

#include <map>

namespace cuda_emulation {

static constexpr int POISON = 0xFF;

static constexpr size_t DYNAMIC_ALIGN    = 16;
static constexpr size_t STATIC_MAX       = 48*1024;
static constexpr size_t SHARED_PER_BLOCK = 232448;

struct region {
    int      id; // of a variable, -1: dynamic
    char   * memory;
    char   * data;
    size_t   size;
    unsigned handle; // where it begins, as the device sees it
};

static std::vector<region>      regions;
static size_t                   static_size = 0;
static size_t                   size_limit  = 0;
static std::map<const void *, size_t> allowed;

static char * allocate(size_t size, size_t align) {
    void * p = nullptr;
    if (posix_memalign(&p, align < sizeof(void *) ? sizeof(void *) : align, size) != 0) {
        fail("out of memory: %zu bytes", size);
    }
    memset(p, POISON, size);
    return (char *) p;
}

// aligned to `align` and not to twice that, so that whoever needs more is found out
static const region & add_region(int id, size_t size, size_t align) {
    const unsigned begin = regions.empty() ? 1024 : regions.back().handle + (unsigned) regions.back().size;

    char * memory = allocate(size + align, 2*align);
    regions.push_back({ id, memory, memory + align, size, (begin + 1023)/1024*1024 });
    return regions.back();
}

void allow_shared(const void * kernel, size_t size) {
    if (size > SHARED_PER_BLOCK) {
        fail("%zu bytes of shared memory: the device has %zu", size, SHARED_PER_BLOCK);
    }
    allowed[kernel] = size;
}

size_t shared_limit(const void * kernel) {
    const auto it = allowed.find(kernel);
    return it != allowed.end() && it->second > STATIC_MAX ? it->second : STATIC_MAX;
}

void shared_begin(size_t dynamic_size, size_t limit) {
    static_size = 0;
    size_limit  = limit;
    if (dynamic_size > 0) {
        add_region(-1, dynamic_size, DYNAMIC_ALIGN);
    }
}

void shared_end() {
    for (const region & r : regions) {
        free(r.memory);
    }
    regions.clear();
}

void * dynamic_shared(size_t align) {
    if (align > DYNAMIC_ALIGN) {
        fail("%s: dynamic shared memory with an alignment of %zu", here().c_str(), align);
    }
    if (regions.empty() || regions[0].id != -1) {
        fail("%s: dynamic shared memory, and the launch gave none", here().c_str());
    }
    return regions[0].data;
}

void * static_shared(int id, size_t size, size_t align) {
    for (const region & r : regions) {
        if (r.id == id) {
            if (r.size != size) {
                fail("%s: a shared variable has two sizes", here().c_str());
            }
            return r.data;
        }
    }

    static_size = (static_size + align - 1)/align*align + size;
    const size_t dynamic_size = !regions.empty() && regions[0].id == -1 ? regions[0].size : 0;
    // what a kernel has been allowed is dynamic memory, and static memory may come on top of it
    const size_t total_max = size_limit > STATIC_MAX ? SHARED_PER_BLOCK : STATIC_MAX;
    if (static_size > STATIC_MAX || static_size + dynamic_size > total_max) {
        fail("%s: %zu bytes of static and %zu of dynamic shared memory, %zu are allowed",
            here().c_str(), static_size, dynamic_size, total_max);
    }

    return add_region(id, size, align).data;
}

void check_aligned(const char * what, const void * p, size_t align) {
    if ((uintptr_t) p % align != 0) {
        fail("%s: %s: address %p is not a multiple of %zu", here().c_str(), what, p, align);
    }
}

static const region * find_region(const void * p, size_t size) {
    const uintptr_t begin = (uintptr_t) p;

    for (const region & r : regions) {
        const uintptr_t data = (uintptr_t) r.data;
        if (begin >= data && begin < data + r.size) {
            return begin + size <= data + r.size ? &r : nullptr;
        }
    }
    return nullptr;
}

void check_shared_16(const char * what, const void * p) {
    check_aligned(what, p, 16);
    if (!find_region(p, 16)) {
        fail("%s: %s: the 16 bytes at %p are not in shared memory", here().c_str(), what, p);
    }
}

const void * shared_row(unsigned handle) {
    for (const region & r : regions) {
        if (handle >= r.handle && handle + 16 <= r.handle + r.size) {
            return r.data + (handle - r.handle);
        }
    }
    fail("%s: a matrix is read outside of shared memory", here().c_str());
}

unsigned shared_handle(const void * p) {
    const region * r = find_region(p, 1);
    if (!r) {
        fail("%s: %p is not in shared memory", here().c_str(), p);
    }
    return r->handle + (unsigned) ((const char *) p - r->data);
}

static bool is_poison(const char * p) {
    for (int i = 0; i < 16; ++i) {
        if ((unsigned char) p[i] != POISON) {
            return false;
        }
    }
    return true;
}

void copy_async_16(unsigned dst, const void * src) {
    char * to = nullptr;
    for (const region & r : regions) {
        if (dst >= r.handle && dst + 16 <= r.handle + r.size) {
            to = r.data + (dst - r.handle);
        }
    }
    if (!to) {
        fail("%s: an asynchronous copy to %u, which is not in shared memory", here().c_str(), dst);
    }
    check_aligned("asynchronous copy, to", to, 16);
    check_aligned("asynchronous copy, from", src, 16);

    copy c;
    c.dst = to;
    c.src = (const char *) src;
    memcpy(c.data, src, 16);
    memset(to, POISON, 16);
    counted.copied += 16;
    threads[block.current].copies.push_back(c);
}

void wait_for_copies() {
    std::vector<copy> & copies = threads[block.current].copies;

    for (const copy & c : copies) {
        if (!is_poison(c.dst)) {
            fail("%s: the destination of an asynchronous copy was written before the copy was waited for", here().c_str());
        }
        if (memcmp(c.data, c.src, 16) != 0) {
            fail("%s: the source of an asynchronous copy was written before the copy was waited for", here().c_str());
        }
        memcpy(c.dst, c.data, 16);
    }
    copies.clear();
}

}

void * ggml_cuda_pool::alloc(size_t size, size_t * actual_size) {
    *actual_size = size;
    cuda_emulation::counted.workspace += size;
    return cuda_emulation::allocate(size, 256);
}

void ggml_cuda_pool::free(void * p, size_t) {
    ::free(p);
}

static int from_env(const char * name, int value) {
    const char * given = getenv(name);
    return given && *given ? atoi(given) : value;
}

const ggml_cuda_device_info & ggml_cuda_info() {
    static ggml_cuda_device_info info;

    for (auto & device : info.devices) {
        device.cc    = from_env("LAMPE_EMULATED_CC", GGML_CUDA_CC_HOPPER);
        device.nsm   = from_env("LAMPE_EMULATED_SMS", 4);
        device.smpb  = cuda_emulation::STATIC_MAX;
        device.smpbo = cuda_emulation::SHARED_PER_BLOCK;
    }
    return info;
}
