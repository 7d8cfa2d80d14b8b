// The Python module resnet_fused._cuda. It imports on a machine without a GPU or driver.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <string>

#include "../cuda/build_facts.h"

namespace py = pybind11;

namespace {

py::dict facts() {
  auto build = resnet_fused::cuda::build_facts();
  py::dict d;
  d["torch"] = RESNET_FUSED_TORCH_VERSION;
  d["nvcc"] = std::to_string(build.nvcc_major) + "." + std::to_string(build.nvcc_minor);
  py::list architectures;
  for (int arch : build.architectures) {
    architectures.append("sm_" + std::to_string(arch / 10));
  }
  d["architectures"] = architectures;
  return d;
}

}  // namespace

PYBIND11_MODULE(_cuda, m) {
  m.doc() = "CUDA kernels of resnet_fused";
  m.def("facts", &facts, "torch and nvcc version and architectures of this build.");
}
