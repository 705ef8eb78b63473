// Writes the report of a process as JSON, at its end. Knows no CUDA.

#include "report.h"

#include <execinfo.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

#include "model.h"

namespace fake {

Report& report() {
  // Never freed: calls come until the very end of the process.
  static auto* the = new Report;
  return *the;
}

long setting(const char* name, long otherwise) {
  const char* value = getenv(name);
  return value == nullptr || *value == 0 ? otherwise : atol(value);
}

void violate(const std::string& sentence) {
  const Lock lock;
  if (report().violations[sentence]++ > 0) return;
  fprintf(stderr, "fake CUDA: %s\n", sentence.c_str());
  if (setting("SCRIMP_FAKE_BACKTRACES", 0) != 0) {
    void* frames[48];
    backtrace_symbols_fd(frames, backtrace(frames, 48), STDERR_FILENO);
  }
  fflush(stderr);
}

namespace {

const char* name_of(Kind kind) {
  switch (kind) {
    case Kind::Kernel: return "kernel";
    case Kind::OwnKernel: return "own_kernel";
    case Kind::Library: return "library";
    case Kind::Collective: return "collective";
    case Kind::Copy: return "copy";
    case Kind::Fill: return "fill";
    case Kind::Graph: return "graph";
  }
  return "?";
}

std::string quoted(const std::string& text) {
  std::string result = "\"";
  for (const char letter : text) {
    if (letter == '"' || letter == '\\') result += '\\';
    result += static_cast<unsigned char>(letter) < ' ' ? ' ' : letter;
  }
  return result + '"';
}

std::string json(const Counts& counts) {
  std::string result;
  for (const auto& [name, count] : counts) {
    result += (result.empty() ? "" : ",\n    ") + quoted(name) + ": " + std::to_string(count);
  }
  return "{" + result + "}";
}

std::string json(const std::map<Kind, Counts>& by_kind) {
  std::string result;
  for (const auto& [kind, counts] : by_kind) {
    result += (result.empty() ? "" : ",\n  ") + quoted(name_of(kind)) + ": " + json(counts);
  }
  return "{" + result + "}";
}

std::string json(const std::vector<GraphRecord>& graphs) {
  std::string result;
  for (const auto& graph : graphs) {
    result += (result.empty() ? "" : ",\n  ") + ("{\"nodes\": " + std::to_string(graph.nodes));
    result += ", \"launches\": " + std::to_string(graph.launches);
    result += ", \"by_kind\": " + json(graph.by_kind) + "}";
  }
  return "[" + result + "]";
}

// One file for each rank: a run of several processes is started with one environment.
std::string path_of(const char* stem) {
  const char* rank = getenv("OMPI_COMM_WORLD_RANK");
  return std::string(stem) + "." + (rank == nullptr ? "0" : rank) + ".json";
}

__attribute__((destructor)) void write_report() {
  const char* stem = getenv("SCRIMP_FAKE_REPORT");
  if (stem == nullptr || !report().used) return;
  const Lock lock;
  FILE* file = fopen(path_of(stem).c_str(), "w");
  if (file == nullptr) return;
  const auto& all = report();
  fprintf(file, "{\n\"violations\": %s,\n", json(all.violations).c_str());
  fprintf(file, "\"launches\": %s,\n", json(all.launches).c_str());
  fprintf(file, "\"legacy_launches\": %ld,\n", all.legacy_launches);
  fprintf(file, "\"copies\": %s,\n", json(all.copies).c_str());
  fprintf(file, "\"host_syncs\": %s,\n", json(all.host_syncs).c_str());
  fprintf(file, "\"communicators\": %s,\n", json(all.communicators).c_str());
  fprintf(file, "\"graphs\": %s\n}\n", json(all.graphs).c_str());
  fclose(file);
}

}  // namespace
}  // namespace fake
