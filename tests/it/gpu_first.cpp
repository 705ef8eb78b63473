// Loads libtorch's CUDA half into the test binary before any test computes: see `native::cuda::devices`.
//
// Where there is none, nothing happens. The test of that very rule asks to be left alone.

#include <dlfcn.h>

#include <cstdlib>

namespace {

__attribute__((constructor)) void load_cuda_first() {
  if (getenv("SCRIMP_TEST_COMPUTES_FIRST") == nullptr) {
    dlopen("libtorch_cuda.so", RTLD_NOW | RTLD_GLOBAL);
  }
}

}  // namespace
