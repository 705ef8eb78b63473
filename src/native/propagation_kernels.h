// Kernel bodies for devices: features that spread between neighbouring pixels which are alike, and the gradient of
// that. In one source that NVRTC compiles behind device_kernels.h and the host's compiler for the twin. Knows no
// tensors and no launches.
//
// Features lie in channels-last order, a row of channels for each pixel. No thread waits for another: what the
// threads of one pixel share, the weights of its neighbours, is left in memory by one kernel and read by the next.
// A gradient is gathered by the pixel that it belongs to, so that every sum has one order.

#ifndef SCRIMP_PROPAGATION_KERNELS_SOURCE
#define SCRIMP_PROPAGATION_KERNELS_SOURCE

#ifndef __CUDACC_RTC__
#include "device_kernels.h"
#endif

namespace scrimp::device {

// Neighbours of a pixel: a square of SIDE x SIDE pixels, itself in the middle, each DILATION from the next.
constexpr int SIDE = 5, DILATION = 2, NEIGHBOURS = SIDE * SIDE;
// The neighbour that sees the pixel where the pixel sees neighbour n is LAST - n.
constexpr int LAST = NEIGHBOURS - 1;

// Tensors of one type, float or double. What a kernel does not use may be null.
struct PropagationWork {
  // [N, H, W, C].
  const void* features;
  // What is multiplied with the neighbours' features: the features, or backward the gradient of the result.
  const void* compared;
  // The gradient of the result, [N, H, W, C].
  const void* gradient;
  // Weights of the neighbours, [N, H, W, NEIGHBOURS], with a minus where a neighbour gets its weight whatever its
  // features are: where these point away, or outside of the image.
  void* weights;
  // Products with the neighbours, and backward the gradient of the products, [N, H, W, NEIGHBOURS].
  void* products;
  // [N, H, W, C].
  void* out;
  int height, width;
  long pixels, channels;
  long threads;
};

// The pixel that is neighbour `number` of a pixel, or -1 outside of the image.
SCRIMP_INLINE long neighbour_at(const PropagationWork& work, long pixel, int number) {
  const int x = static_cast<int>(pixel % work.width);
  const int y = static_cast<int>(pixel / work.width % work.height);
  const int dx = (number % SIDE - SIDE / 2) * DILATION, dy = (number / SIDE - SIDE / 2) * DILATION;
  const bool is_inside = x + dx >= 0 && x + dx < work.width && y + dy >= 0 && y + dy < work.height;
  return is_inside ? pixel + static_cast<long>(dy) * work.width + dx : -1;
}

template <typename T>
SCRIMP_INLINE T magnitude(T value) {
  return value < T(0) ? -value : value;
}

// products <- <compared, features of the neighbour>, a thread for each neighbour of each pixel; 0 outside.
template <typename T, int Width>
SCRIMP_INLINE void propagation_products(const PropagationWork& work, long thread) {
  const long pixel = thread / NEIGHBOURS;
  const long other = neighbour_at(work, pixel, static_cast<int>(thread % NEIGHBOURS));
  T sums[Width] = {}, own[Width], theirs[Width];
  SCRIMP_UNROLL
  for (long channel = 0; other >= 0 && channel < work.channels; channel += Width) {
    load<T, Width>(work.compared, pixel * work.channels + channel, own);
    load<T, Width>(work.features, other * work.channels + channel, theirs);
    for (int lane = 0; lane < Width; ++lane) sums[lane] += own[lane] * theirs[lane];
  }
  T sum = 0;
  for (int lane = 0; lane < Width; ++lane) sum += sums[lane];
  static_cast<T*>(work.products)[thread] = sum;
}

// weights <- softmax over the neighbours of the products that are above 0, a thread for each pixel.
template <typename T, int>
SCRIMP_INLINE void propagation_weights(const PropagationWork& work, long thread) {
  const auto* products = static_cast<const T*>(work.products) + thread * NEIGHBOURS;
  auto* weights = static_cast<T*>(work.weights) + thread * NEIGHBOURS;
  T largest = 0, sum = 0;
  for (int n = 0; n < NEIGHBOURS; ++n) largest = products[n] > largest ? products[n] : largest;
  for (int n = 0; n < NEIGHBOURS; ++n) {
    const T product = products[n];
    const T weight = exp((product < T(0) ? T(0) : product) - largest);
    sum += weight;
    weights[n] = product > T(0) ? weight : -weight;
  }
  for (int n = 0; n < NEIGHBOURS; ++n) weights[n] /= sum;
}

// out <- the neighbours' features by their weights, a thread for each pack of channels of each pixel.
template <typename T, int Width>
SCRIMP_INLINE void propagation_blend(const PropagationWork& work, long thread) {
  const long packs = work.channels / Width, pixel = thread / packs, channel = thread % packs * Width;
  const auto* weights = static_cast<const T*>(work.weights) + pixel * NEIGHBOURS;
  T sums[Width] = {}, theirs[Width];
  for (int n = 0; n < NEIGHBOURS; ++n) {
    const long other = neighbour_at(work, pixel, n);
    if (other < 0) continue;
    const T weight = magnitude(weights[n]);
    load<T, Width>(work.features, other * work.channels + channel, theirs);
    for (int lane = 0; lane < Width; ++lane) sums[lane] += weight * theirs[lane];
  }
  store<T, Width>(work.out, pixel * work.channels + channel, sums);
}

// products <- the gradient of the products forward, of those of the gradient with the neighbours' features; a thread
// for each pixel.
template <typename T, int>
SCRIMP_INLINE void propagation_slopes(const PropagationWork& work, long thread) {
  auto* products = static_cast<T*>(work.products) + thread * NEIGHBOURS;
  const auto* weights = static_cast<const T*>(work.weights) + thread * NEIGHBOURS;
  T mean = 0;
  for (int n = 0; n < NEIGHBOURS; ++n) mean += magnitude(weights[n]) * products[n];
  for (int n = 0; n < NEIGHBOURS; ++n) {
    products[n] = weights[n] > T(0) ? weights[n] * (products[n] - mean) : T(0);
  }
}

// out <- the gradient of the features, a thread for each pack of channels of each pixel: as what looks around, as
// what is compared, and as what is passed on.
template <typename T, int Width>
SCRIMP_INLINE void propagation_pull(const PropagationWork& work, long thread) {
  const long packs = work.channels / Width, pixel = thread / packs, channel = thread % packs * Width;
  const auto *weights = static_cast<const T*>(work.weights), *slopes = static_cast<const T*>(work.products);
  T sums[Width] = {}, theirs[Width], gradient[Width];
  for (int n = 0; n < NEIGHBOURS; ++n) {
    const long other = neighbour_at(work, pixel, n);
    if (other < 0) continue;
    const long back = other * NEIGHBOURS + LAST - n;
    const T slope = slopes[pixel * NEIGHBOURS + n] + slopes[back], weight = magnitude(weights[back]);
    load<T, Width>(work.features, other * work.channels + channel, theirs);
    load<T, Width>(work.gradient, other * work.channels + channel, gradient);
    for (int lane = 0; lane < Width; ++lane) {
      sums[lane] += slope * theirs[lane] + weight * gradient[lane];
    }
  }
  store<T, Width>(work.out, pixel * work.channels + channel, sums);
}

// All kernels, as KERNEL(operation, Work, Element, Width): 16 bytes at a time, or one element.
#define SCRIMP_PROPAGATION_ALIKE(KERNEL, operation)    \
  KERNEL(operation, PropagationWork, float, 1)         \
  KERNEL(operation, PropagationWork, double, 1)
#define SCRIMP_PROPAGATION_PACKED(KERNEL, operation)   \
  KERNEL(operation, PropagationWork, float, 4)         \
  KERNEL(operation, PropagationWork, double, 2)        \
  SCRIMP_PROPAGATION_ALIKE(KERNEL, operation)
#define SCRIMP_PROPAGATION_KERNELS(KERNEL)             \
  SCRIMP_PROPAGATION_PACKED(KERNEL, propagation_products) \
  SCRIMP_PROPAGATION_ALIKE(KERNEL, propagation_weights)   \
  SCRIMP_PROPAGATION_PACKED(KERNEL, propagation_blend)    \
  SCRIMP_PROPAGATION_ALIKE(KERNEL, propagation_slopes)    \
  SCRIMP_PROPAGATION_PACKED(KERNEL, propagation_pull)

#ifdef __CUDACC_RTC__
SCRIMP_PROPAGATION_KERNELS(SCRIMP_GLOBAL)
#endif

}  // namespace scrimp::device

#endif
