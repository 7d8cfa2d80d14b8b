// The sizes of a convolution, by the field's names: input [N, C, H, W], weights [K, C / groups, R, S], output [N, K, P, Q].
#pragma once

#include <stdint.h>

namespace resnet_fused::cpu {

struct ConvShape {
  int64_t N, C, H, W, K, R, S, P, Q;
  int64_t stride[2], padding[2], dilation[2];
  int64_t groups;
};

}  // namespace resnet_fused::cpu
