// CPU inner loops of normalisation, rectification and dropout on channels-last tensors.
//
// A tensor [N, C, H, W] in channels-last order is a matrix of N*H*W rows of C values, so that all
// loops run along C. Work is cut into a fixed number of pieces, whatever the number of threads,
// and partial sums are added in order: results do not depend on the number of threads.

#pragma once

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>

#include "clones.h"
#include "device_kernels.h"
#include "kernel_table.h"
#include "plain_kernels.h"

namespace scrimp::host {

using device::element_bits;

constexpr int64_t PIECES = 64;
// Rows whose sums stay in the tensor's own precision before they are added up in double.
constexpr int64_t BLOCK_ROWS = 64;

template <typename Body>
void for_pieces(int64_t rows, Body body) {
  const int64_t length = (rows + PIECES - 1) / PIECES;
  at::parallel_for(0, PIECES, 1, [&](int64_t begin, int64_t end) {
    for (int64_t piece = begin; piece < end; ++piece) {
      const int64_t first = std::min(piece * length, rows);
      const int64_t last = std::min(first + length, rows);
      if (first < last) body(piece, first, last);
    }
  });
}

// Calls body(row, count) for blocks of rows that stay in the first-level cache.
template <typename Body>
void for_blocks(int64_t first, int64_t last, Body body) {
  for (int64_t row = first; row < last; row += BLOCK_ROWS) {
    body(row, std::min(BLOCK_ROWS, last - row));
  }
}

// The loops proper, for float and double: function templates cannot be cloned, macros can.
#define SCRIMP_LOOPS(T)                                                                            \
  /* Sums of (x - pivot) and (x - pivot)^2 of a block of rows; pivot is the block's first row. */  \
  SCRIMP_CLONES inline void moments_block(const T* __restrict x, int64_t rows, int64_t channels,   \
                                          T* __restrict sum, T* __restrict square) {               \
    for (int64_t c = 0; c < channels; ++c) sum[c] = square[c] = 0;                                 \
    for (int64_t r = 1; r < rows; ++r) {                                                           \
      const T* __restrict row = x + r * channels;                                                  \
      for (int64_t c = 0; c < channels; ++c) {                                                     \
        const T d = row[c] - x[c];                                                                 \
        sum[c] += d;                                                                               \
        square[c] += d * d;                                                                        \
      }                                                                                            \
    }                                                                                              \
  }                                                                                                \
  SCRIMP_CLONES inline void activate_block(const T* __restrict x, int64_t rows, int64_t channels,  \
                                           const Affine<T>& affine, T* __restrict y) {             \
    const T* __restrict scale = affine.scale;                                                      \
    const T* __restrict shift = affine.shift;                                                      \
    const T slope = affine.slope;                                                                  \
    for (int64_t r = 0; r < rows; ++r) {                                                           \
      for (int64_t c = 0; c < channels; ++c) {                                                     \
        const T v = x[r * channels + c] * scale[c] + shift[c];                                     \
        y[r * channels + c] = v > 0 ? v : v * slope;                                               \
      }                                                                                            \
    }                                                                                              \
  }                                                                                                \
  /* The rows of one sample from element `index` on. */                                            \
  SCRIMP_CLONES inline void drop_block(uint64_t key, uint32_t index, int64_t count,                \
                                       const Dropping<T>& dropping, T* __restrict y) {             \
    const uint32_t threshold = dropping.threshold;                                                 \
    const T kept = dropping.kept;                                                                  \
    for (int64_t e = 0; e < count; ++e) {                                                          \
      const uint32_t bits = element_bits(key, index + static_cast<uint32_t>(e));                   \
      y[e] *= bits >= threshold ? kept : T(0);                                                     \
    }                                                                                              \
  }                                                                                                \
  /* g <- gradient before the activation, in place; its sums per channel are added up. */          \
  SCRIMP_CLONES inline void deactivate_block(const T* __restrict x, int64_t rows,                  \
                                             int64_t channels, const Affine<T>& affine,            \
                                             T* __restrict g, T* __restrict sums) {                \
    const T* __restrict scale = affine.scale;                                                      \
    const T* __restrict shift = affine.shift;                                                      \
    const T* __restrict mean = affine.mean;                                                        \
    const T slope = affine.slope;                                                                  \
    T* __restrict products = sums + channels;                                                      \
    for (int64_t r = 0; r < rows; ++r) {                                                           \
      for (int64_t c = 0; c < channels; ++c) {                                                     \
        const T v = x[r * channels + c];                                                           \
        const T d = g[r * channels + c];                                                           \
        const T before = v * scale[c] + shift[c] > 0 ? d : d * slope;                              \
        g[r * channels + c] = before;                                                              \
        sums[c] += before;                                                                         \
        products[c] += before * (v - mean[c]);                                                     \
      }                                                                                            \
    }                                                                                              \
  }                                                                                                \
  SCRIMP_CLONES inline void centre_block(const T* __restrict x, int64_t rows, int64_t channels,    \
                                         const Centring<T>& centring, T* __restrict g) {           \
    const T* __restrict scale = centring.scale;                                                    \
    const T* __restrict mean = centring.mean;                                                      \
    const T* __restrict offset = centring.offset;                                                  \
    const T* __restrict tilt = centring.tilt;                                                      \
    for (int64_t r = 0; r < rows; ++r) {                                                           \
      for (int64_t c = 0; c < channels; ++c) {                                                     \
        const int64_t e = r * channels + c;                                                        \
        g[e] = scale[c] * (g[e] - offset[c] - (x[e] - mean[c]) * tilt[c]);                         \
      }                                                                                            \
    }                                                                                              \
  }

// Per-channel coefficients in the precision of computing.
template <typename T>
struct Affine {
  const T* scale;
  const T* shift;
  const T* mean;
  T slope;
};
template <typename T>
struct Centring {
  const T* scale;
  const T* mean;
  const T* offset;
  const T* tilt;
};
template <typename T>
struct Dropping {
  uint32_t threshold;
  T kept;
};
SCRIMP_LOOPS(float)
SCRIMP_LOOPS(double)
#undef SCRIMP_LOOPS

// Drops elements of `rows` rows from `first` on, which may belong to several samples.
template <typename T>
void drop_rows(const Activation& activation, const at::Tensor& x, int64_t first, int64_t rows,
               T* values) {
  if (!activation.keys.defined()) return;
  const auto* keys = activation.keys.const_data_ptr<int64_t>();
  const int64_t channels = x.size(1), pixels = x.size(2) * x.size(3);
  const Dropping<T> dropping{dropout_threshold(activation.dropout),
                             static_cast<T>(1.0 / (1.0 - activation.dropout))};
  for (int64_t row = first; row < first + rows;) {
    const int64_t pixel = row % pixels;
    const int64_t count = std::min(pixels - pixel, first + rows - row);
    drop_block(static_cast<uint64_t>(keys[row / pixels]),
               static_cast<uint32_t>(pixel * channels), count * channels, dropping,
               values + (row - first) * channels);
    row += count;
  }
}

// A row of [rows, C] in the precision of computing.
template <typename T>
std::vector<T> narrowed(const at::Tensor& rows, int64_t row) {
  const auto channels = rows.size(1);
  const double* values = rows.const_data_ptr<double>() + row * channels;
  return std::vector<T>(values, values + channels);
}

// What elements of a type are computed in.
template <typename S>
struct Computed {
  using type = S;
};
template <>
struct Computed<at::BFloat16> {
  using type = float;
};

// Eight significant bits at the head of a float: widening appends zeros, narrowing rounds to even.
SCRIMP_CLONES inline void widen_block(const uint16_t* __restrict from, int64_t count,
                                      float* __restrict to) {
  for (int64_t e = 0; e < count; ++e) {
    const uint32_t bits = static_cast<uint32_t>(from[e]) << 16;
    std::memcpy(to + e, &bits, sizeof bits);
  }
}
SCRIMP_CLONES inline void narrow_block(const float* __restrict from, int64_t count,
                                       uint16_t* __restrict to) {
  for (int64_t e = 0; e < count; ++e) {
    uint32_t bits;
    std::memcpy(&bits, from + e, sizeof bits);
    const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    // Rounding must not carry a NaN over into infinity.
    to[e] = static_cast<uint16_t>(from[e] == from[e] ? rounded : 0x7fc0u);
  }
}

// Blocks of rows in the precision of computing: where they lie if they are stored in it, copies if not.
template <typename S>
class Rows {
 public:
  using T = typename Computed<S>::type;
  explicit Rows(int64_t channels) : channels_(channels) {
    if constexpr (!std::is_same_v<S, T>) copy_.resize(BLOCK_ROWS * channels);
  }
  const T* read(const S* from, int64_t rows) {
    if constexpr (std::is_same_v<S, T>) {
      return from;
    } else {
      widen_block(reinterpret_cast<const uint16_t*>(from), rows * channels_, copy_.data());
      return copy_.data();
    }
  }
  // The rows at `from`, to be changed; `write` then brings them to `to`.
  T* copied(const S* from, S* to, int64_t rows) {
    if constexpr (!std::is_same_v<S, T>) {
      read(from, rows);
    } else if (from != to) {
      std::copy(from, from + rows * channels_, to);
    }
    return room(to);
  }
  // Where the results of a block go that `write` then brings to `to`.
  T* room(S* to) {
    if constexpr (std::is_same_v<S, T>) {
      return to;
    } else {
      return copy_.data();
    }
  }
  void write(S* to, int64_t rows) {
    if constexpr (!std::is_same_v<S, T>) {
      narrow_block(copy_.data(), rows * channels_, reinterpret_cast<uint16_t*>(to));
    }
  }

 private:
  int64_t channels_;
  std::vector<T> copy_;
};

template <typename S>
void moments_typed(const at::Tensor& x, double* total) {
  using T = typename Computed<S>::type;
  const int64_t channels = x.size(1), rows = x.numel() / channels;
  const S* data = x.const_data_ptr<S>();
  std::vector<double> partial(PIECES * 2 * channels, 0.0);
  for_pieces(rows, [&](int64_t piece, int64_t first, int64_t last) {
    double* mine = partial.data() + piece * 2 * channels;
    std::vector<T> sum(channels), square(channels);
    Rows<S> inputs(channels);
    for_blocks(first, last, [&](int64_t row, int64_t count) {
      const T* block = inputs.read(data + row * channels, count);
      moments_block(block, count, channels, sum.data(), square.data());
      // Moments about the pivot become moments about zero, in double.
      for (int64_t c = 0; c < channels; ++c) {
        const double pivot = block[c], s = sum[c], n = static_cast<double>(count);
        mine[c] += n * pivot + s;
        mine[channels + c] += square[c] + 2.0 * pivot * s + n * pivot * pivot;
      }
    });
  });
  for (int64_t piece = 0; piece < PIECES; ++piece) {
    for (int64_t c = 0; c < 2 * channels; ++c) total[c] += partial[piece * 2 * channels + c];
  }
}

template <typename S>
void activate_typed(const at::Tensor& x, const Activation& activation, at::Tensor& y) {
  using T = typename Computed<S>::type;
  const int64_t channels = x.size(1), rows = x.numel() / channels;
  const auto scale = narrowed<T>(activation.coefficients, SCALE);
  const auto shift = narrowed<T>(activation.coefficients, SHIFT);
  const Affine<T> affine{scale.data(), shift.data(), nullptr, static_cast<T>(activation.slope)};
  const S* from = x.const_data_ptr<S>();
  S* to = y.mutable_data_ptr<S>();
  for_pieces(rows, [&](int64_t, int64_t first, int64_t last) {
    Rows<S> inputs(channels), outputs(channels);
    for_blocks(first, last, [&](int64_t row, int64_t count) {
      S* target = to + row * channels;
      T* out = outputs.room(target);
      activate_block(inputs.read(from + row * channels, count), count, channels, affine, out);
      drop_rows(activation, x, row, count, out);
      outputs.write(target, count);
    });
  });
}

template <typename S>
void deactivate_typed(const at::Tensor& x, const at::Tensor& dy, const Activation& activation,
                      at::Tensor& g, double* sums) {
  using T = typename Computed<S>::type;
  const int64_t channels = x.size(1), rows = x.numel() / channels;
  const auto scale = narrowed<T>(activation.coefficients, SCALE);
  const auto shift = narrowed<T>(activation.coefficients, SHIFT);
  const auto centre = narrowed<T>(activation.coefficients, MEAN);
  const Affine<T> affine{scale.data(), shift.data(), centre.data(), static_cast<T>(activation.slope)};
  const S* data = x.const_data_ptr<S>();
  const S* from = dy.const_data_ptr<S>();
  S* to = g.mutable_data_ptr<S>();
  std::vector<double> partial(PIECES * 2 * channels, 0.0);
  for_pieces(rows, [&](int64_t piece, int64_t first, int64_t last) {
    double* mine = partial.data() + piece * 2 * channels;
    std::vector<T> block_sums(2 * channels);
    Rows<S> inputs(channels), outputs(channels);
    for_blocks(first, last, [&](int64_t row, int64_t count) {
      S* target = to + row * channels;
      T* out = outputs.copied(from + row * channels, target, count);
      drop_rows(activation, x, row, count, out);
      std::fill(block_sums.begin(), block_sums.end(), T(0));
      const T* block = inputs.read(data + row * channels, count);
      deactivate_block(block, count, channels, affine, out, block_sums.data());
      outputs.write(target, count);
      for (int64_t c = 0; c < 2 * channels; ++c) mine[c] += block_sums[c];
    });
  });
  for (int64_t piece = 0; piece < PIECES; ++piece) {
    for (int64_t c = 0; c < 2 * channels; ++c) sums[c] += partial[piece * 2 * channels + c];
  }
}

template <typename S>
void centre_typed(const at::Tensor& x, const at::Tensor& coefficients,
                  const at::Tensor& corrections, const at::Tensor& g) {
  using T = typename Computed<S>::type;
  const int64_t channels = x.size(1), rows = x.numel() / channels;
  const auto a = narrowed<T>(coefficients, SCALE), m = narrowed<T>(coefficients, MEAN);
  const auto o = narrowed<T>(corrections, 0), t = narrowed<T>(corrections, 1);
  const Centring<T> centring{a.data(), m.data(), o.data(), t.data()};
  const S* data = x.const_data_ptr<S>();
  S* to = g.mutable_data_ptr<S>();
  for_pieces(rows, [&](int64_t, int64_t first, int64_t last) {
    Rows<S> inputs(channels), outputs(channels);
    for_blocks(first, last, [&](int64_t row, int64_t count) {
      S* target = to + row * channels;
      T* out = outputs.copied(target, target, count);
      centre_block(inputs.read(data + row * channels, count), count, channels, centring, out);
      outputs.write(target, count);
    });
  });
}

#define SCRIMP_DISPATCH(function, tensor, ...)             \
  do {                                                     \
    if ((tensor).scalar_type() == at::kFloat) {            \
      function<float>(__VA_ARGS__);                        \
    } else if ((tensor).scalar_type() == at::kBFloat16) {  \
      function<at::BFloat16>(__VA_ARGS__);                 \
    } else {                                               \
      function<double>(__VA_ARGS__);                       \
    }                                                      \
  } while (false)

inline bool serve(const at::Tensor& x) { return x.is_cpu() && has_kernels(x.scalar_type()); }

inline at::Tensor moments(const at::Tensor& x) {
  auto total = at::zeros({2 * x.size(1) + 1}, at::kDouble);
  auto* sums = total.mutable_data_ptr<double>();
  SCRIMP_DISPATCH(moments_typed, x, x, sums);
  sums[2 * x.size(1)] = static_cast<double>(x.numel() / x.size(1));
  return total;
}

// Running statistics and the small sums over channels are not worth kernels on the CPU.
inline at::Tensor statistics(const at::Tensor& x, const Channels& of) {
  return plain::coefficients(moments(x), of);
}

inline at::Tensor activate(const at::Tensor& x, const Activation& activation) {
  auto y = at::empty_like(x);
  SCRIMP_DISPATCH(activate_typed, x, x, activation, y);
  return y;
}

inline Deactivated deactivate(const at::Tensor& x, const at::Tensor& dy,
                              const Activation& activation, at::ScalarType parameters) {
  auto g = at::empty_like(x), sums = at::zeros({2, x.size(1)}, at::kDouble);
  SCRIMP_DISPATCH(deactivate_typed, x, x, dy, activation, g, sums.mutable_data_ptr<double>());
  return plain::corrected(g, sums, activation.coefficients, parameters);
}

inline at::Tensor centre(const at::Tensor& x, const at::Tensor& coefficients,
                         const at::Tensor& corrections, const at::Tensor& g) {
  SCRIMP_DISPATCH(centre_typed, x, x, coefficients, corrections, g);
  return g;
}

#undef SCRIMP_DISPATCH

}  // namespace scrimp::host
