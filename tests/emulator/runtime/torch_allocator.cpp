// While the library is loaded, torch's CPU tensors have unused memory around them, which the emulator's kernels must
// not touch and whose bytes are checked. Linked in only where asked for (build.TORCH_ALLOCATOR).
#include <c10/core/CPUAllocator.h>
#include <string.h>

#include <mutex>
#include <string>
#include <unordered_map>

#include "memory.h"

namespace {

constexpr size_t kRedzone = emulator::kRedzone;
constexpr unsigned char kCanary = 0xff;

// Of one allocation: `memory` is what the allocator below has given.
struct Block {
  c10::DataPtr memory;
  size_t bytes;
};

struct Blocks {
  std::mutex mutex;
  std::unordered_map<void*, Block> by_data;
  std::string damage;  // the first that was found when a tensor was freed
};

Blocks& blocks() {
  static Blocks* instance = new Blocks;  // never destroyed: tensors may outlive static destructors
  return *instance;
}

// Before the tensor, and after it.
std::string damaged(const void* data, size_t bytes) {
  const auto* begin = static_cast<const unsigned char*>(data);
  for (size_t i = 0; i < kRedzone; ++i) {
    if (begin[-1 - static_cast<ptrdiff_t>(i)] != kCanary) {
      return std::to_string(i + 1) + " bytes before a tensor of " + std::to_string(bytes) + " bytes were written";
    }
    if (begin[bytes + i] != kCanary) {
      return "byte " + std::to_string(i) + " after a tensor of " + std::to_string(bytes) + " bytes was written";
    }
  }
  return "";
}

class GuardedAllocator final : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t bytes) override {
    if (bytes == 0) {
      return base->allocate(0);
    }
    Block block = {base->allocate(bytes + 2 * kRedzone), bytes};
    auto* begin = static_cast<unsigned char*>(block.memory.get());
    void* data = begin + kRedzone;
    memset(begin, kCanary, kRedzone);
    memset(begin + kRedzone + bytes, kCanary, kRedzone);
    emulator::guard(data, bytes);
    std::lock_guard<std::mutex> lock(blocks().mutex);
    blocks().by_data.emplace(data, std::move(block));
    return {data, data, &release, c10::Device(c10::kCPU)};
  }

  c10::DeleterFnPtr raw_deleter() const override {
    return &release;
  }

  void copy_data(void* to, const void* from, size_t count) const override {
    base->copy_data(to, from, count);
  }

  // Whatever is there when this is loaded: torch's own allocator, or the pool of our extension.
  static inline c10::Allocator* const base = c10::GetCPUAllocator();

 private:
  // Memory that the allocator below gave directly, before this one was there, goes back to it.
  static void release(void* data) {
    std::unique_lock<std::mutex> lock(blocks().mutex);
    const auto found = blocks().by_data.find(data);
    if (found == blocks().by_data.end()) {
      lock.unlock();
      if (data) {
        base->raw_deleter()(data);
      }
      return;
    }
    const std::string what = damaged(data, found->second.bytes);
    if (blocks().damage.empty()) {
      blocks().damage = what;
    }
    const Block block = std::move(found->second);  // freed at the end
    blocks().by_data.erase(found);
    lock.unlock();
    emulator::unguard(data);
  }
};

[[maybe_unused]] const bool installed = [] {
  c10::SetCPUAllocator(new GuardedAllocator, 255);
  return true;
}();

}  // namespace

// The first damage to memory around a tensor, freed since the last call or alive, or null.
extern "C" __attribute__((visibility("default"))) const char* emulator_check_canaries() {
  std::lock_guard<std::mutex> lock(blocks().mutex);
  static auto* message = new std::string;
  message->clear();
  message->swap(blocks().damage);
  for (auto block = blocks().by_data.begin(); message->empty() && block != blocks().by_data.end(); ++block) {
    *message = damaged(block->first, block->second.bytes);
  }
  return message->empty() ? nullptr : message->c_str();
}
