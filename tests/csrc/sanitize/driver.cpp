// Runs the CPU engine over a table of shapes, for builds with sanitizers: buffers are exactly as large as they may be, and
// temporary memory is full of NaN. Results of plain convolutions are compared with sums in double.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "../../../csrc/cpu/conv.h"
#include "../../../csrc/cpu/isa.h"
#include "../../../csrc/cpu/parallel.h"

namespace resnet_fused::cpu {

int max_threads() {
  return 3;  // one after the other, each on its own memory
}

void parallel_for(int64_t count, void (*body)(void* context, int64_t index), void* context) {
  for (int64_t i = 0; i < count; ++i) {
    body(context, i);
  }
}

}  // namespace resnet_fused::cpu

using namespace resnet_fused::cpu;

namespace {

constexpr int64_t kLine = 64;

struct Buffer {
  explicit Buffer(int64_t bytes) : bytes(bytes), data(std::aligned_alloc(kLine, (bytes + kLine - 1) / kLine * kLine), &std::free) {
    std::memset(data.get(), 0xff, bytes);  // NaN in every type
  }
  int64_t bytes;
  std::unique_ptr<void, void (*)(void*)> data;
};

int64_t size_of(DType dtype) {
  return dtype == DType::kFloat64 ? 8 : dtype == DType::kFloat32 ? 4 : 2;
}

std::mt19937 random_engine(0);

// Multiples of 1/8 between -1 and 1, exact in every type.
Buffer random_buffer(DType dtype, int64_t count) {
  Buffer b(count * size_of(dtype));
  for (int64_t i = 0; i < count; ++i) {
    double value = static_cast<int>(random_engine() % 17) / 8.0 - 1;
    float single = static_cast<float>(value);
    if (dtype == DType::kFloat64) {
      static_cast<double*>(b.data.get())[i] = value;
    } else if (dtype == DType::kFloat32) {
      static_cast<float*>(b.data.get())[i] = single;
    } else {
      uint32_t bits;
      std::memcpy(&bits, &single, 4);
      static_cast<uint16_t*>(b.data.get())[i] = static_cast<uint16_t>(bits >> 16);
    }
  }
  return b;
}

double value(DType dtype, const Buffer& b, int64_t i) {
  if (dtype == DType::kFloat64) {
    return static_cast<double*>(b.data.get())[i];
  }
  if (dtype == DType::kFloat32) {
    return static_cast<float*>(b.data.get())[i];
  }
  uint32_t bits = static_cast<uint32_t>(static_cast<uint16_t*>(b.data.get())[i]) << 16;
  float single;
  std::memcpy(&single, &bits, 4);
  return single;
}

DType acc_of(DType dtype) {
  return dtype == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32;
}

struct Case {
  const char* name;
  int64_t N, C, H, W, K, R, S, stride_h, stride_w, padding_h, padding_w, dilation, groups;
};

ConvShape shape_of(const Case& c) {
  int64_t P = (c.H + 2 * c.padding_h - c.dilation * (c.R - 1) - 1) / c.stride_h + 1;
  int64_t Q = (c.W + 2 * c.padding_w - c.dilation * (c.S - 1) - 1) / c.stride_w + 1;
  return {c.N, c.C, c.H, c.W, c.K, c.R, c.S, P, Q, {c.stride_h, c.stride_w}, {c.padding_h, c.padding_w},
          {c.dilation, c.dilation}, c.groups};
}

// visit(x index, w index, y index) for every product; NHWC tensors, [K, R, S, C / groups] weights.
template <typename Visit>
void each_product(const ConvShape& s, Visit visit) {
  int64_t Cg = s.C / s.groups, Kg = s.K / s.groups;
  for (int64_t n = 0; n < s.N; ++n)
    for (int64_t p = 0; p < s.P; ++p)
      for (int64_t q = 0; q < s.Q; ++q)
        for (int64_t k = 0; k < s.K; ++k)
          for (int64_t r = 0; r < s.R; ++r)
            for (int64_t t = 0; t < s.S; ++t) {
              int64_t h = p * s.stride[0] - s.padding[0] + r * s.dilation[0];
              int64_t w = q * s.stride[1] - s.padding[1] + t * s.dilation[1];
              if (h < 0 || h >= s.H || w < 0 || w >= s.W) continue;
              for (int64_t c = 0; c < Cg; ++c)
                visit(((n * s.H + h) * s.W + w) * s.C + k / Kg * Cg + c, ((k * s.R + r) * s.S + t) * Cg + c,
                      ((n * s.P + p) * s.Q + q) * s.K + k);
            }
}

int failures = 0;

void expect_close(const char* what, const Case& c, DType dtype, const Buffer& ours, const std::vector<double>& truth) {
  double worst = 0;
  for (size_t i = 0; i < truth.size(); ++i) {
    double error = std::fabs(value(dtype, ours, i) - truth[i]);
    worst = error >= 0 ? std::max(worst, error) : INFINITY;
  }
  // Sums of at most a few thousand terms of at most 1: float32 and Winograd round in the fourth decimal, bfloat16 to 1/256.
  double bound = dtype == DType::kFloat64 ? 1e-11 : dtype == DType::kFloat32 ? 1e-3 : 2.0;
  if (!(worst <= bound)) {
    std::printf("%s: %s of %s is off by %g\n", isa_name(active_isa()), what, c.name, worst);
    ++failures;
  }
}

void run(const Case& c, DType dtype) {
  ConvShape s = shape_of(c);
  DType acc = acc_of(dtype);
  int64_t xs = s.N * s.H * s.W * s.C, ys = s.N * s.P * s.Q * s.K, ws = s.K * s.R * s.S * s.C / s.groups;
  Buffer x = random_buffer(dtype, xs), w = random_buffer(dtype, ws), g = random_buffer(dtype, ys);
  Buffer raw = random_buffer(dtype, ys), out = random_buffer(dtype, ys), add = random_buffer(dtype, xs);
  Buffer affine_x = random_buffer(acc, 4 * s.C), affine = random_buffer(acc, 4 * s.K), means = random_buffer(acc, 2 * s.K);
  int64_t Cg = s.C / s.groups;
  WeightStrides strides{s.R * s.S * Cg, 1, s.S * Cg, Cg};
  ConvWeights weights{w.data.get(), strides, nullptr};
  std::vector<Buffer> temporary;
  Allocate allocate = [&](int64_t bytes) {
    temporary.emplace_back(bytes);
    return temporary.back().data.get();
  };
  Operand plain_x{}, plain_g{};
  plain_x.x = x.data.get();
  plain_x.images = plain_g.images = s.N;
  plain_x.height = s.H, plain_x.width = s.W, plain_x.pitch = plain_x.channels = s.C;
  plain_g.x = g.data.get();
  plain_g.height = s.P, plain_g.width = s.Q, plain_g.pitch = plain_g.channels = s.K;
  Buffer y(ys * size_of(dtype)), dx(xs * size_of(dtype)), dw(ws * size_of(dtype));
  Buffer stats(2 * s.K * size_of(acc)), sums(2 * s.C * size_of(acc));
  Result to_y{}, to_dx{};
  to_y.y = y.data.get(), to_y.height = s.P, to_y.width = s.Q, to_y.pitch = to_y.channels = s.K;
  to_dx.y = dx.data.get(), to_dx.height = s.H, to_dx.width = s.W, to_dx.pitch = to_dx.channels = s.C;

  std::vector<double> true_y(ys), true_dx(xs), true_dw(ws);
  each_product(s, [&](int64_t i, int64_t j, int64_t k) {
    true_y[k] += value(dtype, x, i) * value(dtype, w, j);
    true_dx[i] += value(dtype, g, k) * value(dtype, w, j);
    true_dw[j] += value(dtype, g, k) * value(dtype, x, i);
  });
  conv_fprop(dtype, s, weights, plain_x, to_y, nullptr, allocate);
  expect_close("y", c, dtype, y, true_y);
  conv_dgrad(dtype, s, weights, plain_g, to_dx, nullptr, allocate);
  expect_close("dx", c, dtype, dx, true_dx);
  conv_wgrad(dtype, s, plain_x, plain_g, dw.data.get(), strides, allocate);
  expect_close("dw", c, dtype, dw, true_dw);

  // Prologues and epilogues: what they read and write.
  Operand by_affine = plain_x, by_draw = plain_g;
  by_affine.form = Form::kAffine, by_affine.affine = affine_x.data.get(), by_affine.relu = true;
  by_draw.raw = raw.data.get(), by_draw.out = out.data.get(), by_draw.affine = affine.data.get();
  by_draw.mean_g = means.data.get(), by_draw.slope = static_cast<char*>(means.data.get()) + s.K * size_of(acc);
  to_y.finish = Finish::kStatistics;
  conv_fprop(dtype, s, weights, by_affine, to_y, stats.data.get(), allocate);
  to_y.finish = Finish::kApply, to_y.affine = affine.data.get(), to_y.relu = true;
  to_y.residual = raw.data.get(), to_y.residual_affine = affine.data.get();
  conv_fprop(dtype, s, weights, by_affine, to_y, nullptr, allocate);
  to_dx.finish = Finish::kBackward, to_dx.x = x.data.get(), to_dx.affine = affine_x.data.get(), to_dx.relu = true;
  to_dx.add = add.data.get(), to_dx.add_out = x.data.get();
  for (Form form : {Form::kMasked, Form::kDraw, Form::kDrawOutput, Form::kDrawAffine}) {
    by_draw.form = form;
    conv_dgrad(dtype, s, weights, by_draw, to_dx, sums.data.get(), allocate);
    conv_wgrad(dtype, s, by_affine, by_draw, dw.data.get(), strides, allocate);
  }
}

const Case kCases[] = {
    {"stem", 1, 3, 17, 19, 20, 7, 7, 2, 2, 3, 3, 1, 1},
    {"winograd_ragged", 2, 33, 13, 18, 40, 3, 3, 1, 1, 1, 1, 1, 1},
    {"winograd_unpadded", 1, 17, 15, 63, 16, 3, 3, 1, 1, 0, 0, 1, 1},
    {"winograd_blocks", 2, 48, 29, 30, 33, 3, 3, 1, 1, 1, 1, 1, 1},
    {"winograd_shared", 2, 144, 10, 9, 136, 3, 3, 1, 1, 1, 1, 1, 1},
    {"strided", 2, 19, 9, 11, 35, 3, 3, 2, 2, 1, 1, 1, 1},
    {"dilated", 1, 18, 12, 13, 17, 3, 3, 2, 1, 2, 2, 2, 1},
    {"far_padding", 1, 17, 5, 4, 16, 3, 3, 1, 1, 4, 5, 1, 1},
    {"pointwise", 3, 70, 7, 7, 66, 1, 1, 1, 1, 0, 0, 1, 1},
    {"pointwise_strided", 2, 34, 10, 11, 36, 1, 1, 3, 2, 0, 0, 1, 1},
    {"narrow", 3, 20, 9, 3, 18, 3, 3, 2, 1, 1, 1, 1, 1},
    {"one_pixel", 5, 9, 3, 3, 10, 3, 3, 1, 1, 0, 0, 1, 1},
    {"even_filter", 1, 16, 8, 7, 5, 2, 4, 3, 2, 0, 1, 1, 1},
    {"groups", 1, 66, 7, 6, 70, 3, 3, 1, 1, 1, 1, 1, 2},
    {"depthwise", 1, 9, 6, 7, 18, 3, 3, 2, 2, 1, 1, 1, 9},
};

}  // namespace

int main() {
  int runs = 0;
  for (const char* isa : {"portable", "avx2", "avx512"}) {
    Isa which = std::string(isa) == "avx512" ? Isa::kAvx512 : std::string(isa) == "avx2" ? Isa::kAvx2 : Isa::kPortable;
    if (!isa_supported(which)) {
      continue;
    }
    set_isa(isa);
    for (const Case& c : kCases) {
      for (DType dtype : {DType::kFloat32, DType::kFloat64, DType::kBFloat16}) {
        run(c, dtype);
        ++runs;
      }
    }
  }
  std::printf("%d runs, %d failures\n", runs, failures);
  return failures != 0;
}
