// Masks and the positions of keys are most of what a token sends to a peer, and long runs of numbers that are equal or
// follow one another: so they are sent.
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

#pragma pack(push, 1)
// the words start, start + step, ..., count of them
struct rpc_run {
    uint32_t start;
    uint32_t step;
    uint32_t count;
};
#pragma pack(pop)

static constexpr size_t RPC_RUNS_MIN = 256; // bytes, below which what describes the tensor is more

// the runs of the data, empty where they would save less than half
static std::vector<rpc_run> rpc_find_runs(const void * data, size_t size) {
    std::vector<rpc_run> runs;

    if (size < RPC_RUNS_MIN || size % sizeof(uint32_t) != 0) {
        return runs;
    }

    const auto get = [data](size_t i) {
        uint32_t word;
        memcpy(&word, (const uint8_t *) data + i*sizeof(word), sizeof(word));
        return word;
    };

    const size_t n_words = size/sizeof(uint32_t);
    const size_t n_max   = size/(2*sizeof(rpc_run));

    for (size_t i = 0; i < n_words; ) {
        if (runs.size() == n_max) {
            return {};
        }

        rpc_run run = { get(i), 0, 1 };
        if (i + 1 < n_words) {
            run.step = get(i + 1) - run.start;
        }
        while (i + run.count < n_words && run.count < UINT32_MAX && get(i + run.count) == run.start + run.step*run.count) {
            run.count++;
        }
        i += run.count;

        runs.push_back(run);
    }

    return runs;
}

// bytes of the data that the runs stand for
static uint64_t rpc_runs_size(const rpc_run * runs, size_t n_runs) {
    uint64_t n_words = 0;
    for (size_t i = 0; i < n_runs; ++i) {
        n_words += runs[i].count;
    }

    return n_words*sizeof(uint32_t);
}

static void rpc_write_runs(const rpc_run * runs, size_t n_runs, uint8_t * data) {
    for (size_t i = 0; i < n_runs; ++i) {
        for (uint32_t j = 0; j < runs[i].count; ++j, data += sizeof(uint32_t)) {
            const uint32_t word = runs[i].start + runs[i].step*j;
            memcpy(data, &word, sizeof(word));
        }
    }
}
