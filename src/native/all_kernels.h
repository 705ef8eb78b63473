// Every kernel for devices, whatever it computes: a new file of kernels is named here, and in nvrtc.rs.

#pragma once

#include "device_kernels.h"
#include "flat_kernels.h"
#include "propagation_kernels.h"
#include "spectral_kernels.h"

#define SCRIMP_ALL_KERNELS(KERNEL) \
  SCRIMP_KERNELS(KERNEL)           \
  SCRIMP_FLAT_KERNELS(KERNEL)      \
  SCRIMP_SPECTRAL_KERNELS(KERNEL)  \
  SCRIMP_PROPAGATION_KERNELS(KERNEL)
