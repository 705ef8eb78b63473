// Streams, events, captures and graphs of the fake runtime.
//
// Order between streams is kept in vector clocks, so that a stream that forked from a capture and was
// not joined is seen. The rules of captures are those of the documentation of cudaStreamBeginCapture
// and cudaThreadExchangeStreamCaptureMode.

#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "model.h"

using fake::Capture;
using fake::Event;
using fake::Lock;
using fake::Stream;
using fake::violate;
using fake::Work;

namespace {

thread_local cudaStreamCaptureMode thread_mode = cudaStreamCaptureModeGlobal;

// Captures that have begun and not ended, by their numbers.
std::map<unsigned long long, Capture*>& captures() {
  static auto* all = new std::map<unsigned long long, Capture*>;
  return *all;
}

int this_thread() { return static_cast<int>(syscall(SYS_gettid)); }

// A graph and what is made of it share the recorded work.
struct Graph {
  std::shared_ptr<Work> work;
};

cudaError_t broken(Capture* capture, cudaError_t error, const std::string& sentence) {
  violate(sentence);
  if (capture != nullptr) capture->broken = error;
  return error;
}

// What the host may not ask of something that is being recorded.
cudaError_t refuse_captured(const char* call, Capture* capture, cudaError_t error) {
  return broken(capture, error, "`" + std::string(call) + "` of what is being captured");
}

Stream* stream(cudaStream_t handle) { return fake::stream_of(handle); }

cudaError_t end(Capture* capture) {
  cudaError_t result = capture->broken;
  if (capture->thread != this_thread() && capture->mode != cudaStreamCaptureModeRelaxed) {
    violate("a capture is ended by another thread than the one that began it");
    result = cudaErrorStreamCaptureWrongThread;
  }
  const auto& joined = capture->origin->clock;
  for (auto* other : fake::streams_on(capture->origin->device)) {
    if (other->capture != capture || other == capture->origin) continue;
    const auto number = static_cast<size_t>(other->number);
    const long reached = number < other->clock.size() ? other->clock[number] : 0;
    if ((number < joined.size() ? joined[number] : 0) < reached) {
      violate("a stream that forked from a capture is not joined at its end");
      result = cudaErrorStreamCaptureUnjoined;
    }
    other->capture = nullptr;
  }
  capture->origin->capture = nullptr;
  captures().erase(capture->id);
  return result;
}

}  // namespace

cudaError_t fake::refuse_beside_captures(const char* call) {
  const Lock lock;
  report().used = true;
  if (thread_mode == cudaStreamCaptureModeRelaxed) return cudaSuccess;
  for (const auto& [id, capture] : captures()) {
    const bool own = capture->thread == this_thread();
    const bool forbids = own ? capture->mode != cudaStreamCaptureModeRelaxed
                             : capture->mode == cudaStreamCaptureModeGlobal &&
                                   thread_mode == cudaStreamCaptureModeGlobal;
    if (forbids) {
      return broken(capture, cudaErrorStreamCaptureUnsupported,
                    "`" + std::string(call) + "` during a capture");
    }
  }
  return cudaSuccess;
}

extern "C" {

cudaError_t cudaStreamCreateWithPriority(cudaStream_t* out, unsigned, int) {
  const Lock lock;
  // Found by its device, as the legacy streams are.
  *out = reinterpret_cast<cudaStream_t>(fake::new_stream_on(fake::current_device));
  return cudaSuccess;
}

// Streams are few; their numbers stay taken.
cudaError_t cudaStreamDestroy(cudaStream_t) { return cudaSuccess; }

cudaError_t cudaStreamQuery(cudaStream_t handle) {
  const Lock lock;
  auto* on = stream(handle);
  if (on->capture != nullptr) {
    return refuse_captured("cudaStreamQuery", on->capture, cudaErrorStreamCaptureUnsupported);
  }
  if (auto error = fake::refuse_beside_captures("cudaStreamQuery")) return error;
  return on->busy_until_us > fake::now_us() ? cudaErrorNotReady : cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t handle) {
  double until = 0;
  {
    const Lock lock;
    auto* on = stream(handle);
    fake::report().host_syncs["cudaStreamSynchronize"]++;
    if (on->capture != nullptr) {
      const auto error = cudaErrorStreamCaptureUnsupported;
      return refuse_captured("cudaStreamSynchronize", on->capture, error);
    }
    if (auto error = fake::refuse_beside_captures("cudaStreamSynchronize")) return error;
    until = on->busy_until_us;
    on->unfinished = false;
  }
  fake::wait_until(until);
  return cudaSuccess;
}

cudaError_t cudaDeviceSynchronize() {
  double until = 0;
  {
    const Lock lock;
    fake::report().host_syncs["cudaDeviceSynchronize"]++;
    if (auto error = fake::refuse_beside_captures("cudaDeviceSynchronize")) return error;
    for (auto* on : fake::streams_on(fake::current_device)) {
      until = std::max(until, on->busy_until_us);
      on->unfinished = false;
    }
  }
  fake::wait_until(until);
  return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* out, unsigned) {
  *out = reinterpret_cast<cudaEvent_t>(new Event{fake::current_device});
  return cudaSuccess;
}

cudaError_t cudaEventCreate(cudaEvent_t* out) { return cudaEventCreateWithFlags(out, 0); }

cudaError_t cudaEventDestroy(cudaEvent_t handle) {
  const Lock lock;
  delete reinterpret_cast<Event*>(handle);
  return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t handle, cudaStream_t on_handle) {
  const Lock lock;
  auto* event = reinterpret_cast<Event*>(handle);
  const auto* on = stream(on_handle);
  if (event->device != on->device) {
    violate("an event of one GPU is recorded on a stream of another");
    return cudaErrorInvalidResourceHandle;
  }
  event->recorded = true;
  event->capture = on->capture == nullptr ? 0 : on->capture->id;
  event->clock = on->clock;
  event->reached_us = std::max(on->busy_until_us, fake::now_us());
  return cudaSuccess;
}

cudaError_t cudaEventRecordWithFlags(cudaEvent_t event, cudaStream_t on, unsigned) {
  return cudaEventRecord(event, on);
}

cudaError_t cudaEventQuery(cudaEvent_t handle) {
  const Lock lock;
  const auto* event = reinterpret_cast<Event*>(handle);
  if (event->capture != 0) {
    return refuse_captured("cudaEventQuery", nullptr, cudaErrorCapturedEvent);
  }
  if (auto error = fake::refuse_beside_captures("cudaEventQuery")) return error;
  return event->recorded && event->reached_us > fake::now_us() ? cudaErrorNotReady : cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t handle) {
  double until = 0;
  {
    const Lock lock;
    const auto* event = reinterpret_cast<Event*>(handle);
    fake::report().host_syncs["cudaEventSynchronize"]++;
    if (event->capture != 0) {
      return refuse_captured("cudaEventSynchronize", nullptr, cudaErrorCapturedEvent);
    }
    if (auto error = fake::refuse_beside_captures("cudaEventSynchronize")) return error;
    until = event->recorded ? event->reached_us : 0;
  }
  fake::wait_until(until);
  return cudaSuccess;
}

cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t from, cudaEvent_t to) {
  const Lock lock;
  const auto* start = reinterpret_cast<Event*>(from);
  const auto* stop = reinterpret_cast<Event*>(to);
  *ms = static_cast<float>((stop->reached_us - start->reached_us) / 1e3);
  return cudaSuccess;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t handle, cudaEvent_t event_handle, unsigned) {
  const Lock lock;
  auto* on = stream(handle);
  const auto* event = reinterpret_cast<Event*>(event_handle);
  if (!event->recorded) return cudaSuccess;
  if (event->capture != 0) {
    const auto found = captures().find(event->capture);
    if (found == captures().end()) {
      violate("a stream waits for an event of a capture that has ended");
      return cudaErrorCapturedEvent;
    }
    if (on->capture == nullptr && on->legacy) {
      return broken(found->second, cudaErrorStreamCaptureImplicit,
                    "the legacy stream waits for an event of a capture");
    }
    if (on->capture == nullptr) on->capture = found->second;
    if (on->capture != found->second) {
      return broken(on->capture, cudaErrorStreamCaptureMerge, "two captures wait for each other");
    }
  } else if (on->capture != nullptr) {
    return broken(on->capture, cudaErrorStreamCaptureIsolation,
                  "a capturing stream waits for an event outside of its capture");
  }
  fake::advance(on->clock, event->clock);
  on->busy_until_us = std::max(on->busy_until_us, event->reached_us);
  return cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t handle, cudaStreamCaptureMode mode) {
  const Lock lock;
  static unsigned long long last = 0;
  auto* on = stream(handle);
  if (on->legacy) {
    violate("a capture is to begin on the legacy stream");
    return cudaErrorStreamCaptureUnsupported;
  }
  if (on->capture != nullptr) {
    violate("a capture is to begin on a stream that is being captured");
    return cudaErrorIllegalState;
  }
  auto work = std::make_shared<Work>(Work{fake::report().graphs.size(), {}});
  fake::report().graphs.emplace_back();
  on->capture = new Capture{++last, mode, this_thread(), on, std::move(work)};
  captures()[last] = on->capture;
  return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t handle, cudaGraph_t* out) {
  const Lock lock;
  auto* on = stream(handle);
  *out = nullptr;
  auto* capture = on->capture;
  if (capture == nullptr || capture->origin != on) {
    violate("a capture is to end on a stream on which none began");
    return cudaErrorIllegalState;
  }
  auto result = end(capture);
  // As where something that a real runtime notices alone was recorded.
  const char* rank = getenv("OMPI_COMM_WORLD_RANK");
  if (rank != nullptr && fake::setting("SCRIMP_FAKE_UNRECORDABLE_RANK", -1) == atol(rank)) {
    result = cudaErrorStreamCaptureInvalidated;
  }
  if (result == cudaSuccess) *out = reinterpret_cast<cudaGraph_t>(new Graph{capture->work});
  delete capture;
  return result;
}

cudaError_t cudaStreamGetCaptureInfo(cudaStream_t handle, cudaStreamCaptureStatus* status,
                                     unsigned long long* id, cudaGraph_t* graph,
                                     const cudaGraphNode_t** dependencies,
                                     const cudaGraphEdgeData** edges, size_t* count) {
  const Lock lock;
  const auto* capture = stream(handle)->capture;
  *status = cudaStreamCaptureStatusNone;
  if (capture == nullptr) return cudaSuccess;
  *status = cudaStreamCaptureStatusActive;
  if (id != nullptr) *id = capture->id;
  if (graph != nullptr) *graph = nullptr;
  if (dependencies != nullptr) *dependencies = nullptr;
  if (edges != nullptr) *edges = nullptr;
  if (count != nullptr) *count = 0;
  return cudaSuccess;
}

cudaError_t cudaStreamIsCapturing(cudaStream_t handle, cudaStreamCaptureStatus* status) {
  const Lock lock;
  const bool capturing = stream(handle)->capture != nullptr;
  *status = capturing ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
  return cudaSuccess;
}

cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode* mode) {
  std::swap(thread_mode, *mode);
  return cudaSuccess;
}

cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t*, size_t* count) {
  const Lock lock;
  const auto& work = *reinterpret_cast<Graph*>(graph)->work;
  *count = static_cast<size_t>(fake::report().graphs[work.record].nodes);
  return cudaSuccess;
}

cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t* out, cudaGraph_t graph,
                                          unsigned long long) {
  const Lock lock;
  *out = reinterpret_cast<cudaGraphExec_t>(new Graph(*reinterpret_cast<Graph*>(graph)));
  return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t handle) {
  const Lock lock;
  fake::enqueue_graph(stream(handle), *reinterpret_cast<Graph*>(graph)->work);
  return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  const Lock lock;
  delete reinterpret_cast<Graph*>(graph);
  return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t graph) {
  const Lock lock;
  delete reinterpret_cast<Graph*>(graph);
  return cudaSuccess;
}
}
