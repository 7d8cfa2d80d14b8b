#include "cpu_impl.h"

#include <torch/library.h>

TORCH_LIBRARY_IMPL(resnet_fused, CPU, m) {
  using namespace resnet_fused;
  m.impl("bn_statistics", TORCH_FN(bn_statistics));
  m.impl("bn_finalize", TORCH_FN(bn_finalize));
  m.impl("bn_apply", TORCH_FN(bn_apply));
  m.impl("bn_backward_reduce", TORCH_FN(bn_backward_reduce));
  m.impl("bn_backward_apply", TORCH_FN(bn_backward_apply));
  m.impl("conv_fprop", TORCH_FN(conv_fprop));
  m.impl("conv_backward", TORCH_FN(conv_backward));
  m.impl("conv_dgrad", TORCH_FN(conv_dgrad));
  m.impl("conv_wgrad", TORCH_FN(conv_wgrad));
  m.impl("frozen_chain", TORCH_FN(frozen_chain));
  m.impl("stem_pool", TORCH_FN(stem_pool));
  m.impl("stem_pool_backward_reduce", TORCH_FN(stem_pool_backward_reduce));
  m.impl("stem_pool_backward_apply", TORCH_FN(stem_pool_backward_apply));
}
