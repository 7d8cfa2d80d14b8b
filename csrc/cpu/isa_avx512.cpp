// The kernels for AVX-512 (F, BW, DQ, VL). Everything after the pragma is compiled for it, to the end of
// the file, because templates are instantiated there. So no header with inline functions of
// external linkage may be included: the linker could keep this file's copy for all callers.
#if defined(__x86_64__)
#include <immintrin.h>

#include "kernels.h"

#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")

#define RESNET_FUSED_ISA avx512
#define RESNET_FUSED_VECTOR_BYTES 64
#include "simd/table.h"
#endif
