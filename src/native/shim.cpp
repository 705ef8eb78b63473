// The C ABI of src/native/mod.rs over libtorch. CPU headers only.
#include <torch/torch.h>
