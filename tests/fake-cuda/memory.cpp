// Memory of the fake runtime. That of a device is a range of addresses that nobody can read: a host that
// tries ends there, as beside a real GPU. It counts as zeros, for kernels write nothing.
//
// A copy to the host waits for the device; others only have to be there.

#include <sys/mman.h>

#include <algorithm>
#include <cstring>

#include "model.h"

using fake::Lock;
using fake::Memory;
using fake::Range;

namespace {

constexpr size_t DEVICE_BYTES = size_t{80} << 30;

// By their first address.
std::map<const char*, Range>& ranges() {
  static auto* all = new std::map<const char*, Range>;
  return *all;
}

cudaError_t take(void** out, size_t bytes, Memory memory) {
  const size_t mapped = std::max<size_t>(bytes, 1);
  const int rights = memory == Memory::Device ? PROT_NONE : PROT_READ | PROT_WRITE;
  void* address =
      mmap(nullptr, mapped, rights, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (address == MAP_FAILED) return cudaErrorMemoryAllocation;
  const Lock lock;
  ranges()[static_cast<char*>(address)] = {mapped, memory, fake::current_device};
  *out = address;
  return cudaSuccess;
}

cudaError_t give(void* address) {
  if (address == nullptr) return cudaSuccess;
  const Lock lock;
  const auto found = ranges().find(static_cast<char*>(address));
  if (found == ranges().end()) {
    fake::violate("memory is freed that is not taken");
    return cudaErrorInvalidValue;
  }
  munmap(address, found->second.bytes);
  ranges().erase(found);
  return cudaSuccess;
}

const char* name_of(Memory memory) {
  switch (memory) {
    case Memory::Pageable: return "pageable";
    case Memory::Pinned: return "pinned";
    case Memory::Device: return "device";
  }
  return "?";
}

// What arrives on the host: zeros, but ones where the number of bytes is no multiple of 8. Those are
// flags of this program that all is well, which have to be true for it to go on.
void arrive(void* to, size_t bytes) { memset(to, bytes % 8 == 0 ? 0 : 1, bytes); }

// The two ends of a copy.
struct Ends {
  Memory source, target;

  Ends(void* to, const void* from)
      : source(fake::range_of(from).memory), target(fake::range_of(to).memory) {}
  std::string what() const { return std::string(name_of(source)) + " to " + name_of(target); }
  bool pageable() const { return source == Memory::Pageable || target == Memory::Pageable; }
  bool to_host() const { return source == Memory::Device && target != Memory::Device; }
  bool of_host() const { return source != Memory::Device && target != Memory::Device; }
};

void move(void* to, const void* from, size_t bytes, const Ends& ends) {
  fake::report().copies[ends.what()]++;
  if (ends.to_host()) arrive(to, bytes);
  if (ends.of_host()) memmove(to, from, bytes);
}

cudaError_t copy(void* to, const void* from, size_t bytes, cudaStream_t handle) {
  double until = 0;
  {
    const Lock lock;
    auto* on = fake::stream_of(handle);
    const Ends ends(to, from);
    if (on->capture != nullptr && ends.pageable()) {
      fake::violate("a copy of " + std::to_string(bytes) + " bytes, " + ends.what() +
                    ", in a capture");
      on->capture->broken = cudaErrorStreamCaptureUnsupported;
      return cudaErrorStreamCaptureUnsupported;
    }
    if (!fake::enqueue(on, fake::Kind::Copy, ends.what())) return cudaErrorInvalidValue;
    if (on->capture != nullptr) return cudaSuccess;
    move(to, from, bytes, ends);
    if (ends.to_host() && ends.pageable()) until = on->busy_until_us;
  }
  fake::wait_until(until);
  return cudaSuccess;
}

}  // namespace

fake::Range fake::range_of(const void* address) {
  const Lock lock;
  const auto* wanted = static_cast<const char*>(address);
  auto found = ranges().upper_bound(wanted);
  if (found == ranges().begin()) return {0, Memory::Pageable, 0};
  --found;
  const bool inside = wanted < found->first + found->second.bytes;
  return inside ? found->second : Range{0, Memory::Pageable, 0};
}

extern "C" {

cudaError_t cudaMalloc(void** out, size_t bytes) {
  if (auto error = fake::refuse_beside_captures("cudaMalloc")) return error;
  return take(out, bytes, Memory::Device);
}

cudaError_t cudaFree(void* address) {
  if (auto error = fake::refuse_beside_captures("cudaFree")) return error;
  return give(address);
}

cudaError_t cudaHostAlloc(void** out, size_t bytes, unsigned) {
  if (auto error = fake::refuse_beside_captures("cudaHostAlloc")) return error;
  return take(out, bytes, Memory::Pinned);
}

cudaError_t cudaFreeHost(void* address) {
  if (auto error = fake::refuse_beside_captures("cudaFreeHost")) return error;
  return give(address);
}

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* out, const void* address) {
  memset(out, 0, sizeof *out);
  const auto range = fake::range_of(address);
  out->type = range.memory == Memory::Device   ? cudaMemoryTypeDevice
              : range.memory == Memory::Pinned ? cudaMemoryTypeHost
                                               : cudaMemoryTypeUnregistered;
  out->device = range.device;
  out->devicePointer = const_cast<void*>(address);
  out->hostPointer = range.memory == Memory::Device ? nullptr : out->devicePointer;
  return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  const Lock lock;
  size_t taken = 0;
  for (const auto& [address, range] : ranges()) {
    const bool counts = range.memory == Memory::Device && range.device == fake::current_device;
    taken += counts ? range.bytes : 0;
  }
  *total = DEVICE_BYTES;
  *free = DEVICE_BYTES - std::min(taken, DEVICE_BYTES);
  return cudaSuccess;
}

cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind) {
  if (auto error = fake::refuse_beside_captures("cudaMemcpy")) return error;
  double until = 0;
  {
    const Lock lock;
    const Ends ends(to, from);
    fake::report().host_syncs["cudaMemcpy"]++;
    fake::enqueue_without_stream(fake::Kind::Copy, ends.what());
    move(to, from, bytes, ends);
    // Between two places of the device it only begins.
    auto* legacy = fake::stream_of(nullptr);
    legacy->unfinished = ends.source == Memory::Device && ends.target == Memory::Device;
    if (!legacy->unfinished) until = legacy->busy_until_us;
  }
  fake::wait_until(until);
  return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind,
                            cudaStream_t stream) {
  return copy(to, from, bytes, stream);
}

cudaError_t cudaMemcpyPeerAsync(void* to, int, const void* from, int, size_t bytes,
                                cudaStream_t stream) {
  return copy(to, from, bytes, stream);
}

cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t handle) {
  const Lock lock;
  auto* on = fake::stream_of(handle);
  if (!fake::enqueue(on, fake::Kind::Fill, "fill")) return cudaErrorInvalidValue;
  const bool of_host = fake::range_of(to).memory != Memory::Device;
  if (of_host && on->capture == nullptr) memset(to, value, bytes);
  return cudaSuccess;
}

cudaError_t cudaMemset(void* to, int value, size_t bytes) {
  if (auto error = fake::refuse_beside_captures("cudaMemset")) return error;
  fake::enqueue_without_stream(fake::Kind::Fill, "fill");
  if (fake::range_of(to).memory != Memory::Device) memset(to, value, bytes);
  return cudaSuccess;
}
}
