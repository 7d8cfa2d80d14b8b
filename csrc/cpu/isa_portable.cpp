// The kernels for any CPU: 16-byte vectors, which every 64-bit target has.
#include "kernels.h"

#define RESNET_FUSED_ISA portable
#define RESNET_FUSED_VECTOR_BYTES 16
#include "simd/table.h"
