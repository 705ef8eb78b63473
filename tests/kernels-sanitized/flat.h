// The kernels for flat tensors under sanitizers, as main.cpp runs the others.

#pragma once

#include <algorithm>
#include <string>

#include "flat_kernels.h"
#include "rig.h"

namespace scrimp::device {

// Pieces whose starts are whole packs, the last ones of an odd length, absent, and in half precision.
template <typename Element, int Width>
void gather_pieces(int pieces, bool adds) {
  Scene scene(name_of<Element>("gather", Width));
  GatherWork work{};
  work.pieces = pieces;
  work.adds = adds;
  work.first = 8;
  long place = work.first;
  for (int piece = 0; piece < pieces; ++piece) {
    const int count = 1 + 5 * piece % 23;
    work.start[piece] = place;
    work.count[piece] = count;
    work.is_half[piece] = piece % 3 == 1;
    if (piece % 4 == 3) {
      work.from[piece] = nullptr;
    } else if (work.is_half[piece]) {
      work.from[piece] = scene.numbers<bfloat16>(count);
    } else {
      work.from[piece] = scene.numbers<Element>(count);
    }
    place += (count + 7) / 8 * 8;
  }
  work.end = place;
  work.to = scene.numbers<Element>(place);
  work.threads = (work.end - work.first + Width - 1) / Width;
  scene.run_threads(&work, work.threads);
}

template <typename Element, int Width>
void descend_by(const char* operation, long elements, bool is_narrowed) {
  const bool is_adam = std::string(operation) == "descend_adam";
  Scene scene(name_of<Element>(operation, Width));
  DescentWork work{};
  work.elements = elements;
  work.weights = scene.numbers<Element>(elements);
  work.gradients = scene.numbers<Element>(elements);
  work.first = scene.numbers<Element>(elements);
  if (is_adam) work.second = scene.zeros<Element>(elements);
  if (is_narrowed) {
    work.narrowed = scene.space<bfloat16>(elements);
    work.shares = scene.zeros<bool>(elements);
  }
  auto* squares = scene.zeros<double>(1);
  *squares = 4.0;
  work.squares = squares;
  auto* factors = scene.zeros<double>(is_adam ? 4 : 1);
  std::fill_n(factors, is_adam ? 4 : 1, 0.5);
  work.factors = factors;
  work.norm = scene.space<Element>(1);
  work.finite = scene.zeros<bool>(1);
  work.clip = 1.0, work.decay = 0.01, work.of_first = 0.9, work.of_second = 0.1;
  work.epsilon = 1e-8;
  work.threads = std::max((elements + Width - 1) / Width, 1L);
  scene.run_threads(&work, work.threads);
}

template <typename Element, int Width>
void follow_leader(long elements, bool is_narrowed) {
  Scene scene(name_of<Element>("follow", Width));
  FollowWork work{};
  work.weights = scene.numbers<Element>(elements);
  work.leader = scene.numbers<Element>(elements);
  if (is_narrowed) work.narrowed = scene.space<bfloat16>(elements);
  work.keep = scene.numbers<double>(1);
  auto* finite = scene.zeros<bool>(1);
  *finite = true;
  work.finite = finite;
  work.elements = elements;
  work.threads = (elements + Width - 1) / Width;
  scene.run_threads(&work, work.threads);
}

template <typename Element>
void squares_of(long elements, long ranks, long parts) {
  Scene scene(name_of<Element>("squares", 1));
  SquaresWork work{};
  work.from = scene.numbers<Element>(elements);
  work.size = elements / ranks;
  work.larger = elements % ranks;
  work.shares = ranks;
  work.parts = parts;
  work.threads = ranks * parts;
  work.sums = scene.space<double>(work.threads);
  scene.run_threads(&work, work.threads);
}

template <typename Element, int Width>
void flat_kernels() {
  for (const int pieces : {1, 2, MOST_PIECES}) {
    for (const bool adds : {false, true}) gather_pieces<Element, Width>(pieces, adds);
  }
  for (const long packs : {0, 1, 33}) {
    for (const bool is_narrowed : {false, true}) {
      descend_by<Element, Width>("descend_sgd", packs * Width, is_narrowed);
      descend_by<Element, Width>("descend_adam", packs * Width, is_narrowed);
      if (packs > 0) follow_leader<Element, Width>(packs * Width, is_narrowed);
    }
  }
  squares_of<Element>(1, 1, 1);
  squares_of<Element>(7, 3, 4);
  squares_of<Element>(1001, 4, 15);
}

inline void copies() {
  for (const int tensors : {1, 3, MOST_TENSORS}) {
    Scene scene("copy_words_int_1");
    CopyWork work{};
    work.tensors = tensors;
    for (int tensor = 0; tensor < tensors; ++tensor) {
      const long words = 1 + tensor * 7 % 11;
      work.from[tensor] = scene.zeros<int>(words);
      work.to[tensor] = scene.space<int>(words);
      work.start[tensor + 1] = work.start[tensor] + words;
    }
    work.threads = tensors == 3 ? 5 : work.start[tensors];
    scene.run_threads(&work, work.threads);
  }
}

}  // namespace scrimp::device
