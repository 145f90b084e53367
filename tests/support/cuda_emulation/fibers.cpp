#if defined(__APPLE__)
#define _XOPEN_SOURCE 600
#define _DARWIN_C_SOURCE
#endif

#include "fibers.h"

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <sys/mman.h>
#include <unistd.h>

#if defined(__x86_64__) && defined(__linux__)
#define FIBERS_BY_HAND
#else
#include <ucontext.h>
#endif

#if defined(__SANITIZE_ADDRESS__)
#define FIBERS_ASAN
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define FIBERS_ASAN
#endif
#endif

#ifdef FIBERS_ASAN
#include <sanitizer/common_interface_defs.h>
#endif

namespace cuda_emulation {

static constexpr size_t STACK_SIZE = 512*1024; // pages that are never touched cost nothing

struct fiber {
    void (*body)();
    char * stack;
#ifdef FIBERS_BY_HAND
    void * sp;
#else
    ucontext_t context;
#endif
    void * fake_stack = nullptr; // ASan's
};

static fiber * current = nullptr;

// ASan has to know the bounds of the stack that is switched to
static const void * home_stack      = nullptr;
static size_t       home_stack_size = 0;
static void       * home_fake_stack = nullptr;

static void before_enter(const fiber * f) {
#ifdef FIBERS_ASAN
    __sanitizer_start_switch_fiber(&home_fake_stack, f->stack, STACK_SIZE);
#endif
    (void) f;
}

static void after_enter() {
#ifdef FIBERS_ASAN
    __sanitizer_finish_switch_fiber(current->fake_stack, &home_stack, &home_stack_size);
#endif
}

static void before_leave() {
#ifdef FIBERS_ASAN
    __sanitizer_start_switch_fiber(&current->fake_stack, home_stack, home_stack_size);
#endif
}

static void after_leave() {
#ifdef FIBERS_ASAN
    __sanitizer_finish_switch_fiber(home_fake_stack, nullptr, nullptr);
#endif
}

static void start() {
    after_enter();
    current->body();
    abort();
}

#ifdef FIBERS_BY_HAND

static void * home_sp = nullptr;

// What the ABI has a function keep, on the stack that is left. swapcontext() would ask the kernel for the signal mask.
extern "C" void cuda_emulation_switch(void ** from, void * to);
asm(R"(
    .text
    .p2align 4
    .local cuda_emulation_switch
    .type cuda_emulation_switch, @function
cuda_emulation_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
    .size cuda_emulation_switch, .-cuda_emulation_switch
)");

static void prepare(fiber * f) {
    void ** top = (void **) (f->stack + STACK_SIZE);
    *--top = nullptr;        // start() does not return
    *--top = (void *) start; // what the switch returns to
    for (int i = 0; i < 6; ++i) {
        *--top = nullptr;
    }
    f->sp = top;
}

static void to_fiber(fiber * f)   { cuda_emulation_switch(&home_sp, f->sp); }
static void from_fiber(fiber * f) { cuda_emulation_switch(&f->sp, home_sp); }

#else

static ucontext_t home;

static void prepare(fiber * f) {
    getcontext(&f->context);
    f->context.uc_stack.ss_sp   = f->stack;
    f->context.uc_stack.ss_size = STACK_SIZE;
    f->context.uc_link          = nullptr;
    makecontext(&f->context, start, 0);
}

static void to_fiber(fiber * f)   { swapcontext(&home, &f->context); }
static void from_fiber(fiber * f) { swapcontext(&f->context, &home); }

#endif // FIBERS_BY_HAND

fiber * fiber_create(void (*body)()) {
    const size_t page = (size_t) sysconf(_SC_PAGESIZE);

    // below the stack is a page that ends a stack that is too small, by a fault
    char * p = (char *) mmap(nullptr, STACK_SIZE + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANON, -1, 0);
    if (p == MAP_FAILED || mprotect(p, page, PROT_NONE) != 0) {
        fprintf(stderr, "cuda emulation: no memory for a stack\n");
        abort();
    }

    fiber * f = new fiber();
    f->body   = body;
    f->stack  = p + page;
    prepare(f);
    return f;
}

void fiber_enter(fiber * f) {
    current = f;
    before_enter(f);
    to_fiber(f);
    after_leave();
    current = nullptr;
}

void fiber_leave() {
    fiber * f = current;
    before_leave();
    from_fiber(f);
    after_enter();
}

}
