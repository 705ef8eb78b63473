// CPU inner loops of sums over neighbouring pixels, weighted by how near they are in place and in
// intensity: the pairwise part of a gated conditional random field.
//
// Weights are symmetric, so that every pair of pixels is met once and serves both. Samples are
// planar, [C, D, H, W], where an image has D = 1, and the loops run along rows. Each sample is summed by one thread and in one
// order: results do not depend on the number of threads.

#pragma once

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "clones.h"
#include "exponential.h"
#include "kernel_table.h"

namespace scrimp {

// One sample: probabilities and sums [C, D, H, W]; image, source and destination [D, H, W]. Source and
// destination are both null where every pixel counts.
template <typename T>
struct NeighbourSample {
  int64_t channels, depth, height, width;
  const T* probabilities;
  const T* image;
  const T* source;
  const T* destination;
  T* sums;
};

// The pairs of pixel (z, y, x) with (z + dz, y + dy, x + dx) for all x of a row; of the offsets that are not 0
// the first is positive.
struct RowOfPairs {
  int64_t z, y, dz, dy, dx;
};

// Adds every pair's weighted partner to `sums`, and the weights to `total` at the x of the first.
// `weights` is room for one row.
template <typename T>
SCRIMP_INTO_CLONES void visit_row(const NeighbourSample<T>& sample, const RowOfPairs& row,
                                  const std::vector<PairKernel>& kernels, T* __restrict weights,
                                  T* __restrict total) {
  const int64_t width = sample.width, height = sample.height, volume = sample.depth * height * width;
  const int64_t first = (row.z * height + row.y) * width + std::max<int64_t>(0, -row.dx);
  const int64_t second =
      ((row.z + row.dz) * height + row.y + row.dy) * width + std::max<int64_t>(0, row.dx);
  const int64_t count = width - std::abs(row.dx);
  const double squared = static_cast<double>(row.dx * row.dx + row.dy * row.dy);
  const double between_slices = static_cast<double>(row.dz * row.dz);
  const T* a = sample.image + first;
  const T* b = sample.image + second;
  std::fill(weights, weights + count, T(0));
  for (const auto& kernel : kernels) {
    const double fall = -kernel.distance * squared - kernel.slices * between_slices;
    const T amplitude = static_cast<T>(kernel.weight * std::exp(fall));
    const T sharpness = static_cast<T>(kernel.intensity);
    if (sharpness == T(0)) {
      for (int64_t x = 0; x < count; ++x) weights[x] += amplitude;
      continue;
    }
    for (int64_t x = 0; x < count; ++x) {
      const T difference = a[x] - b[x];
      weights[x] += amplitude * exp_of_negative(-sharpness * difference * difference);
    }
  }
  if (sample.source != nullptr) {
    const T *from_a = sample.source + first, *from_b = sample.source + second;
    const T *to_a = sample.destination + first, *to_b = sample.destination + second;
    // Half of the two directions together, because both pixels get the same weight.
    for (int64_t x = 0; x < count; ++x) {
      weights[x] *= T(0.5) * (to_a[x] * from_b[x] + to_b[x] * from_a[x]);
    }
  }
  T* __restrict total_of_row = total + std::max<int64_t>(0, -row.dx);
  for (int64_t x = 0; x < count; ++x) total_of_row[x] += weights[x];
  for (int64_t c = 0; c < sample.channels; ++c) {
    const T* __restrict p = sample.probabilities + c * volume;
    // Two loops, because within a row the two pixels' sums overlap.
    T* __restrict sums_a = sample.sums + c * volume + first;
    for (int64_t x = 0; x < count; ++x) sums_a[x] += weights[x] * p[second + x];
    T* __restrict sums_b = sample.sums + c * volume + second;
    for (int64_t x = 0; x < count; ++x) sums_b[x] += weights[x] * p[first + x];
  }
}

#define SCRIMP_VISIT(T)                                                                          \
  SCRIMP_CLONES inline void visit(const NeighbourSample<T>& sample, const RowOfPairs& row,       \
                                  const std::vector<PairKernel>& kernels, T* weights, T* total) { \
    visit_row<T>(sample, row, kernels, weights, total);                                          \
  }
SCRIMP_VISIT(float)
SCRIMP_VISIT(double)
#undef SCRIMP_VISIT

// Fills `sums`, which are zero, and returns the sum of the weights of all pairs in both directions.
template <typename T>
double sum_sample(const NeighbourSample<T>& sample, const std::vector<PairKernel>& kernels,
                  const int64_t* radius) {
  std::vector<T> weights(sample.width), total(sample.width);
  double all = 0.0;
  const int64_t reach = std::min(radius[2], sample.width - 1);
  for (int64_t row = 0; row < sample.depth * sample.height; ++row) {
    const int64_t z = row / sample.height, y = row % sample.height;
    std::fill(total.begin(), total.end(), T(0));
    for (int64_t dz = 0; dz <= std::min(radius[0], sample.depth - 1 - z); ++dz) {
      const int64_t last = std::min(radius[1], sample.height - 1 - y);
      for (int64_t dy = dz == 0 ? 0 : -std::min(radius[1], y); dy <= last; ++dy) {
        for (int64_t dx = dz == 0 && dy == 0 ? 1 : -reach; dx <= reach; ++dx) {
          visit(sample, RowOfPairs{z, y, dz, dy, dx}, kernels, weights.data(), total.data());
        }
      }
    }
    for (const T of_pixel : total) all += of_pixel;
  }
  return 2.0 * all;
}

// Fills `result`, whose sums are zero.
template <typename T>
void neighbour_sums_typed(const Neighbours& of, const std::vector<PairKernel>& kernels,
                          const NeighbourSums& result) {
  const int64_t channels = of.probabilities.size(1);
  const int64_t volume = of.depth() * of.height() * of.width();
  const bool masked = of.source.defined();
  const T* p = of.probabilities.const_data_ptr<T>();
  const T* intensities = of.image.const_data_ptr<T>();
  const T* from = masked ? of.source.const_data_ptr<T>() : nullptr;
  const T* to = masked ? of.destination.const_data_ptr<T>() : nullptr;
  T* out = result.sums.mutable_data_ptr<T>();
  double* totals = result.totals.mutable_data_ptr<double>();
  at::parallel_for(0, of.probabilities.size(0), 1, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      const NeighbourSample<T> sample{channels,
                                      of.depth(),
                                      of.height(),
                                      of.width(),
                                      p + n * channels * volume,
                                      intensities + n * volume,
                                      masked ? from + n * volume : nullptr,
                                      masked ? to + n * volume : nullptr,
                                      out + n * channels * volume};
      totals[n] = sum_sample(sample, kernels, of.radius);
    }
  });
}

inline NeighbourSums neighbour_sums(const Neighbours& of) {
  const auto& p = of.probabilities;
  const std::vector<PairKernel> list(of.kernels, of.kernels + of.count);
  const NeighbourSums result{at::zeros_like(p),
                             at::zeros({p.size(0)}, p.options().dtype(at::kDouble))};
  if (p.scalar_type() == at::kFloat) {
    neighbour_sums_typed<float>(of, list, result);
  } else {
    neighbour_sums_typed<double>(of, list, result);
  }
  return result;
}

}  // namespace scrimp
