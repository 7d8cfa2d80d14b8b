// What the lanes of a warp do together: each leaves its operands, and the last to come computes for all.
#include "scheduler.h"

namespace emulator {
namespace {

// Calls function(lane, its operands, its result) for each lane of a mask.
template <typename Operands, typename Result, typename F>
void each(LaneState* warp, u32 lanes, const F& function) {
  for (u32 left = lanes; left; left &= left - 1) {
    const u32 i = __builtin_ctz(left);
    function(i, *static_cast<const Operands*>(warp[i].request.operands), *static_cast<Result*>(warp[i].request.result));
  }
}

struct ShuffleOperands {
  Shuffle mode;
  u32 value, source, clamp;
};

struct Source {
  u32 lane;
  bool in_range;
};

// `clamp` holds the last lane of a segment in bits 0-4 and in bits 8-12 which bits number the segment.
Source shuffle_source(u32 lane, const ShuffleOperands& o) {
  const u32 segment = o.clamp >> 8 & 0x1f;
  const u32 last = (lane & segment) | (o.clamp & 0x1f & ~segment);
  const u32 source = o.source & 0x1f;
  u32 from = 0;
  bool in_range = false;
  switch (o.mode) {
    case Shuffle::kUp:
      from = lane - source;
      in_range = static_cast<s32>(from) >= static_cast<s32>(last);
      break;
    case Shuffle::kDown:
      from = lane + source;
      in_range = from <= last;
      break;
    case Shuffle::kBfly:
      from = lane ^ source;
      in_range = from <= last;
      break;
    case Shuffle::kIdx:
      from = (lane & segment) | (source & ~segment);
      in_range = from <= last;
      break;
  }
  return {in_range ? from : lane, in_range};
}

void execute_shuffle(LaneState* warp, u32 lanes) {
  each<ShuffleOperands, Shuffled>(warp, lanes, [&](u32 lane, const ShuffleOperands& o, Shuffled& result) {
    const Source source = shuffle_source(lane, o);
    const auto* from = static_cast<const ShuffleOperands*>(warp[source.lane].request.operands);
    const bool takes_part = lanes >> source.lane & 1;  // otherwise the value is undefined
    result = {takes_part ? from->value : ~0u, source.in_range};
  });
}

u32 ballot(LaneState* warp, u32 lanes) {
  u32 bits = 0;
  each<bool, u32>(warp, lanes, [&](u32 lane, bool value, u32&) { bits |= static_cast<u32>(value) << lane; });
  return bits;
}

void execute_vote(LaneState* warp, u32 lanes) {
  const u32 bits = ballot(warp, lanes);
  each<bool, u32>(warp, lanes, [&](u32 lane, bool, u32& result) {
    switch (static_cast<Vote>(warp[lane].request.qualifiers)) {
      case Vote::kAll:
        result = bits == lanes;
        break;
      case Vote::kAny:
        result = bits != 0;
        break;
      case Vote::kUni:
        result = bits == 0 || bits == lanes;
        break;
      case Vote::kBallot:
        result = bits;
        break;
    }
  });
}

void execute_match(LaneState* warp, u32 lanes) {
  each<u64, Matched>(warp, lanes, [&](u32, u64 value, Matched& result) {
    u32 equal = 0;
    each<u64, Matched>(warp, lanes, [&](u32 other, u64 others, Matched&) {
      equal |= static_cast<u32>(others == value) << other;
    });
    result = {equal, equal == lanes};
  });
}

u32 reduce(Redux operation, bool is_signed, u32 a, u32 b) {
  const bool less = is_signed ? static_cast<s32>(a) < static_cast<s32>(b) : a < b;
  switch (operation) {
    case Redux::kAdd:
      return a + b;
    case Redux::kMin:
      return less ? a : b;
    case Redux::kMax:
      return less ? b : a;
    case Redux::kAnd:
      return a & b;
    case Redux::kOr:
      return a | b;
    case Redux::kXor:
      return a ^ b;
  }
  __builtin_unreachable();
}

void execute_redux(LaneState* warp, u32 lanes) {
  const u32 first = __builtin_ctz(lanes);
  const u32 qualifiers = warp[first].request.qualifiers;
  u32 total = *static_cast<const u32*>(warp[first].request.operands);
  each<u32, u32>(warp, lanes & (lanes - 1), [&](u32, u32 value, u32&) {
    total = reduce(static_cast<Redux>(qualifiers / 2), qualifiers % 2, total, value);
  });
  each<u32, u32>(warp, lanes, [&](u32, u32, u32& result) { result = total; });
}

void execute_barrier(LaneState* warp, u32 lanes) {
  static int cells[kMaxThreads / kWarpSize];
  int* cell = &cells[warp->warpid];
  for (u32 left = lanes; left; left &= left - 1) {
    released(warp[__builtin_ctz(left)].fiber, cell);
  }
  for (u32 left = lanes; left; left &= left - 1) {
    acquired(warp[__builtin_ctz(left)].fiber, cell);
  }
}

}  // namespace

Shuffled shuffle(Lane& lane, Site& site, Shuffle mode, u32 value, u32 source, u32 clamp, u32 lanes) {
  const ShuffleOperands operands = {mode, value, source, clamp};
  Shuffled result;
  join(lane, {execute_shuffle, static_cast<u32>(mode), lanes, false, &site, &operands, &result});
  return result;
}

u32 vote(Lane& lane, Site& site, Vote mode, bool value, u32 lanes) {
  u32 result;
  join(lane, {execute_vote, static_cast<u32>(mode), lanes, false, &site, &value, &result});
  return result;
}

Matched match(Lane& lane, Site& site, bool all, u64 value, u32 lanes) {
  Matched result;
  join(lane, {execute_match, all, lanes, false, &site, &value, &result});
  return all && !result.all ? Matched{0, false} : result;
}

u32 redux(Lane& lane, Site& site, Redux operation, bool is_signed, u32 value, u32 lanes) {
  u32 result;
  join(lane, {execute_redux, static_cast<u32>(operation) * 2 + is_signed, lanes, false, &site, &value, &result});
  return result;
}

void warp_barrier(Lane& lane, Site& site, u32 lanes) {
  join(lane, {execute_barrier, 0, lanes, false, &site, nullptr, nullptr});
}

}  // namespace emulator
