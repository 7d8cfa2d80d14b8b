#include "schemas.h"

TORCH_LIBRARY(resnet_fused, m) {
  resnet_fused::define(m);
}

// The same operators with the library's convolutions.
TORCH_LIBRARY(resnet_fused_library, m) {
  resnet_fused::define(m);
}
