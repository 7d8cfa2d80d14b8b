#include "workspace.h"

#include <ATen/ops/from_blob.h>
#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <algorithm>
#include <array>
#include <cstdlib>
#include <map>
#include <mutex>
#include <new>

namespace resnet_fused {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;

class Pool {
 public:
  struct Block {
    void* data;
    size_t size;
  };

  Block take(size_t bytes) {
    std::lock_guard<std::mutex> lock(mutex_);
    Block block{};
    if (auto found = free_.lower_bound(bytes); found != free_.end()) {
      block = {found->second, found->first};
      free_.erase(found);
    } else {
      size_t size = (std::max<size_t>(bytes, 1) + kHugePage - 1) / kHugePage * kHugePage;
      peak_ = std::max(peak_, used_ + size);
      while (!free_.empty() && held_ + size > peak_) {
        drop(free_.begin());
      }
      block = {allocate(size), size};
      held_ += size;
    }
    used_ += block.size;
    peak_ = std::max(peak_, used_);
    return block;
  }

  void give(Block block) {
    std::lock_guard<std::mutex> lock(mutex_);
    used_ -= block.size;
    free_.emplace(block.size, block.data);
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
    if (!data) {
      throw std::bad_alloc();
    }
#if defined(__linux__)
    madvise(data, size, MADV_HUGEPAGE);  // a hint: fewer page faults and TLB misses
#endif
    return data;
  }

  void drop(Free::iterator block) {
    held_ -= block->first;
    std::free(block->second);
    free_.erase(block);
  }

  std::mutex mutex_;
  Free free_;
  size_t held_ = 0, used_ = 0, peak_ = 0;
};

Pool& pool() {
  static Pool* instance = new Pool;  // never destroyed: a tensor may outlive static destructors
  return *instance;
}

}  // namespace

at::Tensor workspace_like(const at::Tensor& like, at::MemoryFormat format) {
  Pool::Block block = pool().take(like.numel() * like.element_size());
  int64_t C = like.size(1), H = like.size(2), W = like.size(3);
  bool last = format == at::MemoryFormat::ChannelsLast;
  std::array<int64_t, 4> strides{C * H * W, last ? 1 : H * W, last ? W * C : W, last ? C : 1};
  return at::from_blob(
      block.data, like.sizes(), strides, [block](void*) { pool().give(block); }, like.options());
}

int64_t workspace_bytes() {
  return static_cast<int64_t>(pool().held());
}

void release_workspaces() {
  pool().release();
}

}  // namespace resnet_fused
