// Stacks to run device threads on, and the switch from one to another.
#pragma once

namespace cuda_emulation {
    struct fiber;

    // body runs on a stack of its own from the first switch on, and never returns
    fiber * fiber_create(void (*body)());

    // from the thread that came in to a fiber, and back; body itself is entered so
    void fiber_enter(fiber * f);
    void fiber_leave();
}
