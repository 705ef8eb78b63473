// CPU loops over flat tensors, by the formulas of flat_kernels.h.
//
// Every element is computed by itself, and sums are cut into pieces of a fixed length that are added in order:
// results do not depend on the number of threads, nor on how many ranks there are for a share of the tensor.

#pragma once

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "flat_kernels.h"

// One binary, the widest vectors of the machine that it runs on.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define SCRIMP_FLAT_CLONES \
  __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define SCRIMP_FLAT_CLONES
#endif

namespace scrimp::flat_loops {

using device::CopyWork;
using device::DescentWork;
using device::Factors;
using device::FollowWork;
using device::GatherWork;
using device::SquaresWork;
using device::bfloat16;

// Elements that are worked on together: they stay in the first-level cache.
constexpr int64_t BLOCK = 2048;
// Elements that one thread takes at least.
constexpr int64_t GRAIN = 16 * BLOCK;
// Elements whose squares are added up in one go, in so many sums side by side.
constexpr int64_t PIECE = 8 * BLOCK;
constexpr int64_t LANES = 16;

#define SCRIMP_FLAT_LOOPS(T)                                                                       \
  SCRIMP_FLAT_CLONES inline void sgd_block(const Factors<T>& factors, int64_t count,               \
                                           const T* __restrict gradients, T* __restrict momentum,  \
                                           T* __restrict weights) {                                \
    const Factors<T> of = factors;                                                                 \
    for (int64_t e = 0; e < count; ++e) {                                                          \
      weights[e] = device::after_sgd(of, weights[e], gradients[e], momentum[e]);                   \
    }                                                                                              \
  }                                                                                                \
  SCRIMP_FLAT_CLONES inline void adam_block(const Factors<T>& factors, int64_t count,              \
                                            const T* __restrict gradients, T* __restrict first,    \
                                            T* __restrict second, T* __restrict weights) {         \
    const Factors<T> of = factors;                                                                 \
    for (int64_t e = 0; e < count; ++e) {                                                          \
      weights[e] = device::after_adam(of, weights[e], gradients[e], first[e], second[e]);          \
    }                                                                                              \
  }                                                                                                \
  SCRIMP_FLAT_CLONES inline void shares_block(const bool* __restrict shares, int64_t count,        \
                                              T* __restrict weights) {                             \
    for (int64_t e = 0; e < count; ++e) {                                                          \
      weights[e] = shares[e] ? device::in_unit_interval(weights[e]) : weights[e];                  \
    }                                                                                              \
  }                                                                                                \
  SCRIMP_FLAT_CLONES inline void narrow_block(const T* __restrict weights, int64_t count,          \
                                              bfloat16* __restrict narrowed) {                     \
    for (int64_t e = 0; e < count; ++e) {                                                          \
      device::narrow(static_cast<float>(weights[e]), narrowed[e]);                                 \
    }                                                                                              \
  }                                                                                                \
  SCRIMP_FLAT_CLONES inline void follow_block(T keep, const T* __restrict leader, int64_t count,   \
                                              T* __restrict weights) {                             \
    for (int64_t e = 0; e < count; ++e) {                                                          \
      weights[e] = device::between(leader[e], weights[e], keep);                                   \
    }                                                                                              \
  }                                                                                                \
  SCRIMP_FLAT_CLONES inline void add_block(const T* __restrict from, int64_t count,                \
                                           T* __restrict to) {                                     \
    for (int64_t e = 0; e < count; ++e) to[e] += from[e];                                          \
  }                                                                                                \
  SCRIMP_FLAT_CLONES inline void add_half_block(const bfloat16* __restrict from, int64_t count,    \
                                                T* __restrict to) {                                \
    for (int64_t e = 0; e < count; ++e) to[e] += device::widened(from[e]);                         \
  }                                                                                                \
  SCRIMP_FLAT_CLONES inline double squares_piece(const T* __restrict from, int64_t count) {        \
    double sums[LANES] = {};                                                                       \
    int64_t e = 0;                                                                                 \
    for (; e + LANES <= count; e += LANES) {                                                       \
      for (int64_t lane = 0; lane < LANES; ++lane) {                                               \
        const double value = from[e + lane];                                                       \
        sums[lane] += value * value;                                                               \
      }                                                                                            \
    }                                                                                              \
    double sum = 0.0;                                                                              \
    for (; e < count; ++e) sum += static_cast<double>(from[e]) * static_cast<double>(from[e]);     \
    for (int64_t lane = 0; lane < LANES; ++lane) sum += sums[lane];                                \
    return sum;                                                                                    \
  }
SCRIMP_FLAT_LOOPS(float)
SCRIMP_FLAT_LOOPS(double)
#undef SCRIMP_FLAT_LOOPS

// Calls body(place, count) for blocks of [0, elements), in parallel.
template <typename Body>
void for_blocks(int64_t elements, Body body) {
  at::parallel_for(0, (elements + BLOCK - 1) / BLOCK, GRAIN / BLOCK, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) {
      body(block * BLOCK, std::min(BLOCK, elements - block * BLOCK));
    }
  });
}

template <typename T>
void after_weights(void* narrowed, int64_t place, int64_t count, const T* weights) {
  if (narrowed != nullptr) narrow_block(weights, count, static_cast<bfloat16*>(narrowed) + place);
}

template <typename T, bool IS_ADAM>
void descend(const DescentWork& work) {
  const T norm = device::norm_of<T>(work);
  *static_cast<T*>(work.norm) = norm;
  *work.finite = device::is_finite(norm);
  if (!*work.finite) return;
  const auto factors = device::factors_of(work, norm, IS_ADAM);
  for_blocks(work.elements, [&](int64_t place, int64_t count) {
    auto* weights = static_cast<T*>(work.weights) + place;
    const auto* gradients = static_cast<const T*>(work.gradients) + place;
    auto* first = static_cast<T*>(work.first) + place;
    if (IS_ADAM) {
      adam_block(factors, count, gradients, first, static_cast<T*>(work.second) + place, weights);
    } else {
      sgd_block(factors, count, gradients, first, weights);
    }
    if (work.shares != nullptr) shares_block(work.shares + place, count, weights);
    after_weights(work.narrowed, place, count, weights);
  });
}

template <typename T>
void follow(const FollowWork& work) {
  if (!*work.finite) return;
  const T keep = static_cast<T>(*work.keep);
  for_blocks(work.elements, [&](int64_t place, int64_t count) {
    auto* weights = static_cast<T*>(work.weights) + place;
    follow_block(keep, static_cast<const T*>(work.leader) + place, count, weights);
    after_weights(work.narrowed, place, count, weights);
  });
}

// Puts `count` elements of a piece, from element `inside` of it on, to `to`.
template <typename T>
void gather_part(const GatherWork& work, int piece, int64_t inside, int64_t count, T* to) {
  const void* from = work.from[piece];
  const int64_t there = from == nullptr
                            ? 0
                            : std::clamp<int64_t>(work.count[piece] - inside, 0, count);
  if (!work.adds) std::fill(to + there, to + count, T(0));
  if (there == 0) return;
  if (work.is_half[piece]) {
    if (!work.adds) std::fill(to, to + there, T(0));
    add_half_block(static_cast<const bfloat16*>(from) + inside, there, to);
  } else if (work.adds) {
    add_block(static_cast<const T*>(from) + inside, there, to);
  } else {
    std::memcpy(to, static_cast<const T*>(from) + inside, static_cast<size_t>(there) * sizeof(T));
  }
}

template <typename T>
void gather(const GatherWork& work) {
  at::parallel_for(work.first, work.end, GRAIN, [&](int64_t begin, int64_t end) {
    int piece = device::piece_at(work.start, work.pieces, begin);
    for (int64_t place = begin; place < end; ++piece) {
      const int64_t behind = piece + 1 < work.pieces ? work.start[piece + 1] : work.end;
      const int64_t count = std::min<int64_t>(behind, end) - place;
      gather_part(work, piece, place - work.start[piece], count, static_cast<T*>(work.to) + place);
      place += count;
    }
  });
}

// The sums of the squares of shares, each a sum of pieces in order.
template <typename T>
void squares(const SquaresWork& work) {
  const int64_t pieces = (work.size + 1 + PIECE - 1) / PIECE;
  std::vector<double> sums(static_cast<size_t>(work.shares * pieces), 0.0);
  at::parallel_for(0, work.shares * pieces, GRAIN / PIECE, [&](int64_t begin, int64_t end) {
    for (int64_t number = begin; number < end; ++number) {
      const int64_t share = work.first + number / pieces;
      const int64_t start = share * work.size + std::min<int64_t>(share, work.larger);
      const int64_t length = work.size + (share < work.larger ? 1 : 0);
      const int64_t inside = std::min(number % pieces * PIECE, length);
      sums[static_cast<size_t>(number)] =
          squares_piece(static_cast<const T*>(work.from) + start + inside,
                        std::min(PIECE, length - inside));
    }
  });
  for (int64_t share = 0; share < work.shares; ++share) {
    double sum = 0.0;
    for (int64_t piece = 0; piece < pieces; ++piece) {
      sum += sums[static_cast<size_t>(share * pieces + piece)];
    }
    work.sums[share] = sum;
  }
}

inline void copy_words(const CopyWork& work) {
  if (work.unless != nullptr && *work.unless) return;
  for (int tensor = 0; tensor < work.tensors; ++tensor) {
    const auto words = static_cast<size_t>(work.start[tensor + 1] - work.start[tensor]);
    std::memcpy(work.to[tensor], work.from[tensor], words * sizeof(int32_t));
  }
}

}  // namespace scrimp::flat_loops
