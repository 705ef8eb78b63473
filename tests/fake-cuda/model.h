// The state of the fake GPUs: streams, events, captures, graphs, memory. Everything is guarded by one
// lock, and nothing is ever computed.

#pragma once

#define __CUDA_RUNTIME_API_H_NO_OVERLOADS
#include <cuda_runtime_api.h>

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "report.h"

namespace fake {

class Lock {
 public:
  Lock();

 private:
  std::lock_guard<std::recursive_mutex> guard;
};

// What was recorded in a capture; lives as long as a graph or something made of it.
struct Work {
  // Its place in the report.
  size_t record;
  // How many of its nodes belong to each communicator.
  std::map<void*, long> communicators;
  ~Work();
};

struct Stream;

struct Capture {
  unsigned long long id;
  cudaStreamCaptureMode mode;
  int thread;
  Stream* origin;
  std::shared_ptr<Work> work;
  // The first error, which the end of the capture gives again.
  cudaError_t broken = cudaSuccess;
};

// How far each stream was, by its number: what is ordered before a point of a stream.
using Clock = std::vector<long>;

struct Stream {
  int number;
  int device;
  bool legacy;
  Capture* capture = nullptr;
  Clock clock;
  // When the device has done what was enqueued, in microseconds of the host's clock.
  double busy_until_us = 0;
  // Of a legacy stream: whether it has work from a call without a stream that nobody has waited for.
  bool unfinished = false;
};

struct Event {
  int device;
  bool recorded = false;
  // The capture in which it was recorded; 0 outside of all.
  unsigned long long capture = 0;
  Clock clock;
  double reached_us = 0;
};

enum class Memory { Pageable, Pinned, Device };

struct Range {
  size_t bytes;
  Memory memory;
  // Of `Memory::Device`.
  int device;
};

// The GPU that is current on this thread.
extern thread_local int current_device;

// A stream that does not wait for the legacy one.
Stream* new_stream_on(int device);

// The stream of a handle, where null is the legacy stream of the current device.
Stream* stream_of(cudaStream_t handle);

// The memory that holds an address; pageable where nobody asked this runtime for it.
Range range_of(const void* address);

// Enqueues one operation on a stream, or notes it as a node of the stream's capture. False where the
// device would refuse it.
bool enqueue(Stream* stream, Kind kind, const std::string& name);

// Enqueues the work of a call that names no stream. Streams that do not wait for the legacy one must not be
// given any before somebody has waited for the device.
void enqueue_without_stream(Kind kind, const std::string& name);

// Enqueues a recorded piece of work.
void enqueue_graph(Stream* stream, const Work& work);

// What is forbidden beside captures, by their modes and by the thread's own. Success where it is not.
cudaError_t refuse_beside_captures(const char* call);

// The host waits until a point in time of the device, without the lock.
void wait_until(double time_us);
double now_us();

// Every stream of a device.
std::vector<Stream*> streams_on(int device);

void advance(Clock& clock, const Clock& other);

}  // namespace fake
