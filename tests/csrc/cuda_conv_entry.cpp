// The launchers of the CUDA convolutions for ctypes: what they throw is returned as text.
#include <string.h>

#include <exception>

#include "../../csrc/cuda/conv.h"
#include "../../csrc/cuda/heuristics.h"

using namespace resnet_fused::cuda;

namespace {

char message[1000];

template <typename Params>
const char* run(void (*launcher)(const Params&, void*, cudaStream_t), const Params* params, void* workspace) {
  try {
    launcher(*params, workspace, nullptr);
  } catch (const std::exception& error) {
    strncpy(message, error.what(), sizeof(message) - 1);
    return message;
  }
  return nullptr;
}

}  // namespace

extern "C" {

const char* unsupported(const ConvProblem* problem) { return conv_unsupported(*problem); }

int64_t fprop_workspace(const ConvFpropParams* params) { return conv_fprop_workspace(*params); }
int64_t dgrad_workspace(const ConvDgradParams* params) { return conv_dgrad_workspace(*params); }
int64_t wgrad_workspace(const ConvWgradParams* params) { return conv_wgrad_workspace(*params); }

const char* fprop(const ConvFpropParams* params, void* workspace) { return run(launch_conv_fprop, params, workspace); }
const char* dgrad(const ConvDgradParams* params, void* workspace) { return run(launch_conv_dgrad, params, workspace); }
const char* wgrad(const ConvWgradParams* params, void* workspace) { return run(launch_conv_wgrad, params, workspace); }

TilePlan fprop_plan(const ConvFpropParams* params) { return plan_conv_fprop(*params); }
TilePlan dgrad_plan(const ConvDgradParams* params) { return plan_conv_dgrad(*params); }
TilePlan wgrad_plan(const ConvWgradParams* params) { return plan_conv_wgrad(*params); }

}  // extern "C"
