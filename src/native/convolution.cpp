// A convolution over volumes and what rectifies it, by oneDNN in one pass. Knows no layers.
//
// Every function returns nullptr, or an error text that the caller frees with scrimp_free_text.

#include <ATen/ATen.h>
#include <ATen/core/List.h>
#include <ATen/core/dispatch/Dispatcher.h>

#include <optional>
#include <string>
#include <vector>

#include "guarded.h"

using at::Tensor;
using scrimp::guarded;

namespace {

// libtorch's name for a convolution with what follows it on the CPU; it is there where oneDNN is.
std::optional<c10::OperatorHandle> fused_convolution() {
  static const auto found =
      c10::Dispatcher::singleton().findSchema({"mkldnn::_convolution_pointwise", ""});
  return found;
}

// ATen's own choice for one small volume on one thread is to unfold its neighbours into a matrix.
Tensor fused(const c10::OperatorHandle& convolution, const Tensor& x, const Tensor& weight,
             const Tensor& bias, const std::vector<int64_t>& padding, double slope) {
  const std::vector<int64_t> ones(padding.size(), 1);
  const auto format = at::MemoryFormat::ChannelsLast3d;
  c10::List<std::optional<at::Scalar>> numbers;
  if (slope != 1.0) numbers.push_back(at::Scalar(slope));
  std::vector<c10::IValue> stack{x.contiguous(format),
                                 weight.contiguous(format),
                                 bias,
                                 padding,
                                 ones,
                                 ones,
                                 int64_t{1},
                                 std::string(slope == 1.0 ? "none" : "leaky_relu"),
                                 numbers,
                                 std::string()};
  convolution.callBoxed(stack);
  return stack.at(0).toTensor();
}

}  // namespace

extern "C" {

// Leaky rectification (none with slope 1) of the convolution of [N, C, D, H, W] with odd taps, of equal
// extents; records no gradient.
char* scrimp_convolve_volumes(Tensor** out, const Tensor* x, const Tensor* weight, const Tensor* bias,
                              double slope) {
  return guarded([&] {
    at::NoGradGuard no_grad;
    TORCH_CHECK(x->dim() == 5 && weight->dim() == 5, "expected volumes [N, C, D, H, W], found ",
                x->sizes());
    std::vector<int64_t> padding;
    for (const auto taps : weight->sizes().slice(2)) padding.push_back(taps / 2);
    const auto convolution = fused_convolution();
    const bool is_served = x->device().is_cpu() && x->scalar_type() == at::kFloat &&
                           weight->scalar_type() == at::kFloat && x->numel() > 0;
    if (convolution && is_served) {
      *out = new Tensor(fused(*convolution, *x, *weight, bias->detach(), padding, slope));
      return;
    }
    auto y = at::conv3d(*x, *weight, *bias, 1, padding);
    *out = new Tensor(slope == 1.0 ? y : at::leaky_relu_(y, slope));
  });
}

}  // extern "C"
