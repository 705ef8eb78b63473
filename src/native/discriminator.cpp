// What discriminators need and tch lacks: leaky rectification with a slope of one's own, and weights
// divided by their largest singular values, all of a network's at once. Knows no layers and no losses.
//
// Every function returns nullptr, or an error text that the caller frees with scrimp_free_text.

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <string>
#include <unordered_map>

#include "guarded.h"
#include "kernel_launcher.h"
#include "spectral_kernels.h"

using at::Tensor;
using at::TensorList;
using scrimp::Form;
using scrimp::guarded;
using scrimp::KernelLauncher;
using namespace scrimp::device;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace {

// Against division by the norm of nothing.
constexpr double EPSILON = 1e-12;
// Least packs of elements that a thread takes.
constexpr int64_t PACKS = 4;

SCRIMP_TWIN(TWIN, SCRIMP_SPECTRAL_KERNELS)

// What one pass makes of weights: they over their largest singular values, these, 0-dimensional, and the
// vectors that belong to them.
struct Divided {
  variable_list weights, values, lefts, rights;
};

Tensor unit(const Tensor& x) { return x / x.norm().clamp_min(EPSILON); }

Divided divide(TensorList weights, TensorList lefts, TensorList rights, bool iterates) {
  Divided result;
  for (size_t layer = 0; layer < weights.size(); ++layer) {
    const auto matrix = weights[layer].flatten(1);
    const auto &left = lefts[layer], &right = rights[layer];
    if (iterates) right.copy_(unit(matrix.t().mv(left)));
    const auto image = matrix.mv(right);
    if (iterates) left.copy_(unit(image));
    const auto value = left.dot(image);
    result.weights.push_back(weights[layer] / value);
    result.values.push_back(value);
    // The next pass overwrites these while the backward of this one still needs them.
    result.lefts.push_back(left.clone());
    result.rights.push_back(right.clone());
  }
  return result;
}

// With G the gradient of W / s and s = u^T W v, dW = (G - <G, W / s> u v^T) / s.
Tensor pulled_back(const Tensor& gradient, const Divided& of, size_t layer) {
  const auto& divided = of.weights[layer];
  const auto along = of.lefts[layer].outer(of.rights[layer]).view(divided.sizes());
  return (gradient - (gradient * divided).sum() * along) / of.values[layer];
}

// Whether kernels can work on these weights: alike, and each in the order of its outputs.
bool are_for_kernels(TensorList weights) {
  const auto& first = weights[0];
  const auto kind = first.scalar_type();
  if (weights.size() > MOST_WEIGHTS || (kind != at::kFloat && kind != at::kDouble)) return false;
  return std::all_of(weights.begin(), weights.end(), [&](const Tensor& weight) {
    return weight.scalar_type() == kind && weight.device() == first.device() &&
           (weight.is_contiguous() || weight.is_contiguous(at::MemoryFormat::ChannelsLast));
  });
}

// Kernels at work on the weights of a network.
class Kernels {
 public:
  Kernels(const KernelLauncher& launcher, TensorList weights) : launcher(launcher), beside(weights[0]) {
    work.count = static_cast<int>(weights.size());
    work.epsilon = EPSILON;
    for (int layer = 0; layer < work.count; ++layer) add(weights[layer], work.weights[layer]);
    const auto options = beside.options().dtype(at::kDouble);
    back = at::empty({work.columns}, options);
    parts = at::empty({work.rows, PARTS}, options);
    images = at::empty({work.rows}, options);
    squares = at::empty({work.count, PARTS}, options);
    work.back = back.mutable_data_ptr<double>();
    work.parts = parts.mutable_data_ptr<double>();
    work.images = images.mutable_data_ptr<double>();
    work.squares = squares.mutable_data_ptr<double>();
  }

  Divided divide(TensorList weights, TensorList lefts, TensorList rights, bool iterates) {
    Divided result;
    const auto values = at::empty({work.count}, back.options());
    for (int layer = 0; layer < work.count; ++layer) {
      auto& of = work.weights[layer];
      result.weights.push_back(at::empty_like(weights[layer]));
      result.values.push_back(values.select(0, layer));
      result.lefts.push_back(at::empty_like(lefts[layer]));
      result.rights.push_back(at::empty_like(rights[layer]));
      of.weight = weights[layer].const_data_ptr();
      of.left = lefts[layer].mutable_data_ptr();
      of.right = rights[layer].mutable_data_ptr();
      use(result, layer);
    }
    work.iterates = iterates;
    work.values = values.mutable_data_ptr<double>();
    if (iterates) launch("columns", work.columns);
    launch("rows", work.rows * PARTS);
    launch("images", work.rows);
    launch("vectors", work.rows + work.columns);
    launch_packed("divide");
    return result;
  }

  variable_list pull_back(const Divided& of, const variable_list& gradients) {
    variable_list in_order, results;
    for (int layer = 0; layer < work.count; ++layer) {
      const auto& divided = of.weights[layer];
      auto gradient = gradients[layer];
      if (gradient.strides() != divided.strides()) {
        const auto other = gradient;
        gradient = at::empty_like(divided).copy_(other);
      }
      results.push_back(at::empty_like(divided));
      work.weights[layer].gradient = gradient.const_data_ptr();
      work.weights[layer].result = results.back().mutable_data_ptr();
      in_order.push_back(gradient);
      use(of, static_cast<size_t>(layer));
    }
    work.values = of.values[0].mutable_data_ptr<double>();
    launch("products", work.rows * PARTS);
    launch("totals", work.count * PARTS);
    launch_packed("pull");
    return results;
  }

 private:
  const KernelLauncher& launcher;
  const Tensor beside;
  SpectralWork work{};
  Tensor back, parts, images, squares;

  // Lays a weight behind those that are there.
  void add(const Tensor& weight, SpectralWeight& of) {
    of.rows = weight.size(0);
    of.columns = weight.numel() / of.rows;
    const bool is_planar = weight.is_contiguous();
    of.inner = is_planar ? of.columns : weight.size(1);
    of.outer = of.columns / of.inner;
    of.first_row = work.rows;
    of.first_column = work.columns;
    of.first_element = work.elements;
    work.rows += of.rows;
    work.columns += of.columns;
    work.elements += weight.numel();
  }

  void use(const Divided& of, size_t layer) {
    auto& entry = work.weights[layer];
    entry.divided = of.weights[layer].mutable_data_ptr();
    entry.left_kept = of.lefts[layer].mutable_data_ptr();
    entry.right_kept = of.rights[layer].mutable_data_ptr();
  }

  void launch(const char* operation, int64_t threads, int64_t width = 1) {
    const auto* kind = beside.scalar_type() == at::kDouble ? "_double_" : "_float_";
    const auto name = std::string("spectral_") + operation + kind + std::to_string(width);
    work.threads = threads;
    launcher.launch(name.c_str(), &work, threads, beside);
  }

  // Elements of all weights, 16 bytes at a time where rows and addresses allow it.
  void launch_packed(const char* operation) {
    int64_t width = 16 / static_cast<int64_t>(beside.element_size());
    for (int layer = 0; layer < work.count; ++layer) {
      const auto& of = work.weights[layer];
      const auto addresses =
          reinterpret_cast<uintptr_t>(of.weight) | reinterpret_cast<uintptr_t>(of.divided) |
          reinterpret_cast<uintptr_t>(of.gradient) | reinterpret_cast<uintptr_t>(of.result);
      if (of.columns % width != 0 || addresses % 16 != 0) width = 1;
    }
    launch(operation, (work.elements / width + PACKS - 1) / PACKS, width);
  }
};

const KernelLauncher* kernels_for(TensorList weights, Form form) {
  const auto* kernels = scrimp::launcher_for(weights[0], form, TWIN);
  return kernels != nullptr && are_for_kernels(weights) ? kernels : nullptr;
}

// Weights over their largest singular values, through which the gradient flows.
struct Spectral : torch::autograd::Function<Spectral> {
  static variable_list forward(AutogradContext* context, TensorList weights, TensorList lefts,
                               TensorList rights, bool iterates, Form form) {
    const auto* kernels = kernels_for(weights, form);
    auto result = kernels == nullptr
                      ? divide(weights, lefts, rights, iterates)
                      : Kernels(*kernels, weights).divide(weights, lefts, rights, iterates);
    auto saved = result.weights;
    for (auto* list : {&result.values, &result.lefts, &result.rights}) {
      saved.insert(saved.end(), list->begin(), list->end());
    }
    context->save_for_backward(saved);
    context->saved_data["form"] = static_cast<int64_t>(form);
    return result.weights;
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const auto saved = context->get_saved_variables();
    const auto form = static_cast<Form>(context->saved_data["form"].toInt());
    const auto count = gradients.size();
    const auto list = [&](size_t number) {
      const auto begin = saved.begin() + static_cast<std::ptrdiff_t>(number * count);
      return variable_list(begin, begin + static_cast<std::ptrdiff_t>(count));
    };
    const Divided of{list(0), list(1), list(2), list(3)};
    const auto* kernels = kernels_for(of.weights, form);
    variable_list result(3 * count + 2);
    if (kernels != nullptr) {
      const auto pulled = Kernels(*kernels, of.weights).pull_back(of, gradients);
      std::copy(pulled.begin(), pulled.end(), result.begin());
      return result;
    }
    for (size_t layer = 0; layer < count; ++layer) {
      if (context->needs_input_grad(layer)) result[layer] = pulled_back(gradients[layer], of, layer);
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
                                       Tensor* const* rights, int64_t count, bool iterates, Form form) {
  return guarded([&] {
    const auto raw = list_of(weights, count);
    const auto left = list_of(lefts, count), right = list_of(rights, count);
    const auto divided = Spectral::apply(TensorList(raw), TensorList(left),
                                         TensorList(right), iterates, form);
    for (int64_t layer = 0; layer < count; ++layer) out[layer] = new Tensor(divided[layer]);
  });
}
}
