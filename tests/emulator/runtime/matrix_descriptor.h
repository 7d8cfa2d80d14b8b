// Where wgmma's operands lie in shared memory (PTX ISA, "Matrix descriptor format", "Strides", "Shared memory matrix
// layout"). Swizzles of 64 and of 128 bytes.
#pragma once

#include <string>
#include <vector>

#include "types.h"

namespace emulator {

constexpr u32 kPieceBytes = 16;

// Rows (of a, columns of b) from `first` on, of a product whose k is two pieces (K-major) or 16 (MN-major).
struct OperandPart {
  bool mn_major;
  u32 first, extent;
};

// The addresses of the pieces: of [extent][k] if K-major, else of [k][extent]. Returns what is wrong, or "".
std::string find_pieces(u64 descriptor, const OperandPart& part, std::vector<u32>& pieces);

}  // namespace emulator
