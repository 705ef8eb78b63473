// The handles of cuDNN and cuBLAS, which hold nothing but a stream.

#pragma once

namespace fake {

struct Handle {
  void* stream = nullptr;
};

inline void* stream_of_handle(void* handle) { return static_cast<Handle*>(handle)->stream; }

}  // namespace fake
