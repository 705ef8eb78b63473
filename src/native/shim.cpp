// The C ABI of src/native/mod.rs over libtorch; CPU headers only, links torch_cpu.
//
// Every function returns nullptr, or an error text that the caller frees with scrimp_free_text.
// Tensors cross the border as `at::Tensor*`, which is what tch holds.

#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/variable.h>

#include <malloc.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>

#include "device_table.h"
#include "guarded.h"
#include "kernel_launcher.h"
#include "kernel_table.h"
#include "kernels.h"
#include "neighbours.h"
#include "noise.h"
#include "plain_kernels.h"
#include "twin_launcher.h"

using at::Tensor;
using scrimp::Form;
using scrimp::guarded;

namespace {

// A sum over ranks that Rust owns; null where a rank is alone. The callback returns 0, or another number
// when it failed.
using SumFunction = int (*)(void* group, Tensor* tensor);
using DropFunction = void (*)(void* group);

struct Group final : torch::CustomClassHolder {
  void* handle;
  SumFunction sum_function;
  DropFunction drop_function;
  Form form;
  Group(void* handle, SumFunction sum_function, DropFunction drop_function, Form form)
      : handle(handle), sum_function(sum_function), drop_function(drop_function), form(form) {}
  ~Group() override {
    if (!is_alone()) drop_function(handle);
  }
  bool is_alone() const { return handle == nullptr; }
  void sum(Tensor& tensor) const {
    if (!is_alone() && sum_function(handle, &tensor) != 0) {
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

const scrimp::Kernels CPU_KERNELS{scrimp::host::serve,         scrimp::host::moments,
                                  scrimp::plain::coefficients, scrimp::host::statistics,
                                  scrimp::host::activate,      scrimp::host::deactivate,
                                  scrimp::host::centre,        scrimp::host::normal,
                                  scrimp::neighbour_sums};
std::atomic<const scrimp::Kernels*> device_kernels{nullptr};

const scrimp::Kernels& kernels_for(const Tensor& x, Form form) {
  if (form == Form::DeviceTwin) {
    const auto& twin = scrimp::device::Table<scrimp::device::HostLauncher>::TABLE;
    TORCH_CHECK(twin.serve(x), "kernels for devices run on the host with f32, f64 and bf16 only");
    return twin;
  }
  const auto* device = device_kernels.load();
  if (form == Form::Own && device != nullptr && device->serve(x)) return *device;
  if (form == Form::Own && CPU_KERNELS.serve(x)) return CPU_KERNELS;
  return scrimp::plain::TABLE;
}

// Keys where x is, or an undefined tensor.
Tensor keys_beside(const Tensor& x, const Tensor& keys) {
  if (!keys.defined()) return Tensor();
  TORCH_CHECK(keys.numel() == x.size(0) && keys.scalar_type() == at::kLong,
              "dropout needs one key of 64 bits per sample");
  return keys.to(x.device()).contiguous();
}

// What one normalisation needs beside its tensors; mirrored by `native::Normalisation` in Rust.
struct ScrimpNormalisation {
  double momentum, epsilon, slope, dropout;
  Form form;
};

// Places in an array of the tensors of the channels, as `channel_handles` in Rust fills it.
enum ScrimpChannel : int { WEIGHT, BIAS, ABSORBED, RUNNING_MEAN, RUNNING_VAR, BATCHES };

// What a normalisation in training uses and has no gradient for.
struct Surroundings {
  Tensor absorbed, running_mean, running_var, batches, keys;
  ScrimpNormalisation settings;
  c10::intrusive_ptr<Group> group;
};

at::MemoryFormat channels_last_of(const Tensor& x) {
  return x.dim() == 5 ? at::MemoryFormat::ChannelsLast3d : at::MemoryFormat::ChannelsLast;
}

// What kernels see: [N, C, H, W] in channels-last order. A volume [N, C, D, H, W] in that order is, without a
// copy, an image of D*H rows: kernels take every pixel alike.
Tensor as_rows(const Tensor& x) {
  TORCH_CHECK(x.dim() == 4 || x.dim() == 5,
              "expected features [N, C, H, W] or [N, C, D, H, W], found ", x.sizes());
  auto last = x.contiguous(channels_last_of(x));
  return x.dim() == 4 ? last : last.flatten(2, 3);
}

// Rows as the features that they were made of; they are nobody else's.
Tensor from_rows(const Tensor& rows, at::IntArrayRef sizes) {
  return sizes.size() == 4 ? rows : at::_unsafe_view(rows, sizes);
}

Tensor coefficients_over(const Group& group, const scrimp::Kernels& kernels, const Tensor& x,
                         const scrimp::Channels& of) {
  if (group.is_alone()) return kernels.statistics(x, of);
  auto total = kernels.moments(x);
  group.sum(total);
  return kernels.coefficients(total, of);
}

// Batch normalisation over all ranks, leaky rectification and dropout in one pass each way.
struct Normalise : torch::autograd::Function<Normalise> {
  static Tensor forward(torch::autograd::AutogradContext* context, const Tensor& input,
                        const Tensor& weight, const Tensor& bias, const Surroundings& with) {
    const auto& settings = with.settings;
    auto x = as_rows(input);
    const auto& kernels = kernels_for(x, settings.form);
    const scrimp::Channels of{weight,       bias,    with.absorbed,     with.running_mean, with.running_var,
                              with.batches, settings.momentum, settings.epsilon};
    auto coefficients = coefficients_over(*with.group, kernels, x, of);
    auto keys = keys_beside(x, with.keys);
    auto y = kernels.activate(x, {coefficients, keys, settings.slope, settings.dropout});
    context->save_for_backward({x, coefficients, keys});
    context->saved_data["slope"] = settings.slope;
    context->saved_data["dropout"] = settings.dropout;
    context->saved_data["group"] = c10::IValue::make_capsule(with.group);
    context->saved_data["parameters"] = static_cast<int64_t>(weight.scalar_type());
    return from_rows(y, input.sizes());
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list gradients) {
    const auto saved = context->get_saved_variables();
    const auto &x = saved[0], &coefficients = saved[1], &keys = saved[2];
    const auto slope = context->saved_data["slope"].toDouble();
    const auto dropout = context->saved_data["dropout"].toDouble();
    const auto group = group_of(context->saved_data["group"]);
    const auto parameters =
        static_cast<at::ScalarType>(context->saved_data["parameters"].toInt());
    const auto& kernels = kernels_for(x, group->form);
    auto dy = as_rows(gradients[0].to(x.scalar_type()));

    // The gradients of weight and bias are this rank's share; the learner sums them over ranks.
    auto [g, d_weight, d_bias, corrections] =
        kernels.deactivate(x, dy, {coefficients, keys, slope, dropout}, parameters);
    group->sum(corrections);
    Tensor none;
    auto dx = from_rows(kernels.centre(x, coefficients, corrections, g), gradients[0].sizes());
    return {dx, d_weight, d_bias, none};
  }
};

}  // namespace

extern "C" {

void scrimp_free_text(char* text) { free(text); }

// Training form. `keys` is null or int64 [N]; the counter of batches may be null too. Takes ownership of
// `group`, which is null where a rank normalises alone.
char* scrimp_normalise(Tensor** out, Tensor* x, Tensor* const* channels, Tensor* keys,
                       const ScrimpNormalisation* settings, void* group, SumFunction sum_function,
                       DropFunction drop_function) {
  auto holder = c10::make_intrusive<Group>(group, sum_function, drop_function, settings->form);
  return guarded([&] {
    const auto given = [](const Tensor* tensor) { return tensor == nullptr ? Tensor() : *tensor; };
    const Surroundings with{channels[ABSORBED]->detach(), *channels[RUNNING_MEAN],
                            *channels[RUNNING_VAR],       given(channels[BATCHES]),
                            given(keys),                  *settings,
                            holder};
    *out = new Tensor(Normalise::apply(*x, *channels[WEIGHT], *channels[BIAS], with));
  });
}

// Evaluation form with the running statistics; records no gradient.
char* scrimp_normalise_evaluate(Tensor** out, Tensor* x, Tensor* const* channels,
                                const ScrimpNormalisation* settings) {
  return guarded([&] {
    at::NoGradGuard no_grad;
    auto input = as_rows(*x);
    // Of the input alone.
    auto mean = channels[RUNNING_MEAN]->to(at::kDouble) - channels[ABSORBED]->to(at::kDouble);
    auto inverse_deviation = (channels[RUNNING_VAR]->to(at::kDouble) + settings->epsilon).rsqrt();
    auto scale = channels[WEIGHT]->to(at::kDouble) * inverse_deviation;
    auto shift = channels[BIAS]->to(at::kDouble) - mean * scale;
    auto coefficients = at::stack({mean, inverse_deviation, scale, shift});
    const auto& kernels = kernels_for(input, settings->form);
    auto y = kernels.activate(input, {coefficients, Tensor(), settings->slope, 0.0});
    *out = new Tensor(from_rows(y, x->sizes()));
  });
}

// Standard normal numbers [N, ...] of the precision and on the device of `like`, whose extents but
// the first they have; keys int64 [N].
char* scrimp_normal(Tensor** out, Tensor* keys, Tensor* like, Form form) {
  return guarded([&] {
    at::NoGradGuard no_grad;
    auto beside = keys->to(like->device()).contiguous();
    *out = new Tensor(kernels_for(*like, form).normal(beside, *like));
  });
}

// How the twin of devices runs from now on, for this thread; see `device::Arrangement`.
void scrimp_arrange_twin(int64_t processors, int64_t order) {
  scrimp::device::arrangement = {processors, order};
}

// From now on `Own` is these kernels for the tensors that they serve; null: it is not. The table
// outlives the process's last tensor.
void scrimp_use_device_kernels(const scrimp::Kernels* kernels) { device_kernels.store(kernels); }

// Lets the process keep and reuse the memory of activations. By default glibc returns blocks above
// 32 MiB to the system and pays for fresh pages at every step; large pages make what remains cheap.
//
// NCCL, of which a rank has a communicator for each of two streams, starts what both are given in the order
// of the calls, which is that of all ranks: started in two orders, each would wait for the other.
void scrimp_prepare_process() {
#ifdef __GLIBC__
  mallopt(M_MMAP_THRESHOLD, 1 << 30);
  mallopt(M_TRIM_THRESHOLD, 2147483647);
  mallopt(M_TOP_PAD, 64 << 20);
#endif
  setenv("THP_MEM_ALLOC_ENABLE", "1", 0);
  setenv("NCCL_LAUNCH_ORDER_IMPLICIT", "1", 0);
}

// From now on blocks of 36 MiB and more go back to the system when they are freed. Kept, the holes between blocks of
// many sizes, which volumes need, grow to three tenths of the process; fresh pages cost a tenth of a step.
void scrimp_return_large_blocks() {
#ifdef __GLIBC__
  mallopt(M_MMAP_THRESHOLD, 36 << 20);
#endif
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
    auto options = x->options().memory_format(channels_last_of(*x));
    *out = new Tensor(at::empty(x->sizes(), options).copy_(*x));
  });
}

// Whether there are kernels for sums over neighbours of such a tensor.
bool scrimp_sums_neighbours(const Tensor* probabilities, Form form) {
  return kernels_for(*probabilities, form).neighbour_sums != nullptr;
}

// Sums over neighbours: `out[0]` as the probabilities, [N, C, H, W] or [N, C, D, H, W], `out[1]` float64 [N].
// `radius` has three numbers, for slices, rows and columns. All tensors are contiguous, in one place and of one kind, float or double; `masks` is null, or the source's and
// the destination's. The caller has compared the shapes.
char* scrimp_neighbour_sums(Tensor** out, Tensor* const* inputs, Tensor* const* masks,
                            const scrimp::PairKernel* kernels, int64_t count, const int64_t* radius,
                            Form form) {
  return guarded([&] {
    at::NoGradGuard no_grad;
    const auto source = masks == nullptr ? Tensor() : *masks[0];
    const auto destination = masks == nullptr ? Tensor() : *masks[1];
    const auto function = kernels_for(*inputs[0], form).neighbour_sums;
    TORCH_CHECK(function != nullptr, "there are no kernels here for sums over neighbours");
    auto result = function({*inputs[0], *inputs[1], source, destination, kernels, count,
                            {radius[0], radius[1], radius[2]}});
    out[0] = new Tensor(std::move(result.sums));
    out[1] = new Tensor(std::move(result.totals));
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
