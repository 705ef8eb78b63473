// Devices of the fake runtime and what they say of themselves: each is an H100 with a place on the
// PCI bus of its own.

#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "model.h"

namespace {

constexpr int PROCESSORS = 132;
constexpr int SHARED_BYTES = 49152;
constexpr int SHARED_BYTES_AT_MOST = 232448;
constexpr int VERSION = 13000;

int devices() { return static_cast<int>(fake::setting("SCRIMP_FAKE_GPUS", 1)); }

// The place on the bus: with SCRIMP_FAKE_OWN_GPUS each rank of a node sees cards that no other sees.
int bus_of(int device) {
  const bool own = fake::setting("SCRIMP_FAKE_OWN_GPUS", 0) != 0;
  const long rank = own ? fake::setting("OMPI_COMM_WORLD_LOCAL_RANK", 0) : 0;
  return static_cast<int>(rank) * devices() + device + 1;
}

int value_of(cudaDeviceAttr attribute, int device) {
  switch (attribute) {
    case cudaDevAttrComputeCapabilityMajor: return 9;
    case cudaDevAttrMultiProcessorCount: return PROCESSORS;
    case cudaDevAttrMaxThreadsPerBlock: return 1024;
    case cudaDevAttrMaxSharedMemoryPerBlock: return SHARED_BYTES;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: return SHARED_BYTES_AT_MOST;
    case cudaDevAttrWarpSize: return 32;
    case cudaDevAttrMaxThreadsPerMultiProcessor: return 2048;
    case cudaDevAttrMemoryPoolsSupported: return 1;
    case cudaDevAttrPciBusId: return bus_of(device);
    default: return 0;
  }
}

}  // namespace

extern "C" {

cudaError_t cudaGetDeviceCount(int* count) {
  *count = devices();
  return *count > 0 ? cudaSuccess : cudaErrorNoDevice;
}

cudaError_t cudaGetDevice(int* device) {
  *device = fake::current_device;
  return cudaSuccess;
}

cudaError_t cudaSetDevice(int device) {
  if (device < 0 || device >= devices()) {
    fake::violate("GPU " + std::to_string(device) + " of " + std::to_string(devices()) + " is chosen");
    return cudaErrorInvalidDevice;
  }
  fake::current_device = device;
  return cudaSuccess;
}

cudaError_t cudaDeviceCanAccessPeer(int* can, int, int) {
  *can = 0;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  *value = value_of(attribute, device);
  return cudaSuccess;
}

cudaError_t cudaDeviceGetPCIBusId(char* out, int length, int device) {
  snprintf(out, static_cast<size_t>(length), "0000:%02x:00.0", bus_of(device));
  return cudaSuccess;
}

cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
  *least = 0;
  *greatest = -5;
  return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* out, int device) {
  memset(out, 0, sizeof *out);
  strcpy(out->name, "Fake H100");
  out->major = 9;
  out->pciBusID = bus_of(device);
  // Another one for each card, as the bus has it.
  out->uuid.bytes[0] = static_cast<char>(bus_of(device));
  out->multiProcessorCount = PROCESSORS;
  out->maxThreadsPerBlock = 1024;
  out->maxThreadsPerMultiProcessor = 2048;
  out->warpSize = 32;
  out->sharedMemPerBlock = SHARED_BYTES;
  out->sharedMemPerBlockOptin = SHARED_BYTES_AT_MOST;
  out->sharedMemPerMultiprocessor = 233472;
  out->regsPerBlock = 65536;
  out->regsPerMultiprocessor = 65536;
  out->totalGlobalMem = size_t{80} << 30;
  out->l2CacheSize = 50 << 20;
  out->maxGridSize[0] = 2147483647;
  out->maxGridSize[1] = out->maxGridSize[2] = 65535;
  out->maxThreadsDim[0] = out->maxThreadsDim[1] = 1024;
  out->maxThreadsDim[2] = 64;
  return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int* version) {
  *version = VERSION;
  return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = VERSION;
  return cudaSuccess;
}

// The fake driver is loaded with this library.
cudaError_t cudaGetDriverEntryPointByVersion(const char* name, void** function, unsigned,
                                             unsigned long long,
                                             cudaDriverEntryPointQueryResult* result) {
  static void* driver = dlopen("libcuda.so.1", RTLD_NOW);
  *function = driver == nullptr ? nullptr : dlsym(driver, name);
  const bool found = *function != nullptr;
  if (result != nullptr) {
    *result = found ? cudaDriverEntryPointSuccess : cudaDriverEntryPointSymbolNotFound;
  }
  return found ? cudaSuccess : cudaErrorInvalidValue;
}

const char* cudaGetErrorName(cudaError_t) { return "an error of the fake runtime"; }

const char* cudaGetErrorString(cudaError_t error) {
  thread_local char text[64];
  snprintf(text, sizeof text, "error %d of the fake CUDA", static_cast<int>(error));
  return text;
}

// Every call returns its own error; none is kept for later.
cudaError_t cudaGetLastError() { return cudaSuccess; }
cudaError_t cudaPeekAtLastError() { return cudaSuccess; }
}
