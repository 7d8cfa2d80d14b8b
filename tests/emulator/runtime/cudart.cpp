// The functions of the CUDA runtime that nvcc's host code and the launchers call. They are local to the library (see
// exports.map), so that a real CUDA runtime in the same process is neither used nor disturbed.
#include <string.h>

#include <map>
#include <string>
#include <vector>

#include "device.h"
#include "launch.h"

using namespace emulator::device;
using emulator::Entry;
using emulator::failed;

namespace {

struct Kernel {
  std::string name;
  int max_dynamic_shared_bytes;  // as the caller has set it, or -1
};

struct Configuration {
  dim3 grid, block;
  size_t shared_bytes;
  cudaStream_t stream;
};

struct State {
  std::map<const void*, Kernel> kernels;         // by the address of the function that launches it
  std::map<const void*, std::string> variables;  // by the address of the host's shadow of it
};

thread_local std::vector<Configuration> configurations;  // <<<...>>> that are being called

State& state() {
  static State* instance = new State;  // never destroyed: kernels are unregistered at exit
  return *instance;
}

Kernel* find_kernel(const void* function) {
  const auto found = state().kernels.find(function);
  return found == state().kernels.end() ? nullptr : &found->second;
}

// Its translation, or null.
const Entry* entry_of(const Kernel* kernel) {
  return kernel ? emulator::find_entry(kernel->name.c_str()) : nullptr;
}

cudaError_t no_kernel() {
  return failed(cudaErrorInvalidDeviceFunction, "no kernel is at this address");
}

// What a driver refuses.
std::string why_refused(const Entry& entry, const Kernel& kernel, const emulator::LaunchShape& shape) {
  const std::string refused = emulator::why_refused(entry, shape);
  const size_t shared_bytes = entry.static_shared_bytes + shape.dynamic_shared_bytes;
  const size_t raised = kernel.max_dynamic_shared_bytes < 0 ? 0 : kernel.max_dynamic_shared_bytes;
  if (refused.empty() && shared_bytes > kSharedBytesPerBlock && shape.dynamic_shared_bytes > raised) {
    return std::to_string(shared_bytes) + " bytes of shared memory are more than the 49152 that a kernel has without " +
           "cudaFuncAttributeMaxDynamicSharedMemorySize, which is " + std::to_string(raised) + " here";
  }
  return refused;
}

cudaError_t launch(const void* function, dim3 grid, dim3 block, void** arguments, size_t dynamic_bytes) {
  const Kernel* kernel = find_kernel(function);
  const Entry* entry = entry_of(kernel);
  if (!entry) {
    return no_kernel();
  }
  const emulator::LaunchShape shape = {{grid.x, grid.y, grid.z}, {block.x, block.y, block.z}, dynamic_bytes};
  const std::string refused = why_refused(*entry, *kernel, shape);
  if (!refused.empty()) {
    return failed(cudaErrorInvalidValue, emulator::readable(kernel->name) + ": " + refused);
  }
  const std::string error = emulator::launch(*entry, shape, arguments);
  return error.empty() ? cudaSuccess : failed(cudaErrorLaunchFailure, error);
}

}  // namespace

void* emulator::variable_address(const void* symbol) {
  const auto found = state().variables.find(symbol);
  const auto* variable = found == state().variables.end() ? nullptr : emulator::find_variable(found->second.c_str());
  return variable ? variable->address : nullptr;
}

extern "C" {

// Registration, by code that nvcc writes.
void** __cudaRegisterFatBinary(void*) {
  static void* handle;
  return &handle;
}
void __cudaRegisterFatBinaryEnd(void**) {
}
void __cudaUnregisterFatBinary(void**) {
}
char __cudaInitModule(void**) {
  return 1;
}
void __cudaRegisterFunction(void**, const char* host, char*, const char* name, int, uint3*, uint3*, dim3*, dim3*,
                            int*) {
  state().kernels[host] = {name, -1};
}
void __cudaRegisterVar(void**, char* host, char*, const char* name, int, size_t, int, int) {
  state().variables[host] = name;
}

// kernel<<<...>>>
unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared_bytes, struct CUstream_st* stream) {
  configurations.push_back({grid, block, shared_bytes, stream});
  return 0;
}
cudaError_t __cudaPopCallConfiguration(dim3* grid, dim3* block, size_t* shared_bytes, void* stream) {
  const Configuration c = configurations.back();
  configurations.pop_back();
  *grid = c.grid;
  *block = c.block;
  *shared_bytes = c.shared_bytes;
  *static_cast<cudaStream_t*>(stream) = c.stream;
  return cudaSuccess;
}
cudaError_t __cudaGetKernel(cudaKernel_t* kernel, const void* function) {
  *kernel = reinterpret_cast<cudaKernel_t>(const_cast<void*>(function));
  return cudaSuccess;
}
cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block, void** arguments, size_t dynamic_bytes,
                               cudaStream_t) {
  return launch(kernel, grid, block, arguments, dynamic_bytes);
}
cudaError_t cudaLaunchKernel(const void* function, dim3 grid, dim3 block, void** arguments, size_t dynamic_bytes,
                             cudaStream_t) {
  return launch(function, grid, block, arguments, dynamic_bytes);
}
cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t* config, const void* function, void** arguments) {
  for (unsigned i = 0; i < config->numAttrs; ++i) {
    const cudaLaunchAttributeID id = config->attrs[i].id;
    if (id != cudaLaunchAttributeIgnore && id != cudaLaunchAttributeProgrammaticStreamSerialization) {
      return failed(cudaErrorNotSupported, "a launch attribute that the emulator does not know: " + std::to_string(id));
    }
  }
  return launch(function, config->gridDim, config->blockDim, arguments, config->dynamicSmemBytes);
}

cudaError_t cudaFuncSetAttribute(const void* function, cudaFuncAttribute attribute, int value) {
  Kernel* kernel = find_kernel(function);
  const Entry* entry = entry_of(kernel);
  if (!entry) {
    return no_kernel();
  }
  if (attribute == cudaFuncAttributeMaxDynamicSharedMemorySize) {
    if (value < 0 || value + static_cast<int>(entry->static_shared_bytes) > kSharedBytesPerBlockOptIn) {
      return failed(cudaErrorInvalidValue, emulator::readable(kernel->name) + ": " + std::to_string(value) +
                                               " bytes of dynamic shared memory are more than a block can have");
    }
    kernel->max_dynamic_shared_bytes = value;
    return cudaSuccess;
  }
  if (attribute == cudaFuncAttributePreferredSharedMemoryCarveout) {
    return cudaSuccess;
  }
  return failed(cudaErrorInvalidValue, "a function attribute that the emulator does not know");
}

cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void* function) {
  const Kernel* kernel = find_kernel(function);
  const Entry* entry = entry_of(kernel);
  if (!entry) {
    return no_kernel();
  }
  memset(attributes, 0, sizeof *attributes);
  attributes->sharedSizeBytes = entry->static_shared_bytes;
  attributes->maxThreadsPerBlock = entry->max_threads ? static_cast<int>(entry->max_threads) : kThreadsPerBlock;
  attributes->ptxVersion = attributes->binaryVersion = 80;
  attributes->maxDynamicSharedSizeBytes = kernel->max_dynamic_shared_bytes;
  return cudaSuccess;
}

// By threads and shared memory alone: how many registers a kernel takes is not known here.
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* blocks, const void* function, int threads,
                                                                   size_t dynamic_bytes, unsigned) {
  const Kernel* kernel = find_kernel(function);
  const Entry* entry = entry_of(kernel);
  if (!entry || threads <= 0) {
    return failed(cudaErrorInvalidValue, "occupancy of a block without threads, or of no kernel");
  }
  const int by_threads = kThreadsPerMultiprocessor / threads;
  const int block_bytes = static_cast<int>(entry->static_shared_bytes + dynamic_bytes) + 1024;  // 1 KiB is the system's
  const int by_memory = kSharedBytesPerMultiprocessor / block_bytes;
  *blocks = by_threads < by_memory ? by_threads : by_memory;
  *blocks = *blocks < 32 ? *blocks : 32;
  return cudaSuccess;
}
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, const void* function, int threads,
                                                          size_t dynamic_bytes) {
  return cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(blocks, function, threads, dynamic_bytes, 0);
}

}  // extern "C"
