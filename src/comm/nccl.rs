//! Device tensors over NCCL.
