// NCCL, as libnccl.so.2: the life of communicators and the order of calls, without any data.
//
// What is modelled is what hangs or is refused: a communicator that is still busy with its last call,
// one of another GPU, one that ends while captured graphs hold it, children of a parent that is busy.
// Types are those of nccl.h as far as they are looked at: that header wants more of CUDA than is there.

#include <chrono>
#include <cstring>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "between.h"

enum ncclResult_t { ncclSuccess = 0, ncclInvalidUsage = 5, ncclInProgress = 7 };

constexpr int VERSION = 22809;
constexpr int UNDEFINED = -2147483647 - 1;
constexpr int NO_COLOR = -1;

struct ncclUniqueId {
  char internal[128];
};

// The start of the settings of a communicator.
struct ncclConfig_t {
  size_t size;
  unsigned magic, version;
  int blocking;
};

// What NCCL keeps of a communicator.
struct ncclComm {
  int rank, ranks, device;
  bool blocking;
  enum class State { Usable, Finalizing, Finalized, Gone } state = State::Usable;
  // Whether the last call goes on beside its caller.
  bool busy = false;
  ncclComm* parent = nullptr;
  // Of a child: made while the parent was busy, and usable once that has been asked for.
  bool waits_for_parent = false;
};

namespace {

using State = ncclComm::State;

std::recursive_mutex& mutex() {
  static auto* the = new std::recursive_mutex;
  return *the;
}

using Lock = std::lock_guard<std::recursive_mutex>;

// Calls between ncclGroupStart and ncclGroupEnd, which begin at the end.
thread_local int open_groups = 0;
thread_local std::vector<ncclComm*> grouped;

ncclResult_t refuse(const std::string& sentence) {
  scrimp_fake_violate(sentence.c_str());
  return ncclInvalidUsage;
}

// Whether a communicator may be used by `call` now.
ncclResult_t usable(const ncclComm* comm, const char* call) {
  const auto named = "`" + std::string(call) + "`";
  if (comm == nullptr) return refuse(named + " without a communicator");
  if (comm->state != State::Usable) return refuse(named + " of a communicator that has ended");
  if (comm->busy) return refuse(named + " of a communicator whose last call is still in progress");
  if (comm->waits_for_parent && comm->parent->busy) {
    return refuse(named + " of a communicator that is still being split from its parent");
  }
  return ncclSuccess;
}

// What a call returns that goes on beside its caller, or not.
ncclResult_t begun(ncclComm* comm) {
  if (open_groups > 0) {
    grouped.push_back(comm);
    return ncclSuccess;
  }
  if (comm->blocking) return ncclSuccess;
  comm->busy = true;
  return ncclInProgress;
}

ncclResult_t collective(const char* call, const void* memory, ncclComm* comm, void* stream) {
  const Lock lock(mutex());
  if (auto refused = usable(comm, call)) return refused;
  const auto named = "`" + std::string(call) + "`";
  if (scrimp_fake_device() != comm->device) {
    return refuse(named + " while another GPU than the communicator's is current");
  }
  if (scrimp_fake_device_of_stream(stream) != comm->device) {
    return refuse(named + " on a stream of another GPU than the communicator's");
  }
  if (scrimp_fake_device_of_memory(memory) != comm->device) {
    return refuse(named + " of memory that is not on the communicator's GPU");
  }
  if (scrimp_fake_collective(call, comm, stream) != 0) return ncclInvalidUsage;
  return begun(comm);
}

bool blocks(const ncclConfig_t* config, bool otherwise) {
  if (config == nullptr || config->blocking == UNDEFINED) return otherwise;
  return config->blocking != 0;
}

ncclComm* made(ncclComm comm) {
  auto* result = new ncclComm(comm);
  scrimp_fake_communicator_lives(result, 1);
  return result;
}

// Says so where captured graphs keep a communicator from ending.
bool held_by_graphs(ncclComm* comm, const char* call) {
  const long nodes = scrimp_fake_graph_nodes_of(comm);
  if (nodes == 0) return false;
  scrimp_fake_violate(("`" + std::string(call) + "` of a communicator that captured graphs hold: " +
                       "it waits for them for ever").c_str());
  return true;
}

// As NCCL does, which polls without an end.
void wait_for_graphs(ncclComm* comm) {
  while (scrimp_fake_graph_nodes_of(comm) > 0) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

}  // namespace

extern "C" {

ncclResult_t ncclGetVersion(int* version) {
  *version = VERSION;
  return ncclSuccess;
}

ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
  memset(id, 7, sizeof *id);
  return ncclSuccess;
}

const char* ncclGetErrorString(ncclResult_t) { return "an error of the fake NCCL"; }
const char* ncclGetLastError(ncclComm*) { return "see the violations of the fake GPU"; }

ncclResult_t ncclCommInitRankConfig(ncclComm** out, int ranks, ncclUniqueId, int rank,
                                    ncclConfig_t* config) {
  const Lock lock(mutex());
  if (ranks < 1 || rank < 0 || rank >= ranks) return refuse("a rank joins that is none of its ranks");
  scrimp_fake_note_communicator("joined");
  *out = made({rank, ranks, scrimp_fake_device(), blocks(config, true)});
  return begun(*out);
}

ncclResult_t ncclCommSplit(ncclComm* comm, int color, int, ncclComm** out, ncclConfig_t* config) {
  const Lock lock(mutex());
  *out = nullptr;
  if (auto refused = usable(comm, "ncclCommSplit")) return refused;
  scrimp_fake_note_communicator("split");
  if (color != NO_COLOR) {
    *out = made({comm->rank, comm->ranks, comm->device, blocks(config, comm->blocking)});
    (*out)->parent = comm;
    (*out)->waits_for_parent = !comm->blocking;
  }
  return begun(comm);
}

ncclResult_t ncclCommGetAsyncError(ncclComm* comm, ncclResult_t* state) {
  const Lock lock(mutex());
  if (comm == nullptr || comm->state == State::Gone) {
    return refuse("`ncclCommGetAsyncError` of a communicator that is gone");
  }
  *state = ncclSuccess;
  if (comm->state == State::Finalizing) {
    const bool held = scrimp_fake_graph_nodes_of(comm) > 0;
    if (held) *state = ncclInProgress;
    if (!held) comm->state = State::Finalized;
    return ncclSuccess;
  }
  comm->busy = false;
  return ncclSuccess;
}

ncclResult_t ncclCommFinalize(ncclComm* comm) {
  {
    const Lock lock(mutex());
    if (auto refused = usable(comm, "ncclCommFinalize")) return refused;
    held_by_graphs(comm, "ncclCommFinalize");
    comm->state = State::Finalizing;
    if (!comm->blocking) return ncclInProgress;
  }
  wait_for_graphs(comm);
  const Lock lock(mutex());
  comm->state = State::Finalized;
  return ncclSuccess;
}

ncclResult_t ncclCommDestroy(ncclComm* comm) {
  {
    const Lock lock(mutex());
    if (comm == nullptr || comm->state == State::Gone) {
      return refuse("`ncclCommDestroy` of a communicator that is gone");
    }
    if (!comm->blocking && comm->state != State::Finalized) {
      return refuse("`ncclCommDestroy` of a communicator that does not block and is not finalised");
    }
    if (comm->state == State::Usable) held_by_graphs(comm, "ncclCommDestroy");
  }
  wait_for_graphs(comm);
  const Lock lock(mutex());
  comm->state = State::Gone;
  scrimp_fake_communicator_lives(comm, 0);
  scrimp_fake_note_communicator("destroyed");
  return ncclSuccess;
}

ncclResult_t ncclCommAbort(ncclComm* comm) {
  const Lock lock(mutex());
  if (comm == nullptr || comm->state == State::Gone) {
    return refuse("`ncclCommAbort` of a communicator that is gone");
  }
  held_by_graphs(comm, "ncclCommAbort");
  comm->state = State::Gone;
  scrimp_fake_communicator_lives(comm, 0);
  scrimp_fake_note_communicator("aborted");
  return ncclSuccess;
}

ncclResult_t ncclGroupStart() {
  open_groups++;
  return ncclSuccess;
}

ncclResult_t ncclGroupEnd() {
  const Lock lock(mutex());
  if (open_groups == 0) return refuse("`ncclGroupEnd` without `ncclGroupStart`");
  if (--open_groups > 0) return ncclSuccess;
  auto result = ncclSuccess;
  for (auto* comm : grouped) {
    if (begun(comm) == ncclInProgress) result = ncclInProgress;
  }
  grouped.clear();
  return result;
}

ncclResult_t ncclAllReduce(const void* from, void*, size_t, int, int,
                           ncclComm* comm, void* stream) {
  return collective("ncclAllReduce", from, comm, stream);
}

ncclResult_t ncclReduceScatter(const void* from, void*, size_t, int, int,
                               ncclComm* comm, void* stream) {
  return collective("ncclReduceScatter", from, comm, stream);
}

ncclResult_t ncclAllGather(const void* from, void*, size_t, int, ncclComm* comm,
                           void* stream) {
  return collective("ncclAllGather", from, comm, stream);
}

ncclResult_t ncclBroadcast(const void* from, void*, size_t, int, int, ncclComm* comm,
                           void* stream) {
  return collective("ncclBroadcast", from, comm, stream);
}
}
