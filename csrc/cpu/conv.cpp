#include "conv.h"

#include <algorithm>
#include <atomic>

#include "conv_plan.h"
#include "conv_result.h"
#include "isa.h"
#include "launch.h"

namespace resnet_fused::cpu {
namespace {

std::atomic<bool> winograd{true};
std::atomic<Engine> engine{Engine::kAuto};

ConvPlan plan_here(Pass pass, const ConvShape& shape, DType dtype) {
  Algorithm algorithm = choose_algorithm(shape, dtype, this_machine(), Engine::kAlways, winograd);
  return plan_conv(pass, shape, dtype, algorithm, present_resources());
}

}  // namespace

void set_winograd(bool enabled) {
  winograd = enabled;
}

bool winograd_enabled() {
  return winograd;
}

void set_engine(Engine use) {
  engine = use;
}

Algorithm conv_algorithm(DType dtype, const ConvShape& shape) {
  return choose_algorithm(shape, dtype, this_machine(), engine, winograd);
}

int64_t element_size(DType dtype) {
  return dtype == DType::kFloat64 ? 8 : dtype == DType::kFloat32 ? 4 : 2;
}

KeptMemory packed_memory(const ConvWeights& weights, Packed algorithm, int64_t bytes, const Allocate& allocate) {
  if (weights.keep) {
    KeptMemory kept = weights.keep(static_cast<int64_t>(algorithm) * kIsas + static_cast<int64_t>(active_isa()), bytes);
    if (kept.data) {
      return kept;
    }
  }
  return {allocate(bytes), false};
}

void Partials::add(int64_t images, int64_t rows, int64_t columns, const Strips& s) {
  for (int64_t i = 0; i < s.image_strips; ++i) {
    int64_t n = std::min(s.images, images - i * s.images);
    for (int64_t j = 0; j < s.row_strips; ++j) {
      counts_.push_back(n * std::min(s.rows, rows - j * s.rows) * columns);
    }
  }
}

double* Partials::allocate(const Allocate& allocate) {
  if (wanted_) {
    data_ = static_cast<double*>(allocate(counts_.size() * rows_ * channels_ * sizeof(double)));
  }
  return data_;
}

void Partials::merge_statistics(DType dtype, void* stats) const {
  std::vector<double> mean(channels_), m2(channels_);
  double known = 0;
  for (size_t part = 0; part < counts_.size(); ++part) {
    const double *part_mean = data_ + 2 * part * channels_, *part_m2 = part_mean + channels_;
    double n = counts_[part], keep = known / (known + n), add = n / (known + n), cross = known * add;
    for (int64_t c = 0; c < channels_; ++c) {
      double delta = part_mean[c] - mean[c];
      m2[c] += part_m2[c] + (cross > 0 ? delta * delta * cross : 0);
      mean[c] = known > 0 ? keep * mean[c] + add * part_mean[c] : part_mean[c];
    }
    known += n;
  }
  for (int64_t c = 0; c < channels_; ++c) {
    put_acc(dtype, stats, c, mean[c]);
    put_acc(dtype, stats, channels_ + c, m2[c]);
  }
}

void Partials::merge_sums(DType dtype, const void* affine, const void* affine2, void* sums) const {
  std::vector<double> total(rows_ * channels_);
  for (size_t part = 0; part < counts_.size(); ++part) {
    const double* of_part = data_ + part * rows_ * channels_;
    for (int64_t i = 0; i < rows_ * channels_; ++i) {
      total[i] += of_part[i];
    }
  }
  const void* affines[] = {nullptr, affine, affine2};
  for (int64_t row = 0; row < rows_; ++row) {
    for (int64_t c = 0; c < channels_; ++c) {
      double factor = row ? get_acc(dtype, affines[row], 3 * channels_ + c) : 1;
      put_acc(dtype, sums, row * channels_ + c, total[row * channels_ + c] * factor);
    }
  }
}

void conv_fprop(DType dtype, const ConvShape& shape, const ConvWeights& weights, Operand operand, Result result,
                void* stats, const Allocate& allocate) {
  Partials partials(stats, result);
  ConvPlan plan = plan_here(Pass::kFprop, shape, dtype);
  auto run = plan.algorithm == Algorithm::kWinograd    ? conv_fprop_winograd
             : plan.algorithm == Algorithm::kDepthwise ? conv_fprop_depthwise
                                                       : conv_fprop_direct;
  run(dtype, shape, plan, weights, operand, result, partials, allocate);
  if (stats) {
    partials.merge_statistics(dtype, stats);
  }
}

void conv_dgrad(DType dtype, const ConvShape& shape, const ConvWeights& weights, Operand draw, Result result,
                void* sums, const Allocate& allocate) {
  Partials partials(sums, result);
  ConvPlan plan = plan_here(Pass::kDgrad, shape, dtype);
  auto run = plan.algorithm == Algorithm::kWinograd    ? conv_dgrad_winograd
             : plan.algorithm == Algorithm::kDepthwise ? conv_dgrad_depthwise
                                                       : conv_dgrad_direct;
  run(dtype, shape, plan, weights, draw, result, partials, allocate);
  if (sums) {
    partials.merge_sums(dtype, result.affine, result.affine2, sums);
  }
}

void conv_wgrad(DType dtype, const ConvShape& shape, Operand operand, Operand draw, void* weights,
                const WeightStrides& strides, const Allocate& allocate) {
  ConvPlan plan = plan_here(Pass::kWgrad, shape, dtype);
  auto run = plan.algorithm == Algorithm::kWinograd    ? conv_wgrad_winograd
             : plan.algorithm == Algorithm::kDepthwise ? conv_wgrad_depthwise
                                                       : conv_wgrad_direct;
  run(dtype, shape, plan, operand, draw, weights, strides, allocate);
}

}  // namespace resnet_fused::cpu
