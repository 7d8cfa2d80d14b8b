// wgmma. Each warp issues products and performs its 16 rows of them on its own, in order: at a random time, even before
// the other warps have come, or as late as its wait allows. A wait ends when all four warps have issued what it is for.
// From issue to wait the registers of d are poisoned, and the operands must stay as they are.
//
// For ThreadSanitizer a product is performed at once, by a thread that stands for its group, as in async_copy.cpp. What
// it knows of (memcpy and its like, for example) must not be used on lanes' stacks here.
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "matrix_descriptor.h"
#include "scheduler.h"

namespace emulator {
namespace {

constexpr u32 kAll = ~0u;
constexpr u32 kWarpsOfGroup = 4;
constexpr u32 kRows = 16;  // of a product, by one warp
constexpr u32 kPoison = ~0u;

struct IssueOperands {
  WarpgroupShape shape;
  u64 a, b;
  bool add;
  float* const* d;

  bool same(const IssueOperands& o) const {
    return a == o.a && b == o.b && add == o.add;
  }
};

// Registers of a warp that products under way add to: [kRows][n].
struct Accumulators {
  WarpgroupShape shape;
  std::vector<float*> registers[kWarpSize];
  std::vector<float> values;
  u32 products = 0;  // not waited for

  // Register i of a lane.
  float& value(u32 lane, u32 i) {
    const u32 row = lane / 4 + i / 2 % 2 * 8, column = i / 4 * 8 + lane % 4 * 2 + i % 2;
    return values[row * shape.n + column];
  }
};

struct Product {
  Site* site;
  WarpgroupShape shape;
  std::vector<u32> a, b;      // pieces
  std::vector<u64> at_issue;  // their bytes
  bool add;
  u32 group;
  std::shared_ptr<Accumulators> d;
};

// What ThreadSanitizer takes a group of products for.
struct ProductThread {
  u32 group;
  Fiber fiber;
  int start, end;
};

struct WarpProducts {
  std::deque<Product> pending;  // not waited for
  u32 performed;                // of them, the first
  u32 issued;                   // in all
  std::vector<u32> committed;   // `issued` at the end of each group
  bool fenced;                  // since registers of d were the warp's own
  std::deque<std::unique_ptr<ProductThread>> threads;
};

struct Issue {
  const Site* site;
  u64 a, b;
  bool add;
  u32 warp;  // the first to issue it
};

constexpr u32 kWarps = kMaxThreads / kWarpSize, kWarpgroups = kWarps / kWarpsOfGroup;
WarpProducts* const products = new WarpProducts[kWarps]();  // never destroyed, by a thread that is not the bookkeeper
std::vector<Issue>* const issues = new std::vector<Issue>[kWarpgroups];
bool used;

#ifdef EMULATOR_THREAD
constexpr bool kThreads = true;
#else
constexpr bool kThreads = false;
#endif

std::vector<u8> read_pieces(const std::vector<u32>& pieces) {
  std::vector<u8> bytes(pieces.size() * kPieceBytes);
  for (size_t i = 0; i < pieces.size(); ++i) {
    copy_bytes(&bytes[i * kPieceBytes], block.shared + pieces[i], kPieceBytes, kPieceBytes);
  }
  return bytes;
}

// Calls function(word) on the operands' bytes.
template <typename F>
void each_word(const Product& product, const F& function) {
  for (const std::vector<u32>* pieces : {&product.a, &product.b}) {
    for (const u32 piece : *pieces) {
      function(peek<u64>(block.shared + piece));
      function(peek<u64>(block.shared + piece + 8));
    }
  }
}

void keep_operands(Product& product) {
  product.at_issue.reserve((product.a.size() + product.b.size()) * 2);
  each_word(product, [&](u64 word) { product.at_issue.push_back(word); });
}

void check_operands(Lane& lane, const Product& product) {
  const u64* before = product.at_issue.data();
  bool same = true;
  each_word(product, [&](u64 word) { same &= word == *before++; });
  if (!same) {
    fail(lane, *product.site, "shared memory that the product reads was written between its issue and its wait");
  }
}

void perform_next(WarpProducts& warp) {
  const Product& product = warp.pending[warp.performed++];
  const std::vector<u8> a = read_pieces(product.a), b = read_pieces(product.b);
  multiply_rows(product.shape, a.data(), b.data(), product.add, product.d->values.data());
}

void perform_by_thread(LaneState* lanes, WarpProducts& warp) {
  const u32 group = warp.pending.back().group;
  if (warp.threads.empty() || warp.threads.back()->group != group) {
    warp.threads.push_back(std::make_unique<ProductThread>());
    warp.threads.back()->group = group;
    start_shadow(warp.threads.back()->fiber);
  }
  ProductThread& thread = *warp.threads.back();
  for (u32 i = 0; i < kWarpSize; ++i) {
    released(lanes[i].fiber, &thread.start);
  }
  acquired(thread.fiber, &thread.start);
  enter(thread.fiber);
  perform_next(warp);
  AsBookkeeper::resume();
}

void join_threads(LaneState* lanes, WarpProducts& warp, u32 end) {
  while (!warp.threads.empty() && warp.threads.front()->group < end) {
    ProductThread& thread = *warp.threads.front();
    released(thread.fiber, &thread.end);
    for (u32 i = 0; i < kWarpSize; ++i) {
      acquired(lanes[i].fiber, &thread.end);
    }
    end_shadow(thread.fiber);
    warp.threads.pop_front();
  }
}

// All lanes of a warp, and all warps of a group, issue the same.
void check_same(LaneState* lanes, WarpProducts& warp, Site& site) {
  const auto& first = *static_cast<const IssueOperands*>(lanes[0].request.operands);
  for (u32 i = 1; i < kWarpSize; ++i) {
    if (!first.same(*static_cast<const IssueOperands*>(lanes[i].request.operands))) {
      fail(lanes[i], site, "lanes of the warp give different descriptors");
    }
  }
  const u32 group = lanes->warpid / kWarpsOfGroup;
  if ((group + 1) * kWarpsOfGroup * kWarpSize > lane_count()) {
    fail(*lanes, site, "a warpgroup is 4 warps, the first of which has a number that is a multiple of 4");
  }
  std::vector<Issue>& issued = issues[group];
  if (warp.issued == issued.size()) {
    issued.push_back({&site, first.a, first.b, first.add, lanes->warpid});
  }
  const Issue& other = issued[warp.issued];
  const std::string which = "warps " + std::to_string(other.warp) + " and " + std::to_string(lanes->warpid);
  if (other.site != &site) {
    fail(*lanes, site, (which + " of a warpgroup issue different products, the other " + other.site->where).c_str());
  }
  if (other.a != first.a || other.b != first.b || other.add != first.add) {
    fail(*lanes, site, (which + " of a warpgroup give different descriptors").c_str());
  }
}

std::vector<u32> checked_pieces(Lane& lane, const Site& site, u64 descriptor, const OperandPart& part) {
  std::vector<u32> pieces;
  const std::string error = find_pieces(descriptor, part, pieces);
  if (!error.empty()) {
    fail(lane, site, error.c_str());
  }
  for (const u32 piece : pieces) {
    if (piece + kPieceBytes > block.shared_bytes) {
      const std::string what = "16 bytes at " + std::to_string(piece) + " are outside of the block's " +
                               std::to_string(block.shared_bytes) + " bytes of shared memory";
      fail(lane, site, what.c_str());
    }
    check_fenced(lane, site, piece, kPieceBytes);
  }
  return pieces;
}

void check_poison(LaneState* lanes, const Site& site, const Accumulators& d) {
  for (u32 lane = 0; lane < kWarpSize; ++lane) {
    for (const float* value : d.registers[lane]) {
      if (bit_cast<u32>(*value) != kPoison) {
        fail(lanes[lane], site, "a register of d was written while a product was under way");
      }
    }
  }
}

enum class Registers { kSame, kOther, kSome };

Registers compare(const Accumulators& d, const IssueOperands& o) {
  size_t same = 0, shared = 0;
  const std::vector<float*>& ours = d.registers[0];
  for (size_t i = 0; i < ours.size(); ++i) {
    for (size_t j = 0; j < o.shape.n / 2; ++j) {
      same += ours[i] == o.d[j] && i == j;
      shared += ours[i] == o.d[j];
    }
  }
  const bool all = same == ours.size() && d.shape.n == o.shape.n;
  return all ? Registers::kSame : shared ? Registers::kSome : Registers::kOther;
}

// Those of the products under way, or null.
std::shared_ptr<Accumulators> under_way(LaneState* lanes, WarpProducts& warp, Site& site, const IssueOperands& o) {
  for (const Product& product : warp.pending) {
    const Accumulators& d = *product.d;
    const Registers registers = compare(d, o);
    if (registers == Registers::kSame) {
      if (d.shape.type != o.shape.type) {
        fail(*lanes, site, "products of different types add to the same registers without a wait");
      }
      check_poison(lanes, site, d);
      return product.d;
    }
    if (registers == Registers::kSome) {
      fail(*lanes, site, "some registers of d are another's that is under way");
    }
  }
  return nullptr;
}

std::shared_ptr<Accumulators> take_registers(LaneState* lanes, WarpProducts& warp, Site& site, const IssueOperands& o) {
  if (!warp.fenced) {
    fail(*lanes, site, "no wgmma.fence since d's registers may have been written");
  }
  const auto d = std::make_shared<Accumulators>();
  d->shape = o.shape;
  d->values.resize(kRows * o.shape.n);
  for (u32 lane = 0; lane < kWarpSize; ++lane) {
    float* const* registers = static_cast<const IssueOperands*>(lanes[lane].request.operands)->d;
    for (u32 i = 0; i < o.shape.n / 2; ++i) {
      d->registers[lane].push_back(registers[i]);
      d->value(lane, i) = *registers[i];
      *registers[i] = bit_cast<float>(kPoison);
    }
  }
  return d;
}

void give_registers(LaneState* lanes, WarpProducts& warp, const Site& site, Accumulators& d) {
  check_poison(lanes, site, d);
  for (u32 lane = 0; lane < kWarpSize; ++lane) {
    for (u32 i = 0; i < d.registers[lane].size(); ++i) {
      *d.registers[lane][i] = d.value(lane, i);
    }
  }
  warp.fenced = false;
}

void wake_warpgroup(u32 group) {
  for (u32 i = 0; i < kWarpsOfGroup * kWarpSize; ++i) {
    LaneState& lane = lane_at(group * kWarpsOfGroup * kWarpSize + i);
    if (lane.status == Status::kWarpgroup) {
      wake(lane);
    }
  }
}

void execute_issue(LaneState* lanes, u32) {
  const AsBookkeeper as_bookkeeper;
  used = true;
  WarpProducts& warp = products[lanes->warpid];
  Site& site = *lanes->request.site;
  const auto& o = *static_cast<const IssueOperands*>(lanes->request.operands);
  check_same(lanes, warp, site);
  Product product = {&site, o.shape, {}, {}, {}, o.add, static_cast<u32>(warp.committed.size()), nullptr};
  product.a = checked_pieces(*lanes, site, o.a, {o.shape.mn_major_a, lanes->warpid % kWarpsOfGroup * kRows, kRows});
  product.b = checked_pieces(*lanes, site, o.b, {o.shape.mn_major_b, 0, o.shape.n});
  keep_operands(product);
  product.d = under_way(lanes, warp, site, o);
  if (!product.d) {
    product.d = take_registers(lanes, warp, site, o);
  }
  product.d->products += 1;
  warp.pending.push_back(std::move(product));
  warp.issued += 1;
  if (kThreads) {
    perform_by_thread(lanes, warp);
  }
  wake_warpgroup(lanes->warpid / kWarpsOfGroup);
}

void execute_fence(LaneState* lanes, u32) {
  products[lanes->warpid].fenced = true;
}

void execute_commit(LaneState* lanes, u32) {
  const AsBookkeeper as_bookkeeper;
  WarpProducts& warp = products[lanes->warpid];
  warp.committed.push_back(warp.issued);
}

u32 first_not_waited_for(const WarpProducts& warp, u32 newest) {
  const u32 groups = static_cast<u32>(warp.committed.size());
  return groups > newest ? groups - newest : 0;
}

void execute_wait(LaneState* lanes, u32) {
  const AsBookkeeper as_bookkeeper;
  WarpProducts& warp = products[lanes->warpid];
  const Site& site = *lanes->request.site;
  const u32 end = first_not_waited_for(warp, lanes->request.qualifiers);
  while (!warp.pending.empty() && warp.pending.front().group < end) {
    if (!warp.performed) {
      perform_next(warp);
    }
    check_operands(*lanes, warp.pending.front());
    Accumulators& d = *warp.pending.front().d;
    if (--d.products == 0) {
      give_registers(lanes, warp, site, d);
    }
    warp.pending.pop_front();
    warp.performed -= 1;
  }
  join_threads(lanes, warp, end);
}

// Whether all warps of the group have issued what the lane waits for.
bool all_have_come(const Lane& lane, u32 newest) {
  const WarpProducts& warp = products[lane.warpid];
  const u32 end = first_not_waited_for(warp, newest);
  const u32 first = lane.warpid / kWarpsOfGroup * kWarpsOfGroup;
  for (u32 i = first; end && i < first + kWarpsOfGroup; ++i) {
    if (products[i].issued < warp.committed[end - 1]) {
      return false;
    }
  }
  return true;
}

}  // namespace

void reset_products() {
  if (!used) {
    return;
  }
  const AsBookkeeper as_bookkeeper;
  for (u32 i = 0; i < kWarps; ++i) {
    for (const auto& thread : products[i].threads) {  // of a launch that was given up
      end_shadow(thread->fiber);
    }
    products[i] = {};
  }
  for (u32 i = 0; i < kWarpgroups; ++i) {
    issues[i].clear();
  }
  used = false;
}

void end_products(LaneState& lane) {
  const WarpProducts& warp = products[lane.warpid];
  if (used && !warp.pending.empty()) {
    fail(lane, *warp.pending.front().site, "the lane ends, but the product was not waited for");
  }
}

void perform_some(LaneState& lane) {
  WarpProducts& warp = products[lane.warpid];
  while (used && schedule() == Schedule::kRandom && warp.performed < warp.pending.size() && random_number() % 64 == 0) {
    perform_next(warp);
  }
}

void issue_product(Lane& lane, Site& site, const WarpgroupShape& shape, u64 a, u64 b, bool add, float* const* d) {
  const IssueOperands operands = {shape, a, b, add, d};
  join(lane, {execute_issue, 0, kAll, true, &site, &operands, nullptr});
}

void fence_products(Lane& lane, Site& site) {
  used = true;
  join(lane, {execute_fence, 0, kAll, true, &site, nullptr, nullptr});
}

void commit_products(Lane& lane, Site& site) {
  used = true;
  join(lane, {execute_commit, 0, kAll, true, &site, nullptr, nullptr});
}

void wait_for_products(Lane& lane, Site& site, u32 newest_groups_not_waited_for) {
  while (!all_have_come(lane, newest_groups_not_waited_for)) {
    state(lane).site = &site;
    wait(state(lane), Status::kWarpgroup);
  }
  join(lane, {execute_wait, newest_groups_not_waited_for, kAll, true, &site, nullptr, nullptr});
}

}  // namespace emulator
