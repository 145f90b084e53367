#pragma once

// Where this library lies. The processor's variants, which are libraries of their own in a portable
// build, lie beside it, whichever program loaded it: Python, a frozen app, llama-server. Links are
// followed: frozen apps load libraries through some.

#include <filesystem>
#include <system_error>

#ifdef _WIN32
#    define WIN32_LEAN_AND_MEAN
#    ifndef NOMINMAX
#        define NOMINMAX
#    endif
#    include <windows.h>
#    include <vector>
#else
#    include <dlfcn.h>
#endif

// `inside` is the address of any function of the library; an empty path where the system does not
// say.
static inline std::filesystem::path ggml_lampe_library_folder(const void * inside) {
#ifdef _WIN32
    HMODULE module = nullptr;
    const DWORD how = GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS | GET_MODULE_HANDLE_EX_FLAG_UNCHANGED_REFCOUNT;
    if (!GetModuleHandleExW(how, (LPCWSTR) inside, &module)) {
        return {};
    }
    for (std::vector<wchar_t> name(MAX_PATH);; name.resize(2 * name.size())) {
        const DWORD length = GetModuleFileNameW(module, name.data(), (DWORD) name.size());
        if (length == 0) {
            return {};
        }
        if (length < name.size()) {
            return std::filesystem::path(name.data(), name.data() + length).parent_path();
        }
    }
#else
    Dl_info info;
    if (dladdr(inside, &info) == 0 || info.dli_fname == nullptr) {
        return {};
    }
    std::error_code failed;
    const auto real = std::filesystem::canonical(info.dli_fname, failed);
    return (failed ? std::filesystem::path(info.dli_fname) : real).parent_path();
#endif
}
