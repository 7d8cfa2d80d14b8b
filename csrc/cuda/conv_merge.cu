#include "conv_merge.h"

#include "conv_element.cuh"
#include "launch.cuh"
#include "heuristics.h"

namespace resnet_fused::cuda {
namespace {

// A block has kMergedChannels columns of kMergedSegments threads; tiles go round over the segments.
constexpr int kMergedChannels = 32, kMergedSegments = 32;

// Over the segments of a channel, in their order; all of them get the sum.
__device__ double sum_segments(double value) {
  __shared__ double values[kMergedSegments][kMergedChannels];
  int channel = threadIdx.x % kMergedChannels, segment = threadIdx.x / kMergedChannels;
  __syncthreads();
  values[segment][channel] = value;
  __syncthreads();
  double sum = 0;
  for (int i = 0; i < kMergedSegments; ++i) {
    sum += values[i][channel];
  }
  return sum;
}

struct TileMoments {
  double count, mean, m2;

  __device__ TileMoments(const ConvStatisticsParams& p, int tile, int channel) {
    const float* partial = p.partials + static_cast<int64_t>(tile) * kStatisticsRows * p.channels + channel;
    double sum = partial[p.channels];
    count = min(p.tile_pixels, p.pixels - tile * p.tile_pixels);
    mean = partial[0] + sum / count;
    m2 = partial[2 * p.channels] - sum * sum / count;
  }
};

// The merge of (count, mean, M2) of Chan, Golub and LeVeque (1979), of all tiles at once: the mean first, then squared
// deviations of the tiles' means from it. In float64, for there may be thousands of tiles.
__global__ void __launch_bounds__(kMergedChannels * kMergedSegments) conv_statistics_kernel(ConvStatisticsParams p) {
  int channel = blockIdx.x * kMergedChannels + threadIdx.x % kMergedChannels, segment = threadIdx.x / kMergedChannels;
  bool there = channel < p.channels;
  double sum = 0, m2 = 0;
  for (int tile = segment; there && tile < p.tiles; tile += kMergedSegments) {
    TileMoments moments(p, tile, channel);
    sum += moments.count * moments.mean;
  }
  double mean = sum_segments(sum) / max(p.pixels, 1);
  for (int tile = segment; there && tile < p.tiles; tile += kMergedSegments) {
    TileMoments moments(p, tile, channel);
    double deviation = moments.mean - mean;
    m2 += moments.m2 + moments.count * deviation * deviation;
  }
  m2 = sum_segments(m2);
  if (there && segment == 0) {
    p.stats[channel] = mean;
    p.stats[p.channels + channel] = m2;
  }
}

__global__ void __launch_bounds__(kMergedChannels * kMergedSegments) conv_sums_kernel(ConvSumsParams p) {
  int channel = blockIdx.x * kMergedChannels + threadIdx.x % kMergedChannels, segment = threadIdx.x / kMergedChannels;
  bool there = channel < p.channels;
  double sum = 0, sum_x = 0;
  for (int tile = segment; there && tile < p.tiles; tile += kMergedSegments) {
    const float* partial = p.partials + static_cast<int64_t>(tile) * 2 * p.channels + channel;
    sum += partial[0];
    sum_x += partial[p.channels];
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
  launch(kernel, name, blocks, kMergedChannels * kMergedSegments, 0, stream, params);
}

constexpr int kSplitThreads = 256;

template <typename T>
__global__ void __launch_bounds__(kSplitThreads) conv_splits_kernel(ConvSplitsParams p) {
  int64_t element = static_cast<int64_t>(blockIdx.x) * kSplitThreads + threadIdx.x;
  if (element < p.elements) {
    float sum = 0;
    for (int split = 0; split < p.splits; ++split) {
      sum += p.partials[split * p.elements + element];
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
  launch(kernel, "conv_splits", ceil_div(params.elements, kSplitThreads), kSplitThreads, 0, stream, params);
}

}  // namespace resnet_fused::cuda
