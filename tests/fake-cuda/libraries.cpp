// cuDNN's interface of version 7 and the handles of cuBLAS. Convolutions are counted and not computed.
//
// Functions that only have to be there are in stubs.h.

#include <cudnn.h>

#include <cstring>

#include "between.h"
#include "handle.h"

namespace {

constexpr size_t WORKSPACE_BYTES = 4096;

// The one algorithm that there is.
template <typename Found, typename Algorithm>
cudnnStatus_t found(Found* out, int* count, Algorithm algorithm) {
  *out = {};
  out->algo = algorithm;
  out->status = CUDNN_STATUS_SUCCESS;
  out->determinism = CUDNN_DETERMINISTIC;
  out->mathType = CUDNN_FMA_MATH;
  out->memory = WORKSPACE_BYTES;
  out->time = 1;
  *count = 1;
  return CUDNN_STATUS_SUCCESS;
}

// The same, after algorithms were measured, for which the host waits.
template <typename Found, typename Algorithm>
cudnnStatus_t measured(const char* call, Found* out, int* count, Algorithm algorithm) {
  if (scrimp_fake_waits(call) != 0) return CUDNN_STATUS_EXECUTION_FAILED;
  return found(out, count, algorithm);
}

cudnnStatus_t launch(const char* name, cudnnHandle_t handle) {
  const int refused = scrimp_fake_launch(name, fake::stream_of_handle(handle));
  return refused == 0 ? CUDNN_STATUS_SUCCESS : CUDNN_STATUS_EXECUTION_FAILED;
}

cudnnStatus_t workspace(size_t* bytes) {
  *bytes = WORKSPACE_BYTES;
  return CUDNN_STATUS_SUCCESS;
}

constexpr auto FORWARD = CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM;
constexpr auto BACKWARD_DATA = CUDNN_CONVOLUTION_BWD_DATA_ALGO_1;
constexpr auto BACKWARD_FILTER = CUDNN_CONVOLUTION_BWD_FILTER_ALGO_1;

using Convolution = const cudnnConvolutionDescriptor_t;
using Filter = const cudnnFilterDescriptor_t;
using Tensor = const cudnnTensorDescriptor_t;

}  // namespace

extern "C" {

cudnnStatus_t cudnnCreate(cudnnHandle_t* out) {
  *out = reinterpret_cast<cudnnHandle_t>(new fake::Handle);
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnSetStream(cudnnHandle_t handle, cudaStream_t stream) {
  reinterpret_cast<fake::Handle*>(handle)->stream = stream;
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnGetStream(cudnnHandle_t handle, cudaStream_t* stream) {
  *stream = static_cast<cudaStream_t>(fake::stream_of_handle(handle));
  return CUDNN_STATUS_SUCCESS;
}

size_t cudnnGetVersion() { return CUDNN_VERSION; }
size_t cudnnGetCudartVersion() { return 13000; }
const char* cudnnGetErrorString(cudnnStatus_t) { return "an error of the fake cuDNN"; }
void cudnnGetLastErrorString(char* text, size_t) { *text = 0; }

cudnnStatus_t cudnnGetConvolutionForwardAlgorithm_v7(cudnnHandle_t, Tensor, Filter, Convolution,
                                                     Tensor, const int, int* count,
                                                     cudnnConvolutionFwdAlgoPerf_t* out) {
  return found(out, count, FORWARD);
}

cudnnStatus_t cudnnGetConvolutionBackwardDataAlgorithm_v7(cudnnHandle_t, Filter, Tensor, Convolution,
                                                          Tensor, const int, int* count,
                                                          cudnnConvolutionBwdDataAlgoPerf_t* out) {
  return found(out, count, BACKWARD_DATA);
}

cudnnStatus_t cudnnGetConvolutionBackwardFilterAlgorithm_v7(
    cudnnHandle_t, Tensor, Tensor, Convolution, Filter, const int, int* count,
    cudnnConvolutionBwdFilterAlgoPerf_t* out) {
  return found(out, count, BACKWARD_FILTER);
}

cudnnStatus_t cudnnFindConvolutionForwardAlgorithmEx(cudnnHandle_t, Tensor, const void*, Filter,
                                                     const void*, Convolution, Tensor, void*,
                                                     const int, int* count,
                                                     cudnnConvolutionFwdAlgoPerf_t* out, void*,
                                                     size_t) {
  return measured("cudnnFindConvolutionForwardAlgorithmEx", out, count, FORWARD);
}

cudnnStatus_t cudnnFindConvolutionBackwardDataAlgorithmEx(cudnnHandle_t, Filter, const void*, Tensor,
                                                          const void*, Convolution, Tensor, void*,
                                                          const int, int* count,
                                                          cudnnConvolutionBwdDataAlgoPerf_t* out,
                                                          void*, size_t) {
  return measured("cudnnFindConvolutionBackwardDataAlgorithmEx", out, count, BACKWARD_DATA);
}

cudnnStatus_t cudnnFindConvolutionBackwardFilterAlgorithmEx(
    cudnnHandle_t, Tensor, const void*, Tensor, const void*, Convolution, Filter, void*, const int,
    int* count, cudnnConvolutionBwdFilterAlgoPerf_t* out, void*, size_t) {
  return measured("cudnnFindConvolutionBackwardFilterAlgorithmEx", out, count, BACKWARD_FILTER);
}

cudnnStatus_t cudnnGetConvolutionForwardWorkspaceSize(cudnnHandle_t, Tensor, Filter, Convolution,
                                                      Tensor, cudnnConvolutionFwdAlgo_t,
                                                      size_t* bytes) {
  return workspace(bytes);
}

cudnnStatus_t cudnnGetConvolutionBackwardDataWorkspaceSize(cudnnHandle_t, Filter, Tensor, Convolution,
                                                           Tensor, cudnnConvolutionBwdDataAlgo_t,
                                                           size_t* bytes) {
  return workspace(bytes);
}

cudnnStatus_t cudnnGetConvolutionBackwardFilterWorkspaceSize(cudnnHandle_t, Tensor, Tensor,
                                                             Convolution, Filter,
                                                             cudnnConvolutionBwdFilterAlgo_t,
                                                             size_t* bytes) {
  return workspace(bytes);
}

cudnnStatus_t cudnnConvolutionForward(cudnnHandle_t handle, const void*, Tensor, const void*, Filter,
                                      const void*, Convolution, cudnnConvolutionFwdAlgo_t, void*,
                                      size_t, const void*, Tensor, void*) {
  return launch("cudnnConvolutionForward", handle);
}

cudnnStatus_t cudnnConvolutionBackwardData(cudnnHandle_t handle, const void*, Filter, const void*,
                                           Tensor, const void*, Convolution,
                                           cudnnConvolutionBwdDataAlgo_t, void*, size_t, const void*,
                                           Tensor, void*) {
  return launch("cudnnConvolutionBackwardData", handle);
}

cudnnStatus_t cudnnConvolutionBackwardFilter(cudnnHandle_t handle, const void*, Tensor, const void*,
                                             Tensor, const void*, Convolution,
                                             cudnnConvolutionBwdFilterAlgo_t, void*, size_t,
                                             const void*, Filter, void*) {
  return launch("cudnnConvolutionBackwardFilter", handle);
}

int cublasCreate_v2(void** out) {
  *out = new fake::Handle;
  return 0;
}

int cublasSetStream_v2(void* handle, void* stream) {
  static_cast<fake::Handle*>(handle)->stream = stream;
  return 0;
}

int cublasGetPointerMode_v2(void*, int* mode) {
  *mode = 0;
  return 0;
}

int cublasGetMathMode(void*, int* mode) {
  *mode = 0;
  return 0;
}

size_t cublasLtGetVersion() { return 130100; }
}
