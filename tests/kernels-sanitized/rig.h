// How kernels for devices run under sanitizers: on heap buffers of the very size, and each kernel twice, as the
// twin of the tests runs it, one thread after the other, and on threads of the system. Knows no formulas.
//
// The lanes of a block are spread over several threads by chance, a barrier stands where those of the device stand,
// and several blocks run at once: so a race between lanes, or between blocks, is one that a sanitizer sees.

#pragma once

#include <pthread.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "all_kernels.h"
#include "device_twin.h"

namespace scrimp::device {

// Blocks at once, and threads that share the lanes of each.
constexpr int TEAMS = 2, MEMBERS = 3;

[[noreturn]] inline void fail(const std::string& kernel, const std::string& what) {
  std::fprintf(stderr, "`%s` %s\n", kernel.c_str(), what.c_str());
  std::exit(1);
}

// Memory of `bytes` bytes and no more; the contents are numbers by chance, or no numbers.
class Buffer {
 public:
  explicit Buffer(size_t bytes) : bytes_(bytes), at_(std::malloc(bytes)) {
    if (bytes > 0) std::memset(at_, 0xff, bytes);
  }
  ~Buffer() { std::free(at_); }
  Buffer(const Buffer&) = delete;
  void* at() const { return at_; }
  size_t bytes() const { return bytes_; }

 private:
  size_t bytes_;
  void* at_;
};

// Which of `members` runs each of `count` lanes, the same in every run of this program.
inline std::vector<int> spread(long count, int members) {
  static std::mt19937_64 chance(17);
  std::vector<int> of(static_cast<size_t>(count));
  for (auto& member : of) member = static_cast<int>(chance() % static_cast<uint64_t>(members));
  return of;
}

template <typename Body>
void together(int count, const Body& body) {
  std::vector<std::thread> threads;
  for (int number = 0; number < count; ++number) threads.emplace_back(body, number);
  for (auto& thread : threads) thread.join();
}

template <typename Sum, int Width>
void run_blocks_at_once(const SumWork& work, long groups) {
  const long blocks = groups * work.blocks;
  std::vector<std::unique_ptr<Shared<Width>>> shared(static_cast<size_t>(blocks));
  for (auto& of_block : shared) {
    of_block = std::make_unique<Shared<Width>>();
    std::memset(of_block.get(), 0xff, sizeof *of_block);
    of_block->is_last = false;
  }
  const auto member_of = spread(SUM_THREADS, MEMBERS);
  pthread_barrier_t barriers[TEAMS];
  for (auto& barrier : barriers) pthread_barrier_init(&barrier, nullptr, MEMBERS);
  together(TEAMS * MEMBERS, [&](int number) {
    const int team = number / MEMBERS, member = number % MEMBERS;
    for (long block = team; block < blocks; block += TEAMS) {
      auto& of_block = *shared[static_cast<size_t>(block)];
      for (int step = 0; step < PHASES; ++step) {
        for (int lane = 0; lane < SUM_THREADS; ++lane) {
          if (member_of[static_cast<size_t>(lane)] != member) continue;
          phase<Sum, Width>(step, work, {lane, block / groups, block % groups}, of_block);
        }
        pthread_barrier_wait(&barriers[team]);
        if (step == TICKET && !of_block.is_last) break;
      }
    }
  });
  for (auto& barrier : barriers) pthread_barrier_destroy(&barrier);
}

#define SCRIMP_BY_THREAD(operation, Work, Element, Width)                  \
  {#operation "_" #Element "_" #Width, [](const void* work, long thread) { \
     operation<Element, Width>(*static_cast<const Work*>(work), thread);   \
   }},
inline const std::unordered_map<std::string, ThreadKernel> BY_THREAD{
    SCRIMP_THREAD_KERNELS(SCRIMP_BY_THREAD) SCRIMP_FLAT_KERNELS(SCRIMP_BY_THREAD)
        SCRIMP_SPECTRAL_KERNELS(SCRIMP_BY_THREAD) SCRIMP_PROPAGATION_KERNELS(SCRIMP_BY_THREAD)};
#undef SCRIMP_BY_THREAD

using BlocksAtOnce = void (*)(const SumWork& work, long groups);
#define SCRIMP_AT_ONCE(operation, Work, Element, Width) \
  {#operation "_" #Element "_" #Width, run_blocks_at_once<operation<Element, Width>, Width>},
inline const std::unordered_map<std::string, BlocksAtOnce> BLOCKS_AT_ONCE{
    SCRIMP_SUM_KERNELS(SCRIMP_AT_ONCE)};
#undef SCRIMP_AT_ONCE

// The buffers of one kernel, and the two ways to run it.
class Scene {
 public:
  explicit Scene(std::string kernel) : kernel_(std::move(kernel)) { names().insert(kernel_); }

  // All kernels that a scene was made for.
  static std::set<std::string>& names() {
    static std::set<std::string> all;
    return all;
  }

  // Numbers by chance in `T`, for `Element` as that holds them.
  template <typename Element>
  Element* numbers(long count) {
    auto* values = space<Element>(count);
    std::normal_distribution<float> normal;
    for (long n = 0; n < count; ++n) narrow(Computed<Element>(normal(chance_)), values[n]);
    return values;
  }

  long* keys(long count) {
    auto* values = space<long>(count);
    for (long n = 0; n < count; ++n) values[n] = static_cast<long>(chance_());
    return values;
  }

  // Contents that are no numbers.
  template <typename T>
  T* space(long count) {
    buffers_.push_back(std::make_unique<Buffer>(sizeof(T) * static_cast<size_t>(count)));
    return static_cast<T*>(buffers_.back()->at());
  }

  template <typename T>
  T* zeros(long count) {
    auto* values = space<T>(count);
    for (long n = 0; n < count; ++n) values[n] = T();
    return values;
  }

  void run_threads(const void* work, long threads) {
    const auto body = BY_THREAD.at(kernel_);
    const auto member_of = spread(threads, TEAMS * MEMBERS);
    twice([&] { for (const auto thread : arranged(threads)) body(work, thread); },
          [&] {
            together(TEAMS * MEMBERS, [&](int member) {
              for (long thread = 0; thread < threads; ++thread) {
                if (member_of[static_cast<size_t>(thread)] == member) body(work, thread);
              }
            });
          });
  }

  void run_blocks(const SumWork& work, long groups) {
    twice([&] { run_sum(kernel_, work, groups); },
          [&] { BLOCKS_AT_ONCE.at(kernel_)(work, groups); });
    for (long group = 0; group < groups; ++group) {
      if (work.done[group] != 0) fail(kernel_, "leaves a counter behind");
    }
  }

 private:
  // Both ways begin with the same contents of all buffers, and must leave the same bits.
  void twice(const std::function<void()>& one, const std::function<void()>& other) {
    const auto before = contents();
    one();
    const auto after = contents();
    for (size_t n = 0; n < buffers_.size(); ++n) {
      if (!before[n].empty()) std::memcpy(buffers_[n]->at(), before[n].data(), before[n].size());
    }
    other();
    if (contents() != after) fail(kernel_, "gives other bits on several threads");
    if (after == before) fail(kernel_, "writes nothing");
  }

  std::vector<std::vector<char>> contents() const {
    std::vector<std::vector<char>> all;
    for (const auto& buffer : buffers_) {
      const auto* at = static_cast<const char*>(buffer->at());
      all.emplace_back(at, at + buffer->bytes());
    }
    return all;
  }

  std::string kernel_;
  std::vector<std::unique_ptr<Buffer>> buffers_;
  std::mt19937_64 chance_{23};
};

// The same in all kernels of a list.
template <typename Element>
const char* element_word();
template <>
inline const char* element_word<float>() { return "float"; }
template <>
inline const char* element_word<double>() { return "double"; }
template <>
inline const char* element_word<bfloat16>() { return "bfloat16"; }

template <typename Element>
std::string name_of(const char* operation, int width) {
  return std::string(operation) + "_" + element_word<Element>() + "_" + std::to_string(width);
}

}  // namespace scrimp::device
