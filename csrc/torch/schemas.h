// The operators' schemas.
#pragma once

#include <torch/library.h>

namespace resnet_fused {

void define(torch::Library& m);

}  // namespace resnet_fused
