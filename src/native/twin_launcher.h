// Starts the kernels of devices on the host, for the table of device_table.h.

#pragma once

#include <ATen/ATen.h>

#include <algorithm>
#include <array>
#include <limits>
#include <string>

#include "device_twin.h"

namespace scrimp::device {

struct HostLauncher {
  static bool serve(const at::Tensor& x) { return x.is_cpu(); }
  static int64_t processors(const at::Tensor&) { return arrangement.processors; }
  static void launch(const std::string& kernel, const void* work, int64_t threads,
                     const at::Tensor&) {
    run(kernel, work, threads);
  }
  static void launch_sum(const std::string& kernel, const SumWork& work, int64_t groups,
                         const at::Tensor&) {
    run_sum(kernel, work, groups);
    const auto is_busy = [](unsigned blocks) { return blocks != 0; };
    TORCH_CHECK(std::none_of(work.done, work.done + MOST_GROUPS, is_busy),
                "`", kernel, "` left counters behind that the next kernel begins with");
  }
  // What is read before it is written shall not be a number.
  static at::Tensor scratch(int64_t count, const at::Tensor&) {
    return at::full({count}, std::numeric_limits<double>::quiet_NaN(), at::kDouble);
  }
  static unsigned* done(const at::Tensor&) {
    static thread_local std::array<unsigned, MOST_GROUPS> counters{};
    return counters.data();
  }
};

}  // namespace scrimp::device
