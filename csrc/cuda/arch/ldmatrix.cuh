// Four matrices of 8 rows of 16 bytes, from shared memory to the registers of a warp (PTX ISA, ldmatrix). Lanes 8i to
// 8i + 7 give the addresses of matrix i's rows; register i of a lane is of matrix i's row lane / 4 the bytes from
// 4 (lane % 4).
#pragma once

#include <stdint.h>

namespace resnet_fused::cuda {

__device__ __forceinline__ void ldmatrix_x4(uint32_t (&r)[4], uint32_t shared) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared));
}

// Transposed, elements being of 16 bits: a lane gets column lane / 4, rows 2 (lane % 4) and the next.
__device__ __forceinline__ void ldmatrix_x4_trans(uint32_t (&r)[4], uint32_t shared) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared));
}

}  // namespace resnet_fused::cuda
