// The table of the kernels in device_kernels.h: from tensors to work, threads and scratch memory. How
// a kernel is found and started is the `Launcher`'s: a GPU's, or the host's for tests.
//
// A Launcher says `serve(x)`, `processors(x)`, how many multiprocessors are to be kept busy, and
// `launch(kernel, work, threads, x)`, which may return before the kernel has run. For kernels that sum it
// has `launch_sum(kernel, work, groups, x)`, `scratch(count, x)`, doubles of any value, and `done(x)`, the
// counters of SumWork, which are those of one device: such kernels run one after the other there.

#pragma once

#include <ATen/ATen.h>

#include <algorithm>
#include <cstdint>
#include <string>

#include "device_kernels.h"
#include "kernel_table.h"

namespace scrimp::device {

// Most threads per multiprocessor, and least packs per thread.
constexpr int64_t MOST_THREADS = 2048, LEAST_PACKS = 4;
// Most extents of maps whose neighbours are summed: twice the square of one is an integer.
constexpr int64_t MOST_PIXELS_ALONG = 1 << 15;

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

// Rounded up.
inline int64_t quotient(int64_t number, int64_t divisor) { return (number + divisor - 1) / divisor; }

// Threads for these many packs; together they take whole pixels.
inline int64_t threads_for(int64_t packs, int64_t packs_per_pixel, int64_t processors) {
  const auto wanted = std::min(quotient(packs, LEAST_PACKS), processors * MOST_THREADS);
  const auto pixels = quotient(wanted, packs_per_pixel);
  return std::max<int64_t>(pixels, 1) * packs_per_pixel;
}

inline at::TensorOptions doubles_beside(const at::Tensor& x) {
  return at::TensorOptions(at::kDouble).device(x.device());
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

  static void launch(const char* operation, ElementWork& work, const at::Tensor& x) {
    const auto width = width_of(x, work);
    work.threads =
        threads_for(work.elements / width, work.channels / width, Launcher::processors(x));
    Launcher::launch(kernel_name(operation, x.scalar_type(), width), &work, work.threads, x);
  }

  // Launches a kernel that sums, in groups of channels that are alike in size and blocks that all run at
  // once.
  static void launch_sum(const char* operation, SumWork& work, const at::Tensor& x) {
    const auto width = width_of(x, work.elements), packs = work.elements.channels / width;
    const auto least = quotient(packs, GROUP_BYTES / (width * x.element_size()));
    work.columns = static_cast<int>(quotient(packs, least));
    const auto groups = quotient(packs, work.columns);
    TORCH_CHECK(groups <= MOST_GROUPS, "too many channels to normalise: ", work.elements.channels);
    work.pixels = work.elements.elements / work.elements.channels;
    const int64_t rows = SUM_THREADS / work.columns;
    const auto most = std::max<int64_t>(Launcher::processors(x) * SUM_BLOCKS / groups, 1);
    work.blocks = std::clamp<int64_t>(quotient(work.pixels, rows * LEAST_PACKS), 1, most);
    auto partial = Launcher::scratch(groups * work.blocks * 2 * work.columns * width, x);
    work.partial = partial.template mutable_data_ptr<double>();
    work.done = Launcher::done(x);
    Launcher::launch_sum(kernel_name(operation, x.scalar_type(), width), work, groups, x);
  }

  // A pointer to parameters, checked: what the kernel takes for granted.
  static void* parameters(const at::Tensor& tensor, at::ScalarType kind) {
    TORCH_CHECK((kind == at::kFloat || kind == at::kDouble) && tensor.scalar_type() == kind &&
                    tensor.is_contiguous(),
                "the tensors of normalised channels must be contiguous, and all f32 or all f64");
    return tensor.mutable_data_ptr();
  }

  static ChannelWork work_on_channels(const Channels& of, const at::Tensor& coefficients) {
    const auto kind = of.weight.scalar_type();
    ChannelWork work{};
    work.weight = parameters(of.weight, kind);
    work.bias = parameters(of.bias, kind);
    work.absorbed = parameters(of.absorbed, kind);
    work.running_mean = parameters(of.running_mean, kind);
    work.running_var = parameters(of.running_var, kind);
    work.are_double = kind == at::kDouble;
    if (of.batches.defined()) work.batches = of.batches.template mutable_data_ptr<int64_t>();
    work.momentum = of.momentum;
    work.epsilon = of.epsilon;
    work.coefficients = coefficients.template mutable_data_ptr<double>();
    return work;
  }

  static at::Tensor moments(const at::Tensor& x) {
    auto total = at::empty({2 * x.size(1) + 1}, doubles_beside(x));
    SumWork work{};
    work.elements = work_on(x);
    work.channels.total = total.template mutable_data_ptr<double>();
    launch_sum("moments", work, x);
    return total;
  }

  static at::Tensor coefficients(const at::Tensor& total, const Channels& of) {
    auto rows = at::empty({ROWS, of.weight.numel()}, total.options());
    auto work = work_on_channels(of, rows);
    work.total = total.mutable_data_ptr<double>();
    work.threads = of.weight.numel();
    Launcher::launch("coefficients_double_1", &work, work.threads, total);
    return rows;
  }

  static at::Tensor statistics(const at::Tensor& x, const Channels& of) {
    auto rows = at::empty({ROWS, x.size(1)}, doubles_beside(x));
    SumWork work{};
    work.elements = work_on(x);
    work.channels = work_on_channels(of, rows);
    launch_sum("moments", work, x);
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
                                const Activation& activation, at::ScalarType parameters) {
    const auto channels = x.size(1);
    const auto doubles = doubles_beside(x);
    Deactivated result{at::empty_like(x), at::empty({channels}, doubles.dtype(parameters)),
                       at::empty({channels}, doubles.dtype(parameters)),
                       at::empty({2, channels}, doubles)};
    SumWork work{};
    work.elements = work_on(x);
    work.elements.dy = dy.const_data_ptr();
    work.elements.out = result.g.mutable_data_ptr();
    apply(work.elements, activation);
    work.channels.coefficients = activation.coefficients.template mutable_data_ptr<double>();
    work.channels.are_double = parameters == at::kDouble;
    work.channels.d_weight = result.d_weight.mutable_data_ptr();
    work.channels.d_bias = result.d_bias.mutable_data_ptr();
    work.channels.corrections = result.corrections.template mutable_data_ptr<double>();
    launch_sum("deactivate", work, x);
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
    const auto pixels = of.depth() * of.height() * of.width();
    auto totals = at::empty({p.size(0), pixels}, p.options().dtype(at::kDouble));
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
      work.slices[term] = of.kernels[term].slices;
      work.intensity[term] = of.kernels[term].intensity;
    }
    // No further than the extents, so that squares of offsets are integers.
    const int64_t extents[3] = {of.depth(), of.height(), of.width()};
    TORCH_CHECK(*std::max_element(extents, extents + 3) <= MOST_PIXELS_ALONG && p.size(1) <= MOST_PIXELS_ALONG,
                "neighbours are summed in at most ", MOST_PIXELS_ALONG,
                " channels, slices, rows and columns here, found ", p.sizes());
    for (int axis = 0; axis < 3; ++axis) {
      work.radius[axis] = static_cast<int>(std::min(of.radius[axis], extents[axis] - 1));
    }
    work.terms = static_cast<int>(of.count);
    work.samples = p.size(0);
    work.channels = static_cast<int>(p.size(1));
    work.depth = static_cast<int>(of.depth());
    work.height = static_cast<int>(of.height());
    work.width = static_cast<int>(of.width());
    work.threads = totals.numel();
    if (work.threads > 0) {
      Launcher::launch(kernel_name("neighbours", p.scalar_type(), 4), &work, work.threads, p);
    }
    result.totals = totals.sum(1);
    return result;
  }

  static constexpr Kernels TABLE{serve,      moments, coefficients, statistics,    activate,
                                 deactivate, centre,  normal,       neighbour_sums};
};

}  // namespace scrimp::device
