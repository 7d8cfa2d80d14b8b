#include "fiber.h"

#include <pthread.h>
#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>
#include <vector>

#ifdef EMULATOR_THREAD
constexpr unsigned kNoOrder = 1;  // a switch says nothing about who may see what
extern "C" {
void* __tsan_create_fiber(unsigned flags);
void __tsan_destroy_fiber(void* fiber);
void __tsan_switch_to_fiber(void* fiber, unsigned flags);
void* __tsan_get_current_fiber();
void __tsan_acquire(void* cell);
void __tsan_release(void* cell);
}
#endif
#ifdef EMULATOR_ADDRESS
extern "C" {
void __sanitizer_start_switch_fiber(void** fake_stack_save, const void* bottom, size_t size);
void __sanitizer_finish_switch_fiber(void* fake_stack_save, const void** bottom_old, size_t* size_old);
void __asan_unpoison_memory_region(const volatile void* begin, size_t size);
}
#endif

// Saves what a function must keep, leaves the stack pointer in *save and goes on where `to` was left.
extern "C" void emulator_switch_stacks(void** save, void* to);
asm(R"(
.text
.hidden emulator_switch_stacks
.globl emulator_switch_stacks
.type emulator_switch_stacks, @function
emulator_switch_stacks:
  .cfi_startproc
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
  .cfi_endproc
)");

namespace emulator {
namespace {

constexpr size_t kGuardBytes = 4096;
constexpr int kSavedRegisters = 6;

std::vector<char*> free_stacks;

char* new_stack() {
  if (!free_stacks.empty()) {
    char* stack = free_stacks.back();
    free_stacks.pop_back();
    return stack;
  }
  char* stack = static_cast<char*>(map_memory(kStackBytes));
  mprotect(stack, kGuardBytes, PROT_NONE);
  return stack;
}

}  // namespace

void* map_memory(size_t bytes) {
  const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, flags, -1, 0);
  if (memory == MAP_FAILED) {
    std::perror("emulator: mmap");
    std::abort();
  }
  return memory;
}

void adopt_thread(Fiber& fiber) {
#ifdef EMULATOR_THREAD
  fiber.thread_sanitizer = __tsan_get_current_fiber();
#endif
#ifdef EMULATOR_ADDRESS
  pthread_attr_t attributes;
  pthread_getattr_np(pthread_self(), &attributes);
  void* bottom;
  pthread_attr_getstack(&attributes, &bottom, &fiber.stack_bytes);
  pthread_attr_destroy(&attributes);
  fiber.stack = static_cast<char*>(bottom);
#endif
  (void)fiber;
}

void start_fiber(Fiber& fiber, void (*function)()) {
  fiber.stack = new_stack();
  fiber.stack_bytes = kStackBytes;
#ifdef EMULATOR_ADDRESS
  __asan_unpoison_memory_region(fiber.stack, kStackBytes);  // what a given-up lane's functions left
#endif
  // The stack as if `function` had been called and had pushed its registers: aligned to 16 before the return address.
  // At different distances from their ends: at the same they would share a few sets of the caches.
  static unsigned turn;
  const size_t distance = turn++ % 64 * 320;
  void** top = reinterpret_cast<void**>(fiber.stack + kStackBytes - distance);
  *--top = nullptr;
  *--top = nullptr;
  *--top = nullptr;
  *--top = reinterpret_cast<void*>(function);
  for (int i = 0; i < kSavedRegisters; ++i) {
    *--top = nullptr;
  }
  fiber.stack_pointer = top;
  fiber.address_sanitizer = nullptr;
#ifdef EMULATOR_THREAD
  fiber.thread_sanitizer = __tsan_create_fiber(0);
#endif
}

void switch_fiber(Fiber& from, Fiber& to, [[maybe_unused]] bool from_ends) {
#ifdef EMULATOR_ADDRESS
  __sanitizer_start_switch_fiber(from_ends ? nullptr : &from.address_sanitizer, to.stack, to.stack_bytes);
#endif
#ifdef EMULATOR_THREAD
  __tsan_switch_to_fiber(to.thread_sanitizer, kNoOrder);
#endif
  emulator_switch_stacks(&from.stack_pointer, to.stack_pointer);
#ifdef EMULATOR_ADDRESS
  __sanitizer_finish_switch_fiber(from.address_sanitizer, nullptr, nullptr);
#endif
}

void fiber_started() {
#ifdef EMULATOR_ADDRESS
  __sanitizer_finish_switch_fiber(nullptr, nullptr, nullptr);
#endif
}

void end_fiber(Fiber& fiber) {
#ifdef EMULATOR_THREAD
  __tsan_destroy_fiber(fiber.thread_sanitizer);
  munmap(fiber.stack, kStackBytes);  // the next block's lanes are other threads: to them its stacks must be new
#else
  free_stacks.push_back(fiber.stack);
#endif
  fiber.stack = nullptr;
}

#ifdef EMULATOR_THREAD
void released(const Fiber& fiber, void* cell) {
  void* present = __tsan_get_current_fiber();
  __tsan_switch_to_fiber(fiber.thread_sanitizer, kNoOrder);
  __tsan_release(cell);
  __tsan_switch_to_fiber(present, kNoOrder);
}
void acquired(const Fiber& fiber, void* cell) {
  void* present = __tsan_get_current_fiber();
  __tsan_switch_to_fiber(fiber.thread_sanitizer, kNoOrder);
  __tsan_acquire(cell);
  __tsan_switch_to_fiber(present, kNoOrder);
}
void start_shadow(Fiber& fiber) {
  fiber.thread_sanitizer = __tsan_create_fiber(0);
}
void end_shadow(Fiber& fiber) {
  __tsan_destroy_fiber(fiber.thread_sanitizer);
}
void enter(const Fiber& fiber) {
  __tsan_switch_to_fiber(fiber.thread_sanitizer, kNoOrder);
}
void leave(const Fiber& back_to) {
  enter(back_to);
}
void AsBookkeeper::resume() {
  static void* bookkeeper = __tsan_create_fiber(0);
  __tsan_switch_to_fiber(bookkeeper, kNoOrder);
}
AsBookkeeper::AsBookkeeper() : before_(__tsan_get_current_fiber()) {
  resume();
}
AsBookkeeper::~AsBookkeeper() {
  __tsan_switch_to_fiber(before_, kNoOrder);
}
#else
void released(const Fiber&, void*) {
}
void acquired(const Fiber&, void*) {
}
void start_shadow(Fiber&) {
}
void end_shadow(Fiber&) {
}
void enter(const Fiber&) {
}
void leave(const Fiber&) {
}
#endif

}  // namespace emulator
