// Kernel bodies for devices: weights of a network divided by their largest singular values, and the gradient of
// that, all layers at once. In one source that NVRTC compiles behind device_kernels.h and the host's compiler
// for the twin. Knows no tensors and no launches.
//
// A weight is a matrix of outputs (rows) and the elements of one output (columns), whose columns lie in memory in
// another order than in its singular vectors where the weight is channels-last. No thread waits for another: what
// is summed over a row is left in PARTS sums by as many threads, and whoever needs the sum adds these up. All sums
// are in double.

#ifndef SCRIMP_SPECTRAL_KERNELS_SOURCE
#define SCRIMP_SPECTRAL_KERNELS_SOURCE

#ifndef __CUDACC_RTC__
#include "device_kernels.h"
#endif

namespace scrimp::device {

// Most weights of one network.
constexpr int MOST_WEIGHTS = 16;
// Threads that share a sum over a row, and its parts.
constexpr int PARTS = 32;

// One weight. Pointers without a kind are to elements of the weight's.
struct SpectralWeight {
  const void* weight;
  void* divided;
  // The singular vectors, [rows] and [columns], and copies that nobody overwrites.
  void *left, *right, *left_kept, *right_kept;
  // Backward: the gradients of `divided` and of the weight, in the same order of memory.
  const void* gradient;
  void* result;
  // The place of memory m is column m % inner * outer + m / inner.
  long rows, columns, inner, outer;
  // Its rows, columns and elements among those of all weights.
  long first_row, first_column, first_element;
};

struct SpectralWork {
  SpectralWeight weights[MOST_WEIGHTS];
  int count;
  // One step of the power iteration, or none.
  bool iterates;
  double epsilon;
  // W^T u, [columns of all] in the order of memory.
  double* back;
  // Of rows: sums of W v or of G * divided, [rows of all][PARTS]; and their sums, [rows of all].
  double *parts, *images;
  // Of weights: squares of `back`, or backward <G, divided>, [count][PARTS]; and the singular values, [count].
  double *squares, *values;
  long rows, columns, elements;
  long threads;
};

// The weight that has row, column or element `place` of all.
template <long SpectralWeight::*First>
SCRIMP_INLINE int weight_at(const SpectralWork& work, long place) {
  int found = 0;
  while (found + 1 < work.count && work.weights[found + 1].*First <= place) ++found;
  return found;
}

SCRIMP_INLINE long column_at(const SpectralWeight& of, long memory) {
  return memory % of.inner * of.outer + memory / of.inner;
}

SCRIMP_INLINE double sum_of_parts(const double* parts) {
  double sum = 0.0;
  for (int part = 0; part < PARTS; ++part) sum += parts[part];
  return sum;
}

// Its length, or what divides in place of nothing's.
SCRIMP_INLINE double length_of(double squares, double epsilon) {
  const double length = sqrt(squares);
  return length < epsilon ? epsilon : length;
}

// back <- W^T u, one thread for each column of memory.
template <typename T, int>
SCRIMP_INLINE void spectral_columns(const SpectralWork& work, long thread) {
  const auto& of = work.weights[weight_at<&SpectralWeight::first_column>(work, thread)];
  const long column = thread - of.first_column;
  const auto *weight = static_cast<const T*>(of.weight), *left = static_cast<const T*>(of.left);
  double sum = 0.0;
  SCRIMP_UNROLL
  for (long row = 0; row < of.rows; ++row) {
    sum += static_cast<double>(weight[row * of.columns + column]) * left[row];
  }
  work.back[thread] = sum;
}

// parts <- W v of each row, v not yet of length 1 where it is new; squares <- v^2 of each weight.
template <typename T, int>
SCRIMP_INLINE void spectral_rows(const SpectralWork& work, long thread) {
  const long row = thread / PARTS, part = thread % PARTS;
  const int number = weight_at<&SpectralWeight::first_row>(work, row);
  const auto& of = work.weights[number];
  const auto* weight = static_cast<const T*>(of.weight) + (row - of.first_row) * of.columns;
  const auto* right = static_cast<const T*>(of.right);
  const double* back = work.back + of.first_column;
  double sum = 0.0, squares = 0.0;
  SCRIMP_UNROLL
  for (long memory = part; memory < of.columns; memory += PARTS) {
    const double v = work.iterates ? back[memory] : static_cast<double>(right[column_at(of, memory)]);
    sum += static_cast<double>(weight[memory]) * v;
    squares += v * v;
  }
  work.parts[thread] = sum;
  if (row == of.first_row) work.squares[number * PARTS + part] = squares;
}

// images <- W v of each row.
template <typename T, int>
SCRIMP_INLINE void spectral_images(const SpectralWork& work, long thread) {
  const int number = weight_at<&SpectralWeight::first_row>(work, thread);
  const double image = sum_of_parts(work.parts + thread * PARTS);
  const double squares = sum_of_parts(work.squares + number * PARTS);
  work.images[thread] = work.iterates ? image / length_of(squares, work.epsilon) : image;
}

// Moves the singular vectors, keeps copies, and values <- u^T W v; one thread for each row and column.
template <typename T, int>
SCRIMP_INLINE void spectral_vectors(const SpectralWork& work, long thread) {
  if (thread >= work.rows) {
    const long place = thread - work.rows;
    const int number = weight_at<&SpectralWeight::first_column>(work, place);
    const auto& of = work.weights[number];
    const long memory = place - of.first_column, column = column_at(of, memory);
    auto& right = static_cast<T*>(of.right)[column];
    if (work.iterates) {
      const double squares = sum_of_parts(work.squares + number * PARTS);
      right = static_cast<T>(work.back[place] / length_of(squares, work.epsilon));
    }
    static_cast<T*>(of.right_kept)[column] = right;
    return;
  }
  const int number = weight_at<&SpectralWeight::first_row>(work, thread);
  const auto& of = work.weights[number];
  const double* images = work.images + of.first_row;
  double squares = 0.0, value = 0.0;
  for (long row = 0; row < of.rows && work.iterates; ++row) squares += images[row] * images[row];
  const double length = length_of(squares, work.epsilon);
  auto* left = static_cast<T*>(of.left);
  const long own = thread - of.first_row;
  // The first row's thread sums before it moves anything, and no other moves what it reads.
  if (own == 0) {
    for (long row = 0; row < of.rows && !work.iterates; ++row) value += images[row] * left[row];
    work.values[number] = work.iterates ? squares / length : value;
  }
  if (work.iterates) left[own] = static_cast<T>(images[own] / length);
  static_cast<T*>(of.left_kept)[own] = left[own];
}

// divided <- W / value
template <typename T, int Width>
SCRIMP_INLINE void spectral_divide(const SpectralWork& work, long thread) {
  T values[Width];
  for (long place = thread * Width; place < work.elements; place += work.threads * Width) {
    const int number = weight_at<&SpectralWeight::first_element>(work, place);
    const auto& of = work.weights[number];
    const long element = place - of.first_element;
    const auto value = static_cast<T>(work.values[number]);
    load<T, Width>(of.weight, element, values);
    for (int lane = 0; lane < Width; ++lane) values[lane] = values[lane] / value;
    store<T, Width>(of.divided, element, values);
  }
}

// parts <- G * divided of each row.
template <typename T, int>
SCRIMP_INLINE void spectral_products(const SpectralWork& work, long thread) {
  const long row = thread / PARTS, part = thread % PARTS;
  const auto& of = work.weights[weight_at<&SpectralWeight::first_row>(work, row)];
  const long begin = (row - of.first_row) * of.columns;
  const auto* gradient = static_cast<const T*>(of.gradient) + begin;
  const auto* divided = static_cast<const T*>(of.divided) + begin;
  double sum = 0.0;
  SCRIMP_UNROLL
  for (long memory = part; memory < of.columns; memory += PARTS) {
    sum += static_cast<double>(gradient[memory]) * divided[memory];
  }
  work.parts[thread] = sum;
}

// squares <- <G, divided> of each weight, in parts.
template <typename T, int>
SCRIMP_INLINE void spectral_totals(const SpectralWork& work, long thread) {
  const auto& of = work.weights[thread / PARTS];
  const double* parts = work.parts + of.first_row * PARTS;
  double sum = 0.0;
  SCRIMP_UNROLL
  for (long place = thread % PARTS; place < of.rows * PARTS; place += PARTS) sum += parts[place];
  work.squares[thread] = sum;
}

// result <- (G - <G, divided> u v^T) / value
template <typename T, int Width>
SCRIMP_INLINE void spectral_pull(const SpectralWork& work, long thread) {
  T values[Width];
  for (long place = thread * Width; place < work.elements; place += work.threads * Width) {
    const int number = weight_at<&SpectralWeight::first_element>(work, place);
    const auto& of = work.weights[number];
    const long element = place - of.first_element, row = element / of.columns;
    const auto total = static_cast<T>(sum_of_parts(work.squares + number * PARTS));
    const auto value = static_cast<T>(work.values[number]);
    const T along = total * static_cast<const T*>(of.left_kept)[row];
    const auto* right = static_cast<const T*>(of.right_kept);
    load<T, Width>(of.gradient, element, values);
    for (int lane = 0; lane < Width; ++lane) {
      const long memory = element - row * of.columns + lane;
      values[lane] = (values[lane] - along * right[column_at(of, memory)]) / value;
    }
    store<T, Width>(of.result, element, values);
  }
}

// All kernels, as KERNEL(operation, Work, Element, Width).
#define SCRIMP_SPECTRAL_ALIKE(KERNEL, operation)     \
  KERNEL(operation, SpectralWork, float, 1)          \
  KERNEL(operation, SpectralWork, double, 1)
#define SCRIMP_SPECTRAL_PACKED(KERNEL, operation)    \
  KERNEL(operation, SpectralWork, float, 4)          \
  KERNEL(operation, SpectralWork, double, 2)         \
  SCRIMP_SPECTRAL_ALIKE(KERNEL, operation)
#define SCRIMP_SPECTRAL_KERNELS(KERNEL)              \
  SCRIMP_SPECTRAL_ALIKE(KERNEL, spectral_columns)    \
  SCRIMP_SPECTRAL_ALIKE(KERNEL, spectral_rows)       \
  SCRIMP_SPECTRAL_ALIKE(KERNEL, spectral_images)     \
  SCRIMP_SPECTRAL_ALIKE(KERNEL, spectral_vectors)    \
  SCRIMP_SPECTRAL_PACKED(KERNEL, spectral_divide)    \
  SCRIMP_SPECTRAL_ALIKE(KERNEL, spectral_products)   \
  SCRIMP_SPECTRAL_ALIKE(KERNEL, spectral_totals)     \
  SCRIMP_SPECTRAL_PACKED(KERNEL, spectral_pull)

#ifdef __CUDACC_RTC__
SCRIMP_SPECTRAL_KERNELS(SCRIMP_GLOBAL)
#endif

static_assert(sizeof(SpectralWork) <= 4096, "kernels take 4 KiB at most");

}  // namespace scrimp::device

#endif
