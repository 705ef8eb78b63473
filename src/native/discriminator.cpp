// What discriminators need and tch lacks: leaky rectification with a slope of one's own, and weights
// divided by their largest singular values, all of a network's at once. Knows no layers and no losses.
//
// Every function returns nullptr, or an error text that the caller frees with scrimp_free_text.

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include "guarded.h"

using at::Tensor;
using scrimp::guarded;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace {

// Against division by the norm of nothing.
constexpr double EPSILON = 1e-12;

// The largest singular values, 0-dimensional, with the vectors that belong to them.
struct Singular {
  variable_list values, lefts, rights;
};

Tensor unit(const Tensor& x) { return x / x.norm().clamp_min(EPSILON); }

Singular singular(at::TensorList weights, at::TensorList lefts,
                  at::TensorList rights, bool iterate) {
  Singular found;
  for (size_t layer = 0; layer < weights.size(); ++layer) {
    const auto matrix = weights[layer].flatten(1);
    const auto &left = lefts[layer], &right = rights[layer];
    if (iterate) right.copy_(unit(matrix.t().mv(left)));
    const auto image = matrix.mv(right);
    if (iterate) left.copy_(unit(image));
    found.values.push_back(left.dot(image));
    // The next pass overwrites these while the backward of this one still needs them.
    found.lefts.push_back(left.clone());
    found.rights.push_back(right.clone());
  }
  return found;
}

// Weights over their largest singular values s = u^T W v. With G the gradient of W / s,
// dW = (G - <G, W / s> u v^T) / s.
struct Spectral : torch::autograd::Function<Spectral> {
  static variable_list forward(AutogradContext* context, at::TensorList weights,
                               at::TensorList lefts, at::TensorList rights,
                               bool iterate) {
    auto found = singular(weights, lefts, rights, iterate);
    variable_list divided;
    for (size_t layer = 0; layer < weights.size(); ++layer) {
      divided.push_back(weights[layer] / found.values[layer]);
    }
    auto saved = divided;
    for (auto* list : {&found.values, &found.lefts, &found.rights}) {
      saved.insert(saved.end(), list->begin(), list->end());
    }
    context->save_for_backward(saved);
    return divided;
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const auto saved = context->get_saved_variables();
    const auto count = gradients.size();
    variable_list result(3 * count + 1);
    for (size_t layer = 0; layer < count; ++layer) {
      if (!context->needs_input_grad(layer)) continue;
      const auto &divided = saved[layer], &value = saved[count + layer];
      const auto &left = saved[2 * count + layer], &right = saved[3 * count + layer];
      const auto& gradient = gradients[layer];
      const auto along = left.outer(right).view(divided.sizes());
      result[layer] = (gradient - (gradient * divided).sum() * along) / value;
    }
    return result;
  }
};

variable_list list_of(Tensor* const* tensors, int64_t count) {
  variable_list list;
  for (int64_t index = 0; index < count; ++index) list.push_back(*tensors[index]);
  return list;
}

}  // namespace

extern "C" {

// max(x, 0) + slope * min(x, 0).
char* scrimp_leaky_relu(Tensor** out, Tensor* x, double slope) {
  return guarded([&] { *out = new Tensor(at::leaky_relu(*x, slope)); });
}

// Each of `count` weights over its largest singular value, to `out`; `lefts` and `rights` are the
// singular vectors so far, which move by one step of the power iteration where it `iterates`.
char* scrimp_divide_by_singular_values(Tensor** out, Tensor* const* weights, Tensor* const* lefts,
                                       Tensor* const* rights, int64_t count, bool iterates) {
  return guarded([&] {
    const auto raw = list_of(weights, count);
    const auto left = list_of(lefts, count), right = list_of(rights, count);
    const auto divided = Spectral::apply(at::TensorList(raw), at::TensorList(left),
                                         at::TensorList(right), iterates);
    for (int64_t layer = 0; layer < count; ++layer) out[layer] = new Tensor(divided[layer]);
  });
}
}
