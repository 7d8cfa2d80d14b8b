// What nvcc knows about this build.
#pragma once

#include <vector>

namespace resnet_fused::cuda {

struct BuildFacts {
  int nvcc_major, nvcc_minor;
  std::vector<int> architectures;  // 800 is sm_80
};

BuildFacts build_facts();

}  // namespace resnet_fused::cuda
