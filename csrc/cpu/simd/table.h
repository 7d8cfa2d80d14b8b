// All kernels of one instruction set. The includer has included kernels.h (and the intrinsics), set the
// target, and defined RESNET_FUSED_ISA and RESNET_FUSED_VECTOR_BYTES.

namespace resnet_fused::cpu::RESNET_FUSED_ISA {
namespace {  // internal linkage: no function of this file can stand in for another's

#include "vec.h"

#include "sweep.h"

#include "bn_statistics.h"

#include "bn_apply.h"

#include "bn_backward.h"

#include "stem_pool.h"

#include "stem_pool_backward.h"

#include "micro_kernel.h"

#include "ahead.h"

#include "pack_operand.h"

#include "finish.h"

#include "pack_weights.h"

#include "conv_direct.h"

#include "conv_wgrad.h"

#include "conv_depthwise.h"

#include "winograd_transforms.h"

#include "winograd.h"

#include "winograd_wgrad.h"

#include "peak.h"

}  // namespace

const Kernels kernels = {
    {statistics<float>, statistics<double>, statistics<bfloat16>, statistics<float16>},
    {apply<float>, apply<double>, apply<bfloat16>, apply<float16>},
    {backward_reduce<float>, backward_reduce<double>, backward_reduce<bfloat16>, backward_reduce<float16>},
    {backward_apply<float>, backward_apply<double>, backward_apply<bfloat16>, backward_apply<float16>},
    {mask_add<float>, mask_add<double>, mask_add<bfloat16>, mask_add<float16>},
    {stem_pool<float>, stem_pool<double>, stem_pool<bfloat16>, stem_pool<float16>},
    {stem_pool_backward<float>, stem_pool_backward<double>, stem_pool_backward<bfloat16>, stem_pool_backward<float16>},
    multiply_add,
    2 * kChains * kLanes<float>,
    kMicroRows,
    {kMicroColumns<float>, kMicroColumns<double>, kMicroColumns<float>, kMicroColumns<float>},
    {pack_weights<float>, pack_weights<double>, pack_weights<bfloat16>, pack_weights<float16>},
    {unpack_weights<float>, unpack_weights<double>, unpack_weights<bfloat16>, unpack_weights<float16>},
    {conv_direct<float>, conv_direct<double>, conv_direct<bfloat16>, conv_direct<float16>},
    {conv_wgrad<float>, conv_wgrad<double>, conv_wgrad<bfloat16>, conv_wgrad<float16>},
    {conv_depthwise<float>, conv_depthwise<double>, conv_depthwise<bfloat16>, conv_depthwise<float16>},
    {depthwise_wgrad<float>, depthwise_wgrad<double>, depthwise_wgrad<bfloat16>, depthwise_wgrad<float16>},
    {winograd_weights<float>, winograd_weights<double>, winograd_weights<bfloat16>, winograd_weights<float16>},
    {winograd_block<float>, winograd_block<double>, winograd_block<bfloat16>, winograd_block<float16>},
    {winograd_input<float>, winograd_input<double>, winograd_input<bfloat16>, winograd_input<float16>},
    {winograd_output<float>, winograd_output<double>, winograd_output<bfloat16>, winograd_output<float16>},
    {winograd_wgrad_blocks<float>, winograd_wgrad_blocks<double>, winograd_wgrad_blocks<bfloat16>,
     winograd_wgrad_blocks<float16>},
    {winograd_wgrad_input<float>, winograd_wgrad_input<double>, winograd_wgrad_input<bfloat16>,
     winograd_wgrad_input<float16>},
    {winograd_wgrad_output<float>, winograd_wgrad_output<double>, winograd_wgrad_output<bfloat16>,
     winograd_wgrad_output<float16>},
};

}  // namespace resnet_fused::cpu::RESNET_FUSED_ISA
