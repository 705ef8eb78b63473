// Standard normal numbers in CPU memory from the counter generator of random.rs: elements 2j and 2j + 1
// of a sample are made from its random bits 2j and 2j + 1. The formula stands in device_kernels.h.

#pragma once

#include <ATen/ATen.h>
#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>

#include <cstdint>

#include "device_kernels.h"
#include "kernel_table.h"

namespace scrimp::host {

// Fills `count` elements of each of `samples` samples.
template <typename T>
void fill_normal(const int64_t* keys, int64_t samples, int64_t count, T* out) {
  at::parallel_for(0, samples, 1, [&](int64_t begin, int64_t end) {
    for (int64_t sample = begin; sample < end; ++sample) {
      const auto key = static_cast<uint64_t>(keys[sample]);
      T* values = out + sample * count;
      for (int64_t e = 0; e < count; e += 2) {
        T pair[2];
        device::normal_pair(key, static_cast<uint32_t>(e), pair);
        values[e] = pair[0];
        if (e + 1 < count) values[e + 1] = pair[1];
      }
    }
  });
}

inline at::Tensor normal(const at::Tensor& keys, const at::Tensor& like) {
  const auto shape = shape_of_normal(keys, like);
  auto values = at::empty(shape, like.options().dtype(computed_in(like.scalar_type())));
  const auto count = c10::multiply_integers(shape.begin() + 1, shape.end());
  AT_DISPATCH_FLOATING_TYPES(values.scalar_type(), "normal", [&] {
    fill_normal(keys.const_data_ptr<int64_t>(), shape[0], count,
                values.mutable_data_ptr<scalar_t>());
  });
  return values.to(like.scalar_type());
}

}  // namespace scrimp::host
