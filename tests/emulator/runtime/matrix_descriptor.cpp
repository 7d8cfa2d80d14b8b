#include "matrix_descriptor.h"

namespace emulator {
namespace {

constexpr u32 kGroupRows = 8;
constexpr u32 kNarrowBytes = 2;  // of an element of what is MN-major
constexpr u32 kSteps = 16;       // of the reduction, where they are rows

struct Descriptor {
  u32 start, leading, stride;  // bytes
  u32 width;                   // of the swizzle, which is a row's bytes

  // Pieces of a row change places by the row's number, as a mask of 16-byte units and address bits 7 on say.
  u32 swizzled(u32 address) const {
    return address ^ ((address >> 7 & (width / kPieceBytes - 1)) << 4);
  }
  u32 repeat() const {
    return kGroupRows * width;
  }
};

u32 bytes_at(u64 descriptor, u32 bit) {
  return static_cast<u32>(descriptor >> bit & 0x3fff) << 4;
}

std::string decode(u64 bits, Descriptor& d) {
  constexpr u64 kMeaning = u64(0x3fff) | u64(0x3fff) << 16 | u64(0x3fff) << 32 | u64(7) << 49 | u64(3) << 62;
  if (bits & ~kMeaning) {
    return "bits of the descriptor are set that mean nothing";
  }
  if (bits >> 49 & 7) {
    return "a base offset in the descriptor, which is not modelled";
  }
  const u32 mode = static_cast<u32>(bits >> 62);
  if (mode != 1 && mode != 2) {
    return "the descriptor's swizzle is " + std::string(mode ? "of 32 bytes" : "none") + ", which is not modelled";
  }
  d = {bytes_at(bits, 0), bytes_at(bits, 16), bytes_at(bits, 32), mode == 1 ? 128u : 64u};
  return "";
}

std::string misplaced(const Descriptor& d) {
  return "the descriptor's address " + std::to_string(d.start) + " is not a multiple of " + std::to_string(d.repeat());
}

}  // namespace

std::string find_pieces(u64 descriptor, const OperandPart& part, std::vector<u32>& pieces) {
  Descriptor d;
  std::string error = decode(descriptor, d);
  if (!error.empty()) {
    return error;
  }
  pieces.clear();
  const u32 within = d.start % d.repeat();
  if (!part.mn_major) {
    if (within + 2 * kPieceBytes > d.width) {
      return misplaced(d) + ", but for a step of the reduction within a row";
    }
    for (u32 row = part.first; row < part.first + part.extent; ++row) {
      const u32 address = d.start + row / kGroupRows * d.stride + row % kGroupRows * d.width;
      pieces.push_back(d.swizzled(address));
      pieces.push_back(d.swizzled(address + kPieceBytes));
    }
    return "";
  }
  if (within) {
    return misplaced(d);
  }
  for (u32 step = 0; step < kSteps; ++step) {
    const u32 row = d.start + step / kGroupRows * d.stride + step % kGroupRows * d.width;
    for (u32 byte = part.first * kNarrowBytes; byte < (part.first + part.extent) * kNarrowBytes; byte += kPieceBytes) {
      pieces.push_back(d.swizzled(row + byte / d.width * d.leading + byte % d.width));
    }
  }
  return "";
}

}  // namespace emulator
