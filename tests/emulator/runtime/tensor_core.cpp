// ldmatrix, mma.sync and the arithmetic of wgmma. Fragment layouts: PTX ISA, "Matrix fragments for mma.m16n8k16" and
// the like.
#include "scheduler.h"

namespace emulator {
namespace {

constexpr u32 kAll = ~0u;

struct Row {
  u16 element[8];
};

struct LoadOperands {
  u32 count;
  Row row;
};

// Lane l of matrix m gets elements 2 (l % 4) and 2 (l % 4) + 1 of row l / 4, or of column l / 4.
void execute_load(LaneState* warp, u32) {
  const auto row = [warp](u32 lane) { return static_cast<const LoadOperands*>(warp[lane].request.operands)->row; };
  const u32 count = static_cast<const LoadOperands*>(warp[0].request.operands)->count;
  const bool transposed = warp[0].request.qualifiers & 1;
  for (u32 lane = 0; lane < kWarpSize; ++lane) {
    auto* result = static_cast<Matrices*>(warp[lane].request.result);
    const u32 major = lane / 4, minor = lane % 4 * 2;
    for (u32 m = 0; m < count; ++m) {
      result->row[m] = transposed ? pack(row(m * 8 + minor).element[major], row(m * 8 + minor + 1).element[major])
                                  : pack(row(m * 8 + major).element[minor], row(m * 8 + major).element[minor + 1]);
    }
  }
}

// The operands of a product as matrices. Products of two elements are exact in double.
struct Product {
  double a[16][16], b[16][8];
};

float low(u32 bits, MmaType type) {
  const u16 half = static_cast<u16>(bits);
  return type == MmaType::kF16 ? F16::to_float(half) : BF16::to_float(half);
}
// The tensor core reads the upper 19 bits of a tf32 operand.
float tf32(u32 bits) {
  return bit_cast<float>(bits & ~u32(0x1fff));
}

// Two elements to a register: row g or g + 8 of a, columns 2t, 2t + 1 or 8 more.
void place_narrow(Product& p, const MmaOperands& o, u32 lane, MmaType type, u32 k) {
  const u32 g = lane / 4, t = lane % 4 * 2;
  for (u32 i = 0; i < k / 4; ++i) {
    p.a[g + i % 2 * 8][t + i / 2 * 8] = low(o.a[i], type);
    p.a[g + i % 2 * 8][t + i / 2 * 8 + 1] = low(o.a[i] >> 16, type);
  }
  for (u32 i = 0; i < k / 8; ++i) {
    p.b[t + i * 8][g] = low(o.b[i], type);
    p.b[t + i * 8 + 1][g] = low(o.b[i] >> 16, type);
  }
}

// One element to a register: row g or g + 8 of a, column t or t + 4.
void place_tf32(Product& p, const MmaOperands& o, u32 lane, u32 k) {
  const u32 g = lane / 4, t = lane % 4;
  for (u32 i = 0; i < k / 2; ++i) {
    p.a[g + i % 2 * 8][t + i / 2 * 4] = tf32(o.a[i]);
  }
  for (u32 i = 0; i < k / 4; ++i) {
    p.b[t + i * 4][g] = tf32(o.b[i]);
  }
}

// c[2h], c[2h + 1]: row g + 8h, columns 2t and 2t + 1.
void execute_product(LaneState* warp, u32) {
  const MmaType type = static_cast<MmaType>(warp[0].request.qualifiers % 4);
  const u32 k = warp[0].request.qualifiers / 4;
  Product p;
  double sums[16][8];
  for (u32 lane = 0; lane < kWarpSize; ++lane) {
    const auto& o = *static_cast<const MmaOperands*>(warp[lane].request.operands);
    if (type == MmaType::kTF32) {
      place_tf32(p, o, lane, k);
    } else {
      place_narrow(p, o, lane, type, k);
    }
    for (u32 i = 0; i < 4; ++i) {
      sums[lane / 4 + i / 2 * 8][lane % 4 * 2 + i % 2] = o.c[i];
    }
  }
  for (u32 row = 0; row < 16; ++row) {
    for (u32 i = 0; i < k; ++i) {
      for (u32 column = 0; column < 8; ++column) {
        sums[row][column] += p.a[row][i] * p.b[i][column];
      }
    }
  }
  for (u32 lane = 0; lane < kWarpSize; ++lane) {
    auto& result = *static_cast<MmaResult*>(warp[lane].request.result);
    for (u32 i = 0; i < 4; ++i) {
      result.d[i] = static_cast<float>(sums[lane / 4 + i / 2 * 8][lane % 4 * 2 + i % 2]);
    }
  }
}

// `count` elements, each a number that double holds exactly.
void widen(MmaType type, const u8* bytes, u32 count, double* to) {
  for (u32 i = 0; i < count; ++i) {
    to[i] = type == MmaType::kTF32 ? tf32(peek<u32>(bytes + 4 * i)) : low(peek<u16>(bytes + 2 * i), type);
  }
}

// [columns][rows] of [rows][columns].
void transpose(u32 rows, u32 columns, const double* from, double* to) {
  for (u32 row = 0; row < rows; ++row) {
    for (u32 column = 0; column < columns; ++column) {
      to[column * rows + row] = from[row * columns + column];
    }
  }
}

}  // namespace

void multiply_rows(const WarpgroupShape& shape, const u8* a, const u8* b, bool add, float* d) {
  constexpr u32 kRows = 16, kMostK = 16, kMostN = 256;
  const u32 n = shape.n, k = shape.k;
  double as_stored[kMostK * kMostN], a_rows[kRows * kMostK], b_rows[kMostK * kMostN], sums[kMostN];
  widen(shape.type, a, kRows * k, shape.mn_major_a ? as_stored : a_rows);
  if (shape.mn_major_a) {
    transpose(k, kRows, as_stored, a_rows);
  }
  widen(shape.type, b, k * n, shape.mn_major_b ? b_rows : as_stored);
  if (!shape.mn_major_b) {
    transpose(n, k, as_stored, b_rows);
  }
  for (u32 row = 0; row < kRows; ++row) {
    for (u32 column = 0; column < n; ++column) {
      sums[column] = add ? d[row * n + column] : 0.0;
    }
    for (u32 i = 0; i < k; ++i) {
      const double factor = a_rows[row * k + i];
      for (u32 column = 0; column < n; ++column) {
        sums[column] += factor * b_rows[i * n + column];
      }
    }
    for (u32 column = 0; column < n; ++column) {
      d[row * n + column] = static_cast<float>(sums[column]);
    }
  }
}

// The first 8 * count lanes each name a row of 16 bytes.
Matrices load_matrices(Lane& lane, Site& site, u32 count, bool transposed, u32 address) {
  LoadOperands operands = {count, {}};
  if (lane.laneid < 8 * count) {
    const u8* row = check_shared(lane, site, address, sizeof(Row), Access::kRead);
    copy_bytes(reinterpret_cast<u8*>(&operands.row), row, sizeof(Row), sizeof(Row));
  }
  Matrices result;
  join(lane, {execute_load, count * 2 + transposed, kAll, true, &site, &operands, &result});
  return result;
}

MmaResult multiply_matrices(Lane& lane, Site& site, MmaType type, u32 k, const MmaOperands& operands) {
  MmaResult result;
  join(lane, {execute_product, k * 4 + static_cast<u32>(type), kAll, true, &site, &operands, &result});
  return result;
}

}  // namespace emulator
