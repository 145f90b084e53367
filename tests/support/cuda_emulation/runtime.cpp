// Runs a grid: its blocks one after the other, the threads of a block as fibers, each until it has to wait.

#include "block.h"

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <random>

uint3 threadIdx;
uint3 blockIdx;
dim3  blockDim;
dim3  gridDim;

namespace cuda_emulation {

block_state         block;
std::vector<thread> threads;
std::vector<warp>   warps;
statistics          counted;

static void (*body)(void *);
static void * body_data;

std::string here() {
    if (block.n_threads == 0) {
        return "host";
    }
    char text[256];
    snprintf(text, sizeof(text), "%s, block (%u, %u, %u), thread (%u, %u, %u)", block.kernel_name,
        blockIdx.x, blockIdx.y, blockIdx.z, threadIdx.x, threadIdx.y, threadIdx.z);
    return text;
}

void fail(const char * format, ...) {
    va_list args;
    va_start(args, format);
    fprintf(stderr, "cuda emulation: ");
    vfprintf(stderr, format, args);
    fprintf(stderr, "\n");
    va_end(args);
    fflush(nullptr);
    abort();
}

static bool same_place(const thread & a, const thread & b) {
    const auto same = [](const char * x, const char * y) {
        return x == y || strcmp(x, y) == 0;
    };
    return a.at.line == b.at.line && same(a.what, b.what) && same(a.at.file, b.at.file);
}

// how many threads are where, for messages
static std::string whereabouts() {
    std::map<std::string, int> counts;
    for (int i = 0; i < block.n_threads; ++i) {
        const thread & t = threads[i];
        switch (t.state) {
            case THREAD_RUNS:
                counts["run"]++;
                break;
            case THREAD_ENDED:
                counts["have ended"]++;
                break;
            default:
                counts[std::string("wait at ") + t.what + " in " + t.at.file + ":" + std::to_string(t.at.line)]++;
                break;
        }
    }

    std::string text;
    for (const auto & it : counts) {
        text += "\n    " + std::to_string(it.second) + " threads " + it.first;
    }
    return text;
}

[[noreturn]] static void fail_divergent(const char * why) {
    fail("%s: %s%s", here().c_str(), why, whereabouts().c_str());
}

int lane() {
    return block.current%32;
}

static void wait_here(const char * what, call_site at, thread_state state) {
    if (block.n_threads == 0) {
        fail("%s:%d: %s outside of a kernel", at.file, at.line, what);
    }
    thread & t = threads[block.current];
    t.what  = what;
    t.at    = at;
    t.state = state;
}

int sync_threads(const char * what, call_site at, fold how, int value) {
    wait_here(what, at, THREAD_AT_BARRIER);

    const int x = value != 0;
    if (block.n_arrived == 0) {
        block.folded = how == FOLD_AND;
    }
    block.folded = how == FOLD_OR ? block.folded | x : how == FOLD_AND ? block.folded & x : block.folded + x;
    block.n_arrived++;

    warps[block.current/32].ready &= ~(1u << lane());

    if (block.n_arrived == block.n_threads) {
        for (int i = 0; i < block.n_threads; ++i) {
            if (!same_place(threads[i], threads[block.current])) {
                fail_divergent("threads meet at different barriers");
            }
            threads[i].state = THREAD_RUNS;
        }
        for (warp & w : warps) {
            w.ready = w.exists;
        }
        block.n_arrived = 0;
        block.result    = block.folded;
        block.released  = true;
    }
    fiber_leave();

    return block.result;
}

void warp_meet(const char * what, call_site at, uint32_t mask, void * given, warp_op op) {
    wait_here(what, at, THREAD_AT_WARP);

    warp         & w    = warps[block.current/32];
    thread       * lanes = &threads[block.current/32*32];
    thread       & self = threads[block.current];
    const uint32_t bit  = 1u << lane();

    if (!(mask & bit)) {
        fail("%s: %s with mask 0x%08x, which leaves out the caller", here().c_str(), what, mask);
    }
    mask &= w.exists;

    self.mask  = mask;
    self.given = given;

    w.waiting |= bit;
    if ((w.waiting & mask) == mask) {
        void * all[32] = { nullptr };
        bool   complete = true;
        for (int i = 0; i < 32; ++i) {
            if (!(mask >> i & 1)) {
                continue;
            }
            if (lanes[i].mask != mask) {
                complete = false; // it waits for others first
            } else if (!same_place(lanes[i], self)) {
                fail_divergent("lanes of a warp meet at different places");
            }
            all[i] = lanes[i].given;
        }
        if (complete) {
            if (op) {
                op(all, mask);
            }
            for (int i = 0; i < 32; ++i) {
                if (mask >> i & 1) {
                    lanes[i].state = THREAD_RUNS;
                }
            }
            w.waiting &= ~mask;
            w.ready   |= mask;
            return;
        }
    }

    w.ready &= ~bit;
    fiber_leave();
}

static void thread_main() {
    while (true) {
        body(body_data);

        thread & t = threads[block.current];
        if (!t.copies.empty()) {
            fail("%s: the thread ends and %zu asynchronous copies were not waited for", here().c_str(), t.copies.size());
        }
        t.state = THREAD_ENDED;
        warps[block.current/32].ready &= ~(1u << lane());
        block.n_ended++;
        fiber_leave();
    }
}

//
// order: 0 forwards, 1 backwards, from 2 on at random, anew at every barrier and every choice of a warp
//

static unsigned     seed = 0;
static std::mt19937 generator;

static void find_order(std::vector<int> & order, int n) {
    order.resize(n);
    for (int i = 0; i < n; ++i) {
        order[i] = seed == 1 ? n - 1 - i : i;
    }
    if (seed > 1) {
        std::shuffle(order.begin(), order.end(), generator);
    }
}

static void run_block() {
    static std::vector<int> warp_order;
    static std::vector<int> lane_order;

    find_order(warp_order, (int) warps.size());
    find_order(lane_order, 32);

    while (block.n_ended < block.n_threads) {
        int i_warp = -1;
        for (int i : warp_order) {
            if (warps[i].ready) {
                i_warp = i;
                break;
            }
        }
        if (i_warp < 0) {
            fail_divergent("no thread can go on");
        }

        warp & w = warps[i_warp];
        do {
            for (int l : lane_order) {
                if (!(w.ready >> l & 1)) {
                    continue;
                }
                block.current = i_warp*32 + l;
                threadIdx     = threads[block.current].index;
                fiber_enter(threads[block.current].f);
                if (block.released) {
                    break;
                }
            }
        } while (w.ready && !block.released && seed < 2);

        if (block.released || seed > 1) {
            block.released = false;
            find_order(warp_order, (int) warps.size());
            find_order(lane_order, 32);
        }
    }
}

static void begin_block(dim3 dim) {
    const int n = (int) (dim.x*dim.y*dim.z);

    if ((int) threads.size() < n) {
        threads.resize(n);
    }
    warps.assign((n + 31)/32, warp());

    for (int i = 0; i < n; ++i) {
        thread & t = threads[i];
        if (!t.f) {
            t.f = fiber_create(thread_main);
        }
        t.index = { i%dim.x, i/dim.x%dim.y, i/(dim.x*dim.y) };
        t.state = THREAD_RUNS;
        t.mask  = 0;

        warps[i/32].exists |= 1u << i%32;
    }
    for (warp & w : warps) {
        w.ready = w.exists;
    }

    block.n_threads = n;
    block.n_ended   = 0;
    block.n_arrived = 0;
    block.released  = false;
}

void run_grid(const char * name, const void * kernel, dim3 grid, dim3 dim, size_t shared, void (*run)(void *), void * data) {
    const uint64_t n_threads = (uint64_t) dim.x*dim.y*dim.z;

    if (block.n_threads != 0) {
        fail("%s: a launch from a kernel", here().c_str());
    }
    if (n_threads == 0 || n_threads > 1024 || dim.x > 1024 || dim.y > 1024 || dim.z > 64) {
        fail("%s: blocks of (%u, %u, %u) threads", name, dim.x, dim.y, dim.z);
    }
    if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.x > 0x7FFFFFFF || grid.y > 65535 || grid.z > 65535) {
        fail("%s: a grid of (%u, %u, %u) blocks", name, grid.x, grid.y, grid.z);
    }
    const size_t limit = shared_limit(kernel);
    if (shared > limit) {
        fail("%s: %zu bytes of shared memory, %zu are allowed", name, shared, limit);
    }

    const char * given = getenv("LAMPE_EMULATED_ORDER");
    seed = given ? (unsigned) atoi(given) : 0;
    generator.seed(seed);

    body      = run;
    body_data = data;
    blockDim  = dim;
    gridDim   = grid;
    block.kernel_name = name;

    counted.kernels += (counted.kernels.empty() ? "" : " ") + std::string(name);

    const uint64_t n_blocks = (uint64_t) grid.x*grid.y*grid.z;
    for (uint64_t ib = 0; ib < n_blocks; ++ib) {
        const uint64_t i = seed%2 == 1 ? n_blocks - 1 - ib : ib;
        blockIdx = { (unsigned) (i%grid.x), (unsigned) (i/grid.x%grid.y), (unsigned) (i/grid.x/grid.y) };

        begin_block(dim);
        shared_begin(shared, limit);
        run_block();
        shared_end();
    }
    block.n_threads = 0;
}

}
