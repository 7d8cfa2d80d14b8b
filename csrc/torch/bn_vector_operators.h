// The batch norm operators on vectors of channels: checks, then a device's kernels.
#pragma once

#include <algorithm>

#include "../common/params.h"
#include "checks.h"
#include "operators.h"

namespace resnet_fused {

template <typename Device>
std::tuple<at::Tensor, at::Tensor, at::Tensor> bn_backward_finalize(Device& device, const at::Tensor& sums,
                                                                    int64_t count, const OptionalTensor& weight,
                                                                    const OptionalTensor& bias) {
  TORCH_CHECK(sums.dim() == 2 && sums.size(0) == 2, "sums should have size [2, C], but got ", sums.sizes());
  TORCH_CHECK(sums.scalar_type() == at::kFloat || sums.scalar_type() == at::kDouble,
              "expected sums to have dtype Float or Double, but got ", sums.scalar_type());
  at::Tensor s = sums.contiguous(), means = empty_acc(sums.sizes(), sums);
  BackwardFinalizeParams params{sums.size(1), s.const_data_ptr(), count, means.mutable_data_ptr()};
  auto gradient = [&](const OptionalTensor& parameter, const char* name, void*& data, DType& dtype) {
    if (!given(parameter)) {
      return at::empty({0}, sums.options());
    }
    check_channels(*parameter, sums, name);
    at::Tensor result = at::empty(parameter->sizes(), parameter->options());
    data = result.mutable_data_ptr();
    dtype = dtype_of(parameter->scalar_type(), "bn_backward_finalize");
    return result;
  };
  at::Tensor dweight = gradient(weight, "weight", params.dweight, params.weight_dtype);
  at::Tensor dbias = gradient(bias, "bias", params.dbias, params.bias_dtype);
  device.bn_backward_finalize(dtype_of(sums.scalar_type(), "bn_backward_finalize"), params);
  return {means, dweight, dbias};
}

// The updates of a call, in as few launches as the kernel's arguments and batch norms that occur twice allow.
template <typename Device>
class RunningUpdates {
 public:
  RunningUpdates(Device& device, DType acc) : device_(device), acc_(acc) {}

  void add(const RunningStatistics& norm) {
    auto same = [&](const RunningStatistics& other) { return other.mean == norm.mean || other.var == norm.var; };
    if (params_.norms == kUpdatesAtOnce || std::any_of(params_.norm, params_.norm + params_.norms, same)) {
      launch();
    }
    params_.norm[params_.norms++] = norm;
  }
  void add(int64_t* counter) {
    int64_t** end = params_.counter + params_.counters;
    if (params_.counters == kUpdatesAtOnce || std::find(params_.counter, end, counter) != end) {
      launch();
    }
    params_.counter[params_.counters++] = counter;
  }
  void launch() {
    device_.bn_update_running(acc_, params_);
    params_ = {};
  }

 private:
  Device& device_;
  DType acc_;
  UpdateRunningParams params_{};
};

template <typename Device>
void bn_update_running(Device& device, at::TensorList stats, at::IntArrayRef counts, at::ArrayRef<double> momenta,
                       at::TensorList means, at::TensorList vars, at::TensorList counters) {
  size_t n = stats.size();
  TORCH_CHECK(counts.size() == n && momenta.size() == n && means.size() == n && vars.size() == n,
              "expected a count, a momentum and running statistics to be given for each of stats");
  for (size_t i = 0; i < n; ++i) {
    TORCH_CHECK(stats[i].dim() == 2 && stats[i].size(0) == 2, "stats should have size [2, C], but got ",
                stats[i].sizes());
    TORCH_CHECK(stats[i].scalar_type() == stats[0].scalar_type() &&
                    stats[i].scalar_type() == acc_type(stats[i].scalar_type()),
                "expected all stats to have dtype Float or Double, but got ", stats[i].scalar_type());
    check_device(stats[i], stats[0], "stats");
    check_channels(means[i], stats[i], "running_mean");
    check_channels(vars[i], stats[i], "running_var");
  }
  for (const at::Tensor& counter : counters) {
    TORCH_CHECK(counter.scalar_type() == at::kLong && counter.numel() == 1, "expected a counter to be one Long");
    check_device(counter, stats[0], "a counter");
  }
  for (at::TensorList written : {counters, means, vars}) {  // below autograd, nobody else does this
    for (const at::Tensor& t : written) {
      t.unsafeGetTensorImpl()->bump_version();
    }
  }
  RunningUpdates<Device> updates(device, dtype_of(stats[0].scalar_type(), "bn_update_running"));
  for (const at::Tensor& counter : counters) {
    updates.add(counter.mutable_data_ptr<int64_t>());
  }
  for (size_t i = 0; i < n; ++i) {
    at::Tensor s = stats[i].contiguous(), mean = means[i].contiguous(), var = vars[i].contiguous();
    updates.add({s.size(1), s.const_data_ptr(), counts[i], momenta[i], mean.mutable_data_ptr(), var.mutable_data_ptr(),
                 dtype_of(mean.scalar_type(), "batch_norm"), dtype_of(var.scalar_type(), "batch_norm")});
    if (!s.is_same(stats[i]) || !mean.is_same(means[i]) || !var.is_same(vars[i])) {  // copies, which end here
      updates.launch();
      means[i].copy_(mean);
      vars[i].copy_(var);
    }
  }
  updates.launch();
}

}  // namespace resnet_fused
