// Loads the compiled kernels to GPUs, and starts them on torch's current stream.
// Knows no formulas and no compiler; part of libscrimp_cuda.so, which links nothing.
//
// Kernels are loaded before the first of them is asked for: loading allocates and waits, starting one
// does neither, so that it can be captured in a graph.

#include <ATen/ATen.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime_api.h>

#include <array>
#include <atomic>
#include <memory>
#include <string>
#include <unordered_map>

#include "all_kernels.h"
#include "device_table.h"
#include "guarded.h"
#include "kernel_launcher.h"
#include "kernel_table.h"

namespace {

using scrimp::device::MOST_GROUPS;
using scrimp::device::SUM_THREADS;
using scrimp::device::SumWork;

// The kernels of one device.
struct Loaded {
  int processors;
  // For kernels that sum, which leave them as they found them.
  unsigned* done;
  std::unordered_map<std::string, cudaKernel_t> kernels;
};

// By number of the device; never freed, because tensors may outlive everything else.
std::array<std::atomic<const Loaded*>, C10_COMPILE_TIME_MAX_GPUS> loaded_for{};

int attribute(cudaDeviceAttr which, int device) {
  int value = 0;
  C10_CUDA_CHECK(cudaDeviceGetAttribute(&value, which, device));
  return value;
}

const Loaded* load_for(int device, const void* code) {
  const c10::cuda::CUDAGuard guard(static_cast<c10::DeviceIndex>(device));
  cudaLibrary_t library = nullptr;
  C10_CUDA_CHECK(
      cudaLibraryLoadData(&library, code, nullptr, nullptr, 0, nullptr, nullptr, 0));
  auto result = std::make_unique<Loaded>();
  result->processors = attribute(cudaDevAttrMultiProcessorCount, device);
#define SCRIMP_FIND(operation, Work, Element, Width)                                        \
  {                                                                                         \
    const char* name = #operation "_" #Element "_" #Width;                                  \
    cudaFuncAttributes attributes;                                                          \
    C10_CUDA_CHECK(cudaLibraryGetKernel(&result->kernels[name], library, name));            \
    /* Asking brings the kernel to the device now and not when it is first captured. */     \
    C10_CUDA_CHECK(cudaFuncGetAttributes(&attributes, result->kernels[name]));              \
  }
  SCRIMP_ALL_KERNELS(SCRIMP_FIND)
#undef SCRIMP_FIND
  const size_t bytes = MOST_GROUPS * sizeof(unsigned);
  C10_CUDA_CHECK(cudaMalloc(reinterpret_cast<void**>(&result->done), bytes));
  C10_CUDA_CHECK(cudaMemset(result->done, 0, bytes));
  // Streams that do not wait for the default one see zeros too.
  C10_CUDA_CHECK(cudaDeviceSynchronize());
  return result.release();
}

const Loaded* loaded_beside(const at::Tensor& x) {
  return loaded_for.at(static_cast<size_t>(x.get_device())).load();
}

struct CudaLauncher {
  static bool serve(const at::Tensor& x) { return x.is_cuda() && loaded_beside(x) != nullptr; }
  static int64_t processors(const at::Tensor& x) { return loaded_beside(x)->processors; }
  static void launch(const std::string& kernel, const void* work, int64_t threads,
                     const at::Tensor& x) {
    const auto blocks = (threads + SCRIMP_BLOCK_THREADS - 1) / SCRIMP_BLOCK_THREADS;
    start(kernel, work, dim3(static_cast<unsigned>(blocks)), dim3(SCRIMP_BLOCK_THREADS), x);
  }
  static void launch_sum(const std::string& kernel, const SumWork& work, int64_t groups,
                         const at::Tensor& x) {
    const dim3 blocks(static_cast<unsigned>(work.blocks), static_cast<unsigned>(groups));
    start(kernel, &work, blocks, dim3(SUM_THREADS), x);
  }
  static at::Tensor scratch(int64_t count, const at::Tensor& x) {
    return at::empty({count}, scrimp::device::doubles_beside(x));
  }
  static unsigned* done(const at::Tensor& x) { return loaded_beside(x)->done; }

 private:
  static void start(const std::string& kernel, const void* work, dim3 blocks, dim3 threads,
                    const at::Tensor& x) {
    const c10::cuda::CUDAGuard guard(x.device());
    const auto stream = c10::cuda::getCurrentCUDAStream(x.get_device());
    void* arguments[] = {const_cast<void*>(work)};
    C10_CUDA_CHECK(cudaLaunchKernel(loaded_beside(x)->kernels.at(kernel), blocks, threads,
                                    arguments, 0, stream));
  }
};

const scrimp::KernelLauncher LAUNCHER{
    CudaLauncher::serve,
    [](const char* kernel, const void* work, int64_t threads, const at::Tensor& beside) {
      CudaLauncher::launch(kernel, work, threads, beside);
    }};

}  // namespace

extern "C" {

// What machine code for a device is for: 90 is sm_90.
char* scrimp_cuda_architecture(int* out, int device) {
  return scrimp::guarded([&] {
    *out = 10 * attribute(cudaDevAttrComputeCapabilityMajor, device) +
           attribute(cudaDevAttrComputeCapabilityMinor, device);
  });
}

// Brings the kernels to a device; `code` is a cubin for its architecture. Returns nullptr, or an error
// text that the caller frees with scrimp_free_text: then this device has none. Not to be called by two
// threads at once.
char* scrimp_cuda_load_kernels(int device, const void* code) {
  return scrimp::guarded(
      [&] { loaded_for.at(static_cast<size_t>(device)).store(load_for(device, code)); });
}

// For scrimp_use_kernel_launcher.
const void* scrimp_cuda_kernel_launcher() { return &LAUNCHER; }

// The table for scrimp_use_device_kernels. It serves tensors of the devices loaded for.
const void* scrimp_cuda_kernels() {
  return &scrimp::device::Table<CudaLauncher>::TABLE;
}
}
