// Features that spread between neighbouring pixels which are alike, without unfolding them. Knows no layers.
//
// Every function returns nullptr, or an error text that the caller frees with scrimp_free_text.

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "guarded.h"
#include "kernel_launcher.h"
#include "propagation_kernels.h"
#include "propagation_loops.h"

using at::Tensor;
using scrimp::Form;
using scrimp::guarded;
using scrimp::KernelLauncher;
using namespace scrimp::device;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace {

SCRIMP_TWIN(TWIN, SCRIMP_PROPAGATION_KERNELS)

// Whether kernels or loops work on such features; else plain tensor operations do.
bool is_served(const Tensor& features, Form form) {
  const auto kind = features.scalar_type();
  if (form == Form::Plain || (kind != at::kFloat && kind != at::kDouble)) return false;
  return features.is_cpu() || scrimp::launcher_for(features, form, TWIN) != nullptr;
}

// One neighbour after the other; what autograd keeps of each are views.
Tensor spread_by_operations(const Tensor& features) {
  constexpr int64_t margin = SIDE / 2 * DILATION;
  const auto padded = at::constant_pad_nd(features, {margin, margin, margin, margin});
  variable_list around, products;
  for (int64_t n = 0; n < NEIGHBOURS; ++n) {
    const auto rows = padded.narrow(2, n / SIDE * DILATION, features.size(2));
    around.push_back(rows.narrow(3, n % SIDE * DILATION, features.size(3)));
    products.push_back((features * around.back()).sum(1, true));
  }
  const auto weights = at::cat(products, 1).relu().softmax(1);
  auto result = at::zeros_like(features);
  for (int64_t n = 0; n < NEIGHBOURS; ++n) result = result + weights.narrow(1, n, 1) * around[n];
  return result;
}

// Work on features in channels-last order, with kernels of a device or loops of the CPU.
class Spreading {
 public:
  Spreading(const Tensor& features, Form form)
      : features(features), kernels(scrimp::launcher_for(features, form, TWIN)) {
    work.features = features.const_data_ptr();
    work.channels = features.size(1);
    work.height = static_cast<int>(features.size(2));
    work.width = static_cast<int>(features.size(3));
    work.pixels = features.size(0) * features.size(2) * features.size(3);
    result = at::empty_like(features);
    work.out = result.mutable_data_ptr();
  }

  // The result, and the weights.
  variable_list forward() {
    auto weights = of_neighbours();
    work.compared = work.features;
    work.weights = weights.mutable_data_ptr();
    if (kernels == nullptr) {
      is_double() ? scrimp::propagation_loops::forward<double>(work)
                  : scrimp::propagation_loops::forward<float>(work);
    } else {
      // A thread overwrites the products of its own pixel alone, each after it has read it.
      work.products = work.weights;
      launch_packed("products", work.pixels * NEIGHBOURS);
      launch("weights", work.pixels, 1);
      launch_channels("blend");
    }
    return {result, weights};
  }

  Tensor backward(const Tensor& gradient, const Tensor& weights) {
    const auto products = of_neighbours();
    work.compared = work.gradient = gradient.const_data_ptr();
    work.weights = weights.mutable_data_ptr();
    work.products = products.mutable_data_ptr();
    if (kernels == nullptr) {
      is_double() ? scrimp::propagation_loops::backward<double>(work)
                  : scrimp::propagation_loops::backward<float>(work);
    } else {
      launch_packed("products", work.pixels * NEIGHBOURS);
      launch("slopes", work.pixels, 1);
      launch_channels("pull");
    }
    return result;
  }

 private:
  const Tensor features;
  const KernelLauncher* kernels;
  PropagationWork work{};
  Tensor result;

  bool is_double() const { return features.scalar_type() == at::kDouble; }

  // [N, H, W, NEIGHBOURS].
  Tensor of_neighbours() const {
    return at::empty({features.size(0), features.size(2), features.size(3), NEIGHBOURS},
                     features.options());
  }

  // As many channels as 16 bytes hold, or one where addresses or channels do not divide accordingly.
  int64_t width() const {
    const int64_t width = 16 / static_cast<int64_t>(features.element_size());
    const auto addresses = reinterpret_cast<uintptr_t>(work.features) |
                           reinterpret_cast<uintptr_t>(work.gradient) |
                           reinterpret_cast<uintptr_t>(work.out);
    return work.channels % width == 0 && addresses % 16 == 0 ? width : 1;
  }

  void launch(const char* operation, int64_t threads, int64_t width) {
    if (threads == 0) return;
    const auto* kind = is_double() ? "_double_" : "_float_";
    const auto name = std::string("propagation_") + operation + kind + std::to_string(width);
    work.threads = threads;
    kernels->launch(name.c_str(), &work, threads, features);
  }

  void launch_packed(const char* operation, int64_t threads) { launch(operation, threads, width()); }

  void launch_channels(const char* operation) {
    launch(operation, work.pixels * (work.channels / width()), width());
  }
};

struct Propagate : torch::autograd::Function<Propagate> {
  static Tensor forward(AutogradContext* context, const Tensor& input, Form form) {
    const auto features = input.contiguous(at::MemoryFormat::ChannelsLast);
    auto made = Spreading(features, form).forward();
    context->save_for_backward({features, made[1]});
    context->saved_data["form"] = static_cast<int64_t>(form);
    return made[0];
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const auto saved = context->get_saved_variables();
    const auto form = static_cast<Form>(context->saved_data["form"].toInt());
    const auto gradient = gradients[0].contiguous(at::MemoryFormat::ChannelsLast);
    return {Spreading(saved[0], form).backward(gradient, saved[1]), Tensor()};
  }
};

}  // namespace

extern "C" {

// Features [N, C, H, W] as their neighbours' weighted means, through which the gradient flows.
char* scrimp_propagate(Tensor** out, Tensor* features, Form form) {
  return guarded([&] {
    TORCH_CHECK(features->dim() == 4, "expected features [N, C, H, W], found ", features->sizes());
    *out = new Tensor(is_served(*features, form) ? Propagate::apply(*features, form)
                                                 : spread_by_operations(*features));
  });
}

}  // extern "C"
