// What the calls of the fake runtime have in common: the lock, streams, the device's time.

#include "model.h"

#include <algorithm>
#include <chrono>
#include <set>
#include <thread>

#include "between.h"

namespace fake {

namespace {

std::recursive_mutex& mutex() {
  static auto* the = new std::recursive_mutex;
  return *the;
}

std::vector<Stream*>& streams() {
  static auto* all = new std::vector<Stream*>;
  return *all;
}

// How many nodes of live graphs belong to each communicator.
std::map<void*, long>& graph_nodes() {
  static auto* nodes = new std::map<void*, long>;
  return *nodes;
}

std::set<void*>& gone_communicators() {
  static auto* gone = new std::set<void*>;
  return *gone;
}

// What each thing on the device takes there, in microseconds.
double kernel_us() {
  static const long time = setting("SCRIMP_FAKE_KERNEL_MICROSECONDS", 0);
  return static_cast<double>(time);
}

Stream* new_stream(int device, bool legacy) {
  auto* stream = new Stream{static_cast<int>(streams().size()), device, legacy};
  streams().push_back(stream);
  return stream;
}

Stream* legacy_stream(int device) {
  for (auto* stream : streams()) {
    if (stream->legacy && stream->device == device) return stream;
  }
  return new_stream(device, true);
}

std::string place(const Stream* stream) {
  if (stream->legacy) return "the legacy stream";
  return "stream " + std::to_string(stream->number) + " of GPU " + std::to_string(stream->device);
}

void busy(Stream* stream, double operations) {
  stream->busy_until_us = std::max(stream->busy_until_us, now_us()) + operations * kernel_us();
}

// Moves the stream's own clock on.
void tick(Stream* stream) {
  const auto number = static_cast<size_t>(stream->number);
  if (stream->clock.size() <= number) stream->clock.resize(number + 1);
  stream->clock[number]++;
}

}  // namespace

thread_local int current_device = 0;

Lock::Lock() : guard(mutex()) {}

Work::~Work() {
  const Lock lock;
  for (const auto& [communicator, nodes] : communicators) graph_nodes()[communicator] -= nodes;
}

Stream* new_stream_on(int device) { return new_stream(device, false); }

Stream* stream_of(cudaStream_t handle) {
  const Lock lock;
  if (handle == nullptr || handle == cudaStreamLegacy || handle == cudaStreamPerThread) {
    return legacy_stream(current_device);
  }
  return reinterpret_cast<Stream*>(handle);
}

std::vector<Stream*> streams_on(int device) {
  std::vector<Stream*> result;
  for (auto* stream : streams()) {
    if (stream->device == device) result.push_back(stream);
  }
  return result;
}

void advance(Clock& clock, const Clock& other) {
  if (clock.size() < other.size()) clock.resize(other.size());
  for (size_t stream = 0; stream < other.size(); stream++) {
    clock[stream] = std::max(clock[stream], other[stream]);
  }
}

bool enqueue(Stream* stream, Kind kind, const std::string& name) {
  const Lock lock;
  report().used = true;
  if (stream->legacy) {
    report().legacy_launches++;
    violate("`" + name + "` is launched on the legacy stream, which no capture can hold");
  }
  if (kind != Kind::Copy && stream->device != current_device) {
    violate("`" + name + "` is launched on " + place(stream) + " while GPU " +
            std::to_string(current_device) + " is current");
    return false;
  }
  auto* legacy = legacy_stream(stream->device);
  if (legacy->unfinished) {
    legacy->unfinished = false;
    violate("`" + name + "` is launched while work of a call without a stream may go on");
  }
  tick(stream);
  if (stream->capture != nullptr) {
    auto& record = report().graphs[stream->capture->work->record];
    record.nodes++;
    record.by_kind[kind][name]++;
  } else {
    report().launches[kind][name]++;
    busy(stream, 1);
  }
  return true;
}

void enqueue_without_stream(Kind kind, const std::string& name) {
  const Lock lock;
  report().used = true;
  auto* stream = legacy_stream(current_device);
  tick(stream);
  report().launches[kind][name]++;
  busy(stream, 1);
  stream->unfinished = true;
}

void enqueue_graph(Stream* stream, const Work& work) {
  const Lock lock;
  auto& record = report().graphs[work.record];
  for (const auto& [communicator, nodes] : work.communicators) {
    if (gone_communicators().count(communicator) > 0) {
      violate("a graph is launched whose communicator is gone");
    }
  }
  record.launches++;
  enqueue(stream, Kind::Graph, "graph of " + std::to_string(record.nodes) + " nodes");
  busy(stream, static_cast<double>(record.nodes));
}

double now_us() {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration<double, std::micro>(now).count();
}

void wait_until(double time_us) {
  const double left = time_us - now_us();
  if (left > 0) std::this_thread::sleep_for(std::chrono::duration<double, std::micro>(left));
}

}  // namespace fake

using fake::Lock;

extern "C" {

int scrimp_fake_launch(const char* name, void* stream) {
  auto* on = fake::stream_of(static_cast<cudaStream_t>(stream));
  return fake::enqueue(on, fake::Kind::Library, name) ? 0 : 1;
}

int scrimp_fake_collective(const char* name, void* communicator, void* stream) {
  const Lock lock;
  auto* on = fake::stream_of(static_cast<cudaStream_t>(stream));
  if (!fake::enqueue(on, fake::Kind::Collective, name)) return 1;
  if (on->capture != nullptr) {
    on->capture->work->communicators[communicator]++;
    fake::graph_nodes()[communicator]++;
  }
  return 0;
}

long scrimp_fake_graph_nodes_of(void* communicator) {
  const Lock lock;
  return fake::graph_nodes()[communicator];
}

void scrimp_fake_communicator_lives(void* communicator, int lives) {
  const Lock lock;
  if (lives != 0) {
    fake::gone_communicators().erase(communicator);
  } else {
    fake::gone_communicators().insert(communicator);
  }
}

void scrimp_fake_violate(const char* sentence) { fake::violate(sentence); }

void scrimp_fake_note_communicator(const char* what) {
  const Lock lock;
  fake::report().communicators[what]++;
}

int scrimp_fake_waits(const char* call) {
  const Lock lock;
  fake::report().host_syncs[call]++;
  return fake::refuse_beside_captures(call);
}

int scrimp_fake_device() { return fake::current_device; }

int scrimp_fake_device_of_stream(void* stream) {
  return fake::stream_of(static_cast<cudaStream_t>(stream))->device;
}

int scrimp_fake_device_of_memory(const void* address) {
  const auto range = fake::range_of(address);
  return range.memory == fake::Memory::Device ? range.device : -1;
}
}
