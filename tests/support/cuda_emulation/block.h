// The block that runs: one at a time.
#pragma once

#include "device.h"
#include "fibers.h"

#include <string>
#include <vector>

namespace cuda_emulation {
    enum thread_state { THREAD_RUNS, THREAD_AT_BARRIER, THREAD_AT_WARP, THREAD_ENDED };

    struct copy {
        char       * dst;
        const char * src;
        char         data[16]; // of src, when the copy was asked for
    };

    struct thread {
        fiber      * f = nullptr;
        uint3        index;
        thread_state state = THREAD_ENDED;

        // what it waits for
        const char * what = nullptr;
        call_site    at   = {};
        uint32_t     mask = 0;
        void       * given = nullptr;

        std::vector<copy> copies; // under way
    };

    struct warp {
        uint32_t exists  = 0;
        uint32_t ready   = 0; // can go on
        uint32_t waiting = 0; // for lanes of the warp
    };

    struct block_state {
        const char * kernel_name = "";
        int          n_threads = 0;
        int          n_ended   = 0;

        // barrier
        int  n_arrived = 0;
        int  folded    = 0;
        int  result    = 0;
        bool released  = false; // since the scheduler last looked

        int current = -1; // thread
    };

    extern block_state         block;
    extern std::vector<thread> threads;
    extern std::vector<warp>   warps;

    std::string here(); // kernel, block and thread

    // shared memory
    void shared_begin(size_t dynamic_size, size_t limit);
    void shared_end();

    size_t shared_limit(const void * kernel); // what a block of the kernel may have
}
