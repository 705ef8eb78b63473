// What a process on the fake GPU is told of itself at its end. Knows no CUDA.

#pragma once

#include <map>
#include <string>
#include <vector>

namespace fake {

using Counts = std::map<std::string, long>;

// What is enqueued on a stream, by who made it.
enum class Kind { Kernel, OwnKernel, Library, Collective, Copy, Fill, Graph };

// One recorded piece of work; stays after the graph is gone.
struct GraphRecord {
  long nodes = 0;
  std::map<Kind, Counts> by_kind;
  // How often it was launched.
  long launches = 0;
};

struct Report {
  // Whether anybody asked for a GPU: others, as the launcher of ranks, write no report.
  bool used = false;
  // Sentences, with how often each was true.
  Counts violations;
  // What was enqueued outside of captures.
  std::map<Kind, Counts> launches;
  // Copies by the kinds of memory at both ends, outside of captures.
  Counts copies;
  // Waits of the host for the device.
  Counts host_syncs;
  long legacy_launches = 0;
  std::vector<GraphRecord> graphs;
  // Calls of the library of collectives that begin and end communicators.
  Counts communicators;
};

// The one of this process; to be used with the lock of model.h held.
Report& report();

// Something that a real GPU refuses, waits for in vain, or makes slow in every step. Also told on
// stderr at once: a process that hangs writes no report.
void violate(const std::string& sentence);

// A number in the environment, or `otherwise`.
long setting(const char* name, long otherwise);

}  // namespace fake
