#include <algorithm>

#include "heuristics.h"

namespace resnet_fused::cuda {
namespace {

constexpr int64_t kMaxPixels = 1 << 30;     // and coordinates, with room for what is added to them
constexpr int kMaxTaps = 32;                  // in a direction: conv_gather.cuh has a bit for each
constexpr int64_t kMaxElements = 1u << 31;  // of an image or the weights, within which offsets are of 32 bits

// Furthest that a tap of a tile's pixels may be from the first element of the tile's first image, of which every
// `pixels` belong to one, inside of an image or not.
int64_t reach(int64_t height, int64_t width, int64_t channels, int taps, int dilation, int padding, int64_t pixels) {
  constexpr int kLargestTile = 128;
  int64_t images = kLargestTile / pixels + 1;
  return (images * height + 2 * padding + int64_t{taps} * dilation) * width * channels;
}

}  // namespace

const char* conv_unsupported(const ConvProblem& problem) {
  const ConvShape& s = problem.shape;
  if (problem.dtype == DType::kFloat64) {
    return "float64 has no CUDA kernels";
  }
  if (std::min({s.C, s.H, s.W, s.K, s.R, s.S, s.P, s.Q}) < 1) {
    return "a size is zero";
  }
  if (s.C % s.groups != 0 || s.K % s.groups != 0) {
    return "channels do not divide by groups";
  }
  if (std::max(s.R, s.S) > kMaxTaps) {
    return "more than 32 rows or columns of a filter";
  }
  int64_t rows = std::max<int64_t>(s.P, s.H + s.stride[0]), columns = std::max<int64_t>(s.Q, s.W + s.stride[1]);
  if (s.N * rows * columns > kMaxPixels || std::max(rows, columns) + 2 * (s.padding[0] + s.padding[1]) > kMaxPixels) {
    return "more than 2^30 pixels";
  }
  int64_t class_pixels = ceil_div(s.H, s.stride[0]) * ceil_div(s.W, s.stride[1]);
  if (reach(s.H, s.W, s.C, s.R, s.dilation[0], s.padding[0], int64_t{s.P} * s.Q) >= kMaxElements ||
      reach(s.P, s.Q, s.K, s.R, s.dilation[0], s.padding[0], class_pixels) >= kMaxElements) {
    return "images of 2^31 elements to a tile";
  }
  if (int64_t{s.K} * s.R * s.S * (s.C / s.groups) >= kMaxElements) {
    return "weights of 2^31 elements";
  }
  int64_t tiles = (s.N * rows * columns / 64 + s.stride[0] * s.stride[1]) * (std::max(s.C, s.K) / 64 + s.groups);
  if (tiles >= kMaxElements) {
    return "more than 2^31 tiles";
  }
  return nullptr;
}

}  // namespace resnet_fused::cuda
