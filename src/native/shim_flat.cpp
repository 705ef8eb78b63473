// The C ABI of src/native/flat.rs: flat tensors of gradients, weights and moments, in a few passes over memory.
//
// Every function returns nullptr, or an error text that the caller frees with scrimp_free_text. Compiled
// without contracting products and sums, so that every machine rounds alike.

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/utils/grad_layout_contract.h>

#include <cstring>
#include <string>
#include <vector>

#include "flat_kernels.h"
#include "flat_loops.h"
#include "guarded.h"
#include "kernel_launcher.h"

using at::Tensor;
using scrimp::Form;
using scrimp::guarded;
using scrimp::KernelLauncher;
using namespace scrimp::device;

namespace {

// Enough to keep any device busy.
constexpr long MOST_COPYING_THREADS = 1 << 18;

// For tests.
SCRIMP_TWIN(TWIN, SCRIMP_FLAT_KERNELS)

// Who works on a flat tensor: kernels, or with neither kernels nor loops plain tensor operations.
struct Way {
  const KernelLauncher* kernels;
  bool has_loops;
};

Way way_of(const Tensor& flat, Form form) {
  const auto kind = flat.scalar_type();
  if (form == Form::Plain || (kind != at::kFloat && kind != at::kDouble)) return {nullptr, false};
  const auto* kernels = scrimp::launcher_for(flat, form, TWIN);
  return {kernels, kernels == nullptr && flat.is_cpu()};
}

std::string kernel_name(const char* operation, const Tensor& flat, int64_t width) {
  const auto* element = flat.scalar_type() == at::kDouble ? "_double_" : "_float_";
  return operation + (element + std::to_string(width));
}

// As many elements as 16 bytes hold, or one where addresses or elements do not divide accordingly.
int64_t width_of(const Tensor& flat, std::initializer_list<const void*> addresses,
                 std::initializer_list<int64_t> elements) {
  const int64_t width = 16 / flat.element_size();
  for (const auto* address : addresses) {
    if (reinterpret_cast<uintptr_t>(address) % 16 != 0) return 1;
  }
  for (const auto count : elements) {
    if (count % width != 0) return 1;
  }
  return width;
}

// Launches a kernel in which each thread takes one pack of `elements`.
template <typename Work>
void launch_packed(const KernelLauncher& kernels, const char* operation, Work& work,
                   const Tensor& flat, int64_t width, int64_t elements) {
  work.threads = (elements + width - 1) / width;
  if (work.threads == 0) return;
  kernels.launch(kernel_name(operation, flat, width).c_str(), &work, work.threads, flat);
}

#define SCRIMP_BY_KIND(flat, function, ...)             \
  do {                                                  \
    if ((flat).scalar_type() == at::kFloat) {           \
      function<float>(__VA_ARGS__);                     \
    } else {                                            \
      function<double>(__VA_ARGS__);                    \
    }                                                   \
  } while (false)

void* address_of(const Tensor* tensor) {
  return tensor == nullptr ? nullptr : tensor->mutable_data_ptr();
}

// A half copy lies at half the address distance, so that packs of it are aligned where those of weights are.
bool is_aligned_half(const void* narrowed) { return reinterpret_cast<uintptr_t>(narrowed) % 8 == 0; }

// The gradient of a leaf or of its narrowed copy, which have none afterwards: undefined, or in the memory order
// of the leaf and of the kind of `flat` or in bfloat16.
Tensor taken_gradient(const Tensor& leaf, const Tensor* narrowed, const Tensor& flat) {
  using namespace torch::autograd::utils;
  Tensor gradient = std::move(leaf.mutable_grad());
  leaf.mutable_grad() = Tensor();
  if (narrowed != nullptr && narrowed->grad().defined()) {
    TORCH_CHECK(!gradient.defined(), "a weight and its narrowed copy both have a gradient");
    gradient = std::move(narrowed->mutable_grad());
    narrowed->mutable_grad() = Tensor();
  }
  if (!gradient.defined()) return gradient;
  const auto kind = gradient.scalar_type();
  if (kind != flat.scalar_type() && kind != at::kBFloat16) gradient = gradient.to(flat.scalar_type());
  return obeys_layout_contract(gradient, leaf) ? gradient : clone_obey_contract(gradient, leaf);
}

void gather_by_operations(const Tensor& to, const Tensor& leaf, int64_t start, const Tensor& gradient,
                          bool adds) {
  auto place = to.as_strided(leaf.sizes(), leaf.strides(), to.storage_offset() + start);
  if (!gradient.defined()) {
    if (!adds) place.zero_();
  } else if (adds) {
    place.add_(gradient);
  } else {
    place.copy_(gradient);
  }
}

void gather_pieces(const Way& way, const Tensor& flat, GatherWork& work) {
  if (way.kernels == nullptr) {
    SCRIMP_BY_KIND(flat, scrimp::flat_loops::gather, work);
    return;
  }
  const auto width = width_of(flat, {work.to}, {work.first, work.end});
  launch_packed(*way.kernels, "gather", work, flat, width, work.end - work.first);
}

}  // namespace

extern "C" {

// The tensors of one update, flat and alike but for the last four; mirrored by `native::flat` in Rust.
struct ScrimpDescent {
  const Tensor *weights, *gradients;
  // The second, the copy in bfloat16 and the shares may be null.
  const Tensor *first, *second, *narrowed, *shares;
  // f64, 0-dimensional; f64 [1 or 4]; 0-dimensional as the weights; 0-dimensional bool.
  const Tensor *squares, *factors, *norm, *finite;
  double clip, decay, of_first, of_second, epsilon, ahead;
};

// Whether the functions below work on such a tensor otherwise than by plain tensor operations.
bool scrimp_flat_serves(const Tensor* flat, Form form) {
  const auto way = way_of(*flat, form);
  return way.kernels != nullptr || way.has_loops;
}

// One step of SGD or, with a second moment, of Adam, where scrimp_flat_serves.
char* scrimp_flat_descend(const ScrimpDescent* of, Form form) {
  return guarded([&] {
    const auto& weights = *of->weights;
    const auto way = way_of(weights, form);
    DescentWork work{};
    work.weights = weights.mutable_data_ptr();
    work.gradients = of->gradients->const_data_ptr();
    work.first = of->first->mutable_data_ptr();
    work.second = address_of(of->second);
    work.narrowed = address_of(of->narrowed);
    work.shares = static_cast<const bool*>(address_of(of->shares));
    work.squares = of->squares->const_data_ptr<double>();
    work.factors = of->factors->const_data_ptr<double>();
    work.norm = of->norm->mutable_data_ptr();
    work.finite = of->finite->mutable_data_ptr<bool>();
    work.clip = of->clip;
    work.decay = of->decay;
    work.of_first = of->of_first;
    work.of_second = of->of_second;
    work.epsilon = of->epsilon;
    work.ahead = of->ahead;
    work.elements = weights.numel();
    const bool is_adam = work.second != nullptr;
    if (way.kernels == nullptr) {
      if (weights.scalar_type() == at::kFloat) {
        is_adam ? scrimp::flat_loops::descend<float, true>(work)
                : scrimp::flat_loops::descend<float, false>(work);
      } else {
        is_adam ? scrimp::flat_loops::descend<double, true>(work)
                : scrimp::flat_loops::descend<double, false>(work);
      }
      return;
    }
    auto width = width_of(weights, {work.weights, work.gradients, work.first, work.second},
                          {work.elements});
    if (!is_aligned_half(work.narrowed)) width = 1;
    // A rank without weights of its own learns the norm all the same.
    work.threads = std::max<int64_t>((work.elements + width - 1) / width, 1);
    const auto name = kernel_name(is_adam ? "descend_adam" : "descend_sgd", weights, width);
    way.kernels->launch(name.c_str(), &work, work.threads, weights);
  });
}

// weights <- leader + keep*(weights - leader) where `finite`, with the copy in bfloat16 or null.
char* scrimp_flat_follow(const Tensor* weights, const Tensor* leader, const Tensor* narrowed,
                         const Tensor* keep, const Tensor* finite, Form form) {
  return guarded([&] {
    FollowWork work{};
    work.weights = weights->mutable_data_ptr();
    work.leader = leader->const_data_ptr();
    work.narrowed = address_of(narrowed);
    work.keep = keep->const_data_ptr<double>();
    work.finite = finite->const_data_ptr<bool>();
    work.elements = weights->numel();
    const auto way = way_of(*weights, form);
    if (way.kernels == nullptr) {
      SCRIMP_BY_KIND(*weights, scrimp::flat_loops::follow, work);
      return;
    }
    auto width = width_of(*weights, {work.weights, work.leader}, {work.elements});
    if (!is_aligned_half(work.narrowed)) width = 1;
    launch_packed(*way.kernels, "follow", work, *weights, width, work.elements);
  });
}

// The sums of the squares, f64 [count], of the shares from `first` on of a flat tensor that is divided among
// `ranks`: each has the same bits whichever are asked for together.
char* scrimp_flat_squares(Tensor** out, const Tensor* flat, int64_t ranks, int64_t first,
                          int64_t count, Form form) {
  return guarded([&] {
    c10::NoGradGuard no_grad;
    SquaresWork work{};
    work.from = flat->const_data_ptr();
    work.size = flat->numel() / ranks;
    work.larger = flat->numel() % ranks;
    work.first = first;
    work.shares = count;
    const auto options = at::TensorOptions(at::kDouble).device(flat->device());
    const auto way = way_of(*flat, form);
    if (way.kernels != nullptr) {
      // Enough threads for the largest device, and some elements for each.
      work.parts = std::clamp<int64_t>(work.size / 16, 1, 16384);
      work.threads = work.shares * work.parts;
      auto sums = at::empty({work.shares, work.parts}, options);
      work.sums = sums.mutable_data_ptr<double>();
      const auto name = kernel_name("squares", *flat, 1);
      way.kernels->launch(name.c_str(), &work, work.threads, *flat);
      *out = new Tensor(sums.sum(1));
      return;
    }
    auto sums = at::empty({count}, options);
    if (way.has_loops) {
      work.sums = sums.mutable_data_ptr<double>();
      SCRIMP_BY_KIND(*flat, scrimp::flat_loops::squares, work);
    } else {
      for (int64_t share = 0; share < count; ++share) {
        const auto number = first + share;
        const auto start = number * work.size + std::min<int64_t>(number, work.larger);
        const auto length = work.size + (number < work.larger ? 1 : 0);
        sums[share].copy_(flat->narrow(0, start, length).to(at::kDouble).square().sum());
      }
    }
    *out = new Tensor(sums);
  });
}

// Lets leaves have no gradient.
char* scrimp_flat_forget(Tensor* const* leaves, int64_t count) {
  return guarded([&] {
    for (int64_t leaf = 0; leaf < count; ++leaf) leaves[leaf]->mutable_grad() = Tensor();
  });
}

// Copies whole tensors from some to others, where the condition, a bool or null, is not true. All are contiguous,
// in one place, and in pairs alike; their bytes divide by 4.
char* scrimp_flat_copy(Tensor* const* to, Tensor* const* from, int64_t count, const Tensor* unless,
                       Form form) {
  return guarded([&] {
    if (count == 0) return;
    const auto* kernels = scrimp::launcher_for(*to[0], form, TWIN);
    const bool is_plain = form == Form::Plain || (kernels == nullptr && !to[0]->is_cpu());
    for (int64_t tensor = 0; tensor < count && is_plain; ++tensor) {
      to[tensor]->copy_(unless == nullptr ? *from[tensor]
                                          : at::where(*unless, *to[tensor], *from[tensor]));
    }
    for (int64_t begin = 0; begin < count && !is_plain; begin += MOST_TENSORS) {
      CopyWork work{};
      work.tensors = static_cast<int>(std::min<int64_t>(MOST_TENSORS, count - begin));
      if (unless != nullptr) work.unless = unless->const_data_ptr<bool>();
      for (int tensor = 0; tensor < work.tensors; ++tensor) {
        work.to[tensor] = to[begin + tensor]->mutable_data_ptr();
        work.from[tensor] = from[begin + tensor]->const_data_ptr();
        work.start[tensor + 1] =
            work.start[tensor] + static_cast<long>(to[begin + tensor]->nbytes() / sizeof(int32_t));
      }
      work.threads = std::min<long>(work.start[work.tensors], MOST_COPYING_THREADS);
      if (kernels == nullptr) {
        scrimp::flat_loops::copy_words(work);
      } else if (work.threads > 0) {
        kernels->launch("copy_words_int_1", &work, work.threads, *to[begin]);
      }
    }
  });
}

// Puts the gradients of leaves or of their narrowed copies, null where there is none, to their places in a flat
// tensor, or adds them to what is there; they have none afterwards. A leaf begins at its start, a multiple of
// 16 elements; zeros lie behind it up to the next, and behind the last up to `end`. What has no gradient gets
// zeros.
char* scrimp_flat_gather(const Tensor* flat, Tensor* const* leaves, Tensor* const* narrowed,
                         const int64_t* starts, int64_t count, int64_t end, bool adds, Form form) {
  return guarded([&] {
    c10::NoGradGuard no_grad;
    const auto way = way_of(*flat, form);
    for (int64_t begin = 0; begin < count; begin += MOST_PIECES) {
      const auto pieces = std::min<int64_t>(MOST_PIECES, count - begin);
      // Alive until the work is enqueued; what a device reads then is not given away before.
      std::vector<Tensor> gradients;
      GatherWork work{};
      for (int64_t piece = 0; piece < pieces; ++piece) {
        const auto& leaf = *leaves[begin + piece];
        gradients.push_back(taken_gradient(leaf, narrowed[begin + piece], *flat));
        const auto& gradient = gradients.back();
        work.start[piece] = starts[begin + piece];
        work.count[piece] = static_cast<int>(leaf.numel());
        if (way.kernels == nullptr && !way.has_loops) {
          gather_by_operations(*flat, leaf, work.start[piece], gradient, adds);
        } else if (gradient.defined()) {
          work.from[piece] = gradient.const_data_ptr();
          work.is_half[piece] = gradient.scalar_type() == at::kBFloat16;
        }
      }
      if (way.kernels == nullptr && !way.has_loops) continue;
      work.to = flat->mutable_data_ptr();
      work.pieces = static_cast<int>(pieces);
      work.adds = adds;
      work.first = work.start[0];
      work.end = begin + pieces < count ? starts[begin + pieces] : end;
      gather_pieces(way, *flat, work);
    }
  });
}
}
