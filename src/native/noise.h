// Standard normal numbers from the counter generator of random.rs, by Box and Muller: elements 2j
// and 2j + 1 of a sample are made from its random bits 2j and 2j + 1.

#pragma once

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <cmath>
#include <cstdint>

#include "kernels.h"

namespace scrimp {

// 24 of 32 random bits as a fraction in [0, 1), exact in single precision.
template <typename T>
inline T fraction(uint32_t bits) {
  return static_cast<T>(bits >> 8) * static_cast<T>(1.0 / 16777216.0);
}

constexpr double TWO_PI = 6.283185307179586;

// Fills `count` elements of each of `samples` samples.
template <typename T>
void fill_normal(const int64_t* keys, int64_t samples, int64_t count, T* out) {
  at::parallel_for(0, samples, 1, [&](int64_t begin, int64_t end) {
    for (int64_t sample = begin; sample < end; ++sample) {
      const auto key = static_cast<uint64_t>(keys[sample]);
      T* values = out + sample * count;
      for (int64_t e = 0; e < count; e += 2) {
        const auto index = static_cast<uint32_t>(e);
        // From the other end of [0, 1), so that the logarithm is finite.
        const T radius = std::sqrt(-2 * std::log(1 - fraction<T>(element_bits(key, index))));
        const T angle = static_cast<T>(TWO_PI) * fraction<T>(element_bits(key, index + 1));
        values[e] = radius * std::cos(angle);
        if (e + 1 < count) values[e + 1] = radius * std::sin(angle);
      }
    }
  });
}

}  // namespace scrimp
