#include "schemas.h"

TORCH_LIBRARY(resnet_fused, m) {
  resnet_fused::define(m);
}
