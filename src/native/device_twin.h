// The kernels of devices run on the host, one thread after the other: for tests, where there is no
// device. Not made for speed. Knows no tensors.

#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <unordered_map>
#include <vector>

#include "device_kernels.h"

namespace scrimp::device {

// How many multiprocessors a device would have, and in which order its threads run within a phase, and its
// blocks: results must not depend on it.
struct Arrangement {
  int64_t processors = 1;
  // 0: as they are numbered; -1: from the last to the first; another number is the seed of a chance order.
  int64_t order = 0;
};

// Of the tests of one thread, and of what they call.
inline thread_local Arrangement arrangement;

inline std::vector<int64_t> arranged(int64_t count) {
  std::vector<int64_t> numbers(count);
  std::iota(numbers.begin(), numbers.end(), 0);
  if (arrangement.order < 0) {
    std::reverse(numbers.begin(), numbers.end());
  } else if (arrangement.order > 0) {
    std::shuffle(numbers.begin(), numbers.end(), std::mt19937_64(arrangement.order));
  }
  return numbers;
}

template <typename Sum, int Width>
void run_block(const SumWork& work, Place place, const std::vector<int64_t>& threads) {
  auto shared = std::make_unique<Shared<Width>>();
  // What is read before it is written shall not be a number.
  std::memset(shared->sums, 0xff, sizeof shared->sums);
  std::memset(shared->folded, 0xff, sizeof shared->folded);
  for (int number = 0; number < PHASES; ++number) {
    for (const auto thread : threads) {
      place.thread = static_cast<int>(thread);
      phase<Sum>(number, work, place, *shared);
    }
    if (number == TICKET && !shared->is_last) return;
  }
}

using ThreadKernel = void (*)(const void* work, long thread);
using BlockKernel = void (*)(const SumWork& work, Place place, const std::vector<int64_t>& threads);

#define SCRIMP_HOST(operation, Work, Element, Width)                       \
  {#operation "_" #Element "_" #Width, [](const void* work, long thread) { \
     operation<Element, Width>(*static_cast<const Work*>(work), thread);   \
   }},
inline const std::unordered_map<std::string, ThreadKernel> THREAD_KERNELS{
    SCRIMP_THREAD_KERNELS(SCRIMP_HOST)};
#undef SCRIMP_HOST

#define SCRIMP_HOST(operation, Work, Element, Width) \
  {#operation "_" #Element "_" #Width, run_block<operation<Element, Width>, Width>},
inline const std::unordered_map<std::string, BlockKernel> BLOCK_KERNELS{
    SCRIMP_SUM_KERNELS(SCRIMP_HOST)};
#undef SCRIMP_HOST

inline void run(const std::string& kernel, const void* work, int64_t threads) {
  const auto body = THREAD_KERNELS.at(kernel);
  for (const auto thread : arranged(threads)) body(work, thread);
}

inline void run_sum(const std::string& kernel, const SumWork& work, int64_t groups) {
  const auto body = BLOCK_KERNELS.at(kernel);
  const auto threads = arranged(SUM_THREADS);
  for (const auto block : arranged(groups * work.blocks)) {
    body(work, {0, block / groups, block % groups}, threads);
  }
}

}  // namespace scrimp::device
