// What the fakes of cuDNN, cuBLAS, NCCL and the driver ask of the fake runtime. A C ABI, since each
// is a library of its own.

#pragma once

extern "C" {

// Enqueues an operation of a library; 0 where the device takes it.
int scrimp_fake_launch(const char* name, void* stream);

// The same for a collective of a communicator, whose captured graphs are counted.
int scrimp_fake_collective(const char* name, void* communicator, void* stream);

// How many nodes of live graphs belong to a communicator.
long scrimp_fake_graph_nodes_of(void* communicator);

// Whether a communicator may be used by graphs from now on.
void scrimp_fake_communicator_lives(void* communicator, int lives);

// The host waits for the device in a call of a library; a CUDA error where that is forbidden.
int scrimp_fake_waits(const char* call);

void scrimp_fake_violate(const char* sentence);
void scrimp_fake_note_communicator(const char* what);

// The current GPU of this thread, that of a stream, and that of an address: -1 for the host's memory.
int scrimp_fake_device();
int scrimp_fake_device_of_stream(void* stream);
int scrimp_fake_device_of_memory(const void* address);
}
