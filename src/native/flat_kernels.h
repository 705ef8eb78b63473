// Kernel bodies for flat tensors: gathering gradients, sums of squares, updates and averages of weights. In one
// source that NVRTC compiles for GPUs and the host's compiler for its loops and its twin.
// Knows no tensors and no launches.
//
// No thread waits for another or shares memory with it. A thread takes `Width` neighbouring elements at a time
// and goes on by what all threads take together.

#ifndef SCRIMP_FLAT_KERNELS_SOURCE
#define SCRIMP_FLAT_KERNELS_SOURCE

#include "device_kernels.h"

namespace scrimp::device {

// Most pieces of one gathering: what a kernel takes as its argument has at most 4 KiB.
constexpr int MOST_PIECES = 128;

// Pieces of a flat tensor, in order, that get what lies elsewhere.
struct GatherWork {
  void* to;
  // Null: zeros.
  const void* from[MOST_PIECES];
  // Where a piece begins in the flat tensor, and its elements; what lies behind them is padding.
  long start[MOST_PIECES];
  int count[MOST_PIECES];
  // Whether a piece comes in bfloat16 and not as the flat tensor.
  bool is_half[MOST_PIECES];
  int pieces;
  // Whether it is added to what is there.
  bool adds;
  // The elements of the flat tensor, from the first piece to the padding behind the last.
  long first, end;
  long threads;
};

// Sums of squares of shares of a flat tensor: `sums` is [shares][parts], and part p of a share has its elements
// p, p + parts and so on. Share s is that of shares.rs: `size` elements, the first `larger` ones one more.
struct SquaresWork {
  const void* from;
  double* sums;
  long size, larger;
  // The first share and how many follow.
  long first, shares, parts;
  long threads;
};

// One step of an optimiser on flat tensors. What a rule does not use may be null.
struct DescentWork {
  void* weights;
  const void* gradients;
  // The moments of Adam; momentum.
  void *first, *second;
  // The weights in bfloat16, or null.
  void* narrowed;
  // Which weights stay in [0, 1], or null.
  const bool* shares;
  // The sum of the squares of all gradients, on all ranks.
  const double* squares;
  // Learning rate; of Adam also step size, correction, kept share of the weights.
  const double* factors;
  // The norm, as the weights, and whether it is finite.
  void* norm;
  bool* finite;
  // Largest norm, 0: no limit; share of the weights in the gradient.
  double clip, decay;
  // What is kept of momentum, or the share of the new in each moment.
  double of_first, of_second, epsilon;
  // What of momentum is added to the direction once more (Nesterov); 0: momentum itself is the direction.
  double ahead;
  long elements, threads;
};

// weights <- leader + keep*(weights - leader), unless something was not finite.
struct FollowWork {
  void* weights;
  const void* leader;
  void* narrowed;
  const double* keep;
  const bool* finite;
  long elements, threads;
};

// Most tensors of one copying.
constexpr int MOST_TENSORS = 64;

// Copies of whole tensors, in words of 4 bytes.
struct CopyWork {
  void* to[MOST_TENSORS];
  const void* from[MOST_TENSORS];
  // Where the words of a tensor begin when all are counted; one more for the end.
  long start[MOST_TENSORS + 1];
  int tensors;
  // Null, or nothing is copied where this is true.
  const bool* unless;
  long threads;
};

// The last of `count` starts that is not behind `place`.
template <typename Start>
SCRIMP_INLINE int piece_at(const Start* start, int count, long place) {
  int first = 0, end = count;
  while (end - first > 1) {
    const int middle = (first + end) / 2;
    if (start[middle] <= place) {
      first = middle;
    } else {
      end = middle;
    }
  }
  return first;
}

// to <- the pieces, or added to them.
template <typename Element, int Width>
SCRIMP_INLINE void gather(const GatherWork& work, long thread) {
  auto* to = static_cast<Element*>(work.to);
  for (long place = work.first + thread * Width; place < work.end; place += work.threads * Width) {
    const int piece = piece_at(work.start, work.pieces, place);
    const long inside = place - work.start[piece], left = work.count[piece] - inside;
    const void* from = work.from[piece];
    if (work.adds && from == nullptr) continue;
    Element values[Width] = {};
    for (int lane = 0; lane < Width && from != nullptr; ++lane) {
      if (lane >= left) break;
      values[lane] = work.is_half[piece]
                         ? static_cast<Element>(widened(static_cast<const bfloat16*>(from)[inside + lane]))
                         : static_cast<const Element*>(from)[inside + lane];
    }
    if (work.adds) {
      Element before[Width];
      load<Element, Width>(to, place, before);
      for (int lane = 0; lane < Width; ++lane) values[lane] += before[lane];
    }
    store<Element, Width>(to, place, values);
  }
}

// Sums of squares, in double, of the part of a share that is this thread's.
template <typename Element, int>
SCRIMP_INLINE void squares(const SquaresWork& work, long thread) {
  const long share = work.first + thread / work.parts, part = thread % work.parts;
  const long start = share * work.size + (share < work.larger ? share : work.larger);
  const long end = start + work.size + (share < work.larger ? 1 : 0);
  const auto* from = static_cast<const Element*>(work.from);
  double sum = 0.0;
  SCRIMP_UNROLL
  for (long place = start + part; place < end; place += work.parts) {
    const double value = from[place];
    sum += value * value;
  }
  work.sums[thread] = sum;
}

// from + share*(to - from), exact at both ends.
template <typename T>
SCRIMP_INLINE T between(T from, T to, T share) {
  return share < T(0.5) ? from + share * (to - from) : to - (to - from) * (T(1) - share);
}

// The numbers of an update, in the precision of the weights.
template <typename T>
struct Factors {
  T clip, decay, of_first, of_second, epsilon, ahead;
  T rate, step_size, correction, kept;
};

template <typename T>
SCRIMP_INLINE T norm_of(const DescentWork& work) {
  return static_cast<T>(sqrt(*work.squares));
}

template <typename T>
SCRIMP_INLINE bool is_finite(T value) {
  return value - value == T(0);
}

template <typename T>
SCRIMP_INLINE Factors<T> factors_of(const DescentWork& work, T norm, bool is_adam) {
  Factors<T> of{};
  const T clip = static_cast<T>(work.clip) / (norm + static_cast<T>(1e-6));
  of.clip = work.clip > 0.0 && clip < T(1) ? clip : T(1);
  of.decay = static_cast<T>(work.decay);
  of.of_first = static_cast<T>(work.of_first);
  of.of_second = static_cast<T>(work.of_second);
  of.epsilon = static_cast<T>(work.epsilon);
  of.ahead = static_cast<T>(work.ahead);
  of.rate = static_cast<T>(work.factors[0]);
  if (is_adam) {
    of.step_size = static_cast<T>(work.factors[1]);
    of.correction = static_cast<T>(work.factors[2]);
    of.kept = static_cast<T>(work.factors[3]);
  }
  return of;
}

// The weight after a step; moves the momentum.
template <typename T>
SCRIMP_INLINE T after_sgd(const Factors<T>& of, T weight, T gradient, T& momentum) {
  const T direction = gradient * of.clip + weight * of.decay;
  momentum = momentum * of.of_first + direction;
  const T taken = of.ahead == T(0) ? momentum : direction + momentum * of.ahead;
  return weight - taken * of.rate;
}

// The weight after a step; moves both moments.
template <typename T>
SCRIMP_INLINE T after_adam(const Factors<T>& of, T weight, T gradient, T& first, T& second) {
  const T direction = gradient * of.clip + weight * of.decay;
  first = between(first, direction, of.of_first);
  second = between(second, direction * direction, of.of_second);
  const T denominator = sqrt(second) / of.correction + of.epsilon;
  return weight * of.kept - first / denominator * of.step_size;
}

template <typename T>
SCRIMP_INLINE T in_unit_interval(T value) {
  return value < T(0) ? T(0) : value > T(1) ? T(1) : value;
}

// Writes new weights, and what follows from them.
template <typename Element, int Width>
SCRIMP_INLINE void store_weights(void* to, void* narrowed, long first, const Element* weights) {
  store<Element, Width>(to, first, weights);
  if (narrowed == nullptr) return;
  float values[Width];
  for (int lane = 0; lane < Width; ++lane) values[lane] = static_cast<float>(weights[lane]);
  store<bfloat16, Width>(narrowed, first, values);
}

// Weights and moments after one step; a norm that is not finite leaves them as they are.
template <typename Element, int Width, bool IS_ADAM>
SCRIMP_INLINE void descend(const DescentWork& work, long thread) {
  const auto norm = norm_of<Element>(work);
  if (thread == 0) {
    *static_cast<Element*>(work.norm) = norm;
    *work.finite = is_finite(norm);
  }
  if (!is_finite(norm)) return;
  const auto of = factors_of(work, norm, IS_ADAM);
  for (long place = thread * Width; place < work.elements; place += work.threads * Width) {
    Element weights[Width], gradients[Width], first[Width], second[Width];
    load<Element, Width>(work.weights, place, weights);
    load<Element, Width>(work.gradients, place, gradients);
    load<Element, Width>(work.first, place, first);
    if (IS_ADAM) load<Element, Width>(work.second, place, second);
    for (int lane = 0; lane < Width; ++lane) {
      weights[lane] = IS_ADAM ? after_adam(of, weights[lane], gradients[lane], first[lane], second[lane])
                              : after_sgd(of, weights[lane], gradients[lane], first[lane]);
      if (work.shares != nullptr && work.shares[place + lane]) {
        weights[lane] = in_unit_interval(weights[lane]);
      }
    }
    store<Element, Width>(work.first, place, first);
    if (IS_ADAM) store<Element, Width>(work.second, place, second);
    store_weights<Element, Width>(work.weights, work.narrowed, place, weights);
  }
}

template <typename Element, int Width>
SCRIMP_INLINE void descend_sgd(const DescentWork& work, long thread) {
  descend<Element, Width, false>(work, thread);
}

template <typename Element, int Width>
SCRIMP_INLINE void descend_adam(const DescentWork& work, long thread) {
  descend<Element, Width, true>(work, thread);
}

template <typename Element, int Width>
SCRIMP_INLINE void follow(const FollowWork& work, long thread) {
  if (!*work.finite) return;
  const auto keep = static_cast<Element>(*work.keep);
  for (long place = thread * Width; place < work.elements; place += work.threads * Width) {
    Element weights[Width], leader[Width];
    load<Element, Width>(work.weights, place, weights);
    load<Element, Width>(work.leader, place, leader);
    for (int lane = 0; lane < Width; ++lane) weights[lane] = between(leader[lane], weights[lane], keep);
    store_weights<Element, Width>(work.weights, work.narrowed, place, weights);
  }
}

// Words from some tensors to others.
template <typename Word, int>
SCRIMP_INLINE void copy_words(const CopyWork& work, long thread) {
  if (work.unless != nullptr && *work.unless) return;
  for (long place = thread; place < work.start[work.tensors]; place += work.threads) {
    const int tensor = piece_at(work.start, work.tensors, place);
    const long inside = place - work.start[tensor];
    static_cast<Word*>(work.to[tensor])[inside] = static_cast<const Word*>(work.from[tensor])[inside];
  }
}

// All kernels, as KERNEL(operation, Work, Element, Width): 16 bytes at a time, or one element.
#define SCRIMP_FLAT_PACKED(KERNEL, operation, Work) \
  KERNEL(operation, Work, float, 4)                 \
  KERNEL(operation, Work, float, 1)                 \
  KERNEL(operation, Work, double, 2)                \
  KERNEL(operation, Work, double, 1)
#define SCRIMP_FLAT_KERNELS(KERNEL)                    \
  SCRIMP_FLAT_PACKED(KERNEL, gather, GatherWork)       \
  SCRIMP_FLAT_PACKED(KERNEL, descend_sgd, DescentWork) \
  SCRIMP_FLAT_PACKED(KERNEL, descend_adam, DescentWork) \
  SCRIMP_FLAT_PACKED(KERNEL, follow, FollowWork)       \
  KERNEL(squares, SquaresWork, float, 1)               \
  KERNEL(squares, SquaresWork, double, 1)              \
  KERNEL(copy_words, CopyWork, int, 1)

#ifdef __CUDACC_RTC__
SCRIMP_FLAT_KERNELS(SCRIMP_GLOBAL)
#endif

static_assert(sizeof(GatherWork) <= 4096 && sizeof(CopyWork) <= 4096, "kernels take 4 KiB at most");

}  // namespace scrimp::device

#endif
