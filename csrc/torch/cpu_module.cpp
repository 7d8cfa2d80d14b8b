// The Python module resnet_fused._cpu. Importing it registers the operators; what it exposes itself are
// facts about the build, the choice of instruction set, and pure functions.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <chrono>
#include <initializer_list>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "../cpu/conv.h"
#include "../cpu/isa.h"
#include "../cpu/parallel.h"
#include "../cpu/plan.h"
#include "allocator.h"
#include "weight_cache.h"

namespace py = pybind11;
using namespace resnet_fused;

namespace {

std::vector<std::string> isas(bool supported_only) {
  std::vector<std::string> names;
#if defined(__x86_64__)
  constexpr int kCompiled = cpu::kIsas;
#else
  constexpr int kCompiled = 1;
#endif
  for (int i = 0; i < kCompiled; ++i) {
    auto isa = static_cast<cpu::Isa>(i);
    if (!supported_only || cpu::isa_supported(isa)) {
      names.push_back(cpu::isa_name(isa));
    }
  }
  return names;
}

py::dict facts() {
  py::dict d;
  d["torch"] = RESNET_FUSED_TORCH_VERSION;
#if defined(__clang__)
  d["compiler"] = "clang " __clang_version__;
#else
  d["compiler"] = "g++ " __VERSION__;
#endif
  d["flags"] = RESNET_FUSED_FLAGS;
  d["isas"] = isas(false);
  d["isas_supported"] = isas(true);
  d["isa"] = cpu::isa_name(cpu::active_isa());
  return d;
}

// Units of each chunk: [(begin, end), …].
std::vector<std::pair<int64_t, int64_t>> plan_chunks(int64_t units, int64_t elements_per_unit, int threads) {
  cpu::Plan plan = cpu::plan_chunks(units, elements_per_unit, threads);
  std::vector<std::pair<int64_t, int64_t>> chunks;
  for (int64_t i = 0; i < plan.chunks; ++i) {
    chunks.emplace_back(cpu::chunk_begin(plan, i), cpu::chunk_begin(plan, i + 1));
  }
  return chunks;
}

using Pair = std::pair<int64_t, int64_t>;

cpu::ConvShape conv_shape(const std::vector<int64_t>& input, const std::vector<int64_t>& weight, Pair stride, Pair padding,
                          Pair dilation, int64_t groups) {
  if (input.size() != 4 || weight.size() != 4 || std::min({stride.first, stride.second, groups}) < 1) {
    throw std::invalid_argument("expected sizes [N, C, H, W] and [K, C / groups, R, S], strides and groups of at least 1");
  }
  int64_t P = (input[2] + 2 * padding.first - dilation.first * (weight[2] - 1) - 1) / stride.first + 1;
  int64_t Q = (input[3] + 2 * padding.second - dilation.second * (weight[3] - 1) - 1) / stride.second + 1;
  return {input[0], input[1], input[2], input[3], weight[0], weight[2], weight[3], P, Q,
          {stride.first, stride.second}, {padding.first, padding.second}, {dilation.first, dilation.second}, groups};
}

template <typename Enum>
Enum parse(const std::string& name, std::initializer_list<const char*> names, const char* what) {
  int index = 0;
  for (const char* candidate : names) {
    if (name == candidate) {
      return static_cast<Enum>(index);
    }
    ++index;
  }
  throw std::invalid_argument(std::string("unknown ") + what + " '" + name + "'");
}

py::dict dict_of(const cpu::Strips& s) {
  return py::dict(py::arg("images") = s.images, py::arg("rows") = s.rows, py::arg("image_strips") = s.image_strips,
                  py::arg("row_strips") = s.row_strips, py::arg("splits") = s.splits);
}

py::dict dict_of(const cpu::WinogradPlan& p) {
  return py::dict(py::arg("blocks") = p.blocks, py::arg("shared") = p.shared,
                  py::arg("transform_once") = p.transform_once);
}

// How one pass of a convolution would be run: a pure function of its arguments.
py::dict plan(const std::string& pass, const std::vector<int64_t>& input, const std::vector<int64_t>& weight, Pair stride,
              Pair padding, Pair dilation, int64_t groups, const std::string& dtype, const std::string& isa,
              bool native_bf16, bool winograd, int threads, int64_t l1, int64_t l2, int64_t l3) {
  cpu::Machine machine{parse<cpu::Isa>(isa, {"portable", "avx2", "avx512"}, "ISA"), native_bf16};
  auto which = parse<cpu::Pass>(pass, {"fprop", "dgrad", "wgrad"}, "pass");
  auto type = parse<DType>(dtype, {"float32", "float64", "bfloat16", "float16"}, "dtype");
  cpu::ConvShape shape = conv_shape(input, weight, stride, padding, dilation, groups);
  auto algorithm = cpu::choose_algorithm(shape, type, machine, cpu::Engine::kAuto, winograd);
  py::dict result(py::arg("algorithm") = cpu::algorithm_name(algorithm));
  if (algorithm == cpu::Algorithm::kLibrary) {
    return result;
  }
  cpu::ConvPlan plan = cpu::plan_conv(which, shape, type, algorithm, {machine.isa, threads, {l2, l3, l1}});
  if (algorithm == cpu::Algorithm::kWinograd) {
    result["winograd"] = dict_of(plan.winograd);
  } else if (which == cpu::Pass::kWgrad) {
    result["strips"] = dict_of(plan.wgrad.strips);
    result["parts"] = plan.wgrad.parts;
  } else {
    py::list strips;
    for (const cpu::Strips& s : plan.strips) {
      strips.append(dict_of(s));
    }
    result["strips"] = strips;
  }
  return result;
}

std::string conv_algorithm(const std::vector<int64_t>& input, const std::vector<int64_t>& weight, Pair stride, Pair padding,
                           Pair dilation, int64_t groups, const std::string& dtype) {
  auto type = parse<DType>(dtype, {"float32", "float64", "bfloat16", "float16"}, "dtype");
  return cpu::algorithm_name(cpu::conv_algorithm(type, conv_shape(input, weight, stride, padding, dilation, groups)));
}

py::dict plan_strips(int64_t images, int64_t rows, int64_t row_bytes, int64_t row_advance, int64_t row_span,
                     int64_t column_tiles, int64_t weight_bytes, int threads, int64_t l2, int64_t l3) {
  return dict_of(cpu::plan_strips(images, rows, row_bytes, row_advance, row_span, column_tiles, weight_bytes, threads,
                                  {l2, l3}));
}

py::dict plan_winograd(int64_t images, int64_t tile_rows, int64_t tile_columns, int64_t channels, int64_t column_tiles,
                       int threads, int64_t l2, int64_t l3) {
  return dict_of(cpu::plan_winograd(images, tile_rows, tile_columns, channels, column_tiles, sizeof(float), threads,
                                    {l2, l3}));
}

// How many threads really run the chunks of a parallel region.
size_t count_threads() {
  std::vector<std::thread::id> ids(cpu::max_threads());
  cpu::parallel_for(ids.size(), [&](int64_t i) { ids[i] = std::this_thread::get_id(); });
  return std::set<std::thread::id>(ids.begin(), ids.end()).size();
}

// GFLOP/s of float32 multiply-adds on `threads` threads, the best of five measurements.
double fma_peak(int threads) {
  constexpr int64_t kCount = 4000000;
  const cpu::Kernels& kernels = cpu::active_kernels();
  double best = 0;
  std::vector<float> results(threads);  // used, or else the loop would not be run
  for (int repeat = 0; repeat < 5; ++repeat) {
    auto start = std::chrono::steady_clock::now();
    cpu::parallel_for(threads, [&](int64_t i) { results[i] += kernels.multiply_add(kCount); });
    double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    best = std::max(best, double(threads) * kCount * kernels.multiply_add_operations / seconds / 1e9);
  }
  return best;
}

}  // namespace

PYBIND11_MODULE(_cpu, m) {
  m.doc() = "CPU kernels of resnet_fused; the operators are torch.ops.resnet_fused.*";
  m.def("facts", &facts, "Compiler, flags, torch version and instruction sets of this build.");
  m.def("isa", [] { return std::string(cpu::isa_name(cpu::active_isa())); }, "The instruction set in use.");
  m.def("set_isa_for_testing", [](const std::string& name) { cpu::set_isa(name.c_str()); });
  m.def("plan_chunks", &plan_chunks, py::arg("units"), py::arg("elements_per_unit"), py::arg("threads"));
  m.def("count_threads", &count_threads, "How many threads run a parallel region.");
  m.def("set_engine_for_testing", [](const std::string& use) {
    cpu::set_engine(parse<cpu::Engine>(use, {"auto", "always", "never"}, "use of the engine"));
  });
  m.def("conv_algorithm", &conv_algorithm, py::arg("input"), py::arg("weight"), py::arg("stride"), py::arg("padding"),
        py::arg("dilation"), py::arg("groups"), py::arg("dtype"),
        "'winograd', 'direct', 'depthwise' or 'library': what runs such a convolution here and now.");
  m.def("plan", &plan, py::arg("pass_"), py::arg("input"), py::arg("weight"), py::arg("stride"), py::arg("padding"),
        py::arg("dilation"), py::arg("groups"), py::arg("dtype"), py::arg("isa"), py::arg("native_bf16"),
        py::arg("winograd"), py::arg("threads"), py::arg("l1"), py::arg("l2"), py::arg("l3"),
        "Algorithm of a pass ('fprop', 'dgrad', 'wgrad') and how it is cut into tasks, on any machine.");
  m.def("plan_strips", &plan_strips, py::arg("images"), py::arg("rows"), py::arg("row_bytes"), py::arg("row_advance"),
        py::arg("row_span"), py::arg("column_tiles"), py::arg("weight_bytes"), py::arg("threads"), py::arg("l2"), py::arg("l3"));
  m.def("plan_winograd", &plan_winograd, py::arg("images"), py::arg("tile_rows"), py::arg("tile_columns"),
        py::arg("channels"), py::arg("column_tiles"), py::arg("threads"), py::arg("l2"), py::arg("l3"));
  m.def("set_winograd", &cpu::set_winograd, py::arg("enabled"));
  m.def("winograd", &cpu::winograd_enabled);
  m.def("fma_peak", &fma_peak, py::arg("threads"), "GFLOP/s of float32 multiply-adds on so many threads.");
  m.def("pool_bytes", &pool_bytes, "Bytes that the pool of large tensors holds, in use or not.");
  m.def("kept_weight_bytes", &kept_weight_bytes, "Bytes of packed weights kept for inference.");
  m.def("release_kept_weights", &release_kept_weights);
  m.def("release_pool", &release_pool, "Returns the pool's unused memory to the system.");
}
