// The table of the kernels in device_kernels.h: from tensors to work, threads and scratch memory. How
// a kernel is found and started is the `Launcher`'s: a GPU's, or the host's for tests.
//
// A Launcher says `serve(x)`, `processors(x)`, how many multiprocessors are to be kept busy, and
// `launch(kernel, work, threads, x)`, which may return before the kernel has run.

#pragma once

#include <ATen/ATen.h>

#include <algorithm>
#include <cstdint>
#include <string>

#include "device_kernels.h"
#include "kernel_table.h"

namespace scrimp::device {

// Most threads per multiprocessor and least packs per thread. Each thread of a sum leaves two numbers
// per channel behind, which are to be far fewer than what it read.
struct Share {
  int64_t threads, packs;
};
constexpr Share OF_MOMENTS{384, 8}, OF_DEACTIVATION{768, 8}, OF_REST{2048, 4};

inline const char* element_name(at::ScalarType kind) {
  return kind == at::kBFloat16 ? "bfloat16" : kind == at::kDouble ? "double" : "float";
}

inline std::string kernel_name(const char* operation, at::ScalarType kind, int64_t width) {
  return std::string(operation) + "_" + element_name(kind) + "_" + std::to_string(width);
}

// As many elements as 16 bytes hold, or one where they do not lie or divide accordingly.
inline int64_t width_of(const at::Tensor& x, const ElementWork& work) {
  const int64_t width = 16 / x.element_size();
  const auto addresses = reinterpret_cast<uintptr_t>(work.x) |
                         reinterpret_cast<uintptr_t>(work.dy) |
                         reinterpret_cast<uintptr_t>(work.out);
  return work.channels % width == 0 && addresses % 16 == 0 ? width : 1;
}

// Threads for these many packs; together they take whole pixels.
inline int64_t threads_for(int64_t packs, int64_t packs_per_pixel, int64_t processors,
                           const Share& share) {
  const auto wanted = std::min((packs + share.packs - 1) / share.packs, processors * share.threads);
  const auto pixels = (wanted + packs_per_pixel - 1) / packs_per_pixel;
  return std::max<int64_t>(pixels, 1) * packs_per_pixel;
}

inline ElementWork work_on(const at::Tensor& x) {
  ElementWork work{};
  work.x = x.const_data_ptr();
  work.channels = x.size(1);
  work.elements = x.numel();
  work.sample = x.size(1) * x.size(2) * x.size(3);
  return work;
}

inline void apply(ElementWork& work, const Activation& activation) {
  work.coefficients = activation.coefficients.const_data_ptr<double>();
  work.slope = activation.slope;
  if (!activation.keys.defined()) return;
  work.keys = activation.keys.const_data_ptr<int64_t>();
  work.threshold = dropout_threshold(activation.dropout);
  work.kept = 1.0 / (1.0 - activation.dropout);
}

template <typename Launcher>
struct Table {
  static bool serve(const at::Tensor& x) {
    return has_kernels(x.scalar_type()) && Launcher::serve(x);
  }

  static std::string share_out(const char* operation, ElementWork& work, const at::Tensor& x,
                               const Share& share) {
    const auto width = width_of(x, work);
    work.threads = threads_for(work.elements / width, work.channels / width,
                               Launcher::processors(x), share);
    return kernel_name(operation, x.scalar_type(), width);
  }

  static void launch(const char* operation, ElementWork& work, const at::Tensor& x) {
    const auto kernel = share_out(operation, work, x, OF_REST);
    Launcher::launch(kernel, &work, work.threads, x);
  }

  // Launches a kernel that sums: the sums of each thread, float64 [2, pixels at a time, C].
  static at::Tensor sums(const char* operation, ElementWork& work, const at::Tensor& x,
                         const Share& share) {
    const auto kernel = share_out(operation, work, x, share);
    const auto pixels = work.threads * width_of(x, work) / work.channels;
    auto partial = at::empty({2, pixels, work.channels},
                             at::TensorOptions(at::kDouble).device(x.device()));
    work.partial = partial.template mutable_data_ptr<double>();
    Launcher::launch(kernel, &work, work.threads, x);
    return partial;
  }

  static void moments(const at::Tensor& x, const at::Tensor& total) {
    auto work = work_on(x);
    auto result = total.narrow(0, 0, 2 * work.channels).view({2, work.channels});
    at::sum_out(result, sums("moments", work, x, OF_MOMENTS), 1);
  }

  // A pointer to parameters, checked: what the kernel takes for granted.
  static void* parameters(const at::Tensor& tensor, at::ScalarType kind) {
    TORCH_CHECK((kind == at::kFloat || kind == at::kDouble) && tensor.scalar_type() == kind &&
                    tensor.is_contiguous(),
                "the tensors of normalised channels must be contiguous, and all f32 or all f64");
    return tensor.mutable_data_ptr();
  }

  static at::Tensor coefficients(const at::Tensor& total, const Channels& of, double momentum,
                                 double epsilon) {
    const auto kind = of.weight.scalar_type();
    auto rows = at::empty({4, of.weight.numel()}, total.options());
    ChannelWork work{};
    work.total = total.const_data_ptr<double>();
    work.weight = parameters(of.weight, kind);
    work.bias = parameters(of.bias, kind);
    work.absorbed = parameters(of.absorbed, kind);
    work.running_mean = parameters(of.running_mean, kind);
    work.running_var = parameters(of.running_var, kind);
    work.momentum = momentum;
    work.epsilon = epsilon;
    work.coefficients = rows.mutable_data_ptr<double>();
    work.threads = of.weight.numel();
    Launcher::launch(kernel_name("coefficients", kind, 1), &work, work.threads, total);
    return rows;
  }

  static at::Tensor activate(const at::Tensor& x, const Activation& activation) {
    auto y = at::empty_like(x);
    auto work = work_on(x);
    work.out = y.mutable_data_ptr();
    apply(work, activation);
    launch("activate", work, x);
    return y;
  }

  static Deactivated deactivate(const at::Tensor& x, const at::Tensor& dy,
                                const Activation& activation) {
    auto g = at::empty_like(x);
    auto work = work_on(x);
    work.dy = dy.const_data_ptr();
    work.out = g.mutable_data_ptr();
    apply(work, activation);
    return {g, sums("deactivate", work, x, OF_DEACTIVATION).sum(1)};
  }

  static Corrections corrections(const at::Tensor& own_sums, const at::Tensor& all_sums,
                                 const at::Tensor& total, const at::Tensor& coefficients,
                                 at::ScalarType kind) {
    const auto channels = coefficients.size(1);
    const auto options = total.options();
    Corrections result{at::empty({channels}, options.dtype(kind)),
                       at::empty({channels}, options.dtype(kind)), at::empty({2, channels}, options)};
    ChannelWork work{};
    work.total = total.const_data_ptr<double>();
    work.own_sums = own_sums.const_data_ptr<double>();
    work.all_sums = all_sums.const_data_ptr<double>();
    work.d_weight = result.d_weight.mutable_data_ptr();
    work.d_bias = result.d_bias.mutable_data_ptr();
    work.coefficients = coefficients.mutable_data_ptr<double>();
    work.corrections = result.rows.mutable_data_ptr<double>();
    work.threads = channels;
    Launcher::launch(kernel_name("corrections", kind, 1), &work, work.threads, total);
    return result;
  }

  static at::Tensor centre(const at::Tensor& x, const at::Tensor& coefficients,
                           const at::Tensor& corrections, const at::Tensor& g) {
    auto work = work_on(x);
    work.out = g.mutable_data_ptr();
    work.coefficients = coefficients.const_data_ptr<double>();
    work.corrections = corrections.const_data_ptr<double>();
    launch("centre", work, x);
    return g;
  }

  static at::Tensor normal(const at::Tensor& keys, const at::Tensor& like) {
    const auto shape = shape_of_normal(keys, like);
    auto values = at::empty(shape, like.options());
    if (values.numel() == 0) return values;
    ElementWork work{};
    work.out = values.mutable_data_ptr();
    work.keys = keys.const_data_ptr<int64_t>();
    work.elements = values.numel();
    work.sample = values.numel() / keys.numel();
    // No channels: an element at a time.
    work.channels = 1;
    launch("normal", work, like);
    return values;
  }

  static NeighbourSums neighbour_sums(const Neighbours& of) {
    const auto& p = of.probabilities;
    TORCH_CHECK(of.count <= MOST_TERMS, "the weight of a pair of pixels has at most ", MOST_TERMS,
                " terms here, found ", of.count);
    NeighbourSums result{at::empty_like(p), at::Tensor()};
    auto totals = at::empty({p.size(0), p.size(2) * p.size(3)}, p.options().dtype(at::kDouble));
    NeighbourWork work{};
    work.probabilities = p.const_data_ptr();
    work.image = of.image.const_data_ptr();
    if (of.source.defined()) {
      work.source = of.source.const_data_ptr();
      work.destination = of.destination.const_data_ptr();
    }
    work.sums = result.sums.mutable_data_ptr();
    work.totals = totals.template mutable_data_ptr<double>();
    for (int64_t term = 0; term < of.count; ++term) {
      work.weight[term] = of.kernels[term].weight;
      work.distance[term] = of.kernels[term].distance;
      work.intensity[term] = of.kernels[term].intensity;
    }
    work.terms = of.count;
    work.radius = of.radius;
    work.samples = p.size(0);
    work.channels = p.size(1);
    work.height = p.size(2);
    work.width = p.size(3);
    work.threads = totals.numel();
    if (work.threads > 0) {
      Launcher::launch(kernel_name("neighbours", p.scalar_type(), 4), &work, work.threads, p);
    }
    result.totals = totals.sum(1);
    return result;
  }

  static constexpr Kernels TABLE{serve,      moments,     coefficients, activate,
                                 deactivate, corrections, centre,       normal,
                                 neighbour_sums};
};

}  // namespace scrimp::device
