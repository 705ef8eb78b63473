// The table of plain tensor operations: for every kind and every device, and what others are tested
// against. Knows no memory and no threads.

#pragma once

#include <ATen/ATen.h>

#include "device_kernels.h"
#include "kernel_table.h"

namespace scrimp::plain {

using at::Tensor;

// Random bits of random.rs `element_bits`.
// 32-bit numbers in int64, so that products wrap at 64 bits and are cut to 32.
inline Tensor mix32(Tensor x) {
  constexpr int64_t mask = 0xffffffffLL;
  x = ((x.bitwise_xor(x.bitwise_right_shift(16))) * 0x7feb352dLL).bitwise_and(mask);
  x = ((x.bitwise_xor(x.bitwise_right_shift(15))) * 0x846ca68bLL).bitwise_and(mask);
  return x.bitwise_xor(x.bitwise_right_shift(16));
}

inline Tensor random_bits(const Tensor& keys, const Tensor& index) {
  auto low = keys.bitwise_and(0xffffffffLL);
  auto high = keys.bitwise_right_shift(32).bitwise_and(0xffffffffLL);
  return mix32(mix32(index.bitwise_xor(low)).bitwise_xor(high));
}

// Keep mask [N, C, H, W] of zeros and 1/(1-p); element index (h*W + w)*C + c within each sample.
inline Tensor dropout_scale(const Tensor& like, const Tensor& keys, double probability) {
  const auto n = like.size(0), c = like.size(1), h = like.size(2), w = like.size(3);
  auto index = at::arange(h * w * c, keys.options()).view({1, h, w, c});
  auto bits = random_bits(keys.view({n, 1, 1, 1}), index);
  auto keep = bits.ge(static_cast<int64_t>(dropout_threshold(probability)));
  return keep.to(like.scalar_type()).mul(1.0 / (1.0 - probability)).permute({0, 3, 1, 2});
}

inline Tensor per_channel(const Tensor& rows, int64_t row, const Tensor& like) {
  return rows.select(0, row).to(like.scalar_type()).view({1, -1, 1, 1});
}

inline bool serve(const Tensor&) { return true; }

inline Tensor moments(const Tensor& x) {
  auto wide = x.to(at::kDouble);
  auto values = at::full({1}, static_cast<double>(x.numel() / x.size(1)), wide.options());
  return at::cat({wide.sum({0, 2, 3}), wide.square().sum({0, 2, 3}), values});
}

// running <- running + share * (value - running), in double; with all of it, what was there does not
// matter, were it not even a number.
inline void move_towards(const Tensor& running, const Tensor& value, const Tensor& share) {
  auto moved = running + ((value - running.to(at::kDouble)) * share).to(running.scalar_type());
  running.copy_(at::where(share == 1.0, value.to(running.scalar_type()), moved));
}

inline Tensor coefficients(const Tensor& total, const Channels& of) {
  const auto channels = of.weight.numel();
  // A rank without samples that normalises alone leaves the running statistics as they are.
  auto moved = total[2 * channels].gt(0.0).to(at::kDouble) * of.momentum;
  auto count = total[2 * channels].clamp_min(1.0);
  auto mean = total.narrow(0, 0, channels) / count;
  auto variance = (total.narrow(0, channels, channels) / count - mean.square()).clamp_min(0.0);
  auto inverse_deviation = (variance + of.epsilon).rsqrt();
  move_towards(of.running_mean, mean + of.absorbed.to(at::kDouble), moved);
  auto unbiased = variance * (count / (count - 1.0).clamp_min(1.0));
  move_towards(of.running_var, unbiased, moved);
  if (of.batches.defined()) of.batches.add_(1);
  auto scale = of.weight.to(at::kDouble) * inverse_deviation;
  auto shift = of.bias.to(at::kDouble) - mean * scale;
  return at::stack({mean, inverse_deviation, scale, shift, count.expand_as(mean)});
}

inline Tensor statistics(const Tensor& x, const Channels& of) {
  return coefficients(moments(x), of);
}

inline Tensor activate(const Tensor& x, const Activation& activation) {
  auto wide = x.to(computed_in(x.scalar_type()));
  const auto& rows = activation.coefficients;
  auto before = wide * per_channel(rows, SCALE, wide) + per_channel(rows, SHIFT, wide);
  auto y = at::leaky_relu(before, activation.slope);
  if (activation.keys.defined()) y = y * dropout_scale(wide, activation.keys, activation.dropout);
  return y.to(x.scalar_type());
}

// From this rank's sums of g and of g*(x - mean), [2, C].
inline Deactivated corrected(const Tensor& g, const Tensor& sums, const Tensor& coefficients,
                             at::ScalarType parameters) {
  auto inverse_deviation = coefficients.select(0, INVERSE_DEVIATION);
  auto d_weight = sums.select(0, 1) * inverse_deviation;
  auto rows = at::stack({sums.select(0, 0), d_weight * inverse_deviation});
  return {g, d_weight.to(parameters), sums.select(0, 0).to(parameters),
          rows / coefficients.select(0, VALUES)};
}

// g in the precision of computing.
inline Deactivated deactivate(const Tensor& x, const Tensor& dy, const Activation& activation,
                              at::ScalarType parameters) {
  const auto computed = computed_in(x.scalar_type());
  const auto& rows = activation.coefficients;
  auto input = x.to(computed), gradient = dy.to(computed);
  auto before = input * per_channel(rows, SCALE, input) + per_channel(rows, SHIFT, input);
  auto g = at::where(before > 0, gradient, gradient * activation.slope);
  if (activation.keys.defined()) g = g * dropout_scale(input, activation.keys, activation.dropout);
  auto wide = g.to(at::kDouble), exact = x.to(at::kDouble);
  auto products = wide * (exact - per_channel(rows, MEAN, exact));
  auto sums = at::stack({wide.sum({0, 2, 3}), products.sum({0, 2, 3})});
  return corrected(g, sums, rows, parameters);
}

inline Tensor centre(const Tensor& x, const Tensor& coefficients, const Tensor& corrections,
                     const Tensor& g) {
  auto centred = x.to(g.scalar_type()) - per_channel(coefficients, MEAN, g);
  auto straight = g - per_channel(corrections, 0, g) - centred * per_channel(corrections, 1, g);
  return (per_channel(coefficients, SCALE, g) * straight).to(x.scalar_type());
}

inline Tensor normal(const Tensor& keys, const Tensor& like) {
  const auto shape = shape_of_normal(keys, like);
  const auto count = c10::multiply_integers(shape.begin() + 1, shape.end());
  const auto kind = computed_in(like.scalar_type());
  auto column = keys.view({-1, 1});
  auto pair = at::arange(0, count, 2, keys.options()).view({1, -1});
  auto fraction = [&](const Tensor& index) {
    return random_bits(column, index).bitwise_right_shift(8).to(kind).mul(1.0 / 16777216.0);
  };
  auto radius = (1 - fraction(pair)).log().mul(-2).sqrt();
  auto angle = fraction(pair + 1).mul(device::TWO_PI);
  auto both = at::stack({radius * angle.cos(), radius * angle.sin()}, 2);
  return both.flatten(1).narrow(1, 0, count).to(like.scalar_type()).reshape(shape);
}

inline const Kernels TABLE{serve,      moments, coefficients, statistics, activate,
                           deactivate, centre,  normal,       nullptr};

}  // namespace scrimp::plain
