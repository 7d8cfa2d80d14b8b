// An access of a kernel to memory that is not there becomes the launch's error.
#pragma once

#include <signal.h>

#include <memory>

namespace emulator {

// While one lives, faults of a lane end the launch; others are left to whoever handled them before.
class FaultHandler {
 public:
  FaultHandler();
  ~FaultHandler();
  FaultHandler(const FaultHandler&) = delete;
  FaultHandler& operator=(const FaultHandler&) = delete;

 private:
  std::unique_ptr<char[]> stack_;  // a lane's may be what has run out
  stack_t old_stack_;
  struct sigaction old_segv_, old_bus_;
};

}  // namespace emulator
