// The kernels for AVX2 with FMA and F16C. Everything after the pragma is compiled for it, to the end of
// the file, because templates are instantiated there. So no header with inline functions of
// external linkage may be included: the linker could keep this file's copy for all callers.
#if defined(__x86_64__)
#include <immintrin.h>

#include "kernels.h"

#pragma GCC target("avx2,fma,f16c")

#define RESNET_FUSED_ISA avx2
#define RESNET_FUSED_VECTOR_BYTES 32
#include "simd/table.h"
#endif
