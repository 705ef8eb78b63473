// The C ABI of src/native/cuda.rs over libtorch's CUDA half: streams, graphs, memory.
//
// Built as libscrimp_cuda.so and loaded where there is a GPU, so that the program itself needs nothing
// of CUDA. It is linked to nothing: what it lacks is in libtorch_cuda.so, loaded before it.
// Every function returns nullptr, or an error text from strdup that the caller frees.

#include <ATen/Context.h>
#include <ATen/core/CachingHostAllocator.h>
#include <ATen/cuda/CUDAGeneratorImpl.h>
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAEvent.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAStream.h>

#include <cstring>
#include <memory>
#include <string>

#include "guarded.h"

namespace {

using c10::cuda::CUDAEvent;
using c10::cuda::CUDAStream;
using scrimp::guarded;

// A stream beside the one on which torch computes, and the two events that order them.
struct SideStream {
  CUDAStream stream;
  CUDAEvent main_reached, side_reached;
};

// A graph of which nothing is left behind where its recording fails.
struct RecordedGraph : at::cuda::CUDAGraph {
  void end() {
    try {
      capture_end();
    } catch (...) {
      if (!capture_ended_) abandon();
      throw;
    }
  }

 private:
  // What `capture_end` does after the point at which CUDA refuses a recording.
  void abandon() {
    c10::cuda::CUDACachingAllocator::endAllocateToPool(capture_dev_, mempool_id_);
    c10::cuda::CUDACachingAllocator::releasePool(capture_dev_, mempool_id_);
    at::getHostAllocator(at::kCUDA)->end_allocate_to_pool(mempool_id_);
    for (const auto& captured : captured_generator_states_) captured.first->capturing_ = false;
  }
};

// The memory of one device in bytes; mirrored by `native::cuda::Memory` in Rust.
struct DeviceMemory {
  uint64_t free, total, allocated, allocated_peak;
};

}  // namespace

extern "C" {

// Makes `device` current on this thread, and a stream of its own the one on which torch computes
// here: the default one cannot be recorded into a graph.
//
// Torch's memory of devices begins with its context, which the first tensor on a GPU makes otherwise:
// who asked for the use of memory before would be refused. cuDNN measures its algorithms at the first
// convolution of each shape: shapes are few here and return in every step.
char* scrimp_cuda_open(int device) {
  return guarded([&] {
    at::globalContext().lazyInitDevice(at::kCUDA);
    at::globalContext().setBenchmarkCuDNN(true);
    c10::cuda::set_device(static_cast<c10::DeviceIndex>(device));
    c10::cuda::setCurrentCUDAStream(c10::cuda::getStreamFromPool(false, device));
  });
}

// Makes `device` current on this thread.
char* scrimp_cuda_use(int device) {
  return guarded([&] { c10::cuda::set_device(static_cast<c10::DeviceIndex>(device)); });
}

// The name of the device and the place of its card, as text from strdup.
char* scrimp_cuda_describe(char** out, int device) {
  return guarded([&] {
    char bus[32] = "?";
    cudaDeviceProp properties;
    C10_CUDA_CHECK(cudaGetDeviceProperties(&properties, device));
    C10_CUDA_CHECK(cudaDeviceGetPCIBusId(bus, sizeof bus, device));
    *out = strdup((std::string(properties.name) + " at " + bus).c_str());
  });
}

// The stream on which torch computes on this thread, as a cudaStream_t.
char* scrimp_cuda_current_stream(void** out, int device) {
  return guarded([&] { *out = c10::cuda::getCurrentCUDAStream(device).stream(); });
}

char* scrimp_cuda_synchronise(int device) {
  return guarded([&] {
    c10::cuda::set_device(static_cast<c10::DeviceIndex>(device));
    c10::cuda::device_synchronize();
  });
}

char* scrimp_cuda_memory(DeviceMemory* out, int device) {
  return guarded([&] {
    c10::cuda::set_device(static_cast<c10::DeviceIndex>(device));
    size_t free = 0, total = 0;
    C10_CUDA_CHECK(cudaMemGetInfo(&free, &total));
    const auto statistics = c10::cuda::CUDACachingAllocator::getDeviceStats(device);
    const auto& allocated = statistics.allocated_bytes[0];
    *out = {free, total, static_cast<uint64_t>(allocated.current),
            static_cast<uint64_t>(allocated.peak)};
  });
}

char* scrimp_cuda_side_new(SideStream** out, int device) {
  return guarded([&] { *out = new SideStream{c10::cuda::getStreamFromPool(true, device)}; });
}

void scrimp_cuda_side_free(SideStream* side) { delete side; }

void* scrimp_cuda_side_stream(const SideStream* side) { return side->stream.stream(); }

// What is enqueued on the side from now on runs after what torch has enqueued on this thread so far.
char* scrimp_cuda_side_follows(SideStream* side) {
  return guarded([&] {
    side->main_reached.record(c10::cuda::getCurrentCUDAStream(side->stream.device_index()));
    side->main_reached.block(side->stream);
  });
}

// What torch enqueues on this thread from now on runs after what the side has so far.
char* scrimp_cuda_follow_side(SideStream* side) {
  return guarded([&] {
    side->side_reached.record(side->stream);
    side->side_reached.block(c10::cuda::getCurrentCUDAStream(side->stream.device_index()));
  });
}

// Keeps the memory of a tensor from being handed out again before the side has done what it was
// given so far, also if the tensor is gone by then.
char* scrimp_cuda_side_holds(const SideStream* side, const at::Tensor* tensor) {
  return guarded([&] {
    c10::cuda::CUDACachingAllocator::recordStream(tensor->storage().data_ptr(), side->stream);
  });
}

// Records what this thread enqueues from now on instead of running it. `pool` is null or a graph whose
// memory is shared: the two must never run at the same time.
char* scrimp_cuda_graph_begin(RecordedGraph** out, RecordedGraph* pool) {
  return guarded([&] {
    auto graph = std::make_unique<RecordedGraph>();
    // What the allocator keeps of earlier steps it cannot give back while a graph takes memory of its own.
    c10::cuda::CUDACachingAllocator::emptyCache();
    graph->capture_begin(pool == nullptr ? at::cuda::MempoolId_t{0, 0} : pool->pool(),
                         cudaStreamCaptureModeThreadLocal);
    *out = graph.release();
  });
}

// Ends the recording; also to be called when what was recorded has failed.
char* scrimp_cuda_graph_end(RecordedGraph* graph) {
  return guarded([&] { graph->end(); });
}

char* scrimp_cuda_graph_replay(RecordedGraph* graph) {
  return guarded([&] { graph->replay(); });
}

void scrimp_cuda_graph_free(RecordedGraph* graph) { delete graph; }
}
