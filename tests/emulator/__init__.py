"""CUDA kernels and their launchers, run on the CPU.

`build.library` compiles .cu files with nvcc, translates their PTX to C++ and links it with the unmodified host code and a
CUDA runtime of our own, so that `kernel<<<...>>>` runs here: one fiber per lane, adversarial schedules, and an error for
every access that is out of bounds or misaligned. `library.Emulated` is what tests use.

    ptx.py        the text of a PTX module -> entries, variables, instructions
    translate.py  an entry -> a C++ function that is run by every lane; instructions/ has one file per kind of them
    build.py      nvcc, the translation, g++, the link; what has not changed is kept
    library.py    the library's C interface for Python
    runtime/      fibers, scheduler, warp collectives, memory checks, counters, the CUDA runtime's functions

What it does not model: time, the order in which the memory of different blocks becomes visible, blocks that wait for each
other, the payload of a NaN that arithmetic makes. Approximations (ex2.approx and others) are computed exactly, sums of a
tensor core in double and rounded once.
"""
