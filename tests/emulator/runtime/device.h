// The device that the CUDA runtime's functions describe, an A100, and what they share.
#pragma once

#include <cuda_runtime_api.h>

#include <string>

#include "launch.h"

namespace emulator {

namespace device {
constexpr int kMultiprocessors = 108;
constexpr int kSharedBytesPerMultiprocessor = 164 << 10;
constexpr int kSharedBytesPerBlock = 48 << 10;  // unless the kernel asks for more
constexpr int kSharedBytesPerBlockOptIn = static_cast<int>(emulator::kSharedBytesPerBlockOptIn);
constexpr int kThreadsPerBlock = static_cast<int>(emulator::kThreadsPerBlock);
constexpr int kThreadsPerMultiprocessor = 2048, kWarp = 32;
}  // namespace device

// Keeps the error for cudaGetLastError and the message for emulator_last_error.
cudaError_t failed(cudaError_t error, const std::string& message);

// Of a __device__ or __constant__ variable, given the host's shadow of it; or null.
void* variable_address(const void* symbol);

}  // namespace emulator
