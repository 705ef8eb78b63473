// The kernels for features that spread between pixels under sanitizers, as main.cpp runs the others.

#pragma once

#include "propagation_kernels.h"
#include "rig.h"

namespace scrimp::device {

// `each` threads for a pixel, or one for each pack of its channels.
template <typename T, int Width>
void run_propagation(const char* operation, long each) {
  const struct {
    long samples;
    int height, width;
    long packs;
  } several[] = {{1, 1, 1, 1}, {2, 5, 7, 3}, {1, 11, 3, 2}};
  for (const auto& of : several) {
    Scene scene(name_of<T>(operation, Width));
    PropagationWork work{};
    work.height = of.height, work.width = of.width;
    work.pixels = of.samples * of.height * of.width;
    work.channels = of.packs * Width;
    work.features = scene.numbers<T>(work.pixels * work.channels);
    work.compared = scene.numbers<T>(work.pixels * work.channels);
    work.gradient = scene.numbers<T>(work.pixels * work.channels);
    work.weights = scene.numbers<T>(work.pixels * NEIGHBOURS);
    work.products = scene.numbers<T>(work.pixels * NEIGHBOURS);
    work.out = scene.space<T>(work.pixels * work.channels);
    work.threads = work.pixels * (each > 0 ? each : of.packs);
    scene.run_threads(&work, work.threads);
  }
}

template <typename T, int Width>
void propagation_kernels() {
  run_propagation<T, Width>("propagation_products", NEIGHBOURS);
  run_propagation<T, Width>("propagation_blend", 0);
  run_propagation<T, Width>("propagation_pull", 0);
  if (Width > 1) return;
  run_propagation<T, 1>("propagation_weights", 1);
  run_propagation<T, 1>("propagation_slopes", 1);
}

}  // namespace scrimp::device
