// The kernels of devices run on the host, one thread after the other: for tests, where there is no
// device. Not made for speed.

#pragma once

#include <string>
#include <unordered_map>

#include "device_table.h"

namespace scrimp::device {

using HostKernel = void (*)(const void* work, long thread);

#define SCRIMP_HOST(operation, Work, Element, Width)                       \
  {#operation "_" #Element "_" #Width, [](const void* work, long thread) { \
     operation<Element, Width>(*static_cast<const Work*>(work), thread);   \
   }},
inline const std::unordered_map<std::string, HostKernel> HOST_KERNELS{SCRIMP_KERNELS(SCRIMP_HOST)};
#undef SCRIMP_HOST

struct HostLauncher {
  static bool serve(const at::Tensor& x) { return x.is_cpu(); }
  static int64_t processors(const at::Tensor&) { return 1; }
  static void launch(const std::string& kernel, const void* work, int64_t threads,
                     const at::Tensor&) {
    const auto run = HOST_KERNELS.at(kernel);
    for (int64_t thread = 0; thread < threads; ++thread) run(work, thread);
  }
};

}  // namespace scrimp::device
