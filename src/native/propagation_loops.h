// CPU loops over features that spread between neighbouring pixels, by the formulas of propagation_kernels.h.
//
// Loops run along the channels of a pixel. Each row of an image is computed by one thread and in one order: results do
// not depend on the number of threads.

#pragma once

#include <ATen/Parallel.h>

#include <algorithm>
#include <array>
#include <cstdint>

#include "clones.h"
#include "exponential.h"
#include "propagation_kernels.h"

namespace scrimp::propagation_loops {

using device::LAST;
using device::NEIGHBOURS;
using device::PropagationWork;

// Sums of products that are added up beside each other.
constexpr int64_t LANES = 16;

// The neighbours of a pixel as numbers of pixels, -1 outside.
using Around = std::array<int64_t, NEIGHBOURS>;

SCRIMP_INTO_CLONES void look_around(const PropagationWork& work, int64_t pixel, Around& around) {
  for (int n = 0; n < NEIGHBOURS; ++n) around[n] = device::neighbour_at(work, pixel, n);
}

template <typename T>
SCRIMP_INTO_CLONES T product(const T* __restrict own, const T* __restrict theirs, int64_t channels) {
  T sums[LANES] = {};
  int64_t c = 0;
  for (; c + LANES <= channels; c += LANES) {
    for (int64_t lane = 0; lane < LANES; ++lane) sums[lane] += own[c + lane] * theirs[c + lane];
  }
  T rest = 0;
  for (; c < channels; ++c) rest += own[c] * theirs[c];
  for (int64_t half = LANES / 2; half > 0; half /= 2) {
    for (int64_t lane = 0; lane < half; ++lane) sums[lane] += sums[lane + half];
  }
  return sums[0] + rest;
}

template <typename T>
SCRIMP_INTO_CLONES void products_of(const PropagationWork& work, int64_t pixel, const Around& around,
                                    T* products) {
  const T* own = static_cast<const T*>(work.compared) + pixel * work.channels;
  const T* features = static_cast<const T*>(work.features);
  for (int n = 0; n < NEIGHBOURS; ++n) {
    const int64_t other = around[n];
    products[n] = other < 0 ? T(0) : product(own, features + other * work.channels, work.channels);
  }
}

template <typename T>
SCRIMP_INTO_CLONES void weights_of(const T* __restrict products, T* __restrict weights) {
  T largest = 0, sum = 0;
  for (int n = 0; n < NEIGHBOURS; ++n) largest = products[n] > largest ? products[n] : largest;
  for (int n = 0; n < NEIGHBOURS; ++n) {
    weights[n] = exp_of_negative((products[n] < T(0) ? T(0) : products[n]) - largest);
  }
  for (int n = 0; n < NEIGHBOURS; ++n) sum += weights[n];
  const T share = T(1) / sum;
  for (int n = 0; n < NEIGHBOURS; ++n) {
    weights[n] = products[n] > T(0) ? weights[n] * share : -weights[n] * share;
  }
}

// The pixels from `first` on, as many as a row has.
template <typename T>
SCRIMP_INTO_CLONES void spread_row(const PropagationWork& work, int64_t first) {
  const int64_t channels = work.channels;
  Around around;
  T products[NEIGHBOURS];
  for (int64_t pixel = first; pixel < first + work.width; ++pixel) {
    look_around(work, pixel, around);
    products_of(work, pixel, around, products);
    T* weights = static_cast<T*>(work.weights) + pixel * NEIGHBOURS;
    weights_of(products, weights);
    T* __restrict out = static_cast<T*>(work.out) + pixel * channels;
    std::fill(out, out + channels, T(0));
    for (int n = 0; n < NEIGHBOURS; ++n) {
      if (around[n] < 0) continue;
      const T weight = device::magnitude(weights[n]);
      const T* __restrict theirs = static_cast<const T*>(work.features) + around[n] * channels;
      for (int64_t c = 0; c < channels; ++c) out[c] += weight * theirs[c];
    }
  }
}

template <typename T>
SCRIMP_INTO_CLONES void slopes_row(const PropagationWork& work, int64_t first) {
  Around around;
  for (int64_t pixel = first; pixel < first + work.width; ++pixel) {
    look_around(work, pixel, around);
    products_of(work, pixel, around, static_cast<T*>(work.products) + pixel * NEIGHBOURS);
    device::propagation_slopes<T, 1>(work, pixel);
  }
}

template <typename T>
SCRIMP_INTO_CLONES void pull_row(const PropagationWork& work, int64_t first) {
  const int64_t channels = work.channels;
  const T *weights = static_cast<const T*>(work.weights), *slopes = static_cast<const T*>(work.products);
  Around around;
  for (int64_t pixel = first; pixel < first + work.width; ++pixel) {
    look_around(work, pixel, around);
    T* __restrict out = static_cast<T*>(work.out) + pixel * channels;
    std::fill(out, out + channels, T(0));
    for (int n = 0; n < NEIGHBOURS; ++n) {
      if (around[n] < 0) continue;
      const int64_t back = around[n] * NEIGHBOURS + LAST - n;
      const T slope = slopes[pixel * NEIGHBOURS + n] + slopes[back];
      const T weight = device::magnitude(weights[back]);
      const T* __restrict theirs = static_cast<const T*>(work.features) + around[n] * channels;
      const T* __restrict gradient = static_cast<const T*>(work.gradient) + around[n] * channels;
      for (int64_t c = 0; c < channels; ++c) out[c] += slope * theirs[c] + weight * gradient[c];
    }
  }
}

#define SCRIMP_PROPAGATION_ROWS(T)                                                 \
  SCRIMP_CLONES inline void spread(const PropagationWork& work, int64_t first, T) { \
    spread_row<T>(work, first);                                                    \
  }                                                                                \
  SCRIMP_CLONES inline void slopes(const PropagationWork& work, int64_t first, T) { \
    slopes_row<T>(work, first);                                                    \
  }                                                                                \
  SCRIMP_CLONES inline void pull(const PropagationWork& work, int64_t first, T) {  \
    pull_row<T>(work, first);                                                      \
  }
SCRIMP_PROPAGATION_ROWS(float)
SCRIMP_PROPAGATION_ROWS(double)
#undef SCRIMP_PROPAGATION_ROWS

// Calls body(first pixel) for every row of every image, in parallel.
template <typename Body>
void for_rows(const PropagationWork& work, Body body) {
  at::parallel_for(0, work.pixels / std::max(work.width, 1), 1, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) body(row * work.width);
  });
}

// weights and out <- those of the features.
template <typename T>
void forward(const PropagationWork& work) {
  for_rows(work, [&](int64_t first) { spread(work, first, T()); });
}

// products and out <- the gradients of the products and of the features.
template <typename T>
void backward(const PropagationWork& work) {
  for_rows(work, [&](int64_t first) { slopes(work, first, T()); });
  for_rows(work, [&](int64_t first) { pull(work, first, T()); });
}

}  // namespace scrimp::propagation_loops
