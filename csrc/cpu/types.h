// Plain types shared by the kernels, their drivers and the torch layer.
#pragma once

#include <stdint.h>

namespace resnet_fused::cpu {

struct bfloat16 {
  uint16_t bits;
};
struct float16 {
  uint16_t bits;
};

enum class DType : int { kFloat32 = 0, kFloat64 = 1, kBFloat16 = 2, kFloat16 = 3 };
constexpr int kDTypes = 4;

// A dense activation tensor [images, channels, pixels]; channels_last says that
// the channels are innermost in memory (NHWC), otherwise the pixels are (NCHW).
struct Shape {
  int64_t images;
  int64_t channels;
  int64_t pixels;
  bool channels_last;
};

}  // namespace resnet_fused::cpu
