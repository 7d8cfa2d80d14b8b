// The operators' schemas. Equations and shapes are in operators.h; what each device does with them is registered beside
// its implementation.
#include "schemas.h"

namespace resnet_fused {

void define(torch::Library& m) {
  const std::vector<at::Tag> tags = {at::Tag::pt2_compliant_tag};
  m.def("bn_statistics(Tensor x) -> Tensor stats", tags);
  m.def("bn_finalize(Tensor stats, SymInt count, Tensor? weight, Tensor? bias, float eps) -> Tensor affine", tags);
  m.def(
      "bn_apply(Tensor x, Tensor affine, bool relu, Tensor? residual=None, Tensor? residual_affine=None) -> Tensor",
      tags);
  m.def(
      "bn_apply_mask(Tensor x, Tensor affine, Tensor residual, Tensor? residual_affine=None) "
      "-> (Tensor y, Tensor mask)",
      tags);
  m.def(
      "bn_backward_reduce(Tensor grad, Tensor? out, Tensor? x, Tensor? affine, bool relu, Tensor? x2=None, "
      "Tensor? affine2=None) -> Tensor sums",
      tags);
  m.def(
      "bn_backward_mask_reduce(Tensor grad, Tensor? out, Tensor x, Tensor affine, Tensor? x2=None, "
      "Tensor? affine2=None, Tensor? mask=None) -> (Tensor g, Tensor sums)",
      tags);
  m.def(
      "bn_backward_apply(Tensor grad, Tensor? out, Tensor x, Tensor affine, bool relu, Tensor means) -> Tensor draw",
      tags);
  m.def(
      "bn_backward_finalize(Tensor sums, SymInt count, Tensor? weight, Tensor? bias) "
      "-> (Tensor means, Tensor dweight, Tensor dbias)",
      tags);
  m.def(
      "bn_update_running(Tensor[] stats, SymInt[] counts, float[] momenta, Tensor(a!)[] running_mean, "
      "Tensor(b!)[] running_var, Tensor(c!)[] counters) -> ()",
      tags);
  m.def(
      "conv_fprop(Tensor x, Tensor weight, SymInt[2] stride, SymInt[2] padding, SymInt[2] dilation, SymInt groups, "
      "Tensor? prologue, bool prologue_relu, bool statistics, "
      "Tensor? epilogue, Tensor? residual, Tensor? residual_affine, bool relu) -> (Tensor y, Tensor stats)",
      tags);
  m.def(
      "conv_backward(Tensor grad, Tensor? out, Tensor? raw, Tensor? affine, Tensor? means, bool relu, "
      "Tensor x, Tensor weight, SymInt[2] stride, SymInt[2] padding, SymInt[2] dilation, SymInt groups, "
      "Tensor? prologue, bool prologue_relu, bool reduce, Tensor? add, Tensor? add_out, bool[2] output_mask, "
      "Tensor? sum_raw=None, Tensor? sum_affine=None, Tensor? sum_raw2=None, Tensor? sum_affine2=None) "
      "-> (Tensor dx, Tensor dw, Tensor sums)",
      tags);
  m.def(
      "conv_dgrad(Tensor grad, Tensor? out, Tensor? raw, Tensor? affine, Tensor? means, bool relu, "
      "Tensor x, Tensor weight, SymInt[2] stride, SymInt[2] padding, SymInt[2] dilation, SymInt groups, "
      "Tensor? prologue, bool prologue_relu, bool reduce, Tensor? add, Tensor? add_out) -> (Tensor dx, Tensor sums)",
      tags);
  m.def(
      "conv_wgrad(Tensor grad, Tensor? out, Tensor? raw, Tensor? affine, Tensor? means, bool relu, "
      "Tensor x, Tensor weight, SymInt[2] stride, SymInt[2] padding, SymInt[2] dilation, SymInt groups, "
      "Tensor? prologue, bool prologue_relu) -> Tensor dw",
      tags);
  m.def(
      "frozen_chains(Tensor x, Tensor[] weights, Tensor?[] norms, float[] eps, SymInt[] geometry, int[] chains) "
      "-> Tensor",
      tags);
  m.def("stem_pool(Tensor x, Tensor affine) -> (Tensor y, Tensor index)", tags);
  m.def("stem_pool_backward_reduce(Tensor grad, Tensor index, Tensor? x, Tensor? affine) -> Tensor sums", tags);
  m.def(
      "stem_pool_backward_apply(Tensor grad, Tensor index, SymInt[] input_size, Tensor? x, Tensor? affine, "
      "Tensor? means) -> Tensor draw",
      tags);
}

}  // namespace resnet_fused
