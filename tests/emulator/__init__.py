"""CUDA kernels and their launchers, run on the CPU.

`build.library` compiles .cu files with nvcc, translates their PTX to C++ and links it with the unmodified host code and
a CUDA runtime of our own, so that `kernel<<<...>>>` runs here: one fiber per lane, adversarial schedules, and an error
for every access that is out of bounds or misaligned. `library.Emulated` is what tests use.

    ptx.py          the text of a PTX module -> entries, variables, instructions
    operands.py     operands and modifiers of an instruction in C++
    instructions/   an instruction -> a statement of C++; one file per kind
    translate.py    a module -> C++, with one function per entry, which every lane runs
    build.py        nvcc, the translation, g++, the link; what has not changed is kept
    library.py      the library's C interface for Python
    runtime/        fibers, scheduler, warp collectives, memory checks, counters, the CUDA runtime's functions

A message names the kernel, the block, the thread, the line of the .cu file and the instruction. The schedules: "random"
runs lanes, warps and blocks in a random order, interrupts them between accesses, and lets asynchronous copies land at
any time; "latest" lets them land as late as their wait allows, and a warp run ahead of the others. Until a copy has
landed its destination is poisoned, as shared memory is at first. A kernel is right if its numbers are right in both,
for several seeds. Accesses out of bounds are found next to memory that is guarded: Emulated.guard, or TORCH_ALLOCATOR.

A file whose name ends in _sm90.cu is compiled for sm_90a, and may use its wgmma with both operands in shared memory:
each warp reads its part of them between issue and wait, at any time or at the end, while its accumulators are poisoned.
Errors are: operands that change before the wait, or that were written and not fenced for the async proxy; registers
touched while a product is under way; a missing wgmma.fence or wait; warps that do not issue the same.

What is not modelled: time; caches and the order in which other blocks see memory; blocks that wait for each other; a
barrier that some lanes miss because they have ended (they are not waited for); the payload of a NaN that f32 and f64
arithmetic makes. Approximations (ex2.approx and others) are computed exactly. The tensor core's sums are taken in
double and rounded once, to nearest. Functions that are not inlined are refused, and of sm_90a all but wgmma (swizzles of
64 and 128 bytes, a from shared memory) and fence.proxy.async: no TMA, mbarriers or clusters.
"""
