// The kernels for weights divided by their singular values under sanitizers, as main.cpp runs the others.

#pragma once

#include <string>

#include "rig.h"
#include "spectral_kernels.h"

namespace scrimp::device {

// Rows and columns of a weight in packs, and the extent of a column's place that memory has first.
struct Matrix {
  long rows, columns, inner;
};

template <typename T>
SpectralWork spectral_work(Scene& scene, const std::initializer_list<Matrix>& matrices, int width) {
  SpectralWork work{};
  for (const auto& [rows, packs, inner] : matrices) {
    auto& of = work.weights[work.count++];
    const long columns = packs * width;
    of.weight = scene.numbers<T>(rows * columns);
    of.divided = scene.numbers<T>(rows * columns);
    of.gradient = scene.numbers<T>(rows * columns);
    of.result = scene.space<T>(rows * columns);
    of.left = scene.numbers<T>(rows);
    of.left_kept = scene.numbers<T>(rows);
    of.right = scene.numbers<T>(columns);
    of.right_kept = scene.numbers<T>(columns);
    of.rows = rows, of.columns = columns, of.inner = inner, of.outer = columns / inner;
    of.first_row = work.rows, of.first_column = work.columns, of.first_element = work.elements;
    work.rows += rows, work.columns += columns, work.elements += rows * columns;
  }
  work.epsilon = 1e-12;
  work.back = scene.numbers<double>(work.columns);
  work.parts = scene.numbers<double>(work.rows * PARTS);
  work.images = scene.numbers<double>(work.rows);
  work.squares = scene.numbers<double>(work.count * PARTS);
  work.values = scene.numbers<double>(work.count);
  return work;
}

template <typename T, int Width>
void run_spectral(const char* operation, long SpectralWork::*places, long each, bool iterates) {
  const std::initializer_list<Matrix> several[] = {
      {{1, 1, 1}}, {{3, 4, 2}, {1, 1, 1}, {2, 33, 3}}, {{40, 9, 9}, {1, 65, 5}}};
  for (const auto& matrices : several) {
    Scene scene(name_of<T>(operation, Width));
    auto work = spectral_work<T>(scene, matrices, Width);
    work.iterates = iterates;
    const long place_count = work.*places / Width;
    // `each` of a place, or a few threads for all.
    work.threads = each > 0 ? place_count * each : (place_count + 3) / 4;
    scene.run_threads(&work, work.threads);
  }
}

template <typename T, int Width>
void spectral_kernels() {
  run_spectral<T, Width>("spectral_divide", &SpectralWork::elements, 0, true);
  run_spectral<T, Width>("spectral_pull", &SpectralWork::elements, 0, true);
  if (Width > 1) return;
  run_spectral<T, 1>("spectral_columns", &SpectralWork::columns, 1, true);
  run_spectral<T, 1>("spectral_products", &SpectralWork::rows, PARTS, true);
  for (const bool iterates : {false, true}) {
    run_spectral<T, 1>("spectral_rows", &SpectralWork::rows, PARTS, iterates);
    run_spectral<T, 1>("spectral_images", &SpectralWork::rows, 1, iterates);
    Scene scene(name_of<T>("spectral_vectors", 1));
    auto work = spectral_work<T>(scene, {{3, 4, 2}, {1, 1, 1}, {2, 33, 3}}, 1);
    work.iterates = iterates;
    work.threads = work.rows + work.columns;
    scene.run_threads(&work, work.threads);
  }
  Scene scene(name_of<T>("spectral_totals", 1));
  auto work = spectral_work<T>(scene, {{3, 4, 2}, {1, 1, 1}, {50, 33, 3}}, 1);
  work.threads = work.count * PARTS;
  scene.run_threads(&work, work.threads);
}

}  // namespace scrimp::device
