// What formulas ask of the place where its tensors are: one table of functions for each way to
// compute. Plain enough to cross from one shared library to another of the same compiler; knows no
// gradients and no ranks.
//
// Tensors x, dy, y and g are [N, C, H, W] in channels-last order and of one kind; of volumes H counts the rows
// of all slices.

#pragma once

#include <ATen/ATen.h>

#include <cmath>
#include <cstdint>

#include "device_elements.h"

namespace scrimp {

// Rows of coefficients, float64 [ROWS, C]; evaluation has those up to the shift.
using device::INVERSE_DEVIATION, device::MEAN, device::ROWS, device::SCALE, device::SHIFT, device::VALUES;

// y = dropout(leaky(x*scale + shift)).
struct Activation {
  const at::Tensor& coefficients;
  // int64 [N] where x is; undefined: nothing is dropped.
  const at::Tensor& keys;
  double slope, dropout;
};

// The tensors of the channels, each [C] and of one kind, float or double, and how they are used.
struct Channels {
  // Absorbed is what was to be added to x and was not: the running mean is that of both.
  const at::Tensor &weight, &bias, &absorbed, &running_mean, &running_var;
  // A number of type int64, one higher afterwards; undefined: nobody counts.
  const at::Tensor& batches;
  double momentum, epsilon;
};

struct Deactivated {
  // The gradient before the activation.
  at::Tensor g;
  // This rank's gradients, [C] of the kind of the parameters.
  at::Tensor d_weight, d_bias;
  // This rank's share of offset and tilt, float64 [2, C].
  at::Tensor corrections;
};

// weight * exp(-distance*(dx^2 + dy^2) - slices*dz^2 - intensity*(difference of intensities)^2); mirrored by
// `native::PairKernel` in Rust.
struct PairKernel {
  double weight, distance, slices, intensity;
};

// Contiguous tensors of one kind, float or double: probabilities [N, C, H, W] or [N, C, D, H, W], the others
// alike with one channel. Source and destination are undefined where every pixel counts.
struct Neighbours {
  const at::Tensor &probabilities, &image, &source, &destination;
  // The sum of these is the weight of a pair.
  const PairKernel* kernels;
  int64_t count;
  // In slices, rows and columns.
  int64_t radius[3];

  int64_t depth() const { return probabilities.dim() == 5 ? probabilities.size(2) : 1; }
  int64_t height() const { return probabilities.size(-2); }
  int64_t width() const { return probabilities.size(-1); }
};

struct NeighbourSums {
  // As the probabilities.
  at::Tensor sums;
  // The weights of all pairs in both directions, float64 [N].
  at::Tensor totals;
};

struct Kernels {
  // Whether these functions work with tensors of the kind and in the place of `x`.
  bool (*serve)(const at::Tensor& x);
  // This rank's sums of x and of x^2 and its number of values per channel, float64 [2C + 1].
  at::Tensor (*moments)(const at::Tensor& x);
  // Coefficients from the moments of all ranks. Moves the running statistics.
  at::Tensor (*coefficients)(const at::Tensor& total, const Channels& channels);
  // Both, on a rank that normalises alone.
  at::Tensor (*statistics)(const at::Tensor& x, const Channels& channels);
  at::Tensor (*activate)(const at::Tensor& x, const Activation& activation);
  Deactivated (*deactivate)(const at::Tensor& x, const at::Tensor& dy,
                            const Activation& activation, at::ScalarType parameters);
  // scale*(g - offset - (x - mean)*tilt) in the kind of x, with the corrections of all ranks; may
  // overwrite g.
  at::Tensor (*centre)(const at::Tensor& x, const at::Tensor& coefficients,
                       const at::Tensor& corrections, const at::Tensor& g);
  // Standard normal numbers [N, ...] with the other extents, kind and place of `like`; keys as above.
  at::Tensor (*normal)(const at::Tensor& keys, const at::Tensor& like);
  // Null where there are no kernels for it.
  NeighbourSums (*neighbour_sums)(const Neighbours& of);
};

// Elements whose 32 random bits are below this are dropped.
inline uint32_t dropout_threshold(double probability) {
  return static_cast<uint32_t>(std::llround(probability * 4294967296.0));
}

// In what numbers of this kind are computed with: half precision loses too much on the way.
inline at::ScalarType computed_in(at::ScalarType kind) {
  return kind == at::kBFloat16 || kind == at::kHalf ? at::kFloat : kind;
}

// Whether there are kernels for features of this kind.
inline bool has_kernels(at::ScalarType kind) {
  return kind == at::kFloat || kind == at::kDouble || kind == at::kBFloat16;
}

// The extents of `like` with as many samples as keys.
inline std::vector<int64_t> shape_of_normal(const at::Tensor& keys, const at::Tensor& like) {
  auto shape = like.sizes().vec();
  shape[0] = keys.numel();
  return shape;
}

}  // namespace scrimp
