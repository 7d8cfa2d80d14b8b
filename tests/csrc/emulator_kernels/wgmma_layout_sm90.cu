// What a descriptor says: twice the operand a [64][16] of halves that it finds in shared memory, by products with ones
// on the diagonal. Lane `other_lane` of warp `other_warp` gives another descriptor (-1: all lanes).
#include <cuda_fp16.h>

#include "../../../csrc/cuda/arch/wgmma.cuh"

namespace {

using namespace resnet_fused::cuda;

constexpr int kN = 64, kBytesB = kN * 64;

template <bool MN_MAJOR>
__global__ void __launch_bounds__(256) layout_kernel(const char* bytes, int count, uint64_t descriptor, float* c,
                                                     int other_warp, int other_lane) {
  extern __shared__ __align__(1024) char shared[];
  for (int i = threadIdx.x; i < kBytesB / 2; i += blockDim.x) {
    const int row = i / 32, k = i % 32;
    const int offset = row * 64 + (k / 8 ^ row / 2 % 4) * 16 + k % 8 * 2;
    *reinterpret_cast<__half*>(shared + offset) = __float2half(row == k ? 1.0f : 0.0f);
  }
  for (int i = threadIdx.x; i < count; i += blockDim.x) {
    shared[kBytesB + i] = bytes[i];
  }
  fence_shared_for_async();
  __syncthreads();
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const bool other = warp == other_warp && (other_lane < 0 || lane == other_lane);
  const uint32_t address = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  const uint64_t a = descriptor + ((address + kBytesB) >> 4) + (other ? 64 : 0), b = descriptor_k_major_64(address);
  float d[kN / 2] = {};
  hold_accumulators(d);
  wgmma_fence();
  wgmma_m64n64k16_f16<MN_MAJOR, false>(d, a, b);
  wgmma_m64n64k16_f16<MN_MAJOR, false>(d, a, b);
  wgmma_commit();
  wgmma_wait<0>();
  hold_accumulators(d);
  for (int i = 0; i < 8; ++i) {  // columns 0 to 15
    const int row = warp * 16 + lane / 4 + i / 2 % 2 * 8, column = i / 4 * 8 + lane % 4 * 2 + i % 2;
    c[row * 16 + column] = d[i];
  }
}

}  // namespace

extern "C" int launch_layout(int mn_major, const void* bytes, int count, uint64_t descriptor, float* c, int threads,
                             int other_warp, int other_lane) {
  const auto kernel = mn_major ? layout_kernel<true> : layout_kernel<false>;
  kernel<<<1, threads, kBytesB + count>>>(static_cast<const char*>(bytes), count, descriptor, c, other_warp,
                                           other_lane);
  return cudaGetLastError();
}
