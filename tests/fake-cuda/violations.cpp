// Does everything once that the fake GPUs are to find, so that a test sees that they find it. Knows the
// real interfaces alone: a real GPU refuses the same, or waits for ever.

#define __CUDA_RUNTIME_API_H_NO_OVERLOADS
#include <cuda_runtime_api.h>

#include <cstdlib>
#include <thread>

extern "C" {
struct Comm;
struct Id {
  char internal[128];
};
struct Config {
  size_t size;
  unsigned magic, version;
  int blocking;
};
int ncclCommInitRankConfig(Comm**, int ranks, Id, int rank, Config*);
int ncclCommSplit(Comm*, int color, int key, Comm**, Config*);
int ncclCommGetAsyncError(Comm*, int* state);
int ncclCommFinalize(Comm*);
int ncclCommDestroy(Comm*);
int ncclAllReduce(const void*, void*, size_t, int type, int operation, Comm*, cudaStream_t);
void __cudaRegisterFunction(void**, const char*, char*, const char*, int, void*, void*, void*, void*,
                            int*);
}

namespace {

const char KERNEL = 0;
constexpr int SUM = 0, FLOAT = 7;

cudaStream_t new_stream() {
  cudaStream_t stream;
  cudaStreamCreateWithPriority(&stream, 0, 0);
  return stream;
}

void launch(cudaStream_t stream, unsigned blocks = 1) {
  cudaLaunchKernel(&KERNEL, dim3(blocks), dim3(32), nullptr, 0, stream);
}

void begin(cudaStream_t stream) { cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal); }

cudaGraph_t end(cudaStream_t stream) {
  cudaGraph_t graph = nullptr;
  cudaStreamEndCapture(stream, &graph);
  return graph;
}

void fork(cudaStream_t from, cudaStream_t to) {
  cudaEvent_t event;
  cudaEventCreateWithFlags(&event, 0);
  cudaEventRecord(event, from);
  cudaStreamWaitEvent(to, event, 0);
}

void launches(void* device) {
  const auto stream = new_stream();
  cudaMemset(device, 0, 8);
  launch(stream);
  // As it should be.
  cudaMemset(device, 0, 8);
  cudaDeviceSynchronize();
  launch(stream);
  launch(nullptr);
  launch(stream, 0);
  cudaSetDevice(1);
  launch(stream);
  cudaSetDevice(0);
  cudaSetDevice(2);
}

void captures(void* device) {
  const auto main = new_stream(), side = new_stream(), other = new_stream();
  char pageable[8] = {};
  void* more;
  begin(main);
  cudaStreamSynchronize(main);
  cudaDeviceSynchronize();
  cudaMalloc(&more, 8);
  cudaMemcpyAsync(device, pageable, sizeof pageable, cudaMemcpyHostToDevice, main);
  fork(other, main);
  end(main);
  // Not joined, and ended by another thread.
  begin(main);
  fork(main, side);
  launch(side);
  std::thread([main] { end(main); }).join();
  // As it should be: nothing is said.
  begin(main);
  fork(main, side);
  launch(side);
  fork(side, main);
  if (end(main) == nullptr) abort();
}

void communicators(void* device) {
  const auto stream = new_stream();
  const auto sum = [&](Comm* comm) { ncclAllReduce(device, device, 2, FLOAT, SUM, comm, stream); };
  Config at_once{sizeof(Config), 0, 0, 0}, waits{sizeof(Config), 0, 0, 1};
  int state;
  Comm *parent, *child;
  ncclCommInitRankConfig(&parent, 2, {}, 0, &at_once);
  sum(parent);
  ncclCommGetAsyncError(parent, &state);
  ncclCommSplit(parent, 0, 0, &child, &waits);
  sum(child);
  ncclCommGetAsyncError(parent, &state);
  sum(child);
  cudaSetDevice(1);
  sum(child);
  cudaSetDevice(0);
  char pageable[8];
  ncclAllReduce(pageable, pageable, 2, FLOAT, SUM, child, stream);
  ncclCommDestroy(parent);
  ncclCommFinalize(child);
  ncclCommDestroy(child);
  sum(child);
  // NCCL waits for graphs; here it is asked once whether it has done.
  begin(stream);
  sum(parent);
  ncclCommGetAsyncError(parent, &state);
  cudaGraph_t graph = end(stream);
  cudaGraphExec_t work;
  cudaGraphInstantiateWithFlags(&work, graph, 0);
  cudaGraphDestroy(graph);
  ncclCommFinalize(parent);
  ncclCommGetAsyncError(parent, &state);
  if (state == 0) abort();
  cudaGraphExecDestroy(work);
  ncclCommGetAsyncError(parent, &state);
  if (state != 0 || ncclCommDestroy(parent) != 0) abort();
}

}  // namespace

int main() {
  __cudaRegisterFunction(nullptr, &KERNEL, nullptr, "a_kernel", 0, nullptr, nullptr, nullptr, nullptr,
                         nullptr);
  void* device;
  cudaMalloc(&device, 8);
  launches(device);
  captures(device);
  communicators(device);
}
