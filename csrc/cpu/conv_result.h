// What the convolutions' drivers share about results: partial sums of their parts, and how they are merged.
#pragma once

#include <vector>

#include "conv.h"
#include "conv_plan.h"

namespace resnet_fused::cpu {

int64_t element_size(DType dtype);

// Memory for packed weights: kept from call to call where the caller keeps any. A tag for each algorithm; the order of
// packed weights depends on the instruction set too.
enum class Packed : int64_t { kDirect, kWinograd, kDepthwise };
KeptMemory packed_memory(const ConvWeights& weights, Packed algorithm, int64_t bytes, const Allocate& allocate);

// Partial statistics or sums [parts][rows][channels], merged in the order of the parts whatever order they ran in.
class Partials {
 public:
  // `wanted`: whether the result's epilogue has any.
  Partials(bool wanted, const Result& result) : wanted_(wanted), rows_(result.rows()), channels_(result.pitch) {}
  // The strips of a grid of `rows` x `columns` pixels become parts.
  void add(int64_t images, int64_t rows, int64_t columns, const Strips& strips);
  // One part of so many pixels.
  void add(int64_t pixels) {
    counts_.push_back(pixels);
  }
  double* allocate(const Allocate& allocate);
  int64_t stride() const {
    return channels_;
  }
  // Statistics of all parts: acc [2, channels] = mean, M2 (Chan, Golub, LeVeque 1979).
  void merge_statistics(DType dtype, void* stats) const;
  // Sums of all parts: acc [rows, channels], the second times the affine's invstd [channels], the third affine2's.
  void merge_sums(DType dtype, const void* affine, const void* affine2, void* sums) const;

 private:
  bool wanted_;
  int64_t rows_, channels_;
  std::vector<int64_t> counts_;
  double* data_ = nullptr;
};

// The algorithms, each by plans of its own.
void conv_fprop_direct(DType dtype, const ConvShape& shape, const ConvPlan& plan, const ConvWeights& weights,
                       Operand operand, Result result, Partials& partials, const Allocate& allocate);
void conv_dgrad_direct(DType dtype, const ConvShape& shape, const ConvPlan& plan, const ConvWeights& weights,
                       Operand draw, Result result, Partials& partials, const Allocate& allocate);
void conv_wgrad_direct(DType dtype, const ConvShape& shape, const ConvPlan& plan, Operand operand, Operand draw,
                       void* weights, const WeightStrides& strides, const Allocate& allocate);

void conv_fprop_depthwise(DType dtype, const ConvShape& shape, const ConvPlan& plan, const ConvWeights& weights,
                          Operand operand, Result result, Partials& partials, const Allocate& allocate);
void conv_dgrad_depthwise(DType dtype, const ConvShape& shape, const ConvPlan& plan, const ConvWeights& weights,
                          Operand draw, Result result, Partials& partials, const Allocate& allocate);
void conv_wgrad_depthwise(DType dtype, const ConvShape& shape, const ConvPlan& plan, Operand operand, Operand draw,
                          void* weights, const WeightStrides& strides, const Allocate& allocate);

void conv_fprop_winograd(DType dtype, const ConvShape& shape, const ConvPlan& plan, const ConvWeights& weights,
                         Operand operand, Result result, Partials& partials, const Allocate& allocate);
void conv_dgrad_winograd(DType dtype, const ConvShape& shape, const ConvPlan& plan, const ConvWeights& weights,
                         Operand draw, Result result, Partials& partials, const Allocate& allocate);
void conv_wgrad_winograd(DType dtype, const ConvShape& shape, const ConvPlan& plan, Operand operand, Operand draw,
                         void* weights, const WeightStrides& strides, const Allocate& allocate);

}  // namespace resnet_fused::cpu
