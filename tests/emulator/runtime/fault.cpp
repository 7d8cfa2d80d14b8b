#include "fault.h"

#include <dlfcn.h>
#include <ucontext.h>

#include <cstdio>
#include <string>

#include "scheduler.h"

namespace emulator {
namespace {

constexpr size_t kSignalStackBytes = 65536;

struct {
  u64 address, instruction;
} fault;

std::string hex(u64 number) {
  char text[32];
  snprintf(text, sizeof text, "0x%llx", static_cast<unsigned long long>(number));
  return text;
}

// Where the lane goes on after the signal, on its own stack, which nobody needs any more.
[[noreturn]] void end_launch() {
  const LaneState& lane = current_lane();
  const auto number = [](u32 n) { return std::to_string(n); };
  const std::string thread = number(lane.tid[0]) + "," + number(lane.tid[1]) + "," + number(lane.tid[2]);
  std::string message = "thread (" + thread + "): ";
  if (fault.address - reinterpret_cast<u64>(lane.fiber.stack) < lane.fiber.stack_bytes) {
    abandon(message + "a lane's stack is too small");
  }
  message += "no memory is at " + hex(fault.address);
  Dl_info library;
  if (dladdr(reinterpret_cast<void*>(fault.instruction), &library)) {
    const u64 offset = fault.instruction - reinterpret_cast<u64>(library.dli_fbase);
    message += std::string(" (for the line: addr2line -ie ") + library.dli_fname + " " + hex(offset) + ")";
  }
  abandon(message);
}

void handle(int signal, siginfo_t* info, void* context) {
  if (!lanes_run()) {
    ::signal(signal, SIG_DFL);  // on return the instruction faults again
    return;
  }
  auto& registers = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
  fault = {reinterpret_cast<u64>(info->si_addr), static_cast<u64>(registers[REG_RIP])};
  const Fiber& fiber = current_lane().fiber;
  // As if it had been called: the stack is aligned to 16 bytes but for the return address.
  registers[REG_RSP] = reinterpret_cast<greg_t>(fiber.stack + fiber.stack_bytes - 64 - sizeof(void*));
  registers[REG_RIP] = reinterpret_cast<greg_t>(end_launch);
}

}  // namespace

FaultHandler::FaultHandler() : stack_(new char[kSignalStackBytes]) {
  stack_t stack = {};
  stack.ss_sp = stack_.get();
  stack.ss_size = kSignalStackBytes;
  sigaltstack(&stack, &old_stack_);
  struct sigaction action = {};
  action.sa_sigaction = handle;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  sigaction(SIGSEGV, &action, &old_segv_);
  sigaction(SIGBUS, &action, &old_bus_);
}

FaultHandler::~FaultHandler() {
  sigaction(SIGSEGV, &old_segv_, nullptr);
  sigaction(SIGBUS, &old_bus_, nullptr);
  sigaltstack(&old_stack_, nullptr);
}

}  // namespace emulator
