#include "weight_cache.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <iterator>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "../cpu/tasks.h"
#include "dense.h"

namespace resnet_fused {
namespace {

using WeakTensor = c10::weak_intrusive_ptr<c10::TensorImpl, c10::UndefinedTensorImpl>;

struct Identity {
  const void* data;
  uint64_t version, sample;
  std::array<int64_t, 4> strides;
  bool operator==(const Identity& other) const = default;
};

struct Packing {
  int64_t tag, bytes;
  at::Tensor memory;  // undefined at first sight
  bool ready = false;
};

// Packings for several algorithms: which one runs depends on the batch.
struct Entry {
  WeakTensor weight;
  Identity identity;
  std::vector<Packing> packings;
};

std::mutex mutex;
std::unordered_map<c10::TensorImpl*, Entry>& entries() {
  static auto* map = new std::unordered_map<c10::TensorImpl*, Entry>;  // tensors may outlive static destructors
  return *map;
}

// A hash of one value of each filter and some hundred others. They lie in as many cache lines, mostly in none of the
// caches: all are asked for before the first is read.
template <typename Bits>
uint64_t sample_of(const Bits* data, int64_t filters, int64_t filter_size) {
  constexpr int64_t kSamples = 256, kAsked = 64;
  constexpr uint64_t kPrime = 1099511628211u, kStep = 0x9e3779b97f4a7c15u;
  uint64_t hash = 14695981039346656037u, random = 1;
  const Bits* asked[kAsked];
  for (int64_t first = 0; first < filters + kSamples; first += kAsked) {
    int64_t count = std::min(kAsked, filters + kSamples - first);
    for (int64_t i = 0; i < count; ++i) {
      random = random * 6364136223846793005u + kStep;
      int64_t filter = first + i < filters ? first + i : (random >> 33) % filters;
      asked[i] = data + filter * filter_size + (random >> 20) % filter_size;
      __builtin_prefetch(asked[i]);
    }
    for (int64_t i = 0; i < count; ++i) {
      hash = (hash ^ *asked[i]) * kPrime;
    }
  }
  return hash;
}

uint64_t sample_of(const at::Tensor& w) {
  int64_t filters = w.size(0), filter_size = w.numel() / std::max<int64_t>(filters, 1);
  const void* data = w.const_data_ptr();
  switch (w.element_size()) {
    case 2:
      return sample_of(static_cast<const uint16_t*>(data), filters, filter_size);
    case 4:
      return sample_of(static_cast<const uint32_t*>(data), filters, filter_size);
    default:
      return sample_of(static_cast<const uint64_t*>(data), filters, filter_size);
  }
}

// Only such weights are kept: a filter's values follow each other in some order.
bool is_whole(const at::Tensor& w) {
  return w.is_non_overlapping_and_dense() && w.stride(0) * w.size(0) == w.numel();
}

void drop_dead() {
  for (auto it = entries().begin(); it != entries().end();) {
    it = it->second.weight.expired() ? entries().erase(it) : std::next(it);
  }
}

// The packing of a weight that is in this memory; null where it has been given up meanwhile.
Packing* find_packing(const at::Tensor& weight, const at::Tensor& memory) {
  auto found = entries().find(weight.unsafeGetTensorImpl());
  if (found == entries().end()) {
    return nullptr;
  }
  auto& packings = found->second.packings;
  auto packing =
      std::find_if(packings.begin(), packings.end(), [&](const Packing& p) { return p.memory.is_same(memory); });
  return packing == packings.end() ? nullptr : &*packing;
}

}  // namespace

void WeightSamples::take(at::TensorList weights) {
  std::vector<at::Tensor> dense;  // what is wrong with others is not said here
  std::copy_if(weights.begin(), weights.end(), std::back_inserter(dense), [](const at::Tensor& w) {
    bool strided = w.is_cpu() && w.layout() == at::kStrided && w.dim() == 4 && w.is_floating_point();
    return strided && w.element_size() > 1 && w.numel() > 0 && is_whole(w) && is_allocated(w);
  });
  {
    std::lock_guard<std::mutex> lock(mutex);
    drop_dead();  // of models that were deleted, though nothing new comes
  }
  std::vector<uint64_t> samples(dense.size());
  std::atomic<size_t> next{0};
  cpu::parallel_for(cpu::workers_for(dense.size()), [&](int64_t) {
    for (size_t i = next++; i < dense.size(); i = next++) {
      samples[i] = sample_of(dense[i]);
    }
  });
  for (size_t i = 0; i < dense.size(); ++i) {
    taken_.emplace(dense[i].unsafeGetTensorImpl(), samples[i]);
  }
}

uint64_t WeightSamples::of(const at::Tensor& weight) const {
  auto found = taken_.find(weight.unsafeGetTensorImpl());
  return found != taken_.end() ? found->second : sample_of(weight);
}

cpu::KeptMemory KeptWeights::get(int64_t tag, int64_t bytes) {
  if (!is_whole(weight_)) {
    return {nullptr, false};
  }
  c10::TensorImpl* tensor = weight_.unsafeGetTensorImpl();
  uint64_t version = weight_.is_inference() ? 0 : tensor->version_counter().current_version();
  Identity now{weight_.const_data_ptr(), version, samples_.of(weight_), {}};
  std::copy_n(weight_.strides().begin(), now.strides.size(), now.strides.begin());
  std::lock_guard<std::mutex> lock(mutex);
  auto found = entries().find(tensor);
  bool same = found != entries().end() && !found->second.weight.expired() && found->second.identity == now;
  Packing* packing = nullptr;
  if (same) {
    for (Packing& p : found->second.packings) {
      packing = p.tag == tag && p.bytes == bytes ? &p : packing;
    }
  }
  if (packing && !packing->memory.defined()) {  // filled with what is there now, not when the sample was taken
    now.sample = sample_of(weight_);
    same = found->second.identity == now;
  }
  if (!same) {
    drop_dead();
    entries().insert_or_assign(tensor, Entry{WeakTensor(weight_.getIntrusivePtr()), now, {{tag, bytes, {}}}});
    return {nullptr, false};
  }
  if (!packing) {
    found->second.packings.push_back({tag, bytes, {}});
    return {nullptr, false};
  }
  if (!packing->memory.defined()) {
    packing->memory =
        at::empty({bytes}, weight_.options().dtype(at::kByte).memory_format(at::MemoryFormat::Contiguous));
    memory_ = packing->memory;
    filling_ = true;
    return {memory_.mutable_data_ptr(), false};
  }
  if (!packing->ready) {
    return {nullptr, false};
  }
  memory_ = packing->memory;
  return {memory_.mutable_data_ptr(), true};
}

void KeptWeights::filled() {
  if (!filling_) {
    return;
  }
  filling_ = false;
  std::lock_guard<std::mutex> lock(mutex);
  if (Packing* packing = find_packing(weight_, memory_)) {
    packing->ready = true;
  }
}

KeptWeights::~KeptWeights() {
  if (!filling_) {
    return;
  }
  std::lock_guard<std::mutex> lock(mutex);
  if (Packing* packing = find_packing(weight_, memory_)) {
    packing->memory.reset();
  }
}

int64_t kept_weight_bytes() {
  std::lock_guard<std::mutex> lock(mutex);
  int64_t bytes = 0;
  for (const auto& item : entries()) {
    for (const Packing& packing : item.second.packings) {
      bytes += packing.memory.defined() ? packing.bytes : 0;
    }
  }
  return bytes;
}

void release_kept_weights() {
  std::lock_guard<std::mutex> lock(mutex);
  entries().clear();
}

}  // namespace resnet_fused
