// The pipeline over the chunks of the reduction. An operand of the product has
//     load(tiles): starts the copies of the next chunk to shared memory, of this thread's own pieces: a tile of each of
//         its tensors, the first of which is what enters the product,
//     skip(): stands for a load of nothing, behind the last chunk,
//     form(tiles, lag): applies the prologue to this thread's own pieces of the chunk that was loaded `lag` loads ago.
// A thread forms only what it copied itself, so that nothing has to be waited for between copy and prologue but its own
// copies, and each element is formed once, however many warps read it. The product of a chunk may run in the background,
// beside the copying and forming of others: multiply() starts it, finish() waits for it; publish() stands behind what a
// thread wrote to shared memory, before the barrier.
#pragma once

#include "arch/cp_async.cuh"
#include "conv_product.cuh"

namespace resnet_fused::cuda {

// product += a b over `chunks` chunks, with 3 or 4 stages. Tiles are named by their distance from the beginning of
// shared memory.
template <typename ProductType, typename OperandA, typename OperandB>
__device__ __forceinline__ void multiply_chunks(ProductType& product, OperandA& a, OperandB& b, int chunks,
                                                const TilePlan& plan) {
  int stages = plan.stages, a_bytes = plan.a_bytes, lag = stages - 2, end = stages * plan.stage_bytes;
  auto after = [&](int stage) { return stage + plan.stage_bytes == end ? 0 : stage + plan.stage_bytes; };
  auto load = [&](int chunk, int stage) {
    if (chunk < chunks) {
      a.load(stage);
      b.load(stage + a_bytes);
    } else {
      a.skip();
      b.skip();
    }
    cp_async_commit();  // of nothing, behind the last chunk: so that every iteration has a group
  };
  auto form = [&](int chunk, int stage) {
    if (chunk < chunks) {
      a.form(stage, lag);
      b.form(stage + a_bytes, lag);
    }
  };

  int loading = 0, current = 0;
  for (int i = 0; i < stages - 1; ++i) {
    load(i, loading);
    loading = after(loading);
  }
  stages == 3 ? cp_async_wait<1>() : cp_async_wait<2>();
  form(0, current);
  for (int chunk = 0; chunk < chunks; ++chunk) {
    stages == 3 ? cp_async_wait<0>() : cp_async_wait<1>();  // the copies of the next chunk are there
    product.publish();
    __syncthreads();  // the current chunk is formed, and nobody reads the previous one any more, whose stage comes next
    if constexpr (ProductType::kInBackground) {
      product.multiply(current, current + a_bytes);
    }
    load(chunk + stages - 1, loading);
    loading = after(loading);
    if constexpr (!ProductType::kInBackground) {
      product.multiply(current, current + a_bytes);
    }
    current = after(current);
    form(chunk + 1, current);
    product.finish();
  }
  cp_async_wait<0>();
  __syncthreads();  // shared memory is free for the epilogue
}

}  // namespace resnet_fused::cuda
