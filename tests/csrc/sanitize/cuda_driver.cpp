// Runs the CUDA kernels for a sanitizer: each family on two small problems, in memory of just the sizes that it asks for.
#include <string.h>

#include <exception>
#include <memory>
#include <string>
#include <vector>

#include "../../../csrc/cuda/bn.h"
#include "../../../csrc/cuda/conv.h"
#include "../../../csrc/cuda/stem.h"

using namespace resnet_fused;
using namespace resnet_fused::cuda;

namespace {

// Inputs and outputs alike hold small numbers.
class Memory {
 public:
  void* bytes(int64_t size) {
    held_.push_back(std::make_unique<char[]>(size));
    return held_.back().get();
  }
  float* floats(int64_t count) {
    auto* data = static_cast<float*>(bytes(4 * count));
    for (int64_t i = 0; i < count; ++i) {
      data[i] = 0.25f * static_cast<float>(i * 7 % 13 - 5);
    }
    return data;
  }
  // bfloat16: the upper halves of float32.
  void* halves(int64_t count) {
    auto* data = static_cast<uint16_t*>(bytes(2 * count));
    for (int64_t i = 0; i < count; ++i) {
      float value = 0.25f * static_cast<float>(i * 7 % 13 - 5);
      memcpy(&data[i], reinterpret_cast<char*>(&value) + 2, 2);
    }
    return data;
  }

 private:
  std::vector<std::unique_ptr<char[]>> held_;
};

// 16 bytes an access and one element; several chunks of rows; planes in segments.
constexpr Shape kShapes[] = {{2, 24, 150, true}, {3, 5, 63, true}, {2, 6, 120, false}, {2, 3, 35, false}};
constexpr DType kFloat = DType::kFloat32;

int64_t elements(const Shape& s) { return s.images * s.channels * s.pixels; }

void run_statistics(Memory& memory, const Shape& s) {
  StatisticsParams p{s, memory.floats(elements(s)), memory.floats(2 * s.channels)};
  bn_statistics(kFloat, p, memory.bytes(bn_statistics_workspace(kFloat, p)), nullptr);
  bn_finalize(kFloat, {s.channels, p.stats, static_cast<float*>(p.stats) + s.channels, s.images * s.pixels,
                       memory.floats(s.channels), memory.floats(s.channels), 1e-5, memory.floats(4 * s.channels)},
              nullptr);
  BackwardFinalizeParams back{s.channels, p.stats, s.images * s.pixels, memory.floats(2 * s.channels),
                              memory.floats(s.channels), memory.floats(s.channels), kFloat, kFloat};
  bn_backward_finalize(kFloat, back, nullptr);
  UpdateRunningParams update{};
  update.norms = update.counters = 2;
  for (int i = 0; i < 2; ++i) {
    update.norm[i] = {s.channels, p.stats, s.images * s.pixels, 0.1, memory.floats(s.channels),
                      memory.floats(s.channels), kFloat, kFloat};
    update.counter[i] = static_cast<int64_t*>(memory.bytes(sizeof(int64_t)));
  }
  bn_update_running(kFloat, update, nullptr);
}

void run_apply(Memory& memory, const Shape& s) {
  int64_t count = elements(s);
  bn_apply(kFloat, {s, memory.floats(count), memory.floats(4 * s.channels), memory.floats(count),
                    memory.floats(4 * s.channels), memory.floats(count), true}, nullptr);
  mask_add(kFloat, {count, memory.floats(count), memory.floats(count), memory.floats(count), memory.floats(count)},
           nullptr);
}

void run_backward(Memory& memory, const Shape& s) {
  int64_t count = elements(s);
  BackwardReduceParams reduce{};
  reduce.shape = s;
  reduce.grad = memory.floats(count);
  reduce.out = memory.floats(count);
  reduce.x = memory.floats(count);
  reduce.affine = memory.floats(4 * s.channels);
  reduce.x2 = memory.floats(count);
  reduce.affine2 = memory.floats(4 * s.channels);
  reduce.operand = memory.floats(count);
  reduce.masked = memory.floats(count);
  reduce.mask = Mask::kOutput;
  reduce.sums = memory.floats(3 * s.channels);
  bn_backward_reduce(kFloat, reduce, memory.bytes(bn_backward_reduce_workspace(kFloat, reduce)), nullptr);
  BackwardApplyParams apply{};
  apply.shape = s;
  apply.grad = reduce.grad;
  apply.x = reduce.x;
  apply.affine = reduce.affine;
  apply.means = memory.floats(2 * s.channels);
  apply.draw = memory.floats(count);
  apply.mask = Mask::kAffine;
  bn_backward_apply(kFloat, apply, nullptr);
}

void run_stem(Memory& memory, const Shape& s) {
  int64_t height = 7, width = 10, pooled_height = 4, pooled_width = 5;
  StemShape shape{s.images, s.channels, height, width, pooled_height, pooled_width, s.channels_last};
  int64_t count = s.images * s.channels * height * width, pooled = s.images * s.channels * pooled_height * pooled_width;
  auto* index = static_cast<uint8_t*>(memory.bytes(pooled));
  StemPoolParams pool{shape, memory.floats(count), memory.floats(4 * s.channels), memory.floats(pooled), index};
  stem_pool(kFloat, pool, nullptr);
  StemPoolBackwardParams p{shape, memory.floats(pooled), index, pool.x, pool.affine, memory.floats(2 * s.channels),
                           memory.floats(2 * s.channels), memory.floats(count)};
  stem_pool_backward_reduce(kFloat, p, memory.bytes(stem_pool_backward_reduce_workspace(kFloat, p)), nullptr);
  stem_pool_backward_apply(kFloat, p, nullptr);
}

// Strides, padding, tiles that end within; and a reduction of more chunks than the pipeline has stages.
constexpr ConvShape kConvs[] = {{2, 40, 7, 9, 24, 3, 3, 4, 5, {2, 2}, {1, 1}, {1, 1}, 1},
                                {1, 160, 9, 16, 64, 1, 1, 9, 16, {1, 1}, {0, 0}, {1, 1}, 1}};

struct Convolution {
  Memory& memory;
  const ConvShape& s;
  ConvProblem problem;
  int64_t input_size = int64_t{s.N} * s.H * s.W * s.C, output_size = int64_t{s.N} * s.P * s.Q * s.K;
  int64_t weight_size = int64_t{s.K} * s.R * s.S * s.C / s.groups;

  // As on many multiprocessors: the smallest tiles, and wgrad's pixels over several blocks. With wgmma as on one: the
  // tiles that it has.
  Convolution(Memory& memory, const ConvShape& s, bool wgmma)
      : memory(memory), s(s), problem{DType::kBFloat16, false, s, {wgmma ? 1 : 1000, 99 << 10, wgmma}} {}

  ActivationTensor input() { return {memory.halves(input_size), memory.floats(4 * s.C), true}; }
  DrawTensor draw() {
    return {memory.halves(output_size), memory.halves(output_size), memory.halves(output_size),
            memory.floats(4 * s.K),     memory.floats(s.K),         memory.floats(s.K),         true};
  }

  void fprop() {
    ConvFpropParams p{};
    p.problem = problem;
    p.input = input();
    p.w = memory.halves(weight_size);
    p.y = memory.halves(output_size);
    p.stats = memory.floats(2 * s.K);
    launch_conv_fprop(p, memory.bytes(conv_fprop_workspace(p)), nullptr);
    p.stats = nullptr;
    p.epilogue = memory.floats(4 * s.K);
    p.residual = memory.halves(output_size);
    p.residual_affine = memory.floats(4 * s.K);
    p.relu = true;
    launch_conv_fprop(p, nullptr, nullptr);
  }
  void dgrad() {
    ConvDgradParams p{};
    p.problem = problem;
    p.draw = draw();
    p.w = memory.halves(weight_size);
    p.dx = memory.halves(input_size);
    p.add = memory.halves(input_size);
    p.add_out = memory.halves(input_size);
    p.sums = memory.floats(2 * s.C);
    p.input = input();
    launch_conv_dgrad(p, memory.bytes(conv_dgrad_workspace(p)), nullptr);
  }
  void wgrad() {
    ConvWgradParams p{problem, draw(), input(), memory.halves(weight_size)};
    launch_conv_wgrad(p, memory.bytes(conv_wgrad_workspace(p)), nullptr);
  }
};

void run_family(const std::string& family) {
  Memory memory;
  for (const Shape& shape : kShapes) {
    auto run = family == "statistics" ? run_statistics
               : family == "apply"    ? run_apply
               : family == "backward" ? run_backward
               : family == "stem"     ? run_stem
                                      : nullptr;
    if (run) {
      run(memory, shape);
    }
  }
  for (const ConvShape& shape : kConvs) {
    bool wgmma = family.rfind("wgmma ", 0) == 0;
    std::string pass = wgmma ? family.substr(6) : family;
    Convolution convolution(memory, shape, wgmma);
    if (pass == "fprop") {
      convolution.fprop();
    } else if (pass == "dgrad") {
      convolution.dgrad();
    } else if (pass == "wgrad") {
      convolution.wgrad();
    }
  }
}

}  // namespace

// What a launcher threw, or null.
extern "C" const char* run(const char* family) {
  static std::string message;
  try {
    run_family(family);
  } catch (const std::exception& error) {
    message = error.what();
    return message.c_str();
  }
  return nullptr;
}
