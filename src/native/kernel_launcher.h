// How kernels are found by name and started: on a GPU by libscrimp_cuda.so, for tests by the host, one thread
// after the other. Plain enough to cross from one shared library to another of the same compiler; knows no
// kernels.

#pragma once

#include <ATen/ATen.h>

#include <atomic>
#include <cstdint>
#include <string>
#include <unordered_map>

namespace scrimp {

// How to compute; mirrored by `native::Form` in Rust.
enum class Form : int32_t { Own = 0, Plain = 1, DeviceTwin = 2 };

struct KernelLauncher {
  // Whether there are kernels where `beside` is.
  bool (*serve)(const at::Tensor& beside);
  // May return before the kernel has run; `work` is read before it returns.
  void (*launch)(const char* kernel, const void* work, int64_t threads, const at::Tensor& beside);
};

// That of GPUs; null: there is none.
inline std::atomic<const KernelLauncher*> device_launcher{nullptr};

// Who starts kernels beside a tensor; null where tensor operations do the work.
inline const KernelLauncher* launcher_for(const at::Tensor& beside, Form form,
                                          const KernelLauncher& twin) {
  if (form == Form::DeviceTwin) return &twin;
  const auto* device = device_launcher.load();
  return form == Form::Own && device != nullptr && device->serve(beside) ? device : nullptr;
}

using HostKernel = void (*)(const void* work, long thread);

}  // namespace scrimp

#define SCRIMP_HOST_KERNEL(operation, Work, Element, Width)                \
  {#operation "_" #Element "_" #Width, [](const void* work, long thread) { \
     operation<Element, Width>(*static_cast<const Work*>(work), thread);   \
   }},

// Defines the launcher `NAME` of the host for a list of kernels.
#define SCRIMP_TWIN(NAME, KERNELS)                                                              \
  const scrimp::KernelLauncher NAME{                                                            \
      [](const at::Tensor& beside) { return beside.is_cpu(); },                                 \
      [](const char* kernel, const void* work, int64_t threads, const at::Tensor&) {            \
        static const std::unordered_map<std::string, scrimp::HostKernel> HOST_KERNELS{          \
            KERNELS(SCRIMP_HOST_KERNEL)};                                                       \
        const auto run = HOST_KERNELS.at(kernel);                                               \
        for (long thread = 0; thread < threads; ++thread) run(work, thread);                    \
      }};
