// What kernels for devices are made of: numbers, packs of them in memory, random bits, and work on elements.
// One source for NVRTC, which compiles it for a GPU, and for the host's compiler. Knows no tensors and no
// launches.
//
// Tensors [N, C, H, W] lie in channels-last order. A thread takes `Width` neighbouring elements at a time and
// goes on by a multiple of C: it meets the same channels all the way.

#ifndef SCRIMP_DEVICE_ELEMENTS
#define SCRIMP_DEVICE_ELEMENTS

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

// Rows of coefficients, each of [C]. The last says how many values of all ranks a channel has.
enum Row : long { MEAN, INVERSE_DEVIATION, SCALE, SHIFT, VALUES, ROWS };

// Work on elements. What a kernel does not use may be null.
struct ElementWork {
  const void* x;
  const void* dy;
  void* out;
  // [ROWS][C].
  const double* coefficients;
  // Rows of [C]: offset, tilt.
  const double* corrections;
  // One per sample, or null: nothing is dropped.
  const long* keys;
  double slope, kept;
  unsigned threshold;
  long channels;
  // In all samples, and in one.
  long elements, sample;
  // Of kernels without blocks.
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
SCRIMP_INLINE Pack<Element, Width> fetch(const void* from, long first) {
  return static_cast<const Pack<Element, Width>*>(from)[first / Width];
}

template <typename Element, int Width>
SCRIMP_INLINE void widen(const Pack<Element, Width>& pack, Computed<Element>* values) {
  for (int lane = 0; lane < Width; ++lane) values[lane] = widened(pack.values[lane]);
}

template <typename Element, int Width>
SCRIMP_INLINE void load(const void* from, long first, Computed<Element>* values) {
  widen(fetch<Element, Width>(from, first), values);
}

template <typename Element, int Width>
SCRIMP_INLINE void store(void* to, long first, const Computed<Element>* values) {
  Pack<Element, Width> pack;
  for (int lane = 0; lane < Width; ++lane) narrow(values[lane], pack.values[lane]);
  static_cast<Pack<Element, Width>*>(to)[first / Width] = pack;
}

// The values of the channels from `channel` on, of a row of [C].
template <int Width, typename T>
SCRIMP_INLINE void load_channels(const double* row, long channel, T* values) {
  for (int lane = 0; lane < Width; ++lane) values[lane] = static_cast<T>(row[channel + lane]);
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

SCRIMP_INLINE Position position_of(const ElementWork& work, long element) {
  if (work.keys == nullptr) return {0, 0};
  return {element / work.sample, element % work.sample};
}

// Drops elements of a pack, and goes on by `step` elements to the next one.
template <int Width, typename T>
SCRIMP_INLINE void drop(const ElementWork& work, long step, Position& position, T* values) {
  if (work.keys == nullptr) return;
  const auto key = static_cast<unsigned long>(work.keys[position.sample]);
  const auto kept = static_cast<T>(work.kept);
  for (int lane = 0; lane < Width; ++lane) {
    const unsigned bits = element_bits(key, static_cast<unsigned>(position.index + lane));
    values[lane] *= bits >= work.threshold ? kept : T(0);
  }
  // Steps are rarely longer than a sample: this is cheaper than a division.
  position.index += step;
  while (position.index >= work.sample) {
    position.index -= work.sample;
    ++position.sample;
  }
}

}  // namespace scrimp::device

#endif
