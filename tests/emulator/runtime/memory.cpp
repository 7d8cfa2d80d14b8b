#include "memory.h"

#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

#include "counters.h"
#include "lane.h"
#include "scheduler.h"

namespace emulator {

u64 memory_epoch = 1;
bool counting = false;

namespace {

constexpr u64 kLowest = 65536;  // nothing is mapped below, so a null pointer plus an offset is found here

struct Range {
  u64 begin, end;
};

std::vector<Range>& ranges() {  // by `begin`
  static auto* instance = new std::vector<Range>;
  return *instance;
}

u64 last_epoch = 1;

void new_epoch() {
  last_epoch += 1;
  memory_epoch = counting ? ~u64(0) : last_epoch;
}

std::string hex(u64 number) {
  char text[32];
  snprintf(text, sizeof text, "0x%llx", static_cast<unsigned long long>(number));
  return text;
}

[[noreturn]] void fail_access(Lane& lane, const Site& site, u64 address, u32 bytes, const std::string& why) {
  const std::string what = std::to_string(bytes) + " bytes at " + hex(address) + " " + why;
  fail(lane, site, what.c_str());
}

void check_alignment(Lane& lane, const Site& site, u64 address, u32 bytes) {
  if (address % bytes != 0) {
    fail_access(lane, site, address, bytes, "are misaligned");
  }
}

// The largest range of addresses around this one of which all may be accessed.
Range allowed(Lane& lane, const Site& site, u64 address, u32 bytes) {
  const std::vector<Range>& all = ranges();
  const auto behind = [](u64 a, const Range& r) { return a < r.begin; };
  const auto next = std::upper_bound(all.begin(), all.end(), address, behind);
  const Range* before = next == all.begin() ? nullptr : &next[-1];
  if (before && address + bytes <= before->end) {
    return *before;
  }
  const u64 low = before ? before->end + kRedzone : kLowest;
  const u64 high = next == all.end() ? ~u64(0) : next->begin - kRedzone;
  if (address >= low && address + bytes <= high) {
    return {low, high};
  }
  if (!before && address < kLowest) {
    fail_access(lane, site, address, bytes, "are not memory");
  }
  if (before && address < low) {
    const std::string size = std::to_string(before->end - before->begin) + " bytes";
    const u64 past = address - std::min(address, before->end);
    fail_access(lane, site, address, bytes, std::to_string(past) + " bytes past the end of an allocation of " + size);
  }
  const std::string size = std::to_string(next->end - next->begin) + " bytes";
  fail_access(lane, site, address, bytes,
              std::to_string(next->begin - address) + " bytes before the beginning of an allocation of " + size);
}

}  // namespace

void guard(const void* begin, u64 bytes) {
  std::lock_guard<std::recursive_mutex> lock(memory_mutex());
  const u64 first = reinterpret_cast<u64>(begin);
  auto& all = ranges();
  const auto at = std::lower_bound(all.begin(), all.end(), first, [](const Range& r, u64 a) { return r.begin < a; });
  all.insert(at, {first, first + bytes});
  new_epoch();
}

void unguard(const void* begin) {
  std::lock_guard<std::recursive_mutex> lock(memory_mutex());
  const u64 first = reinterpret_cast<u64>(begin);
  auto& all = ranges();
  const auto at = std::lower_bound(all.begin(), all.end(), first, [](const Range& r, u64 a) { return r.begin < a; });
  if (at != all.end() && at->begin == first) {
    all.erase(at);
    new_epoch();
  }
}

std::recursive_mutex& memory_mutex() {
  static auto* mutex = new std::recursive_mutex;
  return *mutex;
}

void set_counting(bool enabled) {
  std::lock_guard<std::recursive_mutex> lock(memory_mutex());
  counting = enabled;
  new_epoch();
}

u8* check_global(Lane& lane, Site& site, u64 address, u32 bytes, Access access) {
  check_alignment(lane, site, address, bytes);
  const Range range = allowed(lane, site, address, bytes);
  site.begin = range.begin;
  site.last = range.end - range.begin - bytes;
  site.epoch = last_epoch;
  if (counting) {
    count_global(lane, site, address, bytes, access);
  }
  return reinterpret_cast<u8*>(address);
}

const u8* check_copied(Lane& lane, Site& site, u64 address, u32 bytes) {
  if (bytes) {
    allowed(lane, site, address, bytes);
    if (counting) {
      count_global(lane, site, address, bytes, Access::kRead);
    }
  }
  return reinterpret_cast<const u8*>(address);
}

u8* check_shared(Lane& lane, Site& site, u32 address, u32 bytes, Access access) {
  check_alignment(lane, site, address, bytes);
  if (u64(address) + bytes > block.shared_bytes) {
    fail_access(lane, site, address, bytes,
                "are outside of the block's " + std::to_string(block.shared_bytes) + " bytes of shared memory");
  }
  if (counting) {
    count_shared(lane, site, address, bytes, access);
  }
  return block.shared + address;
}

bool is_shared(u64 address) {
  return address - reinterpret_cast<u64>(block.shared) < kSharedWindow;
}

bool is_local(const Lane& lane, u64 address) {
  const Fiber& fiber = static_cast<const LaneState&>(lane).fiber;
  return address - reinterpret_cast<u64>(fiber.stack) < fiber.stack_bytes;
}

u8* check_generic(Lane& lane, Site& site, u64 address, u32 bytes, Access access) {
  if (is_shared(address)) {
    return check_shared(lane, site, static_cast<u32>(address - reinterpret_cast<u64>(block.shared)), bytes, access);
  }
  if (is_local(lane, address)) {
    check_alignment(lane, site, address, bytes);
    return reinterpret_cast<u8*>(address);
  }
  return check_global(lane, site, address, bytes, access);
}

u8* check_local(Lane& lane, Site& site, const u8* begin, u64 size, u64 address, u32 bytes) {
  check_alignment(lane, site, address, bytes);
  const u64 offset = address - reinterpret_cast<u64>(begin);
  if (offset > size || offset + bytes > size) {
    fail_access(lane, site, address, bytes,
                "are outside of the lane's " + std::to_string(size) + " bytes of local memory");
  }
  return reinterpret_cast<u8*>(address);
}

}  // namespace emulator
