// The C ABI of src/native/{cuda,nvrtc}.rs over all kernels: their names, and who starts them. Knows no formulas.

#include "kernel_launcher.h"

#include "all_kernels.h"

extern "C" {

// From now on `Own` is kernels where they serve; null: it is not. The launcher outlives the last tensor.
void scrimp_use_kernel_launcher(const scrimp::KernelLauncher* launcher) {
  scrimp::device_launcher.store(launcher);
}

#define SCRIMP_NAME_LINE(operation, Work, Element, Width) #operation "_" #Element "_" #Width "\n"
// The names of all kernels, one on a line.
const char* scrimp_kernel_names() { return SCRIMP_ALL_KERNELS(SCRIMP_NAME_LINE); }
}
