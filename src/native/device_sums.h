// Kernel bodies for devices that sum over the pixels of channels: statistics of a batch, and gradients of
// what depends on them. Knows no tensors and no launches.
//
// A kernel is a number of phases, and between two of them all threads of a block wait for each other; on the
// host a phase is a loop over the threads of a block. Blocks stand in a grid: along pixels, and in groups of
// channels. Each leaves a row of sums behind, and which block of a group comes last adds up the rows of all
// and finishes. Whichever that is: sums are added in the same order, so that results are the same bits.

#ifndef SCRIMP_DEVICE_SUMS
#define SCRIMP_DEVICE_SUMS

#include "device_elements.h"

namespace scrimp::device {

// Threads of a block, and blocks that a multiprocessor is to hold at once.
constexpr int SUM_THREADS = 256, SUM_BLOCKS = 2;
// What the channels of a group take in memory at most: a line.
constexpr long GROUP_BYTES = 128;
constexpr long MOST_GROUPS = 1024;

// Work on channels. What a kernel does not use may be null.
struct ChannelWork {
  // Sums of x and of x^2, each [C], and the number of values per channel.
  double* total;
  // Parameters are of one type, double or float.
  const void *weight, *bias, *absorbed;
  void *running_mean, *running_var;
  bool are_double;
  // Counted up where it is not null.
  long* batches;
  double momentum, epsilon;
  void *d_weight, *d_bias;
  // As in ElementWork.
  double *coefficients, *corrections;
  long threads;
};

struct SumWork {
  ElementWork elements;
  ChannelWork channels;
  long pixels;
  // Packs of a pixel that a group takes.
  int columns;
  // Along pixels.
  long blocks;
  // Sums of each block, [groups][blocks][2][columns * Width].
  double* partial;
  // How many blocks of each group are done, [groups]: 0 before and after a kernel.
  unsigned* done;
};

// Where a thread is.
struct Place {
  int thread;
  long block, group;
};

// What the threads of a block share.
template <int Width>
struct Shared {
  // Of each thread, lane by lane. Rows are so long that threads which add up a channel each read from
  // different banks.
  double sums[2 * Width][SUM_THREADS + 16 / Width];
  double folded[SUM_THREADS];
  bool is_last;
};

// Makes what a thread has written known to all blocks before what it does next.
SCRIMP_INLINE void publish() {
#ifdef __CUDACC_RTC__
  __threadfence();
#endif
}

// What another block has published.
SCRIMP_INLINE double published(const double* from) {
#ifdef __CUDACC_RTC__
  return __ldcg(from);
#else
  return *from;
#endif
}

// The number before it grew by one, whichever blocks do so at once.
SCRIMP_INLINE unsigned grown(unsigned* number) {
#ifdef __CUDACC_RTC__
  return atomicAdd(number, 1u);
#else
  return __atomic_fetch_add(number, 1u, __ATOMIC_ACQ_REL);
#endif
}

// The packs of a thread that sums: every `step` elements one from `first` on.
struct Packs {
  long channel, first, step, count;
};

// Threads of a block stand in rows of `columns`; those for whom there is no row or no channel get no packs,
// and `is_idle`.
template <int Width>
SCRIMP_INLINE bool is_idle(const SumWork& work, const Place& place) {
  const int row = place.thread / work.columns, column = place.thread % work.columns;
  const long channel = (place.group * work.columns + column) * Width;
  return row >= SUM_THREADS / work.columns || channel >= work.elements.channels;
}

template <int Width>
SCRIMP_INLINE Packs packs_of(const SumWork& work, const Place& place) {
  const int rows = SUM_THREADS / work.columns;
  const int row = place.thread / work.columns, column = place.thread % work.columns;
  const long channel = (place.group * work.columns + column) * Width;
  const long pixel = place.block * rows + row, step = work.blocks * rows;
  const long left = work.pixels - pixel, channels = work.elements.channels;
  return {channel, pixel * channels + channel, step * channels,
          left > 0 ? (left + step - 1) / step : 0};
}

// Which of the two sums of which channel a thread adds up, and which part of the terms: every `parts`
// terms one from `part` on.
struct Term {
  int value, values, part, parts;
  // In a group, and in the tensor.
  int lane;
  long channel;
  bool is_second, is_idle;
};

template <int Width>
SCRIMP_INLINE Term term_of(const SumWork& work, const Place& place) {
  const int half = work.columns * Width, values = 2 * half;
  Term term{};
  term.values = values;
  term.value = place.thread % values;
  term.part = place.thread / values;
  term.parts = SUM_THREADS / values;
  term.is_second = term.value >= half;
  term.lane = term.is_second ? term.value - half : term.value;
  term.channel = place.group * half + term.lane;
  term.is_idle = term.part >= term.parts || term.channel >= work.elements.channels;
  return term;
}

// Each thread adds up a part of the rows of its block.
template <int Width>
SCRIMP_INLINE void fold(const SumWork& work, const Place& place, Shared<Width>& shared) {
  const auto term = term_of<Width>(work, place);
  if (term.is_idle) return;
  const int rows = SUM_THREADS / work.columns;
  const int lane = term.lane % Width, column = term.lane / Width;
  const double* sums = shared.sums[term.is_second ? Width + lane : lane] + column;
  double sum = 0.0;
  for (int row = term.part; row < rows; row += term.parts) sum += sums[row * work.columns];
  shared.folded[place.thread] = sum;
}

// The sum of all parts of a value.
template <int Width>
SCRIMP_INLINE double whole(const Term& term, int value, const Shared<Width>& shared) {
  double sum = 0.0;
  for (int part = 0; part < term.parts; ++part) sum += shared.folded[part * term.values + value];
  return sum;
}

template <int Width>
SCRIMP_INLINE void leave_row(const SumWork& work, const Place& place, const Shared<Width>& shared) {
  const auto term = term_of<Width>(work, place);
  if (term.is_idle || term.part > 0) return;
  const long row = place.group * work.blocks + place.block;
  work.partial[row * term.values + term.value] = whole(term, term.value, shared);
  publish();
}

template <int Width>
SCRIMP_INLINE void ask_who_is_last(const SumWork& work, const Place& place, Shared<Width>& shared) {
  if (place.thread != 0) return;
  auto* done = work.done + place.group;
  shared.is_last = grown(done) == work.blocks - 1;
  // For the next kernel.
  if (shared.is_last) *done = 0;
  publish();
}

// Each thread of the last block adds up a part of the rows of all.
template <int Width>
SCRIMP_INLINE void fold_blocks(const SumWork& work, const Place& place, Shared<Width>& shared) {
  const auto term = term_of<Width>(work, place);
  if (term.is_idle) return;
  const double* rows = work.partial + place.group * work.blocks * term.values + term.value;
  double sum = 0.0;
  // Several reads under way at once.
  SCRIMP_UNROLL
  for (long row = term.part; row < work.blocks; row += term.parts) {
    sum += published(rows + row * term.values);
  }
  shared.folded[place.thread] = sum;
}

constexpr int PHASES = 6, TICKET = 3;

// What a thread does in a phase of a kernel that adds up and finishes as `Sum` says. After phase TICKET all
// blocks but the last of each group are done.
template <typename Sum, int Width>
SCRIMP_INLINE void phase(int number, const SumWork& work, const Place& place,
                         Shared<Width>& shared) {
  if (number == 0) {
    if (!is_idle<Width>(work, place)) Sum::add(work, place, shared);
  } else if (number == 1) {
    fold(work, place, shared);
  } else if (number == 2) {
    leave_row(work, place, shared);
  } else if (number == TICKET) {
    ask_who_is_last(work, place, shared);
  } else if (number == 4) {
    fold_blocks(work, place, shared);
  } else {
    const auto term = term_of<Width>(work, place);
    if (term.is_idle || term.part > 0 || term.is_second) return;
    const double first = whole(term, term.value, shared);
    Sum::finish(work, term.channel, first,
                whole(term, term.value + work.columns * Width, shared));
  }
}

// Packs whose sums stay in the precision of computing before they are added up in double.
constexpr long BLOCK = 16;

template <int Width, typename T>
SCRIMP_INLINE void clear(T* values) {
  for (int lane = 0; lane < Width; ++lane) values[lane] = 0;
}

SCRIMP_INLINE double parameter(const ChannelWork& work, const void* row, long c) {
  return work.are_double ? static_cast<const double*>(row)[c] : static_cast<const float*>(row)[c];
}

SCRIMP_INLINE void set_parameter(const ChannelWork& work, void* row, long c, double value) {
  if (work.are_double) {
    static_cast<double*>(row)[c] = value;
  } else {
    static_cast<float*>(row)[c] = static_cast<float>(value);
  }
}

// running + share * (value - running); with all of it, what was there does not matter, were it not even a
// number.
SCRIMP_INLINE void move(const ChannelWork& work, void* row, long c, double value, double share) {
  const double running = parameter(work, row, c);
  set_parameter(work, row, c, share == 1.0 ? value : running + (value - running) * share);
}

// From sums of x and of x^2 of all ranks: coefficients of a channel; moves its running statistics. What is
// not a number stays that.
SCRIMP_INLINE void coefficients_of(const ChannelWork& work, long channels, long c, double sum,
                                   double square, double values) {
  const double count = values < 1.0 ? 1.0 : values;
  const double mean = sum / count, spread = square / count - mean * mean;
  const double variance = spread < 0.0 ? 0.0 : spread;
  const double inverse_deviation = 1.0 / sqrt(variance + work.epsilon);
  const double scale = parameter(work, work.weight, c) * inverse_deviation;
  work.coefficients[MEAN * channels + c] = mean;
  work.coefficients[INVERSE_DEVIATION * channels + c] = inverse_deviation;
  work.coefficients[SCALE * channels + c] = scale;
  work.coefficients[SHIFT * channels + c] = parameter(work, work.bias, c) - mean * scale;
  work.coefficients[VALUES * channels + c] = count;

  // A rank without samples that normalises alone leaves the running statistics as they are.
  const double share = values > 0.0 ? work.momentum : 0.0;
  const double unbiased = variance * (count / (count < 2.0 ? 1.0 : count - 1.0));
  move(work, work.running_mean, c, mean + parameter(work, work.absorbed, c), share);
  move(work, work.running_var, c, unbiased, share);
  if (c == 0 && work.batches != nullptr) ++*work.batches;
}

// Coefficients from the moments of all ranks.
template <typename, int>
SCRIMP_INLINE void coefficients(const ChannelWork& work, long c) {
  const long channels = work.threads;
  coefficients_of(work, channels, c, work.total[c], work.total[channels + c],
                  work.total[2 * channels]);
}

// Sums of x and of x^2 become the moments of this rank where it is asked for them, else coefficients.
template <typename Element, int Width>
struct moments {
  using T = Computed<Element>;

  static SCRIMP_INLINE void add(const SumWork& work, const Place& place, Shared<Width>& shared) {
    for (int value = 0; value < 2 * Width; ++value) shared.sums[value][place.thread] = 0.0;
    const auto packs = packs_of<Width>(work, place);
    long first = packs.first;
    for (long left = packs.count; left > 0; left -= BLOCK) {
      const int count = static_cast<int>(left < BLOCK ? left : BLOCK);
      T pivot[Width], values[Width], sum[Width], square[Width];
      clear<Width>(sum);
      clear<Width>(square);
      load<Element, Width>(work.elements.x, first, pivot);
      SCRIMP_UNROLL
      for (int pack = 0; pack < count; ++pack, first += packs.step) {
        load<Element, Width>(work.elements.x, first, values);
        for (int lane = 0; lane < Width; ++lane) {
          const T d = values[lane] - pivot[lane];
          sum[lane] += d;
          square[lane] += d * d;
        }
      }
      // Moments about the pivot become moments about zero, in double.
      for (int lane = 0; lane < Width; ++lane) {
        const double p = pivot[lane], s = sum[lane];
        shared.sums[lane][place.thread] += count * p + s;
        shared.sums[Width + lane][place.thread] += square[lane] + 2.0 * p * s + count * p * p;
      }
    }
  }

  static SCRIMP_INLINE void finish(const SumWork& work, long c, double sum, double square) {
    const auto& of = work.channels;
    const long channels = work.elements.channels;
    const auto values = static_cast<double>(work.pixels);
    if (of.total == nullptr) return coefficients_of(of, channels, c, sum, square, values);
    of.total[c] = sum;
    of.total[channels + c] = square;
    if (c == 0) of.total[2 * channels] = values;
  }
};

// out <- g, the gradient before the activation. Sums of g and of g*(x - mean) become this rank's gradients
// of weight and bias, and its share of offset and tilt.
template <typename Element, int Width>
struct deactivate {
  using T = Computed<Element>;

  static SCRIMP_INLINE void add(const SumWork& work, const Place& place, Shared<Width>& shared) {
    const auto& of = work.elements;
    const auto packs = packs_of<Width>(work, place);
    const auto slope = static_cast<T>(of.slope);
    T mean[Width], scale[Width], shift[Width], x[Width], g[Width];
    load_channels<Width>(of.coefficients + MEAN * of.channels, packs.channel, mean);
    load_channels<Width>(of.coefficients + SCALE * of.channels, packs.channel, scale);
    load_channels<Width>(of.coefficients + SHIFT * of.channels, packs.channel, shift);
    for (int value = 0; value < 2 * Width; ++value) shared.sums[value][place.thread] = 0.0;
    if (packs.count == 0) return;
    long first = packs.first;
    auto position = position_of(of, first);
    auto next_x = fetch<Element, Width>(of.x, first), next_g = fetch<Element, Width>(of.dy, first);
    for (long left = packs.count; left > 0; left -= BLOCK) {
      T sum[Width], product[Width];
      clear<Width>(sum);
      clear<Width>(product);
      const long last = left > BLOCK ? left - BLOCK : 0;
      for (long pack = left; pack > last; --pack, first += packs.step) {
        widen(next_x, x);
        widen(next_g, g);
        // On their way while this pack is worked on.
        const long next = pack > 1 ? first + packs.step : first;
        next_x = fetch<Element, Width>(of.x, next);
        next_g = fetch<Element, Width>(of.dy, next);
        drop<Width>(of, packs.step, position, g);
        for (int lane = 0; lane < Width; ++lane) {
          g[lane] = x[lane] * scale[lane] + shift[lane] > 0 ? g[lane] : g[lane] * slope;
          sum[lane] += g[lane];
          product[lane] += g[lane] * (x[lane] - mean[lane]);
        }
        store<Element, Width>(of.out, first, g);
      }
      for (int lane = 0; lane < Width; ++lane) {
        shared.sums[lane][place.thread] += sum[lane];
        shared.sums[Width + lane][place.thread] += product[lane];
      }
    }
  }

  static SCRIMP_INLINE void finish(const SumWork& work, long c, double sum, double product) {
    const auto& of = work.channels;
    const long channels = work.elements.channels;
    const double inverse_deviation = of.coefficients[INVERSE_DEVIATION * channels + c];
    const double count = of.coefficients[VALUES * channels + c];
    set_parameter(of, of.d_weight, c, product * inverse_deviation);
    set_parameter(of, of.d_bias, c, sum);
    of.corrections[c] = sum / count;
    of.corrections[channels + c] = product * inverse_deviation * inverse_deviation / count;
  }
};

}  // namespace scrimp::device

#endif
