// The Python module resnet_fused._cpu. Importing it registers the operators; what it exposes itself are
// facts about the build, the choice of instruction set, and pure functions.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <chrono>
#include <set>
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
  m.def("set_winograd", &cpu::set_winograd, py::arg("enabled"));
  m.def("winograd", &cpu::winograd_enabled);
  m.def("fma_peak", &fma_peak, py::arg("threads"), "GFLOP/s of float32 multiply-adds on so many threads.");
  m.def("pool_bytes", &pool_bytes, "Bytes that the pool of large tensors holds, in use or not.");
  m.def("kept_weight_bytes", &kept_weight_bytes, "Bytes of packed weights kept for inference.");
  m.def("release_kept_weights", &release_kept_weights);
  m.def("release_pool", &release_pool, "Returns the pool's unused memory to the system.");
}
