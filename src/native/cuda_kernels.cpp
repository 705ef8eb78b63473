// Compiles device_kernels.h for GPUs when the program runs, and starts its kernels on torch's current
// stream. Knows no formulas; part of libscrimp_cuda.so, which links nothing.
//
// Kernels are compiled before the first of them is asked for: compiling allocates and waits, starting
// one does neither, so that it can be captured in a graph.

#include <ATen/ATen.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime_api.h>
#include <dlfcn.h>

#include <array>
#include <atomic>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <vector>

#include "device_kernels.h"
#include "device_table.h"
#include "flat_kernels.h"
#include "flat_table.h"
#include "guarded.h"
#include "kernel_table.h"

namespace {

// What is used of NVRTC, whose header not every installation has: results are 0 or an error.
using NvrtcProgram = struct NvrtcProgramContents*;
struct Nvrtc {
  int (*create)(NvrtcProgram*, const char* source, const char* name, int, const char* const*,
                const char* const*);
  int (*compile)(NvrtcProgram, int options, const char* const*);
  int (*log_size)(NvrtcProgram, size_t*);
  int (*log)(NvrtcProgram, char*);
  int (*cubin_size)(NvrtcProgram, size_t*);
  int (*cubin)(NvrtcProgram, char*);
  int (*destroy)(NvrtcProgram*);
  int (*version)(int* major, int* minor);
  const char* (*error_text)(int);

  void check(int result) const {
    if (result != 0) throw std::runtime_error(error_text(result));
  }
};

std::string folder_of(void* address) {
  Dl_info info;
  if (dladdr(address, &info) == 0) throw std::runtime_error(dlerror());
  const std::string path = info.dli_fname;
  return path.substr(0, path.rfind('/') + 1);
}

template <typename Function>
void find(void* library, const char* name, Function& function) {
  function = reinterpret_cast<Function>(dlsym(library, name));
  if (function == nullptr) throw std::runtime_error(std::string("NVRTC has no ") + name);
}

// NVRTC as libtorch finds it: through a library beside libtorch that depends on it.
Nvrtc load_nvrtc() {
  using CurrentStream = c10::cuda::CUDAStream (*)(c10::DeviceIndex);
  const CurrentStream of_torch = c10::cuda::getCurrentCUDAStream;
  const auto path = folder_of(reinterpret_cast<void*>(of_torch)) + "libcaffe2_nvrtc.so";
  void* library = dlopen(path.c_str(), RTLD_NOW);
  if (library == nullptr) throw std::runtime_error(dlerror());
  Nvrtc nvrtc;
  find(library, "nvrtcCreateProgram", nvrtc.create);
  find(library, "nvrtcCompileProgram", nvrtc.compile);
  find(library, "nvrtcGetProgramLogSize", nvrtc.log_size);
  find(library, "nvrtcGetProgramLog", nvrtc.log);
  find(library, "nvrtcGetCUBINSize", nvrtc.cubin_size);
  find(library, "nvrtcGetCUBIN", nvrtc.cubin);
  find(library, "nvrtcDestroyProgram", nvrtc.destroy);
  find(library, "nvrtcVersion", nvrtc.version);
  find(library, "nvrtcGetErrorString", nvrtc.error_text);
  // NVRTC asks for this library by its name alone, which depends on who loaded NVRTC first.
  int major = 0, minor = 0;
  nvrtc.check(nvrtc.version(&major, &minor));
  const auto builtins = folder_of(reinterpret_cast<void*>(nvrtc.create)) + "libnvrtc-builtins.so." +
                        std::to_string(major) + "." + std::to_string(minor);
  dlopen(builtins.c_str(), RTLD_NOW);
  return nvrtc;
}

// Machine code for an architecture, as "sm_90"; the compiler's log where there is none.
std::vector<char> compile(const Nvrtc& nvrtc, const char* source, const std::string& architecture) {
  NvrtcProgram program = nullptr;
  nvrtc.check(nvrtc.create(&program, source, "device_kernels.h", 0, nullptr, nullptr));
  const auto target = "--gpu-architecture=" + architecture;
  const std::array<const char*, 2> options{target.c_str(), "--std=c++17"};
  const int result = nvrtc.compile(program, options.size(), options.data());
  size_t size = 0;
  std::vector<char> code;
  std::string log;
  if (result == 0 && nvrtc.cubin_size(program, &size) == 0) {
    code.resize(size);
    nvrtc.check(nvrtc.cubin(program, code.data()));
  } else if (nvrtc.log_size(program, &size) == 0) {
    log.resize(size);
    nvrtc.log(program, log.data());
  }
  nvrtc.destroy(&program);
  if (code.empty()) {
    throw std::runtime_error(std::string(nvrtc.error_text(result)) + "\n" + log.c_str());
  }
  return code;
}

// The kernels of one device.
struct Compiled {
  int processors;
  std::unordered_map<std::string, cudaKernel_t> kernels;
};

// By number of the device; never freed, because tensors may outlive everything else.
std::array<std::atomic<const Compiled*>, C10_COMPILE_TIME_MAX_GPUS> compiled_for{};

int attribute(cudaDeviceAttr which, int device) {
  int value = 0;
  C10_CUDA_CHECK(cudaDeviceGetAttribute(&value, which, device));
  return value;
}

const Compiled* compile_for(int device, const char* source) {
  const c10::cuda::CUDAGuard guard(static_cast<c10::DeviceIndex>(device));
  const auto architecture =
      "sm_" + std::to_string(attribute(cudaDevAttrComputeCapabilityMajor, device)) +
      std::to_string(attribute(cudaDevAttrComputeCapabilityMinor, device));
  const auto code = compile(load_nvrtc(), source, architecture);
  cudaLibrary_t library = nullptr;
  C10_CUDA_CHECK(
      cudaLibraryLoadData(&library, code.data(), nullptr, nullptr, 0, nullptr, nullptr, 0));
  auto result = std::make_unique<Compiled>();
  result->processors = attribute(cudaDevAttrMultiProcessorCount, device);
#define SCRIMP_FIND(operation, Work, Element, Width)                                        \
  {                                                                                         \
    const char* name = #operation "_" #Element "_" #Width;                                  \
    cudaFuncAttributes attributes;                                                          \
    C10_CUDA_CHECK(cudaLibraryGetKernel(&result->kernels[name], library, name));            \
    /* Asking brings the kernel to the device now and not when it is first captured. */     \
    C10_CUDA_CHECK(cudaFuncGetAttributes(&attributes, result->kernels[name]));              \
  }
  SCRIMP_KERNELS(SCRIMP_FIND)
  SCRIMP_FLAT_KERNELS(SCRIMP_FIND)
#undef SCRIMP_FIND
  return result.release();
}

const Compiled* compiled_beside(const at::Tensor& x) {
  return compiled_for.at(static_cast<size_t>(x.get_device())).load();
}

struct CudaLauncher {
  static bool serve(const at::Tensor& x) { return x.is_cuda() && compiled_beside(x) != nullptr; }
  static int64_t processors(const at::Tensor& x) { return compiled_beside(x)->processors; }
  static void launch(const std::string& kernel, const void* work, int64_t threads,
                     const at::Tensor& x) {
    const c10::cuda::CUDAGuard guard(x.device());
    const auto stream = c10::cuda::getCurrentCUDAStream(x.get_device());
    const auto blocks = (threads + SCRIMP_BLOCK_THREADS - 1) / SCRIMP_BLOCK_THREADS;
    void* arguments[] = {const_cast<void*>(work)};
    C10_CUDA_CHECK(cudaLaunchKernel(compiled_beside(x)->kernels.at(kernel),
                                    dim3(static_cast<unsigned>(blocks)), dim3(SCRIMP_BLOCK_THREADS),
                                    arguments, 0, stream));
  }
};

const scrimp::FlatLauncher FLAT_LAUNCHER{
    CudaLauncher::serve,
    [](const char* kernel, const void* work, int64_t threads, const at::Tensor& beside) {
      CudaLauncher::launch(kernel, work, threads, beside);
    }};

}  // namespace

extern "C" {

// Compiles the kernels for a device; `source` is the text of device_kernels.h and flat_kernels.h. Returns nullptr, or an
// error text that the caller frees with scrimp_free_text: then this device has none.
char* scrimp_cuda_compile_kernels(int device, const char* source) {
  static std::mutex one_at_a_time;
  const std::lock_guard<std::mutex> lock(one_at_a_time);
  return scrimp::guarded([&] {
    auto& compiled = compiled_for.at(static_cast<size_t>(device));
    if (compiled.load() == nullptr) compiled.store(compile_for(device, source));
  });
}

// For scrimp_use_flat_kernels.
const void* scrimp_cuda_flat_kernels() { return &FLAT_LAUNCHER; }

// The table for scrimp_use_device_kernels. It serves tensors of the devices compiled for.
const void* scrimp_cuda_kernels() {
  return &scrimp::device::Table<CudaLauncher>::TABLE;
}
}
