"""The operators' signatures for backends that are written in Python: those of csrc/torch/schemas.cpp."""

SCHEMAS = (
    "bn_statistics(Tensor x) -> Tensor stats",
    "bn_finalize(Tensor stats, SymInt count, Tensor? weight, Tensor? bias, float eps) -> Tensor affine",
    "bn_apply(Tensor x, Tensor affine, bool relu, Tensor? residual=None, Tensor? residual_affine=None) -> Tensor",
    "bn_apply_mask(Tensor x, Tensor affine, Tensor residual, Tensor? residual_affine=None) -> (Tensor y, Tensor mask)",
    "bn_backward_reduce(Tensor grad, Tensor? out, Tensor? x, Tensor? affine, bool relu, Tensor? x2=None, "
    "Tensor? affine2=None) -> Tensor sums",
    "bn_backward_mask_reduce(Tensor grad, Tensor? out, Tensor x, Tensor affine, Tensor? x2=None, "
    "Tensor? affine2=None, Tensor? mask=None) -> (Tensor g, Tensor sums)",
    "bn_backward_apply(Tensor grad, Tensor? out, Tensor x, Tensor affine, bool relu, Tensor means) -> Tensor draw",
    "bn_backward_finalize(Tensor sums, SymInt count, Tensor? weight, Tensor? bias) "
    "-> (Tensor means, Tensor dweight, Tensor dbias)",
    "bn_update_running(Tensor[] stats, SymInt[] counts, float[] momenta, Tensor(a!)[] running_mean, "
    "Tensor(b!)[] running_var, Tensor(c!)[] counters) -> ()",
    "conv_fprop(Tensor x, Tensor weight, SymInt[2] stride, SymInt[2] padding, SymInt[2] dilation, SymInt groups, "
    "Tensor? prologue, bool prologue_relu, bool statistics, "
    "Tensor? epilogue, Tensor? residual, Tensor? residual_affine, bool relu) -> (Tensor y, Tensor stats)",
    "conv_backward(Tensor grad, Tensor? out, Tensor? raw, Tensor? affine, Tensor? means, bool relu, "
    "Tensor x, Tensor weight, SymInt[2] stride, SymInt[2] padding, SymInt[2] dilation, SymInt groups, "
    "Tensor? prologue, bool prologue_relu, bool reduce, Tensor? add, Tensor? add_out, bool[2] output_mask, "
    "Tensor? sum_raw=None, Tensor? sum_affine=None, Tensor? sum_raw2=None, Tensor? sum_affine2=None) "
    "-> (Tensor dx, Tensor dw, Tensor sums)",
    "conv_dgrad(Tensor grad, Tensor? out, Tensor? raw, Tensor? affine, Tensor? means, bool relu, "
    "Tensor x, Tensor weight, SymInt[2] stride, SymInt[2] padding, SymInt[2] dilation, SymInt groups, "
    "Tensor? prologue, bool prologue_relu, bool reduce, Tensor? add, Tensor? add_out) -> (Tensor dx, Tensor sums)",
    "conv_wgrad(Tensor grad, Tensor? out, Tensor? raw, Tensor? affine, Tensor? means, bool relu, "
    "Tensor x, Tensor weight, SymInt[2] stride, SymInt[2] padding, SymInt[2] dilation, SymInt groups, "
    "Tensor? prologue, bool prologue_relu) -> Tensor dw",
    "frozen_chains(Tensor x, Tensor[] weights, Tensor?[] norms, float[] eps, SymInt[] geometry, int[] chains) -> Tensor",
    "stem_pool(Tensor x, Tensor affine) -> (Tensor y, Tensor index)",
    "stem_pool_backward_reduce(Tensor grad, Tensor index, Tensor? x, Tensor? affine) -> Tensor sums",
    "stem_pool_backward_apply(Tensor grad, Tensor index, SymInt[] input_size, Tensor? x, Tensor? affine, "
    "Tensor? means) -> Tensor draw",
)
