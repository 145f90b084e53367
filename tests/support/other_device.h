// see other_device.cpp
#pragma once

#include "ggml-backend-impl.h"
#include "ggml-backend.h"

#include <map>
#include <mutex>
#include <set>
#include <string>

struct other_device {
    std::string              name;
    ggml_backend_device      dev;
    ggml_backend_buffer_type buft;

    std::mutex               mutex;
    std::map<void *, size_t> memory;
    int                      n_at_work;
    std::set<std::string>    computed;

    // while there is one, guarded memory of the device can be read and written
    struct at_work {
        explicit at_work(other_device & device);
        ~at_work();

        at_work(const at_work &) = delete;

        other_device & device;
    };

    bool owns(const ggml_tensor * tensor);

    void * take(size_t size);
    void give_back(void * base);
    void note(const std::string & what);

private:
    void protect(int access);
};

// weights that are split by rows

ggml_backend_buffer_type_t other_rows_buft(int main_device, const float * tensor_split);

bool other_rows_is(ggml_backend_buffer_type_t buft);
bool other_rows_supports(const ggml_tensor * op);
bool other_rows_is_product(const ggml_tensor * node);

// on the device whose backend is given, and on the others for their rows
void other_rows_multiply(other_device & device, ggml_backend_t own, ggml_tensor * node);
