// A stack of its own for every lane, and switching between them. x86-64 only.
#pragma once

#include <stddef.h>

namespace emulator {

// Fresh zeros, of which only what is touched takes memory. Ends the process if there is none.
void* map_memory(size_t bytes);

struct Fiber {
  void* stack_pointer = nullptr;
  char* stack = nullptr;  // null: the thread's own
  size_t stack_bytes = 0;
  void* thread_sanitizer = nullptr;   // what ThreadSanitizer takes for a thread
  void* address_sanitizer = nullptr;  // AddressSanitizer's fake stack
};

constexpr size_t kStackBytes = size_t{256} << 10;

// The fiber of the thread that launches.
void adopt_thread(Fiber& fiber);
// `function` begins when the fiber is first switched to; it must not return, but switch away for good.
void start_fiber(Fiber& fiber, void (*function)());
// from_ends: it will not be switched to again.
void switch_fiber(Fiber& from, Fiber& to, bool from_ends = false);
// Call first in `function`.
void fiber_started();
// For fibers that ended, or are given up. Their stacks are used again.
void end_fiber(Fiber& fiber);

// For ThreadSanitizer, which takes every fiber for a thread: what one did before released(cell) is seen by another
// after acquired(cell). Nothing else orders two lanes. Called for any fiber, by whichever runs.
void released(const Fiber& fiber, void* cell);
void acquired(const Fiber& fiber, void* cell);
// A thread that has no stack: what is done between enter() and leave() is its doing.
void start_shadow(Fiber& fiber);
void end_shadow(Fiber& fiber);
void enter(const Fiber& fiber);
void leave(const Fiber& back_to);

// While one lives, what is done is the doing of one thread, the same for all of the runtime's own records: lanes
// allocate and free them in turn.
class AsBookkeeper {
#ifdef EMULATOR_THREAD
 public:
  AsBookkeeper();
  ~AsBookkeeper();
  AsBookkeeper(const AsBookkeeper&) = delete;
  AsBookkeeper& operator=(const AsBookkeeper&) = delete;
  static void resume();  // after enter()

 private:
  void* before_;
#else
 public:
  AsBookkeeper() {
  }
  static void resume() {
  }
#endif
};

}  // namespace emulator
