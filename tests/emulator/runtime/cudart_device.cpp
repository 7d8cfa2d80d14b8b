// The rest of the CUDA runtime: errors, the device, its memory and streams. All has happened when a call returns.
#include <stdlib.h>
#include <string.h>

#include <map>
#include <string>

#include "device.h"
#include "launch.h"
#include "memory.h"

using namespace emulator::device;
using emulator::failed;

namespace {

cudaError_t last_error = cudaSuccess;
cudaError_t last_message_of = cudaSuccess;
std::string last_message;

}  // namespace

cudaError_t emulator::failed(cudaError_t error, const std::string& message) {
  set_last_error(message);
  last_error = last_message_of = error;
  last_message = message;
  return error;
}

extern "C" {

cudaError_t cudaGetLastError() {
  const cudaError_t error = last_error;
  last_error = cudaSuccess;
  return error;
}
cudaError_t cudaPeekAtLastError() {
  return last_error;
}
const char* cudaGetErrorName(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "cudaSuccess";
    case cudaErrorInvalidValue:
      return "cudaErrorInvalidValue";
    case cudaErrorInvalidDeviceFunction:
      return "cudaErrorInvalidDeviceFunction";
    case cudaErrorLaunchFailure:
      return "cudaErrorLaunchFailure";
    case cudaErrorMemoryAllocation:
      return "cudaErrorMemoryAllocation";
    case cudaErrorNotSupported:
      return "cudaErrorNotSupported";
    default:
      return "unknown error";
  }
}
// With the emulator's message, so that it is in the exceptions of callers.
const char* cudaGetErrorString(cudaError_t error) {
  static thread_local std::string text;
  text = cudaGetErrorName(error);
  if (error == last_message_of && error != cudaSuccess) {
    text += ": " + last_message;
  }
  return text.c_str();
}

cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) {
  return device == 0 ? cudaSuccess : failed(cudaErrorInvalidDevice, "there is one device");
}
cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  const std::map<int, int> values = {
      {cudaDevAttrMultiProcessorCount, kMultiprocessors},
      {cudaDevAttrMaxThreadsPerBlock, kThreadsPerBlock},
      {cudaDevAttrMaxThreadsPerMultiProcessor, kThreadsPerMultiprocessor},
      {cudaDevAttrMaxSharedMemoryPerBlock, kSharedBytesPerBlock},
      {cudaDevAttrMaxSharedMemoryPerBlockOptin, kSharedBytesPerBlockOptIn},
      {cudaDevAttrMaxSharedMemoryPerMultiprocessor, kSharedBytesPerMultiprocessor},
      {cudaDevAttrReservedSharedMemoryPerBlock, 1024},
      {cudaDevAttrComputeCapabilityMajor, 8},
      {cudaDevAttrComputeCapabilityMinor, 0},
      {cudaDevAttrWarpSize, kWarp},
      {cudaDevAttrMaxGridDimX, 0x7fffffff},
      {cudaDevAttrMaxGridDimY, 65535},
      {cudaDevAttrMaxGridDimZ, 65535},
      {cudaDevAttrMaxRegistersPerBlock, 65536},
      {cudaDevAttrMaxRegistersPerMultiprocessor, 65536},
      {cudaDevAttrL2CacheSize, 40 << 20},
  };
  const auto found = values.find(attribute);
  if (found == values.end()) {
    return failed(cudaErrorInvalidValue, "an unknown attribute of the device: " + std::to_string(attribute));
  }
  *value = found->second;
  return cudaSuccess;
}

// With unwritten memory around it, for the checks of the kernels' accesses.
cudaError_t cudaMalloc(void** pointer, size_t bytes) {
  constexpr size_t kRedzone = emulator::kRedzone;
  const size_t size = (bytes + kRedzone - 1) / kRedzone * kRedzone;
  char* memory = static_cast<char*>(aligned_alloc(kRedzone, size + 2 * kRedzone));
  if (!memory) {
    return failed(cudaErrorMemoryAllocation, "out of memory");
  }
  memset(memory, 0xff, size + 2 * kRedzone);
  *pointer = memory + kRedzone;
  emulator::guard(*pointer, bytes);
  return cudaSuccess;
}
cudaError_t cudaFree(void* pointer) {
  if (pointer) {
    emulator::unguard(pointer);
    free(static_cast<char*>(pointer) - emulator::kRedzone);
  }
  return cudaSuccess;
}
cudaError_t cudaMallocAsync(void** pointer, size_t bytes, cudaStream_t) {
  return cudaMalloc(pointer, bytes);
}
cudaError_t cudaFreeAsync(void* pointer, cudaStream_t) {
  return cudaFree(pointer);
}
cudaError_t cudaMemset(void* pointer, int value, size_t bytes) {
  memset(pointer, value, bytes);
  return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void* pointer, int value, size_t bytes, cudaStream_t) {
  return cudaMemset(pointer, value, bytes);
}
cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind) {
  memcpy(to, from, bytes);
  return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t) {
  return cudaMemcpy(to, from, bytes, kind);
}
cudaError_t cudaMemcpyToSymbol(const void* symbol, const void* from, size_t bytes, size_t offset, cudaMemcpyKind) {
  char* to = static_cast<char*>(emulator::variable_address(symbol));
  if (!to) {
    return failed(cudaErrorInvalidSymbol, "no variable is at this address");
  }
  memcpy(to + offset, from, bytes);
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t) {
  return last_error;
}
cudaError_t cudaDeviceSynchronize() {
  return last_error;
}

}  // extern "C"
