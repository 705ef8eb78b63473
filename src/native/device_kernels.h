// Kernel bodies for devices: normalisation, rectification, dropout, noise and sums over neighbours, in one source that NVRTC
// compiles for a GPU and the host's compiler for its twin. Knows no tensors and no launches.
//
// No thread waits for another or shares memory with it, so that on the host a kernel is a loop over
// thread numbers. Tensors [N, C, H, W] lie in channels-last order. A thread takes `Width` neighbouring
// elements at a time and goes on by what all threads take together, a multiple of C: it meets the same
// channels all the way, and neighbouring threads read neighbouring memory.

#ifndef SCRIMP_DEVICE_KERNELS
#define SCRIMP_DEVICE_KERNELS

#ifdef __CUDACC_RTC__
#define SCRIMP_INLINE __device__ __forceinline__
#define SCRIMP_UNROLL _Pragma("unroll 4")
#else
#include <cmath>
#include <cstring>
#define SCRIMP_INLINE inline
#define SCRIMP_UNROLL
#endif

namespace scrimp::device {

static_assert(sizeof(long) == 8 && sizeof(int) == 4, "keys and elements are counted in long");

#ifndef __CUDACC_RTC__
using std::cos;
using std::exp;
using std::log;
using std::sin;
using std::sqrt;
#endif

// The head of a float.
struct bfloat16 {
  unsigned short bits;
};

// Work on elements. What a kernel does not use may be null.
struct ElementWork {
  const void* x;
  const void* dy;
  void* out;
  // Rows of [C]: mean, inverse deviation, scale, shift.
  const double* coefficients;
  // Rows of [C]: offset, tilt.
  const double* corrections;
  // One per sample, or null: nothing is dropped.
  const long* keys;
  // Sums of each thread, [2][threads * Width].
  double* partial;
  double slope, kept;
  unsigned threshold;
  long channels;
  // In all samples, and in one.
  long elements, sample;
  long threads;
};

// Work on channels, one thread for each. Parameters are of one type, float or double.
struct ChannelWork {
  // Sums of x and of x^2 of all ranks, each [C], and the number of values per channel.
  const double* total;
  const void *weight, *bias, *absorbed;
  void *running_mean, *running_var;
  double momentum, epsilon;
  // Sums of g and of g*(x - mean), each [C]: of this rank, and of all.
  const double *own_sums, *all_sums;
  void *d_weight, *d_bias;
  // As in ElementWork.
  double *coefficients, *corrections;
  long threads;
};

// Most terms of the weight of a pair of pixels.
constexpr int MOST_TERMS = 8;

// Work on pixels. Planar tensors of one type, float or double: probabilities and sums [N, C, H, W], the
// others [N, 1, H, W]; source and destination are both null where every pixel counts.
struct NeighbourWork {
  const void *probabilities, *image, *source, *destination;
  void* sums;
  // The weights of all neighbours of a pixel, [N, H, W].
  double* totals;
  // Term t is weight * exp(-distance*(dx^2 + dy^2) - intensity*(difference of intensities)^2).
  double weight[MOST_TERMS], distance[MOST_TERMS], intensity[MOST_TERMS];
  long terms, radius;
  long samples, channels, height, width;
  long threads;
};

SCRIMP_INLINE unsigned bits_of(float value) {
#ifdef __CUDACC_RTC__
  return __float_as_uint(value);
#else
  unsigned bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
#endif
}

SCRIMP_INLINE float float_of(unsigned bits) {
#ifdef __CUDACC_RTC__
  return __uint_as_float(bits);
#else
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
#endif
}

SCRIMP_INLINE double widened(double value) { return value; }
SCRIMP_INLINE float widened(float value) { return value; }
SCRIMP_INLINE float widened(bfloat16 value) { return float_of(static_cast<unsigned>(value.bits) << 16); }

SCRIMP_INLINE void narrow(double value, double& to) { to = value; }
SCRIMP_INLINE void narrow(float value, float& to) { to = value; }
SCRIMP_INLINE void narrow(float value, bfloat16& to) {
  const unsigned bits = bits_of(value);
  const unsigned rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  // Rounding must not carry a NaN over into infinity.
  to.bits = static_cast<unsigned short>(value == value ? rounded : 0x7fc0u);
}

// What elements of a type are computed in.
template <typename Element>
using Computed = decltype(widened(Element()));

// Elements that one access of memory moves.
template <typename Element, int Width>
struct alignas(sizeof(Element) * Width) Pack {
  Element values[Width];
};

template <typename Element, int Width>
SCRIMP_INLINE void load(const void* from, long first, Computed<Element>* values) {
  const auto pack = static_cast<const Pack<Element, Width>*>(from)[first / Width];
  for (int lane = 0; lane < Width; ++lane) values[lane] = widened(pack.values[lane]);
}

template <typename Element, int Width>
SCRIMP_INLINE void store(void* to, long first, const Computed<Element>* values) {
  Pack<Element, Width> pack;
  for (int lane = 0; lane < Width; ++lane) narrow(values[lane], pack.values[lane]);
  static_cast<Pack<Element, Width>*>(to)[first / Width] = pack;
}

// The values of a thread's channels from a row of [C].
template <int Width, typename T>
SCRIMP_INLINE void load_channels(const double* row, const ElementWork& work, long thread, T* values) {
  const long channel = thread * Width % work.channels;
  for (int lane = 0; lane < Width; ++lane) values[lane] = static_cast<T>(row[channel + lane]);
}

// How many packs a thread meets.
template <int Width>
SCRIMP_INLINE long packs_of(const ElementWork& work, long thread) {
  const long packs = work.elements / Width;
  return thread < packs ? (packs - thread + work.threads - 1) / work.threads : 0;
}

template <int Width>
SCRIMP_INLINE void write_sums(const ElementWork& work, long thread, const double* first,
                              const double* second) {
  for (int lane = 0; lane < Width; ++lane) {
    work.partial[thread * Width + lane] = first[lane];
    work.partial[(work.threads + thread) * Width + lane] = second[lane];
  }
}

// 32 random bits of an element of the sample with this key, as random.rs `element_bits`.
SCRIMP_INLINE unsigned element_bits(unsigned long key, unsigned index) {
  unsigned x = index ^ static_cast<unsigned>(key);
  x = (x ^ (x >> 16)) * 0x7feb352du;
  x = (x ^ (x >> 15)) * 0x846ca68bu;
  x = (x ^ (x >> 16)) ^ static_cast<unsigned>(key >> 32);
  x = (x ^ (x >> 16)) * 0x7feb352du;
  x = (x ^ (x >> 15)) * 0x846ca68bu;
  return x ^ (x >> 16);
}

// Where a thread is: its sample and the element within it.
struct Position {
  long sample, index;
};

template <int Width>
SCRIMP_INLINE Position first_position(const ElementWork& work, long thread) {
  if (work.keys == nullptr) return {0, 0};
  return {thread * Width / work.sample, thread * Width % work.sample};
}

// Drops elements of a pack, and goes on to the next one.
template <int Width, typename T>
SCRIMP_INLINE void drop(const ElementWork& work, Position& position, T* values) {
  if (work.keys == nullptr) return;
  const auto key = static_cast<unsigned long>(work.keys[position.sample]);
  const auto kept = static_cast<T>(work.kept);
  for (int lane = 0; lane < Width; ++lane) {
    const unsigned bits = element_bits(key, static_cast<unsigned>(position.index + lane));
    values[lane] *= bits >= work.threshold ? kept : T(0);
  }
  // Steps are rarely longer than a sample: this is cheaper than a division.
  position.index += work.threads * Width;
  while (position.index >= work.sample) {
    position.index -= work.sample;
    ++position.sample;
  }
}

// Packs whose sums stay in the precision of computing before they are added up in double.
constexpr long BLOCK = 16;

// Sums of x and of x^2.
template <typename Element, int Width>
SCRIMP_INLINE void moments(const ElementWork& work, long thread) {
  using T = Computed<Element>;
  double sums[Width] = {}, squares[Width] = {};
  long first = thread * Width;
  for (long left = packs_of<Width>(work, thread); left > 0; left -= BLOCK) {
    const int packs = static_cast<int>(left < BLOCK ? left : BLOCK);
    T pivot[Width], values[Width], sum[Width] = {}, square[Width] = {};
    load<Element, Width>(work.x, first, pivot);
    // Several reads under way at once.
    SCRIMP_UNROLL
    for (int pack = 0; pack < packs; ++pack, first += work.threads * Width) {
      load<Element, Width>(work.x, first, values);
      for (int lane = 0; lane < Width; ++lane) {
        const T d = values[lane] - pivot[lane];
        sum[lane] += d;
        square[lane] += d * d;
      }
    }
    // Moments about the pivot become moments about zero, in double.
    for (int lane = 0; lane < Width; ++lane) {
      const double p = pivot[lane], s = sum[lane];
      sums[lane] += packs * p + s;
      squares[lane] += square[lane] + 2.0 * p * s + packs * p * p;
    }
  }
  write_sums<Width>(work, thread, sums, squares);
}

// out <- dropout(leaky(x*scale + shift))
template <typename Element, int Width>
SCRIMP_INLINE void activate(const ElementWork& work, long thread) {
  using T = Computed<Element>;
  const auto slope = static_cast<T>(work.slope);
  T scale[Width], shift[Width], values[Width];
  load_channels<Width>(work.coefficients + 2 * work.channels, work, thread, scale);
  load_channels<Width>(work.coefficients + 3 * work.channels, work, thread, shift);
  auto position = first_position<Width>(work, thread);
  for (long first = thread * Width; first < work.elements; first += work.threads * Width) {
    load<Element, Width>(work.x, first, values);
    for (int lane = 0; lane < Width; ++lane) {
      const T v = values[lane] * scale[lane] + shift[lane];
      values[lane] = v > 0 ? v : v * slope;
    }
    drop<Width>(work, position, values);
    store<Element, Width>(work.out, first, values);
  }
}

// out <- g, the gradient before the activation; sums of g and of g*(x - mean).
template <typename Element, int Width>
SCRIMP_INLINE void deactivate(const ElementWork& work, long thread) {
  using T = Computed<Element>;
  const auto slope = static_cast<T>(work.slope);
  T mean[Width], scale[Width], shift[Width], x[Width], g[Width];
  load_channels<Width>(work.coefficients, work, thread, mean);
  load_channels<Width>(work.coefficients + 2 * work.channels, work, thread, scale);
  load_channels<Width>(work.coefficients + 3 * work.channels, work, thread, shift);
  double sums[Width] = {}, products[Width] = {};
  auto position = first_position<Width>(work, thread);
  long first = thread * Width;
  for (long left = packs_of<Width>(work, thread); left > 0; left -= BLOCK) {
    const int packs = static_cast<int>(left < BLOCK ? left : BLOCK);
    T sum[Width] = {}, product[Width] = {};
    for (int pack = 0; pack < packs; ++pack, first += work.threads * Width) {
      load<Element, Width>(work.x, first, x);
      load<Element, Width>(work.dy, first, g);
      drop<Width>(work, position, g);
      for (int lane = 0; lane < Width; ++lane) {
        g[lane] = x[lane] * scale[lane] + shift[lane] > 0 ? g[lane] : g[lane] * slope;
        sum[lane] += g[lane];
        product[lane] += g[lane] * (x[lane] - mean[lane]);
      }
      store<Element, Width>(work.out, first, g);
    }
    for (int lane = 0; lane < Width; ++lane) {
      sums[lane] += sum[lane];
      products[lane] += product[lane];
    }
  }
  write_sums<Width>(work, thread, sums, products);
}

// out <- scale*(out - offset - (x - mean)*tilt)
template <typename Element, int Width>
SCRIMP_INLINE void centre(const ElementWork& work, long thread) {
  using T = Computed<Element>;
  T mean[Width], scale[Width], offset[Width], tilt[Width], x[Width], g[Width];
  load_channels<Width>(work.coefficients, work, thread, mean);
  load_channels<Width>(work.coefficients + 2 * work.channels, work, thread, scale);
  load_channels<Width>(work.corrections, work, thread, offset);
  load_channels<Width>(work.corrections + work.channels, work, thread, tilt);
  for (long first = thread * Width; first < work.elements; first += work.threads * Width) {
    load<Element, Width>(work.x, first, x);
    load<Element, Width>(work.out, first, g);
    for (int lane = 0; lane < Width; ++lane) {
      g[lane] = scale[lane] * (g[lane] - offset[lane] - (x[lane] - mean[lane]) * tilt[lane]);
    }
    store<Element, Width>(work.out, first, g);
  }
}

// running + share * (value - running); with all of it, what was there does not matter, were it not even a
// number.
template <typename Parameter>
SCRIMP_INLINE Parameter moved(Parameter running, double value, double share) {
  if (share == 1.0) return static_cast<Parameter>(value);
  return running + static_cast<Parameter>((value - running) * share);
}

// From sums of all ranks: mean, inverse deviation, scale and shift; moves the running statistics.
// What is not a number stays that.
template <typename Parameter, int>
SCRIMP_INLINE void coefficients(const ChannelWork& work, long c) {
  const long channels = work.threads;
  const double values = work.total[2 * channels], count = values < 1.0 ? 1.0 : values;
  const double mean = work.total[c] / count;
  const double spread = work.total[channels + c] / count - mean * mean;
  const double variance = spread < 0.0 ? 0.0 : spread;
  const double inverse_deviation = 1.0 / sqrt(variance + work.epsilon);
  const double scale = static_cast<const Parameter*>(work.weight)[c] * inverse_deviation;
  work.coefficients[c] = mean;
  work.coefficients[channels + c] = inverse_deviation;
  work.coefficients[2 * channels + c] = scale;
  work.coefficients[3 * channels + c] = static_cast<const Parameter*>(work.bias)[c] - mean * scale;

  // A rank without samples that normalises alone leaves the running statistics as they are.
  const double share = values > 0.0 ? work.momentum : 0.0;
  const double unbiased = variance * (count / (count < 2.0 ? 1.0 : count - 1.0));
  auto& running_mean = static_cast<Parameter*>(work.running_mean)[c];
  auto& running_var = static_cast<Parameter*>(work.running_var)[c];
  running_mean = moved(running_mean, mean + static_cast<const Parameter*>(work.absorbed)[c], share);
  running_var = moved(running_var, unbiased, share);
}

// This rank's gradients of weight and bias; from sums of all ranks, offset and tilt.
template <typename Parameter, int>
SCRIMP_INLINE void corrections(const ChannelWork& work, long c) {
  const long channels = work.threads;
  const double values = work.total[2 * channels], count = values < 1.0 ? 1.0 : values;
  const double inverse_deviation = work.coefficients[channels + c];
  const double d_weight = work.own_sums[channels + c] * inverse_deviation;
  static_cast<Parameter*>(work.d_weight)[c] = static_cast<Parameter>(d_weight);
  static_cast<Parameter*>(work.d_bias)[c] = static_cast<Parameter>(work.own_sums[c]);
  work.corrections[c] = work.all_sums[c] / count;
  work.corrections[channels + c] =
      work.all_sums[channels + c] * inverse_deviation * inverse_deviation / count;
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

// The weight of a pixel and one that is (dy, dx) away, both as places in a plane.
template <typename T>
SCRIMP_INLINE T pair_weight(const NeighbourWork& work, const T* const* planes, const long* places,
                            long squared) {
  const T difference = planes[0][places[0]] - planes[0][places[1]];
  T weight = 0;
  for (long term = 0; term < work.terms; ++term) {
    const auto far = static_cast<T>(work.distance[term] * squared);
    const auto unlike = static_cast<T>(work.intensity[term]) * difference * difference;
    weight += static_cast<T>(work.weight[term]) * exp(-far - unlike);
  }
  if (planes[1] == nullptr) return weight;
  // Half of the two directions together, because both pixels get the same weight.
  return weight * T(0.5) * (planes[2][places[0]] * planes[1][places[1]] +
                            planes[2][places[1]] * planes[1][places[0]]);
}

// sums <- weighted sums of the neighbours' probabilities, `Width` channels at a time.
template <typename T, int Width>
SCRIMP_INLINE void neighbours(const NeighbourWork& work, long thread) {
  const long plane = work.height * work.width, pixels = work.samples * plane;
  const auto* image = static_cast<const T*>(work.image);
  const auto* source = static_cast<const T*>(work.source);
  const auto* destination = static_cast<const T*>(work.destination);
  for (long pixel = thread; pixel < pixels; pixel += work.threads) {
    const long sample = pixel / plane, place = pixel % plane;
    const long y = place / work.width, x = place % work.width, first = sample * plane;
    const T* planes[3] = {image + first, source == nullptr ? nullptr : source + first,
                          source == nullptr ? nullptr : destination + first};
    for (long channel = 0; channel < work.channels; channel += Width) {
      const long volume = (sample * work.channels + channel) * plane;
      const auto* from = static_cast<const T*>(work.probabilities) + volume;
      T sums[Width] = {};
      double total = 0.0;
      for (long dy = -work.radius; dy <= work.radius; ++dy) {
        if (y + dy < 0 || y + dy >= work.height) continue;
        for (long dx = -work.radius; dx <= work.radius; ++dx) {
          if (x + dx < 0 || x + dx >= work.width || (dx == 0 && dy == 0)) continue;
          const long places[2] = {place, place + dy * work.width + dx};
          const T weight = pair_weight<T>(work, planes, places, dy * dy + dx * dx);
          total += weight;
          for (int lane = 0; lane < Width; ++lane) {
            if (channel + lane < work.channels) sums[lane] += weight * from[lane * plane + places[1]];
          }
        }
      }
      auto* to = static_cast<T*>(work.sums) + volume;
      for (int lane = 0; lane < Width; ++lane) {
        if (channel + lane < work.channels) to[lane * plane + place] = sums[lane];
      }
      work.totals[pixel] = total;
    }
  }
}

// All kernels, as KERNEL(operation, Work, Element, Width): 16 bytes at a time, or one element.
#define SCRIMP_PACKED(KERNEL, operation)            \
  KERNEL(operation, ElementWork, float, 4)          \
  KERNEL(operation, ElementWork, float, 1)          \
  KERNEL(operation, ElementWork, double, 2)         \
  KERNEL(operation, ElementWork, double, 1)         \
  KERNEL(operation, ElementWork, bfloat16, 8)       \
  KERNEL(operation, ElementWork, bfloat16, 1)
#define SCRIMP_KERNELS(KERNEL)                      \
  SCRIMP_PACKED(KERNEL, moments)                    \
  SCRIMP_PACKED(KERNEL, activate)                   \
  SCRIMP_PACKED(KERNEL, deactivate)                 \
  SCRIMP_PACKED(KERNEL, centre)                     \
  KERNEL(coefficients, ChannelWork, float, 1)       \
  KERNEL(coefficients, ChannelWork, double, 1)      \
  KERNEL(corrections, ChannelWork, float, 1)        \
  KERNEL(corrections, ChannelWork, double, 1)       \
  KERNEL(normal, ElementWork, float, 1)             \
  KERNEL(normal, ElementWork, double, 1)            \
  KERNEL(normal, ElementWork, bfloat16, 1)          \
  KERNEL(neighbours, NeighbourWork, float, 4)       \
  KERNEL(neighbours, NeighbourWork, double, 4)

// Threads of a block.
#define SCRIMP_BLOCK_THREADS 128

#ifdef __CUDACC_RTC__
#define SCRIMP_GLOBAL(operation, Work, Element, Width)                        \
  extern "C" __global__ void __launch_bounds__(SCRIMP_BLOCK_THREADS)          \
      operation##_##Element##_##Width(const Work work) {                      \
    const long thread = static_cast<long>(blockIdx.x) * blockDim.x + threadIdx.x; \
    if (thread < work.threads) operation<Element, Width>(work, thread);       \
  }
SCRIMP_KERNELS(SCRIMP_GLOBAL)
#endif

}  // namespace scrimp::device

#endif
