// Kernel bodies for devices: normalisation, rectification, dropout, noise and sums over neighbours, in one
// source that NVRTC compiles for a GPU and the host's compiler for its twin. Knows no tensors and no launches.
//
// Here no thread waits for another or shares memory with it, so that on the host a kernel is a loop over
// thread numbers, and neighbouring threads read neighbouring memory. What threads do together stands in
// device_sums.h.

#ifndef SCRIMP_DEVICE_KERNELS
#define SCRIMP_DEVICE_KERNELS

#include "device_elements.h"
#include "device_sums.h"

namespace scrimp::device {

// Most terms of the weight of a pair of pixels.
constexpr int MOST_TERMS = 8;

// Work on pixels. Planar tensors of one type, float or double: probabilities and sums [N, C, D, H, W], the
// others [N, 1, D, H, W], where images have D = 1; source and destination are both null where every pixel counts.
struct NeighbourWork {
  const void *probabilities, *image, *source, *destination;
  void* sums;
  // The weights of all neighbours of a pixel, [N, D, H, W].
  double* totals;
  // Term t is weight * exp(-distance*(dx^2 + dy^2) - slices*dz^2 - intensity*(difference of intensities)^2).
  double weight[MOST_TERMS], distance[MOST_TERMS], slices[MOST_TERMS], intensity[MOST_TERMS];
  int terms;
  // In slices, rows and columns.
  int radius[3];
  int channels, depth, height, width;
  long samples;
  long threads;
};

// out <- dropout(leaky(x*scale + shift))
template <typename Element, int Width>
SCRIMP_INLINE void activate(const ElementWork& work, long thread) {
  using T = Computed<Element>;
  const auto slope = static_cast<T>(work.slope);
  const long start = thread * Width, step = work.threads * Width, channel = start % work.channels;
  T scale[Width], shift[Width], values[Width];
  load_channels<Width>(work.coefficients + SCALE * work.channels, channel, scale);
  load_channels<Width>(work.coefficients + SHIFT * work.channels, channel, shift);
  auto position = position_of(work, start);
  for (long first = start; first < work.elements; first += step) {
    load<Element, Width>(work.x, first, values);
    for (int lane = 0; lane < Width; ++lane) {
      const T v = values[lane] * scale[lane] + shift[lane];
      values[lane] = v > 0 ? v : v * slope;
    }
    drop<Width>(work, step, position, values);
    store<Element, Width>(work.out, first, values);
  }
}

// out <- scale*(out - offset - (x - mean)*tilt)
template <typename Element, int Width>
SCRIMP_INLINE void centre(const ElementWork& work, long thread) {
  using T = Computed<Element>;
  const long start = thread * Width, step = work.threads * Width, channel = start % work.channels;
  T mean[Width], scale[Width], offset[Width], tilt[Width], x[Width], g[Width];
  load_channels<Width>(work.coefficients + MEAN * work.channels, channel, mean);
  load_channels<Width>(work.coefficients + SCALE * work.channels, channel, scale);
  load_channels<Width>(work.corrections, channel, offset);
  load_channels<Width>(work.corrections + work.channels, channel, tilt);
  for (long first = start; first < work.elements; first += step) {
    load<Element, Width>(work.x, first, x);
    load<Element, Width>(work.out, first, g);
    for (int lane = 0; lane < Width; ++lane) {
      g[lane] = scale[lane] * (g[lane] - offset[lane] - (x[lane] - mean[lane]) * tilt[lane]);
    }
    store<Element, Width>(work.out, first, g);
  }
}

// 24 of 32 random bits as a fraction in [0, 1), exact in single precision.
template <typename T>
SCRIMP_INLINE T fraction(unsigned bits) {
  return static_cast<T>(bits >> 8) * static_cast<T>(1.0 / 16777216.0);
}

constexpr double TWO_PI = 6.283185307179586;

// Elements `index`, which is even, and `index + 1` of a sample: standard normal numbers by Box and
// Muller from the random bits of both.
template <typename T>
SCRIMP_INLINE void normal_pair(unsigned long key, unsigned index, T* pair) {
  // From the other end of [0, 1), so that the logarithm is finite.
  const T radius = sqrt(-2 * log(1 - fraction<T>(element_bits(key, index))));
  const T angle = static_cast<T>(TWO_PI) * fraction<T>(element_bits(key, index + 1));
  pair[0] = radius * cos(angle);
  pair[1] = radius * sin(angle);
}

// out <- standard normal numbers, sample after sample.
template <typename Element, int>
SCRIMP_INLINE void normal(const ElementWork& work, long thread) {
  const long pairs = (work.sample + 1) / 2, samples = work.elements / work.sample;
  auto* out = static_cast<Element*>(work.out);
  for (long number = thread; number < samples * pairs; number += work.threads) {
    const long sample = number / pairs, index = 2 * (number % pairs);
    Computed<Element> pair[2];
    const auto key = static_cast<unsigned long>(work.keys[sample]);
    normal_pair(key, static_cast<unsigned>(index), pair);
    narrow(pair[0], out[sample * work.sample + index]);
    if (index + 1 < work.sample) narrow(pair[1], out[sample * work.sample + index + 1]);
  }
}

// Squares of the offset between two pixels: within a slice, and between slices.
struct Apart {
  int squared, slices;
};

// The weight of two pixels, both as places in a tensor with one channel.
template <typename T>
SCRIMP_INLINE T pair_weight(const NeighbourWork& work, long place, long other, Apart apart) {
  const auto* image = static_cast<const T*>(work.image);
  const T difference = image[place] - image[other];
  T weight = 0;
  for (int term = 0; term < work.terms; ++term) {
    const auto far =
        static_cast<T>(work.distance[term] * apart.squared + work.slices[term] * apart.slices);
    const auto unlike = static_cast<T>(work.intensity[term]) * difference * difference;
    weight += static_cast<T>(work.weight[term]) * exp(-far - unlike);
  }
  if (work.source == nullptr) return weight;
  const auto *from = static_cast<const T*>(work.source), *to = static_cast<const T*>(work.destination);
  // Half of the two directions together, because both pixels get the same weight.
  return weight * T(0.5) * (to[place] * from[other] + to[other] * from[place]);
}

// sums <- weighted sums of the neighbours' probabilities, `Width` channels at a time.
template <typename T, int Width>
SCRIMP_INLINE void neighbours(const NeighbourWork& work, long thread) {
  const long volume = static_cast<long>(work.depth) * work.height * work.width;
  const int rows = 2 * work.radius[1] + 1;
  for (long pixel = thread; pixel < work.samples * volume; pixel += work.threads) {
    const int x = static_cast<int>(pixel % work.width);
    const int y = static_cast<int>(pixel / work.width % work.height);
    const int z = static_cast<int>(pixel % volume / work.width / work.height);
    const int first = x < work.radius[2] ? -x : -work.radius[2];
    const int right = work.width - 1 - x, last = right < work.radius[2] ? right : work.radius[2];
    for (int channel = 0; channel < work.channels; channel += Width) {
      // Where the pixel lies in the maps of these channels, less where it lies in the image.
      const long shift = (pixel / volume * (work.channels - 1) + channel) * volume;
      T sums[Width] = {};
      double total = 0.0;
      // Loops within each other would hold more in registers.
      for (int row = 0; row < (2 * work.radius[0] + 1) * rows; ++row) {
        const int dz = row / rows - work.radius[0], dy = row % rows - work.radius[1];
        if (z + dz < 0 || z + dz >= work.depth || y + dy < 0 || y + dy >= work.height) continue;
        const long start = pixel + (static_cast<long>(dz) * work.height + dy) * work.width;
        for (int dx = first; dx <= last; ++dx) {
          if (start + dx == pixel) continue;
          const T weight = pair_weight<T>(work, pixel, start + dx, {dy * dy + dx * dx, dz * dz});
          total += weight;
          const auto* from = static_cast<const T*>(work.probabilities) + (start + dx + shift);
          for (int lane = 0; lane < Width; ++lane) {
            if (channel + lane < work.channels) sums[lane] += weight * from[lane * volume];
          }
        }
      }
      auto* to = static_cast<T*>(work.sums) + (pixel + shift);
      for (int lane = 0; lane < Width; ++lane) {
        if (channel + lane < work.channels) to[lane * volume] = sums[lane];
      }
      work.totals[pixel] = total;
    }
  }
}

// All kernels, as KERNEL(operation, Work, Element, Width): 16 bytes at a time, or one element. Those that
// sum are started in blocks of SUM_THREADS, the others as so many threads.
#define SCRIMP_PACKED(KERNEL, operation, Work) \
  KERNEL(operation, Work, float, 4)            \
  KERNEL(operation, Work, float, 1)            \
  KERNEL(operation, Work, double, 2)           \
  KERNEL(operation, Work, double, 1)           \
  KERNEL(operation, Work, bfloat16, 8)         \
  KERNEL(operation, Work, bfloat16, 1)
#define SCRIMP_SUM_KERNELS(KERNEL)           \
  SCRIMP_PACKED(KERNEL, moments, SumWork)    \
  SCRIMP_PACKED(KERNEL, deactivate, SumWork)
#define SCRIMP_THREAD_KERNELS(KERNEL)            \
  SCRIMP_PACKED(KERNEL, activate, ElementWork)   \
  SCRIMP_PACKED(KERNEL, centre, ElementWork)     \
  KERNEL(coefficients, ChannelWork, double, 1)   \
  KERNEL(normal, ElementWork, float, 1)          \
  KERNEL(normal, ElementWork, double, 1)         \
  KERNEL(normal, ElementWork, bfloat16, 1)       \
  KERNEL(neighbours, NeighbourWork, float, 4)    \
  KERNEL(neighbours, NeighbourWork, double, 4)
#define SCRIMP_KERNELS(KERNEL) SCRIMP_SUM_KERNELS(KERNEL) SCRIMP_THREAD_KERNELS(KERNEL)

// Threads of a block of those that do not sum.
#define SCRIMP_BLOCK_THREADS 128

#ifdef __CUDACC_RTC__
#define SCRIMP_GLOBAL_SUM(operation, Work, Element, Width)                         \
  extern "C" __global__ void __launch_bounds__(SUM_THREADS, SUM_BLOCKS)            \
      operation##_##Element##_##Width(const Work work) {                           \
    __shared__ Shared<Width> shared;                                               \
    const Place place{static_cast<int>(threadIdx.x), blockIdx.x, blockIdx.y};      \
    _Pragma("unroll") for (int number = 0; number < PHASES; ++number) {            \
      phase<operation<Element, Width>>(number, work, place, shared);               \
      __syncthreads();                                                             \
      if (number == TICKET && !shared.is_last) return;                             \
    }                                                                              \
  }
SCRIMP_SUM_KERNELS(SCRIMP_GLOBAL_SUM)

// Of every file of kernels whose threads work each for itself.
#define SCRIMP_GLOBAL(operation, Work, Element, Width)                            \
  extern "C" __global__ void __launch_bounds__(SCRIMP_BLOCK_THREADS)              \
      operation##_##Element##_##Width(const __grid_constant__ Work work) {        \
    const long thread = static_cast<long>(blockIdx.x) * blockDim.x + threadIdx.x; \
    if (thread < work.threads) operation<Element, Width>(work, thread);           \
  }
SCRIMP_THREAD_KERNELS(SCRIMP_GLOBAL)
#endif

}  // namespace scrimp::device

#endif
