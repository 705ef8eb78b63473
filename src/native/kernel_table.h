// What formulas ask of the place where its tensors are: one table of functions for each way to
// compute. Plain enough to cross from one shared library to another of the same compiler; knows no
// gradients and no ranks.
//
// Tensors x, dy, y and g are [N, C, H, W] in channels-last order and of one kind.

#pragma once

#include <ATen/ATen.h>

#include <cmath>
#include <cstdint>

namespace scrimp {

// Rows of coefficients, float64 [4, C].
enum Row : int64_t { MEAN, INVERSE_DEVIATION, SCALE, SHIFT };

// y = dropout(leaky(x*scale + shift)).
struct Activation {
  const at::Tensor& coefficients;
  // int64 [N] where x is; undefined: nothing is dropped.
  const at::Tensor& keys;
  double slope, dropout;
};

// The tensors of the channels, each [C] and of one kind, float or double.
struct Channels {
  // Absorbed is what was to be added to x and was not: the running mean is that of both.
  const at::Tensor &weight, &bias, &absorbed, &running_mean, &running_var;
};

struct Deactivated {
  at::Tensor g;
  // Of g and of g*(x - mean), float64 [2, C].
  at::Tensor sums;
};

struct Corrections {
  // This rank's gradients, [C] of the kind of the parameters.
  at::Tensor d_weight, d_bias;
  // Offset and tilt, float64 [2, C].
  at::Tensor rows;
};

// weight * exp(-distance*(dx^2 + dy^2) - intensity*(difference of intensities)^2); mirrored by
// `native::PairKernel` in Rust.
struct PairKernel {
  double weight, distance, intensity;
};

// Contiguous tensors of one kind, float or double: probabilities [N, C, H, W], the others [N, 1, H, W].
// Source and destination are undefined where every pixel counts.
struct Neighbours {
  const at::Tensor &probabilities, &image, &source, &destination;
  // The sum of these is the weight of a pair.
  const PairKernel* kernels;
  int64_t count, radius;
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
  // Sums of x and of x^2 to the first 2C numbers of `total`, float64 [2C + 1].
  void (*moments)(const at::Tensor& x, const at::Tensor& total);
  // Coefficients from the moments of all ranks; total[2C] is the number of values per channel. Moves
  // the running statistics.
  at::Tensor (*coefficients)(const at::Tensor& total, const Channels& channels, double momentum,
                             double epsilon);
  at::Tensor (*activate)(const at::Tensor& x, const Activation& activation);
  // g = gradient before the activation.
  Deactivated (*deactivate)(const at::Tensor& x, const at::Tensor& dy,
                            const Activation& activation);
  // From sums of this rank and of all, and `total` as above.
  Corrections (*corrections)(const at::Tensor& own_sums, const at::Tensor& all_sums,
                             const at::Tensor& total, const at::Tensor& coefficients,
                             at::ScalarType parameters);
  // scale*(g - offset - (x - mean)*tilt) in the kind of x; may overwrite g.
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
