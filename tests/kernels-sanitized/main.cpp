// Runs every kernel for devices on the host, for AddressSanitizer, UndefinedBehaviorSanitizer and
// ThreadSanitizer: sizes around the limits of packs, rows, blocks and groups. Whether numbers are right, other
// tests say; here they are the same bits in whatever order threads run.

#include <algorithm>
#include <utility>

#include "flat.h"
#include "propagation.h"
#include "rig.h"
#include "spectral.h"

namespace scrimp::device {

// Samples, pixels of each, and channels in packs.
struct Extent {
  long samples, plane, packs;
};

constexpr Extent EXTENTS[] = {{0, 5, 3}, {1, 1, 1}, {3, 1, 5}, {2, 67, 8}, {1, 129, 9}, {3, 43, 17}};

template <typename Element, int Width>
ElementWork work_on(Scene& scene, const Extent& of, bool drops) {
  ElementWork work{};
  work.channels = of.packs * Width;
  work.sample = of.plane * work.channels;
  work.elements = of.samples * work.sample;
  work.x = scene.numbers<Element>(work.elements);
  work.slope = 0.01;
  if (drops) {
    work.keys = scene.keys(of.samples);
    work.threshold = 1u << 30;
    work.kept = 4.0 / 3.0;
  }
  return work;
}

// In groups and blocks as the table of kernels has them, for so many blocks at most.
template <typename Element, int Width>
void run_sum(Scene& scene, SumWork& work, long blocks) {
  const auto quotient = [](long number, long divisor) { return (number + divisor - 1) / divisor; };
  const long packs = work.elements.channels / Width;
  const long least = quotient(packs, GROUP_BYTES / static_cast<long>(Width * sizeof(Element)));
  work.columns = static_cast<int>(quotient(packs, least));
  const long groups = quotient(packs, work.columns);
  work.pixels = work.elements.elements / work.elements.channels;
  work.blocks = blocks;
  work.partial = scene.space<double>(groups * blocks * 2 * work.columns * Width);
  work.done = scene.zeros<unsigned>(groups);
  scene.run_blocks(work, groups);
}

template <typename Parameter>
void give_parameters(Scene& scene, ChannelWork& work, long channels) {
  work.weight = scene.numbers<Parameter>(channels);
  work.bias = scene.numbers<Parameter>(channels);
  work.absorbed = scene.numbers<Parameter>(channels);
  work.running_mean = scene.numbers<Parameter>(channels);
  work.running_var = scene.numbers<Parameter>(channels);
  work.are_double = sizeof(Parameter) == 8;
  work.batches = scene.zeros<long>(1);
  work.momentum = 0.1;
  work.epsilon = 1e-5;
  work.coefficients = scene.space<double>(ROWS * channels);
}

template <typename Element, int Width, typename Parameter>
void moments_of(const Extent& of, long blocks) {
  {
    Scene scene(name_of<Element>("moments", Width));
    SumWork work{};
    work.elements = work_on<Element, Width>(scene, of, false);
    work.channels.total = scene.space<double>(2 * work.elements.channels + 1);
    run_sum<Element, Width>(scene, work, blocks);
  }
  Scene scene(name_of<Element>("moments", Width));
  SumWork work{};
  work.elements = work_on<Element, Width>(scene, of, false);
  give_parameters<Parameter>(scene, work.channels, work.elements.channels);
  run_sum<Element, Width>(scene, work, blocks);
}

template <typename Element, int Width, typename Parameter>
void deactivate_of(const Extent& of, long blocks) {
  for (const bool drops : {false, true}) {
    Scene scene(name_of<Element>("deactivate", Width));
    SumWork work{};
    auto& elements = work.elements = work_on<Element, Width>(scene, of, drops);
    elements.dy = scene.numbers<Element>(elements.elements);
    elements.out = scene.space<Element>(elements.elements);
    work.channels.coefficients = scene.numbers<double>(ROWS * elements.channels);
    elements.coefficients = work.channels.coefficients;
    work.channels.are_double = sizeof(Parameter) == 8;
    work.channels.d_weight = scene.space<Parameter>(elements.channels);
    work.channels.d_bias = scene.space<Parameter>(elements.channels);
    work.channels.corrections = scene.space<double>(2 * elements.channels);
    run_sum<Element, Width>(scene, work, blocks);
  }
}

template <typename Element, int Width>
void elements_of(const Extent& of, long pixels_at_once) {
  if (of.samples == 0) return;
  for (const bool drops : {false, true}) {
    Scene scene(name_of<Element>("activate", Width));
    auto work = work_on<Element, Width>(scene, of, drops);
    work.out = scene.space<Element>(work.elements);
    // Evaluation has no row for the number of values.
    work.coefficients = scene.numbers<double>(VALUES * work.channels);
    work.threads = pixels_at_once * of.packs;
    scene.run_threads(&work, work.threads);
  }
  Scene scene(name_of<Element>("centre", Width));
  auto work = work_on<Element, Width>(scene, of, false);
  work.out = scene.numbers<Element>(work.elements);
  work.coefficients = scene.numbers<double>(ROWS * work.channels);
  work.corrections = scene.numbers<double>(2 * work.channels);
  work.threads = pixels_at_once * of.packs;
  scene.run_threads(&work, work.threads);
}

template <typename Element, int Width>
void packed() {
  // Rows of a block times packs of a thread, and one more, are among the extents with these.
  for (const auto& of : EXTENTS) {
    for (const long blocks : {1, 3}) {
      moments_of<Element, Width, float>(of, blocks);
      deactivate_of<Element, Width, double>(of, blocks);
    }
    moments_of<Element, Width, double>(of, 5);
    deactivate_of<Element, Width, float>(of, 2);
    for (const long pixels_at_once : {1, 4, 200}) elements_of<Element, Width>(of, pixels_at_once);
  }
}

template <typename Parameter>
void coefficients() {
  for (const long channels : {1, 3, 129}) {
    Scene scene("coefficients_double_1");
    ChannelWork work{};
    give_parameters<Parameter>(scene, work, channels);
    work.total = scene.numbers<double>(2 * channels + 1);
    work.threads = channels;
    scene.run_threads(&work, channels);
  }
}

template <typename Element>
void normal() {
  for (const auto& [samples, sample, threads] : {Extent{1, 1, 1}, {3, 7, 2}, {2, 256, 5}, {5, 9, 99}}) {
    Scene scene(name_of<Element>("normal", 1));
    ElementWork work{};
    work.out = scene.space<Element>(samples * sample);
    work.keys = scene.keys(samples);
    work.elements = samples * sample;
    work.sample = sample;
    work.channels = 1;
    work.threads = threads;
    scene.run_threads(&work, threads);
  }
}

template <typename T>
void neighbours() {
  for (const int channels : {1, 4, 5}) {
    for (const auto& [depth, radius] : {std::pair{1, 1}, {1, 9}, {3, 1}, {3, 9}}) {
      for (const bool masked : {false, true}) {
        Scene scene(name_of<T>("neighbours", 4));
        NeighbourWork work{};
        work.samples = 2, work.channels = channels;
        work.depth = depth, work.height = 5, work.width = 7;
        const long pixels = work.samples * work.depth * work.height * work.width;
        work.probabilities = scene.numbers<T>(pixels * channels);
        work.image = scene.numbers<T>(pixels);
        if (masked) {
          work.source = scene.numbers<T>(pixels);
          work.destination = scene.numbers<T>(pixels);
        }
        work.sums = scene.space<T>(pixels * channels);
        work.totals = scene.space<double>(pixels);
        work.terms = masked ? MOST_TERMS : 1;
        std::fill_n(work.weight, MOST_TERMS, 0.5);
        std::fill_n(work.distance, MOST_TERMS, 0.1);
        std::fill_n(work.slices, MOST_TERMS, 0.2);
        std::fill_n(work.radius, 3, radius);
        work.threads = masked ? pixels : 16;
        scene.run_threads(&work, work.threads);
      }
    }
  }
}

}  // namespace scrimp::device

int main() {
  using namespace scrimp::device;
  packed<float, 4>();
  packed<float, 1>();
  packed<double, 2>();
  packed<double, 1>();
  packed<bfloat16, 8>();
  packed<bfloat16, 1>();
  coefficients<float>();
  coefficients<double>();
  normal<float>();
  normal<double>();
  normal<bfloat16>();
  neighbours<float>();
  neighbours<double>();
  flat_kernels<float, 4>();
  flat_kernels<float, 1>();
  flat_kernels<double, 2>();
  flat_kernels<double, 1>();
  copies();
  spectral_kernels<float, 4>();
  spectral_kernels<float, 1>();
  spectral_kernels<double, 2>();
  spectral_kernels<double, 1>();
  propagation_kernels<float, 4>();
  propagation_kernels<float, 1>();
  propagation_kernels<double, 2>();
  propagation_kernels<double, 1>();
#define SCRIMP_ASK(operation, Work, Element, Width) #operation "_" #Element "_" #Width,
  for (const char* kernel : {SCRIMP_ALL_KERNELS(SCRIMP_ASK)}) {
    if (Scene::names().count(kernel) == 0) fail(kernel, "was not run: add it to this program");
  }
  std::printf("%zu kernels\n", Scene::names().size());
}
