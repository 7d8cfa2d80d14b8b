// Runs the CPU kernels over a table of shapes, for builds with sanitizers:
//     driver serial|threads THREADS L2_BYTES L3_BYTES all|float32
// Buffers are exactly as large as they may be, temporary memory and results are full of NaN, and the caches are as small as
// the arguments say, so that small shapes are cut into as many blocks and strips as large ones are. Plain convolutions
// are compared with sums in double; all results are to be finite, and the same bits whichever worker runs what.
#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include <unistd.h>

#include "../../../csrc/cpu/bn.h"
#include "../../../csrc/cpu/conv.h"
#include "../../../csrc/cpu/isa.h"
#include "../../../csrc/cpu/parallel.h"
#include "../../../csrc/cpu/stem.h"

namespace {

int threads = 1;
long l2 = 0, l3 = 0;

enum class Order { kUp, kDown, kTogether };  // of the workers; the last of them has the end of the workspace
Order order = Order::kUp;

}  // namespace

// What caches.cpp and the extension's parallel.cpp do elsewhere.
namespace resnet_fused::cpu {

Caches machine_caches() {
  return {l2, l3};
}

int max_threads() {
  return threads;
}

void parallel_for(int64_t count, void (*body)(void* context, int64_t index), void* context) {
  if (order != Order::kTogether) {
    for (int64_t i = 0; i < count; ++i) {
      body(context, order == Order::kUp ? i : count - 1 - i);
    }
    return;
  }
  std::atomic<int64_t> ready{0};
  auto run = [&](int64_t i) {
    for (++ready; ready < count;) {  // or else the first would have done everything before the last is there
      std::this_thread::yield();
    }
    body(context, i);
  };
  std::vector<std::thread> others;
  for (int64_t i = 1; i < count; ++i) {
    others.emplace_back(run, i);
  }
  if (count > 0) {
    run(0);
  }
  for (std::thread& other : others) {
    other.join();
  }
}

}  // namespace resnet_fused::cpu

using namespace resnet_fused;
using namespace resnet_fused::cpu;

namespace {

constexpr size_t kLine = 64;

class Buffer {
 public:
  explicit Buffer(int64_t bytes, int64_t shift = 0) : bytes_(bytes), shift_(shift) {
    void* data = nullptr;
    if (posix_memalign(&data, kLine, bytes + shift) != 0) {
      std::abort();
    }
    memory_.reset(static_cast<char*>(data));
    clear();
  }
  void* data() const {
    return memory_.get() + shift_;
  }
  int64_t bytes() const {
    return bytes_;
  }
  void clear() {
    std::memset(memory_.get(), 0xff, bytes_ + shift_);  // NaN in every type
  }
  bool same(const std::vector<char>& other) const {
    return std::memcmp(data(), other.data(), bytes_) == 0;
  }
  std::vector<char> copy() const {
    const char* begin = static_cast<const char*>(data());
    return {begin, begin + bytes_};
  }

 private:
  struct Free {
    void operator()(char* p) const {
      std::free(p);
    }
  };
  int64_t bytes_, shift_;
  std::unique_ptr<char, Free> memory_;
};

int64_t size_of(DType dtype) {
  return dtype == DType::kFloat64 ? 8 : dtype == DType::kFloat32 ? 4 : 2;
}

DType acc_of(DType dtype) {
  return dtype == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32;
}

// Of a multiple of 1/8 between -1 and 1.
uint16_t half_bits(double value) {
  int exponent;
  double fraction = std::frexp(std::fabs(value), &exponent);
  int sign = std::signbit(value) ? 0x8000 : 0;
  return value == 0 ? sign : sign | ((exponent + 14) << 10) | static_cast<int>((2 * fraction - 1) * 1024);
}

double half_value(uint16_t bits) {
  int exponent = bits >> 10 & 31, mantissa = bits & 1023;
  double size = exponent == 31 ? (mantissa ? NAN : INFINITY)
                : exponent    ? std::ldexp(1024 + mantissa, exponent - 25)
                              : std::ldexp(mantissa, -24);
  return bits & 0x8000 ? -size : size;
}

std::mt19937 random_engine;

// Multiples of 1/8 between -1 and 1, exact in every type; aligned to an element only.
Buffer random_buffer(DType dtype, int64_t count) {
  Buffer b(count * size_of(dtype), size_of(dtype));
  for (int64_t i = 0; i < count; ++i) {
    double value = static_cast<int>(random_engine() % 17) / 8.0 - 1;
    float single = static_cast<float>(value);
    if (dtype == DType::kFloat64) {
      static_cast<double*>(b.data())[i] = value;
    } else if (dtype == DType::kFloat32) {
      static_cast<float*>(b.data())[i] = single;
    } else if (dtype == DType::kFloat16) {
      static_cast<uint16_t*>(b.data())[i] = half_bits(value);
    } else {
      uint32_t bits;
      std::memcpy(&bits, &single, 4);
      static_cast<uint16_t*>(b.data())[i] = static_cast<uint16_t>(bits >> 16);
    }
  }
  return b;
}

double value(DType dtype, const Buffer& b, int64_t i) {
  if (dtype == DType::kFloat64) {
    return static_cast<double*>(b.data())[i];
  }
  if (dtype == DType::kFloat32) {
    return static_cast<float*>(b.data())[i];
  }
  uint16_t half = static_cast<uint16_t*>(b.data())[i];
  if (dtype == DType::kFloat16) {
    return half_value(half);
  }
  uint32_t bits = static_cast<uint32_t>(half) << 16;
  float single;
  std::memcpy(&single, &bits, 4);
  return single;
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

// [K, R, S, C / groups], [K, C / groups, R, S] or the transpose [C / groups, K, R, S] in memory.
WeightStrides weight_strides(const ConvShape& s, int layout) {
  int64_t Cg = s.C / s.groups, taps = s.R * s.S;
  return layout == 0   ? WeightStrides{taps * Cg, 1, s.S * Cg, Cg}
         : layout == 1 ? WeightStrides{taps * Cg, taps, s.S, 1}
                       : WeightStrides{taps, s.K * taps, s.S, 1};
}

// visit(x index, w index, y index) for every product; NHWC tensors.
template <typename Visit>
void each_product(const ConvShape& s, const WeightStrides& strides, Visit visit) {
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
                visit(((n * s.H + h) * s.W + w) * s.C + k / Kg * Cg + c,
                      k * strides.out + c * strides.in + r * strides.row + t * strides.column,
                      ((n * s.P + p) * s.Q + q) * s.K + k);
            }
}

int failures = 0;
std::string now;  // instruction set, case and type

void fail(const std::string& what) {
  std::printf("%s: %s\n", now.c_str(), what.c_str());
  ++failures;
}

void expect_close(const char* what, DType dtype, const Buffer& ours, const std::vector<double>& truth) {
  double worst = 0;
  for (size_t i = 0; i < truth.size(); ++i) {
    double error = std::fabs(value(dtype, ours, i) - truth[i]);
    worst = error >= 0 ? std::max(worst, error) : INFINITY;
  }
  // Sums of at most 9,400 terms of size 1/4 on average: float32 and Winograd round in the fourth decimal of sums of some
  // hundred; bfloat16 to 1/512 of them, float16 to 1/4096.
  double bound = dtype == DType::kFloat64 ? 1e-11 : dtype == DType::kFloat32 ? 2e-3 : dtype == DType::kFloat16 ? 0.25 : 2.0;
  if (!(worst <= bound)) {
    fail(std::string(what) + " is off by " + std::to_string(worst));
  }
}

void expect_finite(const char* what, DType dtype, const Buffer& b) {
  for (int64_t i = 0; i < b.bytes() / size_of(dtype); ++i) {
    if (!std::isfinite(value(dtype, b, i))) {
      return fail(std::string(what) + " is not finite at " + std::to_string(i));
    }
  }
}

// values: acc [2, channels]; `truth` holds what they are to be and the sums of the terms' sizes.
struct Sums {
  std::vector<double> value, size;
  explicit Sums(int64_t count) : value(count), size(count) {}
  void add(int64_t i, double term) {
    value[i] += term;
    size[i] += std::fabs(term);
  }
};
void expect_sums(const char* what, DType acc, const Buffer& values, const Sums& truth) {
  // Partial sums in float32 of up to some hundred terms, a few last bits of them: 1e-6. Squares of deviations are summed
  // around a pivot, the mean of the first pixels, at the border: off by some deviations, of which most cancels.
  double relative = acc == DType::kFloat64 ? 1e-12 : 1e-4;
  for (size_t i = 0; i < truth.value.size(); ++i) {
    double off = std::fabs(value(acc, values, i) - truth.value[i]);
    if (!(off <= relative * (truth.size[i] + 1))) {
      return fail(std::string(what) + " is off by " + std::to_string(off / truth.size[i]) + " of its terms at " + std::to_string(i));
    }
  }
}

// Of a batch [pixels, channels]: sums / pixels, and those of the squares of the deviations.
Sums batch_statistics(DType dtype, const Buffer& y, int64_t channels) {
  int64_t count = y.bytes() / size_of(dtype), pixels = count / channels;
  Sums s(2 * channels);
  for (int64_t i = 0; i < count; ++i) {
    s.add(i % channels, value(dtype, y, i) / pixels);
  }
  for (int64_t i = 0; i < count; ++i) {
    double deviation = value(dtype, y, i) - s.value[i % channels];
    s.add(channels + i % channels, deviation * deviation);
  }
  return s;
}

// Sums of g and g * (x - mean) * invstd, g = dx where z(x) > 0: all of x's values and affine's have few digits.
Sums gradient_sums(DType dtype, const Buffer& dx, const Buffer& x, DType acc, const Buffer& affine, int64_t channels) {
  Sums s(2 * channels);
  for (int64_t i = 0; i < x.bytes() / size_of(dtype); ++i) {
    int64_t c = i % channels;
    double d = value(dtype, x, i) - value(acc, affine, c);
    if (d * value(acc, affine, channels + c) + value(acc, affine, 2 * channels + c) > 0) {
      s.add(c, value(dtype, dx, i));
      s.add(channels + c, value(dtype, dx, i) * d * value(acc, affine, 3 * channels + c));
    }
  }
  return s;
}

// Sums of dx and, for each pair of a tensor and its affine, of dx * (tensor - mean) * invstd.
Sums masked_sums(DType dtype, const Buffer& dx, const std::vector<std::pair<const Buffer*, const Buffer*>>& raws, DType acc,
                 int64_t channels) {
  Sums s((1 + raws.size()) * channels);
  for (int64_t i = 0; i < dx.bytes() / size_of(dtype); ++i) {
    int64_t c = i % channels;
    double g = value(dtype, dx, i);
    s.add(c, g);
    for (size_t row = 0; row < raws.size(); ++row) {
      const auto [raw, affine] = raws[row];
      double d = value(dtype, *raw, i) - value(acc, *affine, c);
      s.add((1 + row) * channels + c, g * d * value(acc, *affine, 3 * channels + c));
    }
  }
  return s;
}

struct Output {
  const char* name;
  DType dtype;
  Buffer* buffer;
};

std::vector<Order> orders;

// Runs an operation in every order of the workers: finite results, of the same bits.
void run_orders(const char* what, const std::vector<Output>& outputs, const std::function<void(const Allocate&)>& operation) {
  std::vector<std::vector<char>> first;
  for (Order o : orders) {
    order = o;
    for (const Output& output : outputs) {
      output.buffer->clear();
    }
    std::vector<Buffer> temporary;
    operation([&](int64_t bytes) {
      temporary.emplace_back(bytes);
      return temporary.back().data();
    });
    for (size_t i = 0; i < outputs.size(); ++i) {
      std::string name = std::string(what) + "'s " + outputs[i].name;
      if (o == orders[0]) {
        expect_finite(name.c_str(), outputs[i].dtype, *outputs[i].buffer);
        first.push_back(outputs[i].buffer->copy());
      } else if (!outputs[i].buffer->same(first[i])) {
        fail(name + " depends on which worker runs what");
      }
    }
  }
}

struct Truth {
  std::vector<double> y, dx, dw;
};

void run(const Case& c, DType dtype, int layout, Truth& truth) {
  ConvShape s = shape_of(c);
  DType acc = acc_of(dtype);
  int64_t xs = s.N * s.H * s.W * s.C, ys = s.N * s.P * s.Q * s.K, ws = s.K * s.R * s.S * s.C / s.groups;
  random_engine.seed(1);  // the same values in every type
  Buffer x = random_buffer(dtype, xs), w = random_buffer(dtype, ws), g = random_buffer(dtype, ys);
  Buffer raw = random_buffer(dtype, ys), out = random_buffer(dtype, ys), add = random_buffer(dtype, xs);
  Buffer affine_x = random_buffer(acc, 4 * s.C), affine = random_buffer(acc, 4 * s.K), means = random_buffer(acc, 2 * s.K);
  Buffer sum_raw = random_buffer(dtype, xs), sum_raw2 = random_buffer(dtype, xs), affine_x2 = random_buffer(acc, 4 * s.C);
  WeightStrides strides = weight_strides(s, layout);
  ConvWeights weights{w.data(), strides, nullptr};
  Operand plain_x{}, plain_g{};
  plain_x.x = x.data();
  plain_x.images = plain_g.images = s.N;
  plain_x.height = s.H, plain_x.width = s.W, plain_x.pitch = plain_x.channels = s.C;
  plain_g.x = g.data();
  plain_g.height = s.P, plain_g.width = s.Q, plain_g.pitch = plain_g.channels = s.K;
  Buffer y(ys * size_of(dtype)), dx(xs * size_of(dtype)), dw(ws * size_of(dtype));
  Buffer stats(2 * s.K * size_of(acc)), sums(2 * s.C * size_of(acc)), three_sums(3 * s.C * size_of(acc));
  Output y_output{"y", dtype, &y}, dx_output{"dx", dtype, &dx}, dw_output{"dw", dtype, &dw};
  Result to_y{}, to_dx{};
  to_y.y = y.data(), to_y.height = s.P, to_y.width = s.Q, to_y.pitch = to_y.channels = s.K;
  to_dx.y = dx.data(), to_dx.height = s.H, to_dx.width = s.W, to_dx.pitch = to_dx.channels = s.C;

  if (truth.y.empty()) {
    truth = {std::vector<double>(ys), std::vector<double>(xs), std::vector<double>(ws)};
    std::vector<double> xv(xs), wv(ws), gv(ys);
    for (int64_t i = 0; i < xs; ++i) xv[i] = value(dtype, x, i);
    for (int64_t i = 0; i < ws; ++i) wv[i] = value(dtype, w, i);
    for (int64_t i = 0; i < ys; ++i) gv[i] = value(dtype, g, i);
    double *true_y = truth.y.data(), *true_dx = truth.dx.data(), *true_dw = truth.dw.data();
    const double *px = xv.data(), *pw = wv.data(), *pg = gv.data();
    each_product(s, strides, [=](int64_t i, int64_t j, int64_t k) {
      true_y[k] += px[i] * pw[j];
      true_dx[i] += pg[k] * pw[j];
      true_dw[j] += pg[k] * px[i];
    });
  }
  run_orders("fprop", {y_output}, [&](const Allocate& a) { conv_fprop(dtype, s, weights, plain_x, to_y, nullptr, a); });
  expect_close("y", dtype, y, truth.y);
  run_orders("dgrad", {dx_output}, [&](const Allocate& a) { conv_dgrad(dtype, s, weights, plain_g, to_dx, nullptr, a); });
  expect_close("dx", dtype, dx, truth.dx);
  auto wgrad = [&](const Operand& operand, const Operand& draw) {
    run_orders("wgrad", {dw_output}, [&](const Allocate& a) { conv_wgrad(dtype, s, operand, draw, dw.data(), strides, a); });
  };
  wgrad(plain_x, plain_g);
  expect_close("dw", dtype, dw, truth.dw);

  // Prologues and epilogues: what they read and write.
  Operand by_affine = plain_x, by_draw = plain_g;
  by_affine.form = Form::kAffine, by_affine.affine = affine_x.data(), by_affine.relu = true;
  by_draw.raw = raw.data(), by_draw.out = out.data(), by_draw.affine = affine.data();
  by_draw.mean_g = means.data(), by_draw.slope = static_cast<char*>(means.data()) + s.K * size_of(acc);
  to_y.finish = Finish::kStatistics;
  run_orders("fprop with statistics", {y_output, {"statistics", acc, &stats}},
             [&](const Allocate& a) { conv_fprop(dtype, s, weights, by_affine, to_y, stats.data(), a); });
  expect_sums("the statistics", acc, stats, batch_statistics(dtype, y, s.K));
  to_y.finish = Finish::kApply, to_y.affine = affine.data(), to_y.relu = true;
  to_y.residual = raw.data();
  run_orders("fprop with a residual", {y_output},
             [&](const Allocate& a) { conv_fprop(dtype, s, weights, plain_x, to_y, nullptr, a); });
  to_y.residual_affine = affine.data();
  // Packed weights are kept, and packed in the first run only.
  std::unique_ptr<Buffer> kept;
  int64_t kept_tag = -1;
  ConvWeights kept_weights{w.data(), strides, [&](int64_t tag, int64_t bytes) {
                             bool ready = kept && kept_tag == tag && kept->bytes() == bytes;
                             if (!ready) {
                               kept = std::make_unique<Buffer>(bytes);
                               kept_tag = tag;
                             }
                             return KeptMemory{kept->data(), ready};
                           }};
  run_orders("fprop with kept weights", {y_output},
             [&](const Allocate& a) { conv_fprop(dtype, s, kept_weights, by_affine, to_y, nullptr, a); });
  to_dx.finish = Finish::kBackward, to_dx.x = x.data(), to_dx.affine = affine_x.data(), to_dx.relu = true;
  to_dx.add = add.data(), to_dx.add_out = x.data();
  for (Form form : {Form::kMasked, Form::kDraw, Form::kDrawOutput, Form::kDrawAffine}) {
    by_draw.form = form;
    run_orders("dgrad with sums", {dx_output, {"sums", acc, &sums}},
               [&](const Allocate& a) { conv_dgrad(dtype, s, weights, by_draw, to_dx, sums.data(), a); });
    expect_sums("the sums of dx", acc, sums, gradient_sums(dtype, dx, x, acc, affine_x, s.C));
    wgrad(by_affine, by_draw);
  }
  to_dx.raw = sum_raw.data();
  run_orders("dgrad with a sum's sums", {dx_output, {"sums", acc, &sums}},
             [&](const Allocate& a) { conv_dgrad(dtype, s, weights, by_draw, to_dx, sums.data(), a); });
  expect_sums("the sum's sums", acc, sums, masked_sums(dtype, dx, {{&sum_raw, &affine_x}}, acc, s.C));
  to_dx.raw2 = sum_raw2.data(), to_dx.affine2 = affine_x2.data();
  run_orders("dgrad with two sums", {dx_output, {"sums", acc, &three_sums}},
             [&](const Allocate& a) { conv_dgrad(dtype, s, weights, by_draw, to_dx, three_sums.data(), a); });
  expect_sums("the two sums", acc, three_sums,
              masked_sums(dtype, dx, {{&sum_raw, &affine_x}, {&sum_raw2, &affine_x2}}, acc, s.C));
}

// The kernels around the convolutions.
void run_batch_norm(int64_t images, int64_t channels, int64_t height, int64_t width, bool last, DType dtype) {
  DType acc = acc_of(dtype);
  random_engine.seed(1);
  int64_t pooled_height = (height + 1) / 2, pooled_width = (width + 1) / 2;
  int64_t count = images * channels * height * width, pooled = images * channels * pooled_height * pooled_width;
  Buffer x = random_buffer(dtype, count), x2 = random_buffer(dtype, count), grad = random_buffer(dtype, count);
  Buffer out = random_buffer(dtype, count), pool_grad = random_buffer(dtype, pooled);
  Buffer affine = random_buffer(acc, 4 * channels), affine2 = random_buffer(acc, 4 * channels);
  Buffer means = random_buffer(acc, 2 * channels);
  Buffer y(count * size_of(dtype)), sums(3 * channels * size_of(acc)), stats(2 * channels * size_of(acc));
  Buffer two_sums(2 * channels * size_of(acc)), pool(pooled * size_of(dtype)), index(pooled);
  Output to_y{"y", dtype, &y};
  Shape shape{images, channels, height * width, last};
  StemShape stem{images, channels, height, width, pooled_height, pooled_width, last};
  run_orders("statistics", {{"statistics", acc, &stats}},
             [&](const Allocate&) { bn_statistics(dtype, {shape, x.data(), stats.data()}); });
  run_orders("apply", {to_y}, [&](const Allocate&) {
    bn_apply(dtype, {shape, x.data(), affine.data(), x2.data(), affine2.data(), y.data(), true});
  });
  for (Mask mask : {Mask::kNone, Mask::kOutput, Mask::kAffine}) {
    run_orders("backward reduce", {{"sums", acc, &sums}}, [&](const Allocate&) {
      bn_backward_reduce(dtype, {shape, grad.data(), out.data(), x.data(), affine.data(), x2.data(), affine2.data(), nullptr,
                                 nullptr, mask, sums.data()});
    });
    if (mask == Mask::kOutput) {
      run_orders("backward reduce with the masked gradient", {{"sums", acc, &sums}, {"masked", dtype, &y}}, [&](const Allocate&) {
        bn_backward_reduce(dtype, {shape, grad.data(), out.data(), x.data(), affine.data(), x2.data(), affine2.data(), nullptr,
                                   y.data(), mask, sums.data()});
      });
    } else {  // the operand's own ReLU is the mask
      run_orders("backward reduce with the operand", {{"sums", acc, &two_sums}, {"operand", dtype, &y}}, [&](const Allocate&) {
        bn_backward_reduce(dtype, {shape, grad.data(), nullptr, x.data(), affine.data(), nullptr, nullptr, y.data(), nullptr, mask,
                                   two_sums.data()});
      });
    }
    run_orders("backward apply", {to_y}, [&](const Allocate&) {
      bn_backward_apply(dtype, {shape, grad.data(), out.data(), x.data(), affine.data(), means.data(), y.data(), mask});
    });
  }
  run_orders("mask and add", {to_y},
             [&](const Allocate&) { mask_add(dtype, {count, x.data(), grad.data(), out.data(), y.data()}); });
  run_orders("pool", {{"y", dtype, &pool}}, [&](const Allocate&) {
    stem_pool(dtype, {stem, x.data(), affine.data(), pool.data(), static_cast<uint8_t*>(index.data())});
  });
  const auto* winners = static_cast<const uint8_t*>(index.data());
  run_orders("pool's backward reduce", {{"sums", acc, &two_sums}}, [&](const Allocate&) {
    stem_pool_backward_reduce(dtype, {stem, pool_grad.data(), winners, x.data(), affine.data(), nullptr, two_sums.data(), nullptr});
  });
  run_orders("pool's backward apply", {to_y}, [&](const Allocate&) {
    stem_pool_backward_apply(dtype, {stem, pool_grad.data(), winners, x.data(), affine.data(), means.data(), nullptr, y.data()});
  });
}

const Case kCases[] = {
    {"stem", 1, 3, 17, 19, 20, 7, 7, 2, 2, 3, 3, 1, 1},
    {"winograd_ragged", 2, 33, 13, 18, 40, 3, 3, 1, 1, 1, 1, 1, 1},
    {"winograd_unpadded", 1, 17, 15, 63, 16, 3, 3, 1, 1, 0, 0, 1, 1},
    {"winograd_far_padding", 2, 16, 9, 6, 17, 3, 3, 1, 1, 4, 5, 1, 1},
    {"winograd_blocks", 2, 48, 21, 22, 33, 3, 3, 1, 1, 1, 1, 1, 1},
    {"winograd_shared", 2, 144, 10, 9, 136, 3, 3, 1, 1, 1, 1, 1, 1},
    {"winograd_deep", 1, 1040, 13, 14, 17, 3, 3, 1, 1, 1, 1, 1, 1},
    {"strided", 2, 19, 9, 11, 35, 3, 3, 2, 2, 1, 1, 1, 1},
    {"dilated", 1, 18, 12, 13, 17, 3, 3, 2, 1, 2, 2, 2, 1},
    {"far_padding", 1, 17, 5, 4, 16, 3, 3, 1, 1, 4, 5, 1, 1},
    {"pointwise", 3, 70, 7, 7, 66, 1, 1, 1, 1, 0, 0, 1, 1},
    {"pointwise_in_place", 3, 48, 9, 7, 36, 1, 1, 1, 1, 0, 0, 1, 1},
    {"pointwise_groups", 2, 64, 5, 6, 40, 1, 1, 1, 1, 0, 0, 1, 2},
    {"pointwise_strided", 2, 34, 10, 11, 36, 1, 1, 3, 2, 0, 0, 1, 1},
    {"narrow", 3, 20, 9, 3, 18, 3, 3, 2, 1, 1, 1, 1, 1},
    {"one_column", 3, 16, 11, 1, 19, 3, 3, 1, 1, 1, 1, 1, 1},
    {"one_pixel", 5, 9, 3, 3, 10, 3, 3, 1, 1, 0, 0, 1, 1},
    {"even_filter", 1, 16, 8, 7, 5, 2, 4, 3, 2, 0, 1, 1, 1},
    {"pixels_unread", 2, 17, 9, 8, 16, 2, 2, 3, 3, 0, 0, 1, 1},
    {"row_of_seven", 2, 16, 4, 11, 33, 1, 7, 1, 1, 0, 3, 1, 1},
    {"folded_one_channel", 2, 1, 8, 9, 17, 5, 5, 1, 1, 2, 2, 1, 1},
    {"folded_strided", 2, 2, 11, 10, 3, 3, 3, 2, 3, 1, 1, 1, 1},
    {"folded_pointwise", 2, 4, 6, 5, 15, 1, 1, 1, 1, 0, 0, 1, 1},
    {"folded_column", 1, 15, 14, 3, 9, 4, 1, 1, 1, 3, 0, 2, 1},
    {"groups", 1, 66, 7, 6, 70, 3, 3, 1, 1, 1, 1, 1, 2},
    {"depthwise_twice", 1, 9, 6, 7, 18, 3, 3, 2, 2, 1, 1, 1, 9},
    {"depthwise", 2, 35, 9, 10, 35, 3, 3, 1, 1, 1, 1, 1, 35},
    {"depthwise_strided", 3, 19, 11, 12, 19, 3, 3, 2, 2, 1, 1, 1, 19},
    {"depthwise_dilated", 1, 18, 14, 11, 18, 3, 2, 3, 2, 2, 1, 2, 18},
    {"depthwise_large", 1, 24, 9, 13, 24, 7, 7, 1, 1, 3, 3, 1, 24},
    {"depthwise_far_padding", 1, 17, 5, 4, 17, 3, 3, 1, 1, 4, 5, 1, 17},
    {"depthwise_one_pixel", 3, 5, 3, 3, 5, 3, 3, 1, 1, 0, 0, 1, 5},
    {"depthwise_unread", 2, 6, 7, 7, 6, 2, 2, 3, 3, 0, 0, 1, 6},
    {"depthwise_pointwise", 2, 34, 6, 7, 34, 1, 1, 2, 2, 0, 0, 1, 34},
    {"depthwise_many", 1, 300, 9, 8, 300, 3, 3, 1, 1, 1, 1, 1, 300},
};

struct BatchNormCase {
  int64_t images, channels, height, width;
};
const BatchNormCase kBatchNorms[] = {{2, 1, 5, 19}, {1, 3, 17, 45}, {3, 17, 7, 9}, {2, 70, 5, 37}, {1, 1100, 3, 3},
                                     {6, 24, 21, 31}};  // the last has work for several threads

// Which plans of Winograd's algorithm the forward convolutions of a case take.
void note_plan(const ConvShape& s, DType dtype, std::set<std::string>& plans) {
  if (conv_algorithm(dtype, s) == Algorithm::kWinograd) {
    WinogradPlan plan = plan_conv(Pass::kFprop, s, dtype, Algorithm::kWinograd, present_resources()).winograd;
    plans.insert(std::string(plan.shared ? "shared" : "own") + (plan.blocks > 1 ? "-blocks" : "-block"));
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 6) {
    std::printf("usage: driver serial|threads THREADS L2_BYTES L3_BYTES all|float32\n");
    return 2;
  }
  bool together = std::string(argv[1]) == "threads";
  threads = std::atoi(argv[2]), l2 = std::atol(argv[3]), l3 = std::atol(argv[4]);
  orders = together ? std::vector<Order>{Order::kTogether, Order::kTogether} : std::vector<Order>{Order::kUp, Order::kDown};
  set_engine(Engine::kAlways);
  std::set<std::string> plans;
  int runs = 0, index = 0;
  std::vector<DType> types{DType::kFloat32};
  if (std::string(argv[5]) == "all") {
    types.insert(types.end(), {DType::kFloat64, DType::kBFloat16, DType::kFloat16});
  }
  std::vector<const char*> isas;
  for (const char* isa : {"portable", "avx2", "avx512"}) {
    Isa which = std::string(isa) == "avx512" ? Isa::kAvx512 : std::string(isa) == "avx2" ? Isa::kAvx2 : Isa::kPortable;
    if (isa_supported(which)) {
      isas.push_back(isa);
    }
  }
  for (const Case& c : kCases) {
    Truth truth;
    int layout = index++ % 3;
    for (const char* isa : isas) {
      set_isa(isa);
      for (DType dtype : types) {
        now = std::string(isa) + ", " + c.name + ", type " + std::to_string(static_cast<int>(dtype));
        note_plan(shape_of(c), dtype, plans);
        run(c, dtype, layout, truth);
        ++runs;
      }
    }
  }
  for (const BatchNormCase& c : kBatchNorms) {
    for (const char* isa : isas) {
      set_isa(isa);
      for (DType dtype : types) {
        for (bool last : {false, true}) {
          now = std::string(isa) + ", batch norm of " + std::to_string(c.channels) + (last ? " last" : "") + ", type " +
                std::to_string(static_cast<int>(dtype));
          run_batch_norm(c.images, c.channels, c.height, c.width, last, dtype);
          ++runs;
        }
      }
    }
  }
  std::printf("plans:");
  for (const std::string& plan : plans) {
    std::printf(" %s", plan.c_str());
  }
  std::printf("\n%d runs, %d failures\n", runs, failures);
  return failures != 0;
}
