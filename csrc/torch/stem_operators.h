// The stem operators: checks, then a device's kernels on dense tensors.
#pragma once

#include "../common/params.h"
#include "checks.h"
#include "operators.h"

namespace resnet_fused {

inline int64_t pooled(int64_t size) {  // 3 wide, stride 2, padding 1
  return size == 0 ? 0 : (size - 1) / 2 + 1;
}

inline StemShape stem_shape(at::IntArrayRef size, at::MemoryFormat format) {
  TORCH_CHECK_VALUE(size.size() == 4, "expected 4D input (got ", size.size(), "D input)");
  return {size[0], size[1], size[2], size[3], pooled(size[2]), pooled(size[3]),
          format == at::MemoryFormat::ChannelsLast};
}

struct StemBackward {
  at::MemoryFormat format;
  StemShape shape;
  at::Tensor grad, index;
  OptionalTensor x, affine;
  DType dtype;

  StemBackward(const at::Tensor& g, const at::Tensor& i, at::IntArrayRef input_size, const OptionalTensor& input,
           const OptionalTensor& input_affine)
      : format(i.suggest_memory_format()),
        shape(stem_shape(input_size, format)),
        grad(g.contiguous(format)),
        index(i.contiguous(format)),
        x(dense(input, format)),
        affine(dense(input_affine)),
        dtype(dtype_of(g.scalar_type(), "stem_pool_backward")) {
    TORCH_CHECK(index.scalar_type() == at::kByte, "expected index to have dtype Byte, but got ", index.scalar_type());
    check_device(index, grad, "index");
    int64_t expected[] = {shape.images, shape.channels, shape.out_height, shape.out_width};
    TORCH_CHECK(grad.sizes() == at::IntArrayRef(expected) && index.sizes() == grad.sizes(),
                "grad and index should have size ", at::IntArrayRef(expected), ", but got ", grad.sizes(), " and ",
                index.sizes());
    if (x) {
      TORCH_CHECK(x->sizes() == input_size, "x should have size ", input_size, ", but got ", x->sizes());
      TORCH_CHECK(x->scalar_type() == grad.scalar_type(), "expected x to have dtype ", grad.scalar_type(),
                  ", but got ", x->scalar_type());
      check_device(*x, grad, "x");
      TORCH_CHECK(affine, "expected affine to be given with x");
      check_rows(*affine, 4, *x, "affine");
    }
  }

  StemPoolBackwardParams params() const {
    return {shape, grad.const_data_ptr(), index.const_data_ptr<uint8_t>(), pointer(x), pointer(affine),
            nullptr, nullptr, nullptr};
  }
};

template <typename Device>
std::tuple<at::Tensor, at::Tensor> stem_pool(Device& device, const at::Tensor& x, const at::Tensor& affine) {
  check_activation(x);
  auto dtype = dtype_of(x.scalar_type(), "stem_pool");
  check_rows(affine, 4, x, "affine");
  auto format = x.suggest_memory_format();
  StemShape shape = stem_shape(x.sizes(), format);
  at::Tensor xd = x.contiguous(format), a = affine.contiguous();
  at::Tensor y = at::empty({shape.images, shape.channels, shape.out_height, shape.out_width},
                           x.options().memory_format(format));
  at::Tensor index = at::empty(y.sizes(), y.options().dtype(at::kByte).memory_format(format));
  device.stem_pool(dtype, {shape, xd.const_data_ptr(), a.const_data_ptr(), y.mutable_data_ptr(),
                           index.mutable_data_ptr<uint8_t>()});
  return {y, index};
}

template <typename Device>
at::Tensor stem_pool_backward_reduce(Device& device, const at::Tensor& grad, const at::Tensor& index,
                                     const OptionalTensor& x, const OptionalTensor& affine) {
  check_activation(grad);
  // Without x its size does not matter, but for which windows there are: the largest has them all.
  int64_t size[] = {grad.size(0), grad.size(1), 2 * grad.size(2), 2 * grad.size(3)};
  StemBackward b(grad, index, given(x) ? x->sizes() : at::IntArrayRef(size), x, affine);
  at::Tensor sums = empty_acc({b.x ? 2 : 1, grad.size(1)}, grad);
  if (grad.numel() == 0) {  // the pointers of empty tensors are null, as of those not given
    return sums.zero_();
  }
  StemPoolBackwardParams params = b.params();
  params.sums = sums.mutable_data_ptr();
  device.stem_pool_backward_reduce(b.dtype, params);
  return sums;
}

template <typename Device>
at::Tensor stem_pool_backward_apply(Device& device, const at::Tensor& grad, const at::Tensor& index,
                                    at::IntArrayRef input_size, const OptionalTensor& x, const OptionalTensor& affine,
                                    const OptionalTensor& means) {
  check_activation(grad);
  StemBackward b(grad, index, input_size, x, affine);
  OptionalTensor m = dense(means);
  if (b.x) {
    TORCH_CHECK(m, "expected means to be given with x");
    check_rows(*m, 2, *b.x, "means");
  }
  at::Tensor draw = at::empty(input_size, grad.options().memory_format(b.format));
  StemPoolBackwardParams params = b.params();
  params.means = pointer(m);
  params.draw = draw.mutable_data_ptr();
  device.stem_pool_backward_apply(b.dtype, params);
  return draw;
}

}  // namespace resnet_fused
