// The driver, as libcuda.so.1: what libtorch and NVRTC's stub ask of it at their start. The rest is
// there to be linked and refuses.

#include <cstring>

namespace {

constexpr int SUCCESS = 0;
constexpr int NOT_FOUND = 500;

// One context for all devices, which nobody looks into.
int context;

}  // namespace

extern "C" {

int cuInit(unsigned) { return SUCCESS; }

int cuDriverGetVersion(int* version) {
  *version = 13000;
  return SUCCESS;
}

int cuDeviceGet(int* device, int number) {
  *device = number;
  return SUCCESS;
}

int cuDeviceGetAttribute(int* value, int, int) {
  *value = 0;
  return SUCCESS;
}

int cuDevicePrimaryCtxGetState(int, unsigned* flags, int* active) {
  *flags = 0;
  *active = 1;
  return SUCCESS;
}

int cuDevicePrimaryCtxRetain(void** out, int) {
  *out = &context;
  return SUCCESS;
}

int cuCtxGetCurrent(void** out) {
  *out = &context;
  return SUCCESS;
}

int cuCtxSetCurrent(void*) { return SUCCESS; }

int cuGetErrorString(int, const char** text) {
  *text = "an error of the fake driver";
  return SUCCESS;
}

int cuGetExportTable(const void** table, const void*) {
  *table = nullptr;
  return NOT_FOUND;
}
}
