#include "allocator.h"

#include <c10/core/CPUAllocator.h>
#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <algorithm>
#include <cstdlib>
#include <map>
#include <mutex>
#include <tuple>
#include <unordered_map>

namespace resnet_fused {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;
constexpr size_t kLarge = size_t{1} << 20;  // the heap keeps smaller blocks mapped by itself

class Pool {
 public:
  // Null where the system has no more, though all that is unused was given back.
  void* take(size_t bytes) {
    size_t size = (bytes + kHugePage - 1) / kHugePage * kHugePage;
    std::lock_guard<std::mutex> lock(mutex_);
    // A block that is much too large would be missing where it fits.
    auto found = free_.lower_bound(bytes);
    void* data = nullptr;
    if (found != free_.end() && found->first <= size + size / 4) {
      std::tie(size, data) = *found;
      free_.erase(found);
    } else {
      size_t peak = std::max(peak_, used_ + size);
      while (!free_.empty() && held_ + size > peak + peak / 2) {
        drop(free_.begin());
      }
      while (!(data = allocate(size)) && !free_.empty()) {
        drop(free_.begin());
      }
      if (!data) {
        return nullptr;
      }
      held_ += size;
    }
    sizes_.emplace(data, size);
    used_ += size;
    peak_ = std::max(peak_, used_);
    report(data, static_cast<int64_t>(size));
    return data;
  }

  // False where the pool never gave this block.
  bool give_back(void* data) {
    std::lock_guard<std::mutex> lock(mutex_);
    auto found = sizes_.find(data);
    if (found == sizes_.end()) {
      return false;
    }
    report(data, -static_cast<int64_t>(found->second));
    used_ -= found->second;
    free_.emplace(found->second, data);
    sizes_.erase(found);
    return true;
  }

  void release() {
    std::lock_guard<std::mutex> lock(mutex_);
    while (!free_.empty()) {
      drop(free_.begin());
    }
    peak_ = used_;
  }

  size_t held() {
    std::lock_guard<std::mutex> lock(mutex_);
    return held_;
  }

 private:
  using Free = std::multimap<size_t, void*>;

  static void* allocate(size_t size) {
    void* data = std::aligned_alloc(kHugePage, size);
#if defined(__linux__)
    if (data) {
      madvise(data, size, MADV_HUGEPAGE);  // a hint: fewer page faults and TLB misses
    }
#endif
    return data;
  }

  void drop(Free::iterator block) {
    held_ -= block->first;
    std::free(block->second);
    free_.erase(block);
  }

  void report(void* data, int64_t change) {
    if (c10::memoryProfilingEnabled()) {
      c10::reportMemoryUsageToProfiler(data, change, used_, held_, c10::Device(c10::kCPU));
    }
  }

  std::mutex mutex_;
  Free free_;
  std::unordered_map<void*, size_t> sizes_;  // of the blocks in use
  size_t held_ = 0, used_ = 0, peak_ = 0;
};

Pool& pool() {
  static Pool* instance = new Pool;  // never destroyed: a tensor may outlive static destructors
  return *instance;
}

thread_local bool pooled = false;

// torch's CPU allocator, except for large blocks on a thread that is inside one of our operators.
class PoolAllocator final : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t bytes) override {
    if (!pooled || bytes < kLarge) {
      return base_->allocate(bytes);
    }
    void* data = pool().take(bytes);
    if (!data) {
      return base_->allocate(bytes);  // which says why not, in torch's words
    }
    return {data, data, &release, c10::Device(c10::kCPU)};
  }

  c10::DeleterFnPtr raw_deleter() const override {
    return &release;
  }

  void copy_data(void* to, const void* from, size_t count) const override {
    base_->copy_data(to, from, count);
  }

 private:
  // oneDNN allocates raw memory within our operators, others do outside: either may come to be freed here.
  static void release(void* data) {
    if (!pool().give_back(data)) {
      base_->raw_deleter()(data);
    }
  }

  static inline c10::Allocator* base_ = c10::GetCPUAllocator();
};

[[maybe_unused]] const bool installed = [] {
  c10::SetCPUAllocator(new PoolAllocator);
  return true;
}();

}  // namespace

PooledAllocations::PooledAllocations() : outer_(pooled) {
  pooled = true;
}

PooledAllocations::~PooledAllocations() {
  pooled = outer_;
}

int64_t pool_bytes() {
  return static_cast<int64_t>(pool().held());
}

void release_pool() {
  pool().release();
}

}  // namespace resnet_fused
