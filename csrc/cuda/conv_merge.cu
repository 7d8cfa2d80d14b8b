#include "conv_merge.h"

#include "conv_element.cuh"
#include "launch.cuh"
#include "heuristics.h"

namespace resnet_fused::cuda {
namespace {

// A block has kMergedChannels columns, a sector of memory, of kMergedSegments threads; tiles go round the segments.
constexpr int kMergedChannels = 8, kMergedSegments = 64, kMergedThreads = kMergedChannels * kMergedSegments;

// Over the segments of a channel, in a fixed order; the first threads get their channels' sums.
__device__ double sum_segments(double value) {
  constexpr int kWarps = kMergedThreads / 32;
  __shared__ double of_warps[kWarps][kMergedChannels];
  for (int lanes = kMergedChannels; lanes < 32; lanes *= 2) {
    value += __shfl_xor_sync(0xffffffff, value, lanes);
  }
  __syncthreads();
  if (threadIdx.x % 32 < kMergedChannels) {
    of_warps[threadIdx.x / 32][threadIdx.x % 32] = value;
  }
  __syncthreads();
  double sum = 0;
  if (threadIdx.x < kMergedChannels) {
    for (int warp = 0; warp < kWarps; ++warp) {
      sum += of_warps[warp][threadIdx.x];
    }
  }
  return sum;
}

// The merge of (count, mean, M2) of Chan, Golub and LeVeque (1979), of all tiles at once: their sums, each relative
// to its own pivot, are made relative to the first tile's, by sum (v - q)^2 = sum (v - p)^2 + 2 d sum (v - p) + n d^2
// with d = p - q. In float64, for there may be thousands of tiles; without divisions, which take it longest.
__global__ void __launch_bounds__(kMergedThreads) conv_statistics_kernel(ConvStatisticsParams p) {
  int channel = blockIdx.x * kMergedChannels + threadIdx.x % kMergedChannels, segment = threadIdx.x / kMergedChannels;
  bool there = channel < p.channels;
  double pivot = there && p.tiles ? p.partials[channel] : 0.0, sum = 0, square = 0;
#pragma unroll 4
  for (int tile = segment; tile < p.tiles; tile += kMergedSegments) {
    if (there) {
      const float* partial = p.partials + static_cast<int64_t>(tile) * kStatisticsRows * p.channels + channel;
      double d = partial[0] - pivot, of_tile = partial[p.channels];
      double shift = d * min(p.tile_pixels, p.pixels - tile * p.tile_pixels);
      square += partial[2 * p.channels] + d * (2 * of_tile + shift);
      sum += of_tile + shift;
    }
  }
  sum = sum_segments(sum);
  square = sum_segments(square);
  if (there && segment == 0) {
    double mean = sum / max(p.pixels, 1), m2 = square - sum * mean;
    p.stats[channel] = pivot + mean;
    p.stats[p.channels + channel] = zero_up_to_zero(m2, m2);
  }
}

__global__ void __launch_bounds__(kMergedThreads) conv_sums_kernel(ConvSumsParams p) {
  int channel = blockIdx.x * kMergedChannels + threadIdx.x % kMergedChannels, segment = threadIdx.x / kMergedChannels;
  bool there = channel < p.channels;
  double sum = 0, sum_x = 0;
#pragma unroll 4
  for (int tile = segment; tile < p.tiles; tile += kMergedSegments) {
    if (there) {
      const float* partial = p.partials + static_cast<int64_t>(tile) * 2 * p.channels + channel;
      sum += partial[0];
      sum_x += partial[p.channels];
    }
  }
  sum = sum_segments(sum);
  sum_x = sum_segments(sum_x);
  if (there && segment == 0) {
    p.sums[channel] = sum;
    p.sums[p.channels + channel] = sum_x * p.invstd[channel];
  }
}

template <typename Params>
void launch_per_channel(void (*kernel)(Params), const char* name, const Params& params, cudaStream_t stream) {
  int64_t blocks = ceil_div(params.channels, kMergedChannels);
  launch(kernel, name, blocks, kMergedThreads, 0, stream, params);
}

// A block has kSplitColumns elements of kSplitSegments threads; splits go round over the segments.
constexpr int kSplitColumns = 64, kSplitSegments = 4, kSplitThreads = kSplitColumns * kSplitSegments;

template <typename T>
__global__ void __launch_bounds__(kSplitThreads) conv_splits_kernel(ConvSplitsParams p) {
  __shared__ float sums[kSplitSegments][kSplitColumns];
  int column = threadIdx.x % kSplitColumns, segment = threadIdx.x / kSplitColumns;
  int64_t element = static_cast<int64_t>(blockIdx.x) * kSplitColumns + column;
  float sum = 0;
#pragma unroll 8
  for (int split = segment; split < p.splits; split += kSplitSegments) {
    sum += element < p.elements ? p.partials[split * p.elements + element] : 0.0f;
  }
  sums[segment][column] = sum;
  __syncthreads();
  if (segment == 0 && element < p.elements) {
    for (int other = 1; other < kSplitSegments; ++other) {
      sum += sums[other][column];
    }
    static_cast<T*>(p.result)[element] = from_acc<T>(sum);
  }
}

}  // namespace

void launch_conv_statistics(const ConvStatisticsParams& params, cudaStream_t stream) {
  launch_per_channel(conv_statistics_kernel, "conv_statistics", params, stream);
}

void launch_conv_sums(const ConvSumsParams& params, cudaStream_t stream) {
  launch_per_channel(conv_sums_kernel, "conv_sums", params, stream);
}

void launch_conv_splits(const ConvSplitsParams& params, cudaStream_t stream) {
  auto kernel = params.dtype == DType::kFloat32    ? conv_splits_kernel<float>
                : params.dtype == DType::kBFloat16 ? conv_splits_kernel<__nv_bfloat16>
                                                   : conv_splits_kernel<__half>;
  launch(kernel, "conv_splits", ceil_div(params.elements, kSplitColumns), kSplitThreads, 0, stream, params);
}

}  // namespace resnet_fused::cuda
