// The C ABI of src/native/mod.rs over libtorch; CPU headers only, links torch_cpu.
//
// Every function returns nullptr, or an error text that the caller frees with scrimp_free_text.
// Tensors cross the border as `at::Tensor*`, which is what tch holds.

#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/variable.h>

#include <malloc.h>

#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>

#include "kernels.h"
#include "noise.h"
#include "neighbours.h"

using at::Tensor;

namespace {

// A sum over ranks that Rust owns: the callback returns 0, or another number when it failed.
using SumFunction = int (*)(void* group, Tensor* tensor);
using DropFunction = void (*)(void* group);

struct Group final : torch::CustomClassHolder {
  void* handle;
  SumFunction sum_function;
  DropFunction drop_function;
  bool portable;
  Group(void* handle, SumFunction sum_function, DropFunction drop_function, bool portable)
      : handle(handle), sum_function(sum_function), drop_function(drop_function), portable(portable) {}
  ~Group() override { drop_function(handle); }
  void sum(Tensor& tensor) const {
    if (sum_function(handle, &tensor) != 0) {
      throw std::runtime_error("a sum over ranks failed during batch normalisation");
    }
  }
};

// What Rust does when a gradient is there.
struct GradientHook final : torch::autograd::PostAccumulateGradHook {
  void* context;
  int (*call)(void*);
  DropFunction drop;
  GradientHook(void* context, int (*call)(void*), DropFunction drop)
      : context(context), call(call), drop(drop) {}
  GradientHook(const GradientHook&) = delete;
  GradientHook& operator=(const GradientHook&) = delete;
  ~GradientHook() override { drop(context); }
  void operator()(const torch::autograd::Variable&) override {
    if (call(context) != 0) throw std::runtime_error("what waits for a gradient failed");
  }
};

c10::intrusive_ptr<Group> group_of(const c10::IValue& value) {
  return c10::static_intrusive_pointer_cast<Group>(value.toCapsule());
}

// Random bits of random.rs `element_bits` by tensor operations, for devices without own kernels.
// 32-bit numbers in int64, so that products wrap at 64 bits and are cut to 32.
Tensor mix32(Tensor x) {
  constexpr int64_t mask = 0xffffffffLL;
  x = ((x.bitwise_xor(x.bitwise_right_shift(16))) * 0x7feb352dLL).bitwise_and(mask);
  x = ((x.bitwise_xor(x.bitwise_right_shift(15))) * 0x846ca68bLL).bitwise_and(mask);
  return x.bitwise_xor(x.bitwise_right_shift(16));
}

// Keep mask [N, C, H, W] of zeros and 1/(1-p); element index (h*W + w)*C + c within each sample.
Tensor dropout_scale(const Tensor& like, const Tensor& keys, double probability) {
  const auto n = like.size(0), c = like.size(1), h = like.size(2), w = like.size(3);
  auto key = keys.to(like.device()).view({n, 1, 1, 1});
  auto index = at::arange(h * w * c, key.options()).view({1, h, w, c});
  auto low = key.bitwise_and(0xffffffffLL), high = key.bitwise_right_shift(32).bitwise_and(0xffffffffLL);
  auto bits = mix32(mix32(index.bitwise_xor(low)).bitwise_xor(high));
  auto keep = bits.ge(static_cast<int64_t>(scrimp::dropout_threshold(probability)));
  return keep.to(like.scalar_type()).mul(1.0 / (1.0 - probability)).permute({0, 3, 1, 2});
}

// noise.h by tensor operations; keys int64 [N, 1].
Tensor normal_from(const Tensor& keys, int64_t count, at::ScalarType kind) {
  auto pair = at::arange(0, count, 2, keys.options()).view({1, -1});
  auto low = keys.bitwise_and(0xffffffffLL), high = keys.bitwise_right_shift(32).bitwise_and(0xffffffffLL);
  auto fraction = [&](const Tensor& index) {
    auto bits = mix32(mix32(index.bitwise_xor(low)).bitwise_xor(high));
    return bits.bitwise_right_shift(8).to(kind).mul(1.0 / 16777216.0);
  };
  auto radius = (1 - fraction(pair)).log().mul(-2).sqrt();
  auto angle = fraction(pair + 1).mul(scrimp::TWO_PI);
  return at::stack({radius * angle.cos(), radius * angle.sin()}, 2).flatten(1).narrow(1, 0, count);
}

// `portable` asks for plain tensor operations, as other devices use them.
bool has_kernels(const Tensor& x, bool portable) {
  const auto kind = x.scalar_type();
  return !portable && x.is_cpu() &&
         (kind == at::kFloat || kind == at::kDouble || kind == at::kBFloat16);
}

// In what numbers of this kind are computed with: half precision loses too much on the way.
at::ScalarType computed_in(at::ScalarType kind) {
  return kind == at::kBFloat16 || kind == at::kHalf ? at::kFloat : kind;
}

Tensor per_channel(const Tensor& v, const Tensor& like) {
  return v.to(like.scalar_type()).view({1, -1, 1, 1});
}

// [sum, sum of squares] per channel and the number of values per channel, float64 [2C + 1].
Tensor moments(const Tensor& x, bool portable) {
  const auto channels = x.size(1);
  auto total = at::zeros({2 * channels + 1}, x.options().dtype(at::kDouble));
  if (has_kernels(x, portable)) {
    scrimp::moments(x, total.data_ptr<double>());
  } else {
    auto wide = x.to(at::kDouble);
    total.narrow(0, 0, channels).copy_(wide.sum({0, 2, 3}));
    total.narrow(0, channels, channels).copy_(wide.square().sum({0, 2, 3}));
  }
  total[2 * channels].fill_(static_cast<double>(x.numel() / channels));
  return total;
}

// running <- running + share * (value - running), in double.
void move_towards(Tensor& running, const Tensor& value, const Tensor& share) {
  running.add_(((value - running.to(at::kDouble)) * share).to(running.scalar_type()));
}

// Batch normalisation over all ranks, leaky rectification and dropout in one pass each way.
struct Normalise : torch::autograd::Function<Normalise> {
  static Tensor forward(torch::autograd::AutogradContext* context, const Tensor& input,
                        const Tensor& weight, const Tensor& bias, Tensor running_mean,
                        Tensor running_var, const c10::optional<Tensor>& keys, double momentum,
                        double epsilon, double slope, double dropout, c10::IValue holder) {
    const auto group = group_of(holder);
    const auto channels = input.size(1);
    auto x = input.contiguous(at::MemoryFormat::ChannelsLast);
    auto total = moments(x, group->portable);
    group->sum(total);
    // A rank without samples that normalises alone leaves the running statistics as they are.
    auto moved = total[2 * channels].gt(0.0).to(at::kDouble) * momentum;
    auto count = total[2 * channels].clamp_min(1.0);
    auto mean = total.narrow(0, 0, channels) / count;
    auto variance = (total.narrow(0, channels, channels) / count - mean.square()).clamp_min(0.0);
    auto inverse_deviation = (variance + epsilon).rsqrt();
    move_towards(running_mean, mean, moved);
    auto unbiased = variance * (count / (count - 1.0).clamp_min(1.0));
    move_towards(running_var, unbiased, moved);

    auto scale = weight.to(at::kDouble) * inverse_deviation;
    auto shift = bias.to(at::kDouble) - mean * scale;
    auto y = activated(x, scale, shift, keys, slope, dropout, group->portable);
    context->save_for_backward({x, mean, inverse_deviation, scale, shift, count,
                                keys.has_value() ? *keys : Tensor()});
    context->saved_data["slope"] = slope;
    context->saved_data["dropout"] = dropout;
    context->saved_data["group"] = holder;
    return y;
  }

  static Tensor activated(const Tensor& x, const Tensor& scale, const Tensor& shift,
                          const c10::optional<Tensor>& keys, double slope, double dropout,
                          bool portable) {
    if (has_kernels(x, portable)) {
      auto y = at::empty_like(x);
      scrimp::Activation activation{scale.data_ptr<double>(), shift.data_ptr<double>(),
                                    keys.has_value() ? keys->data_ptr<int64_t>() : nullptr, slope,
                                    dropout};
      scrimp::activate(x, activation, y);
      return y;
    }
    auto wide = x.to(computed_in(x.scalar_type()));
    auto y = at::leaky_relu(wide * per_channel(scale, wide) + per_channel(shift, wide), slope);
    if (keys.has_value()) y = y * dropout_scale(wide, *keys, dropout);
    return y.to(x.scalar_type());
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list gradients) {
    const auto saved = context->get_saved_variables();
    const auto& x = saved[0];
    const auto &mean = saved[1], &inverse_deviation = saved[2], &scale = saved[3];
    const auto &shift = saved[4], &count = saved[5], &keys = saved[6];
    const auto slope = context->saved_data["slope"].toDouble();
    const auto dropout = context->saved_data["dropout"].toDouble();
    const auto group = group_of(context->saved_data["group"]);
    const auto channels = x.size(1);
    auto dy = gradients[0].to(x.scalar_type()).contiguous(at::MemoryFormat::ChannelsLast);
    const auto computed = computed_in(x.scalar_type());

    // g = dL/d(normalised and scaled); sums of g and of g*(x - mean) on this rank.
    auto sums = at::zeros({2 * channels}, x.options().dtype(at::kDouble));
    Tensor g;
    const bool kernels = has_kernels(x, group->portable);
    if (kernels) {
      g = at::empty_like(x);
      scrimp::Activation activation{scale.data_ptr<double>(), shift.data_ptr<double>(),
                                    keys.defined() ? keys.data_ptr<int64_t>() : nullptr, slope,
                                    dropout};
      scrimp::deactivate(x, dy, activation, mean.data_ptr<double>(), g, sums.data_ptr<double>());
    } else {
      auto input = x.to(computed), gradient = dy.to(computed);
      auto before = input * per_channel(scale, input) + per_channel(shift, input);
      g = at::where(before > 0, gradient, gradient * slope);
      if (keys.defined()) g = g * dropout_scale(input, keys, dropout);
      auto wide = g.to(at::kDouble);
      sums.narrow(0, 0, channels).copy_(wide.sum({0, 2, 3}));
      sums.narrow(0, channels, channels)
          .copy_((wide * (x.to(at::kDouble) - mean.view({1, -1, 1, 1}))).sum({0, 2, 3}));
    }
    // This rank's share of the gradients of weight and bias; the learner sums them over ranks.
    auto d_bias = sums.narrow(0, 0, channels).to(computed, false, true);
    auto d_weight = (sums.narrow(0, channels, channels) * inverse_deviation).to(computed);
    auto total = sums.clone();
    group->sum(total);
    auto offset = total.narrow(0, 0, channels) / count;
    auto tilt = total.narrow(0, channels, channels) * inverse_deviation.square() / count;
    if (kernels) {
      scrimp::centre(x, scale.data_ptr<double>(), mean.data_ptr<double>(),
                     offset.data_ptr<double>(), tilt.data_ptr<double>(), g);
    } else {
      auto centred = x.to(computed) - per_channel(mean, g);
      g = per_channel(scale, g) * (g - per_channel(offset, g) - centred * per_channel(tilt, g));
      g = g.to(x.scalar_type());
    }
    Tensor none;
    return {g, d_weight, d_bias, none, none, none, none, none, none, none, none};
  }
};

template <typename Body>
char* guarded(Body body) {
  try {
    body();
    return nullptr;
  } catch (const std::exception& error) {
    return strdup(error.what());
  } catch (...) {
    return strdup("unknown C++ exception");
  }
}

}  // namespace

extern "C" {

void scrimp_free_text(char* text) { free(text); }

// What one normalisation needs beside its tensors; mirrored by `native::Normalisation` in Rust.
struct ScrimpNormalisation {
  double momentum, epsilon, slope, dropout;
  bool portable;
};

// Training form. `keys` is null or int64 [N]. Takes ownership of `group`.
char* scrimp_normalise(Tensor** out, Tensor* x, Tensor* const* parameters, Tensor* keys,
                       const ScrimpNormalisation* settings, void* group, SumFunction sum_function,
                       DropFunction drop_function) {
  auto holder = c10::make_intrusive<Group>(group, sum_function, drop_function, settings->portable);
  return guarded([&] {
    c10::optional<Tensor> key_tensor;
    if (keys != nullptr) key_tensor = *keys;
    *out = new Tensor(Normalise::apply(*x, *parameters[0], *parameters[1], *parameters[2],
                                       *parameters[3], key_tensor, settings->momentum,
                                       settings->epsilon, settings->slope, settings->dropout,
                                       c10::IValue::make_capsule(holder)));
  });
}

// Evaluation form with the running statistics; records no gradient.
char* scrimp_normalise_evaluate(Tensor** out, Tensor* x, Tensor* const* parameters,
                                const ScrimpNormalisation* settings) {
  return guarded([&] {
    at::NoGradGuard no_grad;
    auto scale = parameters[0]->to(at::kDouble) *
                 (parameters[3]->to(at::kDouble) + settings->epsilon).rsqrt();
    auto shift = parameters[1]->to(at::kDouble) - parameters[2]->to(at::kDouble) * scale;
    *out = new Tensor(Normalise::activated(x->contiguous(at::MemoryFormat::ChannelsLast), scale,
                                           shift, c10::nullopt, settings->slope, 0.0,
                                           settings->portable));
  });
}

// Standard normal numbers [N, ...] of the precision and on the device of `like`, whose extents but
// the first they have; keys int64 [N] in CPU memory.
char* scrimp_normal(Tensor** out, Tensor* keys, Tensor* like, bool portable) {
  return guarded([&] {
    auto shape = like->sizes().vec();
    shape[0] = keys->numel();
    const auto count = c10::multiply_integers(shape.begin() + 1, shape.end());
    if (!has_kernels(*like, portable) || like->scalar_type() == at::kBFloat16) {
      auto column = keys->to(like->device()).view({-1, 1});
      auto values = normal_from(column, count, computed_in(like->scalar_type()));
      *out = new Tensor(values.to(like->scalar_type()).reshape(shape));
      return;
    }
    auto values = at::empty(shape, like->options());
    AT_DISPATCH_FLOATING_TYPES(values.scalar_type(), "normal", [&] {
      scrimp::fill_normal(keys->data_ptr<int64_t>(), shape[0], count, values.data_ptr<scalar_t>());
    });
    *out = new Tensor(values);
  });
}

// Lets the process keep and reuse the memory of activations. By default glibc returns blocks above
// 32 MiB to the system and pays for fresh pages at every step; large pages make what remains cheap.
void scrimp_keep_memory() {
#ifdef __GLIBC__
  mallopt(M_MMAP_THRESHOLD, 1 << 30);
  mallopt(M_TRIM_THRESHOLD, 2147483647);
  mallopt(M_TOP_PAD, 64 << 20);
#endif
  setenv("THP_MEM_ALLOC_ENABLE", "1", 0);
}

// Whether GPUs may shorten the factors of single-precision products to 10 bits of mantissa.
char* scrimp_allow_tf32(bool allowed) {
  return guarded([&] {
    at::globalContext().setAllowTF32CuBLAS(allowed);
    at::globalContext().setAllowTF32CuDNN(allowed);
  });
}

// A copy whose strides say channels-last even where there is one channel.
char* scrimp_channels_last(Tensor** out, Tensor* x) {
  return guarded([&] {
    auto options = x->options().memory_format(at::MemoryFormat::ChannelsLast);
    *out = new Tensor(at::empty(x->sizes(), options).copy_(*x));
  });
}

// Sums over neighbours: `out[0]` [N, C, H, W] as the probabilities, `out[1]` float64 [N]. All tensors
// are contiguous, on the CPU and of one kind, float or double; `masks` is null, or the source's and
// the destination's. The caller has compared the shapes.
char* scrimp_neighbour_sums(Tensor** out, Tensor* const* inputs, Tensor* const* masks,
                            const scrimp::PairKernel* kernels, int64_t count, int64_t radius) {
  return guarded([&] {
    at::NoGradGuard no_grad;
    const auto &probabilities = *inputs[0], &image = *inputs[1];
    const auto source = masks == nullptr ? Tensor() : *masks[0];
    const auto destination = masks == nullptr ? Tensor() : *masks[1];
    const std::vector<scrimp::PairKernel> list(kernels, kernels + count);
    auto sums = at::zeros_like(probabilities);
    auto total = at::zeros({probabilities.size(0)}, probabilities.options().dtype(at::kDouble));
    if (probabilities.scalar_type() == at::kFloat) {
      scrimp::neighbour_sums_typed<float>(probabilities, image, source, destination, list, radius,
                                          sums, total);
    } else {
      scrimp::neighbour_sums_typed<double>(probabilities, image, source, destination, list, radius,
                                           sums, total);
    }
    out[0] = new Tensor(sums);
    out[1] = new Tensor(total);
  });
}

// Calls `call` with `context` whenever backward has accumulated the gradient of `variable`, for as long
// as the variable lives; then `drop` frees the context. A result other than 0 becomes an exception.
char* scrimp_on_gradient(Tensor* variable, void* context, int (*call)(void*), void (*drop)(void*)) {
  return guarded([&] {
    auto hook = std::make_unique<GradientHook>(context, call, drop);
    torch::autograd::impl::set_post_acc_grad_hooks(*variable, std::move(hook));
  });
}

// Address, number of elements and scalar type of a CPU tensor; an error if it is not contiguous.
char* scrimp_cpu_memory(Tensor* tensor, void** address, int64_t* count, int* scalar_type) {
  return guarded([&] {
    if (!tensor->is_cpu()) throw std::runtime_error("the tensor is not in CPU memory");
    if (!tensor->is_contiguous()) throw std::runtime_error("the tensor is not contiguous");
    *address = tensor->mutable_data_ptr();
    *count = tensor->numel();
    *scalar_type = static_cast<int>(tensor->scalar_type());
  });
}
}
