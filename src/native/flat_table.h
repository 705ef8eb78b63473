// How flat tensors are worked on in the place where they are: by kernels that somebody starts, or by loops of
// the host. Plain enough to cross from one shared library to another of the same compiler.

#pragma once

#include <ATen/ATen.h>

#include <cstdint>

namespace scrimp {

// Starts kernels of flat_kernels.h beside tensors.
struct FlatLauncher {
  // Whether there are kernels where `flat` is.
  bool (*serve)(const at::Tensor& flat);
  // May return before the kernel has run; `work` is read before it returns.
  void (*launch)(const char* kernel, const void* work, int64_t threads, const at::Tensor& beside);
};

}  // namespace scrimp
