// What every device's kernels and the torch layer agree on.
#pragma once

#include <stdint.h>

namespace resnet_fused {

enum class DType : int { kFloat32 = 0, kFloat64 = 1, kBFloat16 = 2, kFloat16 = 3 };
constexpr int kDTypes = 4;

constexpr int element_bytes(DType dtype) {
  return dtype == DType::kFloat64 ? 8 : dtype == DType::kFloat32 ? 4 : 2;
}

constexpr int64_t ceil_div(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

// A dense activation tensor [images, channels, pixels]; channels_last says that
// the channels are innermost in memory (NHWC), otherwise the pixels are (NCHW).
struct Shape {
  int64_t images;
  int64_t channels;
  int64_t pixels;
  bool channels_last;
};

}  // namespace resnet_fused
