// Bodies of the functions that libtorch's CUDA half asks for and that nothing here defines: `build`
// writes a line with one of these for each of them.
//
// Their arguments are whatever the caller passes: of none more than the first is looked at, a pointer.

#pragma once

#include <atomic>
#include <string>

#include "between.h"
#include "handle.h"

// Enqueues something on the stream of its handle.
#define FAKE_LAUNCH(name) \
  extern "C" int name(void* handle) { return scrimp_fake_launch(#name, fake::stream_of_handle(handle)); }

// Makes an object that nobody looks into.
#define FAKE_CREATE(name)                 \
  extern "C" int name(void** out) {       \
    static std::atomic<int> made{0};      \
    static char objects[1 << 16];         \
    *out = objects + made++ % 1000 * 64;  \
    return 0;                             \
  }

// Sets or frees something that is not there.
#define FAKE_NOTHING(name) \
  extern "C" int name() { return 0; }

// Is not modelled, so that no test may rely on it; `refusal` is the library's error.
#define FAKE_REFUSE(name, refusal)                                \
  extern "C" int name() {                                         \
    scrimp_fake_violate("`" #name "` is called, of which the fake GPU knows nothing"); \
    return refusal;                                               \
  }
