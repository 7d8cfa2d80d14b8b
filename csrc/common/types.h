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

// A mask of a tensor has a bit for each element, in the order of memory: element i's is bit i % 8 of byte i / 8. It is
// of whole bytes for every image and plane, or for every pixel; else there is none.
constexpr int kMaskBits = 8;
constexpr bool has_mask(const Shape& s) {
  return (s.channels_last ? s.channels : s.pixels) % kMaskBits == 0;
}

}  // namespace resnet_fused
