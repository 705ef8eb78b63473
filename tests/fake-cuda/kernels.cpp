// Kernels of the fake runtime: they are known by name, counted and checked, and never run.

#include <cxxabi.h>

#include <cstdlib>
#include <cstring>
#include <unordered_map>

#include "model.h"

using fake::Kind;
using fake::Lock;

namespace {

struct Kernel {
  std::string name;
  Kind kind;
};

// Those of libtorch by the address of their host function, as the compiler names them; there are
// thousands, of which few are ever launched.
std::unordered_map<const void*, const char*>& registered() {
  static auto* all = new std::unordered_map<const void*, const char*>;
  return *all;
}

// Those that were launched or looked up by name.
std::unordered_map<const void*, Kernel>& known() {
  static auto* all = new std::unordered_map<const void*, Kernel>;
  return *all;
}

void remove_all(std::string& text, const std::string& what) {
  for (auto at = text.find(what); at != std::string::npos; at = text.find(what)) {
    text.erase(at, what.size());
  }
}

// As a person wants to read it.
std::string readable(const char* mangled) {
  constexpr size_t LONGEST = 160;
  int status = 0;
  char* demangled = abi::__cxa_demangle(mangled, nullptr, nullptr, &status);
  std::string name = demangled == nullptr ? mangled : demangled;
  free(demangled);
  for (const char* noise : {"at::native::", "(anonymous namespace)::", "void ", "c10::"}) {
    remove_all(name, noise);
  }
  return name.substr(0, LONGEST);
}

const Kernel& kernel_of(const void* function) {
  const auto found = known().find(function);
  if (found != known().end()) return found->second;
  const auto name = registered().find(function);
  const auto text = name == registered().end() ? "?" : readable(name->second);
  return known().emplace(function, Kernel{text, Kind::Kernel}).first->second;
}

struct Shape {
  dim3 grid, block;
  size_t shared_bytes;
};

bool is_legal(const Shape& shape) {
  const auto& [grid, block, shared_bytes] = shape;
  const bool some = grid.x > 0 && grid.y > 0 && grid.z > 0 && block.x > 0 && block.y > 0 && block.z > 0;
  return some && grid.x <= 2147483647 && grid.y <= 65535 && grid.z <= 65535 && block.z <= 64 &&
         size_t{block.x} * block.y * block.z <= 1024 && shared_bytes <= 232448;
}

std::string told(dim3 size) {
  return std::to_string(size.x) + " x " + std::to_string(size.y) + " x " + std::to_string(size.z);
}

cudaError_t launch(const void* function, const Shape& shape, cudaStream_t stream) {
  const Lock lock;
  const auto& kernel = kernel_of(function);
  if (!is_legal(shape)) {
    fake::violate("`" + kernel.name + "` is launched with " + told(shape.grid) + " blocks of " +
                  told(shape.block) + " threads and " + std::to_string(shape.shared_bytes) +
                  " bytes of shared memory");
    return cudaErrorInvalidConfiguration;
  }
  const bool taken = fake::enqueue(fake::stream_of(stream), kernel.kind, kernel.name);
  return taken ? cudaSuccess : cudaErrorInvalidResourceHandle;
}

// What `<<<...>>>` hands to the function that it calls.
thread_local Shape pushed;
thread_local void* pushed_stream;

}  // namespace

extern "C" {

void** __cudaRegisterFatBinary(void*) {
  static void* handle[1];
  return handle;
}
void __cudaRegisterFatBinaryEnd(void**) {}
void __cudaUnregisterFatBinary(void**) {}
void __cudaRegisterVar(void**, char*, char*, const char*, int, size_t, int, int) {}

void __cudaRegisterFunction(void**, const char* function, char*, const char* name, int, void*, void*,
                            void*, void*, int*) {
  const Lock lock;
  registered()[function] = name;
}

unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared_bytes, void* stream) {
  pushed = {grid, block, shared_bytes};
  pushed_stream = stream;
  return 0;
}

cudaError_t __cudaPopCallConfiguration(dim3* grid, dim3* block, size_t* shared_bytes, void* stream) {
  *grid = pushed.grid;
  *block = pushed.block;
  *shared_bytes = pushed.shared_bytes;
  *static_cast<void**>(stream) = pushed_stream;
  return cudaSuccess;
}

cudaError_t __cudaGetKernel(cudaKernel_t* kernel, const void* function) {
  *kernel = static_cast<cudaKernel_t>(const_cast<void*>(function));
  return cudaSuccess;
}

cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block, void**,
                               size_t shared_bytes, cudaStream_t stream) {
  return launch(kernel, {grid, block, shared_bytes}, stream);
}

cudaError_t cudaLaunchKernel(const void* kernel, dim3 grid, dim3 block, void**, size_t shared_bytes,
                             cudaStream_t stream) {
  return launch(kernel, {grid, block, shared_bytes}, stream);
}

cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t* how, const void* kernel, void**) {
  return launch(kernel, {how->gridDim, how->blockDim, how->dynamicSmemBytes}, how->stream);
}

cudaError_t cudaLibraryLoadData(cudaLibrary_t* library, const void*, cudaJitOption*, void**, unsigned,
                                cudaLibraryOption*, void**, unsigned) {
  static int loaded;
  *library = reinterpret_cast<cudaLibrary_t>(&loaded);
  return cudaSuccess;
}

// Any name is found: whether a compiled kernel is there, another test says.
cudaError_t cudaLibraryGetKernel(cudaKernel_t* kernel, cudaLibrary_t, const char* name) {
  const Lock lock;
  char* own = strdup(name);
  known()[own] = {name, Kind::OwnKernel};
  *kernel = reinterpret_cast<cudaKernel_t>(own);
  return cudaSuccess;
}

cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* out, const void*) {
  memset(out, 0, sizeof *out);
  out->maxThreadsPerBlock = 1024;
  out->numRegs = 32;
  out->binaryVersion = out->ptxVersion = 90;
  return cudaSuccess;
}

cudaError_t cudaFuncSetAttribute(const void*, cudaFuncAttribute, int) { return cudaSuccess; }

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* blocks, const void*, int,
                                                                   size_t, unsigned) {
  *blocks = 2;
  return cudaSuccess;
}

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, const void*, int, size_t) {
  *blocks = 2;
  return cudaSuccess;
}
}
