#include "stem_pool.cuh"

#include "variant.cuh"
#include "stem.h"

namespace resnet_fused::cuda {
namespace {

// Over rows of `height` by `width` pixels: those of y forward, of x backward.
StemSweep plan_stem(const StemShape& shape, int vector, int64_t height, int64_t width) {
  Sweep s{};
  s.channels = shape.channels;
  s.channels_last = shape.channels_last;
  s.rows = shape.images * height;
  s.length = s.segments = s.pixels = 1;
  int64_t along = shape.channels_last ? shape.channels / vector : width;
  s.lanes_log2 = lanes_log2(along, shape.channels_last);
  int64_t lanes = int64_t{1} << s.lanes_log2, step = kThreads / lanes;
  s.tiles = shape.channels_last ? ceil_div(along, lanes) : shape.channels;
  // Rows at once, and pixels of a thread in them.
  int64_t group = shape.channels_last ? 1 : step, share = ceil_div(width, shape.channels_last ? step : lanes);
  int64_t groups = ceil_div(s.rows * s.tiles, kEnoughBlocks * group);
  int64_t fewest = ceil_div(kFewestRows, share), most = kMostRows / share > 1 ? kMostRows / share : 1;
  s.chunk_rows = group * (groups < fewest ? fewest : groups > most ? most : groups);
  s.chunks = ceil_div(s.rows, s.chunk_rows);
  return {s, shape.height, shape.width, shape.out_height, shape.out_width};
}

// Planes are read element by element: of a row's neighbours every second one is another window's.
int access_of(DType dtype, const StemShape& shape, std::initializer_list<const void*> pointers) {
  return shape.channels_last ? vector_of(dtype, shape.channels, pointers) : 1;
}

int access_of(DType dtype, const StemPoolBackwardParams& p) {
  return access_of(dtype, p.shape, {p.grad, p.index, p.x, p.affine, p.means, p.draw});
}

PoolBackwardParams backward_params(const StemPoolBackwardParams& p, int vector, double* partial) {
  return {plan_stem(p.shape, vector, p.shape.height, p.shape.width), p.grad, p.index, p.x, p.affine, p.means, partial,
          p.draw};
}

// Calls f(Variant) for the three ways: channels last in vectors or singly, planes singly.
template <typename Function>
void with_stem_variant(DType dtype, int vector, bool channels_last, Function f) {
  with_type(dtype, [&](auto element) {
    using T = decltype(element);
    if (!channels_last) {
      f(Variant<T, 1, false>{});
    } else if (vector == 1) {
      f(Variant<T, 1, true>{});
    } else {
      f(Variant<T, kAccessBytes / sizeof(T), true>{});
    }
  });
}

}  // namespace

void stem_pool(DType dtype, const StemPoolParams& p, cudaStream_t stream) {
  int vector = access_of(dtype, p.shape, {p.x, p.affine, p.y, p.index});
  PoolParams params{plan_stem(p.shape, vector, p.shape.out_height, p.shape.out_width), p.x, p.affine, p.y, p.index};
  with_stem_variant(dtype, vector, p.shape.channels_last, [&](auto v) {
    using V = decltype(v);
    launch_sweep("stem_pool", stem_pool_kernel<typename V::Type, V::kN, V::kChannelsLast>, params.stem.sweep.blocks(),
                 params, stream);
  });
}

int64_t stem_pool_backward_reduce_workspace(DType dtype, const StemPoolBackwardParams& p) {
  StemSweep stem = plan_stem(p.shape, access_of(dtype, p), p.shape.height, p.shape.width);
  return stem.sweep.chunks * 2 * p.shape.channels * sizeof(double);
}

void stem_pool_backward_reduce(DType dtype, const StemPoolBackwardParams& p, void* workspace, cudaStream_t stream) {
  int vector = access_of(dtype, p);
  PoolBackwardParams params = backward_params(p, vector, static_cast<double*>(workspace));
  const Sweep& sweep = params.stem.sweep;
  with_stem_variant(dtype, vector, p.shape.channels_last, [&](auto v) {
    using V = decltype(v);
    launch_sweep("stem_pool_backward_reduce",
                 stem_pool_backward_reduce_kernel<typename V::Type, V::kN, V::kChannelsLast>, sweep.blocks(), params,
                 stream);
  });
  launch_merge_sums(dtype, {sweep.channels, sweep.chunks, p.x ? 2 : 1, params.partial, p.affine, nullptr, p.sums},
                    stream);
}

void stem_pool_backward_apply(DType dtype, const StemPoolBackwardParams& p, cudaStream_t stream) {
  int vector = access_of(dtype, p);
  PoolBackwardParams params = backward_params(p, vector, nullptr);
  with_stem_variant(dtype, vector, p.shape.channels_last, [&](auto v) {
    using V = decltype(v);
    launch_sweep("stem_pool_backward_apply",
                 stem_pool_backward_apply_kernel<typename V::Type, V::kN, V::kChannelsLast>, params.stem.sweep.blocks(),
                 params, stream);
  });
}

}  // namespace resnet_fused::cuda
