// The pipeline over the chunks of the reduction. An operand of the product has
//     load(tiles): starts the copies of the next chunk to shared memory, of this thread's own pieces: a tile of each of
//         its tensors, the first of which is what enters the product,
//     form(tiles, lag): applies the prologue to this thread's own pieces of the chunk that was loaded `lag` loads ago.
// A thread forms only what it copied itself, so that nothing has to be waited for between copy and prologue but its own
// copies, and each element is formed once, however many warps read it. The product of a chunk may run beside the
// forming of the next: multiply() starts it, finish() waits for it; publish() stands behind what a thread wrote to shared
// memory and before the barrier.
#pragma once

#include "arch/cp_async.cuh"
#include "conv_product.cuh"

namespace resnet_fused::cuda {

extern __shared__ __align__(1024) char shared_memory[];  // the swizzle of wgmma repeats after as much

// Until at most `pending` of this thread's groups of copies, the latest, are under way.
__device__ __forceinline__ void wait_for_copies(int pending) {
  switch (pending) {
    case 0:
      return cp_async_wait<0>();
    case 1:
      return cp_async_wait<1>();
    default:
      return cp_async_wait<2>();
  }
}

// product += a b over `chunks` chunks, with 3 or 4 stages.
template <typename ProductType, typename OperandA, typename OperandB>
__device__ __forceinline__ void multiply_chunks(ProductType& product, OperandA& a, OperandB& b, int chunks,
                                                const TilePlan& plan) {
  int stages = plan.stages, a_bytes = plan.a_bytes, lag = stages - 2;
  char* last = shared_memory + (stages - 1) * plan.stage_bytes;
  auto after = [&](char* stage) { return stage == last ? shared_memory : stage + plan.stage_bytes; };

  // Operands load zeros after their last chunk, so that every iteration issues as many groups of copies.
  char* loading = shared_memory;
  for (int i = 0; i < stages - 1; ++i) {
    a.load(loading);
    b.load(loading + a_bytes);
    cp_async_commit();
    loading = after(loading);
  }
  char* current = shared_memory;
  wait_for_copies(stages - 2);
  a.form(current, lag);
  b.form(current + a_bytes, lag);
  for (int chunk = 0; chunk < chunks; ++chunk) {
    wait_for_copies(stages - 3);  // those of the next chunk are there
    product.publish();
    __syncthreads();  // the current chunk is formed, and nobody reads the previous one any more, whose stage comes next
    a.load(loading);
    b.load(loading + a_bytes);
    cp_async_commit();
    loading = after(loading);
    product.multiply(current, current + a_bytes);
    current = after(current);
    a.form(current, lag);
    b.form(current + a_bytes, lag);
    product.finish();
  }
  cp_async_wait<0>();
  __syncthreads();  // shared memory is free for the epilogue
}

}  // namespace resnet_fused::cuda
