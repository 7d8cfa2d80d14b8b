#include "build_facts.h"

namespace resnet_fused::cuda {

BuildFacts build_facts() {
  return {__CUDACC_VER_MAJOR__, __CUDACC_VER_MINOR__, {__CUDA_ARCH_LIST__}};
}

}  // namespace resnet_fused::cuda
