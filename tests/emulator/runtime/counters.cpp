#include "counters.h"

#include <algorithm>
#include <map>
#include <tuple>
#include <unordered_set>
#include <vector>

#include "launch.h"
#include "scheduler.h"

namespace emulator {
namespace {

constexpr u32 kSector = 32;  // bytes, of global memory
constexpr u32 kBanks = 32;   // of shared memory, of a word each
constexpr u32 kWord = 4;

struct Requests {
  u64 count = 0, sectors = 0, sectors_needed = 0;
};

struct KernelCounters {
  u64 launches = 0, blocks = 0, barriers = 0;
  u64 sectors_read = 0, sectors_written = 0;  // distinct ones within a launch
  Requests loads, stores;
  u64 shared_requests = 0, wavefronts = 0, bank_conflicts = 0;
};

enum class Space : u8 { kGlobal, kShared };

// One lane's part of a request. The n-th time that lanes of a warp are at a site is one request of the warp.
struct Event {
  u32 warp;
  const Site* site;
  Space space;
  u32 nth;
  u32 lane, bytes;
  u64 address;
  Access access;

  auto request() const {
    return std::tie(warp, site, space, nth);
  }
};

struct {
  std::map<std::string, KernelCounters> kernels;
  KernelCounters* kernel = nullptr;  // of the launch in progress
  std::vector<Event> events;         // of the block in progress
  std::map<std::pair<const Site*, Space>, std::vector<u32>> times;  // by thread
  std::unordered_set<u64> read, written;
} counters;

void add_event(const Lane& lane, const Site& site, Space space, u64 address, u32 bytes, Access access) {
  std::vector<u32>& times = counters.times[{&site, space}];
  times.resize(kMaxThreads);
  const u32 nth = times[lane.warpid * kWarpSize + lane.laneid]++;
  counters.events.push_back({lane.warpid, &site, space, nth, lane.laneid, bytes, address, access});
}

using Iterator = std::vector<Event>::const_iterator;

void count_global_request(Iterator begin, Iterator end) {
  std::vector<u64> bytes, sectors;
  for (Iterator event = begin; event != end; ++event) {
    for (u64 address = event->address; address < event->address + event->bytes; ++address) {
      bytes.push_back(address);
    }
  }
  std::sort(bytes.begin(), bytes.end());
  bytes.erase(std::unique(bytes.begin(), bytes.end()), bytes.end());
  for (const u64 address : bytes) {
    if (sectors.empty() || sectors.back() != address / kSector) {
      sectors.push_back(address / kSector);
    }
  }
  if (begin->access != Access::kWrite) {
    counters.read.insert(sectors.begin(), sectors.end());
  }
  if (begin->access != Access::kRead) {
    counters.written.insert(sectors.begin(), sectors.end());
  }
  Requests& requests = begin->access == Access::kRead ? counters.kernel->loads : counters.kernel->stores;
  requests.count += 1;
  requests.sectors += sectors.size();
  requests.sectors_needed += (bytes.size() + kSector - 1) / kSector;
}

// Passes over the banks that some lanes of a request take: as many as there are different words in one bank.
u64 passes(Iterator begin, Iterator end) {
  std::vector<u64> words;
  for (Iterator event = begin; event != end; ++event) {
    for (u64 word = event->address / kWord; word <= (event->address + event->bytes - 1) / kWord; ++word) {
      words.push_back(word);
    }
  }
  std::sort(words.begin(), words.end());
  words.erase(std::unique(words.begin(), words.end()), words.end());
  u64 in_bank[kBanks] = {};
  for (const u64 word : words) {
    in_bank[word % kBanks] += 1;
  }
  return *std::max_element(in_bank, in_bank + kBanks);
}

// Eight bytes a lane are served to half a warp at a time, sixteen (also rows of ldmatrix) to a quarter.
void count_shared_request(Iterator begin, Iterator end) {
  const u32 lanes_at_once = begin->bytes <= kWord ? kWarpSize : kBanks * kWord / begin->bytes;
  counters.kernel->shared_requests += 1;
  while (begin != end) {
    const u32 part = begin->lane / lanes_at_once;
    const Iterator next = std::find_if(begin, end, [&](const Event& e) { return e.lane / lanes_at_once != part; });
    const u64 taken = passes(begin, next);
    counters.kernel->wavefronts += taken;
    counters.kernel->bank_conflicts += taken - 1;
    begin = next;
  }
}

std::string field(const char* name, u64 value) {
  return "\"" + std::string(name) + "\": " + std::to_string(value);
}

std::string json(const Requests& r) {
  return "{" + field("requests", r.count) + ", " + field("sectors", r.sectors) + ", " +
         field("sectors_needed", r.sectors_needed) + "}";
}

std::string json(const std::string& name, const KernelCounters& k) {
  std::string text = "{\"name\": \"" + readable(name) + "\"";
  text += ", " + field("launches", k.launches) + ", " + field("blocks", k.blocks);
  text += ", " + field("barriers", k.barriers) + ", " + field("bytes_read", k.sectors_read * kSector);
  text += ", " + field("bytes_written", k.sectors_written * kSector);
  text += ", \"loads\": " + json(k.loads) + ", \"stores\": " + json(k.stores);
  text += ", \"shared\": {" + field("requests", k.shared_requests) + ", " + field("wavefronts", k.wavefronts) + ", " +
          field("bank_conflicts", k.bank_conflicts) + "}}";
  return text;
}

}  // namespace

void count_global(const Lane& lane, const Site& site, u64 address, u32 bytes, Access access) {
  add_event(lane, site, Space::kGlobal, address, bytes, access);
}

void count_shared(const Lane& lane, const Site& site, u32 address, u32 bytes, Access access) {
  add_event(lane, site, Space::kShared, address, bytes, access);
}

void count_barrier() {
  if (counting) {
    counters.kernel->barriers += 1;
  }
}

void begin_launch_counters(const Entry& entry) {
  if (counting) {
    counters.kernel = &counters.kernels[entry.name];
    counters.kernel->launches += 1;
  }
}

void end_block_counters() {
  if (!counting) {
    return;
  }
  std::vector<Event>& events = counters.events;
  std::sort(events.begin(), events.end(), [](const Event& a, const Event& b) {
    return std::make_pair(a.request(), a.lane) < std::make_pair(b.request(), b.lane);
  });
  for (Iterator begin = events.begin(); begin != events.end();) {
    const auto other = [&](const Event& e) { return e.request() != begin->request(); };
    const Iterator end = std::find_if(begin, events.cend(), other);
    if (begin->space == Space::kGlobal) {
      count_global_request(begin, end);
    } else {
      count_shared_request(begin, end);
    }
    begin = end;
  }
  counters.kernel->blocks += 1;
  events.clear();
  counters.times.clear();
}

void end_launch_counters() {
  if (counting) {
    counters.kernel->sectors_read += counters.read.size();
    counters.kernel->sectors_written += counters.written.size();
    counters.read.clear();
    counters.written.clear();
  }
}

std::string counters_json() {
  std::string text = "{";
  for (const auto& [name, kernel] : counters.kernels) {
    text += (text.size() > 1 ? ", \"" : "\"") + name + "\": " + json(name, kernel);
  }
  return text + "}";
}

void reset_counters() {
  counters.kernels.clear();
}

}  // namespace emulator
