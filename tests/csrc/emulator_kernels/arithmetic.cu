// One instruction, or a few, on every element of an array.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

namespace {

template <typename In, typename Out, typename F>
__global__ void map_kernel(const In* in, Out* out, int n, F function) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) {
    out[i] = function(in, i);
  }
}

template <typename In, typename Out, typename F>
int map(const void* in, void* out, int n, F function) {
  map_kernel<<<(n + 255) / 256, 256>>>(static_cast<const In*>(in), static_cast<Out*>(out), n, function);
  return cudaGetLastError();
}

struct HalfToFloat {
  __device__ float operator()(const __half* x, int i) const {
    return __half2float(x[i]);
  }
};
struct BFloatToFloat {
  __device__ float operator()(const __nv_bfloat16* x, int i) const {
    return __bfloat162float(x[i]);
  }
};
struct FloatToHalf {
  __device__ __half operator()(const float* x, int i) const {
    return __float2half(x[i]);
  }
};
struct FloatToBFloat {
  __device__ __nv_bfloat16 operator()(const float* x, int i) const {
    return __float2bfloat16(x[i]);
  }
};
// Two at once, as cvt.rn.bf16x2.f32 does.
struct FloatToBFloatPair {
  __device__ __nv_bfloat162 operator()(const float* x, int i) const {
    return __floats2bfloat162_rn(x[2 * i], x[2 * i + 1]);
  }
};
struct FloatToHalfPair {
  __device__ __half2 operator()(const float* x, int i) const {
    return __floats2half2_rn(x[2 * i], x[2 * i + 1]);
  }
};
// a b + c, rounded once.
template <typename T>
struct NarrowFma {
  __device__ T operator()(const T* x, int i) const {
    return __hfma(x[3 * i], x[3 * i + 1], x[3 * i + 2]);
  }
};
struct FloatOperations {
  __device__ float4 operator()(const float2* x, int i) const {
    return make_float4(x[i].x / x[i].y, sqrtf(x[i].x), fmaf(x[i].x, x[i].y, 1.0f), fmaxf(x[i].x, x[i].y));
  }
};
struct FloatRoundings {
  __device__ float4 operator()(const float2* x, int i) const {
    return make_float4(__fadd_rz(x[i].x, x[i].y), __fadd_ru(x[i].x, x[i].y), __fadd_rd(x[i].x, x[i].y), rsqrtf(x[i].x));
  }
};
struct DoubleOperations {
  __device__ double4_32a operator()(const double2* x, int i) const {
    return make_double4_32a(x[i].x / x[i].y, sqrt(x[i].x), fma(x[i].x, x[i].y, 1.0), fmin(x[i].x, x[i].y));
  }
};
struct Exponentials {
  __device__ float4 operator()(const float* x, int i) const {
    return make_float4(expf(x[i]), __expf(x[i]), exp2f(x[i]), log2f(fabsf(x[i])));
  }
};
struct LongOperations {
  __device__ longlong4_32a operator()(const longlong2* x, int i) const {
    const long long a = x[i].x, b = x[i].y;
    return make_longlong4_32a(a * b, __mul64hi(a, b), b ? a / b : 0, b ? a % b : 0);
  }
};
struct IntOperations {
  __device__ int4 operator()(const int2* x, int i) const {
    const int a = x[i].x, b = x[i].y;
    return make_int4(__mulhi(a, b), b ? a / b : 0, __clz(a) + 100 * __popc(b) + 10000 * __ffs(a), min(a, b) ^ abs(b));
  }
};
struct ByteOperations {
  __device__ uint4 operator()(const uint2* x, int i) const {
    const unsigned a = x[i].x, b = x[i].y;
    return make_uint4(__byte_perm(a, b, 0x5172), __funnelshift_l(a, b, b), __brev(a), (a & b) | (~a & (b >> 3)));
  }
};
struct FloatToInt {
  __device__ int4 operator()(const float* x, int i) const {
    return make_int4(static_cast<int>(x[i]), __float2int_rn(x[i]), __float2int_ru(x[i]), static_cast<unsigned>(x[i]));
  }
};
// Indexed at run time, so that it is in local memory.
struct LocalArray {
  __device__ int operator()(const int* x, int i) const {
    int values[16];
    for (int j = 0; j < 16; ++j) {
      values[(j * 5 + x[0]) & 15] = j + i;
    }
    return values[x[i] & 15];
  }
};
struct Choose {
  __device__ int operator()(const int* x, int i) const {
    switch (x[i] & 7) {
      case 0:
        return x[i] * 3;
      case 1:
        return x[i] ^ 77;
      case 2:
        return x[i] - 1000;
      case 3:
        return -x[i];
      case 4:
        return x[i] / 3;
      case 5:
        return x[i] | 0x700;
      case 6:
        return x[i] << 3;
      default:
        return 5;
    }
  }
};

}  // namespace

#define LAUNCHER(name, In, Out, Function)                        \
  extern "C" int launch_##name(const void* in, void* out, int n) { \
    return map<In, Out>(in, out, n, Function{});                 \
  }
LAUNCHER(half_to_float, __half, float, HalfToFloat)
LAUNCHER(bfloat_to_float, __nv_bfloat16, float, BFloatToFloat)
LAUNCHER(float_to_half, float, __half, FloatToHalf)
LAUNCHER(float_to_bfloat, float, __nv_bfloat16, FloatToBFloat)
LAUNCHER(float_to_half_pair, float, __half2, FloatToHalfPair)
LAUNCHER(float_to_bfloat_pair, float, __nv_bfloat162, FloatToBFloatPair)
LAUNCHER(half_fma, __half, __half, NarrowFma<__half>)
LAUNCHER(bfloat_fma, __nv_bfloat16, __nv_bfloat16, NarrowFma<__nv_bfloat16>)
LAUNCHER(float_operations, float2, float4, FloatOperations)
LAUNCHER(float_roundings, float2, float4, FloatRoundings)
LAUNCHER(double_operations, double2, double4_32a, DoubleOperations)
LAUNCHER(exponentials, float, float4, Exponentials)
LAUNCHER(long_operations, longlong2, longlong4_32a, LongOperations)
LAUNCHER(int_operations, int2, int4, IntOperations)
LAUNCHER(byte_operations, uint2, uint4, ByteOperations)
LAUNCHER(float_to_int, float, int4, FloatToInt)
LAUNCHER(local_array, int, int, LocalArray)
LAUNCHER(choose, int, int, Choose)
